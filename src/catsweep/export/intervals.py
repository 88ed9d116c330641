"""Measure intervals for the scores of a bundle, in which whoever scores it again must land.

`catsweep.export.bundle` keeps them in `metrics.json`; `evaluation` looks whether a score falls inside. What an
interval says depends on the score's `interval`:

- **`draws`**: scores of drawn images change with the latents. Theirs is a *prediction interval*: it holds the score of
  one more draw of latents, from any seed, with a probability of 95 %. From k draws of seeds of their own, taken as
  independent and normal: mean ± t s √(1 + 1/k), t the 97.5 % quantile of Student's t with k - 1 degrees of freedom
  (Hahn & Meeker 1991, "Statistical Intervals", section 4.7). Exact coverage is on average over the k draws too: of one
  interval it may be 90 or 99 %. Where a score cannot be below a value, neither can the interval; nor above 1 where it
  is a share.
- **`count`**: copies among drawn images, in most draws none, which leaves no spread: exact prediction limits of a
  binomial count over all k n images (Thatcher 1964, J. R. Stat. Soc. B 26, 176), at least 95 % whatever the true share.
- **`share`**: recall and coverage count real images, of which one sample may hold several: they vary more than a
  binomial count, or, near 0 and 1, not at all in a few draws. Theirs is the hull of both kinds above.
- **`photos`**: scores of reconstructions know no chance: how well the held-out photos tell the mean over *all* cats,
  by a percentile bootstrap over the photos (Efron 1979).

The recorded score is not among the k draws. Checkpoint and trial were chosen by that very draw of latents, so it may be
a lucky one; the interval is widened where needed to hold it, and what another runtime's rounding makes of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catsweep.errors import ExportError
from catsweep.metrics.scorer import Scorer
from catsweep.metrics.scores import score as known
from catsweep.models.generator import Generator, Reconstructor
from steady.confirm.significance import t_quantile

LEVEL = 0.95
# The factor of s is 2.5 with 8 draws, 2.1 with 30, 1.96 with any number: more draws cost more than they narrow.
DRAWS = 8
ROUNDING = 1e-3  # relative; float32 in another runtime flips a rounding to uint8 here and there
RESAMPLES = 2000
STREAM = 20_260_305  # sets the seeds of the draws apart from those that people type: 0, 1, 2, …


@dataclass(frozen=True)
class Interval:
    """Closed interval in which a score must land."""

    low: float
    high: float
    level: float  # probability that it holds what it is about
    draws: int  # of latents that it rests on; for scores of reconstructions, resamples of the held-out photos
    method: str  # how it was found, in words

    def __contains__(self, score: float) -> bool:
        return self.low <= score <= self.high

    def holding(self, score: float) -> "Interval":
        """Widen the interval to hold a score and its rounding."""
        slack = ROUNDING * abs(score)
        return replace(self, low=min(self.low, score - slack), high=max(self.high, score + slack))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Interval":
        """Read what `measure` gives.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        low, high, level = (float(values[key]) for key in ("low", "high", "level"))
        return cls(low, high, level, int(values["draws"]), str(values["method"]))


def measure(
    model: Generator, scorer: Scorer, draws: int = DRAWS, recorded: Mapping[str, float] | None = None
) -> dict[str, dict[str, Any]]:
    """Score a generator again from other latents, and compute where its scores land.

    Takes 1 + `draws` times as long as `scorer.final`.

    Args:
        model: best drawn as its users will draw it.
        scorer: as it was scored with; its seed is the recorded one.
        draws: how many others, at least 2.
        recorded: its scores as they were recorded; None to rely on those that are measured now.

    Returns:
        The fields of an `Interval` for each score of `scorer.final`.

    Raises:
        ExportError: fewer than 2 draws; or a recorded score that is none of this model's, not even with other latents.
        MetricError: what cannot be scored.
    """
    if draws < 2:
        raise ExportError(f"An interval needs at least 2 draws of latents to see how much they differ; got {draws}.")
    now = scorer.drawn(model)
    others = [scorer.reseeded(seed).drawn(model) for seed in fresh_seeds(scorer.seed, draws)]
    images = {  # over which each score is taken
        name: int(scorer.card(name).settings["images"]) if known(name).interval == "share" else scorer.samples
        for name in now
    }
    found = {name: of_draws(name, [scores[name] for scores in others], images[name]) for name in now}
    if isinstance(model, Reconstructor):
        for name, photos in scorer.of_reconstructions(model).items():
            now[name] = float(photos.mean())
            found[name] = of_photos(photos.numpy())
    found = {name: interval.holding(now[name]) for name, interval in found.items()}
    for name, score in (recorded or {}).items():
        if name in found and score not in found[name]:
            raise ExportError(
                f"The record of {name} is {score:.6g}, but scored again it is {now[name]:.6g}, and with other latents "
                f"{found[name].low:.6g} to {found[name].high:.6g}. The weights, the photos or the libraries are not "
                f"those that were scored. Train the run again, or name another."
            )
    return {name: asdict(interval) for name, interval in found.items()}


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Derive seeds of the draws: neither the recorded one nor one that a person would type to check the interval."""
    return [int(state) for state in np.random.SeedSequence([seed, STREAM]).generate_state(count)]


def of_draws(name: str, scores: Sequence[float], samples: int) -> Interval:
    """Compute the prediction interval for one more draw of `samples` images, from at least 2 scores of such draws."""
    k, kind, lowest = len(scores), known(name).interval, known(name).least
    if kind in ("count", "share"):
        least, most = limits_of_count(sum(round(share * samples) for share in scores), k * samples, samples)
    if kind == "count":
        method = f"exact prediction limits of a count, from {k} other draws of {samples} images"
        return Interval(least / samples, most / samples, LEVEL, k, method)
    half = t_quantile(LEVEL, k - 1) * stdev(scores) * math.sqrt(1 + 1 / k)
    low, high = fmean(scores) - half, fmean(scores) + half
    method = f"prediction interval by Student's t, from {k} other draws of {samples} images"
    if kind == "share":
        low, high = min(low, least / samples), min(1.0, max(high, most / samples))
        method += ", and exact prediction limits of a count"
    return Interval(low if lowest is None else max(lowest, low), high, LEVEL, k, method)


def of_photos(similarities: NDArray[np.floating[Any]]) -> Interval:
    """Compute the bootstrap interval for the mean over all photos, from one value per held-out photo, shape (n,)."""
    n = len(similarities)
    rng = np.random.default_rng(STREAM)
    means = [similarities[rng.integers(n, size=n)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), LEVEL, RESAMPLES, f"percentile bootstrap over {n} held-out photos")


def limits_of_count(found: int, of: int, future: int) -> tuple[int, int]:
    """Compute the prediction limits of a count among `future` images, given that `found` of `of` others count.

    Given their sum, the earlier count is hypergeometric, whatever the share. A next count is ruled out if it would
    have made the earlier one too small, or too large, with a probability of at most half of 5 %.
    """
    from scipy.stats import hypergeom  # takes a second to import

    counts = np.arange(future + 1)
    both = hypergeom(of + future, of, found + counts)  # the earlier count, given the sum
    possible = counts[np.minimum(both.cdf(found), both.sf(found - 1)) > (1 - LEVEL) / 2]
    return int(possible[0]), int(possible[-1])
