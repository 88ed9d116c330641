"""Similarity of images by their pixels: SSIM of reconstructions, and how alike the images of a set are.

torchmetrics' SSIM and MS-SSIM on stored images, with the choices that small images force stated once. Used by
`catsweep.metrics.scorer`, and by `catsweep.metrics.statistics` for the real pairs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from catsweep.errors import MetricError
from catsweep.images import to_float

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the scales, Wang et al. 2003
WINDOW = 11  # pixels, the Gaussian window of Wang et al. 2004 (sigma 1.5)


def ssim(images: Tensor, originals: Tensor, batch_size: int = 64) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image to its original, torchmetrics' (sigma 1.5).

    Args:
        images: uint8, shape (N, H, W, 3).
        originals: uint8, same shape.
        batch_size: images compared at once; bounds memory.

    Returns:
        float64, shape (N,), in [-1, 1], 1 for equal images.
    """
    return _of_pairs(structural_similarity_index_measure, images, originals, batch_size)


def ms_ssim(images: Tensor, others: Tensor, batch_size: int = 64) -> float:
    """Mean multi-scale structural similarity (Wang et al. 2003) of pairs, torchmetrics', over `scales(side)` scales.

    Contrast terms below 0 count as 0: unrelated images have them, and their fractional powers do not exist.

    Args:
        images: uint8, shape (N, H, W, 3).
        others: uint8, same shape.
        batch_size: pairs compared at once; bounds memory.

    Returns:
        In [0, 1], 1 for equal images.
    """
    _require_same(images, others)
    weights = BETAS[: scales(min(images.shape[1:3]))]
    measure = partial(
        multiscale_structural_similarity_index_measure,
        kernel_size=WINDOW,
        betas=tuple(weight / sum(weights) for weight in weights),
        normalize="relu",
    )
    return float(_of_pairs(measure, images, others, batch_size).mean())


def scales(side: int) -> int:
    """How many of MS-SSIM's five scales an image of that side has room for with its 11-pixel window.

    1 below 22 pixels, 2 at 32, 3 at 64, 4 at 128, 5 from 176; the weights of those used are scaled to sum to 1.

    Raises:
        MetricError: smaller than the window.
    """
    if side < WINDOW:
        raise MetricError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels; got {side}. Train larger ones.")
    # The coarsest scale must hold a whole window; the other bound is torchmetrics' own.
    fitting = (n for n in range(1, len(BETAS) + 1) if min(side // 2 ** (n - 1), side // max(1, n - 1) ** 2) >= WINDOW)
    return max(fitting)


def pair_similarity(images: Tensor, pairs: int, seed: int) -> float:
    """Mean MS-SSIM of random pairs of a set: how alike its images are (Odena et al. 2017, arXiv:1610.09585).

    The pairs follow a random cycle through the images, so that none is paired with itself and each is used equally.

    Args:
        images: uint8, shape (N, H, W, 3), N at least 2.
        pairs: number of pairs; more than N are cut to N.
        seed: of the cycle.
    """
    if len(images) < 2:
        raise MetricError(f"Pairs need at least 2 images; got {len(images)}. Raise the number of samples.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    first, second = order[:pairs], order.roll(-1)[:pairs]
    return ms_ssim(images[first], images[second])


def _of_pairs(measure: Callable[..., Any], images: Tensor, others: Tensor, batch_size: int) -> Tensor:
    _require_same(images, others)
    # Autocast would take the windows' means in bf16, which has 3 digits.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        values = torch.cat(
            [
                measure(to_float(a), to_float(b), data_range=1.0, reduction="none").reshape(-1)
                for a, b in zip(torch.split(images, batch_size), torch.split(others, batch_size), strict=True)
            ]
        ).double()
    if not torch.isfinite(values).all():
        raise MetricError("A similarity is not finite; the images compared must hold no broken values.")
    return values


def _require_same(images: Tensor, others: Tensor) -> None:
    if images.shape != others.shape or images.dtype != torch.uint8 or others.dtype != torch.uint8 or not len(images):
        raise MetricError(
            "Expected two stacks of stored images, uint8 (N, H, W, 3), of one shape and not empty; got "
            f"{images.dtype} {tuple(images.shape)} and {others.dtype} {tuple(others.shape)}."
        )
