"""From the sampler's configuration and a trial's number to the sampler that draws this trial.

A fresh one for each trial, its seed made of (seed, number): so two controllers never draw the same numbers, and a
sweep that was resumed draws what the undisturbed one would have drawn.
"""

import functools
import hashlib
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import hydra.utils
import optuna
from hydra.errors import InstantiationException
from optuna.samplers import BaseSampler, RandomSampler

from catsweep.errors import ConfigError
from catsweep.search.foreign import restrict_unpickling
from catsweep.search.settings import TPE
from catsweep.search.space import Space

TRUSTED = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*", "catsweep.*")
GRID, QMC = "optuna.samplers.GridSampler", "optuna.samplers.QMCSampler"
ONE_ORDER = (GRID, QMC)  # their seed is that of a sequence over all trials


class Samplers:
    """Makes the sampler of each trial.

    Args:
        node: `_target_` and arguments of a sampler of Optuna, for example of `hydra/sweeper/sampler=tpe`. Its `seed`
            is not read: `seed` is.
        seed: of the sweep.
        space: what is searched; a grid needs its values, TPE has to know of conditions.
    """

    def __init__(self, node: Mapping[str, Any], seed: int, space: Space) -> None:
        restrict_unpickling()
        self.target = str(node["_target_"])
        self.seed, self.space = seed, space
        self.arguments = {key: value for key, value in node.items() if key not in ("seed", "_partial_")}
        if space.conditions and self.target == TPE:
            self.arguments |= {"multivariate": True, "group": True}

    @property
    def walks_grid(self) -> bool:
        """Whether the sampler itself sees to it that nothing is drawn twice."""
        return self.target == GRID

    def __call__(self, number: int, attempt: int = 0) -> BaseSampler:
        """The sampler of a trial.

        Args:
            number: of the trial.
            attempt: above 0, another draw for the same trial.

        Raises:
            ConfigError: the sampler cannot be made of its arguments, or needs a package that is not installed.
        """
        seed = self.seed % 2**32 if self.target in ONE_ORDER else _derived(self.seed, number, attempt)
        added: dict[str, Any] = {}
        if self.walks_grid:
            added["search_space"] = self.space.grid()
        if self.target == QMC and self.arguments.get("independent_sampler") is None:
            # What is not in the sequence (a first trial, conditions) would else be the same in every trial.
            added["independent_sampler"] = self.random(number, attempt)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                make = self._maker()
                if _takes(make, "seed"):
                    added["seed"] = seed
                sampler = make(**added)
        except ImportError as error:
            raise self.lacking(error) from error
        except (InstantiationException, TypeError, ValueError) as error:
            raise ConfigError(f"The sampler {self.target} cannot be made: {' '.join(str(error).split())}") from error
        assert isinstance(sampler, BaseSampler)
        return sampler

    def random(self, number: int, attempt: int = 0) -> BaseSampler:
        """One that knows nothing, for what the configured sampler cannot draw."""
        return RandomSampler(seed=_derived(self.seed, number, attempt))

    def lacking(self, error: ImportError) -> ConfigError:
        """What to say when a sampler, made or drawing, imports what is not there."""
        remedy = f" pip install {error.name}, or choose another sampler." if error.name else ""
        return ConfigError(f"The sampler {self.target} needs a package that is not installed: {error}.{remedy}")

    def _maker(self) -> Callable[..., Any]:
        make: Callable[..., Any] = hydra.utils.instantiate(
            {**self.arguments, "_partial_": True}, _execution_whitelist_=TRUSTED, _convert_="all"
        )
        return make


def _takes(make: Callable[..., Any], name: str) -> bool:
    function = make.func if isinstance(make, functools.partial) else make  # wrong arguments are told when it is called
    parameters = inspect.signature(function).parameters
    return name in parameters or any(p.kind == p.VAR_KEYWORD for p in parameters.values())


def _derived(seed: int, number: int, attempt: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {attempt}".encode()).digest()[:4], "big")
