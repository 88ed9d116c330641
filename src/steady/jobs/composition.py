"""Compose a job's configuration: most of it once for all jobs, since they differ mostly in values.

Hydra composes a configuration from its groups, and then sets values in it; the first takes nearly all of the time. The
controller does that, and what it comes to travels to each trial's process, which sets the values of its job. A job with
other groups is composed anew.
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


class Composition:
    """Composes the configuration of one job of a multirun, whose own configuration is `config`.

    What goes wrong before there is a job goes wrong again with it, and is raised then.
    """

    def __init__(self, loader: ConfigLoader, config: DictConfig) -> None:
        self.loader, self.config = loader, config
        self.groups: list[str] = []  # overrides that choose, as the command line has them
        self.base: bytes | None = None  # composed with these, and pickled
        with suppress(Exception):
            if isinstance(loader, ConfigLoaderImpl) and not config.hydra.searchpath:  # else there are more groups
                given = _parse(list(config.hydra.overrides.task))
                self.groups = [
                    str(one.input_line) for one in given if self._chooses(one) and not one.is_sweep_override()
                ]
                self.base = cloudpickle.dumps(loader.load_sweep_config(config, self.groups))

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose it, as Hydra's `load_sweep_config` does."""
        if self.base is not None:
            with suppress(Exception):
                base: DictConfig = cloudpickle.loads(self.base)
                if self._set(base, _parse(overrides)):
                    return base
        return self.loader.load_sweep_config(self.config, list(overrides))

    def _set(self, base: DictConfig, overrides: list[Override]) -> bool:
        """Set the values of a job whose groups are those of `base`; False for another job."""
        values = [one for one in overrides if not self._chooses(one)]
        groups = [one.input_line for one in overrides if self._chooses(one)]
        if groups != self.groups or not all(map(_is_value, values)):
            return False
        ConfigLoaderImpl._apply_overrides_to_config(values, base)
        base.hydra.overrides.task.clear()
        for one in overrides:
            (base.hydra.overrides.hydra if one.is_hydra_override() else base.hydra.overrides.task).append(
                one.input_line
            )
        return True

    def _chooses(self, override: Override) -> bool:
        assert isinstance(self.loader, ConfigLoaderImpl)
        key = override.key_or_group
        return "/" in key or override.package is not None or self.loader.repository.group_exists(key)


def _parse(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create().parse_overrides(list(overrides))


def _is_value(override: Override) -> bool:
    key = override.key_or_group
    own = key == "hydra" or key.startswith("hydra.")
    return override.type in SETTING and not override.is_sweep_override() and (not own or key in FOLDERS)
