"""The guard between a model and its score: what is not finite is refused before it becomes an image.

`catsweep.metrics.scorer` draws through it. After the conversion to uint8 it would be too late: a NaN is then an
ordinary black pixel, and a diverged model has a score.
"""

from typing import Any

import torch
from torch import Tensor, nn

from catsweep.errors import DivergedError, MetricError


class ImagesNotFinite(MetricError, DivergedError):
    """There is nothing to score because the training has diverged; other metric errors say nothing of the model."""


class FiniteImages(nn.Module):
    """A model that refuses to hand over images that are not finite.

    Args:
        model: a generator, perhaps a `Reconstructor`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model  # a submodule if it is a module: its modes and device are then seen through this one
        self.latent_size, self.image_size = model.latent_size, model.image_size

    def decode(self, latents: Tensor) -> Tensor:
        """The model's `decode`, checked.

        Raises:
            ImagesNotFinite: an image is not finite.
        """
        return self._checked(self.model.decode(latents))

    def reconstruct(self, images: Tensor) -> Tensor:
        """The model's `reconstruct`, checked.

        Raises:
            ImagesNotFinite: an image is not finite.
        """
        return self._checked(self.model.reconstruct(images))

    def _checked(self, images: Tensor) -> Tensor:
        if not torch.isfinite(images).all():
            raise ImagesNotFinite(
                "The model draws images that are not finite, so there is nothing to score: the training has diverged. "
                "Lower the learning rate, or train with trainer.precision=32-true."
            )
        return images


def device_of(model: Any) -> torch.device:
    """The device a model's parameters are on; the CPU if it has none."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
