"""A covering array of strength one: each option of a space is tried at least once, instead of all combinations.

There are as many configurations as the longest list of options has entries. When one of them fails, each of its options
is put into a configuration that works, to find which is to blame. Options that fail only beside certain others are not
reported: such trials will fail, and the sampler learns to avoid them.
"""

import copy
import itertools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
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
Params = Mapping[str, Any]


@dataclass(frozen=True)
class CoveringArray:
    """Configurations of a space that together have each option at least once."""

    space: Space
    now: Params  # values that are tried first: those of the configuration as it stands

    @cached_property
    def values(self) -> dict[str, list[Any]]:
        """What is tried of each parameter: its choices or bounds."""
        found = {name: _options(distribution) for name, distribution in self.space.parameters.items()}
        for name, value in self.now.items():
            found[name] = [value, *(other for other in found[name] if other != value)]
        return found

    def problems(self, attempt: Callable[[Params], list[str]]) -> list[str]:
        """List what no configuration can run with, each with its option; `attempt` lists what is wrong with one."""
        sound: list[Params] = []
        failed: dict[str, None] = {}
        always: set[str] | None = None  # what every one failed of
        length = min(max(map(len, self.values.values()), default=1), MOST)
        for row in range(length):
            params = self._row(row, 0)
            if said := attempt(params):
                failed |= dict.fromkeys(said)
                always = set(said) & (set(said) if always is None else always)
            else:
                sound.append(params)
        for shift, row in itertools.product(range(1, SHIFTS), range(length)):
            if sound or not failed or (always and shift > 1):
                break
            if not attempt(params := self._row(row, shift)):
                sound.append(params)
        if not sound:
            return list(failed)
        blamed = []
        known = {(name, repr(value)) for params in sound for name, value in params.items()}  # a choice may be a list
        for name, value in [(name, value) for name, some in self.values.items() for value in some[:length]]:
            if (name, repr(value)) not in known and (said := self._blame(name, value, sound, attempt)):
                blamed.append(f"{grammar.bare(name)}={grammar.as_text(value)}: {' '.join(said)}")
        if failed and not blamed:
            log.warning("Some options cannot be combined, and trials that draw them together will fail: %s", [*failed])
        return blamed

    def _row(self, row: int, shift: int) -> Params:
        """Take the row-th value of each parameter; with a shift, other values beside each other."""
        places = enumerate(self.values.items())
        wanted = {name: some[(row + shift * place) % len(some)] for place, (name, some) in places}
        return self.space.completed(wanted, self.values.__getitem__)

    def _blame(self, name: str, value: Any, sound: list[Params], attempt: Callable[[Params], list[str]]) -> list[str]:
        """List what is wrong with an option in the first donor; nothing if it works in any."""
        first: list[str] = []
        needed = self.space.prerequisites(name, self.values.__getitem__)
        for donor in sound[:DONORS]:
            params = self.space.completed({**donor, **needed, name: value}, self.values.__getitem__)
            if name not in params or not (said := attempt(params)):
                return []
            first = first or said
        return first


@dataclass(frozen=True)
class Examples:
    """Configurations that trials of a sweep will have, for a preflight to try."""

    space: Space
    config: DictConfig  # of the multirun
    loader: ConfigLoader
    place: tuple[str, ...] = ()  # overrides that name a job's folder
    elsewhere: bool = False  # whether trials are jobs of a cluster, whose machines may have what this one has not

    def problems(self, attempt: Callable[[DictConfig], list[str]]) -> list[str]:
        """List what no trial can run with, see `CoveringArray.problems`.

        `attempt` tries a task's configuration, with the `HydraConfig` of its job, and lists what is wrong with it.
        """
        array = CoveringArray(self.space, self.space.baseline(self.config) or {})
        return array.problems(lambda params: attempt(self._compose(params)))

    def _compose(self, params: Params) -> DictConfig:
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


def _options(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high] if distribution.low != distribution.high else [distribution.low]
