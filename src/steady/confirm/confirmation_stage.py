"""Run the confirmation after the search: its best trials again, under other seeds.

The runs are trials of a study of their own, `<study>.confirm`, with the search's scheduler, so they can be interrupted
and resumed. `steady.confirm.confirmation` plans and compares them.
"""

import bisect
import functools
import itertools
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from steady.confirm import confirmation
from steady.confirm.confirmation import Confirmation
from steady.jobs.executor import Executor
from steady.jobs.job_files import Leftovers
from steady.propose import checks
from steady.propose.sampling import SpaceExhausted, UnfitTrial
from steady.run.interruption import Stop
from steady.run.job_factory import JobFactory
from steady.run.ledger import Ledger, Limits
from steady.run.scheduler import Scheduler
from steady.storage import CONFIRMATION
from steady.study import meta, results, select
from steady.study.artifacts import Artifacts
from steady.study.leases import Leases
from steady.study.trial_folders import Folders
from steady.study.trial_store import TrialCursor
from steady.study.untrusted import whole

if TYPE_CHECKING:
    from steady.watch.progress import ProgressReporter

log = logging.getLogger(__name__)


class TypicalSeconds:
    """Estimates how long one run takes: the median of the finished trials, or else `minutes`; 0 if nothing is known.

    >>> TypicalSeconds(2.5).of([])
    150.0
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes, self._cursor = minutes, TrialCursor()
        self._known: list[float] = []  # sorted

    def of(self, trials: Sequence[FrozenTrial]) -> float:
        """Estimate the seconds, given the study's trials, by number."""
        for trial in self._cursor.advance(trials)[0]:
            trained = trial.state == TrialState.COMPLETE and not meta.has(trial, meta.DUPLICATE_OF)  # else without time
            if trained and (taken := results.seconds(trial)):
                bisect.insort(self._known, taken)
        half = len(self._known) // 2
        if not self._known:
            return 60 * (self.minutes or 0.0)
        return self._known[half] if len(self._known) % 2 else (self._known[half - 1] + self._known[half]) / 2


class ConfirmationStage:
    """The confirmation of one study, whose search has ended."""

    def __init__(self, study: optuna.Study, jobs: JobFactory) -> None:
        self.study, self.jobs, self.options = study, jobs, jobs.options
        self.unfit: dict[int, str] = {}  # trials that would be confirmed, were the space as it was, and why not
        self.plan: list[dict[str, Any]] = []  # trial and seed of each run, see `confirmation.plan`
        if asked := self.options.confirm:
            best, seed = list(itertools.islice(self._candidates(), asked.top)), checks.first_seed(jobs.config)
            changed = {meta.CHANGES: meta.get(study, meta.CHANGES)}  # runs of before them trained otherwise
            self.plan = [one | changed for one in confirmation.plan(best, asked.seeds, seed)]
        self.found: Confirmation | None = None  # what the runs have shown

    def _candidates(self) -> Iterator[int]:
        """Yield the best trials, and note those of before the space was changed, whose jobs would be others now."""
        trials = self.study.get_trials(deepcopy=False)
        for number in select.candidates(self.study):
            if why := self._misfit(trials[number]):
                self.unfit[number] = why
            else:
                yield number

    def _misfit(self, trial: FrozenTrial) -> str:
        """Say why the job of a finished trial would be another by now; "" if it would not."""
        space = self.jobs.space
        return space.misfit(trial.params) or space.lacking(trial.params)

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for has ended."""
        runs = confirmation.runs_of(self.study) if self.plan else []
        return not _missing(self.plan, runs) and all(run.state.is_finished() for run in runs)

    def run(
        self, executor: Executor, limits: Callable[[int], Limits], stop: Stop, progress: "ProgressReporter"
    ) -> None:
        """Do the runs that are missing, and compare, unless `stop` is set; `limits` returns the bounds of so many runs.

        Does nothing when none were asked for. A StudyError if too many failed.
        """
        for number, why in self.unfit.items():
            log.info("Trial %d is not confirmed: %s", number, why)
        if not self.plan:
            return
        runs = optuna.create_study(
            study_name=self.study.study_name + CONFIRMATION,
            storage=self.study._storage,
            directions=self.study.directions,
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        runs.set_user_attr(meta.PATIENCE, self.options.storage_patience)  # which their processes read
        trials = self.study.get_trials(deepcopy=False)
        proposals = _Planned(runs, self.plan, lambda number: self._misfit(trials[number]))
        progress.show_confirmation(runs, self.plan, proposals.total())
        searched = self.jobs.folders(self.study)
        taken = tuple(searched.said(trial) for trial in trials)
        folders = Folders(searched.base, usual=confirmation.RUN_FOLDER.format, others=taken)
        overrides = functools.partial(self._overrides, runs, folders)
        with closing(Leases(runs._storage, runs.study_name, grace=self.options.lease)) as leases:
            leases.register()
            ledger = Ledger(
                study=runs,
                proposals=proposals,
                leases=leases,
                folders=folders,
                limits=limits(proposals.total()),
                event=lambda line: progress.event(_in_words(line, runs)),
                attach=Artifacts(runs, self.options.record, self.options.artifacts).attach,
                stop=stop,
            )
            leftovers = Leftovers(self.jobs.jobs_folder)
            Scheduler(ledger, executor, overrides, refresh=progress.refresh, leftovers=leftovers).run()
        if not stop.requested:
            self._report(runs)

    def print(self) -> None:
        """Print what was found, with scores of the run folders beside the objectives; nothing if nothing was found."""
        if self.found is not None:
            base = Path(meta.get(self.study, meta.SWEEP_DIR))
            folders = confirmation.folders(self.study)
            again = {trial: {seed: base / name for seed, name in own.items()} for trial, own in folders.items()}
            extra = self.options.score_reader
            self.found.print(more=None if extra is None else extra.confirmed(self.found, again, base))

    def _overrides(self, runs: optuna.Study, folders: Folders, run: FrozenTrial) -> tuple[str, ...]:
        trial = self.study.get_trials(deepcopy=False)[whole(run, meta.CONFIRMS)]
        own = (f"seed={whole(run, meta.SEED)}", *self.jobs.folder_override(folders, run))
        return (*self.jobs.space.overrides(trial.params), *own, *self.jobs.identity(runs, run))

    def _report(self, runs: optuna.Study) -> None:
        done = [
            (meta.get(run, meta.CONFIRMS), meta.get(run, meta.SEED), list(run.values))
            for run in runs.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if _asked(run) in self.plan
        ]
        if not done:
            log.warning("No confirmation run finished; the winner is the search's own.")
            return
        self.found = confirmation.compare(self.study, done, self.options.objective, self.options.directions)
        self.found.write(self.options.record)


@dataclass
class _Planned:
    """`Proposals` of a scheduler: the runs in the order of their plan."""

    runs: optuna.Study
    plan: list[dict[str, Any]]
    misfit: Callable[[int], str]  # why a trial is not confirmed any more, or ""

    def total(self) -> int:
        """Count the runs that there will be, with those of an earlier plan."""
        trials = self.runs.get_trials(deepcopy=False)
        return len(trials) + len(_missing(self.plan, trials))

    def propose(self, trials: list[FrozenTrial]) -> "_Run":
        """Take the first of the plan that was not begun."""
        missing = _missing(self.plan, trials)
        if not missing:
            raise SpaceExhausted("Every confirmation run was begun.")
        return _Run(self.runs, missing[0])

    def complete(self, trial: FrozenTrial) -> None:
        """Do nothing: runs have no parameters of their own. An UnfitTrial for one that is not asked for any more."""
        if self.plan and _asked(trial)[meta.CHANGES] != self.plan[0][meta.CHANGES]:
            raise UnfitTrial("a change of the study was accepted since it began")
        if why := self.misfit(whole(trial, meta.CONFIRMS)):
            raise UnfitTrial(why)


@dataclass
class _Run:
    runs: optuna.Study
    attributes: dict[str, Any]
    duplicate_of: int | None = None

    def commit(self, **noted: Any) -> FrozenTrial:
        storage = self.runs._storage
        template = create_trial(state=TrialState.RUNNING, user_attrs={**self.attributes, **noted})
        return storage.get_trial(storage.create_new_trial(self.runs._study_id, template))


def _missing(plan: list[dict[str, Any]], runs: list[FrozenTrial]) -> list[dict[str, Any]]:
    there = [_asked(run) for run in runs]
    return [one for one in plan if one not in there]


def _asked(run: FrozenTrial) -> dict[str, Any]:
    return {key: meta.get(run, key) for key in (meta.CONFIRMS, meta.SEED, meta.CHANGES)}


def _in_words(line: str, runs: optuna.Study) -> str:
    """Name a run in a scheduler's line by the trial that it confirms and the seed, instead of its number."""

    def words(found: re.Match[str]) -> str:
        run = runs.get_trials(deepcopy=False)[int(found[1])]
        return f"trial {meta.get(run, meta.CONFIRMS)} under seed {meta.get(run, meta.SEED)}"

    return re.sub(r"^trial (\d+)", words, line).removesuffix(": ")
