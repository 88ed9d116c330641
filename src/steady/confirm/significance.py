"""Whether two means of a few seeds can be told apart: Student's t, without scipy.

Pure arithmetic for `steady.confirm.comparison`.
"""

import functools
import math
from collections.abc import Mapping
from statistics import fmean, stdev, variance

STEPS = 100  # of the bisection, beyond the last bit
LEVEL = 0.95


def confidence(candidates: int) -> float:
    """The level at which each candidate is compared with the winner.

    Such that in at least 95 % of all cases the truly best one is the winner or cannot be told from it. It is lost if
    any other beats it significantly by chance, each with half the probability outside a two-sided interval
    (Bonferroni). For up to three candidates that is the common 95 %.

    Args:
        candidates: how many are compared, with the winner.
    """
    return 1 - min(1 - LEVEL, 2 * (1 - LEVEL) / max(1, candidates - 1))


def distinct(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> bool:
    """Whether the means of two samples differ significantly.

    Args:
        a: values by seed.
        b: the same of another.
        level: of the confidence interval for their difference.

    Returns:
        False whenever fewer than two values of either tell how much they vary.
    """
    if min(len(a), len(b)) < 2:
        return False
    difference, error, freedom = _paired(a, b) if a.keys() == b.keys() else _welch(a, b)
    return abs(difference) > t_quantile(level, freedom) * error


@functools.cache
def t_quantile(level: float, freedom: float) -> float:
    """How far Student's t strays from 0 to either side with probability `level`.

    Args:
        level: above 0, below 1.
        freedom: degrees of freedom, above 0; need not be whole.
    """
    # P(|T| > t) is the regularised incomplete beta function at x = freedom / (freedom + t²).
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        x = (low + high) / 2
        low, high = (x, high) if incomplete_beta(x, freedom / 2, 0.5) < 1 - level else (low, x)
    return math.sqrt(freedom * (1 - high) / high)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b), by its power series of positive terms (DLMF 8.17.8).

    Args:
        x: 0 to 1.
        a: above 0.
        b: above 0.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # where the series of the other tail is the shorter one
        return 1 - incomplete_beta(1 - x, b, a)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    term = math.exp(a * math.log(x) + b * math.log1p(-x) - log_beta) / a
    total, n = term, 0
    while term > total * 1e-17:
        term *= x * (a + b + n) / (a + 1 + n)
        total, n = total + term, n + 1
    return total


def _paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, float]:
    """Difference, its standard error, degrees of freedom; a seed that is hard for one is often hard for both."""
    differences = [a[seed] - b[seed] for seed in a]
    return fmean(differences), stdev(differences) / math.sqrt(len(differences)), len(differences) - 1


def _welch(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, float]:
    """The same for samples that are not paired, of unequal variances (Welch 1947)."""
    parts = [(variance(sample.values()) / len(sample), len(sample) - 1) for sample in (a, b)]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / own for part, own in parts) if total else 1.0
    return fmean(a.values()) - fmean(b.values()), math.sqrt(total), freedom
