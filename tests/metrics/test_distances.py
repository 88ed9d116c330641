"""Distances over features: equal to torchmetrics, exact, independent of the global random state."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_mmd

from catsweep.errors import MetricError
from catsweep.metrics import distances
from catsweep.metrics.distances import (
    CachedFID,
    GivenFeatures,
    Moments,
    frechet_distance,
    kernel_distance,
    nearest_distance,
)


def draws(n: int, d: int, seed: int, offset: float = 0.0, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing * scale + offset


def torchmetrics_fid(real: Tensor, fake: Tensor) -> float:
    metric = FrechetInceptionDistance(feature=GivenFeatures(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


@settings(max_examples=40, deadline=None)
@given(
    d=st.integers(1, 24),
    extra=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)),
    offset=st.floats(-3, 3),
    scale=st.floats(0.1, 10),
)
def test_frechet_distance_equals_torchmetrics(
    d: int, extra: tuple[int, int], seeds: tuple[int, int], offset: float, scale: float
) -> None:
    real = draws(d + extra[0], d, seeds[0])
    fake = draws(d + extra[1], d, seeds[1], offset, scale)
    expected = torchmetrics_fid(real, fake)
    assert float(frechet_distance(fake, Moments.of(real))) == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("reals", "fakes"), [(80, 8), (8, 80), (9, 7)])
def test_frechet_distance_with_fewer_images_than_features(reals: int, fakes: int) -> None:
    real, fake = draws(reals, 20, 0), draws(fakes, 20, 1)
    # torchmetrics takes roots of eigenvalues that are 0 up to rounding here, which costs it half its digits.
    expected = torchmetrics_fid(real, fake)
    assert float(frechet_distance(fake, Moments.of(real))) == pytest.approx(expected, rel=1e-4)


def test_fid_is_torchmetrics_state_with_another_compute() -> None:
    real, fake = draws(50, 10, 0), draws(40, 10, 1)
    metric = CachedFID(Moments.of(real))
    for part in torch.split(fake, 15):
        metric.update(part, real=False)
    assert isinstance(metric, FrechetInceptionDistance)
    assert float(metric.compute()) == pytest.approx(float(FrechetInceptionDistance.compute(metric)), rel=1e-7)
    assert float(metric.compute()) == pytest.approx(torchmetrics_fid(real, fake), rel=1e-7)


def test_fid_keeps_its_reference_when_reset() -> None:
    metric = CachedFID(Moments.of(draws(50, 10, 0)))
    values = []
    for _ in range(2):
        metric.update(draws(40, 10, 1), real=False)
        values.append((float(metric.compute()), float(FrechetInceptionDistance.compute(metric))))
        metric.reset()
    assert values[0] == values[1]


def test_fid_takes_no_other_real_images() -> None:
    with pytest.raises(MetricError, match="real=False"):
        CachedFID(Moments.of(draws(5, 3, 0))).update(draws(5, 3, 1), real=True)


@pytest.mark.filterwarnings("ignore:The ``compute`` method of metric CachedFID was called before")
def test_fid_of_nothing_says_what_is_missing() -> None:
    with pytest.raises(MetricError, match="at least 2 generated images"):
        CachedFID(Moments.of(draws(5, 3, 0))).compute()


@pytest.mark.parametrize(("n", "d"), [(60, 12), (12, 60)])
def test_frechet_distance_to_itself_is_zero(n: int, d: int) -> None:
    features = draws(n, d, 0, offset=5)
    moments = Moments.of(features)
    assert abs(float(frechet_distance(features, moments))) < 1e-9 * float(moments.trace)


def test_moments_are_accumulated_in_float64() -> None:
    features = draws(200, 6, 0).float()
    far = features + 4096.0  # exact in fp32 up to 2^-11; sums of squares in fp32 would lose the variance
    apart = frechet_distance(draws(100, 6, 1).float() + 4096.0, Moments.of(far))
    near = frechet_distance(draws(100, 6, 1).float(), Moments.of(features))
    assert apart.dtype == torch.float64
    assert float(apart) == pytest.approx(float(near), rel=1e-3)


def test_kernel_distance_is_torchmetrics_mmd_when_both_sides_are_equal_in_number() -> None:
    real, fake = draws(30, 8, 0), draws(30, 8, 1)
    expected = float(poly_mmd(real, fake))
    assert kernel_distance(fake.float(), real.float(), seed=3) == pytest.approx(expected, rel=1e-4)


def test_kernel_distance_depends_on_its_seed_alone() -> None:
    real, fake = draws(60, 8, 0), draws(20, 8, 1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = kernel_distance(fake, real, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert kernel_distance(fake, real, seed=3) == first
    assert kernel_distance(fake, real, seed=4) != first


def test_kernel_distance_is_unbiased_where_frechet_distance_is_not() -> None:
    pool = draws(400, 8, 0)
    real, few = pool[:300], pool[300:325]
    other = draws(25, 8, 1)
    assert abs(kernel_distance(few, real, seed=0)) < 0.05 * kernel_distance(other, real, seed=0)


def test_nearest_distance_shows_copies() -> None:
    train, held_out, honest = draws(300, 3, 0).split([200, 60, 40])
    copies = train[:40] + 1e-3
    copied, fair = (nearest_distance(part, train, held_out) for part in (copies, honest))
    assert copied.ratio < 0.05
    assert copied.copied > 0.9
    assert 0.5 < fair.ratio < 2
    assert fair.copied < 0.2


def test_nearest_distance_shows_a_few_copies_among_many_samples() -> None:
    train, held_out, honest = draws(300, 3, 0).split([200, 60, 40])
    partly = torch.cat([honest[:28], train[:12]])
    assert nearest_distance(partly, train, held_out).copied >= 0.3


BROKEN = torch.full((5, 3), float("nan"))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (draws(1, 3, 0), "at least 2 images"),
        (draws(0, 3, 0), "at least 2 images"),
        (draws(5, 4, 0), r"\(N, 3\)"),
        (BROKEN, "finite"),
        (BROKEN.nan_to_num(float("inf")), "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(features: Tensor, message: str) -> None:
    real = draws(9, 3, 1)
    with pytest.raises(MetricError, match=message):
        frechet_distance(features, Moments.of(real))
    with pytest.raises(MetricError, match=message):
        kernel_distance(features, real, seed=0)


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_nearest_distance_needs_all_three_sides(empty: int) -> None:
    sides = [draws(5, 3, 0), draws(5, 3, 1), draws(5, 3, 2)]
    sides[empty] = sides[empty][:0]
    with pytest.raises(MetricError, match="at least 1 image"):
        nearest_distance(*sides)


def test_scores_wait_for_no_other_process(monkeypatch):
    """One process of `trainer=ddp` scores while the others wait for it: a collective call would hang both."""
    monkeypatch.setattr("torchmetrics.metric.jit_distributed_available", lambda: True)

    def hang(*args, **kwargs):
        raise AssertionError("a collective call")

    monkeypatch.setattr("torchmetrics.metric.gather_all_tensors", hang)
    real, drawn = torch.randn(40, 4), torch.randn(30, 4)
    kernel_distance(drawn, real, seed=0)
    fid = CachedFID(Moments.of(real))
    fid.update(drawn, real=False)
    fid.compute()


def spread(n: int, dimensions: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def test_photos_have_the_diversity_of_photos() -> None:
    """Naeem et al. 2020, eq. 10: 1 - (n-1)…(n-k) / (2n-1)…(2n-k), whatever is drawn, if it is drawn alike."""
    n, k = 200, distances.NEIGHBOURS
    wanted = 1 - math.prod((n - i) / (2 * n - i) for i in range(1, k + 1))
    found = [distances.diversity(spread(n, seed=seed), spread(n, seed=1000 + seed), 0) for seed in range(12)]
    assert np.mean([one.coverage for one in found]) == pytest.approx(wanted, abs=0.015)
    assert np.mean([one.recall for one in found]) > 0.8


def test_one_sample_many_times_covers_next_to_nothing() -> None:
    real = spread(200)
    same = real[:1].repeat(200, 1)
    assert distances.diversity(same, real, 0).recall <= 1 / 200
    assert distances.diversity(same, real, 0).coverage < 0.2
    assert distances.diversity(real.flip(0), real, 0) == distances.Diversity(1, 1)


def test_far_away_nothing_is_covered_and_one_outlier_feigns_recall_but_no_coverage() -> None:
    real = spread(100)
    assert distances.diversity(real + 1000, real, 0) == distances.Diversity(0, 0)
    samples = torch.cat([real[:1].repeat(96, 1), 50 * torch.eye(8)[:4]])  # their neighbours are far, their balls large
    found = distances.diversity(samples, real, 0)
    assert found.recall > 0.9
    assert found.coverage < 0.2


@given(st.integers(2, 40), st.integers(2, 40), st.integers(0, 99))
def test_diversity_is_a_share_and_does_not_depend_on_where_zero_is(n: int, m: int, seed: int) -> None:
    samples, real = spread(n, seed=seed), spread(m, seed=seed + 100)
    found = distances.diversity(samples, real, seed)
    assert 0 <= found.recall <= 1
    assert 0 <= found.coverage <= 1
    far = distances.diversity(samples.double() + 1e4, real.double() + 1e4, seed)
    assert (far.recall, far.coverage) == pytest.approx((found.recall, found.coverage))


@given(st.integers(3, 30), st.integers(0, 99))
def test_more_of_the_same_samples_cover_no_more(n: int, seed: int) -> None:
    real = spread(4 * n, seed=seed)
    few = spread(n, seed=seed + 1)
    doubled = distances.diversity(few.repeat(4, 1), real, 0)
    assert doubled.coverage <= distances.diversity(torch.cat([few, spread(3 * n, seed=seed + 2)]), real, 0).coverage


def test_diversity_does_not_depend_on_the_size_of_the_set_and_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    whole = torch.cdist
    monkeypatch.setattr(torch, "cdist", lambda a, b, **how: (sizes.append((len(a), len(b))), whole(a, b, **how))[1])
    small, large = (distances.diversity(spread(60, seed=1), spread(n, seed=2), 0).coverage for n in (60, 2400))
    assert abs(small - large) < 0.15
    monkeypatch.setattr(distances, "DIVERSITY_IMAGES", 20)
    distances.diversity(spread(60), spread(60), 0)
    assert {*sizes} == {(60, 60), (20, 20)}


def test_diversity_is_drawn_from_the_seed_alone() -> None:
    samples, real = 0.3 * spread(30), spread(300, seed=1)
    torch.manual_seed(1)
    first = distances.diversity(samples, real, 0)
    torch.manual_seed(2)
    assert distances.diversity(samples, real, 0) == first
    assert len({distances.diversity(samples, real, seed).coverage for seed in range(8)}) > 1


def test_diversity_needs_features_of_two() -> None:
    for samples, real in ((spread(1), spread(9)), (spread(9), spread(1)), (spread(9, 4), spread(9))):
        with pytest.raises(MetricError, match="Expected features of at least 2"):
            distances.diversity(samples, real, 0)


def test_copies_have_no_neighbourhood_however_far_from_zero_they_are() -> None:
    """Distances by products of matrices have one there, of the size of their rounding."""
    real = 1000 + 1e-5 * spread(64, 1280).double()
    copies = real.mean(0).repeat(64, 1)
    assert distances.diversity(copies, real, 0).recall == 0
