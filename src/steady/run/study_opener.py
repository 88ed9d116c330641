"""Open the study of a sweep: create it, or compare the contract that it was begun with, and record that."""

import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import FrozenTrial, TrialState

from steady import resources
from steady.exceptions import NoStorageError, StorageError, StudyError
from steady.options import AUTO, SweepOptions, check_time, naming
from steady.printing import say
from steady.propose.promotion import share_left
from steady.propose.sampling import Proposer, Samplers
from steady.propose.warm_start import FREE, PriorReader, best
from steady.run.job_factory import JobFactory
from steady.storage import find_study, open_storage, shown
from steady.storage.location import remember
from steady.storage.patience import Patience
from steady.study import budget, contract, meta, results, trial_folders
from steady.study.contract import Change, Contract
from steady.study.leases import Leases

log = logging.getLogger(__name__)

START = 30.0  # seconds that a server may be away when a sweep starts
PROMOTING = "promotion"  # the name in `allow_change` for promotion in a study that was begun without
BEGUN = "begun"  # claimed by each controller whose sweep has the study's contract


def study_on_paper(options: SweepOptions) -> optuna.Study:
    """Load the sweep's study, or make an empty one in memory if it has none yet; nothing is written.

    A server that is away is waited for, but not for long: the URL may be wrong.

    Example:
        >>> from types import SimpleNamespace
        >>> options = SimpleNamespace(storage_patience=0, study="cats", directions=["minimize"])
        >>> options.storage = "sqlite:///no.db"
        >>> study_on_paper(options).trials
        []
    """
    patience = Patience(min(START, options.storage_patience))
    with suppress(NoStorageError):
        storage = patience.call(open_storage, options.storage, make=False, patience=patience)
        if find_study(storage, options.study) is not None:
            return optuna.load_study(study_name=options.study, storage=storage)
    return optuna.create_study(directions=list(options.directions))


def seed(options: SweepOptions, study: optuna.Study | None) -> int:
    """Choose the seed of the sampler: the one given, or else the study's, or else a random one.

    Example:
        >>> from types import SimpleNamespace
        >>> seed(SimpleNamespace(sampler={"seed": 7}), None)
        7
    """
    given = options.sampler.get("seed")
    kept = None if study is None else meta.get(study, meta.SWEEP_SEED)
    chosen = kept if given is None else given
    return int.from_bytes(os.urandom(4), "big") if chosen is None else int(chosen)


def command() -> list[str]:
    """List the words of the command line by which this study goes on.

    Example:
        >>> command()[0]
        'python'
    """
    return ["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]]


def has_finished(study: optuna.Study) -> bool:
    """Tell whether any trial of a study has finished with values.

    Example:
        >>> has_finished(optuna.create_study())
        False
    """
    return bool(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


@dataclass
class StudyOpener:
    """Creates a sweep's study, or goes on with the one that is there."""

    jobs: JobFactory

    def __post_init__(self) -> None:
        self.options, self.space, self.config = self.jobs.options, self.jobs.space, self.jobs.config
        self.naming = naming(self.config)  # the key by which a user names the study
        self.folder = Path(self.config.hydra.sweep.dir)  # of this start; the runs are in that of the study's first

    def check(self, params: Mapping[str, Any]) -> None:
        """Check `allow_change` and the time (ConfigError), and the folders of a new study's trials (StudyError).

        The first trial of a new study has these parameters. Writes nothing.
        """
        occupied = self.jobs.used_folders(params)
        # Afterwards: a trial is in the study before its folder is there, so what another controller begins shows.
        study = study_on_paper(self.options)
        trials = study.get_trials(deepcopy=False)
        unfinished = [trial for trial in trials if not trial.state.is_finished()]
        promotion = self.options.promotion
        over = self.options.confirm is not None and meta.get(study, meta.OUT_OF_TIME) == len(trials)
        if not (over or self.is_whole(study)):  # else the time may be for the confirmation
            check_time(self.options, min((share_left(one, promotion) for one in unfinished if promotion), default=1.0))
        if occupied and not trials:
            raise StudyError(self._refusal(occupied))
        before = Contract.from_dict(meta.get(study, meta.CONTRACT) or {})
        known = [*meta.get(study, meta.ALLOWED, ()), budget.FAILURES, PROMOTING]
        if self.options.warm_start != AUTO and not study.get_trials(deepcopy=False):
            self._choose_prior({})  # one that was named may be refused
        contract.require_known(self.options.allow_change, [before, self._contract({})], self.config, known)

    def _refusal(self, occupied: list[Path]) -> str:
        more = f" and {len(occupied) - 1} more" if len(occupied) > 1 else ""
        ours = trial_folders.is_of(self.folder, self.options.study)
        which = "an earlier study of this name" if ours else "something else"
        sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        fresh = f"{self.naming}=NEWNAME" if f"${{{self.naming}}}" in str(sweep["dir"]) else "hydra.sweep.dir=NEWDIR"
        return (
            f"The study {self.options.study} (kept in {shown(self.options.kept_in)}) has no trials, but where they "
            f"would work {which} has left files: {occupied[0]}{more}. Begin elsewhere with {fresh}, or move "
            f"{self.folder} away; if the trials there are this study's, restore its record. Nothing was written."
        )

    def first(self) -> list[dict[str, Any]]:
        """List the configurations that a new study tries first: the one that stands, and those of `enqueue`."""
        named = list(self.options.enqueue)
        if not self.options.baseline:
            return named
        params = self.space.baseline(self.config)
        if params is None:
            log.info("The configuration as it stands is not in this space, so it is not tried first")
        return named if params is None or params in named else [params, *named]

    def to_try_first(self, study: optuna.Study, anew: bool) -> list[dict[str, Any]]:
        """List what a start has to try before what is drawn: of a new study also what others have found best.

        That has as much room as `n_trials` leaves beside what was given, or stands.
        """
        if not anew:
            return list(self.options.enqueue)
        own = self.first()
        return [*self.best_prior(study)[: max(0, self.options.n_trials - len(own))], *own]

    def is_whole(self, study: optuna.Study) -> bool:
        """Tell whether all trials that there are to be have ended: `n_trials`, or all that a finite space has."""
        if budget.is_complete(study, self.options.n_trials):
            return True
        trials = study.get_trials(deepcopy=False)
        samplers = Samplers(self.options.sampler, 0, self.space)
        proposer = Proposer(study, self.space, samplers, self.options.duplicates, self.config)
        return all(trial.state.is_finished() for trial in trials) and proposer.is_exhausted(trials)

    def open(self, hurry: Callable[[], bool] = lambda: False) -> optuna.Study:
        """Open the study, or create it; one with another contract is a StudyError.

        Its storage waits for a server that is away until `hurry` returns True.
        """
        patience = Patience(self.options.storage_patience, hurry=hurry)
        storage = open_storage(self.options.storage, patience=patience)
        if find_study(storage, self.options.study) is not None:  # before anything is written
            self._compare_or_delete(optuna.load_study(study_name=self.options.study, storage=storage))
        return optuna.create_study(
            study_name=self.options.study,
            storage=storage,
            directions=list(self.options.directions),
            sampler=optuna.samplers.RandomSampler(),  # never asked: `Proposer` samples
            load_if_exists=True,
        )

    @contextmanager
    def enter(self, study: optuna.Study) -> Iterator[Leases]:
        """Register as a controller of the study, compare or freeze its contract, and set the folder of jobs.

        Another contract or folder is a StudyError.
        """
        leases = Leases(study._storage, study.study_name, grace=self.options.lease)
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
            if self.options.given["storage"]:  # else it is beside its results
                remember(self.options.record, study.study_name, self.options.storage)
            self.jobs.set_sweep_dir(meta.get(study, meta.SWEEP_DIR))
            yield leases
        finally:
            with suppress(StorageError):  # which we told of; that we have ended shows by our process
                leases.close()

    def _compare_or_delete(self, study: optuna.Study) -> None:
        """Refuse a study with trials of another contract; delete one without trials that has other objectives."""
        others = Leases(study._storage, study.study_name, self.options.lease).controllers()
        if study.trials:
            self._require_folder(study)
            self._compare(study, fruitless=not others and budget.all_failed(study.get_trials(deepcopy=False)))
            return
        directions = [direction.name.lower() for direction in study.directions]
        objective = (meta.get(study, meta.CONTRACT) or {}).get("objective")
        same = directions == list(self.options.directions) and objective in (None, list(self.options.objective))
        if not same and not meta.has(study, meta.CONTRACT):  # not ours to delete
            raise StudyError(
                f"{self._where(study)} was made by another tool, with the directions {', '.join(directions)}; this "
                f"sweep has {', '.join(self.options.directions)}. Give this sweep another name: {self.naming}=NEWNAME."
            )
        if not same and not others:
            with suppress(KeyError):  # another controller was faster
                study._storage.delete_study(study._study_id)

    def _compare(self, study: optuna.Study, fruitless: bool, facts: dict[str, Any] | None = None) -> list[Change]:
        """List the allowed differences from a study's contract; others are a StudyError. No `facts`: not compared."""
        if (before := meta.get(study, meta.CONTRACT)) is None:
            if study.trials:
                raise StudyError(
                    f"The study {self.options.study} holds {len(study.trials)} trials of another tool, whose settings "
                    f"nobody recorded. Give this sweep another name: {self.naming}=NEWNAME."
                )
            return []
        kept = Contract.from_dict(before)
        now = self._contract(dict(kept.facts) if facts is None else facts)
        where = self._where(study, f"; this start names {self.folder}" if self._elsewhere(study) else "")
        more = self.options.next_step or ""
        changes = contract.check(kept, now, self.options.allow_change, where, self.naming, fruitless, more)
        self._require_rungs(study, where)
        choices = [str(change) for change in changes if contract.has_other_choices(change)]
        if choices and self.options.storage.startswith(("journal", "grpc")):
            raise StudyError(
                f"{where} is kept where Optuna takes no other choices of a parameter: {'; '.join(choices)}. Begin "
                f"another study with {self.naming}=NEWNAME; hydra.sweeper.warm_start=[{study.study_name}] lets it "
                "learn from this one."
            )
        return changes

    def _require_rungs(self, study: optuna.Study, where: str) -> None:
        """Refuse to judge trials beside those that were scored when a step was another share of a trial."""
        promotion: Any = meta.get(study, meta.PROMOTION)
        before: list[int] = meta.get(study, meta.PROMOTED_AT) or (promotion["rungs"] if promotion else [])
        said = self._other_rungs(before)
        if not said or PROMOTING in self.options.allow_change:
            return
        if any(meta.has(trial, meta.RUNGS) for trial in study.get_trials(deepcopy=False)):
            how, back = (
                "without hydra.sweeper.promotion",
                "promotion=null and the pruner of then (hydra/sweeper/pruner)",
            )
            if before:
                how, back = f"with hydra.sweeper.promotion.rungs={before}", "promotion as it was"
            raise StudyError(
                f"{where} was begun {how}, so its trials may have been scored at other shares of themselves than "
                f"those that {said} would judge beside them. Go on as it was begun, hydra.sweeper.{back}. Or accept "
                f"it with 'hydra.sweeper.allow_change=[{PROMOTING}]', or begin another study: {self.naming}=NEWNAME."
            )

    def _other_rungs(self, before: list[int]) -> str:
        """Name what would judge trials at rungs that were another share of them; the last rung is the whole."""
        now = self.options.promotion
        if not before:
            return "hydra.sweeper.promotion" if now else ""
        if now is None:
            return "a pruner" if self.options.pruning else ""
        moved = before[-1] != now.rungs[-1] and set(before) & set(now.pausing)
        return f"hydra.sweeper.promotion.rungs={now.rungs}" if moved else ""

    def _elsewhere(self, study: optuna.Study) -> bool:
        """Tell whether this start names another folder than the first, which holds the runs (as `${now:}` does)."""
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

    def _where(self, study: optuna.Study, more: str = "") -> str:
        runs = meta.get(study, meta.SWEEP_DIR, self.folder)
        return f"The study {study.study_name} (kept in {shown(self.options.kept_in)}, its runs in {runs}{more})"

    def _machines(self, before: tuple[str, ...]) -> tuple[str, ...]:
        """Add this machine to those that have driven the study; say so if it is another."""
        here = resources.machine()
        if here in before:
            return before
        if before:
            begun = f"The study {self.options.study} was begun on another machine ({before[0]})"
            say(f"{begun}, and goes on on {here}: a trial bound by time may train more, or less, than those before.")
        return (*before, here)

    def _contract(self, facts: dict[str, Any]) -> Contract:
        return contract.freeze(
            objective=list(self.options.objective) or None,
            directions=list(self.options.directions),
            space=self.space,
            config=self.config,
            ignore=self.options.contract_ignore,
            facts=facts,
            constraints=self.options.constraints,
            warm_start=self.options.warm_start,
        )

    @cached_property
    def _others(self) -> PriorReader:
        options, groups = self.options, OmegaConf.select(self.config, "hydra.runtime.choices") or {}
        return PriorReader(
            options.record.parent, options.study, options.storage, self.space, self._contract({}), options.constraints,
            dict(groups),
        )  # fmt: skip

    def prior(self, study: optuna.Study) -> list[FrozenTrial]:
        """Read the trials of other studies that a study's sampler learns from: noted, or of a new one those to choose.

        Facts are not compared then.
        """
        return self._others.read(meta.get(study, meta.PRIOR) if meta.has(study, meta.PRIOR) else self._choose_prior({}))

    def best_prior(self, study: optuna.Study) -> list[dict[str, Any]]:
        """List the configurations of other studies that a new study tries first."""
        return best(self.prior(study), self.options.directions)

    def _choose_prior(self, facts: dict[str, Any]) -> list[dict[str, Any]]:
        """Choose the trials that a new study learns from; without facts these are not compared."""
        if self.options.warm_start is None:
            return []
        # The name of the study and the seed differ between studies that are alike.
        ignore = (*self.options.contract_ignore, self.naming, "seed")
        return self._others.choose(self.options.warm_start, facts, ignore, self.options.allow_change)

    def _note_prior(self, study: optuna.Study, facts: dict[str, Any], anew: bool) -> None:
        if not anew:
            return
        notes = self._choose_prior(facts)
        study.set_user_attr(meta.PRIOR, notes)
        if self.options.warm_start is not None:
            learned = ", ".join(f"{note['trials']} trials of {note['study']}" for note in notes)
            say(f"Warm start: the sampler begins with {learned or 'nothing, for no study beside it ran alike'}.")

    @staticmethod
    def _note_changes(study: optuna.Study, changes: list[Change]) -> None:
        """Tell what was accepted, and note how many trials were there before it if scores depend on it."""
        for change in changes:
            log.info("Accepted: %s", change)
        if any(change.section not in FREE for change in changes):
            study.set_user_attr(meta.CHANGED_AT, len(study.get_trials(deepcopy=False)))
            study.set_user_attr(meta.CHANGES, meta.get(study, meta.CHANGES, 0) + 1)

    def _note_promotion(self, study: optuna.Study) -> None:
        now, before = self.options.promotion and asdict(self.options.promotion), meta.get(study, meta.PROMOTION)
        if now != before and study.get_trials(deepcopy=False):
            log.info("hydra.sweeper.promotion is another than before (%s); trials that are paused go by it", before)
        study.set_user_attr(meta.PROMOTION, now)
        if self.options.promotion is not None:
            study.set_user_attr(meta.PROMOTED_AT, self.options.promotion.rungs)

    def _enqueue(self, study: optuna.Study, configurations: list[dict[str, Any]]) -> None:
        if left := budget.enqueue(study, configurations, self.options.n_trials):
            log.info("%d of the configurations to try first wait until there are more trials (n_trials)", left)

    def _freeze(self, study: optuna.Study, anew: bool, fruitless: bool) -> None:
        """Record, or compare, the contract; enqueue what the study tries first."""
        given = budget.digest(list(map(shown, command()[2:])), {**self.options.given, "enqueue": self.options.enqueue})
        changes = [] if anew else self._compare(study, fruitless)
        before = None if anew else meta.get(study, meta.CONTRACT)
        facts = dict((before or {}).get("facts") or {})
        changed = changes or meta.get(study, meta.GIVEN, given) != given
        mended = fruitless and bool(changed or budget.FAILURES in self.options.allow_change)
        if self.options.preflight and (mended or not self.is_whole(study)):
            # A trial that has finished has shown what the examples would.
            facts = self.jobs.preflight(thorough=not has_finished(study))
            if before is not None:
                changes = self._compare(study, fruitless, facts)
                mended |= fruitless and bool(changes)
        self._note_changes(study, changes)
        if allowed := {*meta.get(study, meta.ALLOWED, ()), *self.options.allow_change}:
            study.set_user_attr(meta.ALLOWED, sorted(allowed))
        if mended:
            uncounted = budget.uncount_failures(study, unfinished=bool(changes))
            log.info("%d trials that failed before do not count", uncounted)
        self._note_prior(study, facts, anew or any(change.section == "warm_start" for change in changes))
        kept = replace(self._contract(facts), machines=self._machines(Contract.from_dict(before or {}).machines))
        study.set_user_attr(meta.CONTRACT, kept.to_dict())
        study.set_user_attr(meta.COMMAND, shlex.join(map(shown, command())))
        study.set_user_attr(meta.PATIENCE, self.options.storage_patience)
        study.set_user_attr(meta.PRUNING, self.options.pruning and asdict(self.options.pruning))
        self._note_promotion(study)
        if self.options.next_step:
            study.set_user_attr(meta.NEXT_STEP, self.options.next_step)
        if self.options.objective:
            study.set_user_attr(meta.OBJECTIVE, list(self.options.objective))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(self.options.objective))
        if anew or not meta.has(study, meta.SWEEP_DIR):  # `${now:}` would name another at each start
            study.set_user_attr(meta.SWEEP_DIR, str(self.config.hydra.sweep.dir))
            study.set_user_attr(meta.SWEEP_SEED, seed(self.options, None))
            study.set_user_attr(meta.SPELLING, "exact")
        if not self._elsewhere(study):
            trial_folders.mark(self.folder, study.study_name)
        self._enqueue(study, self.to_try_first(study, anew=mended or not study.trials))
        study.set_user_attr(meta.GIVEN, given)  # last, so that a start that is killed before it is made up for
