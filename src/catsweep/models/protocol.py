"""What every generator can do: the small protocol that generate, the scores and the export rely on.

Anything with `latent_size`, `image_size` and `decode` is a `Generator`; one that also has
`reconstruct` is a `Reconstructor`, and with `latents_of` an `Encoder`. Nothing outside `catsweep.models` asks for more.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from catsweep.images import to_uint8


@runtime_checkable
class Generator(Protocol):
    """Draws images from latents."""

    latent_size: int
    image_size: int

    def decode(self, latents: Tensor) -> Tensor:
        """Draw one image per latent, from the averaged (EMA) weights where the model keeps them.

        Args:
            latents: float, shape (N, latent_size), standard normal.

        Returns:
            Images, float, shape (N, 3, image_size, image_size), values in [0, 1].
        """
        ...


@runtime_checkable
class Reconstructor(Generator, Protocol):
    """A generator that can also encode an image and draw it again."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode and decode: float (N, 3, H, W) in [0, 1] to the same shape and range."""
        ...


@runtime_checkable
class Encoder(Reconstructor, Protocol):
    """A reconstructor that also says which latents it draws an image from."""

    def latents_of(self, images: Tensor) -> Tensor:
        """The latents that `decode` draws these images from, as well as it can.

        Args:
            images: float, shape (N, 3, H, W), in [0, 1].

        Returns:
            float, shape (N, latent_size); over many photos about standard normal.
        """
        ...


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode without gradients, then restore the mode of every submodule."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def generate(model: Generator, latents: Tensor, batch_size: int = 64) -> Tensor:
    """Draw images from latents in batches, in full precision.

    Args:
        model: the generator. If it is a module it is put in evaluation mode meanwhile.
        latents: float, shape (N, latent_size).
        batch_size: images drawn at once; bounds memory, changes nothing else.

    Returns:
        uint8, shape (N, H, W, 3), on the CPU.
    """
    parts: tuple[Tensor, ...] = torch.split(latents, batch_size)
    if not isinstance(model, nn.Module):
        return torch.cat([to_uint8(model.decode(part)).cpu() for part in parts])
    device = next((parameter.device for parameter in model.parameters()), latents.device)
    # Autocast is off so that a score does not depend on whether it was taken inside a bf16 training loop.
    with evaluating(model), torch.autocast(device.type, enabled=False):
        return torch.cat([to_uint8(model.decode(part.to(device))).cpu() for part in parts])
