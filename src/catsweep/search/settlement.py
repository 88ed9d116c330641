"""How a job ended becomes what the study is told of its trial; and when failures end the sweep.

`catsweep.search.scheduler` calls it for each job that ended.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from catsweep.errors import StudyError
from catsweep.search import attributes
from catsweep.search.executor import Job
from catsweep.search.intake import lease
from catsweep.search.interruption import Stop
from catsweep.search.leases import Leases
from catsweep.search.outcome import KEPT, Kind, Outcome, fingerprint, shortened, values_of
from catsweep.search.trials import Trials

INFEASIBLE = (Kind.OUT_OF_MEMORY, Kind.DIVERGED)


@dataclass(frozen=True)
class Limits:
    """What bounds a sweep.

    Attributes:
        n_trials: of the study in all.
        timeout: seconds after which no further trial begins; None: no bound.
        reserved: how many of these are kept for what comes after the trials; asked whenever one could begin.
        retries: how often a trial whose process was lost starts again.
        max_same_failures: failures of one kind in a row that end the sweep; None: no bound.
        max_failure_rate: share of failures among the last `window` trials, above which the sweep ends.
        window: see there.
    """

    n_trials: int
    timeout: float | None = None
    reserved: Callable[[], float] = lambda: 0.0
    retries: int = 1
    max_same_failures: int | None = 3
    max_failure_rate: float = 1.0
    window: int = 1


@dataclass
class Settlement:
    """Tells a study how its trials ended.

    Args:
        trials: of the study.
        leases: of this controller.
        limits: how many failures are too many.
        stop: whether the machine, or a person, wants an end.
        must_report: names of the scores that the study prunes by, if it does.
        event: told of each end, one line.
        attach: called with a trial's number and folder before its end is told.

    Attributes:
        abort: why the sweep has to end, once failures are too many.
    """

    trials: Trials
    leases: Leases
    limits: Limits
    stop: Stop
    must_report: Sequence[str]
    event: Callable[[str], None]
    attach: Callable[[int, Path], None]
    abort: StudyError | None = None

    def __post_init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=max(1, self.limits.window))
        self._same: tuple[str, int] = ("", 0)

    def settle(self, job: Job, outcome: Outcome, slot: int, begun: float) -> bool:
        """Tell the study how a job ended.

        Args:
            job: it.
            outcome: how it ended.
            slot: where it ran.
            begun: since when, Unix time.

        Returns:
            Whether its trial is finished; else it will go on, or another controller has it.
        """
        if not self.leases.holds(lease(job.number)):
            self._ignore(job)
            return False
        trial = self.trials.read(job.number)
        outcome = self._weigh(trial, outcome)
        runs = [*trial.user_attrs.get(attributes.RUNS, []), {"slot": slot, "start": begun, "end": time.time()}]
        try:
            self.trials.note(trial, attributes.RUNS, runs)
            self.attach(job.number, job.folder)
            self._tell(trial, job, outcome)
        except (UpdateFinishedTrialError, ValueError):  # Optuna's, for a trial that has ended, and one that waits
            if (state := self.trials.read(job.number).state) == TrialState.RUNNING:
                raise
            # Since we looked: a controller that slept, and was taken for dead, has ended it; or we are that one.
            self._ignore(job)
            self.leases.release(lease(job.number))
            return state.is_finished()
        self.leases.release(lease(job.number))
        told = self.trials.read(job.number)
        self.event(_ended(told, outcome))
        if told.state.is_finished():
            self._count(told.state == TrialState.FAIL, outcome, job)
        return told.state.is_finished()

    def _ignore(self, job: Job) -> None:
        self.event(f"trial {job.number} was taken over by another controller; its end here is ignored")

    def _weigh(self, trial: FrozenTrial, outcome: Outcome) -> Outcome:
        """Check returned values; and what was lost because we ended it was interrupted."""
        if outcome.kind == Kind.COMPLETE:
            try:
                return replace(outcome, value=values_of(outcome.value, len(self.trials.study.directions)))
            except ValueError as error:
                return Outcome(Kind.FAILED, message=str(error))
            except OverflowError as error:
                return Outcome(Kind.DIVERGED, message=str(error))
        if outcome.kind == Kind.LOST and self.stop.requested:
            return replace(outcome, kind=Kind.INTERRUPTED)
        return outcome

    def _tell(self, trial: FrozenTrial, job: Job, outcome: Outcome) -> None:
        # Attributes first: those of a finished trial cannot be changed.
        self.trials.note(trial, attributes.OUTCOME, outcome.kind.value)
        if outcome.kind == Kind.COMPLETE:
            self.trials.study.tell(trial.number, outcome.value)
            self._require_reports(trial)
            return
        self.trials.note(trial, attributes.MESSAGE, outcome.message[:KEPT])
        if outcome.kind == Kind.DISK_FULL:
            self.trials.requeue(trial)
            self._end_for_space(job, outcome)
            return
        if outcome.kind == Kind.INTERRUPTED or (outcome.kind == Kind.LOST and self._may_retry(trial)):
            self.trials.requeue(trial)
            return
        if outcome.kind == Kind.PRUNED:
            self.trials.study.tell(trial.number, state=TrialState.PRUNED)
            return
        self.trials.note(trial, attributes.TRACEBACK, outcome.traceback[-KEPT:])
        self.trials.note(trial, attributes.LOG, str(job.folder))
        if outcome.kind in INFEASIBLE:
            # Samplers learn from a violated constraint, and would not from FAIL.
            self.trials.violate(trial, outcome.kind.value)
            self.trials.study.tell(trial.number, state=TrialState.PRUNED)
            return
        self.trials.study.tell(trial.number, state=TrialState.FAIL)

    def _end_for_space(self, job: Job, outcome: Outcome) -> None:
        """Stop the sweep: every other trial would end there too."""
        self.abort = self.abort or StudyError(
            f"Trial {job.number} could not write to {job.folder}, so the sweep stops: {shortened(outcome.message)}. "
            "Make room and give the same command again; it goes on from its checkpoint, and no trial is lost."
        )

    def _require_reports(self, trial: FrozenTrial) -> None:
        """Stop the sweep when a trial came to its end without a word to the pruner: none would ever be pruned."""
        if self.must_report and not trial.user_attrs.get(attributes.RUNGS) and not self.abort:
            names = ", ".join(self.must_report)
            self.abort = StudyError(
                f"The study prunes by {names}, but trial {trial.number} ended without reporting it. Report it from the "
                "task (catsweep.search.reporting shows how), or prune nothing: hydra.sweeper.pruner=null with "
                "hydra.sweeper.prune_metric=null. The trial's values are kept, and the study goes on."
            )

    def _may_retry(self, trial: FrozenTrial) -> bool:
        losses = trial.user_attrs.get(attributes.LOSSES, 0) + 1
        self.trials.note(trial, attributes.LOSSES, losses)
        return bool(losses <= self.limits.retries)

    def _count(self, failed: bool, outcome: Outcome, job: Job) -> None:
        """Stop the sweep when trials keep failing."""
        self._recent.append(failed)
        known, times = self._same
        mark = fingerprint(outcome) if failed else ""
        self._same = (mark, times + 1 if mark and mark == known else 1)
        if not failed or self.abort:
            return
        detail = f"Last of them, trial {job.number} ({job.folder}):\n{shortened(outcome.traceback or outcome.message)}"
        if self.limits.max_same_failures is not None and self._same[1] >= self.limits.max_same_failures:
            reason = f"{self._same[1]} trials in a row failed in the same way (max_same_failures), so the sweep stops."
        elif sum(self._recent) / (self._recent.maxlen or 1) > self.limits.max_failure_rate:
            reason = f"{sum(self._recent)} of the last {self._recent.maxlen} trials failed, above max_failure_rate."
        else:
            return
        self.abort = StudyError(f"{reason} Mend the cause and give the same command; the study goes on. {detail}")


def _ended(trial: FrozenTrial, outcome: Outcome) -> str:
    if outcome.kind == Kind.COMPLETE:
        return f"trial {trial.number} finished: {', '.join(f'{value:.5g}' for value in trial.values or [])}"
    again = "; it will go on from its checkpoint" if trial.state == TrialState.WAITING else ""
    said = outcome.message.strip().splitlines()
    return f"trial {trial.number} {outcome.kind.value}{again}{f': {shortened(said[0])}' if said else ''}"
