"""A covering array of the options of a space: each is tried at least once, instead of all their combinations.

`steady.run.job_factory` hands `Examples` to a preflight that asks for it. It tries as many configurations as the
longest list of options has entries (strength one); only when one of them fails is it found out which of its options is
to blame, by putting each into a configuration that works. What fails only beside certain others is no fault of the
space as a whole: such trials will fail, and the sampler goes round them.
"""

import copy
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from steady import grammar
from steady.propose.space import Space

log = logging.getLogger(__name__)

MOST = 24  # configurations that are tried at first: options beyond have to show in their own trials
DONORS = 3  # configurations that work, into which an option is put before it is blamed
SHIFTS = 4  # further mixtures, should every one of the first fail
Attempt = Callable[[DictConfig], list[str]]
Params = Mapping[str, Any]


@dataclass(frozen=True)
class Examples:
    """Configurations that trials of a sweep will have.

    Args:
        space: what is searched.
        config: of the multirun.
        loader: of Hydra.
        place: overrides that tell a job where it works.
    """

    space: Space
    config: DictConfig
    loader: ConfigLoader
    place: tuple[str, ...] = ()

    def problems(self, attempt: Attempt) -> list[str]:
        """List what no trial can run with, a line or more each, with the option that causes it.

        Args:
            attempt: tries a task's configuration, and says what is wrong with it. `HydraConfig` is that of its job.
        """
        return _problems(self.space, self._values(), lambda params: attempt(self._composed(params)))

    def _values(self) -> dict[str, list[Any]]:
        """List what is tried of each parameter, first what the configuration as it stands has."""
        now = self.space.baseline(self.config) or {}
        found = {name: _tried(distribution) for name, distribution in self.space.parameters.items()}
        for name, values in found.items():
            if name in now:
                values[:] = [now[name], *(value for value in values if value != now[name])]
        return found

    def _composed(self, params: Params) -> DictConfig:
        composed = self.loader.load_sweep_config(self.config, [*self.space.overrides(dict(params)), *self.place])
        with read_write(composed), open_dict(composed):
            composed.hydra.job.id, composed.hydra.job.num = "0", 0
            if HydraConfig.initialized() and not OmegaConf.is_missing(HydraConfig.get().runtime, "output_dir"):
                composed.hydra.runtime.output_dir = HydraConfig.get().runtime.output_dir
        HydraConfig.instance().set_config(composed)
        task = copy.deepcopy(composed)
        with read_write(task), open_dict(task):
            del task["hydra"]
        return task


def _problems(space: Space, values: Mapping[str, list[Any]], attempt: Callable[[Params], list[str]]) -> list[str]:
    sound: list[Params] = []
    failed: dict[str, None] = {}
    always: set[str] | None = None  # what every one failed of
    length = min(max(map(len, values.values()), default=1), MOST)
    for row in range(length):
        params = _row(space, values, row, 0)
        if said := attempt(params):
            failed |= dict.fromkeys(said)
            always = set(said) & (set(said) if always is None else always)
        else:
            sound.append(params)
    for shift, row in itertools.product(range(1, SHIFTS), range(length)):
        if sound or not failed or (always and shift > 1):
            break
        if not attempt(params := _row(space, values, row, shift)):
            sound.append(params)
    if not sound:
        return list(failed)
    blamed = []
    known = {_pair(name, value) for params in sound for name, value in params.items()}
    for name, value in [(name, value) for name, some in values.items() for value in some[:length]]:
        if _pair(name, value) not in known and (said := _blame(space, values, name, value, sound, attempt)):
            blamed.append(f"{grammar.bare(name)}={grammar.spelled(value)}: {' '.join(said)}")
    if failed and not blamed:
        log.warning("Some options cannot be combined, and trials that draw them together will fail: %s", [*failed])
    return blamed


def _blame(
    space: Space, values: Mapping[str, list[Any]], name: str, value: Any, sound: list[Params],
    attempt: Callable[[Params], list[str]],
) -> list[str]:  # fmt: skip
    """List what is wrong with an option in every configuration that it is tried in; nothing if it works in one."""
    first: list[str] = []
    for donor in sound[:DONORS]:
        params = _with(space, values, {**donor, **_needed(space, values, name), name: value})
        if name not in params:
            return []
        if not (said := attempt(params)):
            return []
        first = first or said
    return first


def _row(space: Space, values: Mapping[str, list[Any]], row: int, shift: int) -> Params:
    """Take the row-th value of each parameter; with a shift, other values beside each other."""
    places = enumerate(values.items())
    return _with(space, values, {name: some[(row + shift * place) % len(some)] for place, (name, some) in places})


def _with(space: Space, values: Mapping[str, list[Any]], wanted: Params) -> Params:
    params: dict[str, Any] = {}
    for name, some in values.items():
        if space.applies(name, params):
            params[name] = wanted.get(name, some[0])
    return params


def _needed(space: Space, values: Mapping[str, list[Any]], name: str) -> dict[str, Any]:
    """Choose values of others on whose condition a parameter is there."""
    needed: dict[str, Any] = {}
    while (condition := space.conditions.get(name)) and condition.other in values:
        fitting = [one for one in values[condition.other] if space.applies(name, {condition.other: one})]
        if not fitting:
            break
        needed[condition.other], name = fitting[0], condition.other
    return needed


def _tried(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high] if distribution.low != distribution.high else [distribution.low]


def _pair(name: str, value: Any) -> tuple[str, str]:
    return name, repr(value)  # a choice may be a list
