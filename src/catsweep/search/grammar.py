"""Keys and values between Hydra's override grammar and Optuna's record: one key however it is spelled, strings exact.

Used wherever an override is read (`arguments`, `conditions`), rendered for a job (`space`), or shown (`results`, the
report). Optuna keeps None, booleans, numbers and strings; so a list or a dict is kept as its text in Hydra's grammar,
and the few strings that would be taken for such a text are kept in quotes. All others are kept as they are.
"""

import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString, Sweep, Transformer, ValueType
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

Scalar = str | int | float | bool | None  # what Optuna keeps
SPELLED = "spelling"  # study attribute, "exact" if its strings are told from other values; older studies lack it


def bare(key: str) -> str:
    """A key by which `x`, `+x` and `++x` are one."""
    return key.lstrip("+")


def prefix(key: str) -> str:
    """What says how an override finds its key: nothing, `+` or `++`."""
    return key[: len(key) - len(bare(key))]


def parsed(text: str) -> Any:
    """A value of the grammar: plain, or a `QuotedString`, `Sweep` or container of those.

    Raises:
        ValueError: the text is none.
    """
    found = _parsed(text)
    if found is None:
        raise ValueError(f"{text!r} is no value of Hydra's override grammar.")
    return found[0]


def kept(value: Any) -> Scalar:
    """A value that was parsed, as Optuna keeps it."""
    if isinstance(value, QuotedString):
        value = value.text
    if isinstance(value, str):
        return quoted(value) if _is_text_of_something(value) else value
    if value is None or isinstance(value, bool | int | float):
        return value
    return Transformer.str(value)


def plain(value: Scalar) -> Any:
    """What a value that Optuna keeps stands for: the way back from `kept`, quotes and all taken off."""
    if isinstance(value, str) and _is_text_of_something(value):
        return Override._convert_value(parsed(value))
    return value


def spelled(value: Scalar) -> str:
    """A value that Optuna keeps, in Hydra's grammar: `null` is None and `'null'` the string."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if not isinstance(value, str) or (value and _stays(value)) or _is_text_of_something(value):
        return str(value)
    return quoted(value)


def as_overrides(params: Mapping[str, Scalar], space: Iterable[str], exact: bool) -> dict[str, str]:
    """A trial's parameters as overrides, from what its study keeps.

    Args:
        params: of the trial.
        space: the keys of its contract's space, which have the prefix that an override needs.
        exact: whether the study tells strings from other values, see `SPELLED`; an older one rendered them bare.
    """
    keys = {bare(key): key for key in space}
    return {
        keys.get(name, name): value if isinstance(value, str) and not exact else spelled(value)
        for name, value in params.items()
    }


def quoted(value: str) -> str:
    """A string in Hydra's override grammar, where a backslash is itself unless a quote comes after it."""
    escaped = re.sub(r"(\\*)('|\Z)", lambda found: 2 * found[1] + (r"\'" if found[2] else ""), value)
    return f"'{escaped}'"


def _is_text_of_something(text: str) -> bool:
    """Whether a string reads as a quoted string, a list or a dict."""
    if not text or text[0] not in "'\"[{ \t":
        return False
    found = _parsed(text)
    return found is not None and isinstance(found[0], QuotedString | list | dict)


def _stays(text: str) -> bool:
    """Whether a string is itself without quotes."""
    found = _parsed(text)
    return found is not None and isinstance(found[0], str) and found[0] == text


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@lru_cache(4096)
def _parsed(text: str) -> tuple[Any] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of functions that Hydra will drop
            override = _parser().parse_override(f"x={text}")
    except (HydraException, OmegaConfBaseException, ValueError, TypeError, RecursionError):
        return None
    if override.value_type != ValueType.ELEMENT and not isinstance(override._value, Sweep):
        return None
    return (override._value,)
