"""What a person gives for a sweep, checked against its space and its configuration before anything is written.

`catsweep.search.sweep` calls it first, for a rehearsal as well. All problems are told at once.
"""

import logging
from dataclasses import replace

import optuna
from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig
from optuna.distributions import BaseDistribution

from catsweep.errors import ConfigError
from catsweep.search import composition, enqueued
from catsweep.search.settings import Settings
from catsweep.search.space import Space

log = logging.getLogger(__name__)


def recorded(study: optuna.Study) -> dict[str, BaseDistribution]:
    """The parameters that a study keeps already, each with its newest distribution."""
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    return found


def checked(settings: Settings, space: Space, config: DictConfig, loader: ConfigLoader) -> Settings:
    """Settings whose `enqueue` is as the study keeps configurations.

    Args:
        settings: of the sweep.
        space: what is searched.
        config: of the multirun.
        loader: of Hydra.

    Raises:
        ConfigError: with every configuration that is none of the space, every option that its group has not, and
            every parameter that no job can be composed with.
    """
    named, problems, remarks = enqueued.read_all(settings["enqueue"], space, config)
    problems += composition.problems(space, config, loader)
    if problems:
        raise ConfigError("\n".join(problems))
    for remark in remarks:
        log.info(remark)
    return replace(settings, keys={**settings.keys, "enqueue": named})
