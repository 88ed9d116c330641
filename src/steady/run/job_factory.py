"""Build the jobs of a sweep's trials from Hydra's configuration: overrides, folders, and the executor."""

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import hydra.utils
import optuna
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import GrammarParseError, InterpolationKeyError
from optuna.trial import FrozenTrial

from steady import grammar, safe_paths
from steady.exceptions import ConfigError, StudyError
from steady.jobs.cluster_executor import ClusterExecutor
from steady.jobs.engine import Engine
from steady.jobs.executor import Executor, Job, ProcessExecutor, Shared, pickle_shared
from steady.jobs.job_files import JOBS
from steady.jobs.main_module import Script
from steady.options import SweepOptions, TrialTimeout
from steady.propose.covering import Examples
from steady.propose.space import Space
from steady.storage import shown
from steady.study import meta
from steady.study.failures import Kind, shortened
from steady.study.trial_folders import Folders, is_used, used
from steady.study.untrusted import whole

log = logging.getLogger(__name__)

# Templates of `hydra.sweep.subdir` that need not be composed to know what they come to: a trial's number.
BY_NUMBER = ("${hydra.job.num}", "${hydra.job.id}", "${hydra:job.num}", "${hydra:job.id}")
BASIC_LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True)
class JobFactory:
    """Builds the jobs of one sweep; `config` is the composed configuration of the multirun."""

    options: SweepOptions
    space: Space
    hydra_context: HydraContext
    task: TaskFunction
    config: DictConfig

    @property
    def has_trial_node(self) -> bool:
        """Whether the configuration has the node `trial`; without it a task is neither pruned nor resumed."""
        node = OmegaConf.select(self.config, "trial")
        return isinstance(node, DictConfig) and "storage" in node

    def overrides(self, study: optuna.Study, trial: FrozenTrial) -> tuple[str, ...]:
        """List the overrides of a trial of the search: its parameters, and which trial it is."""
        return (*self.space.overrides(trial.params), *self.identity(study, trial))

    def identity(self, study: optuna.Study, trial: FrozenTrial) -> tuple[str, ...]:
        """List the overrides that tell a job which trial it is."""
        if not self.has_trial_node:
            return ()
        return (
            f"trial.number={trial.number}",
            f"trial.attempt={whole(trial, meta.ATTEMPT)}",
            f"trial.study={grammar.quoted(study.study_name)}",
            f"trial.storage={grammar.quoted(shown(self.options.storage))}",
        )

    def folders(self, study: optuna.Study) -> Folders:
        """Get the folders of the trials of the search."""
        compose = None if self._by_number else lambda trial: self._try_subdir(study, trial)
        return Folders(Path(meta.get(study, meta.SWEEP_DIR)), compose=compose)

    def used_folders(self, params: Mapping[str, Any]) -> list[Path]:
        """List the folders in use where a new study's trials would work; the first trial has these parameters."""
        base = Path(self.config.hydra.sweep.dir)
        if self._by_number:  # else only the first trial's folder is known
            return used(base, self.options.n_trials)
        try:
            folder = base / self._compose_subdir(params)
        except Exception:  # the job will tell
            return []
        return [folder] if Path(os.path.abspath(folder)) != Path(os.path.abspath(base)) and is_used(folder) else []

    def folder_override(self, folders: Folders, trial: FrozenTrial) -> tuple[str, ...]:
        """List the override that names a job's folder; none if it could not be composed, which the job will report."""
        if folders.compose is not None and not meta.has(trial, meta.FOLDER):
            return ()
        return (f"hydra.sweep.subdir={grammar.quoted(folders.name(trial))}",)

    @property
    def _by_number(self) -> bool:
        sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        return sweep["subdir"] in BY_NUMBER

    def check(self, examples: Iterable[Mapping[str, Any]]) -> None:
        """Check launcher, task, and that jobs of the examples can have a folder, else raise ConfigError.

        A StudyError for links in the folder of jobs: what is written there and removed must be the study's own.
        """
        _ = self.engine
        safe_paths.refuse_links([self.jobs_folder], self.options.record, "study", StudyError)
        safe_paths.refuse_links_within(self.jobs_folder, "folder of jobs", StudyError)
        pickle_shared(self.hydra_context, self.task, self.config)
        if self._by_number or self.space.extender:  # what an extender draws is not known here
            return
        refusal = None
        for params in examples:
            try:
                self._compose_subdir(params)
            except (GrammarParseError, InterpolationKeyError) as error:
                refusal = error
            except Exception:  # of this process, or of these parameters: the job will tell
                return
            else:
                return
        if refusal is not None:
            raise ConfigError(
                "No trial could have a folder, since hydra.sweep.subdir cannot be composed: "
                f"{str(refusal).splitlines()[0]}. By default it is ${{hydra.job.num}}."
            )

    def _try_subdir(self, study: optuna.Study, trial: FrozenTrial) -> str | None:
        try:
            return self._compose_subdir(trial.params, self.identity(study, trial), trial.number)
        except Exception as error:
            log.debug("The folder of trial %d cannot be composed: %s", trial.number, error)
            return None

    def _compose_subdir(self, params: Mapping[str, Any], who: tuple[str, ...] = (), number: int = 0) -> str:
        """Compose a trial's folder in the sweep's, as its job does."""
        hydra_config = HydraConfig.instance()
        before = hydra_config.cfg
        try:
            loader = self.hydra_context.config_loader
            config = loader.load_sweep_config(self.config, [*self.space.overrides(params), *who])
            with read_write(config), open_dict(config):
                config.hydra.job.id, config.hydra.job.num = str(number), number
                # Else `override_dirname` would name the storage, and change from one attempt to the next.
                config.hydra.overrides.task = [one for one in config.hydra.overrides.task if one not in who]
            hydra_config.set_config(config)  # for `${hydra:…}`
            return str(OmegaConf.select(config, "hydra.sweep.subdir"))
        finally:
            hydra_config.cfg = before

    def set_sweep_dir(self, sweep_dir: str) -> None:
        """Make every job work in this folder, whatever the configuration says now (`${now:}`)."""
        with read_write(self.config.hydra), open_dict(self.config.hydra):
            self.config.hydra.sweep.dir = sweep_dir
            self.config.hydra.overrides.hydra.append(f"hydra.sweep.dir={grammar.quoted(sweep_dir)}")

    @property
    def _through_launcher(self) -> bool:
        return bool(self.config.hydra.launcher._target_ != BASIC_LAUNCHER)

    @property
    def jobs_folder(self) -> Path:
        """Folder through which controllers and the jobs of an engine talk; absolute."""
        return self.options.record.absolute() / JOBS

    @cached_property
    def engine(self) -> Engine | None:
        """The engine that takes the launcher's place, if one does; a ConfigError if it knows not all of its keys."""
        launcher = self.config.hydra.launcher
        make = ENGINES.get(launcher._target_)
        return make(OmegaConf.to_container(launcher, resolve=True)) if make else None

    def executor(self) -> Executor:
        """Make the executor of the trials; it goes through the user's launcher if that is not Hydra's basic one."""
        if bare := Script.started().bare:
            log.info(
                "The call in %s is not guarded (`if __name__ == '__main__':`), so trials do not run the script again: "
                "what its first lines set in other modules, such as torch.set_default_dtype, is to be set in the task.",
                bare,
            )
        given, launcher = self.options, self.config.hydra.launcher
        if self.engine:
            return ClusterExecutor(
                self.engine,
                self._shared(self.task),
                given.slots,
                self.jobs_folder,
                given.storage,
                given.trials_per_job or self.engine.trials_per_job,
                name=str(launcher.get("name") or given.study),
                bounds=given.trial_timeout,
                python=launcher.get("python") or sys.executable,
            )
        shared = self._shared(self.task, through_launcher=self._through_launcher)
        return self._processes(shared, given.slots, given.trial_timeout)

    def preflight(self, thorough: bool = True) -> dict[str, Any]:
        """Run the preflight as a job, if `thorough` with examples, and return its facts; a failure is a StudyError."""
        record, name = self.options.record, str(self.options.preflight)
        place = (f"hydra.sweep.dir={grammar.quoted(str(record))}", "hydra.sweep.subdir=preflight")
        # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
        task = hydra.utils.get_method(name)
        examples = thorough and "examples" in inspect.signature(task).parameters
        tries = ", which tries each option of the space once: seconds to minutes" if examples else ""
        log.info("Running %s before the first trial%s", name, tries)
        if examples:
            loader = self.hydra_context.config_loader
            tried = Examples(self.space, self.config, loader, place, elsewhere=self.engine is not None)
            task = functools.partial(task, examples=tried)
        safe_paths.refuse_links([record / "preflight"], record, "study", StudyError)
        safe_paths.refuse_links_within(record / "preflight", "preflight", StudyError)
        bounds = self.options.trial_timeout.for_preparation()
        with closing(self._processes(self._shared(task), 1, bounds)) as executor:
            executor.submit(Job(0, (*self.space.overrides({}), *place), record / "preflight"))
            while not (ended := executor.wait(60.0)):
                pass
        [(_, outcome)] = ended
        if outcome.kind != Kind.COMPLETE:
            raise StudyError(f"{name} failed, so nothing was started. {shortened(outcome.message)}")
        return dict(outcome.value)

    def _shared(self, task: TaskFunction, through_launcher: bool = False) -> Shared:
        return Shared.of(self.hydra_context, task, self.config, self.options.preload, through_launcher)

    def _processes(self, shared: Shared, slots: int, bounds: TrialTimeout) -> ProcessExecutor:
        return ProcessExecutor(shared, slots, self.options.gpus, self.options.gpus_per_slot, bounds)


def _ray(launcher: Any) -> Engine:
    from steady.jobs.ray_engine import RayEngine

    return RayEngine.from_launcher(launcher)


def _slurm(launcher: Any) -> Engine:
    from steady.jobs.slurm import Slurm

    return Slurm.from_launcher(launcher)


# By the class of Hydra's launcher: what makes the engine that takes its place, from the launcher's keys.
ENGINES: dict[str, Callable[[Any], Engine]] = {
    "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher": _ray,
    "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher": _slurm,
}
