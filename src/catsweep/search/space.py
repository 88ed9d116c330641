"""What is searched: parameters, what they depend on, and what stays fixed.

Written in Hydra's sweep syntax (`choice(a, b)`, `interval(0, 1)`, `range(…)`, `tag(log, interval(…))`), which
`catsweep.search.arguments` reads; conditions are ours. `x`, `+x` and `++x` are one key everywhere: it is written
without its prefix, which only the overrides of a job carry.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import hydra.utils
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import Trial

from catsweep.errors import ConfigError
from catsweep.search import arguments as written
from catsweep.search import counting, distributions, foreign, grammar
from catsweep.search.conditions import Condition, check_conditions, in_order

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        parameters: their distributions, by the name that the study keeps, such that a parameter comes after the one it
            depends on.
        fixed: values of the command line that are not searched, in Hydra's grammar, by key.
        fixed_overrides: overrides that delete something.
        conditions: by parameter.
        extender: adds parameters to a trial, see upstream's `custom_search_space`.
        prefixes: `+` or `++` of the keys whose overrides need it.
        meanings: of parameters whose choices an earlier version kept otherwise: what each of them means, in order.
    """

    parameters: dict[str, BaseDistribution]
    fixed: dict[str, Any] = field(default_factory=dict)
    fixed_overrides: tuple[str, ...] = ()
    conditions: dict[str, Condition] = field(default_factory=dict)
    extender: Callable[[DictConfig, Trial], None] | None = None
    prefixes: dict[str, str] = field(default_factory=dict)
    meanings: dict[str, CategoricalDistribution] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        params: Mapping[str, Any] | None,
        arguments: list[str],
        conditions: Mapping[str, str] | None = None,
        custom_search_space: str | None = None,
    ) -> "Space":
        """Read a space.

        Args:
            params: Hydra sweeps by parameter.
            arguments: overrides of the command line, which win.
            conditions: see `Condition.parse`.
            custom_search_space: dotted path of an extender.

        Raises:
            ConfigError: a line that cannot be read, a deletion of what is searched, or a condition that can never hold.
        """
        own = written.Arguments.read([written.line(key, value) for key, value in (params or {}).items()], "params")
        given = own.under(written.Arguments.read(arguments, "the command line"))
        written.check_deletions(given)
        searched, fixed = given.searched, given.fixed
        for key in given.unsearched:
            log.info("%s=%s is fixed, so %s is not searched", key, fixed[key], key)
        asked = {grammar.bare(name): text for name, text in (conditions or {}).items()}
        read = {name: Condition.parse(name, text, searched) for name, text in asked.items()}
        check_conditions(read, searched, fixed)
        read = {name: condition for name, condition in read.items() if name in searched}
        ordered = in_order(searched, read)
        return cls(ordered, fixed, given.deletions, read, _extender(custom_search_space), given.prefixes)

    def as_recorded(self, recorded: Mapping[str, BaseDistribution]) -> "Space":
        """This space under the names, and with the choices, that a study has for it already.

        An earlier version kept `+x` under this name, and null among choices as text.

        Args:
            recorded: distributions of the study's trials, by parameter.
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
        """Have a trial draw each parameter whose condition holds.

        Args:
            trial: of Optuna; keeps what it has already drawn.
            config: given to the extender.

        Raises:
            ValueError: the extender draws a parameter that is fixed.
        """
        kept: dict[str, Any] = {}  # as a storage gives it back: of choices that are equal (1, true) the first
        for name, distribution in self.parameters.items():
            if self.applies(name, kept):
                drawn = trial._suggest(name, distribution)
                kept[name] = distribution.to_external_repr(distribution.to_internal_repr(drawn))
        if self.extender:
            assert config is not None
            self.extender(config, trial)
        if overlap := sorted(set(map(grammar.bare, trial.params)) & self.fixed.keys()):
            raise ValueError(f"Overlapping fixed parameters and search space parameters found: {overlap}")
        return {**trial.params, **kept}

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """The overrides of a job with these parameters.

        Raises:
            StudyError: one of them is none of the space, and nothing that a study may set.
        """
        foreign.check_params(params, self.parameters, self.extender is not None)
        drawn = {grammar.bare(name): self._spelled(name, value) for name, value in params.items()}
        # What an extender draws has its prefix in its name.
        prefixes = {grammar.bare(name): prefix for name in params if (prefix := grammar.prefix(name))} | self.prefixes
        values = {**drawn, **self.fixed}
        return (*(f"{prefixes.get(key, '')}{key}={text}" for key, text in values.items()), *self.fixed_overrides)

    def describe(self, possible: bool = False) -> dict[str, str]:
        """Each parameter, with the prefix of its overrides, in words that stay the same; an extender by its path.

        Args:
            possible: leave out those that no configuration has, beside what is fixed.
        """
        described = {
            self.prefixes.get(key := grammar.bare(name), "") + key: distributions.words(self._read(name))
            + (f" when {replace(c, other=grammar.bare(c.other))}" if (c := self.conditions.get(name)) else "")
            for name in (counting.possible(self) if possible else self.parameters)
        }
        if self.extender:
            function = getattr(self.extender, "func", self.extender)
            described["custom_search_space"] = f"{function.__module__}.{function.__qualname__}"
        return described

    def describe_fixed(self) -> dict[str, str]:
        """What is fixed or deleted, with the prefix of its overrides."""
        fixed = {f"{self.prefixes.get(key, '')}{key}": text for key, text in self.fixed.items()}
        return {**fixed, **dict.fromkeys(self.fixed_overrides, "deleted")}

    def accepted(self, name: str, value: Any) -> Any:
        """A value that somebody gives for a parameter, as the study keeps it.

        Args:
            name: of the parameter.
            value: see `distributions.accepted`.

        Raises:
            ValueError: it can have no such value.
        """
        found = distributions.accepted(value, self._read(name))
        if name in self.meanings:
            return self.parameters[name].to_external_repr(self._read(name).to_internal_repr(found))
        return found

    def whole(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """The configuration that values make up, as Optuna would keep it.

        Args:
            params: by name. Those whose condition does not hold are left out.

        Returns:
            None if a value is missing or impossible, or if there is an extender, which may want more.
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

    def baseline(self, config: DictConfig) -> dict[str, Any] | None:
        """The configuration as it stands, were nothing searched; None if it is not one of the space.

        Args:
            config: of the multirun, whose groups are in `hydra.runtime.choices`.
        """
        groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
        found: dict[str, Any] = {}
        for name in self.parameters:
            key = grammar.bare(name)
            value = groups[key] if key in groups else OmegaConf.select(config, key)
            with suppress(ValueError):  # it is missed only if its condition holds
                found[name] = self.accepted(name, value)
        return self.whole(found)

    def key(self, params: Mapping[str, Any]) -> str:
        """The same for the same configuration, however its floats were rounded."""
        return repr(
            [(name, distributions.canonical(params[name], self.parameters.get(name))) for name in sorted(params)]
        )

    def configurations(self, bound: int = 10_000) -> list[dict[str, Any]] | None:
        """All configurations, or None if they are not finite, more than `bound`, or not known (an extender)."""
        return counting.configurations(self, bound)

    def size(self) -> int | None:
        """How many configurations there are, None for infinitely (or unknowably) many."""
        return self._size

    @cached_property
    def _size(self) -> int | None:
        return counting.size(self)

    def grid(self) -> dict[str, Any]:
        """The values of each parameter, as Optuna's GridSampler wants them.

        Raises:
            ConfigError: a parameter is continuous.
        """
        if wrong := [name for name, d in self.parameters.items() if not distributions.finite(d)]:
            raise ConfigError(f"A grid needs choices or ranges with steps; {', '.join(wrong)} is continuous.")
        return {name: distributions.values(d) for name, d in self.parameters.items()}

    def applies(self, name: str, params: Mapping[str, Any]) -> bool:
        """Whether a parameter is there, beside others that were drawn before it."""
        condition = self.conditions.get(name)
        if condition and condition.other in self.meanings and condition.other in params:
            params = {condition.other: self._meant(condition.other, params[condition.other])}
        return condition is None or condition.holds(params, self.fixed)

    def _read(self, name: str) -> BaseDistribution:
        """The distribution of a parameter as it was written here."""
        return self.meanings.get(name) or self.parameters[name]

    def _meant(self, name: str, value: Any) -> Any:
        """What a value that the study keeps means."""
        if name not in self.meanings:
            return value
        return self.meanings[name].to_external_repr(self.parameters[name].to_internal_repr(value))

    def _spelled(self, name: str, value: Any) -> str:
        # `True` as Python spells it, as in the names of upstream's folders.
        return str(value) if isinstance(value, bool) else grammar.spelled(self._meant(name, value))


def _meaning(old: BaseDistribution | None, now: CategoricalDistribution) -> CategoricalDistribution | None:
    """What each choice on record means, if an earlier version kept the same choices otherwise."""
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
        extender: Callable[[DictConfig, Trial], None] = hydra.utils.instantiate(node, _execution_whitelist_=path)
    except HydraException as error:
        raise ConfigError(
            f"custom_search_space must be the dotted path of a function of (config, trial); got {path!r}: {error}"
        ) from error
    return extender
