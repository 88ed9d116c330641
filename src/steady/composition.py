"""Compose a job's configuration: most of it once for all jobs, since they differ mostly in values.

Hydra composes a configuration from its groups, and then sets values in it; the first takes nearly all of the time. The
controller does that, and what it comes to travels to each trial's process, which sets the values of its job. A job with
other groups is composed anew there; the check of a space, which composes some dozens of jobs, keeps what it composed.
"""

from collections.abc import Sequence
from contextlib import suppress

import cloudpickle
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig

FOLDERS = ("hydra.sweep.dir", "hydra.sweep.subdir")  # of Hydra's own keys those that are only values
SETTING = (OverrideType.CHANGE, OverrideType.ADD, OverrideType.FORCE_ADD)

Groups = tuple[str, ...]  # overrides that choose, as they were given


class Composition:
    """Composes the configurations of jobs of a multirun, whose own configuration is `config`.

    At first it has composed the groups of the command line. What goes wrong before there is a job goes wrong again with
    it, and is raised then.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self.loader, self.config = loader, config
        self.composed: dict[Groups, bytes] = {}  # with no other overrides than these, pickled
        with suppress(Exception):
            given = _parse(list(config.hydra.overrides.task))
            self._keep(tuple(str(one.input_line) for one in self._choosing(given) if not one.is_sweep_override()))

    def compose(self, overrides: Sequence[str], keep: bool = False) -> DictConfig:
        """Compose a job, as Hydra's `load_sweep_config` does; `keep`: for others with the same groups, too."""
        with suppress(Exception):
            parsed = _parse(overrides)
            choosing = self._choosing(parsed)
            groups = tuple(str(one.input_line) for one in choosing)
            plain = not any(isinstance(one.value(), dict) for one in choosing)  # else a value under a group's name
            if keep and plain and groups not in self.composed and not any(one.is_hydra_override() for one in choosing):
                self._keep(groups)
            if plain and groups in self.composed:
                config: DictConfig = cloudpickle.loads(self.composed[groups])
                if self._set(config, parsed):
                    return config
        return self.loader.load_sweep_config(self.config, list(overrides))

    def _keep(self, groups: Groups) -> None:
        if isinstance(self.loader, ConfigLoaderImpl) and not self.config.hydra.searchpath:  # else there are more groups
            self.composed[groups] = cloudpickle.dumps(self.loader.load_sweep_config(self.config, list(groups)))

    def _set(self, config: DictConfig, overrides: list[Override]) -> bool:
        """Set the values of a job in the configuration of its groups; False if it does not have values only."""
        values = [one for one in overrides if not self._chooses(one)]
        if not all(map(_is_value, values)):
            return False
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        config.hydra.overrides.task.clear()
        for one in overrides:
            (config.hydra.overrides.hydra if one.is_hydra_override() else config.hydra.overrides.task).append(
                one.input_line
            )
        return True

    def _choosing(self, overrides: list[Override]) -> list[Override]:
        return list(filter(self._chooses, overrides))

    def _chooses(self, override: Override) -> bool:
        assert isinstance(self.loader, ConfigLoaderImpl)
        key = override.key_or_group
        return "/" in key or override.package is not None or self.loader.repository.group_exists(key)


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _is_value(override: Override) -> bool:
    own = override.is_hydra_override() and override.key_or_group not in FOLDERS
    return override.type in SETTING and not override.is_sweep_override() and not own
