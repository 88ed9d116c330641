"""Plugin class that Hydra finds; `steady.sweep` is imported when a sweep really runs."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from . import config as config


class SteadySweeper(Sweeper):
    """Sweeper with Optuna in steady state: slots never wait for each other, and a sweep can always be resumed."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what jobs are made of."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep of these overrides to its end, or to the next interruption.

        Raises:
            SystemExit: 1 when the sweep cannot go on, 130 or 143 when it was interrupted.
        """
        from steady.run.interruption import Stop, ending

        assert self.hydra_context is not None
        assert self.config is not None
        stop = Stop()
        with ending(stop):
            from steady.sweep import run  # imports Optuna

            run(self.settings, self.hydra_context, self.task_function, self.config, arguments, stop)
