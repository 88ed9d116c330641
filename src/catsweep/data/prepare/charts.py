"""Numbers as pictures: histograms and bars, as the places and sizes that the report's template draws in SVG.

Pure arithmetic; `catsweep.data.prepare.report` asks for them, report.html.jinja draws them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 320, 96  # of the plot, in units of the SVG
BINS = 24  # at most
GAP = 1.0


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its rectangle, and what it says when one points at it."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """How many images have which value.

    Attributes:
        title: what is counted.
        note: its middle and its ends, in words.
        bars: from left to right; empty ones are left out.
        ticks: places on the axis, with their labels.
        top: count of the tallest bar.
    """

    title: str
    note: str
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    top: int


@dataclass(frozen=True)
class Share:
    """One line of a list of parts: what, how many, and which share of all, 0 to 1."""

    name: str
    count: int
    share: float


def histogram(title: str, values: ArrayLike, unit: str = "", bounds: tuple[float, float] | None = None) -> Histogram:
    """Count values into bins with round edges.

    Args:
        title: of the chart.
        values: at least one, finite.
        unit: of the values, with its space if it has one: " px", "x".
        bounds: of the axis; else as far as all but 1 % of the values reach. What lies outside is counted at its end.
    """
    data = np.asarray(values, dtype=np.float64)
    low, high = bounds or (float(np.quantile(data, 0.005)), float(np.quantile(data, 0.995)))
    step = _step(high - low)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    places = np.clip(np.floor(data / step).astype(np.int64), first, last - 1) - first
    counts = np.bincount(places, minlength=last - first)
    top, wide = int(counts.max()), WIDTH / (last - first)
    bars = tuple(
        Bar(
            x=round(number * wide + GAP / 2, 2),
            y=round(HEIGHT - HEIGHT * count / top, 2),
            width=round(wide - GAP, 2),
            height=round(HEIGHT * count / top, 2),
            title=f"{_plain((first + number) * step)} to {_plain((first + number + 1) * step)}{unit}: {count:,}",
        )
        for number, count in enumerate(counts.tolist())
        if count
    )
    middle, few, most = (_plain(float(_rounded(np.quantile(data, share)))) for share in (0.5, 0.05, 0.95))
    note = f"median {middle}{unit}; 5 % are below {few}, 5 % above {most}"
    return Histogram(title, note, bars, _ticks(first, last, step), top)


def shares(counts: Mapping[str, int], total: int) -> tuple[Share, ...]:
    """Parts of a whole, which may overlap, the largest first.

    Args:
        counts: of each part.
        total: of the whole.
    """
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Share(name, count, round(count / total, 4)) for name, count in order)


def _step(span: float) -> float:
    """The smallest of 1, 2, 5, 10, 20 … (or 0.5, 0.2 …) that needs at most `BINS` bins."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / BINS))
    return next(step for factor in (1, 2, 5, 10, 20) if span / (step := factor * power) <= BINS - 1)


def _ticks(first: int, last: int, step: float) -> tuple[tuple[float, str], ...]:
    """Four to seven round numbers along the axis, those at its ends if they are among them."""
    every = next(n for n in (1, 2, 5, 10, 20, 50) if (last - first) / n <= 6)
    marks: Sequence[int] = range(math.ceil(first / every) * every, last + 1, every)
    return tuple((round((mark - first) / (last - first) * WIDTH, 2), _plain(mark * step)) for mark in marks)


def _rounded(value: float) -> float:
    """Three digits that count."""
    return float(f"{value:.3g}")


def _plain(value: float) -> str:
    """Without the digits that come of binary fractions: 0.30000000000000004 is 0.3."""
    return f"{value:,.10g}" if abs(value) >= 1e-9 else "0"
