"""The scores themselves, as pure functions and torchmetrics classes: distances between sets of images.

`catsweep.metrics.scorer` decides which images are scored against which; nothing here reads files, draws random
numbers from the global state, or knows a model. Everything over features is accumulated in float64.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities.data import dim_zero_cat

from catsweep.errors import MetricError
from catsweep.images import to_float

if TYPE_CHECKING:
    from catsweep.metrics.statistics import Moments

BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the scales, Wang et al. 2003
KID_SUBSETS = 10
WINDOW = 11  # pixels, the Gaussian window of Wang et al. 2004 (sigma 1.5)


class GivenFeatures(nn.Module):
    """The `feature` of a torchmetrics class that is fed features instead of images, so that each is extracted once."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        """Return the features."""
        return features


class FID(FrechetInceptionDistance):
    """torchmetrics' FID (Heusel et al. 2017, arXiv:1706.08500) with cached real statistics and a faster `compute`.

    `update(features, real=False)` takes features, float (N, D), not images.

    Args:
        reference: moments of the real features.
    """

    fake_features: list[Tensor]

    def __init__(self, reference: "Moments") -> None:
        super().__init__(feature=GivenFeatures(reference.mean.numel()), reset_real_features=False)
        self.reference = reference
        # torchmetrics keeps sums, not moments.
        total = reference.size
        self.real_features_sum = reference.mean * total
        self.real_features_cov_sum = reference.covariance * (total - 1) + total * torch.outer(
            reference.mean, reference.mean
        )
        self.real_features_num_samples = torch.tensor(total)
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add features of generated images.

        Args:
            imgs: float, shape (N, D): features (torchmetrics' name for the argument is kept).
            real: must be False; the real side is the reference.
        """
        if real:
            raise MetricError("The real features of this FID are its reference; update it with real=False only.")
        super().update(imgs, real)
        self.fake_features.append(imgs.double())

    def compute(self) -> Tensor:
        """The distance, float64, shape (): what torchmetrics' own `compute` gives from the same state."""
        return frechet_distance(dim_zero_cat(self.fake_features), self.reference)


def frechet_distance(features: Tensor, reference: "Moments") -> Tensor:
    """Frechet distance between Gaussians fitted to some features and to the reference (Heusel et al. 2017, eq. 6).

    |m - m_r|^2 + tr C + tr C_r - 2 tr (C_r C)^1/2. With A = (features - m) / sqrt(n - 1), so that C = A^T A, and
    S = C_r^1/2, the last trace is the sum of the singular values of A S: an n x D matrix instead of the
    eigenvalues of a D x D one that is not symmetric.

    Args:
        features: float, shape (n, D), n at least 2.
        reference: moments of the real features, over the same D.

    Returns:
        float64, shape (), at least 0 up to rounding.

    Raises:
        MetricError: fewer than 2 samples, another D, or features that are not finite.
    """
    _require_features(features, reference.mean.numel())
    features = features.double()
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    cross = torch.linalg.svdvals(centred @ reference.root).sum()
    means: Tensor = (mean - reference.mean).square().sum()
    return means + centred.square().sum() + reference.trace - 2 * cross


def kernel_distance(features: Tensor, reference: Tensor, seed: int, subsets: int = KID_SUBSETS) -> float:
    """Kernel distance, KID (Binkowski et al. 2018, arXiv:1801.01401): unbiased, so it can be taken on few samples.

    torchmetrics' class over `subsets` subsets, each of all the samples there are on the smaller side, so that the
    mean hardly depends on the draw; which real ones each subset has is drawn from `seed`.

    Args:
        features: float, shape (n, D), n at least 2.
        reference: float, shape (m, D), real features, m at least 2.
        seed: of the subsets.
        subsets: number of subsets averaged.

    Returns:
        The mean over the subsets; may be slightly negative.
    """
    _require_features(features, reference.shape[1])
    _require_features(reference, reference.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted")
        metric = KernelInceptionDistance(
            feature=GivenFeatures(features.shape[1]), subsets=subsets, subset_size=min(len(features), len(reference))
        )
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws its subsets from the global state
        torch.manual_seed(seed)
        mean, _ = metric.compute()
    return float(mean)


@dataclass(frozen=True)
class Nearest:
    """How near samples lie to the training images, against how near unseen real images lie.

    Attributes:
        ratio: median distance of the samples over that of the held-out images; near or above 1 for an honest
            generator, towards 0 for one that copies.
        copied: share of the samples that are nearer to a training image than 95 % of the held-out images are;
            0.05 when samples lie as unseen cats do, towards 1 when they are copies.
    """

    ratio: float
    copied: float


def nearest_distance(features: Tensor, train: Tensor, held_out: Tensor) -> Nearest:
    """Compare the samples' distances to their nearest training images with those of held-out real images.

    Args:
        features: float, shape (n, D), of samples.
        train: float, shape (t, D), of the training images.
        held_out: float, shape (h, D), of real images that were not trained on.

    Raises:
        MetricError: one of them is empty or not finite.
    """
    for part in (features, train, held_out):
        _require_features(part, train.shape[1], at_least=1)
    samples, unseen = (torch.cdist(part.double(), train.double()).amin(1) for part in (features, held_out))
    threshold = torch.quantile(unseen, 0.05)
    floor = torch.finfo(torch.float32).tiny  # held-out images that are themselves in the training set
    return Nearest(
        ratio=float(samples.median() / unseen.median().clamp_min(floor)),
        copied=float((samples < threshold).double().mean()),
    )


def ssim(images: Tensor, originals: Tensor, batch_size: int = 64) -> float:
    """Mean structural similarity (Wang et al. 2004) of images to their originals, torchmetrics' (sigma 1.5).

    Args:
        images: uint8, shape (N, H, W, 3).
        originals: uint8, same shape.
        batch_size: images compared at once; bounds memory.

    Returns:
        In [-1, 1], 1 for equal images.
    """
    _require_same(images, originals)
    settings: dict[str, Any] = {"data_range": 1.0, "reduction": "none"}
    parts = [
        cast(Tensor, structural_similarity_index_measure(to_float(a), to_float(b), **settings))
        for a, b in zip(torch.split(images, batch_size), torch.split(originals, batch_size), strict=True)
    ]
    return _mean(parts)


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
    betas = tuple(weight / sum(weights) for weight in weights)
    settings: dict[str, Any] = {"data_range": 1.0, "reduction": "none", "betas": betas, "normalize": "relu"}
    parts = [
        multiscale_structural_similarity_index_measure(to_float(a), to_float(b), kernel_size=WINDOW, **settings)
        for a, b in zip(torch.split(images, batch_size), torch.split(others, batch_size), strict=True)
    ]
    return _mean(parts)


def scales(side: int) -> int:
    """How many of MS-SSIM's five scales an image of that side has room for with its 11-pixel window.

    2 at 32 pixels, 3 at 64, 4 at 128, 5 from 176; the weights of those used are scaled to sum to 1.

    Raises:
        MetricError: smaller than the window.
    """
    if side < WINDOW:
        raise MetricError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels; got {side}. Train larger ones.")
    return max(n for n in range(1, len(BETAS) + 1) if side // max(1, n - 1) ** 2 >= WINDOW and side >= 2**n)


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


def _mean(parts: list[Tensor]) -> float:
    values = torch.cat([part.reshape(-1) for part in parts]).double()
    if not torch.isfinite(values).all():
        raise MetricError("A similarity is not finite; the images compared must hold no broken values.")
    return float(values.mean())


def _require_same(images: Tensor, others: Tensor) -> None:
    if images.shape != others.shape or images.dtype != torch.uint8 or others.dtype != torch.uint8 or not len(images):
        raise MetricError(
            "Expected two stacks of stored images, uint8 (N, H, W, 3), of one shape and not empty; got "
            f"{images.dtype} {tuple(images.shape)} and {others.dtype} {tuple(others.shape)}."
        )


def _require_features(features: Tensor, num_features: int, at_least: int = 2) -> None:
    if features.ndim != 2 or features.shape[1] != num_features or len(features) < at_least:
        raise MetricError(
            f"Expected features of at least {at_least} images, (N, {num_features}); got {tuple(features.shape)}. "
            "Raise the number of samples, or of images in the data set."
        )
    if not torch.isfinite(features).all():
        raise MetricError("Features must be finite; some of these are not. Check what the model draws.")
