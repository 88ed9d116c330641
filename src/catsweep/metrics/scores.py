"""Distances between sets of images, over their features: FID, KID, recall, coverage, and the nearest training image.

Pure functions and torchmetrics classes, beside `catsweep.metrics.similarity`, which compares pixels. Nothing here
reads files, draws random numbers from the global state, or knows a model; `catsweep.metrics.scorer` decides which
images are scored against which. Everything is accumulated in float64.
"""

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance
from torchmetrics.utilities.data import dim_zero_cat

from catsweep.errors import MetricError

if TYPE_CHECKING:
    from catsweep.metrics.statistics import Moments

KID_SUBSETS = 10
NEIGHBOURS = 5  # k of recall and coverage, as in Naeem et al. 2020
VARIETY_IMAGES = 2_000  # of each kind, at most: the distances of all pairs of them take 15 seconds on one core


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
        # One process scores while the others wait (`catsweep.metrics.callback`): nothing is there to be gathered.
        super().__init__(
            feature=GivenFeatures(reference.mean.numel()), reset_real_features=False, sync_on_compute=False
        )
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
        super().update(imgs.double(), real)
        self.fake_features.append(imgs.double())

    def compute(self) -> Tensor:
        """The distance, float64, shape (): what torchmetrics' own `compute` gives from the same state.

        Raises:
            MetricError: fewer than 2 samples.
        """
        if not self.fake_features:
            raise MetricError("FID needs features of at least 2 generated images; none were given. Call update first.")
        return frechet_distance(dim_zero_cat(self.fake_features), self.reference)


def frechet_distance(features: Tensor, reference: "Moments") -> Tensor:
    """Frechet distance between Gaussians fitted to some features and to the reference (Heusel et al. 2017, eq. 6).

    |m - m_r|^2 + tr C + tr C_r - 2 tr (C_r C)^1/2. With A = (features - m) / sqrt(n - 1), so that C = A^T A, and
    S = C_r^1/2, the last trace is the sum of the singular values of A S: an n x D matrix instead of the
    eigenvalues of a D x D one that is not symmetric. With fewer samples than features most of those eigenvalues are
    0 up to rounding, and torchmetrics sums their roots: real features of 512 samples differ from it by 1e-6, and
    from the exact value by 1e-14.

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
    cross: Tensor = torch.linalg.svdvals(centred @ reference.root).sum()
    means: Tensor = (mean - reference.mean).square().sum()
    traces: Tensor = centred.square().sum() + reference.trace - 2 * cross
    return means.add(traces)


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
            feature=GivenFeatures(features.shape[1]),
            subsets=subsets,
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
class Variety:
    """How much of the variety of the real images the samples have.

    Attributes:
        recall: share of the real images that lie among the samples: nearer to one of them than its k-th nearest other
            sample is (Kynkaanniemi et al. 2019, arXiv:1904.06991). One sample far from all others can feign it.
        coverage: share of the real images that have a sample among them: nearer than their own k-th nearest real image
            (Naeem et al. 2020, arXiv:2002.09797). Real images in the place of samples have 1 - 2^-k of them at least
            about: 0.97.
    """

    recall: float
    coverage: float


def variety(features: Tensor, reference: Tensor, seed: int, k: int = NEIGHBOURS) -> Variety:
    """Recall and coverage, from as many samples as real images.

    Both depend on how many there are: with equal numbers they do not depend on the size of the data set. So the real
    ones are drawn from `seed`, or the first samples are taken, down to the smaller number, at most `VARIETY_IMAGES`.

    Args:
        features: float, shape (n, D), of samples, n at least 2.
        reference: float, shape (m, D), of real images, m at least 2.
        seed: of the draw.
        k: which neighbour bounds the place of an image; fewer if there are not so many.
    """
    _require_features(features, reference.shape[1])
    _require_features(reference, reference.shape[1])
    n = variety_size(len(features), len(reference))
    drawn = torch.randperm(len(reference), generator=torch.Generator().manual_seed(seed))[:n]
    samples, real = features[:n].double(), reference[drawn].double()
    k = min(k, n - 1)
    distances = _distances(real, samples)
    return Variety(
        recall=float((distances <= _radii(samples, k)).any(1).double().mean()),
        coverage=float((distances.amin(1) <= _radii(real, k)).double().mean()),
    )


def variety_size(samples: int, real: int) -> int:
    """How many of each kind `variety` compares."""
    return min(samples, real, VARIETY_IMAGES)


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance of each to its k-th nearest other, shape (n,)."""
    return _distances(features, features).kthvalue(k + 1, dim=1).values  # the nearest is itself


def _distances(first: Tensor, second: Tensor) -> Tensor:
    # By products of matrices it is six times as fast, and copies of one image would then lie apart, by rounding.
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


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


def _require_features(features: Tensor, num_features: int, at_least: int = 2) -> None:
    if features.ndim != 2 or features.shape[1] != num_features or len(features) < at_least:
        raise MetricError(
            f"Expected features of at least {at_least} images, (N, {num_features}); got {tuple(features.shape)}. "
            "Raise the number of samples, or of images in the data set."
        )
    if not torch.isfinite(features).all():
        raise MetricError("Features must be finite; some of these are not. Check what the model draws.")
