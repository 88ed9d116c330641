"""The states of a study's trials, as one controller writes them: acquire, set back to go on later, finish.

A trial is acquired under a lock, one controller at a time, so that totals are exact and no trial has two drivers. One
that has to go on (its process was lost, it was interrupted, its controller died) is set back to WAITING, where Optuna's
own tools see it too, and starts again under its own number before any new trial is drawn.
"""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from os.path import abspath
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from steady.exceptions import StudyError
from steady.jobs.executor import Job
from steady.options import Promotion
from steady.propose.promotion import RungTable, share_left
from steady.propose.sampling import SpaceExhausted, UnfitTrial
from steady.run.interruption import Stop
from steady.study import budget, meta
from steady.study.constraints import Constraint, excesses, noted
from steady.study.failures import KEPT, Kind, Outcome, headline, is_exit, shortened, signature, values_of
from steady.study.leases import Leases
from steady.study.trial_folders import Folders
from steady.study.trial_store import TrialCursor, TrialStore, TrialView

log = logging.getLogger(__name__)


class Proposal(Protocol):
    """A configuration that is not in the study yet; `duplicate_of` is the number of a trial that had it."""

    duplicate_of: int | None

    def commit(self, **noted: Any) -> FrozenTrial:
        """Write the trial to the study, RUNNING, with these user attributes."""


class Proposals(Protocol):
    """Source of new trials."""

    def propose(self, trials: list[FrozenTrial]) -> Proposal:
        """Draw the next trial, given all there are, which is not to be changed; SpaceExhausted when there is none."""

    def complete(self, trial: FrozenTrial) -> None:
        """Draw the parameters that a trial lacks; raises UnfitTrial when it was enqueued with what it cannot have."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a sweep."""

    n_trials: int  # of the study in all
    timeout: float | None = None  # seconds after which no further trial begins
    # Returns how many of them are kept for a trial, of which that share is still to be done, and what comes after it.
    reserved: Callable[[float], float] = lambda share: 0.0
    retries: int = 1  # how often a trial whose process was lost starts again
    max_same_failures: int | None = 3  # failures of one kind in a row that end the sweep
    max_failure_rate: float = 1.0  # share of failures among the last `window` trials, above which the sweep ends
    window: int = 1  # from 1 up


@dataclass
class Ledger:
    """The trials of one study, as this controller acquires and ends them."""

    study: optuna.Study
    proposals: Proposals
    leases: Leases  # registered; say which trials are ours
    folders: Folders
    limits: Limits
    event: Callable[[str], None] = log.info  # called with one line for each start and end
    # Called with a trial's number and folder now and then, and before it is finished.
    attach: Callable[[int, Path], None] = lambda number, folder: None
    stop: Stop = field(default_factory=Stop)
    must_report: Sequence[str] = ()  # names of the scores that the study prunes, or promotes, by
    promotion: Promotion | None = None
    constraints: tuple[Constraint, ...] = ()
    exhausted: bool = False  # there is no further configuration to try
    unrecorded: bool = False  # trials were finished since this was last set to False
    abort: StudyError | None = None  # why the sweep has to end, once failures are too many
    view: TrialView | None = None  # of the study; a new one if None

    def __post_init__(self) -> None:
        self.trials, self.known = TrialStore(self.study), self.view or TrialView(self.study)
        self._rungs: RungTable | None = None
        if self.promotion is not None:
            self._rungs = RungTable(self.promotion, budget.uncounted(self.study))
        self._cursor = TrialCursor()
        self._promoted: dict[int, int] = {}  # rungs from which trials of ours were promoted, by number
        self._folders: set[str] = set()  # of the trials that have ended: absolute paths
        self._recent: deque[bool] = deque(maxlen=self.limits.window)  # whether each failed
        self._same: tuple[str, int] = ("", 0)  # signature of the last failure, and how many in a row have it

    @property
    def done(self) -> bool:
        """Whether every trial of the study has ended, also elsewhere, and no other will come."""
        self.known.refresh()
        return self.all_begun and not self.known.unfinished

    @property
    def all_begun(self) -> bool:
        """Whether no new trial will come, as far as is known."""
        return self.exhausted or len(self.known.trials) >= self.limits.n_trials

    def owns(self, number: int) -> bool:
        """Tell whether a trial that we acquired is still ours: another controller may have taken us for dead."""
        return self.leases.holds(_lease(number))

    def acquire(self, has_time: Callable[[float], bool] = lambda share: True) -> FrozenTrial | None:
        """Acquire the next trial: a waiting one, one to be promoted, or a new one; None when there is none now.

        `has_time` tells whether a trial of which that share is still to be done may begin. If a whole one may not, only
        one goes on that has been at a rung, to its end, and for which there is time.
        """
        with self.leases.lock("ask"):
            self.known.refresh()
            if not has_time(1.0):
                return self._go_on(has_time)
            for trial in self._interrupted():
                if taken := self._resume(trial):
                    return taken
            if promoted := self._promote():
                return promoted
            while not self.all_begun:
                try:
                    proposal = self.proposals.propose(self.known.trials)
                except SpaceExhausted as told:
                    self.exhausted = True
                    self.event(str(told))
                    break
                if proposal.duplicate_of is None:
                    trial = proposal.commit(**{meta.ATTEMPT: 0})
                    self.known.put(trial)
                    self.leases.take(_lease(trial.number))
                    return self._assign_folder(trial)
                self._reuse(proposal.commit(), proposal.duplicate_of)
                self.known.refresh()
            return self._promote(1)

    def may_go_on(self, has_time: Callable[[float], bool]) -> bool:
        """Tell whether a trial waits that has been at a rung, and may go on to its end in the time that is left."""
        if self._rungs is None:
            return False
        self.known.refresh()
        return bool(self._that_fit(has_time))

    def _go_on(self, has_time: Callable[[float], bool]) -> FrozenTrial | None:
        for trial in self._that_fit(has_time):
            assert self.promotion is not None
            if taken := self._resume(trial, meta.paused_at(trial), passes=self.promotion.pausing[-1]):
                return taken
        return None

    def _that_fit(self, has_time: Callable[[float], bool]) -> list[FrozenTrial]:
        """List the waiting trials whose rest fits into the time: interrupted ones, then the best that are paused."""
        if self._rungs is None:
            return []
        self._rungs.update(self.known.trials)
        waiting = [*self._interrupted(), *self._rungs.promotable(self._paused(), math.inf)]
        return [trial for trial in waiting if has_time(share_left(trial, self._rungs.promotion))]

    def _interrupted(self) -> list[FrozenTrial]:
        """List the trials that wait and are not paused, by number: enqueued ones, too."""
        waiting = [trial for trial in self.known.unfinished.values() if trial.state == TrialState.WAITING]
        return sorted((one for one in waiting if not self._is_paused(one)), key=lambda trial: trial.number)

    def _paused(self) -> list[FrozenTrial]:
        return list(filter(self._is_paused, self.known.unfinished.values()))

    def _is_paused(self, trial: FrozenTrial) -> bool:
        return self._rungs is not None and self._rungs.is_paused(trial)

    def _promote(self, least: int = 0) -> FrozenTrial | None:
        """Acquire the paused trial that is to go on first; None if there is none.

        At `least` so many of a rung go on, if any: in a slot that would stay idle, since no new trial can begin. Once
        nothing runs or waits for anything else, those that are still paused have ended.
        """
        if self._rungs is None or not (paused := self._paused()):
            return None
        self._rungs.update(self.known.trials)
        promotable = self._rungs.promotable(paused, least)
        for trial in promotable:
            if taken := self._resume(trial, meta.paused_at(trial)):
                return taken
        if least and not promotable and len(paused) == len(self.known.unfinished):
            self._end_paused(paused)
        return None

    def _end_paused(self, paused: Sequence[FrozenTrial]) -> None:
        ended = 0
        for trial in map(self.trials.read, sorted(one.number for one in paused)):
            if self._is_paused(trial):  # else it was promoted, and set back, since it was read
                with suppress(UpdateFinishedTrialError):  # as in `requeue_abandoned`
                    self.trials.note(trial, meta.OUTCOME, Kind.PRUNED.value)
                    self.trials.note(trial, meta.MESSAGE, f"Not promoted from rung {meta.paused_at(trial)}")
                    self.trials.prune(trial)
                    ended += 1
                trial = self.trials.read(trial.number)
            self.known.put(trial)
        self.unrecorded = True
        if ended:
            self.event(f"{ended} paused trial{'s' if ended > 1 else ''} could not be promoted, and ended as pruned")

    def _resume(self, trial: FrozenTrial, promoted: int | None = None, passes: int | None = None) -> FrozenTrial | None:
        """Start a waiting trial, or one that is `promoted` from a rung; None if another controller has it.

        It is not paused at that rung again, nor at those up to the one that it `passes`.
        """
        if not self.leases.claim(_lease(trial.number)):
            return None
        self._promoted.pop(trial.number, None)  # from an earlier attempt
        # A controller that slept, and was taken for dead, may end it as late as now.
        with suppress(UpdateFinishedTrialError):
            trial = self.trials.read(trial.number)  # it may have begun, and been set back, since it was read
            if self._is_paused(trial) and meta.paused_at(trial) != promoted:  # likewise
                self.known.put(trial)
            elif self.trials.start(trial):
                if promoted is not None or passes is not None:
                    self.trials.note(trial, meta.PROMOTED, promoted if passes is None else passes)
                if promoted is not None:
                    self._promoted[trial.number] = promoted
                    self.event(f"trial {trial.number} is promoted from rung {promoted}")
                begun = meta.get(trial, meta.ATTEMPT)
                self.trials.note(trial, meta.ATTEMPT, 0 if begun is None else begun + 1)
                try:
                    self.proposals.complete(self.trials.read(trial.number))
                except UnfitTrial as told:
                    self._end_unstarted(trial, TrialState.FAIL, None, Kind.FAILED, {meta.MESSAGE: str(told)})
                    self.event(f"trial {trial.number} was enqueued with what it cannot have, and failed: {told}")
                else:
                    return self._assign_folder(self.trials.read(trial.number))
        self.leases.release(_lease(trial.number))
        return None

    def _assign_folder(self, trial: FrozenTrial) -> FrozenTrial:
        """Write its folder on a trial that has none. The lock makes sure that no two choose the same."""
        if not meta.has(trial, meta.FOLDER):
            ended, others = self._cursor.advance(self.known.trials)
            self._folders.update(abspath(self.folders.said(one)) for one in ended)
            if (folder := self.folders.choose(trial, others, self._folders)) is not None:
                self.trials.note(trial, meta.FOLDER, folder)
                trial = self.trials.read(trial.number)
        self.known.put(trial)
        return trial

    def _reuse(self, trial: FrozenTrial, twin: int) -> None:
        same = self.trials.read(twin)
        for name, excess in same.constraints.items():
            self.trials.constrain(trial, name, excess)
        kind = Kind.INFEASIBLE if any(excess > 0 for excess in same.constraints.values()) else Kind.COMPLETE
        kept = {key: value for key in (meta.NOTED, meta.MESSAGE) if (value := meta.get(same, key)) is not None}
        self._end_unstarted(trial, TrialState.COMPLETE, same.values, kind, {**kept, meta.DUPLICATE_OF: twin})
        self.event(f"trial {trial.number} has the configuration of trial {twin}, and takes its values")

    def _end_unstarted(
        self, trial: FrozenTrial, state: TrialState, values: list[float] | None, kind: Kind, noted: dict[str, Any]
    ) -> None:
        for key, value in {**noted, meta.OUTCOME: kind.value}.items():
            self.trials.note(trial, key, value)
        self.study.tell(trial.number, values, state=state)
        self.unrecorded = True

    def requeue(self, trial: FrozenTrial) -> None:
        """Set back a trial that was acquired and did not start, to go on later, here or elsewhere."""
        if self.owns(trial.number):  # else another controller has it already
            with suppress(UpdateFinishedTrialError):  # as in `requeue_abandoned`
                if (rung := self._promoted.pop(trial.number, None)) is not None:
                    mark = {"rung": rung, "attempt": meta.get(trial, meta.ATTEMPT, 0)}
                    self.trials.note(trial, meta.PAUSED, mark)
                    self.event(f"trial {trial.number} stays paused at rung {rung}")
                self.trials.requeue(trial)
            self.leases.release(_lease(trial.number))

    def requeue_abandoned(self, adopt: Callable[[FrozenTrial], bool | None] = lambda trial: False) -> None:
        """Set back the trials whose controller is gone.

        `adopt` tells whether the job of a trial is now ours, which is no less than the trial; None: it is ending, and
        is to be asked about again.
        """
        with self.leases.lock("ask"):  # between a trial's making and its claim no one may take it for abandoned
            self.known.refresh()
            running = [trial for trial in self.known.unfinished.values() if trial.state == TrialState.RUNNING]
            owned = self.leases.names()
            for trial in running:
                if _lease(trial.number) in owned:
                    continue
                if (adopted := adopt(self.trials.read(trial.number))) is None:  # as it is now, with its attempt
                    continue
                if adopted:
                    self.leases.take(_lease(trial.number))
                    self.event(f"trial {trial.number} goes on in the job that a controller that is gone had started")
                    continue
                # Its controller may have ended it and let it go since we read that it runs.
                with suppress(UpdateFinishedTrialError):
                    self.trials.requeue(trial)
                    self.event(f"trial {trial.number} was left by a controller that is gone; it will go on")

    def finish(self, job: Job, outcome: Outcome, slot: int, begun: float) -> None:
        """Tell the study how a trial's job ended (`begun`: Unix time); it is then finished, or waits to go on."""
        if not self.owns(job.number):
            self._ignore(job)
            return
        trial = self.trials.read(job.number)
        outcome = self._check_values(outcome)
        runs = [*meta.get(trial, meta.RUNS, []), {"slot": slot, "start": _began(trial, begun), "end": time.time()}]
        try:
            if outcome.began:
                self.trials.note(trial, meta.RUNS, runs)
            self.attach(job.number, job.folder)
            outcome = self._pause(trial, self._constrain(trial, outcome))
            self._tell(trial, job, outcome)
        except (UpdateFinishedTrialError, ValueError):  # Optuna's, for a trial that has ended, and one that waits
            if (state := self.trials.read(job.number).state) == TrialState.RUNNING:
                raise
            # Since we looked: a controller that slept, and was taken for dead, has ended it; or we are that one.
            self._ignore(job)
            self.leases.release(_lease(job.number))
            self.unrecorded |= state.is_finished()
            return
        self.leases.release(_lease(job.number))
        told = self.trials.read(job.number)
        self.known.put(told)
        self.event(_describe_end(told, outcome))
        self.unrecorded |= told.state.is_finished() or outcome.kind == Kind.PAUSED
        if told.state.is_finished():
            self._count(told.state == TrialState.FAIL, outcome, job)

    def _ignore(self, job: Job) -> None:
        self.event(f"trial {job.number} was taken over by another controller; its end here is ignored")

    def _check_values(self, outcome: Outcome) -> Outcome:
        """Check returned values; a trial that was lost, or left, because we ended it was interrupted."""
        if outcome.kind == Kind.COMPLETE:
            try:
                return replace(outcome, value=values_of(outcome.value, len(self.study.directions)))
            except ValueError as error:
                return Outcome(Kind.FAILED, message=str(error))
            except OverflowError as error:
                return Outcome(Kind.DIVERGED, message=str(error))
        if self.stop.requested and (outcome.kind == Kind.LOST or is_exit(outcome)):
            return replace(outcome, kind=Kind.INTERRUPTED)
        return outcome

    def _constrain(self, trial: FrozenTrial, outcome: Outcome) -> Outcome:
        """Note how far a trial that finished, or was pruned, is from each bound; beyond one it is infeasible."""
        if outcome.kind not in (Kind.COMPLETE, Kind.PRUNED):
            return outcome
        values = noted(trial)
        found = excesses(self.constraints, values, finished=outcome.kind == Kind.COMPLETE)
        for name, excess in found.items():
            self.trials.constrain(trial, name, excess)
        violated = [one for one in self.constraints if found.get(one.name, 0.0) > 0]
        if not violated:
            return outcome
        said = "; ".join(f"{one}{'' if one.name in values else ', and noted no such value'}" for one in violated)
        return replace(outcome, kind=Kind.INFEASIBLE, message=f"It violates {said}")

    def _pause(self, trial: FrozenTrial, outcome: Outcome) -> Outcome:
        """Take the end of an attempt that had marked its trial as paused for just that, also if its process was lost.

        So is one that hung after it, such as in a logger without its network. Then its checkpoint may be an older one:
        once promoted, it comes to the same rung again and passes it. A value that is returned all the same is not that
        of a whole trial, or of one that did not end when it had to.
        """
        rung = meta.marked_as_paused(trial)
        if self._rungs is None or rung is None:
            return outcome
        if outcome.kind in (Kind.COMPLETE, Kind.INFEASIBLE) and outcome.value is not None:
            told = f"At rung {rung} `report` returned True, which asks the task to raise optuna.TrialPruned"
            return Outcome(Kind.FAILED, message=f"{told}; it returned {outcome.value} instead.")
        if outcome.kind in (Kind.PRUNED, Kind.LOST, Kind.INTERRUPTED, Kind.TIMED_OUT):
            return Outcome(Kind.PAUSED, message=f"at rung {rung}")
        return outcome

    def _tell(self, trial: FrozenTrial, job: Job, outcome: Outcome) -> None:
        # Attributes first: those of a finished trial cannot be changed.
        self.trials.note(trial, meta.OUTCOME, outcome.kind.value)
        if outcome.kind != Kind.PAUSED and (outcome.message or outcome.kind != Kind.COMPLETE):
            self.trials.note(trial, meta.MESSAGE, outcome.message[:KEPT])
        if outcome.kind in (Kind.COMPLETE, Kind.INFEASIBLE) and outcome.value is not None:
            self.study.tell(trial.number, outcome.value)
            self._require_reports(trial)
            return
        if outcome.kind == Kind.DISK_FULL:  # every other trial would end there too
            self.trials.requeue(trial)
            self.abort = self.abort or StudyError(
                f"Trial {job.number} could not write to {job.folder}, so the sweep stops: "
                f"{shortened(outcome.message)}. "
                "Make room and give the same command again; it goes on from its checkpoint, and no trial is lost."
            )
        elif outcome.kind in (Kind.INTERRUPTED, Kind.PAUSED) or (outcome.kind == Kind.LOST and self._may_retry(trial)):
            self.trials.requeue(trial)
        elif outcome.kind in (Kind.PRUNED, Kind.INFEASIBLE):
            self.study.tell(trial.number, state=TrialState.PRUNED)
        else:
            self.trials.note(trial, meta.TRACEBACK, outcome.traceback[-KEPT:])
            self.trials.note(trial, meta.LOG, str(job.folder))
            if harmful := outcome.kind in (Kind.OUT_OF_MEMORY, Kind.DIVERGED):
                # Samplers learn from a violated constraint, and would not from FAIL.
                self.trials.constrain(trial, outcome.kind.value, 1.0)
            self.study.tell(trial.number, state=TrialState.PRUNED if harmful else TrialState.FAIL)

    def _require_reports(self, trial: FrozenTrial) -> None:
        """Stop the sweep when a finished trial lacks what the study prunes by, or is constrained by: so will others."""
        if (lacking := [one.name for one in self.constraints if one.name not in noted(trial)]) and not self.abort:
            self.abort = StudyError(
                f"hydra.sweeper.constraints bounds {', '.join(lacking)}, but trial {trial.number} ended without noting "
                f"it{_among(noted(trial))}. Note it in the task (steady.reporting shows how), or begin another study "
                "without that constraint. The trial counts as infeasible."
            )
        reported = meta.get(trial, meta.RUNGS, {})
        steps = self.promotion.pausing if self.promotion else ()
        begun_here = not meta.get(trial, meta.ATTEMPT)  # else it may have passed them when the rungs were others
        if steps and reported and begun_here and not any(str(step) in reported for step in steps) and not self.abort:
            self.abort = StudyError(
                f"hydra.sweeper.promotion has rungs at the steps {', '.join(map(str, steps))}, but trial "
                f"{trial.number} reported at the steps {shortened(', '.join(reported))} only. Let the rungs be steps "
                "at which each trial reports (steady.reporting). The trial's values are kept, and the study goes on."
            )
        if self.must_report and not reported and not self.abort:
            names = ", ".join(self.must_report)
            self.abort = StudyError(
                f"The study {'promotes' if self.promotion else 'prunes'} by {names}, but trial {trial.number} ended "
                "without reporting it. Report it from the task (steady.reporting shows how), or judge by nothing at "
                "rungs: hydra.sweeper.pruner=null with hydra.sweeper.prune_metric=null and "
                "hydra.sweeper.promotion=null. The trial's values are kept, and the study goes on."
            )

    def _may_retry(self, trial: FrozenTrial) -> bool:
        lost = meta.get(trial, meta.LOST_COUNT, 0) + 1
        self.trials.note(trial, meta.LOST_COUNT, lost)
        return bool(lost <= self.limits.retries)

    def _count(self, failed: bool, outcome: Outcome, job: Job) -> None:
        """Stop the sweep when trials keep failing."""
        self._recent.append(failed)
        mark = signature(outcome) if failed else ""
        times = self._same[1] + 1 if mark == self._same[0] else 1
        self._same = (mark, times)
        if not failed or self.abort:
            return
        detail = f"Last of them, trial {job.number} ({job.folder}):\n{shortened(outcome.traceback or outcome.message)}"
        if self.limits.max_same_failures is not None and times >= self.limits.max_same_failures:
            reason = f"{times} trials in a row failed in the same way (max_same_failures), so the sweep stops."
        elif (failures := sum(self._recent)) / self.limits.window > self.limits.max_failure_rate:
            reason = f"{failures} of the last {self.limits.window} trials failed, above max_failure_rate."
        else:
            return
        self.abort = StudyError(f"{reason} Mend the cause and give the same command; the study goes on. {detail}")


def _among(values: Mapping[str, float]) -> str:
    return f" (it noted {', '.join(values)})" if values else ""


def _began(trial: FrozenTrial, submitted: float) -> float:
    """When a job began (Unix time): it may have waited in a queue, and have been submitted by another controller."""
    job = meta.get(trial, meta.JOB, {})
    if job.get("engine", "process") == "process" or job.get("attempt") != meta.get(trial, meta.ATTEMPT):
        return submitted
    return min(float(job["began"]), time.time())  # by the clock of another machine


def _lease(number: int) -> str:
    return f"trial/{number}"


def _describe_end(trial: FrozenTrial, outcome: Outcome) -> str:
    if trial.state == TrialState.COMPLETE:
        beyond = f" ({outcome.message})" if outcome.kind == Kind.INFEASIBLE else ""
        return f"trial {trial.number} finished: {', '.join(f'{value:.5g}' for value in trial.values or [])}{beyond}"
    if trial.state == TrialState.WAITING and not outcome.began:
        again = "goes on from its checkpoint" if meta.has(trial, meta.JOB) else "begins"
        return f"trial {trial.number} was taken out of the queue, and {again} when its turn comes"
    if outcome.kind == Kind.PAUSED:
        return f"trial {trial.number} paused {outcome.message}"
    again = "; it will go on from its checkpoint" if trial.state == TrialState.WAITING else ""
    said = f": {headline(outcome.message)}" if outcome.message.strip() else ""
    return f"trial {trial.number} {outcome.kind.value}{again}{said}"
