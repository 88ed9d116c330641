"""Conversion of keys and values between Hydra's override grammar and Optuna's record; parsing of search lines.

Optuna keeps None, booleans, numbers and strings. A list or a dict is encoded as its text in Hydra's grammar, and a
string that would be taken for such a text is kept in quotes; all others are kept as they are. A sweep of numbers
becomes the distribution that hydra-optuna-sweeper makes of it; choices are read here, since there a quoted string loses
its quotes, and with them its type.
"""

import math
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from hydra.core.override_parser import types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from steady.exceptions import ConfigError

Scalar = str | int | float | bool | None  # what Optuna keeps
_parser = cache(OverridesParser.create)


def bare(key: str) -> str:
    """Remove the prefix of a key, so that `x`, `+x` and `++x` are one.

    >>> bare("++model.lr")
    'model.lr'
    """
    return key.lstrip("+")


def prefix(key: str) -> str:
    """Get the prefix of a key: empty, `+` or `++`.

    >>> prefix("++model.lr")
    '++'
    """
    return key[: len(key) - len(bare(key))]


def parsed(text: str) -> Any:
    """Parse a value (plain, a `QuotedString`, `Sweep` or container of those), or raise a ValueError.

    >>> parsed("[1, a]"), parsed("1e-3")
    ([1, 'a'], 0.001)
    """
    found = _parsed(text)
    if found is None:
        raise ValueError(f"{text!r} is no value of Hydra's override grammar.")
    return found[0]


def encode(value: Any) -> Scalar:
    """Encode a parsed value as what Optuna keeps.

    >>> encode(parsed("[1, 'a b']")), encode("[1]"), encode(True)
    ("[1,'a b']", "'[1]'", True)
    """
    if isinstance(value, types.QuotedString):
        value = value.text
    if isinstance(value, str):
        return quoted(value) if _is_encoding(value) else value
    if value is None or isinstance(value, bool | int | float):
        return value
    return types.Transformer.str(value)


def decode(value: Scalar) -> Any:
    """Decode what `encode` has made, with the quotes of all strings taken off.

    >>> decode("[1,'a b']"), decode("'[1]'"), decode("a")
    ([1, 'a b'], '[1]', 'a')
    """
    if isinstance(value, str) and _is_encoding(value):
        return types.Override._convert_value(parsed(value))
    return value


def as_text(value: Scalar) -> str:
    """Format an encoded value in Hydra's grammar.

    >>> as_text(None), as_text("null"), as_text("[1]")
    ('null', "'null'", '[1]')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or _is_encoding(value) or (value and _parsed(value) == (value,)):
        return str(value)
    return quoted(value)


def as_override(key: str, value: Any) -> str:
    """Format an entry of `params` as an override: text is already in Hydra's grammar, other values are put in it.

    >>> as_override("lr", "interval(0, 1)"), as_override("sizes", [1, "a b"])
    ('lr=interval(0, 1)', "sizes=[1,'a b']")
    """
    return f"{key}={value if isinstance(value, str) else as_text(encode(_with_quotes(value)))}"


def as_overrides(params: Mapping[str, Scalar], space: Iterable[str], exact: bool) -> dict[str, str]:
    """Convert a trial's parameters to overrides, with the prefixes that the keys of its contract's `space` have.

    `exact`: whether the study tells strings from other values (see `meta.SPELLING`); an older one kept them bare.

    >>> as_overrides({"lr": 0.1, "name": "null"}, ["+lr"], exact=True)
    {'+lr': '0.1', 'name': "'null'"}
    """
    keys = {bare(key): key for key in space}
    return {
        keys.get(name, name): value if isinstance(value, str) and not exact else as_text(value)
        for name, value in params.items()
    }


def quoted(value: str) -> str:
    r"""Quote a string for Hydra's override grammar, where a backslash is itself unless a quote comes after it.

    >>> print(quoted("it's"))
    'it\'s'
    """
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _is_encoding(text: str) -> bool:
    """Tell whether a string reads as a quoted string, a list or a dict."""
    if not text or text[0] not in "'\"[{ \t":
        return False
    found = _parsed(text)
    return found is not None and isinstance(found[0], types.QuotedString | list | dict)


@lru_cache(4096)
def _parsed(text: str) -> tuple[Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions that Hydra will drop
            override = _parser().parse_override(f"x={text}")
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError):
        return None
    if override.value_type != types.ValueType.ELEMENT and not isinstance(override._value, types.Sweep):
        return None
    return (override._value,)


@dataclass(frozen=True)
class Arguments:
    """The parsed override lines of a sweep: what is searched, what is fixed, what is deleted; each key once.

    >>> read = Arguments.read(["+lr=choice(0.1, 1)", "epochs=5", "~logger"], "the command line")
    >>> list(read.searched), read.fixed, read.deletions, read.prefixes
    (['lr'], {'epochs': '5'}, ('~logger',), {'lr': '+'})
    """

    searched: dict[str, BaseDistribution] = field(default_factory=dict)  # by key, without `+`
    fixed: dict[str, str] = field(default_factory=dict)  # values in Hydra's grammar by key, without `+`
    deletions: tuple[str, ...] = ()  # as written
    prefixes: dict[str, str] = field(default_factory=dict)  # of the keys that were written with one
    unsearched: tuple[str, ...] = ()  # fixed, though a line would have them searched

    @classmethod
    def read(cls, lines: Iterable[str], source: str) -> "Arguments":
        """Parse overrides. Of a key that is given twice the later line counts, but what is fixed is never searched.

        A ConfigError has all lines of the `source` that cannot be read.
        """
        found, deletions, problems = cls(), [], []
        for line in lines:
            try:
                override = _parser().parse_override(line)
                if override.is_delete():
                    deletions.append(line)
                else:
                    found._add(override)
            except (HydraException, OmegaConfBaseException, ValueError, NotImplementedError, AssertionError) as error:
                said = " ".join(str(error).split())
                problems.append(f"{line!r} of {source} cannot be read{f': {said}' if said else '.'}")
        if problems:
            raise ConfigError(
                "\n".join(problems)
                + "\nExpected a value, choice(a, b), range(1, 5), interval(0.0, 1.0) or tag(log, interval(1e-4, 1e-2))."
            )
        both = tuple(key for key in found.fixed if found.searched.pop(key, None) is not None)
        return cls(found.searched, found.fixed, tuple(deletions), found.prefixes, both)

    def under(self, other: "Arguments") -> "Arguments":
        """Merge with others, which win: the command line over `params`."""
        searched = {key: one for key, one in self.searched.items() if key not in other.fixed}
        fixed = {key: value for key, value in self.fixed.items() if key not in other.searched}
        # Hydra has tried the prefixes of the command line on the configuration.
        known = {*other.searched, *other.fixed}
        prefixes = {key: value for key, value in self.prefixes.items() if key not in known}
        return Arguments(
            searched | other.searched,
            fixed | other.fixed,
            (*self.deletions, *other.deletions),
            prefixes | other.prefixes,
            (*(key for key in self.searched if key in other.fixed), *other.unsearched),
        )

    def _add(self, override: types.Override) -> None:
        written = override.get_key_element()
        key, sign = bare(written), prefix(written)
        is_new = key not in self.searched and key not in self.fixed
        if sign == "++" or (sign and is_new):  # ++ finds a key whether or not a line before has made it
            self.prefixes[key] = sign
        if override.is_sweep_override():
            self.searched[key] = _distribution(override)
        else:
            self.fixed[key] = _fixed(override)


def check_deletions(arguments: Arguments) -> None:
    """Raise a ConfigError for deletions of what is searched: jobs would run without what the study says they had.

    >>> check_deletions(Arguments.read(["lr=choice(0.1, 1)", "~model"], "the command line"))
    """
    problems = []
    for deletion in arguments.deletions:
        deleted = _parser().parse_override(deletion).get_key_element().lstrip("~")
        problems += [
            f"{deletion} deletes {key}, which is searched. To fix it, give it a value: {key}=VALUE; to leave "
            "it out of the search, take it out of hydra.sweeper.params or off the command line."
            for key in arguments.searched
            if key == deleted or key.startswith(f"{deleted}.")
        ]
    if problems:
        raise ConfigError("\n".join(problems))


def _distribution(override: types.Override) -> BaseDistribution:
    value = override._value
    if isinstance(value, types.ChoiceSweep):
        # In the order as written, also of shuffle(…): Optuna keeps the order of choices from start to start.
        return CategoricalDistribution([encode(one) for one in value.list])
    if isinstance(value, types.RangeSweep) and (value.shuffle or value.transformers):
        return CategoricalDistribution([encode(one) for one in value])
    if isinstance(value, types.IntervalSweep):
        low, high, log = value.start, value.end, "log" in value.tags
        assert low is not None
        assert high is not None
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=log)
        return FloatDistribution(low, high, log=log)
    if not isinstance(value, types.RangeSweep):
        raise NotImplementedError(f"{override.input_line} cannot be searched.")
    return _range(value)


def _range(value: types.RangeSweep) -> BaseDistribution:
    """Make the distribution of a range: Optuna's has both its ends, Hydra's stops before the second."""
    if value.step == 0:
        raise ValueError("A range needs a step other than 0.")
    numbers = value.range()
    start, stop, step = (Decimal(str(part)) for part in (numbers.start, numbers.stop, numbers.step))
    count = math.ceil((Fraction(stop) - Fraction(start)) / Fraction(step))
    if count <= 0:
        raise ValueError("A range must hold at least one value.")
    low, high = sorted((start, start + (count - 1) * step))
    if isinstance(numbers, range):
        return IntDistribution(int(low), int(high), step=int(abs(step)))
    ends = [float(low), float(high), float(abs(step))]
    exact = all(Decimal(str(end)) == part for end, part in zip(ends, (low, high, abs(step)), strict=True))
    if not exact or (low != high and ends[2] < max(map(math.ulp, ends[:2]))):  # no float tells its values apart
        return CategoricalDistribution([encode(one) for one in value])
    return FloatDistribution(ends[0], ends[1], step=ends[2])


def _fixed(override: types.Override) -> str:
    """Format a value as hydra-optuna-sweeper does, where that says the same."""
    text = str(override.get_value_element_as_str())
    if override.type != types.OverrideType.EXTEND_LIST:
        same = _parser().parse_override(f"x={text}").value()
        if repr(same) == repr(override.value()):  # also tells 1 from true and "1"
            return text
    return str(override.get_value_string())  # str(1)


def _with_quotes(value: Any) -> Any:
    """Convert a plain value to what would have been parsed, with its strings in quotes."""
    if isinstance(value, Mapping):
        return {str(key): _with_quotes(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_quotes(one) for one in value]
    return types.QuotedString(value, types.Quote.single) if isinstance(value, str) else value
