"""What a trial's job is made of: its overrides, its folder, and the executor that runs it.

Between Hydra, whose configuration it reads, and `catsweep.search.sweep`, which knows trials.
"""

import logging
from dataclasses import dataclass
from typing import Any

import hydra.utils
import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from optuna.trial import FrozenTrial

from catsweep.errors import StudyError
from catsweep.search import attributes, grammar
from catsweep.search.executor import Job, ProcessExecutor
from catsweep.search.outcome import Kind
from catsweep.search.settings import Settings
from catsweep.search.space import Space

log = logging.getLogger(__name__)

BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class Jobs:
    """The jobs of one sweep.

    Args:
        settings: checked.
        space: what is searched.
        hydra_context: of Hydra.
        task: what a job calls with its configuration.
        config: the composed configuration of the multirun.
    """

    settings: Settings
    space: Space
    hydra_context: HydraContext
    task: TaskFunction
    config: DictConfig

    @property
    def named(self) -> bool:
        """Whether the task can be told which trial it is; one that cannot is neither pruned nor resumed."""
        node = OmegaConf.select(self.config, "trial")
        return isinstance(node, DictConfig) and "storage" in node

    def overrides(self, study: optuna.Study, trial: FrozenTrial) -> tuple[str, ...]:
        """Of a trial of the search."""
        return (*self.space.overrides(trial.params), *self.identity(study, trial))

    def identity(self, study: optuna.Study, trial: FrozenTrial) -> tuple[str, ...]:
        """Overrides that tell a job which trial it is."""
        if not self.named:
            return ()
        return (
            f"trial.number={trial.number}",
            f"trial.attempt={trial.user_attrs[attributes.ATTEMPT]}",
            f"trial.study={grammar.quoted(study.study_name)}",
            f"trial.storage={grammar.quoted(self.settings.storage)}",
        )

    def subdir(self, number: int) -> str:
        """A trial's folder in the sweep's, as Hydra will name it."""
        sweep = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        assert isinstance(sweep, dict)
        node = OmegaConf.create({"hydra": {"sweep": {"subdir": sweep["subdir"]}, "job": {"num": number}}})
        return str(node.hydra.sweep.subdir)

    def point_to(self, sweep_dir: str) -> None:
        """Make every job work in this folder, whatever the configuration says now (`${now:}`)."""
        with read_write(self.config.hydra), open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = sweep_dir
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={grammar.quoted(sweep_dir)}")

    def executor(self) -> ProcessExecutor:
        """Runs the jobs in slots, through the user's launcher if it is not Hydra's basic one."""
        return self._executor(
            self.task, self.settings.slots, through_launcher=self.config.hydra.launcher._target_ != BASIC_LAUNCHER
        )

    def preflight(self) -> dict[str, Any]:
        """Run the settings' preflight as a job of its own, and give what it returns.

        Raises:
            StudyError: it failed, so every trial would.
        """
        log.info("Running %s before the first trial", self.settings["preflight"])
        # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
        executor = self._executor(hydra.utils.get_method(self.settings["preflight"]), 1)
        record = self.settings.record
        place = (f"hydra.sweep.dir={grammar.quoted(str(record))}", "hydra.sweep.subdir=preflight")
        try:
            executor.submit(Job(0, (*self.space.overrides({}), *place), record / "preflight"))
            ended: list[Any] = []
            while not ended:
                ended = executor.wait(60.0)
        finally:
            executor.close()
        [(_, outcome)] = ended
        if outcome.kind != Kind.COMPLETE:
            raise StudyError(f"{self.settings['preflight']} failed, so nothing was started. {outcome.message}")
        return dict(outcome.value)

    def _executor(self, task: TaskFunction, slots: int, through_launcher: bool = False) -> ProcessExecutor:
        return ProcessExecutor(
            self.hydra_context,
            task,
            self.config,
            slots,
            preload=self.settings["preload"],
            gpus=self.settings["gpus"],
            gpus_per_slot=self.settings["gpus_per_slot"],
            through_launcher=through_launcher,
        )
