"""The search space: parameters, their distributions and conditions, and what is fixed.

Written in Hydra's sweep syntax (`choice(a, b)`, `interval(0, 1)`, `range(…)`, `tag(log, interval(…))`); a condition
makes a parameter depend on the value of another. `x`, `+x` and `++x` are one key everywhere: it is written without its
prefix, which only the overrides of a job carry.
"""

import difflib
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any, cast

import hydra.utils
from hydra.core.override_parser.types import Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import Trial

from steady import grammar
from steady.exceptions import ConfigError
from steady.study import untrusted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Condition:
    """A condition: a parameter is there only when another has one of some values."""

    other: str  # name of the other parameter
    values: tuple[str, ...]  # spelled as by `word`

    @classmethod
    def parse(cls, name: str, text: str, searched: Mapping[str, BaseDistribution] | None = None) -> "Condition":
        """Parse the condition `other=value` or `other=[a,b]` of a parameter; `searched` tells if `[a]` is a choice."""
        other, equals, value = (part.strip() for part in str(text).partition("="))
        other = grammar.bare(other)
        whole, listed = _parse(value) if value else ("", None)
        distribution = (searched or {}).get(other)
        if isinstance(distribution, CategoricalDistribution) and whole in map(word, distribution.choices):
            listed = None
        if not equals or not other or not whole or listed == ():
            raise ConfigError(f"conditions.{name} must be written other=value or other=[a,b]; got {text!r}.")
        return cls(other, (whole,) if listed is None else listed)

    def holds(self, params: Mapping[str, Any], fixed: Mapping[str, str]) -> bool:
        """Tell whether the condition holds beside drawn and fixed parameters; not while the other one is absent."""
        if self.other in params:
            return word(params[self.other]) in self.values
        other = grammar.bare(self.other)
        return other in fixed and _parse(str(fixed[other]))[0] in self.values

    def __str__(self) -> str:
        listed = ",".join(self.values)
        return f"{self.other}={listed if len(self.values) == 1 else f'[{listed}]'}"


def _check_conditions(
    conditions: Mapping[str, Condition], searched: Mapping[str, BaseDistribution], fixed: Mapping[str, Any]
) -> None:
    """Refuse conditions of or on a parameter that there is not, or on a value that never comes."""
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
            remedy = _values_in_words(searched[condition.other])
            problems.append(f"conditions.{name}: {condition.other} is never {', '.join(wrong)}; {remedy}.")
    if problems:
        raise ConfigError("\n".join(problems))


def _sort(searched: Mapping[str, BaseDistribution], conditions: Mapping[str, Condition]) -> dict[str, BaseDistribution]:
    """Sort the parameters as written, but each after what it depends on; refuse conditions in a circle."""
    result: dict[str, BaseDistribution] = {}
    while waiting := [name for name in searched if name not in result]:
        ready = [name for name in waiting if name not in conditions or conditions[name].other not in waiting]
        if not ready:
            raise ConfigError(f"conditions go in a circle: {', '.join(waiting)}.")
        result |= {name: searched[name] for name in ready}
    return result


@lru_cache
def _parse(text: str) -> tuple[str, tuple[str, ...] | None]:
    """Parse a value of Hydra's grammar as one word, and as several if it is a list; other text is a string."""
    value: Any = text
    with suppress(ValueError):
        value = grammar.parsed(text)
    value = text if isinstance(value, Sweep) else value  # no sweep is meant: `a,b` is one string
    listed = tuple(word(grammar.encode(one)) for one in value) if isinstance(value, list) else None
    return word(grammar.encode(value)), listed


def _can_be(distribution: BaseDistribution, value: str) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in map(word, distribution.choices)
    with suppress(ValueError):  # what is drawn from an interval of floats equals no written number
        return is_finite(distribution) and distribution._contains(float(value)) and word(float(value)) == value
    return False


def _values_in_words(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"its choices are {', '.join(map(word, distribution.choices))}"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if not is_finite(distribution):
        return "it is continuous, so give it choices or a range with steps"
    return f"it goes from {distribution.low} to {distribution.high} in steps of {distribution.step}"


@dataclass(frozen=True)
class Space:
    """A search space.

    Example:
        >>> space = Space.parse({"lr": "choice(0.1, 1)", "kind": "choice(a, b)"}, ["kind=a", "epochs=5"])
        >>> space.describe(), space.size()
        ({'lr': 'choice(0.1, 1)'}, 2)
        >>> space.overrides({"lr": 0.1})
        ('lr=0.1', 'kind=a', 'epochs=5')
    """

    parameters: dict[str, BaseDistribution]  # by the name that the study keeps, each after the one it depends on
    fixed: dict[str, Any] = field(default_factory=dict)  # values that are not searched, in Hydra's grammar, by key
    fixed_overrides: tuple[str, ...] = ()  # that delete something
    conditions: dict[str, Condition] = field(default_factory=dict)  # by parameter
    extender: Callable[[DictConfig, Trial], None] | None = None  # adds parameters to a trial (`custom_search_space`)
    prefixes: dict[str, str] = field(default_factory=dict)  # `+` or `++` of the keys whose overrides need it
    # Of parameters whose choices an earlier version recorded otherwise: what each choice means, in the same order.
    meanings: dict[str, CategoricalDistribution] = field(default_factory=dict)

    @classmethod
    def parse(
        cls, params: Mapping[str, Any] | None, arguments: list[str], conditions: Mapping[str, str] | None = None,
        custom_search_space: str | None = None,
    ) -> "Space":  # fmt: skip
        """Parse `hydra.sweeper.params` and the overrides of the command line, which win.

        Raises:
            ConfigError: a line that cannot be read, a deletion of what is searched, a condition that can never hold, or
                an extender that cannot be found.
        """
        own = grammar.Arguments.read(
            [grammar.as_override(key, value) for key, value in (params or {}).items()], "params"
        )
        given = own.under(grammar.Arguments.read(arguments, "the command line"))
        grammar.check_deletions(given)
        searched, fixed = given.searched, given.fixed
        for key in given.unsearched:
            log.info("%s=%s is fixed, so %s is not searched", key, fixed[key], key)
        asked = {grammar.bare(name): text for name, text in (conditions or {}).items()}
        read = {name: Condition.parse(name, text, searched) for name, text in asked.items()}
        _check_conditions(read, searched, fixed)
        read = {name: condition for name, condition in read.items() if name in searched}
        extender = _extender(custom_search_space)
        return cls(_sort(searched, read), fixed, given.deletions, read, extender, given.prefixes)

    def as_recorded(self, recorded: Mapping[str, BaseDistribution]) -> "Space":
        """Convert to the names and choices that a study has recorded, by the distributions of its trials.

        A version up to 0.1 recorded `+x` under this name, and null among choices as text.
        """
        names = {grammar.bare(name): name for name in recorded} | {name: name for name in recorded}
        there = {name: names.get(name, name) for name in self.parameters}
        parameters, meanings = {}, {}
        for name, distribution in self.parameters.items():
            parameters[there[name]] = distribution
            old = recorded.get(there[name])
            if isinstance(distribution, CategoricalDistribution) and (meaning := _meaning(old, distribution)):
                assert old is not None
                parameters[there[name]], meanings[there[name]] = old, meaning
        conditions = {
            there[name]: replace(condition, other=there.get(condition.other, condition.other))
            for name, condition in self.conditions.items()
        }
        return replace(self, parameters=parameters, conditions=conditions, meanings=meanings)

    def suggest(self, trial: Trial, config: DictConfig | None = None) -> dict[str, Any]:
        """Draw each parameter whose condition holds, and those of the extender; none may be fixed (ValueError)."""
        kept: dict[str, Any] = {}  # as a storage gives it back: of choices that are equal (1, true) the first
        begun = trial.params  # of an earlier attempt, perhaps with other choices
        for name, distribution in self.parameters.items():
            if self.applies(name, kept):
                drawn = begun[name] if name in begun else trial._suggest(name, distribution)
                kept[name] = distribution.to_external_repr(distribution.to_internal_repr(drawn))
        if self.extender:
            assert config is not None
            self.extender(config, trial)
        if overlap := sorted(set(map(grammar.bare, trial.params.keys() - begun.keys())) & self.fixed.keys()):
            raise ValueError(f"Overlapping fixed parameters and search space parameters found: {overlap}")
        return {**trial.params, **kept}

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """List the overrides of a job with these parameters; raises StudyError for those that no study may set."""
        untrusted.check_params(params, self.parameters, self.extender is not None)
        drawn = {grammar.bare(name): self._spell(name, value) for name, value in params.items()}
        # What an extender draws has its prefix in its name.
        prefixes = {grammar.bare(name): prefix for name in params if (prefix := grammar.prefix(name))} | self.prefixes
        values = {**drawn, **self.fixed}
        return (*(f"{prefixes.get(key, '')}{key}={text}" for key, text in values.items()), *self.fixed_overrides)

    def describe(self, possible: bool = False) -> dict[str, str]:
        """Describe each parameter (if `possible`, each that some configuration has), and the extender by its path."""
        shown = {
            self.prefixes.get(key := grammar.bare(name), "") + key: described(self._read(name))
            + (f" when {replace(c, other=grammar.bare(c.other))}" if (c := self.conditions.get(name)) else "")
            for name in (self._possible() if possible else self.parameters)
        }
        if self.extender:
            function = getattr(self.extender, "func", self.extender)
            shown["custom_search_space"] = f"{function.__module__}.{function.__qualname__}"
        return shown

    def describe_fixed(self) -> dict[str, str]:
        """Describe what is fixed or deleted, by the key of its override."""
        fixed = {f"{self.prefixes.get(key, '')}{key}": text for key, text in self.fixed.items()}
        return {**fixed, **dict.fromkeys(self.fixed_overrides, "deleted")}

    def accepted(self, name: str, value: Any) -> Any:
        """Convert a given value of a parameter to what the study records, or raise ValueError; see `space.accepted`."""
        found = accepted(value, self._read(name))
        if name in self.meanings:
            return self.parameters[name].to_external_repr(self._read(name).to_internal_repr(found))
        return found

    def whole(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Choose the values of a configuration, as Optuna records it, without those whose condition does not hold.

        Returns None if a value is missing or impossible, or if there is an extender, which may want more.
        """
        if self.extender:
            return None
        found: dict[str, Any] = {}
        for name, distribution in self.parameters.items():
            if self.applies(name, found):
                try:
                    internal = distribution.to_internal_repr(params[name])
                except (KeyError, TypeError, ValueError):  # TypeError: of another tool's trial
                    return None
                if not distribution._contains(internal):
                    return None
                found[name] = distribution.to_external_repr(internal)
        return found

    def misfit(self, params: Mapping[str, Any]) -> str:
        """Say why a configuration, perhaps of before the space was changed, is none of it; "" if it may be.

        What is neither searched nor fixed is passed over.

        >>> Space.parse({"x": "choice(1, 2)"}, ["y=3"]).misfit({"x": 2, "y": 4})
        'y=3 is fixed by now; it has 4'
        >>> Space.parse({}, ["x=0.3", "y=[1,a]"]).misfit({"x": 0.1 + 0.2, "y": "[1,a]"})
        ''
        """
        for name, value in params.items():
            key, distribution = grammar.bare(name), self.parameters.get(name)
            if distribution is not None and not _contains(distribution, value):
                return f"{name} must be {described(distribution)} by now; it has {value!r}"
            if key in self.fixed and word(value) != _parse(str(self.fixed[key]))[0]:
                return f"{key}={self.fixed[key]} is fixed by now; it has {word(value)}"
        return ""

    def lacking(self, params: Mapping[str, Any]) -> str:
        """Say which parameters a whole configuration of before the space was changed has not; "" if it has all.

        >>> Space.parse({"x": "choice(1, 2)", "y": "choice(1, 2)"}, []).lacking({"x": 2})
        'by now y would be drawn, and had one value'
        """
        lacks = [name for name in self.parameters if name not in params and self.applies(name, params)]
        return f"by now {', '.join(lacks)} would be drawn, and had one value" if lacks else ""

    def completed(self, wanted: Mapping[str, Any], values: Callable[[str], Sequence[Any]]) -> dict[str, Any]:
        """Complete values to a configuration by the first of the `values` of each other parameter."""
        params: dict[str, Any] = {}
        for name in self.parameters:
            if self.applies(name, params):
                params[name] = wanted[name] if name in wanted else values(name)[0]
        return params

    def prerequisites(self, name: str, values: Callable[[str], Sequence[Any]]) -> dict[str, Any]:
        """Choose of the `values` of others those that the condition of a parameter needs."""
        needed: dict[str, Any] = {}
        while (condition := self.conditions.get(name)) and (other := condition.other) in self.parameters:
            fitting = [value for value in values(other) if self.applies(name, {other: value})]
            if not fitting:
                break
            needed[other], name = fitting[0], other
        return needed

    def baseline(self, config: DictConfig) -> dict[str, Any] | None:
        """Get the parameters of the configuration as it stands; None if it is not in the space."""
        groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
        found: dict[str, Any] = {}
        for name in self.parameters:
            key = grammar.bare(name)
            value = groups[key] if key in groups else OmegaConf.select(config, key)
            with suppress(ValueError):  # it is missed only if its condition holds
                found[name] = self.accepted(name, value)
        return self.whole(found)

    def key(self, params: Mapping[str, Any]) -> str:
        """Compute a text that is equal for equal configurations, however their floats were rounded."""
        return repr([(name, canonical(params[name], self.parameters.get(name))) for name in sorted(params)])

    def configurations(self, bound: int = 10_000) -> list[dict[str, Any]] | None:
        """List all configurations; None if they are infinitely many, more than `bound`, or unknown (an extender)."""
        if (size := self.size()) is None or size > bound:
            return None
        found: list[dict[str, Any]] = [{}]
        for name, distribution in self.parameters.items():
            there = any(self.applies(name, params) for params in found)
            added = [{name: value} for value in values_of(distribution)] if there else []
            found = [params | one for params in found for one in (added if self.applies(name, params) else [{}])]
        return found

    def size(self) -> int | None:
        """Count the configurations; None if they are infinitely many, or unknown."""
        return self._size

    @cached_property
    def _size(self) -> int | None:
        there = self._possible()  # one that can never be there may be continuous
        if self.extender or not all(is_finite(self.parameters[name]) for name in there):
            return None
        return math.prod(self._below(name) for name in there if self._root(name)[0] == name)

    def _possible(self) -> list[str]:
        """List the parameters that some configuration has."""
        return [name for name in self.parameters if name not in self.conditions or self._root(name)[1]]

    def _root(self, name: str) -> tuple[str, bool]:
        """Find the unconditional parameter that one depends on in the end, and tell whether that can be there."""
        while (condition := self.conditions.get(name)) and condition.other in self.parameters:
            name = condition.other
        return name, self.applies(name, {})

    def _below(self, name: str) -> int:
        """Count the configurations of a parameter and of those that depend on it."""
        distribution = self.parameters[name]
        below = {other: self._below(other) for other, condition in self.conditions.items() if condition.other == name}
        if not below:
            return count_values(distribution)
        return sum(
            math.prod(n for other, n in below.items() if self.applies(other, {name: value}))
            for value in values_of(distribution)
        )

    def grid(self) -> dict[str, Any]:
        """List the values of each parameter, for Optuna's GridSampler; a continuous one is a ConfigError."""
        if wrong := [name for name, d in self.parameters.items() if not is_finite(d)]:
            raise ConfigError(f"A grid needs choices or ranges with steps; {', '.join(wrong)} is continuous.")
        return {name: values_of(d) for name, d in self.parameters.items()}

    def applies(self, name: str, params: Mapping[str, Any]) -> bool:
        """Tell whether a parameter is there, beside others that were drawn before it."""
        condition = self.conditions.get(name)
        if condition and condition.other in self.meanings and condition.other in params:
            params = {condition.other: self._meant(condition.other, params[condition.other])}
        return condition is None or condition.holds(params, self.fixed)

    def _read(self, name: str) -> BaseDistribution:
        """Get the distribution of a parameter as `params` has it, not as the study recorded it."""
        return self.meanings.get(name) or self.parameters[name]

    def _meant(self, name: str, value: Any) -> Any:
        """Convert a value as the study recorded it to what it means."""
        if name not in self.meanings:
            return value
        return self.meanings[name].to_external_repr(self.parameters[name].to_internal_repr(value))

    def _spell(self, name: str, value: Any) -> str:
        # `True` as Python spells it, as in the names of upstream's folders.
        return str(value) if isinstance(value, bool) else grammar.as_text(self._meant(name, value))


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (TypeError, ValueError):
        return False


def _meaning(old: BaseDistribution | None, now: CategoricalDistribution) -> CategoricalDistribution | None:
    """Get what each recorded choice means, if an earlier version recorded the same choices otherwise."""
    if not isinstance(old, CategoricalDistribution) or old == now:
        return None
    texts: dict[grammar.Scalar, grammar.Scalar] = {"null" if one is None else one: one for one in now.choices}
    if set(texts) != set(old.choices):
        return None
    return CategoricalDistribution([texts[choice] for choice in old.choices])


def _extender(path: str | None) -> Callable[[DictConfig, Trial], None] | None:
    if not path:
        return None
    node = {"_target_": path, "_partial_": True}
    try:  # trusted as the task itself is: the user's own function. What Hydra blocks for all stays blocked.
        return cast(Callable[[DictConfig, Trial], None], hydra.utils.instantiate(node, _execution_whitelist_=path))
    except HydraException as error:
        expected = "custom_search_space must be the dotted path of a function of (config, trial)"
        raise ConfigError(f"{expected}; got {path!r}: {error}") from error


def is_finite(distribution: BaseDistribution) -> bool:
    """Tell whether a distribution has finitely many values: all but intervals of floats.

    Example:
        >>> is_finite(FloatDistribution(0, 1)), is_finite(FloatDistribution(0, 1, step=0.5))
        (False, True)
    """
    return not isinstance(distribution, FloatDistribution) or distribution.step is not None or distribution.single()


def values_of(distribution: BaseDistribution) -> list[Any]:
    """List the values of a finite distribution, of choices that are equal to Optuna (1, 1.0, true) the first.

    Example:
        >>> values_of(FloatDistribution(0, 1, step=0.5)), values_of(CategoricalDistribution([1, True, 2]))
        ([0.0, 0.5, 1.0], [1, 2])
    """
    if isinstance(distribution, CategoricalDistribution):
        choices = enumerate(distribution.choices)
        return [value for index, value in choices if int(distribution.to_internal_repr(value)) == index]
    if isinstance(distribution, IntDistribution):
        return list(range(distribution.low, distribution.high + 1, distribution.step))
    assert isinstance(distribution, FloatDistribution)
    if distribution.single():
        return [distribution.low]
    low, high, step = (Decimal(str(part)) for part in (distribution.low, distribution.high, distribution.step))
    return [float(low + k * step) for k in range(round((high - low) / step))] + [distribution.high]


def count_values(distribution: BaseDistribution) -> int:
    """Count the values of a finite distribution, without listing those of a long range.

    Example:
        >>> count_values(IntDistribution(0, 10**9))
        1000000001
    """
    if isinstance(distribution, CategoricalDistribution) or distribution.single():
        return len(values_of(distribution))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    assert distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1  # Optuna puts `high` on a step


def canonical(value: Any, distribution: BaseDistribution | None) -> Any:
    """Convert values that are equal to Optuna to one: a float of a range to its number of steps, a choice to the first.

    Example:
        >>> canonical(0.1 + 0.2, FloatDistribution(0, 1, step=0.1)), canonical(True, CategoricalDistribution([1, 2]))
        (3.0, 1)
    """
    if isinstance(distribution, CategoricalDistribution) and value in distribution.choices:
        return distribution.to_external_repr(distribution.to_internal_repr(value))
    if isinstance(distribution, FloatDistribution) and distribution.step is not None and isinstance(value, float):
        return round((value - distribution.low) / distribution.step, 6) + 0.0
    return value


def accepted(value: Any, distribution: BaseDistribution) -> Any:
    """Convert a value of a configuration to what Optuna records; lists and dicts to the choice that is their text.

    Raises:
        ValueError: the distribution has no such value; with what it has, as the rest of a sentence.

    Example:
        >>> accepted([1, 2], CategoricalDistribution(["[1,2]", "[3]"])), accepted(1, FloatDistribution(0, 1))
        ('[1,2]', 1.0)
    """
    value = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    if isinstance(distribution, CategoricalDistribution):
        # Of a string that looks like the text of a list there may be two: the string itself goes before the list.
        several = (grammar.encode(value), value) if isinstance(value, str) else (value,)
        found = [choice for one in several for choice in distribution.choices if _same(one, choice)]
        if not found:
            raise ValueError(f"must be {_alternatives(value, distribution)}")
        return distribution.to_external_repr(distribution.to_internal_repr(found[0]))
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    stepped = distribution.step is not None and distribution.step != 1
    wanted = f"from {distribution.low} to {distribution.high}{f' in steps of {distribution.step}' * stepped}"
    whole = isinstance(distribution, IntDistribution)
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not fits or (whole and value != int(value)) or not distribution._contains(float(value)):
        raise ValueError(f"must be a {'whole ' * whole}number {wanted}")
    return distribution.to_external_repr(distribution.to_internal_repr(value))


def _same(value: Any, choice: grammar.Scalar) -> bool:
    """Tell whether a plain value equals a choice; a string never equals a number, or null."""
    if isinstance(value, str):
        return isinstance(choice, str) and choice == value
    if isinstance(value, list | dict):
        return isinstance(choice, str) and type(found := grammar.decode(choice)) is type(value) and found == value
    return not isinstance(choice, str) and (value == choice)


def _alternatives(value: Any, distribution: CategoricalDistribution) -> str:
    choices = list(map(word, distribution.choices))
    close = difflib.get_close_matches(str(value), choices, 1)
    one_of = choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    return f"{one_of} (did you mean {close[0]}?)" if close and len(choices) > 1 else one_of


def described(distribution: BaseDistribution) -> str:
    """Describe a distribution in words, which contracts record.

    Example:
        >>> described(IntDistribution(1, 4)), described(FloatDistribution(1e-4, 1e-2, log=True))
        ('int 1..4', 'float 0.0001..0.01 log')
    """
    if isinstance(distribution, CategoricalDistribution):
        return f"choice({', '.join(map(word, distribution.choices))})"
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    kind = "int" if isinstance(distribution, IntDistribution) else "float"
    stepped = distribution.step is not None and not (kind == "int" and distribution.step == 1)
    step = f" step {distribution.step}" if stepped else ""
    return f"{kind} {distribution.low}..{distribution.high}{step}{' log' if distribution.log else ''}"


def word(value: Any) -> str:
    """Spell a value in one way: YAML's `true`, `null`; 2 for 2.0; 0.3 for 0.1 + 0.2; `'null'` for the string.

    Example:
        >>> word(2.0), word(0.1 + 0.2), word(None), word("null")
        ('2', '0.3', 'null', "'null'")
    """
    return f"{value:.12g}" if isinstance(value, float) else grammar.as_text(value)
