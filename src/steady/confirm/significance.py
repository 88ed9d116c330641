"""Tell whether means over few seeds differ: Student's t tests, and their level where several are compared.

`steady.confirm.confirmation` compares trials by it. scipy is imported when a test is made: it takes half a second.
"""

import math
import warnings
from collections.abc import Mapping
from statistics import fmean, stdev

LEVEL = 0.95


def confidence_level(candidates: int) -> float:
    """Compute the confidence level of each comparison with the winner (Bonferroni), of so many `candidates` with it.

    Such that in at least 95 % of all cases the truly best one is the winner or not significantly different from it. It
    is lost if any other beats it significantly by chance, each with half the probability outside a two-sided interval.

    >>> confidence_level(3), round(confidence_level(5), 3)
    (0.95, 0.975)
    """
    return 1 - min(1 - LEVEL, 2 * (1 - LEVEL) / max(1, candidates - 1))


def significantly_different(a: Mapping[int, float], b: Mapping[int, float], level: float = LEVEL) -> bool:
    """Tell whether the means of two samples, by seed, differ significantly; False of fewer than two values of either.

    >>> significantly_different({1: 10.0, 2: 50.0, 3: 30.0}, {1: 11.0, 2: 51.1, 3: 30.9})
    True
    """
    return p_value(a, b) < 1 - level


def p_value(a: Mapping[int, float], b: Mapping[int, float]) -> float:
    """Compute the two-sided p value of equal means by Student's paired t test, or Welch's if the seeds differ.

    A seed that is hard for one is often hard for the other. NaN if there are fewer than two values of either, or none
    vary.

    >>> round(p_value({1: 1.0, 2: 2.0}, {1: 2.0, 2: 4.0}), 3)
    0.205
    """
    from scipy import stats

    if min(len(a), len(b)) < 2:
        return math.nan
    with warnings.catch_warnings():  # of values that are nearly identical, whose difference has little noise
        warnings.simplefilter("ignore", RuntimeWarning)
        if a.keys() == b.keys():
            return float(stats.ttest_rel([a[seed] for seed in a], [b[seed] for seed in a]).pvalue)
        # By exact sums: of values that are all the same, numpy's mean is another, and their variance not 0.
        (m, s, n), (o, t, k) = ((fmean(x.values()), stdev(x.values()), len(x)) for x in (a, b))
        return float(stats.ttest_ind_from_stats(m, s, n, o, t, k, equal_var=False).pvalue)


def t_quantile(level: float, freedom: float) -> float:
    """Compute the two-sided quantile of Student's t: a share `level` of the values lies between its negative and it.

    >>> round(t_quantile(0.95, 10), 3)
    2.228
    """
    from scipy import stats

    return float(stats.t.isf((1 - level) / 2, freedom))
