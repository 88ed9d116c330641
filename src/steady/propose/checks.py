"""Checks of a sweep's options against its space and its configuration, before anything is written.

All problems are told at once. `JobComposer` finds out whether Hydra can compose the jobs of a space: a misspelled
option or key would else fail in every trial that draws it, and the study would keep it for good. `Enqueued` tells if a
configuration is in the space; what another tool has enqueued is checked when its turn comes.
"""

import copy
import difflib
import functools
import importlib.util
import itertools
import logging
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import optuna
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Sweep
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from steady import grammar
from steady.composition import Composition
from steady.exceptions import ConfigError
from steady.options import SweepOptions
from steady.propose import pruning
from steady.propose.schema import registered
from steady.propose.space import Space, count_values, is_finite, values_of, word
from steady.propose.trusted import did_you_mean

log = logging.getLogger(__name__)

TRIES = 64  # further configurations in which a parameter may be composed before it is refused
FEW = 1000  # values that are listed
REFUSALS = (HydraException, OmegaConfBaseException, ValueError, TypeError, AssertionError)
MISSING = object()
Variants = Callable[[Mapping[str, Any]], Sequence[DictConfig]]


def recorded_distributions(study: optuna.Study) -> dict[str, BaseDistribution]:
    """Collect the parameters that a study has recorded, each with its newest distribution.

    Example:
        >>> recorded_distributions(optuna.create_study())
        {}
    """
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    return found


def check_options(options: SweepOptions, composing: "JobComposer") -> SweepOptions:
    """Check the options of a sweep; returns them with `enqueue` as the study records configurations.

    Raises:
        ConfigError: with every configuration that is not in the space, every option that its group has not, every
            parameter that no job can be composed with, and every function or class that cannot be found.

    Example:
        >>> from hydra import compose, initialize
        >>> from hydra.core.global_hydra import GlobalHydra
        >>> from steady.options import read
        >>> with initialize(config_path=None):
        ...     config = compose(overrides=["hydra/sweeper=steady", "+x=0"], return_hydra_config=True)
        ...     options = read(config.hydra.sweeper, "app", "out")
        ...     loader = GlobalHydra.instance().config_loader()
        ...     check_options(options, JobComposer(Space.parse({"y": "1, 2"}, []), config, loader))
        Traceback (most recent call last):
        steady.exceptions.ConfigError: y is searched, and no job can be composed with it: Could not override 'y'. ...
    """
    named, problems, remarks = read_all(options.enqueue, composing.space, composing.config, composing.variants)
    if composing.possible:
        problems += composing.problems()
    elif not problems:
        problems.append("hydra.sweeper has a value nan, beside which Hydra composes no job; take it out.")
    problems += _unavailable(options, composing.config)
    if problems:
        raise ConfigError("\n".join(problems))
    for remark in remarks:
        log.info(remark)
    return replace(options, enqueue=named)


def _unavailable(options: SweepOptions, config: DictConfig) -> list[str]:
    """List what the sweep would lack later: functions, modules, a pruner, a seed."""
    functions = [("preflight", options.preflight)] if options.preflight is not None else []
    functions += [("on_end", path) for path in options.on_end]
    said = [
        _refusal_of(f"{key} must be the dotted path of a function", path, _find_function) for key, path in functions
    ]
    modules = "preload must name modules that can be imported"  # the warm parent would pass over others in silence
    said += [_refusal_of(modules, name, _find_module) for name in options.preload]
    if options.pruning is not None:
        try:
            pruning.check_pruner(asdict(options.pruning))
        except ConfigError as error:
            said.append(f"hydra.sweeper.pruner: {error}")
        except Exception as error:  # whatever a pruner raises at wrong arguments
            said.append(f"hydra.sweeper.pruner cannot be made, or cannot prune with its arguments: {_one_line(error)}")
    if options.confirm is not None:
        try:
            first_seed(config)
        except ConfigError as error:
            said.append(str(error))
    return list(filter(None, said))


def _refusal_of(expected: str, name: str, find: Callable[[str], None]) -> str:
    try:
        find(name)
    except Exception as error:  # whatever the import of the user's module raises
        return f"hydra.sweeper.{expected}; got {name!r}: {_one_line(error)}"
    return ""


def _find_function(path: str) -> None:
    if not callable(pkgutil.resolve_name(path)):
        raise TypeError("it cannot be called")


def _find_module(name: str) -> None:
    if name != "__main__" and importlib.util.find_spec(name) is None:
        raise ModuleNotFoundError(f"No module named {name!r}")


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or repr(error)).split())


def first_seed(config: DictConfig) -> int:
    """Read the key `seed` of a configuration, under which trials of the search train; none is a ConfigError.

    Example:
        >>> first_seed(OmegaConf.create({"seed": 7}))
        7
    """
    seed = OmegaConf.select(config, "seed")
    if type(seed) is not int:
        raise ConfigError(
            f"confirm trains under other seeds, so the configuration needs a key seed, a whole number; it is {seed!r}. "
            "Add one (+seed=0), or set hydra.sweeper.confirm=null."
        )
    return seed


@dataclass(frozen=True)
class JobComposer:
    """Composes jobs as they will be, to find what no job could be composed with."""

    space: Space
    config: DictConfig  # of the multirun
    loader: ConfigLoader

    @property
    def possible(self) -> bool:
        """Whether Hydra composes any job: it compares `hydra.sweeper` with itself, which NaN is not equal to."""
        return bool(self.config.hydra.sweeper == copy.deepcopy(self.config.hydra.sweeper))

    def problems(self) -> list[str]:
        """List what no job could be composed with, one line each."""
        if said := self._unknown_options() or self._refused_values() or self._impossible_keys():
            return said
        params = next(self.examples(), None)
        return [] if params is None else registered().faults(self.composed(params))

    def composed(self, params: Mapping[str, Any], *overrides: str) -> DictConfig:
        """Compose the configuration of a job with these parameters, behind further overrides; or raise `REFUSALS`."""
        return self._composition.compose([*overrides, *self.space.overrides(params)], keep=True)

    @functools.cached_property
    def _composition(self) -> Composition:
        return Composition(self.loader, self.config)

    def variants(self, params: Mapping[str, Any]) -> list[DictConfig]:
        """Compose the jobs with these parameters that can be composed: one for each option of each other group."""
        drawn = [params]
        for name in self.space.parameters:
            if name not in params and self._is_group(name):
                drawn += [{**params, name: value} for value in self._values(name)]
        found = []
        for one in drawn[:TRIES]:
            with suppress(*REFUSALS):
                found.append(self.composed(one))
        return found

    def examples(self) -> Iterator[dict[str, Any]]:
        """Yield the parameters of a few different jobs that can be composed."""
        several = (params for name in self.space.parameters for params in self._examples(name))
        for params in itertools.islice(itertools.chain(several, [{}]), TRIES):
            if self._refusal(params) is None:
                yield params

    def _unknown_options(self) -> list[str]:
        """List options, searched or fixed, of groups that do not have them."""
        said = []
        for key, values in self._plain_values().items():
            group = key.partition("@")[0]
            if not (options := self._options(group)):
                continue  # no group
            for option in dict.fromkeys(option for value in values for option in _options_of(value)):
                if option not in options and self._refused(key, option):
                    said.append(
                        f"{key}: there is no {option} in the group {group}; there are {', '.join(options)}."
                        f"{did_you_mean(option, options)}"
                    )
        return said

    def _plain_values(self) -> dict[str, list[Any]]:
        """Collect plain values by key, of all that could be a group."""
        chosen: dict[str, list[Any]] = {}
        for name, distribution in self.space.parameters.items():
            if isinstance(distribution, CategoricalDistribution):
                chosen[grammar.bare(name)] = [grammar.decode(choice) for choice in distribution.choices]
        for key, text in self.space.fixed.items():
            with suppress(ValueError):
                value = grammar.parsed(text)
                if not isinstance(value, Sweep):
                    chosen[key] = [grammar.decode(grammar.encode(value))]
        return {key: values for key, values in chosen.items() if "." not in key.partition("@")[0]}

    @functools.cached_property
    def _options(self) -> Callable[[str], list[str]]:
        """Lists the options of a group; each is asked about many times."""
        return functools.cache(self._list_options)

    def _list_options(self, group: str) -> list[str]:
        # As written: an override may name what only a job has, `hydra.sweep.subdir=${hydra:job.num}`.
        overrides: Any = OmegaConf.to_container(self.config.hydra.overrides.hydra, resolve=False)
        return self.loader.get_group_options(group, ObjectType.CONFIG, self.config.hydra.job.config_name, overrides)

    def _refused(self, key: str, option: str) -> bool:
        """Tell if Hydra refuses an option that is not listed: it may be in a folder, or the group optional."""
        searched = [f"{self.space.prefixes.get(key, '')}{key}={grammar.quoted(option)}"]
        return self._refusal({}, *([] if key in self.space.fixed else searched)) is not None

    def _refused_values(self) -> list[str]:
        """List values or bounds that the app's schema refuses, in the first configuration that has the parameter."""
        said = []
        waiting = [name for name in self.space.parameters if not self._is_group(name)]
        for config in self._by_group():
            for name in [name for name in waiting if registered().knows(config, grammar.bare(name))]:
                waiting.remove(name)
                values = map(grammar.decode, self._values(name))
                said += [registered().refusal(config, grammar.bare(name), value) for value in values]
            if not waiting:
                break
        return list(dict.fromkeys(filter(None, said)))

    def _by_group(self) -> Iterator[DictConfig]:
        """Compose with the first option of each group, then with each other, and without any other parameter."""
        groups = [name for name in self.space.parameters if self._is_group(name)]
        others = ({name: value} for name in groups for value in self._values(name)[1:])
        for wanted in itertools.islice(itertools.chain([{}], others), TRIES):
            params = self._example(wanted)
            with suppress(*REFUSALS):
                yield self.composed({name: params[name] for name in groups if name in params})

    def _impossible_keys(self) -> list[str]:
        """List parameters that no configuration can be composed with."""
        if not self.space.parameters and (told := self._refusal({})):
            return [f"No job can be composed: {told}"]
        said: dict[str, str] = {}
        possible: set[str] = set()
        for name in self.space.parameters:
            if name in possible:
                continue
            tried = list(self._examples(name))
            sound = next((params for params in tried if self._refusal(params) is None), None)
            if sound is None:
                said |= self._culprits(name, tried)
            else:
                possible |= sound.keys()
        return list(dict.fromkeys(said.values()))

    def _culprits(self, name: str, refused: list[dict[str, Any]]) -> dict[str, str]:
        """Find out whether a parameter itself is refused, or what every job has."""
        params = next((params for params in refused if name in params), {})
        groups = {other: value for other, value in params.items() if other != name and self._is_group(other)}
        sound = {other: value for other, value in groups.items() if not self._refusal({other: value})}
        if not params or (told := self._refusal({**sound, name: params[name]})) is None:
            return {}  # another's fault, which is found when it is its turn
        if anyway := self._refusal(sound):
            return {"": f"No job can be composed: {anyway}"}
        key = grammar.bare(name)
        return {name: f"{key} is searched, and no job can be composed with it: {told}{self._meant(key)}"}

    def _meant(self, key: str) -> str:
        known = list(_keys(OmegaConf.to_container(self.config, resolve=False)))  # type: ignore[arg-type]
        return "" if key in known else did_you_mean(key, known)

    def _is_group(self, name: str) -> bool:
        key = grammar.bare(name)
        return "." not in key.partition("@")[0] and bool(self._options(key.partition("@")[0]))

    def _examples(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield configurations with a parameter: the first, then other options of each group, and its other values.

        A key that is there only with certain options of several groups at once would not be found; conditions tell.
        """
        wanted = self.space.prerequisites(name, self._values)
        groups = (other for other in self.space.parameters if other == name or self._is_group(other))
        others = ({other: value} for other in groups if other not in wanted for value in self._values(other)[1:])
        for changed in itertools.islice(itertools.chain([{}], others), 1 + TRIES):
            yield self._example({**wanted, **changed})

    def _example(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Choose a configuration with some values, and the first of all others."""
        return self.space.completed(wanted, self._values)

    def _values(self, name: str) -> list[Any]:
        """List the values of a parameter, or its bounds if there are too many."""
        distribution = self.space.parameters[name]
        if is_finite(distribution) and count_values(distribution) <= FEW:
            return values_of(distribution)
        assert isinstance(distribution, IntDistribution | FloatDistribution)
        return [distribution.low, distribution.high]

    def _refusal(self, params: Mapping[str, Any], *overrides: str) -> str | None:
        """Say why a job cannot be composed, on one line; None if it can."""
        try:
            self.composed(params, *overrides)
        except REFUSALS as error:
            told = str(error).partition("\nConfig search path")[0].partition("\nSearch path")[0]
            if isinstance(error.__cause__, ValidationError):  # Hydra's own words only name the override
                told = str(error.__cause__).partition("\n")[0]
            return " ".join((told or str(error.__cause__ or "")).split())
        return None


def _options_of(value: Any) -> list[str]:
    """List the options that a value of a group names; none that is only known within a job."""
    several = value if isinstance(value, list) else [value]
    return [option for option in several if isinstance(option, str) and "${" not in option]


def _keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if key != "hydra":
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from _keys(value, f"{prefix}{key}.")


@dataclass
class Enqueued:
    """An enqueued configuration, parsed; problems and remarks are one line each."""

    params: dict[str, Any] = field(default_factory=dict)  # by the study's names, as the study records them
    problems: list[str] = field(default_factory=list)  # why it is not in the space
    absent: list[str] = field(default_factory=list)  # parameters whose condition does not hold
    remarks: list[str] = field(default_factory=list)  # values that are of no use, since another is fixed
    excluded: str | None = None  # the value on which a parameter depends, though another is fixed

    @classmethod
    def read(cls, given: Any, space: Space, config: DictConfig | None, variants: Variants | None = None) -> "Enqueued":
        """Parse values by parameter, not necessarily of all.

        `variants` returns what jobs with some parameters may be composed to; without it, a key that is not searched is
        taken to be in every job as it is in `config`, that of the multirun.
        """
        if not isinstance(given, Mapping):
            return cls(problems=[f"a configuration is written {{parameter: value, …}}; got {given!r}"])
        found = cls()
        names = {grammar.bare(name): name for name in space.parameters}
        unsearched: dict[str, Any] = {}
        written: dict[str, list[Any]] = {}  # names, by key
        for name in given:
            written.setdefault(grammar.bare(str(name)), []).append(name)
        for key, (name, *others) in written.items():
            if others:
                found.problems.append(f"{key} is given twice")
            elif key in names:
                try:
                    found.params[names[key]] = space.accepted(names[key], given[name])
                except ValueError as error:
                    found.problems.append(f"{key} {error}; got {_shown(given[name])}")
            elif space.extender and key not in space.fixed:
                found.params[name] = given[name]
            else:
                unsearched[key] = given[name]
        composed = variants(found.params) if unsearched and variants else []
        for key, value in unsearched.items():
            found._unsearched(key, value, space, composed or [OmegaConf.create() if config is None else config])
        found._conditions(space, unsearched)
        return found

    def _conditions(self, space: Space, unsearched: Mapping[str, Any]) -> None:
        """Note parameters whose condition does not hold beside the other values, or what is fixed."""
        for name in space.parameters:
            if name in self.params and not space.applies(name, self.params):
                self.absent.append(f"{grammar.bare(name)} is there only when {space.conditions[name]}")
                other = grammar.bare(space.conditions[name].other)
                if other in unsearched and other in space.fixed:
                    self.excluded = (
                        f"it has {other}={_shown(unsearched[other])}, and {other}={space.fixed[other]} is fixed"
                    )

    def _unsearched(self, key: str, value: Any, space: Space, configs: Sequence[DictConfig]) -> None:
        """Note a key that is not searched, unless its value is that with which its job is composed."""
        if key in space.fixed:
            stands: Any = grammar.decode(grammar.encode(grammar.parsed(space.fixed[key])))
            if stands != value:
                self.remarks.append(f"{key}={_shown(value)} is of no use, since {key}={space.fixed[key]} is fixed")
            return
        there = [_standing(config, key) for config in configs]
        if all(stands is MISSING for stands in there):
            known = [grammar.bare(name) for name in space.parameters]
            close = difflib.get_close_matches(key, known, 1)
            self.problems.append(
                f"there is no parameter {key}{f' (did you mean {close[0]}?)' if close else ''}; "
                f"searched are {', '.join(known) or 'none'}"
            )
        elif any(stands != value for stands in there):
            several = list(dict.fromkeys("not there" if stands is MISSING else _shown(stands) for stands in there))
            when = " in every trial" if len(several) == 1 else ", by what else is drawn"
            self.problems.append(f"{key} is not searched, and is {' or '.join(several)}{when}; got {_shown(value)}")


def read_all(
    given: Sequence[Any], space: Space, config: DictConfig | None, variants: Variants | None = None
) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Parse `hydra.sweeper.enqueue`: returns what is to be enqueued, problems and remarks.

    Example:
        >>> read_all([{"lr": 0.5}], Space.parse({"lr": "interval(0.1, 1)"}, []), None)
        ([{'lr': 0.5}], [], [])
    """
    params, problems, remarks = [], [], []
    for index, one in enumerate(given):
        read = Enqueued.read(one, space, config, variants)
        if read.excluded and not read.problems:
            remarks.append(f"enqueue[{index}] is left out: {read.excluded}.")
            continue
        params.append(read.params)
        problems += [f"enqueue[{index}]: {line}." for line in (*read.problems, *read.absent)]
        remarks += [f"enqueue[{index}]: {line}." for line in read.remarks]
    return params, problems, remarks


def _standing(config: DictConfig, key: str) -> Any:
    """Get the option of a group, or the value of a key; `MISSING` if there is none, or it is not known yet."""
    groups = OmegaConf.select(config, "hydra.runtime.choices") or {}
    if key in groups or key.startswith("hydra"):
        return groups.get(key, MISSING)
    try:
        stands = OmegaConf.select(config, key, default=MISSING)
    except OmegaConfBaseException:  # it names what only a job has
        return MISSING
    return OmegaConf.to_container(stands) if OmegaConf.is_config(stands) else stands


def _shown(value: Any) -> str:
    return word(value) if value is None or isinstance(value, bool | int | float) else repr(value)
