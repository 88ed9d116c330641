"""What a person gives for a sweep, checked against its space and its configuration before anything is written.

`catsweep.search.sweep` calls it first, for a rehearsal as well. All problems are told at once.
"""

import importlib.util
import logging
import pkgutil
from collections.abc import Sequence
from dataclasses import replace

import optuna
from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution

from catsweep.errors import ConfigError
from catsweep.search import composition, confirmation, enqueued, pruning
from catsweep.search.settings import Settings, listed
from catsweep.search.space import Space

log = logging.getLogger(__name__)


def recorded(study: optuna.Study) -> dict[str, BaseDistribution]:
    """The parameters that a study keeps already, each with its newest distribution."""
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    return found


def checked(settings: Settings, space: Space, config: DictConfig, loader: ConfigLoader) -> Settings:
    """Settings whose `enqueue` is as the study keeps configurations, if a sweep can be run with them.

    Args:
        settings: of the sweep.
        space: what is searched.
        config: of the multirun.
        loader: of Hydra.

    Raises:
        ConfigError: with every configuration that is none of the space, every option that its group has not, every
            parameter that no job can be composed with, and every function or class that is named and cannot be had.
    """
    composing = composition.Composing(space, config, loader)
    named, problems, remarks = enqueued.read_all(settings["enqueue"], space, config, composing.variants)
    if composing.possible:
        problems += composing.problems()
    elif not problems:
        problems.append("hydra.sweeper has a value nan, beside which Hydra composes no job; take it out.")
    problems += _unavailable(settings, config)
    if problems:
        raise ConfigError("\n".join(problems))
    for remark in remarks:
        log.info(remark)
    return replace(settings, keys={**settings.keys, "enqueue": named})


def _unavailable(settings: Settings, config: DictConfig) -> list[str]:
    """What the sweep would need later and could not have: functions that are named, a pruner, a seed to go on from."""
    said = []
    for key in ("preflight", "on_end"):
        for path in listed(settings[key]):
            try:
                if not callable(pkgutil.resolve_name(path)):
                    raise TypeError("it cannot be called")
            except Exception as error:  # whatever the import of the user's module raises
                said.append(
                    f"hydra.sweeper.{key} must be the dotted path of a function; got {path!r}: {_one_line(error)}"
                )
    said += _not_found(settings["preload"])
    if settings["pruner"] is not None:
        try:
            pruning.rehearse(settings.pruning or {})
        except ConfigError as error:
            said.append(str(error))
        except Exception as error:  # whatever a class of the user's raises
            said.append(f"hydra.sweeper.pruner cannot be made, or cannot prune with its arguments: {_one_line(error)}")
    if settings["confirm"] is not None:
        try:
            confirmation.first_seed(config)
        except ConfigError as error:
            said.append(str(error))
    return said


def _not_found(modules: Sequence[str]) -> list[str]:
    """Modules of `preload` that there are none of: the warm parent would pass over them in silence."""
    said = []
    for name in modules:
        try:
            if name != "__main__" and importlib.util.find_spec(name) is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
        except Exception as error:  # also of the package that it is part of, which is imported
            said.append(
                f"hydra.sweeper.preload must name modules that can be imported; got {name!r}: {_one_line(error)}"
            )
    return said


def _one_line(error: Exception) -> str:
    return " ".join((str(error) or repr(error)).split())
