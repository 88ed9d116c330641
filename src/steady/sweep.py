"""One sweep from the command line to its results: puts the parts together, and holds no rules of its own."""

import itertools
import logging
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra.utils
import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import TrialState

from steady import grammar
from steady.confirm import confirmation
from steady.confirm.confirmation_stage import ConfirmationStage, TypicalSeconds
from steady.exceptions import ConfigError, StorageError, StudyError
from steady.jobs.engine import EngineAway
from steady.jobs.executor import Executor
from steady.jobs.job_files import Leftovers, clear
from steady.options import read
from steady.places import exit_with_message
from steady.printing import say
from steady.propose.checks import JobComposer, check_options, recorded_distributions
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.interruption import Stop, interruptible
from steady.run.job_factory import JobFactory
from steady.run.ledger import Ledger, Limits
from steady.run.scheduler import Scheduler
from steady.run.study_opener import StudyOpener, command, has_finished, seed, study_on_paper
from steady.storage import CONFIRMATION, VARIABLE, shown
from steady.storage.storage_errors import ErrorTranslator
from steady.study import budget, constraints, meta, results, select
from steady.study.artifacts import Artifacts
from steady.study.leases import Leases, remove_side_study
from steady.study.trial_store import TrialView
from steady.watch.dry_run import print_dry_run
from steady.watch.progress import ProgressReporter

log = logging.getLogger(__name__)

STORAGE = "hydra.sweeper.storage"


def run(
    raw: Mapping[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    arguments: list[str],
    stop: Stop,
) -> None:
    """Run or resume a sweep, from the keys of `hydra.sweeper`, the multirun's composed configuration and its overrides.

    Raises:
        SystemExit: 1 for a sweep that cannot go on, after saying why; 130 or 143 for one that was interrupted.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        try:
            options = read(raw, config.hydra.job.name, str(config.hydra.sweep.dir))
        except OmegaConfBaseException as error:  # an interpolation of what is not there
            raise ConfigError(" ".join(str(error).split())) from error
        if shown(options.storage) != options.storage:  # a password: for the trials, and never in their files
            os.environ[VARIABLE] = options.storage
            name_storage(config, shown(options.storage))
        space = Space.parse(options.params, arguments, options.conditions, options.custom_search_space)
        space = space.as_recorded(recorded_distributions(study_on_paper(options)))
        log.info("Checking the space: a job is composed with each of its options")
        composing = JobComposer(space, config, hydra_context.config_loader)
        options = check_options(options, composing)
        sweep = Sweep(JobFactory(options, space, hydra_context, task_function, config), stop)
        sweep.jobs.check(composing.examples())
        first = itertools.chain(sweep.opener.first(), composing.examples(), [{}])  # composed as far as it is asked
        sweep.opener.check(next(first))
        if options.dry_run:
            sweep.dry_run()
        else:
            sweep.run()
    except Exception as error:
        exit_with_message(error, config)


def name_storage(config: DictConfig, url: str) -> None:
    """Name the study's storage by this URL in the files that Hydra writes of each job (`.hydra/`).

    >>> config = OmegaConf.create({"hydra": {"overrides": {"hydra": ["hydra.sweeper.storage=a"]}, "sweeper": {}}})
    >>> name_storage(config, "sqlite:///b")
    >>> config.hydra.overrides.hydra
    ["hydra.sweeper.storage='sqlite:///b'"]
    """
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.sweeper.storage = url
        given: Any = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)  # some are only a job's
        others = [word for word in given if word.partition("=")[0].lstrip("+") != STORAGE]
        # Not only without the word that was given: a file could name the storage, too.
        config.hydra.overrides.hydra = [*others, f"{STORAGE}={grammar.quoted(url)}"]


@dataclass
class Sweep:
    """The parts of one sweep. A StudyError if trials are to be pruned and the configuration has no node `trial`."""

    jobs: JobFactory
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.options, self.space, self.config = self.jobs.options, self.jobs.space, self.jobs.config
        self.opener, self.names = StudyOpener(self.jobs), list(self.options.objective)
        options = self.options
        asked = {"A pruner": options.pruning, "Promotion": options.promotion, "A constraint": options.constraints}
        if (deaf := [who for who, given in asked.items() if given]) and not self.jobs.has_trial_node:
            raise StudyError(
                f"{deaf[0]} hears of trials through the node `trial` of the configuration, and there is none. Add "
                "`trial: {number: null, attempt: 0, study: null, storage: null}`, and report scores as "
                "steady.reporting shows; or set hydra.sweeper.pruner=null, hydra.sweeper.promotion=null and no "
                "hydra.sweeper.constraints."
            )

    def run(self) -> None:
        """Search, confirm and record; a StudyError if the study was made otherwise, or its trials keep failing."""
        Samplers(self.options.sampler, 0, self.space)(0)  # refused before anything is written
        with self._engine():
            study = self.opener.open(hurry=lambda: self.stop.requested)
            for name in (study.study_name, study.study_name + CONFIRMATION):
                remove_side_study(study._storage, name)
            with self.opener.enter(study) as leases:
                self._search(study, leases)

    @contextmanager
    def _engine(self) -> Iterator[None]:
        """Have the launcher's engine say whether it takes jobs, before anything is written; close it at the end."""
        if (engine := self.jobs.engine) is None:
            yield
            return
        with closing(engine):
            if not self._has_ended(study_on_paper(self.options)):
                with suppress(EngineAway):  # it is waited for
                    engine.check()
            yield

    def _has_ended(self, study: optuna.Study) -> bool:
        return self.opener.is_whole(study) and ConfirmationStage(study, self.jobs).complete

    def dry_run(self) -> None:
        """Print the space, the first proposals and the estimated cost. Writes nothing."""
        study = study_on_paper(self.options)
        first = self.opener.to_try_first(study, anew=not study.trials)
        print_dry_run(study, self.options, self.space, self._proposer(study), first)

    def _search(self, study: optuna.Study, leases: Leases) -> None:
        sweep_dir = Path(meta.get(study, meta.SWEEP_DIR))
        total = self.options.n_trials
        if self._has_ended(study):
            self._clear_jobs(study, leases)
            self._record(study)
            self._require_finished(study)
            self.call_on_end(study, sweep_dir)  # a judge may be there that was not when it ended
            self._record(study)
            say(f"The study {study.study_name} is finished: {results.summary(study, self.names)}.")
            with suppress(ValueError):  # a damaged file
                if self.options.confirm is not None and (found := confirmation.read(self.options.record)):
                    say(found.sentence())
            said = f"It has all of its {total} trials; for more, raise n_trials."
            if not budget.is_complete(study, total):
                said = "It has tried every configuration of its space, so there are no more trials."
            say(f"{said} Start another with {self.opener.naming}=NEWNAME.")
            return
        executor = self.jobs.executor()
        stage = None
        view = TrialView(study)
        progress = ProgressReporter(study, self.options, executor, self.started, view)
        try:
            with interruptible(executor, self.stop), closing(progress):
                scheduler = self._scheduler(view, executor, leases, progress)
                scheduler.run()
                late = not self.stop.requested and scheduler.is_out_of_time()
                tried = scheduler.ledger.exhausted and scheduler.ledger.done  # of a space with fewer configurations
                whole = not self.stop.requested and (tried or self.opener.is_whole(study))
                if late or (whole and meta.has(study, meta.OUT_OF_TIME)):
                    study.set_user_attr(meta.OUT_OF_TIME, None if whole else len(study.get_trials(deepcopy=False)))
                if whole or late:
                    stage = ConfirmationStage(study, self.jobs)
                    stage.run(executor, self.limits, self.stop, progress)
        except BaseException:
            executor.close()
            with suppress(StorageError):  # the error that ended the sweep is the one to raise
                self._record(study)
            raise
        executor.close()
        self._clear_jobs(study, leases)
        self._record(study)
        if not self.stop.requested:
            self.call_on_end(study, sweep_dir)
            self._record(study)  # with what they have found beside the objectives
        self._farewell(study, stage, late and not whole)

    def _clear_jobs(self, study: optuna.Study, leases: Leases) -> None:
        """Remove the files of jobs that controllers have left, unless another one works or a trial may still run."""
        with leases.lock("study"):  # whoever registers meanwhile waits for it before it starts a job
            trials = [*study.get_trials(deepcopy=False), *confirmation.runs_of(study)]
            if len(leases.controllers()) == 1 and not any(trial.state == TrialState.RUNNING for trial in trials):
                clear(self.jobs.jobs_folder)

    def _proposer(self, study: optuna.Study) -> Proposer:
        samplers = Samplers(self.options.sampler, seed(self.options, study), self.space)
        prior = self.opener.prior(study)
        return Proposer(
            study, self.space, samplers, self.options.duplicates, self.config, prior, self.options.promotion, self.names
        )

    def _scheduler(self, view: TrialView, executor: Executor, leases: Leases, progress: ProgressReporter) -> Scheduler:
        study, typical = view.study, TypicalSeconds(self.options.trial_minutes)
        folders = self.jobs.folders(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
            folders.of(trial)  # refused now, and not when its turn comes
        limits = self.limits(budget.total(study, self.options.n_trials))
        ledger = Ledger(
            study=study,
            proposals=self._proposer(study),
            leases=leases,
            folders=folders,
            limits=replace(
                limits,
                reserved=lambda share: self.options.reserved_seconds(typical.of(view.trials), share, ledger.all_begun),
            ),
            event=progress.event,
            attach=Artifacts(study, self.options.record, self.options.artifacts).attach,
            stop=self.stop,
            must_report=judged.metrics if (judged := self.options.pruning or self.options.promotion) else (),
            promotion=self.options.promotion,
            constraints=self.options.constraints,
            view=view,
        )
        return Scheduler(
            ledger,
            executor,
            overrides=lambda trial: (*self.jobs.overrides(study, trial), *self.jobs.folder_override(folders, trial)),
            record=lambda: self._record(study),
            refresh=progress.refresh,
            draw_ahead=self.options.draw_ahead,
            leftovers=Leftovers(self.jobs.jobs_folder),
        )

    def limits(self, n_trials: int) -> Limits:
        """Get the bounds of so many trials: `timeout` counts from the start of the command."""
        timeout = self.options.timeout
        return Limits(
            n_trials,
            timeout=None if timeout is None else max(0.0, timeout - (time.monotonic() - self.started)),
            retries=self.options.retries,
            max_same_failures=self.options.max_same_failures,
            max_failure_rate=self.options.max_failure_rate,
            window=self.options.slots,
        )

    def _record(self, study: optuna.Study) -> None:
        board, runs = self.options.record / results.LEADERBOARD, Path(meta.get(study, meta.SWEEP_DIR))
        with ErrorTranslator(board):
            for folder in {runs, self.opener.folder}:
                results.write_results(study, folder)
            results.write_leaderboard(study, board, self.names, runs, self.options.score_reader)

    def call_on_end(self, study: optuna.Study, sweep_dir: Path) -> None:
        """Call the functions of `on_end`. A failure there is no failure of the sweep."""
        for name in self.options.on_end:
            try:
                # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
                end = hydra.utils.get_method(name)
                end(study=study, folder=sweep_dir, study_folder=self.options.record, config=self.config)
            except Exception as error:
                log.warning("%s failed; the study is complete without it: %r", name, error)

    def _farewell(self, study: optuna.Study, stage: ConfirmationStage | None, late: bool) -> None:
        runs = Path(meta.get(study, meta.SWEEP_DIR))
        results.print_table(study, self.names, runs=runs, extra=self.options.score_reader)
        say(results.summary(study, self.names))
        if stage is not None:
            stage.print()  # behind the search's own best, which need not be the confirmed one
        if self.stop.requested:
            say(f"Interrupted; nothing is lost. The same line goes on:\n  {shlex.join(map(shown, command()))}")
            raise SystemExit(128 + (self.stop.signal or signal.SIGINT))
        self._require_finished(study, told=True)
        if late and not budget.is_complete(study, self.options.n_trials):
            line = shlex.join(map(shown, command()))
            paused = results.paused_words(study.get_trials(deepcopy=False))
            said = "Its time is over (hydra.sweeper.timeout)." + (f" {paused}." if paused else "")
            say(f"{said} The same line goes on:\n  {line}")
        url = shown(self.options.storage)
        look = f"Look at it with any of Optuna's tools, for example: optuna-dashboard {shlex.quote(url)}"
        say(f"Study: {self.options.record}. {self.options.next_step or look}")

    def _require_finished(self, study: optuna.Study, told: bool = False) -> None:
        """Raise a StudyError, with failures and remedy, if none is finished or feasible; `told`: a table has them."""
        trials, timeout, bounds = study.get_trials(deepcopy=False), self.options.timeout, self.options.constraints
        if select.best_trials(study):
            return
        wanted = f"satisfies {' and '.join(map(str, bounds))}"
        if paused := results.paused_words(trials):
            raise StudyError(
                f"No trial {f'that {wanted} ' if bounds else ''}has come to its end yet, so there is no best one: "
                f"{paused}. The same line goes on with them. Give it more time (hydra.sweeper.timeout), or begin "
                "another study with shorter trials or fewer rungs (hydra.sweeper.promotion)."
            )
        if near := constraints.nearest(study):
            raise StudyError(
                f"No trial {wanted}. The nearest is trial {near.number}: "
                f"{'; '.join(constraints.violated(bounds, near))}. For more trials raise n_trials. A "
                f"study keeps its constraints; begin one with others by {self.opener.naming}=NEWNAME."
            )
        if has_finished(study):
            return
        if timeout is not None and not any(trial.state.is_finished() for trial in trials):
            raise StudyError(
                "No trial finished: the time was over before one did, or too short for a whole one "
                f"(hydra.sweeper.timeout={timeout:g} seconds from the start of the command). "
                "Raise it; what is prepared by now takes no time again."
            )
        said = [f"No trial finished ({results.summary(study, self.names)}).", "" if told else budget.failures(trials)]
        more = "Give the mended command: trials that failed before it do not count. If what was wrong is not in the "
        more += "command (code, photos, a driver), say so with 'hydra.sweeper.allow_change=[failures]'."
        if not budget.all_failed(trials):
            more = f"For more trials raise n_trials; begin another study with {self.opener.naming}=NEWNAME."
        where = f"The whole story of each is in {meta.get(study, meta.SWEEP_DIR)}, in the log of its folder."
        raise StudyError("\n".join(filter(None, [*said, f"{where} {more}"])))
