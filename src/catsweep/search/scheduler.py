"""The loop that keeps every slot busy: ask, submit, wait for whichever ends first, tell.

`catsweep.search.sweep` builds one and runs it; the confirmation runs through it too. It knows nothing of processes
(`executor`), sampling (`proposer`) or files (`record`), so it is tested with fakes of all three.

A trial that has to go on (its process was lost, it was interrupted, its controller died) is set back to WAITING, where
Optuna's own tools see it too, and starts again under its own number before any new trial is asked for.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, TrialState

from catsweep.errors import StudyError
from catsweep.search import attributes
from catsweep.search.executor import Executor, Job
from catsweep.search.leases import Leases
from catsweep.search.outcome import Kind, Outcome, fingerprint, values_of
from catsweep.search.proposer import SpaceExhausted

log = logging.getLogger(__name__)

INFEASIBLE = (Kind.OUT_OF_MEMORY, Kind.DIVERGED)
TICK = 1.0  # seconds between two looks at what is not told by a process that ends: heartbeats, the display
REAP = 5.0  # seconds between two looks for trials of dead controllers
KEPT = 20_000  # characters of a traceback that are kept: databases bound the length of an attribute


class Proposal(Protocol):
    """A trial on paper."""

    duplicate_of: int | None

    def commit(self, **noted: Any) -> FrozenTrial:
        """Write it to the study, RUNNING, with these user attributes."""


class Proposals(Protocol):
    """Where trials come from."""

    def propose(self, trials: list[FrozenTrial]) -> Proposal:
        """The next trial, given all there are. Raises SpaceExhausted when there is none."""

    def complete(self, trial: FrozenTrial) -> None:
        """Give a trial that was enqueued, or whose controller died early, the parameters it lacks."""


@dataclass(frozen=True)
class Limits:
    """What bounds a sweep.

    Attributes:
        n_trials: of the study in all.
        timeout: seconds after which no further trial begins; None: no bound.
        retries: how often a trial whose process was lost starts again.
        max_same_failures: failures of one kind in a row that end the sweep.
        max_failure_rate: share of failures among the last `window` trials, above which the sweep ends.
        window: see there.
    """

    n_trials: int
    timeout: float | None = None
    retries: int = 1
    max_same_failures: int = 3
    max_failure_rate: float = 1.0
    window: int = 1


@dataclass
class Stop:
    """What a person, or the machine, asked for: whether to stop, and by which signal. Set by `interruption`."""

    requested: bool = False
    signal: int | None = None


@dataclass
class Scheduler:
    """Runs the trials of one study until there are `limits.n_trials`.

    Args:
        study: whose trials.
        proposals: where trials come from.
        executor: where they run.
        leases: registered; says which trials are ours.
        limits: when to stop.
        overrides: the overrides of a trial's job, from the trial with all its parameters.
        folder: where a trial works, from its number.
        record: called when trials have ended, and their slots are busy again; rewrites the result files.
        event: told of each start and end, one line each.
        refresh: called at most once a second, for the display.
        stop: watched.
        must_report: names of the scores that the study prunes by, if it does.
        clock: seconds.
    """

    study: optuna.Study
    proposals: Proposals
    executor: Executor
    leases: Leases
    limits: Limits
    overrides: Callable[[FrozenTrial], Sequence[str]]
    folder: Callable[[int], Path]
    record: Callable[[], None] = lambda: None
    event: Callable[[str], None] = log.info
    refresh: Callable[[], None] = lambda: None
    stop: Stop = field(default_factory=Stop)
    must_report: Sequence[str] = ()
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.started = self.clock()
        self.exhausted = False
        self.abort: StudyError | None = None
        self.slots: dict[int, tuple[int, float]] = {}  # by trial number: slot, and when it began (Unix time)
        self._next_reap = self._next_refresh = -1.0
        self._unrecorded = self._acknowledged = False
        self._recent: deque[bool] = deque(maxlen=max(1, self.limits.window))
        self._same: tuple[str, int] = ("", 0)

    # --- the loop

    def run(self) -> None:
        """Run until the study is whole, or until asked to stop.

        Raises:
            StudyError: too many failures; running trials were stopped at a checkpoint, and can go on.
        """
        while not self._finished():
            self.leases.beat()
            if self.clock() >= self._next_reap:
                self._let_go()
                self.reap()
                self._next_reap = self.clock() + REAP
            self._fill()
            self._tidy()
            ended = self.executor.wait(TICK)
            self._acknowledge()
            for job, outcome in ended:
                self.settle(job, outcome)
        self._tidy()
        if self.abort:
            raise self.abort

    def _acknowledge(self) -> None:
        """Say once that we were asked to stop."""
        if self.stop.requested and not self._acknowledged:
            self._acknowledged = True
            self.event("stopping: trials go on to their next checkpoint; once more to stop at once")

    def _tidy(self) -> None:
        """What no slot has to wait for."""
        if self._unrecorded:
            self.record()
            self._unrecorded = False
        if self.clock() >= self._next_refresh:
            self.refresh()
            self._next_refresh = self.clock() + TICK

    def _finished(self) -> bool:
        if self.executor.running():
            return False
        if self._closed():
            return True
        trials = self.study.get_trials(deepcopy=False)
        # Trials that run elsewhere may come back to us, should their controller die.
        unfinished = any(not trial.state.is_finished() for trial in trials)
        return not unfinished and (self.exhausted or len(trials) >= self.limits.n_trials)

    def _closed(self) -> bool:
        late = self.limits.timeout is not None and self.clock() - self.started >= self.limits.timeout
        return self.stop.requested or late or self.abort is not None

    def _fill(self) -> None:
        while not self._closed() and self.executor.free() and (trial := self._next()) is not None:
            try:
                job = Job(trial.number, tuple(self.overrides(trial)), self.folder(trial.number))
                slot = self.executor.submit(job)
            except BaseException:
                self._back(trial)
                self.leases.release(_lease(trial.number))
                raise
            self.slots[trial.number] = (slot, time.time())
            self.event(f"trial {trial.number} started: {_words(trial.params)}")

    # --- taking trials

    def _next(self) -> FrozenTrial | None:
        """Take the next trial: a waiting one, or a new one. One controller at a time, so that totals are exact."""
        with self.leases.lock("ask"):
            trials = self.study.get_trials(deepcopy=False)
            for trial in trials:
                if trial.state == TrialState.WAITING and (taken := self._take(trial)):
                    return taken
            while len(trials) < self.limits.n_trials and not self.exhausted:
                try:
                    proposal = self.proposals.propose(trials)
                except SpaceExhausted as told:
                    self.exhausted = True
                    self.event(str(told))
                    break
                if proposal.duplicate_of is None:
                    trial = proposal.commit(**{attributes.ATTEMPT: 0})
                    self.leases.take(_lease(trial.number))
                    return trial
                self._reuse(proposal.commit(), proposal.duplicate_of)
                trials = self.study.get_trials(deepcopy=False)
        return None

    def _take(self, trial: FrozenTrial) -> FrozenTrial | None:
        if not self.leases.claim(_lease(trial.number)):
            return None
        if not self.study._storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
            self.leases.release(_lease(trial.number))
            return None
        begun = trial.user_attrs.get(attributes.ATTEMPT)
        self._set(trial, attributes.ATTEMPT, 0 if begun is None else begun + 1)
        self.proposals.complete(self._read(trial.number))
        return self._read(trial.number)

    def _reuse(self, trial: FrozenTrial, twin: int) -> None:
        self._set(trial, attributes.DUPLICATE_OF, twin)
        self._set(trial, attributes.OUTCOME, Kind.COMPLETE.value)
        self.study.tell(trial.number, self._read(twin).values)
        self.event(f"trial {trial.number} has the configuration of trial {twin}, and takes its values")
        self._unrecorded = True

    def reap(self) -> None:
        """Set trials back to WAITING whose controller is gone.

        Under the lock of asking: between a trial's making and its claim no one may take it for abandoned.
        """
        with self.leases.lock("ask"):
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if not self.leases.owned(_lease(trial.number)):
                    self._back(trial)
                    self.event(f"trial {trial.number} was left by a controller that is gone; it will go on")

    def _let_go(self) -> None:
        """End jobs whose trial another controller has: it took us for dead, perhaps while the machine slept."""
        for job in self.executor.running().values():
            if not self.leases.holds(_lease(job.number)):
                self.executor.drop(job.number)

    # --- settling

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Tell the study how a job ended."""
        slot, begun = self.slots.pop(job.number)
        if not self.leases.holds(_lease(job.number)):
            self.event(f"trial {job.number} was taken over by another controller; its end here is ignored")
            return
        trial = self._read(job.number)
        outcome = self._weigh(trial, outcome)
        runs = [*trial.user_attrs.get(attributes.RUNS, []), {"slot": slot, "start": begun, "end": time.time()}]
        self._set(trial, attributes.RUNS, runs)
        self._tell(trial, job, outcome)
        self.leases.release(_lease(job.number))
        told = self._read(job.number)
        self.event(_ended(told, outcome))
        if told.state.is_finished():  # not one that will go on
            self._count(told.state == TrialState.FAIL, outcome, job)
            self._unrecorded = True

    def _weigh(self, trial: FrozenTrial, outcome: Outcome) -> Outcome:
        """Check returned values; and what was lost because we ended it was interrupted."""
        if outcome.kind == Kind.COMPLETE:
            try:
                return replace(outcome, value=values_of(outcome.value, len(self.study.directions)))
            except ValueError as error:
                return Outcome(Kind.FAILED, message=str(error))
        if outcome.kind == Kind.LOST and self.stop.requested:
            return replace(outcome, kind=Kind.INTERRUPTED)
        return outcome

    def _tell(self, trial: FrozenTrial, job: Job, outcome: Outcome) -> None:
        # Attributes first: those of a finished trial cannot be changed.
        self._set(trial, attributes.OUTCOME, outcome.kind.value)
        if outcome.kind == Kind.COMPLETE:
            self.study.tell(trial.number, outcome.value)
            self._require_reports(trial)
            return
        self._set(trial, attributes.MESSAGE, outcome.message[:KEPT])
        if outcome.kind == Kind.INTERRUPTED or (outcome.kind == Kind.LOST and self._may_retry(trial)):
            self._back(trial)
            return
        if outcome.kind == Kind.PRUNED:
            self.study.tell(trial.number, state=TrialState.PRUNED)
            return
        self._set(trial, attributes.TRACEBACK, outcome.traceback[-KEPT:])
        self._set(trial, attributes.LOG, str(job.folder))
        if outcome.kind in INFEASIBLE:
            # As `Trial.set_constraint` does, which would draw samples first. Samplers learn from a violated
            # constraint, and would not from FAIL.
            self.study._storage.set_trial_system_attr(trial._trial_id, f"constraints:{outcome.kind.value}", 1.0)
            self.study.tell(trial.number, state=TrialState.PRUNED)
            return
        self.study.tell(trial.number, state=TrialState.FAIL)

    def _require_reports(self, trial: FrozenTrial) -> None:
        """Stop the sweep when a trial came to its end without a word to the pruner: none would ever be pruned."""
        if self.must_report and not trial.user_attrs.get(attributes.RUNGS) and not self.abort:
            names = ", ".join(self.must_report)
            self.abort = StudyError(
                f"The study prunes by {names}, but trial {trial.number} ended without reporting it. Report it from the "
                "task (catsweep.search.reporting shows how), or prune nothing: hydra.sweeper.pruner=null with "
                "hydra.sweeper.prune_metric=null. The trial's values are kept, and the study goes on."
            )
            self.executor.stop()

    def _may_retry(self, trial: FrozenTrial) -> bool:
        losses = trial.user_attrs.get(attributes.LOSSES, 0) + 1
        self._set(trial, attributes.LOSSES, losses)
        return bool(losses <= self.limits.retries)

    def _count(self, failed: bool, outcome: Outcome, job: Job) -> None:
        """Stop the sweep when trials keep failing."""
        self._recent.append(failed)
        known, times = self._same
        mark = fingerprint(outcome) if failed else ""
        self._same = (mark, times + 1 if mark and mark == known else 1)
        if not failed or self.abort:
            return
        detail = f"Last of them, trial {job.number} ({job.folder}):\n{outcome.traceback or outcome.message}"
        if self._same[1] >= self.limits.max_same_failures:
            reason = f"{self._same[1]} trials in a row failed in the same way (max_same_failures), so the sweep stops."
        elif sum(self._recent) / (self._recent.maxlen or 1) > self.limits.max_failure_rate:
            reason = f"{sum(self._recent)} of the last {self._recent.maxlen} trials failed, above max_failure_rate."
        else:
            return
        self.abort = StudyError(f"{reason} Mend the cause and give the same command; the study goes on. {detail}")
        self.executor.stop()

    # --- the study's storage

    def _back(self, trial: FrozenTrial) -> None:
        self.study._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)

    def _set(self, trial: FrozenTrial, key: str, value: Any) -> None:
        self.study._storage.set_trial_user_attr(trial._trial_id, key, value)

    def _read(self, number: int) -> FrozenTrial:
        storage = self.study._storage
        return storage.get_trial(storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number))


def _lease(number: int) -> str:
    return f"trial/{number}"


def _words(params: dict[str, Any]) -> str:
    return " ".join(f"{k}={f'{v:.3g}' if isinstance(v, float) else v}" for k, v in params.items())


def _ended(trial: FrozenTrial, outcome: Outcome) -> str:
    if outcome.kind == Kind.COMPLETE:
        return f"trial {trial.number} finished: {', '.join(f'{value:.5g}' for value in trial.values or [])}"
    again = "; it will go on from its checkpoint" if trial.state == TrialState.WAITING else ""
    said = outcome.message.strip().splitlines()
    return f"trial {trial.number} {outcome.kind.value}{again}{f': {said[0]}' if said else ''}"
