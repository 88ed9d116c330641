"""One sweep from the command line to its results: what `hydra/sweeper=steady` does.

Puts the parts of `catsweep.search` together and holds no rules of its own: the space, the contract, the preflight, the
search, the confirmation, the results. Everything that lasts is in the study, so the same command goes on where the
last one ended, however it ended.
"""

import logging
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import hydra.utils
import optuna
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from optuna.trial import TrialState

from steady import options
from steady.confirm.stage import CONFIRMATION, Confirming, typical_seconds
from steady.dry_run import rehearse, study_on_paper
from steady.errors import ConfigError, StorageError, StudyError
from steady.options import Settings
from steady.places import leave
from steady.printing import say
from steady.propose.checks import JobComposer, checked, recorded
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.executor import Executor
from steady.run.interruption import Stop, interruptible
from steady.run.job_factory import Jobs
from steady.run.ledger import Limits
from steady.run.scheduler import Scheduler
from steady.study import budget, contract, meta, results, trial_folders
from steady.study.artifacts import Artifacts
from steady.study.contract import Change, Contract
from steady.study.leases import Leases, remove_side_study
from steady.study.storage import find_study, open_storage, shown
from steady.study.storage_errors import ErrorTranslator
from steady.watch.progress import Watch

log = logging.getLogger(__name__)

BEGUN = "begun"  # what a controller claims, beside others, whose sweep is of the contract that the study has


def run(
    raw: Mapping[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
    arguments: list[str],
    stop: Stop,
) -> None:
    """Run a sweep, or go on with it.

    Args:
        raw: the keys of `hydra.sweeper`.
        hydra_context: of Hydra.
        task_function: what a trial calls with its configuration.
        config: the composed configuration of the multirun.
        arguments: task overrides of the command line.
        stop: set by signals, see `interruption.ending`.

    Raises:
        SystemExit: 1 for a sweep that cannot go on, after saying why; 130 or 143 for one that was interrupted.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        try:
            keys = options.read(raw, config.hydra.job.name, str(config.hydra.sweep.dir))
        except OmegaConfBaseException as error:  # an interpolation of what is not there
            raise ConfigError(" ".join(str(error).split())) from error
        space = Space.parse(keys["params"], arguments, keys["conditions"], keys["custom_search_space"])
        space = space.as_recorded(recorded(study_on_paper(keys)))
        keys = checked(keys, space, config, hydra_context.config_loader)
        jobs = Jobs(keys, space, hydra_context, task_function, config)
        sweep = Sweep(keys, space, config, jobs, stop)
        examples = list(JobComposer(space, config, hydra_context.config_loader).examples())
        jobs.check(examples)
        sweep.check([*sweep.first(), *examples, {}][0])
        if keys["dry_run"]:
            sweep.rehearse()
        else:
            sweep.run()
    except Exception as error:
        leave(error, config)


@dataclass
class Sweep:
    """The parts of one sweep.

    Args:
        settings: checked.
        space: what is searched.
        config: the composed configuration of the multirun.
        jobs: what trials do.
        stop: set by signals.
    """

    settings: Settings
    space: Space
    config: DictConfig
    jobs: Jobs
    stop: Stop = field(default_factory=Stop)

    def __post_init__(self) -> None:
        self.started = time.monotonic()
        self.naming = options.naming(self.config)
        self.folder = Path(self.config.hydra.sweep.dir)  # of this start; the runs are in that of the study's first
        if self.settings["pruner"] is not None and not self.jobs.named:
            raise StudyError(
                "A pruner hears of trials through the node `trial` of the configuration, and there is none. Add "
                "`trial: {number: null, attempt: 0, study: null, storage: null}`, and report scores as "
                "steady.reporting shows; or set hydra.sweeper.pruner=null."
            )

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse, before anything is written, names that name nothing, and folders of trials that another study left.

        Args:
            params: of the first trial, see `Jobs.occupied`.

        Raises:
            ConfigError: `allow_change` names nothing that could change.
            StudyError: the study has no trials, and there are folders of some where its own would work.
        """
        occupied = self.jobs.occupied(params)
        # Afterwards: a trial is in the study before its folder is there, so what another controller begins shows.
        study = study_on_paper(self.settings)
        if occupied and not study.get_trials(deepcopy=False):
            raise StudyError(self._said_of(occupied))
        before = Contract.from_dict(meta.get(study, meta.CONTRACT) or {})
        known = [*meta.get(study, meta.ALLOWED, ()), budget.FAILURES]
        contract.require_known(self.settings["allow_change"], [before, self._contract({})], self.config, known)

    def _said_of(self, occupied: list[Path]) -> str:
        more = f" and {len(occupied) - 1} more" if len(occupied) > 1 else ""
        which = (
            "an earlier study of this name"
            if trial_folders.is_of(self.folder, self.settings.study)
            else "something else"
        )
        sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        where = str(sweep["dir"])
        fresh = f"{self.naming}=NEWNAME" if f"${{{self.naming}}}" in where else "hydra.sweep.dir=NEWDIR"
        kept = shown(self.settings["storage"] or str(self.settings.record))
        return (
            f"The study {self.settings.study} (kept in {kept}) has no trials, but where they would work {which} has "
            f"left files: {occupied[0]}{more}. Begin elsewhere with {fresh}, or move {self.folder} away; if the trials "
            "there are this study's, restore its record. Nothing was written."
        )

    def run(self) -> None:
        """Search, confirm, record.

        Raises:
            StudyError: the study was made otherwise, or its trials keep failing.
            SystemExit: see `run`.
        """
        # One that cannot be made is refused before anything is written.
        Samplers(self.settings["sampler"], 0, self.space)(0)
        storage = open_storage(self.settings.storage)
        if find_study(storage, self.settings.study) is not None:  # before anything is written
            self._look_at(optuna.load_study(study_name=self.settings.study, storage=storage))
        study = self._open(storage)
        for name in (study.study_name, study.study_name + CONFIRMATION):
            remove_side_study(storage, name)
        leases = Leases(storage, study.study_name, grace=self.settings["lease"])
        leases.register()
        try:
            with leases.lock("study"):
                # Nothing is of the contract of a study without trials, unless another controller is to draw its first.
                begun, alone = study.get_trials(deepcopy=False), not leases.owned(BEGUN)
                self._freeze(study, anew=not begun and alone, fruitless=alone and budget.all_failed(begun))
                leases.take(BEGUN)
            self._require_folder(study)
            if self._elsewhere(study):
                say(f"{self._where(study)} goes on there; {results.RESULTS} is written to {self.folder} too.")
            self.jobs.point_to(meta.get(study, meta.SWEEP_DIR))
            self._search(study, leases)
        finally:
            with suppress(StorageError):  # which we told of; that we have ended shows by our process
                leases.close()

    def rehearse(self) -> None:
        """Print the space, the first proposals and the estimated cost. Writes nothing."""
        study = study_on_paper(self.settings)
        proposer = Proposer(study, self.space, self._samplers(study), self.settings["duplicates"], self.config)
        rehearse(study, self.settings, self.space, proposer, [] if study.trials else self.first())

    # --- the study

    def _open(self, storage: optuna.storages.BaseStorage) -> optuna.Study:
        return optuna.create_study(
            study_name=self.settings.study,
            storage=storage,
            directions=list(self.settings.directions),  # type: ignore[arg-type]  # checked when read
            sampler=optuna.samplers.RandomSampler(),  # never asked: `Proposer` samples
            load_if_exists=True,
        )

    def _look_at(self, study: optuna.Study) -> None:
        """Refuse a study with trials of another contract, and delete one without any that Optuna cannot begin anew."""
        others = Leases(study._storage, study.study_name, self.settings["lease"]).controllers()
        if study.trials:
            self._require_folder(study)
            self._check(study, fruitless=not others and budget.all_failed(study.get_trials(deepcopy=False)))
            return
        directions = [direction.name.lower() for direction in study.directions]
        objective = (meta.get(study, meta.CONTRACT) or {}).get("objective")
        same = directions == list(self.settings.directions) and objective in (None, self._names())
        if not same and not meta.has(study, meta.CONTRACT):  # not ours to delete
            raise StudyError(
                f"{self._where(study)} was made by another tool, with the directions {', '.join(directions)}; this "
                f"sweep has {', '.join(self.settings.directions)}. Give this sweep another name: {self.naming}=NEWNAME."
            )
        if not same and not others:
            with suppress(KeyError):  # another controller was faster
                study._storage.delete_study(study._study_id)

    def _check(self, study: optuna.Study, fruitless: bool = False) -> list[Change]:
        if (before := meta.get(study, meta.CONTRACT)) is None:
            if study.trials:
                raise StudyError(
                    f"The study {self.settings.study} holds {len(study.trials)} trials of another tool, whose settings "
                    f"nobody recorded. Give this sweep another name: {self.naming}=NEWNAME."
                )
            return []
        # What the preflight finds is compared when it has run.
        kept = Contract.from_dict(before)
        return self._compare(study, kept, self._contract(dict(kept.facts)), fruitless)

    def _compare(self, study: optuna.Study, before: Contract, now: Contract, fruitless: bool) -> list[Change]:
        here = f"; this start names {self.folder}" if self._elsewhere(study) else ""
        where = f"{self._where(study)}{here}"
        more = self.settings["next_step"] or ""
        return contract.check(before, now, self.settings["allow_change"], where, self.naming, fruitless, more)

    def _elsewhere(self, study: optuna.Study) -> bool:
        """Whether this start names another folder than the first, which holds the runs (`${now:}` does each time)."""
        return self.folder.absolute() != Path(meta.get(study, meta.SWEEP_DIR, self.folder)).absolute()

    def _require_folder(self, study: optuna.Study) -> None:
        """Refuse a study that says its runs are where no sweep of its name has worked."""
        runs = Path(meta.get(study, meta.SWEEP_DIR, self.folder))
        if self._elsewhere(study) and not trial_folders.is_of(runs, study.study_name):
            raise StudyError(
                f"{self._where(study)} was begun in another folder than this start names, {self.folder}, and no sweep "
                f"of that name has left its note in {runs}. If its runs are there, say so: hydra.sweep.dir={runs}. "
                f"If not, start another study with {self.naming}=NEWNAME."
            )

    def _where(self, study: optuna.Study) -> str:
        runs = meta.get(study, meta.SWEEP_DIR, self.folder)
        kept = shown(self.settings["storage"] or str(self.settings.record))
        return f"The study {study.study_name} (kept in {kept}, its runs in {runs})"

    def _contract(self, facts: dict[str, Any]) -> Contract:
        return contract.freeze(
            objective=None if self.settings.objective is None else list(self.settings.objective),
            directions=list(self.settings.directions),
            space=self.space,
            config=self.config,
            ignore=self.settings["contract_ignore"],
            facts=facts,
        )

    def _freeze(self, study: optuna.Study, anew: bool, fruitless: bool) -> None:
        """Write down, or compare, what the study is begun with, and what it tries first."""
        changes = [] if anew else self._check(study, fruitless)
        before = None if anew else meta.get(study, meta.CONTRACT)
        facts = dict((before or {}).get("facts") or {})
        given = budget.digest(list(map(shown, _words()[2:])), self.settings.keys)
        mended = fruitless and (
            bool(changes)
            or meta.get(study, meta.GIVEN, given) != given
            or budget.FAILURES in self.settings["allow_change"]
        )
        if self.settings["preflight"] and (mended or not budget.is_complete(study, self.settings["n_trials"])):
            # A trial that has finished has shown what the examples would.
            facts = self.jobs.preflight(thorough=not _finished(study))
            if before is not None:
                changes = self._compare(study, Contract.from_dict(before), self._contract(facts), fruitless)
                mended |= fruitless and bool(changes)
        for change in changes:
            log.info("Accepted: %s", change)
        if allowed := {*meta.get(study, meta.ALLOWED, ()), *self.settings["allow_change"]}:
            study.set_user_attr(meta.ALLOWED, sorted(allowed))
        if mended:
            log.info(
                "%d trials that failed before do not count", budget.uncount_failures(study, unfinished=bool(changes))
            )
        study.set_user_attr(meta.CONTRACT, self._contract(facts).to_dict())
        study.set_user_attr(meta.COMMAND, shlex.join(map(shown, _words())))
        study.set_user_attr(meta.PRUNING, self.settings.pruning)
        if self.settings["next_step"]:
            study.set_user_attr(meta.NEXT_STEP, self.settings["next_step"])
        if self.settings.objective:
            study.set_user_attr(meta.OBJECTIVE, list(self.settings.objective))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self.settings.objective))
        if anew or not meta.has(study, meta.SWEEP_DIR):  # `${now:}` would name another at each start
            study.set_user_attr(meta.SWEEP_DIR, str(self.config.hydra.sweep.dir))
            study.set_user_attr(meta.SWEEP_SEED, self._seed(None))
            study.set_user_attr(meta.SPELLING, "exact")
        if not self._elsewhere(study):
            trial_folders.mark(self.folder, study.study_name)
        budget.enqueue(study, self.settings["enqueue"] if study.trials and not mended else self.first())
        study.set_user_attr(meta.GIVEN, given)  # last, so that a start that is killed before it is made up for

    def first(self) -> list[dict[str, Any]]:
        """Configurations that a new study tries first: the one that stands, and those that the user names."""
        named = list(self.settings["enqueue"])
        if not self.settings["baseline"]:
            return named
        params = self.space.baseline(self.config)
        if params is None:
            log.info("The configuration as it stands is none of this space, so it is not tried first")
        return named if params is None or params in named else [params, *named]

    def _seed(self, study: optuna.Study | None) -> int:
        given = (self.settings["sampler"] or {}).get("seed")
        kept = None if study is None else meta.get(study, meta.SWEEP_SEED)
        chosen = kept if given is None else given
        return int.from_bytes(os.urandom(4), "big") if chosen is None else int(chosen)

    def _samplers(self, study: optuna.Study) -> Samplers:
        return Samplers(self.settings["sampler"], self._seed(study), self.space)

    # --- running

    def _search(self, study: optuna.Study, leases: Leases) -> None:
        sweep_dir = Path(meta.get(study, meta.SWEEP_DIR))
        total = self.settings["n_trials"]
        if budget.is_complete(study, total) and Confirming(study, self.jobs).complete:
            self._record(study)
            self._require_one(study)
            self._hand_over(study, sweep_dir)  # a judge may be there that was not when it ended
            self._record(study)
            say(f"The study {study.study_name} is finished: {results.summary(study, self._names())}.")
            more = f"for more, raise n_trials. Start another with {self.naming}=NEWNAME."
            say(f"It has all of its {total} trials; {more}")
            return
        executor = self.jobs.executor()
        confirming = None
        watch = Watch(study, self.settings, executor, sweep_dir, self.started)
        try:
            with interruptible(executor, self.stop), watch:
                scheduler = self._scheduler(study, executor, leases, watch)
                scheduler.run()
                if not self.stop.requested and (budget.is_complete(study, total) or scheduler.is_late()):
                    confirming = Confirming(study, self.jobs)
                    confirming.run(executor, self._limits, self.stop, watch.event, watch.refresh, watch.confirming)
        except BaseException:
            executor.close()
            with suppress(StorageError):  # what ended the sweep is what is told
                self._record(study)
            raise
        executor.close()
        self._record(study)
        if not self.stop.requested:
            self._hand_over(study, sweep_dir)
            self._record(study)  # with what they have found beside the objectives
        if confirming is not None:
            confirming.print()
        self._farewell(study)

    def _scheduler(self, study: optuna.Study, executor: Executor, leases: Leases, watch: Watch) -> Scheduler:
        places = self.jobs.folders(study)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
            places.of(trial)  # refused now, and not when its turn comes
        return Scheduler(
            study=study,
            proposals=Proposer(study, self.space, self._samplers(study), self.settings["duplicates"], self.config),
            executor=executor,
            leases=leases,
            limits=replace(
                self._limits(budget.total(study, self.settings["n_trials"])), reserved=lambda: self._reserved(study)
            ),
            overrides=lambda trial: (*self.jobs.overrides(study, trial), *self.jobs.place(places, trial)),
            folders=places,
            record=lambda: self._record(study),
            event=watch.event,
            refresh=watch.refresh,
            attach=Artifacts(study, self.settings.record, self.settings["artifacts"]).attach,
            stop=self.stop,
            draw_ahead=None if self.settings["draw_ahead"] == "auto" else self.settings["draw_ahead"],
            must_report=(self.settings.pruning or {}).get("metrics", ()),
        )

    def _reserved(self, study: optuna.Study) -> float:
        """Seconds of the timeout that are the confirmation's."""
        if self.settings["confirm"] is None or self.settings["timeout"] is None:
            return 0.0
        return self.settings.confirmation_seconds(typical_seconds(study, self.settings["trial_minutes"]))

    def _limits(self, n_trials: int) -> Limits:
        same, rate = options.failure_limits(self.settings.keys)
        timeout = self.settings["timeout"]
        return Limits(
            n_trials,
            timeout=None if timeout is None else max(0.0, timeout - (time.monotonic() - self.started)),
            retries=self.settings["retries"],
            max_same_failures=same,
            max_failure_rate=rate,
            window=self.settings.slots,
        )

    # --- results

    def _names(self) -> list[str]:
        return list(self.settings.objective) if self.settings.objective else []

    def _record(self, study: optuna.Study) -> None:
        board = self.settings.record / results.LEADERBOARD
        with ErrorTranslator(board):
            for folder in {Path(meta.get(study, meta.SWEEP_DIR)), self.folder}:
                results.write_results(study, folder)
            runs = Path(meta.get(study, meta.SWEEP_DIR))
            results.write_leaderboard(study, board, self._names(), runs, self.settings.extra_scores)

    def _hand_over(self, study: optuna.Study, sweep_dir: Path) -> None:
        """Call what the settings name for the end of the sweep. A failure there is no failure of the sweep."""
        for name in options.listed(self.settings["on_end"]):
            try:
                # Looked up without Hydra's whitelist: it is the user's own configuration, like the task itself.
                end = hydra.utils.get_method(name)
                end(study=study, folder=sweep_dir, study_folder=self.settings.record, config=self.config)
            except Exception as error:
                log.warning("%s failed; the study is complete without it: %r", name, error)

    def _farewell(self, study: optuna.Study) -> None:
        runs = Path(meta.get(study, meta.SWEEP_DIR))
        results.print_table(study, self._names(), runs=runs, extra=self.settings.extra_scores)
        say(results.summary(study, self._names()))
        if self.stop.requested:
            say(f"Interrupted; nothing is lost. The same line goes on:\n  {shlex.join(_words())}")
            raise SystemExit(128 + (self.stop.signal or signal.SIGINT))
        self._require_one(study, told=True)
        if not budget.is_complete(study, self.settings["n_trials"]) and self.settings["timeout"] is not None:
            say(f"Its time is over (hydra.sweeper.timeout). The same line goes on:\n  {shlex.join(_words())}")
        url = shown(self.settings.storage)
        look = f"Look at it with any of Optuna's tools, for example: optuna-dashboard {shlex.quote(url)}"
        say(f"Study: {self.settings.record}. {self.settings['next_step'] or look}")

    def _require_one(self, study: optuna.Study, told: bool = False) -> None:
        """Do not call a study finished in which no trial is; `told`: a table has said what they failed of.

        Raises:
            StudyError: saying what they failed of, and how to go on.
        """
        trials = study.get_trials(deepcopy=False)
        if _finished(study):
            return
        if self.settings["timeout"] is not None and not any(trial.state.is_finished() for trial in trials):
            raise StudyError(
                "No trial finished: the time was over before one did "
                f"(hydra.sweeper.timeout={self.settings['timeout']:g} seconds from the start of the command). "
                "Raise it; what is prepared by now takes no time again."
            )
        said = [
            f"No trial finished ({results.summary(study, self._names())}).",
            "" if told else budget.failures(trials),
        ]
        more = "Give the mended command: trials that failed before it do not count. If what was wrong is not in the "
        more += "command (code, photos, a driver), say so with 'hydra.sweeper.allow_change=[failures]'."
        if not budget.all_failed(trials):
            more = f"For more trials raise n_trials; begin another study with {self.naming}=NEWNAME."
        where = f"The whole story of each is in {study.user_attrs['sweep_dir']}, in the log of its folder."
        raise StudyError("\n".join(filter(None, [*said, f"{where} {more}"])))


def _finished(study: optuna.Study) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _words() -> list[str]:
    """The command line, as it goes on with this study."""
    return ["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]
