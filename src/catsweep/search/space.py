"""What is searched: parameters, what they depend on, and what stays fixed.

Written in Hydra's sweep syntax (`choice(a, b)`, `interval(0, 1)`, `range(…)`, `tag(log, interval(…))`), which
hydra-optuna-sweeper parses; conditions are ours.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import hydra.utils
from hydra.errors import HydraException
from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.trial import Trial

from catsweep.errors import ConfigError
from catsweep.search import distributions
from catsweep.search.conditions import Condition, check_conditions, in_order


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        parameters: their distributions, such that a parameter comes after the one it depends on.
        fixed: values of the command line that are not searched.
        fixed_overrides: overrides that delete something.
        conditions: by parameter.
        extender: adds parameters to a trial, see upstream's `custom_search_space`.
    """

    parameters: dict[str, BaseDistribution]
    fixed: dict[str, Any] = field(default_factory=dict)
    fixed_overrides: tuple[str, ...] = ()
    conditions: dict[str, Condition] = field(default_factory=dict)
    extender: Callable[[DictConfig, Trial], None] | None = None

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
            ConfigError: a line that cannot be read, or a condition that can never hold.
        """
        searched, fixed, deletions = _read([f"{key}={value}" for key, value in (params or {}).items()], "params")
        given, given_fixed, given_deletions = _read(arguments, "the command line")
        searched = {**searched, **given}
        fixed = {**{name: value for name, value in fixed.items() if name not in given}, **given_fixed}
        searched = {name: distribution for name, distribution in searched.items() if name not in fixed}
        read = {name: Condition.parse(name, text, searched) for name, text in (conditions or {}).items()}
        check_conditions(read, searched, fixed)
        read = {name: condition for name, condition in read.items() if name in searched}
        ordered = in_order(searched, read)
        return cls(ordered, fixed, (*deletions, *given_deletions), read, _extender(custom_search_space))

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
            if self._applies(name, kept):
                drawn = trial._suggest(name, distribution)
                kept[name] = distribution.to_external_repr(distribution.to_internal_repr(drawn))
        if self.extender:
            assert config is not None
            self.extender(config, trial)
        if overlap := sorted(trial.params.keys() & self.fixed.keys()):
            raise ValueError(f"Overlapping fixed parameters and search space parameters found: {overlap}")
        return {**trial.params, **kept}

    def overrides(self, params: Mapping[str, Any]) -> tuple[str, ...]:
        """The overrides of a job with these parameters."""
        return (*(f"{name}={value}" for name, value in {**params, **self.fixed}.items()), *self.fixed_overrides)

    def describe(self) -> dict[str, str]:
        """Each parameter in words that stay the same; an extender by its dotted path."""
        described = {
            name: distributions.words(distribution)
            + (f" when {self.conditions[name]}" if name in self.conditions else "")
            for name, distribution in self.parameters.items()
        }
        if self.extender:
            function = getattr(self.extender, "func", self.extender)
            described["custom_search_space"] = f"{function.__module__}.{function.__qualname__}"
        return described

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
            if self._applies(name, found):
                try:
                    internal = distribution.to_internal_repr(params[name])
                except (KeyError, ValueError):
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
        keys = {name: name.lstrip("+") for name in self.parameters}
        values = {name: groups[key] if key in groups else OmegaConf.select(config, key) for name, key in keys.items()}
        return self.whole({name: distributions.meant(v, self.parameters[name]) for name, v in values.items()})

    def key(self, params: Mapping[str, Any]) -> str:
        """The same for the same configuration, however its floats were rounded."""
        return repr(
            [(name, distributions.canonical(params[name], self.parameters.get(name))) for name in sorted(params)]
        )

    def configurations(self, bound: int = 10_000) -> list[dict[str, Any]] | None:
        """All configurations, or None if they are not finite, more than `bound`, or not known (an extender)."""
        if self.size() is None or (self.size() or 0) > bound:
            return None
        found: list[dict[str, Any]] = [{}]
        for name, distribution in self.parameters.items():
            there = any(self._applies(name, params) for params in found)
            values = distributions.values(distribution) if there else []
            found = [
                grown
                for params in found
                for grown in ([{**params, name: v} for v in values] if self._applies(name, params) else [params])
            ]
        return found

    def size(self) -> int | None:
        """How many configurations there are, None for infinitely (or unknowably) many."""
        return self._size

    @cached_property
    def _size(self) -> int | None:
        # A parameter that can never be there may be continuous.
        there = [name for name in self.parameters if name not in self.conditions or self._root(name)[1]]
        if self.extender or not all(distributions.finite(self.parameters[name]) for name in there):
            return None
        return math.prod(self._below(name) for name in there if self._root(name)[0] == name)

    def _root(self, name: str) -> tuple[str, bool]:
        """The searched parameter on which the presence of one hangs in the end, and whether it can be there."""
        while (condition := self.conditions.get(name)) and condition.other in self.parameters:
            name = condition.other
        return name, self._applies(name, {})

    def _below(self, name: str) -> int:
        """The number of configurations of a parameter that is there and of those that hang on it."""
        distribution = self.parameters[name]
        hanging = [other for other, condition in self.conditions.items() if condition.other == name]
        if not hanging:
            return distributions.count(distribution)
        below = {other: self._below(other) for other in hanging}
        return sum(
            math.prod(n for other, n in below.items() if self._applies(other, {name: value}))
            for value in distributions.values(distribution)
        )

    def grid(self) -> dict[str, Any]:
        """The values of each parameter, as Optuna's GridSampler wants them.

        Raises:
            ConfigError: a parameter is continuous.
        """
        if wrong := [name for name, d in self.parameters.items() if not distributions.finite(d)]:
            raise ConfigError(f"A grid needs choices or ranges with steps; {', '.join(wrong)} is continuous.")
        return {name: distributions.values(d) for name, d in self.parameters.items()}

    def _applies(self, name: str, params: Mapping[str, Any]) -> bool:
        condition = self.conditions.get(name)
        return condition is None or condition.holds(params, self.fixed)


def _read(lines: list[str], source: str) -> tuple[dict[str, BaseDistribution], dict[str, Any], list[str]]:
    """What is searched, fixed and deleted.

    Raises:
        ConfigError: with the first line that cannot be read.
    """
    refusals = (HydraException, ValueError, NotImplementedError, AssertionError)
    try:
        return create_params_from_overrides(lines)
    except refusals:
        for line in lines:
            try:
                create_params_from_overrides([line])
            except refusals as error:
                raise ConfigError(
                    f"{line!r} of {source} cannot be read{f': {error}' if str(error) else '.'}\n"
                    "Expected a value, choice(a, b), range(1, 5), interval(0.0, 1.0) or tag(log, interval(1e-4, 1e-2))."
                ) from error
        raise


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
