"""Protocols of models, by what the rest of the code asks of them, and the latents that they draw from."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from catsweep.images import to_uint8


@runtime_checkable
class Generator(Protocol):
    """A model that draws images from latents.

    >>> class Grey:
    ...     latent_size, image_size = 2, 4
    ...     def decode(self, latents: Tensor) -> Tensor:
    ...         return torch.full((len(latents), 3, 4, 4), 0.5)
    >>> isinstance(Grey(), Generator), isinstance(Grey(), Reconstructor)
    (True, False)
    """

    latent_size: int
    image_size: int

    def decode(self, latents: Tensor) -> Tensor:
        """Draw one image (N, 3, image_size, image_size) in [0, 1] per standard normal latent (N, latent_size).

        From the averaged (EMA) weights where the model keeps them.
        """
        ...


@runtime_checkable
class Reconstructor(Generator, Protocol):
    """A generator that also encodes an image and draws it again."""

    def reconstruct(self, images: Tensor) -> Tensor:
        """Encode and decode images: float (N, 3, H, W) in [0, 1] to the same shape and range."""
        ...


@runtime_checkable
class LatentEncoder(Reconstructor, Protocol):
    """A reconstructor that also returns the latents of an image."""

    def latents_of(self, images: Tensor) -> Tensor:
        """Compute the latents (N, latent_size) from which `decode` draws images (N, 3, H, W) in [0, 1] best.

        Over many photos they are about standard normal.
        """
        ...


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a block in evaluation mode without gradients, then restore the mode of every submodule.

    >>> with evaluating(layer := nn.Linear(2, 2)):
    ...     layer.training, torch.is_grad_enabled()
    (False, False)
    """
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def generate(model: Generator, latents: Tensor, batch_size: int = 64) -> Tensor:
    """Draw images, uint8 (N, H, W, 3) on the CPU, from latents (N, latent_size), in full precision.

    A module is put in evaluation mode meanwhile. `batch_size` bounds the memory, and changes nothing else.

    >>> model = nn.Identity()
    >>> model.decode = lambda latents: torch.full((len(latents), 3, 4, 4), 0.5)
    >>> generate(model, draw_latents(5, 2, seed=0)).shape
    torch.Size([5, 4, 4, 3])
    """
    parts: tuple[Tensor, ...] = torch.split(latents, batch_size)
    if not isinstance(model, nn.Module):
        return torch.cat([to_uint8(model.decode(part)).cpu() for part in parts])
    device = next((parameter.device for parameter in model.parameters()), latents.device)
    # Autocast is off so that a score does not depend on whether it was taken inside a bf16 training loop.
    with evaluating(model), torch.autocast(device.type, enabled=False):
        return torch.cat([to_uint8(model.decode(part.to(device))).cpu() for part in parts])


def draw_latents(n: int, latent_size: int, seed: int) -> Tensor:
    """Draw standard normal latents, float32 (n, latent_size), that depend on the arguments alone.

    NumPy draws them, so that an exported bundle, which has no torch, draws the same cats from the same seed. The first
    rows do not change when `n` grows.

    >>> draw_latents(2, 3, seed=0).shape
    torch.Size([2, 3])
    """
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, latent_size), dtype=np.float32))


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Interpolate latents (d,) along the great circle (slerp; Shoemake 1985, White 2016, arXiv:1609.04468).

    A straight line would cross the low-norm middle, where a generator of normal latents has never been. Norms go
    evenly from that of `start` to that of `end`. Returns (steps, d), both ends included; a ValueError for steps < 2.

    >>> interpolate(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), steps=3)
    tensor([[1.0000, 0.0000],
            [0.7071, 0.7071],
            [0.0000, 1.0000]])
    """
    if steps < 2:
        raise ValueError(f"An interpolation needs at least 2 steps, both ends included; got {steps}.")
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=start.device).unsqueeze(1)
    a, b = (torch.nn.functional.normalize(latent.double(), dim=0) for latent in (start, end))
    angle = torch.arccos((a @ b).clamp(-1, 1))
    sine = torch.sin(angle)
    if sine < 1e-4:  # parallel or opposite: every great circle would do, and the formula is 0/0
        path = torch.lerp(start.double(), end.double(), t)
    else:
        # Directions on the circle and norms apart: between nearly opposite latents of different norms the formula on
        # the latents themselves goes far outside both.
        norms = torch.lerp(start.double().norm(), end.double().norm(), t)
        path = norms * (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine
    path = path.to(start.dtype)
    path[0], path[-1] = start, end
    return path
