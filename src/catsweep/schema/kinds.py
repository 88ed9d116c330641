"""Validators of the values of a configuration's keys.

`catsweep.schema.nodes` puts them into a configuration. OmegaConf's own types know no ranges, take numbers for true,
and infinity for a number.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEEDS = 2**32 - 1  # the largest that NumPy takes
COUNT = 2**31 - 1  # the largest that every library takes for a count


@dataclass(frozen=True)
class Kind:
    """A validator and converter of values."""

    def said(self) -> str:
        """Description of the valid values, for a message: `KEY must be …`."""
        raise NotImplementedError

    def take(self, value: Any) -> Any:
        """Convert a value, or refuse it.

        Args:
            value: never None.

        Raises:
            ValueError: it is none of this kind.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number, also one in quotes; no boolean and no 2.0. 0 beside the others, if `or_0`."""

    low: int
    high: int = COUNT
    or_0: bool = False

    def said(self) -> str:
        """See `Kind`."""
        number = f"a whole number from {self.low} {'up' if self.high == COUNT else f'to {self.high}'}"
        return f"0, or {number}" if self.or_0 else number

    def take(self, value: Any) -> int:
        """See `Kind`."""
        if type(value) not in (int, str):
            raise ValueError
        number = int(value)
        if not (self.low <= number <= self.high or (self.or_0 and number == 0)):
            raise ValueError
        return number


@dataclass(frozen=True)
class Real(Kind):
    """A finite number, kept as it is written; above `low` only, if `beyond`."""

    low: float
    high: float = math.inf
    beyond: bool = False
    below: bool = False

    def said(self) -> str:
        """See `Kind`."""
        if self.high == math.inf:
            return f"a number above {self.low:g}" if self.beyond else f"a number from {self.low:g} up"
        high = f"below {self.high:g}" if self.below else f"at most {self.high:g}"
        return f"a number {'above' if self.beyond else 'of at least'} {self.low:g} and {high}"

    def take(self, value: Any) -> int | float:
        """See `Kind`."""
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
    """true or false."""

    def said(self) -> str:
        """See `Kind`."""
        return "true or false"

    def take(self, value: Any) -> bool:
        """See `Kind`."""
        if type(value) is not bool:
            raise ValueError
        return value


@dataclass(frozen=True)
class Text(Kind):
    """Text, such as a name or a path; a number is one, too."""

    ending: str = ""
    filled: bool = True

    def said(self) -> str:
        """See `Kind`."""
        return f"text that ends in {self.ending}" if self.ending else "text"

    def take(self, value: Any) -> str:
        """See `Kind`."""
        if type(value) not in (str, int, float):
            raise ValueError
        text = str(value)
        if not text.endswith(self.ending) or "\0" in text or (self.filled and not text.strip()):
            raise ValueError
        return text


@dataclass(frozen=True)
class Trust(Kind):
    """A name that `catsweep.instantiation.trusting` takes: of Python's, `mypackage.Net`, or all of a package."""

    def said(self) -> str:
        """See `Kind`."""
        return "a dotted name, or a package and .*, such as mypackage.*"

    def take(self, value: Any) -> str:
        """See `Kind`."""
        if type(value) is not str or not all(part.isidentifier() for part in value.removesuffix(".*").split(".")):
            raise ValueError
        return value


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words; 32 is one, too."""

    words: tuple[str, ...]

    def said(self) -> str:
        """See `Kind`."""
        return _alternatives(self.words)

    def take(self, value: Any) -> str:
        """See `Kind`."""
        if type(value) not in (str, int) or str(value) not in self.words:
            raise ValueError
        return str(value)


@dataclass(frozen=True)
class Node(Kind):
    """A node that names what it builds by `_target_`."""

    def said(self) -> str:
        """See `Kind`."""
        return "a node with _target_"

    def take(self, value: Any) -> Any:
        """See `Kind`."""
        if not isinstance(value, Mapping) or "_target_" not in value:
            raise ValueError
        return value


@dataclass(frozen=True)
class Either(Kind):
    """A value of the first of several kinds that takes it."""

    kinds: tuple[Kind, ...]

    def said(self) -> str:
        """See `Kind`."""
        return ", or ".join(kind.said() for kind in self.kinds)

    def take(self, value: Any) -> Any:
        """See `Kind`."""
        for kind in self.kinds[:-1]:
            try:
                return kind.take(value)
            except ValueError:
                continue
        return self.kinds[-1].take(value)


@dataclass(frozen=True)
class Several(Kind):
    """A list of values of one kind; of `length` values, at least `least` of them, or in rising order."""

    kind: Kind
    length: int | None = None
    least: int = 0
    rising: bool = False

    def said(self) -> str:
        """See `Kind`."""
        many = f" of {self.length}" if self.length else " of at least 1" if self.least else ""
        return f"a list{many}, {'rising, ' if self.rising else ''}each {self.kind.said()}"

    def take(self, value: Any) -> list[Any]:
        """See `Kind`. What is an interpolation is passed over."""
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise ValueError
        kept = [one if interpolated(one) else self.kind.take(one) for one in value]
        known = [one for one in kept if not interpolated(one)]
        if self.length not in (None, len(kept)) or len(kept) < self.least:
            raise ValueError
        if self.rising and any(low >= high for low, high in itertools.pairwise(known)):
            raise ValueError
        return kept


PORT = Whole(0, (1 << 16) - 1)


def interpolated(value: Any) -> bool:
    """Whether a value is an interpolation, `${…}`."""
    return isinstance(value, str) and "${" in value


def _alternatives(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
