import math
import random
from statistics import fmean, stdev, variance

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steady.confirm.significance import confidence_level, p_value, significantly_different, t_quantile

# From printed tables of Student's t.
TABLE = [
    (0.95, 1, 12.7062), (0.95, 2, 4.30265), (0.95, 3, 3.18245), (0.95, 4, 2.77645), (0.95, 5, 2.57058),
    (0.95, 10, 2.22814), (0.95, 30, 2.04227), (0.95, 120, 1.97993), (0.95, 1000, 1.96234),
    (0.90, 1, 6.31375), (0.90, 8, 1.85955), (0.99, 1, 63.6567), (0.99, 2, 9.92484), (0.99, 10, 3.16927),
]  # fmt: skip
VALUES = st.floats(-100, 100).map(lambda value: round(value, 3))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function by its power series (DLMF 8.17.8), as before scipy did it."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    term = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    total, n = term, 0
    while term > total * 1e-17:
        term *= x * (a + b + n) / (a + 1 + n)
        total, n = total + term, n + 1
    return total


@pytest.mark.parametrize(("level", "freedom", "wanted"), TABLE)
def test_quantiles_are_those_of_the_tables(level: float, freedom: float, wanted: float) -> None:
    assert t_quantile(level, freedom) == pytest.approx(wanted, rel=3e-6)


@given(st.floats(1, 50), st.floats(0.5, 0.99))
def test_quantiles_are_those_of_the_incomplete_beta_function(freedom: float, level: float) -> None:
    t = t_quantile(level, freedom)
    assert incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5) == pytest.approx(1 - level, rel=1e-9)


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=8))
def test_p_values_of_common_seeds_are_those_of_the_paired_formula(pairs: list[tuple[float, float]]) -> None:
    differences = [a - b for a, b in pairs]
    assume(stdev(differences) > 1e-2)
    t = fmean(differences) / (stdev(differences) / math.sqrt(len(pairs)))
    freedom = len(pairs) - 1
    wanted = incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    a, b = (dict(enumerate(one)) for one in zip(*pairs, strict=True))
    assert p_value(a, b) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


@given(*2 * (st.lists(VALUES, min_size=2, max_size=8),))
def test_p_values_of_other_seeds_are_those_of_welch_s_formula(a: list[float], b: list[float]) -> None:
    parts = [(variance(sample) / len(sample), len(sample) - 1) for sample in (a, b)]
    total = sum(part for part, _ in parts)
    assume(total > 1e-4)
    freedom = total**2 / sum(part**2 / own for part, own in parts)
    t = (fmean(a) - fmean(b)) / math.sqrt(total)
    wanted = incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)
    assert p_value(dict(enumerate(a)), dict(enumerate(b, start=100))) == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_equal_values_that_no_float_holds_exactly_do_not_differ() -> None:
    assert not significantly_different(dict.fromkeys(range(10), 0.1), dict.fromkeys(range(20, 22), 0.1))
    assert not significantly_different(dict.fromkeys(range(10), 0.1), dict.fromkeys(range(10), 0.1))


def test_seeds_in_common_are_compared_pair_by_pair() -> None:
    hard = {1: 10.0, 2: 50.0, 3: 30.0}  # a seed that is hard for one is hard for the other
    assert significantly_different(hard, {1: 11.0, 2: 51.1, 3: 30.9})
    assert not significantly_different(hard, {4: 11.0, 5: 51.1, 6: 30.9})
    assert not significantly_different(hard, {1: 51.1, 2: 11.0, 3: 30.9})


def test_unequal_seeds_are_compared_by_welch() -> None:
    a = [27.5, 21.0, 19.0, 23.6, 17.0, 17.9, 16.9, 20.1, 21.9, 22.6, 23.1, 19.6, 19.0, 21.7, 21.4]
    b = [27.1, 22.0, 20.8, 23.4, 23.4, 23.5, 25.8, 22.0, 24.8, 20.2, 21.9, 22.1, 22.9, 30.0, 23.9]
    ours, theirs = dict(enumerate(a)), dict(enumerate(b, start=100))  # P = 0.00845
    # t = -2.835 with 27.71 degrees of freedom; P by Simpson's rule over the density.
    assert significantly_different(ours, theirs, 0.9915)
    assert not significantly_different(ours, theirs, 0.9916)
    assert not significantly_different({1: 1.0, 2: 1.1, 3: 0.9}, {4: 2.0, 5: 4.0})  # 1.2 degrees of freedom are few


@pytest.mark.parametrize(
    ("a", "b"), [({1: 1.0}, {1: 9.0}), ({1: 1.0}, {1: 9.0, 2: 9.1}), ({1: 1.0, 2: 1.1}, {3: 99.0})]
)
def test_one_seed_tells_nothing(a: dict[int, float], b: dict[int, float]) -> None:
    assert not significantly_different(a, b)
    assert not significantly_different(b, a)


def test_values_that_never_vary_differ_if_they_do() -> None:
    assert significantly_different({1: 1.0, 2: 1.0}, {1: 2.0, 2: 2.0})
    assert not significantly_different({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0})
    assert significantly_different({1: 1.0, 2: 1.0}, {3: 2.0, 4: 2.0})
    assert not significantly_different({1: 1.0, 2: 1.0}, {3: 1.0, 4: 1.0})


@pytest.mark.parametrize("common", [True, False])
def test_equals_are_told_apart_in_one_case_of_twenty(common: bool) -> None:
    draw = random.Random(1)
    cases = 2000
    wrong = sum(
        significantly_different(
            {seed: draw.gauss() for seed in range(4)},
            {seed + (0 if common else 9): draw.gauss() for seed in range(4)},
        )
        for _ in range(cases)
    )
    assert 0.035 < wrong / cases < 0.06


def test_the_truly_best_is_hardly_ever_lost() -> None:
    assert [round(confidence_level(n), 3) for n in (1, 2, 3, 5, 11)] == [0.95, 0.95, 0.95, 0.975, 0.99]
    draw = random.Random(2)
    cases, k = 500, 9

    def lost(level: float) -> bool:
        samples = [{seed: draw.gauss() for seed in range(6)} for _ in range(k)]  # all equal: any may be the best
        winner = min(samples, key=lambda sample: fmean(sample.values()))
        return significantly_different(winner, samples[0], level)

    assert sum(lost(confidence_level(k)) for _ in range(cases)) / cases < 0.05
    assert sum(lost(0.7) for _ in range(cases)) / cases > 0.05
