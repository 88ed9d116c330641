"""How far an exported file is from the model it was made from, in levels of the images that both draw.

`bundle` refuses a file above its tolerance. The files differ in how they are run (ONNX Runtime, torch.export, weights
read back), so they come here as functions.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from catsweep.export.tracing import Decode, Reconstruct
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating

# Batch sizes of the check: 1 is the one an exporter is tempted to treat as a constant, 7 is none of those it saw.
CHECKED_BATCHES = (1, 7)
CHECK_SEED = 20


def of_drawing(model: Generator, other: Callable[[Tensor], Tensor], batches: Sequence[int] = CHECKED_BATCHES) -> float:
    """Compare what another function draws from latents with what a model draws.

    Args:
        model: on the CPU, float32.
        other: from latents (N, latent_size) to images (N, 3, H, W).
        batches: sizes of the batches to compare.

    Returns:
        The largest absolute difference of any value of any image, images being in [0, 1]; infinite if a shape
        differs or a value is not a number.
    """
    latents = [draw_latents(size, model.latent_size, CHECK_SEED + size) for size in batches]
    return _largest(Decode(model), other, latents)


def of_reconstructing(
    model: Reconstructor, other: Callable[[Tensor], Tensor], batches: Sequence[int] = CHECKED_BATCHES
) -> float:
    """The same for a function from photos to images, on what the model draws, lightened and darkened by noise."""
    photos = []
    for size in batches:
        generator = torch.Generator().manual_seed(CHECK_SEED + size)
        drawn = _run(Decode(model), draw_latents(size, model.latent_size, CHECK_SEED + size))
        photos.append((drawn + 0.1 * torch.randn(drawn.shape, generator=generator)).clamp(0, 1))
    return _largest(Reconstruct(model), other, photos)


def _largest(module: nn.Module, other: Callable[[Tensor], Tensor], inputs: Sequence[Tensor]) -> float:
    largest = 0.0
    for given in inputs:
        expected, drawn = _run(module, given), other(given)
        if drawn.shape != expected.shape:
            return float("inf")
        largest = max(largest, (drawn - expected).abs().nan_to_num(nan=float("inf")).max().item())
    return largest


def _run(module: nn.Module, given: Tensor) -> Tensor:
    with evaluating(module):
        result: Tensor = module(given)
    return result
