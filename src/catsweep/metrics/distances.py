"""Distances between sets of images: by their features (FID, KID, recall, coverage, nearest) and by their pixels (SSIM).

Pure functions and torchmetrics classes, accumulated in float64, that draw nothing from the global random state.
Features are float (n, D), a row for each image; images are uint8 (N, H, W, 3). A MetricError says which are too few, of
another shape, or not finite.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

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

KID_SUBSETS = 10
NEIGHBOURS = 5  # k of recall and coverage, as in Naeem et al. 2020
DIVERSITY_IMAGES = 2_000  # of each kind, at most: the distances of all pairs of them take 15 seconds on one core
BETAS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # weights of the scales, Wang et al. 2003
BATCH = 64  # pairs of images compared at once; bounds memory
WINDOW = 11  # pixels, the Gaussian window of Wang et al. 2004 (sigma 1.5)


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, float64, with what the Frechet distance needs of them."""

    size: int  # number of images
    mean: Tensor  # shape (D,)
    covariance: Tensor  # shape (D, D), normalised by size - 1
    root: Tensor  # shape (D, D), the symmetric square root of the covariance

    @property
    def trace(self) -> Tensor:
        """Total variance, shape ()."""
        return self.covariance.trace()

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Compute the moments of features, float (N, D), of at least 2 images.

        >>> Moments.of(torch.tensor([[0.0], [2.0]])).covariance.item()
        2.0
        """
        if len(features) < 2:
            raise MetricError(f"Reference statistics need at least 2 real images; got {len(features)}. Add photos.")
        features = features.double()
        mean = features.mean(0)
        centred = (features - mean) / (len(features) - 1) ** 0.5
        covariance = centred.T @ centred
        if len(features) < features.shape[1]:
            # Most eigenvalues of C are 0; their roots would keep half the digits. The singular values keep them all.
            _, deviations, vectors = torch.linalg.svd(centred, full_matrices=False)
            return cls(len(features), mean, covariance, (vectors.T * deviations) @ vectors)
        values, axes = torch.linalg.eigh(covariance)
        root = (axes * values.clamp_min(0).sqrt()) @ axes.T  # rounding can leave an eigenvalue just below 0
        return cls(len(features), mean, covariance, root)


class GivenFeatures(nn.Identity):
    """The `feature` of a torchmetrics class that is fed features instead of images, so that each is extracted once."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


class CachedFID(FrechetInceptionDistance):
    """torchmetrics' FID (Heusel et al. 2017, arXiv:1706.08500) with cached real statistics and a faster `compute`."""

    fake_features: list[Tensor]

    def __init__(self, reference: Moments) -> None:
        # One process scores while the others wait (`ScoreCallback`): nothing is there to be gathered.
        super().__init__(
            feature=GivenFeatures(reference.mean.numel()), reset_real_features=False, sync_on_compute=False
        )
        self.reference = reference
        # torchmetrics keeps sums, not moments.
        total, mean = reference.size, reference.mean
        self.real_features_sum = mean * total
        self.real_features_cov_sum = reference.covariance * (total - 1) + total * torch.outer(mean, mean)
        self.real_features_num_samples = torch.tensor(total)
        self.add_state("fake_features", [], dist_reduce_fx="cat")

    def update(self, imgs: Tensor, real: bool) -> None:
        """Add features of generated images, float (N, D)."""
        if real:
            raise MetricError("The real features of this FID are its reference; update it with real=False only.")
        super().update(imgs.double(), real)
        self.fake_features.append(imgs.double())

    def compute(self) -> Tensor:
        """Compute the distance, float64, shape (): what torchmetrics' own `compute` gives from the same state."""
        if not self.fake_features:
            raise MetricError("FID needs features of at least 2 generated images; none were given. Call update first.")
        return frechet_distance(dim_zero_cat(self.fake_features), self.reference)


def frechet_distance(features: Tensor, reference: Moments) -> Tensor:
    """Compute the Frechet distance between Gaussians fitted to features and to the reference (Heusel et al. 2017).

    Equation 6: |m - m_r|^2 + tr C + tr C_r - 2 tr (C_r C)^1/2. With A = (features - m) / sqrt(n - 1), so that
    C = A^T A, and S = C_r^1/2, the last trace is the sum of the singular values of A S: an n x D matrix instead of the
    eigenvalues of a D x D one that is not symmetric. With fewer samples than features most of those eigenvalues are
    0 up to rounding, and torchmetrics sums their roots: real features of 512 samples differ from it by 1e-6, and
    from the exact value by 1e-14.

    >>> real = torch.tensor([[0.0], [2.0]])
    >>> round(float(frechet_distance(real + 3, Moments.of(real))), 6)
    9.0

    Returns:
        float64, shape (), at least 0 up to rounding.
    """
    _require_features(features, reference.mean.numel())
    features = features.double()
    mean = features.mean(0)
    centred = (features - mean) / (len(features) - 1) ** 0.5
    cross: Tensor = torch.linalg.svdvals(centred @ reference.root).sum()
    means: Tensor = (mean - reference.mean).square().sum()
    traces: Tensor = centred.square().sum() + reference.trace - 2 * cross
    return means.add(traces)


def kernel_distance(features: Tensor, reference: Tensor, seed: int) -> float:
    """Compute the kernel distance, KID (Binkowski et al. 2018, arXiv:1801.01401): unbiased, so few samples will do.

    torchmetrics' class over `KID_SUBSETS` subsets, each of all the samples there are on the smaller side, so that the
    mean hardly depends on the draw; which real ones each subset has is drawn from `seed`.

    >>> real = torch.linspace(0, 1, 12).view(6, 2)
    >>> kernel_distance(real + 1, real, seed=0) > kernel_distance(real, real, seed=0)
    True

    Returns:
        The mean, perhaps slightly negative.
    """
    _require_features(features, reference.shape[1])
    _require_features(reference, reference.shape[1])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance` will save all extracted")
        metric = KernelInceptionDistance(
            feature=GivenFeatures(features.shape[1]),
            subsets=KID_SUBSETS,
            subset_size=min(len(features), len(reference)),
            sync_on_compute=False,  # as in FID
        )
    metric.update(reference.double(), real=True)
    metric.update(features.double(), real=False)
    with torch.random.fork_rng(devices=[]):  # torchmetrics draws its subsets from the global state
        torch.manual_seed(seed)
        mean, _ = metric.compute()
    return float(mean)


@dataclass(frozen=True)
class Diversity:
    """How much of the diversity of the real images the samples have, as shares of the real images."""

    # Nearer to a sample than its k-th nearest other sample is (Kynkaanniemi et al. 2019, arXiv:1904.06991). One sample
    # far from all others can feign it.
    recall: float
    # With a sample nearer than their own k-th nearest real image (Naeem et al. 2020, arXiv:2002.09797). Real images in
    # the place of samples have about 1 - 2^-k: 0.97.
    coverage: float


def diversity(features: Tensor, reference: Tensor, seed: int) -> Diversity:
    """Compute recall and coverage, from as many samples as real images, by the `NEIGHBOURS`-th nearest of each.

    Both depend on how many there are: with equal numbers they do not depend on the size of the data set. So the real
    ones are drawn from `seed`, or the first samples are taken, down to the smaller number, at most `DIVERSITY_IMAGES`.

    >>> real = torch.eye(8)
    >>> diversity(real, real, seed=0), diversity(real + 99, real, seed=0)
    (Diversity(recall=1.0, coverage=1.0), Diversity(recall=0.0, coverage=0.0))
    """
    _require_features(features, reference.shape[1])
    _require_features(reference, reference.shape[1])
    n = min(len(features), len(reference), DIVERSITY_IMAGES)
    drawn = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))[:n]
    samples, real = features[:n].double(), reference[drawn].double()
    k = min(NEIGHBOURS, n - 1)
    distances = _distances(real, samples)
    return Diversity(
        recall=float((distances <= _radii(samples, k)).any(1).double().mean()),
        coverage=float((distances.amin(1) <= _radii(real, k)).double().mean()),
    )


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance of each to its k-th nearest other, shape (n,)."""
    return _distances(features, features).kthvalue(k + 1, dim=1).values  # the nearest is itself


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # By products of matrices it is six times as fast, and copies of one image would then lie apart, by rounding.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


@dataclass(frozen=True)
class NearestDistance:
    """How near samples lie to the training images, against how near unseen real images lie."""

    ratio: float  # of median distances; near or above 1 for an honest generator, towards 0 for one that copies
    copied: float  # share nearer than 95 % of the held-out images are; 0.05 of unseen cats, towards 1 of copies


def nearest_distance(features: Tensor, train: Tensor, held_out: Tensor) -> NearestDistance:
    """Compare the samples' distances to their nearest training images with those of held-out real images.

    >>> train = torch.tensor([[0.0], [10.0]])
    >>> nearest_distance(train, train, torch.tensor([[1.0], [8.0]]))
    NearestDistance(ratio=0.0, copied=1.0)
    """
    for part in (features, train, held_out):
        _require_features(part, train.shape[1], at_least=1)
    samples, unseen = (torch.cdist(part.double(), train.double()).amin(1) for part in (features, held_out))
    threshold = torch.quantile(unseen, 0.05)
    floor = torch.finfo(torch.float32).tiny  # held-out images that are themselves in the training set
    return NearestDistance(
        ratio=float(samples.median() / unseen.median().clamp_min(floor)),
        copied=float((samples < threshold).double().mean()),
    )


def ssim(images: Tensor, originals: Tensor) -> Tensor:
    """Compute the structural similarity (Wang et al. 2004) of each image to its original, torchmetrics' (sigma 1.5).

    >>> images = torch.arange(2 * 16 * 16 * 3).view(2, 16, 16, 3).to(torch.uint8)
    >>> ssim(images, images).round(decimals=4).tolist()
    [1.0, 1.0]

    Returns:
        float64, shape (N,), in [-1, 1].
    """
    return _of_pairs(structural_similarity_index_measure, images, originals)


def ms_ssim(images: Tensor, others: Tensor) -> float:
    """Average the multi-scale structural similarity (Wang et al. 2003) of pairs over `scales(side)` scales.

    Contrast terms below 0 count as 0: unrelated images have them, and their fractional powers do not exist.

    >>> images = torch.arange(2 * 16 * 16 * 3).view(2, 16, 16, 3).to(torch.uint8)
    >>> round(ms_ssim(images, images), 4)
    1.0

    Returns:
        In [0, 1].
    """
    weights = BETAS[: scales(min(images.shape[1:3]))]
    measure = partial(
        multiscale_structural_similarity_index_measure,
        kernel_size=WINDOW,
        betas=tuple(weight / sum(weights) for weight in weights),
        normalize="relu",
    )
    return float(_of_pairs(measure, images, others).mean())


def scales(side: int) -> int:
    """Count the scales of MS-SSIM, of its five, for which an image has room with an 11-pixel window.

    The weights of those used are scaled to sum to 1.

    >>> [scales(side) for side in (21, 32, 64, 128, 176)]
    [1, 2, 3, 4, 5]
    """
    if side < WINDOW:
        raise MetricError(f"SSIM needs images of at least {WINDOW} x {WINDOW} pixels; got {side}. Train larger ones.")
    # The coarsest scale must hold a whole window; the other bound is torchmetrics' own.
    fitting = (n for n in range(1, len(BETAS) + 1) if min(side // 2 ** (n - 1), side // max(1, n - 1) ** 2) >= WINDOW)
    return max(fitting)


def pair_similarity(images: Tensor, pairs: int, seed: int) -> float:
    """Average the MS-SSIM of random pairs of a set: how alike its images are (Odena et al. 2017, arXiv:1610.09585).

    At most N pairs follow a random cycle through the N images, so that none is paired with itself and each is used
    equally.

    >>> one = torch.arange(16 * 16 * 3).view(1, 16, 16, 3).to(torch.uint8)
    >>> round(pair_similarity(one.repeat(3, 1, 1, 1), pairs=3, seed=0), 4)
    1.0
    """
    if len(images) < 2:
        raise MetricError(f"Pairs need at least 2 images; got {len(images)}. Raise the number of samples.")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    first, second = order[:pairs], order.roll(-1)[:pairs]
    return ms_ssim(images[first], images[second])


def _of_pairs(measure: Callable[..., Any], images: Tensor, others: Tensor) -> Tensor:
    if images.shape != others.shape or images.dtype != torch.uint8 or others.dtype != torch.uint8 or not len(images):
        raise MetricError(
            "Expected two stacks of stored images, uint8 (N, H, W, 3), of one shape and not empty; got "
            f"{images.dtype} {tuple(images.shape)} and {others.dtype} {tuple(others.shape)}."
        )
    # Autocast would take the windows' means in bf16, which has 3 digits.
    with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
        values = torch.cat(
            [
                measure(to_float(a), to_float(b), data_range=1.0, reduction="none").reshape(-1)
                for a, b in zip(torch.split(images, BATCH), torch.split(others, BATCH), strict=True)
            ]
        ).double()
    if not torch.isfinite(values).all():
        raise MetricError("A similarity is not finite; the images compared must hold no broken values.")
    return values


def _require_features(features: Tensor, num_features: int, at_least: int = 2) -> None:
    if features.ndim != 2 or features.shape[1] != num_features or len(features) < at_least:
        raise MetricError(
            f"Expected features of at least {at_least} images, (N, {num_features}); got {tuple(features.shape)}. "
            "Raise the number of samples, or of images in the data set."
        )
    if not torch.isfinite(features).all():
        raise MetricError("Features must be finite; some of these are not. Check what the model draws.")
