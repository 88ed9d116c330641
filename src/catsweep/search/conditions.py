"""When a parameter of the search is there at all: only while another one has some value.

`catsweep.search.space` reads conditions from `hydra.sweeper.conditions` and orders its parameters by them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra.core.override_parser.types import Sweep
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from catsweep.errors import ConfigError
from catsweep.search import grammar
from catsweep.search.distributions import finite, word


@dataclass(frozen=True)
class Condition:
    """A parameter is there only when another has one of some values.

    Attributes:
        other: name of the other parameter.
        values: in one spelling, see `distributions.word`.
    """

    other: str
    values: tuple[str, ...]

    @classmethod
    def parse(cls, name: str, text: str, searched: Mapping[str, BaseDistribution] | None = None) -> "Condition":
        """Read `other=value` or `other=[a,b]`.

        Args:
            name: of the parameter that has the condition.
            text: the condition, its value in Hydra's grammar.
            searched: tells whether `[a]` is itself one of the other's choices.

        Raises:
            ConfigError: anything else.
        """
        other, equals, value = (part.strip() for part in str(text).partition("="))
        other = grammar.bare(other)
        whole, listed = _parsed(value) if value else ("", None)
        distribution = (searched or {}).get(other)
        if isinstance(distribution, CategoricalDistribution) and whole in map(word, distribution.choices):
            listed = None
        if not equals or not other or not whole or listed == ():
            raise ConfigError(f"conditions.{name} must be written other=value or other=[a,b]; got {text!r}.")
        return cls(other, (whole,) if listed is None else listed)

    def holds(self, params: Mapping[str, Any], fixed: Mapping[str, str]) -> bool:
        """Whether the condition holds; never while the other parameter is absent.

        Args:
            params: that were drawn.
            fixed: as written on the command line.
        """
        if self.other in params:
            return word(params[self.other]) in self.values
        other = grammar.bare(self.other)
        return other in fixed and _parsed(str(fixed[other]))[0] in self.values

    def __str__(self) -> str:
        listed = ",".join(self.values)
        return f"{self.other}={listed if len(self.values) == 1 else f'[{listed}]'}"


def check_conditions(
    conditions: Mapping[str, Condition], searched: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
) -> None:
    """See that each condition can hold.

    Raises:
        ConfigError: it is one of, or depends on, a parameter that there is not, or on a value that never comes.
    """
    known = ", ".join([*searched, *fixed]) or "nothing"
    problems = []
    for name, condition in conditions.items():
        if name not in searched and name not in fixed:
            problems.append(f"conditions.{name}: there is no such parameter; there are {known}.")
        elif condition.other in fixed:
            continue
        elif condition.other not in searched:
            problems.append(f"conditions.{name} depends on {condition.other}, which is not one of {known}.")
        elif wrong := [value for value in condition.values if not _can_be(searched[condition.other], value)]:
            there = _what_there_is(searched[condition.other])
            problems.append(f"conditions.{name}: {condition.other} is never {', '.join(wrong)}; {there}.")
    if problems:
        raise ConfigError("\n".join(problems))


def in_order(
    searched: Mapping[str, BaseDistribution], conditions: Mapping[str, Condition]
) -> dict[str, BaseDistribution]:
    """The parameters in the order as written, but each after what it depends on.

    Raises:
        ConfigError: conditions go in a circle.
    """
    result: dict[str, BaseDistribution] = {}
    waiting = dict(searched)
    while waiting:
        ready = [n for n in waiting if n not in conditions or conditions[n].other not in waiting]
        if not ready:
            raise ConfigError(f"conditions go in a circle: {', '.join(waiting)}.")
        for name in ready:
            result[name] = waiting.pop(name)
    return result


@lru_cache
def _parsed(text: str) -> tuple[str, tuple[str, ...] | None]:
    """A value of Hydra's grammar as one word, and as several if it is a list; other text is a string."""
    try:
        value = grammar.parsed(text)
    except ValueError:
        value = text
    if isinstance(value, Sweep):  # no sweep is meant: `a,b` is one string
        value = text
    listed = tuple(word(grammar.kept(one)) for one in value) if isinstance(value, list) else None
    return word(grammar.kept(value)), listed


def _can_be(distribution: BaseDistribution, value: str) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in map(word, distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    try:
        number = float(value)
    except ValueError:
        return False
    # What is drawn from an interval of floats equals no written number.
    return finite(distribution) and distribution._contains(number) and word(number) == value


def _what_there_is(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"its choices are {', '.join(map(word, distribution.choices))}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if not finite(distribution):
        return "it is continuous, so give it choices or a range with steps"
    return f"it goes from {distribution.low} to {distribution.high} in steps of {distribution.step}"
