"""The guard lets finite images through untouched, and nothing else."""

from typing import Any

import pytest
import torch

from catsweep.errors import MetricError
from catsweep.metrics.finite import FiniteImages, device_of


def test_finite_images_pass_untouched(tiny_reconstructor: Any) -> None:
    model = tiny_reconstructor().eval()
    guarded, latents = FiniteImages(model), torch.randn(3, 4)
    assert torch.equal(guarded.decode(latents), model.decode(latents))
    assert torch.equal(guarded.reconstruct(model.decode(latents)), model.decode(latents))
    assert (guarded.latent_size, guarded.image_size) == (4, 16)
    assert model in list(guarded.modules())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_value_that_is_not_finite_is_enough(tiny_reconstructor: Any, value: float) -> None:
    images = torch.rand(2, 3, 16, 16)
    images[1, 2, 3, 4] = value
    model = tiny_reconstructor()
    model.decode = model.reconstruct = lambda _: images
    for draw in (FiniteImages(model).decode, FiniteImages(model).reconstruct):
        with pytest.raises(MetricError, match="diverged"):
            draw(images)


def test_the_device_is_that_of_the_parameters(tiny_reconstructor: Any) -> None:
    assert device_of(tiny_reconstructor().to("meta")) == torch.device("meta")
    assert device_of(object()) == torch.device("cpu")
