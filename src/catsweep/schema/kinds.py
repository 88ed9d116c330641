"""Kinds of values that a key of the configuration takes, as nodes of OmegaConf that refuse all others.

Flow: `catsweep.schema.groups` and `catsweep.schema.commands` give each key that we ship its kind; Hydra merges files and
overrides into these nodes, so it is Hydra that refuses a value when it composes, with the name of the key. A value by
interpolation is looked at when it is read, or all of them at once by `settle`.

OmegaConf's own nodes know types and no ranges, take true for a number, and numbers for true. Imported at each start:
nothing heavy here.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import omegaconf
from omegaconf import MISSING, Container, DictConfig, ListConfig, OmegaConf, ValueNode
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.errors import (
    InterpolationResolutionError,
    InterpolationValidationError,
    OmegaConfBaseException,
    ValidationError,
)

SEEDS = 2**32 - 1  # the largest that NumPy takes
COUNT = 2**31 - 1  # the largest that every library takes for a count


@dataclass(frozen=True)
class Kind:
    """What values a key takes; `null` among them or not."""

    def said(self) -> str:
        """What there may be, for a message: `KEY must be …`."""
        raise NotImplementedError

    def take(self, value: Any) -> Any:
        """The value as it is kept.

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
class Choice(Kind):
    """One of some words."""

    words: tuple[str, ...]

    def said(self) -> str:
        """See `Kind`."""
        return _alternatives(self.words)

    def take(self, value: Any) -> str:
        """See `Kind`."""
        if type(value) is not str or value not in self.words:
            raise ValueError
        return value


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
    """Of the first of several kinds that takes it."""

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
        if not isinstance(value, Sequence | ListConfig) or isinstance(value, str):
            raise ValueError
        kept = [one if _interpolated(one) else self.kind.take(one) for one in value]
        known = [one for one in kept if not _interpolated(one)]
        if self.length not in (None, len(kept)) or len(kept) < self.least:
            raise ValueError
        if self.rising and any(low >= high for low, high in zip(known, known[1:], strict=False)):
            raise ValueError
        return kept


class Value(ValueNode):
    """A node that refuses what is not of its kind.

    Args:
        kind: of the values.
        null: whether there may be none.
    """

    def __init__(self, kind: Kind, null: bool = False) -> None:
        self.__dict__["kind"] = kind
        metadata = Metadata(ref_type=object, object_type=object, optional=null, key=None)
        super().__init__(parent=None, value=MISSING, metadata=metadata)

    def validate_and_convert(self, value: Any) -> Any:
        """The value as it is kept.

        Raises:
            ValidationError: saying what there must be and what came.
        """
        return _taken(self, self.kind, value)

    def _validate_and_convert_impl(self, value: Any) -> Any:
        return self.validate_and_convert(value)

    def __deepcopy__(self, memo: dict[int, Any]) -> "Value":
        copy = Value(self.kind)
        self._deepcopy_impl(copy, memo)
        return copy


class Values(ListConfig):
    """A list that refuses what is not of its kind, as a whole and one by one.

    Args:
        kind: of the list.
        null: whether there may be none.
    """

    def __init__(self, kind: Several, null: bool = False) -> None:
        self.__dict__["kind"] = kind
        super().__init__(MISSING, ref_type=list[Any], is_optional=null)

    def validate(self, value: Any) -> None:
        """See that a value is of this kind.

        Raises:
            ValidationError: saying what there must be and what came.
        """
        _taken(self, self.kind, value)

    def append(self, item: Any) -> None:
        """As of any list; what it becomes must be of this kind."""
        super().append(item)
        self._check()

    def _set_value(self, value: Any, flags: dict[str, bool] | None = None) -> None:
        if not _interpolated(value) and not (isinstance(value, str) and value == MISSING):
            plain = value._value() if isinstance(value, omegaconf.Node) and not isinstance(value, Container) else value
            self.validate(OmegaConf.to_container(plain, resolve=False) if isinstance(plain, Container) else plain)
        super()._set_value(value, flags)

    def _merge_with(self, *others: Any, **options: Any) -> None:
        super()._merge_with(*others, **options)
        self._check()

    def _check(self) -> None:
        if not self._is_missing() and not self._is_interpolation():
            self.validate(None if self._is_none() else OmegaConf.to_container(self, resolve=False))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Values":
        copy = Values(self.kind)
        copy.__dict__.update(super().__deepcopy__(memo).__dict__)
        copy.__dict__["kind"] = self.kind
        copy._re_parent()
        return copy


def branch(keys: dict[str, Any] | None = None, null: bool = False) -> DictConfig:
    """A node in the place of which no value may stand; of these keys and any others, or all from elsewhere if None."""
    return DictConfig(MISSING if keys is None else keys, ref_type=dict[Any, Any], is_optional=null)


def typed(config: DictConfig) -> Iterator[Value | Values]:
    """All nodes of a configuration that have a kind."""
    waiting: list[Any] = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Value | Values):
            yield node
        elif isinstance(node, Container) and not (node._is_none() or node._is_missing() or node._is_interpolation()):
            content = node._content
            waiting += reversed(list(content.values() if isinstance(content, dict) else content))


def faults(config: DictConfig) -> list[str]:
    """What is wrong with values that Hydra could not look at: that are missing, or come by interpolation.

    An interpolation that leads nowhere is passed over: it may lead somewhere in a job.
    """
    said = []
    for node in typed(config):
        key = node._get_full_key(None)
        if node._is_missing():
            said.append(f"{key} must be {_said(node)}; got ??? (nothing).")
        elif node._is_interpolation() or isinstance(node, Values):
            try:
                value = OmegaConf.select(config, key)
                if isinstance(node, Values):
                    node.validate(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)
            except (InterpolationValidationError, ValidationError) as error:
                said.append(str(error).partition("\n")[0])
            except (InterpolationResolutionError, OmegaConfBaseException):
                pass
    return said


def _taken(node: Value | Values, kind: Kind, value: Any) -> Any:
    if value is None and node._is_optional():
        return None
    try:
        if value is None:
            raise ValueError
        return kind.take(value)
    except (ValueError, OverflowError):
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= 80 else f"{shown[:79]}…"
        raise ValidationError(f"{node._get_full_key(None) or 'A value'} must be {_said(node)}; got {shown}.") from None


def _said(node: Value | Values) -> str:
    return f"{node.kind.said()}{', or null' if node._is_optional() else ''}"


def _interpolated(value: Any) -> bool:
    plain = value._value() if isinstance(value, omegaconf.Node) else value
    return isinstance(plain, str) and "${" in plain


def _alternatives(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
