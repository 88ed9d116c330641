import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steady.confirm.significance import confidence, distinct, incomplete_beta, t_quantile

# From printed tables of Student's t.
TABLE = [
    (0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.95, 3, 3.18245), (0.95, 4, 2.77645), (0.95, 5, 2.57058),
    (0.95, 10, 2.22814), (0.95, 30, 2.04227), (0.95, 120, 1.97993), (0.95, 1000, 1.96234),
    (0.90, 1, 6.31375), (0.90, 8, 1.85955), (0.99, 1, 63.6567), (0.99, 2, 9.92484), (0.99, 10, 3.16927),
]  # fmt: skip


@pytest.mark.parametrize(("level", "freedom", "wanted"), TABLE)
def test_quantiles_are_those_of_the_tables(level: float, freedom: float, wanted: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(wanted, rel=3e-6)


@given(st.floats(0.001, 0.999), st.floats(0.5, 60))
def test_incomplete_beta_keeps_its_identities(x: float, a: float) -> None:
    assert incomplete_beta(x, a, 1) == pytest.approx(x**a, rel=1e-9)
    assert incomplete_beta(x, a, 0.5) + incomplete_beta(1 - x, 0.5, a) == pytest.approx(1, rel=1e-9)
    assert incomplete_beta(0.5, a, a) == pytest.approx(0.5, rel=1e-9)
    assert (incomplete_beta(0, a, 0.5), incomplete_beta(1, a, 0.5)) == (0, 1)


@given(st.floats(1, 50), st.floats(0.5, 0.99))
def test_quantiles_between_whole_degrees_of_freedom_lie_between_theirs(freedom: float, level: float) -> None:
    above, own, below = (t_quantile(level, freedom + step) for step in (-0.5, 0, 0.5))
    assert above > own > below


def test_seeds_in_common_are_compared_pair_by_pair() -> None:
    hard = {1: 10.0, 2: 50.0, 3: 30.0}  # a seed that is hard for one is hard for the other
    assert distinct(hard, {1: 11.0, 2: 51.1, 3: 30.9})
    assert not distinct(hard, {4: 11.0, 5: 51.1, 6: 30.9})
    assert not distinct(hard, {1: 51.1, 2: 11.0, 3: 30.9})


def test_unequal_seeds_are_compared_by_welch() -> None:
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0, 23.9]
    ours, theirs = dict(enumerate(a)), dict(enumerate(b, start=100))  # P = 0.00845
    # t = -2.835 with 27.71 degrees of freedom; P by Simpson's rule over the density.
    assert distinct(ours, theirs, 0.9915)
    assert not distinct(ours, theirs, 0.9916)
    assert not distinct({1: 1.0, 2: 1.1, 3: 0.9}, {4: 2.0, 5: 4.0})  # 1.2 degrees of freedom are few


@pytest.mark.parametrize(
    ("a", "b"), [({1: 1.0}, {1: 9.0}), ({1: 1.0}, {1: 9.0, 2: 9.1}), ({1: 1.0, 2: 1.1}, {3: 99.0})]
)
def test_one_seed_tells_nothing(a: dict[int, float], b: dict[int, float]) -> None:
    assert not distinct(a, b)
    assert not distinct(b, a)


def test_values_that_never_vary_differ_if_they_do() -> None:
    assert distinct({1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0})
    assert not distinct({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0})
    assert distinct({1: 1.0, 2: 1.0}, {3: 2.0, 4: 2.0})
    assert not distinct({1: 1.0, 2: 1.0}, {3: 1.0, 4: 1.0})


@pytest.mark.parametrize("common", [True, False])
def test_equals_are_told_apart_in_one_case_of_twenty(common: bool) -> None:
    draw = random.Random(1)
    cases = 2000
    wrong = sum(
        distinct(
            {seed: draw.gauss() for seed in range(4)},
            {seed + (0 if common else 9): draw.gauss() for seed in range(4)},
        )
        for _ in range(cases)
    )
    assert 0.035 < wrong / cases < 0.06


def test_the_truly_best_is_hardly_ever_lost() -> None:
    assert [round(confidence(n), 3) for n in (1, 2, 3, 5, 11)] == [0.95, 0.95, 0.95, 0.975, 0.99]
    draw = random.Random(2)
    cases, k = 500, 9

    def lost(level: float) -> bool:
        samples = [{seed: draw.gauss() for seed in range(6)} for _ in range(k)]  # all equal: any may be the best
        winner = min(samples, key=lambda sample: fmean(sample.values()))
        return distinct(winner, samples[0], level)

    assert sum(lost(confidence(k)) for _ in range(cases)) / cases < 0.05
    assert sum(lost(0.7) for _ in range(cases)) / cases > 0.05
