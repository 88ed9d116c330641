"""From values to places along an axis: linear, logarithmic, or one place for each choice.

Pure arithmetic, used by all charts of the report.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from catsweep.report.words import shown

MARGIN = 0.06  # of a linear axis, beyond its outermost values
TICKS = 4  # about so many intervals


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        low: value at place 0; of a logarithmic axis above 0.
        high: value at place 1, above `low`.
        log: whether it is logarithmic.
        choices: of a categorical axis, as `shown`; the numbers are then not used.
    """

    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[str, ...] = ()

    def place(self, value: Any) -> float | None:
        """Where a value is, 0 to 1; None if it has no place."""
        if self.choices:
            text = shown(value)
            return (self.choices.index(text) + 0.5) / len(self.choices) if text in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.log:
            if value <= 0:
                return None
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        """Places with their labels, from low to high."""
        if self.choices:
            return tuple(((i + 0.5) / len(self.choices), choice) for i, choice in enumerate(self.choices))
        marks = _decades(self.low, self.high) if self.log else _round(self.low, self.high)
        digits = 6 if self.log else max(6, _digits(self.low, self.high))
        placed = [(self.place(mark), f"{mark:.{digits}g}") for mark in marks]
        return tuple((place, label) for place, label in placed if place is not None and -1e-9 <= place <= 1 + 1e-9)


def over(values: Iterable[float], whole: bool = False) -> Axis:
    """A linear axis over values, with a margin.

    Args:
        values: infinite ones are left out; may be none.
        whole: whether they are counts, which get half a unit more at either end.
    """
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    margin = 0.5 if whole else MARGIN * (high - low) or abs(high) * MARGIN or 0.5
    return Axis(low - margin, high + margin)


def of_parameter(distribution: BaseDistribution) -> Axis:
    """The axis of a parameter: all that it could have been."""
    if isinstance(distribution, CategoricalDistribution):
        return Axis(choices=tuple(dict.fromkeys(shown(choice) for choice in distribution.choices)))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    if low == high:
        return Axis(low - 0.5, high + 0.5)
    return Axis(low, high, log=distribution.log)


def _round(low: float, high: float) -> list[float]:
    step = _step(high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Not by repeated sums, which end in 0.30000000000000004; and -0 is 0.
    return [float(f"{n * step:.{max(10, _digits(low, high))}g}") + 0.0 for n in range(first, last + 1)]


def _digits(low: float, high: float) -> int:
    """How many digits tell neighbouring ticks apart."""
    return min(17, 2 + math.ceil(math.log10(max(abs(low), abs(high)) / _step(high - low))))


def _step(span: float) -> float:
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= TICKS + 1)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 3)
    every = max(1, math.ceil((last - first) / 5))
    return [float(f"{factor}e{power}") for power in range(first, last + 1, every) for factor in factors]
