"""Validators of the values of a configuration's keys.

OmegaConf's own types know no ranges, take numbers for true, and infinity for a number.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEEDS = 2**32 - 1  # the largest that NumPy takes
COUNT = 2**31 - 1  # the largest that every library takes for a count


class Kind:
    """A validator; as a text, a description of valid values."""

    def take(self, value: Any) -> Any:
        """Convert a value; a ValueError or OverflowError if it is not of this kind, or None."""
        if value is None:
            raise ValueError
        return self._take(value)

    def _take(self, value: Any) -> Any:
        raise NotImplementedError


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number, also one in quotes; no boolean and no 2.0. 0 beside the others, if `or_0`."""

    low: int
    high: int = COUNT
    or_0: bool = False

    def __str__(self) -> str:
        number = f"a whole number from {self.low} {'up' if self.high == COUNT else f'to {self.high}'}"
        return f"0, or {number}" if self.or_0 else number

    def _take(self, value: Any) -> int:
        if type(value) not in (int, str):
            raise ValueError
        number = int(value)
        if not (self.low <= number <= self.high or (self.or_0 and number == 0)):
            raise ValueError
        return number


@dataclass(frozen=True)
class Real(Kind):
    """A finite number, kept as it is written; above `low` only, if `beyond`; below `high` only, if `below`."""

    low: float
    high: float = math.inf
    beyond: bool = False
    below: bool = False

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a number above {self.low:g}" if self.beyond else f"a number from {self.low:g} up"
        high = f"below {self.high:g}" if self.below else f"at most {self.high:g}"
        return f"a number {'above' if self.beyond else 'of at least'} {self.low:g} and {high}"

    def _take(self, value: Any) -> int | float:
        if type(value) not in (int, float, str):
            raise ValueError
        number = float(value) if isinstance(value, str) else value
        low = self.low < number if self.beyond else self.low <= number
        high = number < self.high if self.below else number <= self.high
        if not (low and high and abs(number) <= 1e300):  # compared exactly; no larger one survives arithmetic
            raise ValueError
        return number


@dataclass(frozen=True)
class Switch(Kind):
    """A boolean."""

    def __str__(self) -> str:
        return "true or false"

    def _take(self, value: Any) -> bool:
        if type(value) is not bool:
            raise ValueError
        return value


@dataclass(frozen=True)
class Text(Kind):
    """A text that is not blank, such as a name or a path; also a number."""

    ending: str = ""

    def __str__(self) -> str:
        return f"text that ends in {self.ending}" if self.ending else "text"

    def _take(self, value: Any) -> str:
        if type(value) not in (str, int, float):
            raise ValueError
        text = str(value)
        if not text.endswith(self.ending) or "\0" in text or not text.strip():
            raise ValueError
        return text


@dataclass(frozen=True)
class Trust(Kind):
    """A name that `catsweep.instantiation.trusting` takes: of Python's, `mypackage.Net`, or all of a package."""

    def __str__(self) -> str:
        return "a dotted name, or a package and .*, such as mypackage.*"

    def _take(self, value: Any) -> str:
        if type(value) is not str or not all(part.isidentifier() for part in value.removesuffix(".*").split(".")):
            raise ValueError
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words; also 32."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(filter(None, [", ".join(self.words[:-1]), self.words[-1]]))

    def _take(self, value: Any) -> str:
        if type(value) not in (str, int) or str(value) not in self.words:
            raise ValueError
        return str(value)


@dataclass(frozen=True)
class Node(Kind):
    """A node that names what it builds by `_target_`."""

    def __str__(self) -> str:
        return "a node with _target_"

    def _take(self, value: Any) -> Any:
        if not isinstance(value, Mapping) or "_target_" not in value:
            raise ValueError
        return value


@dataclass(frozen=True)
class Either(Kind):
    """A value of the first of several kinds that takes it."""

    kinds: tuple[Kind, ...]

    def __str__(self) -> str:
        return ", or ".join(map(str, self.kinds))

    def _take(self, value: Any) -> Any:
        for kind in self.kinds[:-1]:
            try:
                return kind.take(value)
            except ValueError:
                continue
        return self.kinds[-1].take(value)


@dataclass(frozen=True)
class Several(Kind):
    """A list of values of one kind; interpolations are passed over. Of `length`, at least `least`, or rising values."""

    kind: Kind
    length: int | None = None
    least: int = 0
    rising: bool = False

    def __str__(self) -> str:
        many = f" of {self.length}" if self.length else " of at least 1" if self.least else ""
        return f"a list{many}, {'rising, ' if self.rising else ''}each {self.kind}"

    def _take(self, value: Any) -> list[Any]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError
        kept = [one if interpolated(one) else self.kind.take(one) for one in value]
        known = [one for one in kept if not interpolated(one)]
        if self.length not in (None, len(kept)) or len(kept) < self.least:
            raise ValueError
        if self.rising and any(low >= high for low, high in itertools.pairwise(known)):
            raise ValueError
        return kept


def interpolated(value: Any) -> bool:
    """Tell whether a value is an interpolation, `${…}`."""
    return isinstance(value, str) and "${" in value
