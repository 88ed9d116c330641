"""The loop that keeps every slot busy: acquire a trial, submit its job, wait for whichever ends first, finish it.

`steady.sweep` builds one and runs it; the confirmation runs through it too. It knows nothing of processes
(`Executor`), of whose a trial is and what its end means (`Ledger`), or of files (`record`), so it is tested with fakes.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from steady import grammar, printing
from steady.exceptions import StorageError
from steady.jobs.executor import Executor, Job
from steady.jobs.job_files import Left, Leftovers
from steady.run.ledger import Ledger
from steady.study import meta
from steady.study.failures import Outcome

TICK = 1.0  # seconds between two looks at what is not told by a process that ends: heartbeats, the display
REAP = 5.0  # seconds between two looks for trials of dead controllers
SHOW = 60.0  # seconds between two looks for new pictures of the trials that run
RECORDING = 0.005  # share of the time in which the result files, which grow with the study, may be rewritten
# Seconds of a trial below which the next is drawn before one has ended. The slot waits about 0.2 s less, a hundredth of
# such a trial; for a longer one the newest result is worth more than that.
SHORT = 20.0
REMEMBERED = 20  # trials whose median is compared with it


@dataclass
class Scheduler:
    """Runs the trials of one study until there are as many as its ledger's limits say."""

    ledger: Ledger
    executor: Executor
    overrides: Callable[[FrozenTrial], Sequence[str]]  # of a trial's job
    record: Callable[[], None] = lambda: None  # rewrites the result files, since trials have ended
    refresh: Callable[[], None] = lambda: None  # called at most once a second, for the display
    draw_ahead: bool | None = False  # draw and prepare the next trial before a slot is free; None: if trials are short
    clock: Callable[[], float] = time.monotonic
    leftovers: Leftovers | None = None  # jobs that an earlier controller may have left with another executor

    def __post_init__(self) -> None:
        self.limits, self.stop, self.event = self.ledger.limits, self.ledger.stop, self.ledger.event
        self.started = self.clock()
        self.running: dict[int, tuple[int, float]] = {}  # by trial number: slot, and when it began (Unix time)
        self.ready: deque[tuple[FrozenTrial, Job]] = deque()  # acquired, and waiting for a slot
        self._inherited: list[tuple[Job, Outcome]] = []  # ends of jobs of earlier controllers
        self._durations: deque[float] = deque(maxlen=REMEMBERED)
        self._next_reap = self._next_refresh = self._next_record = -math.inf
        self._next_show = self.started + SHOW
        self._acknowledged = self._late = False

    def run(self) -> None:
        """Run until the study is whole, or until asked to stop.

        Too many failures are a StudyError, a study that cannot be written to is a StorageError; running trials are then
        stopped at a checkpoint, and can go on.
        """
        try:
            self._loop()
        except StorageError as error:
            self._wind_down(error)
            raise
        if self.ledger.abort:
            raise self.ledger.abort

    def _loop(self) -> None:
        while self.executor.running() or self.ready or not (self._is_closed() or self.ledger.done):
            self.ledger.leases.beat()
            if self.clock() >= self._next_reap:
                self._cancel_lost()
                self.ledger.requeue_abandoned(self._adopt)
                while self._inherited:
                    self._finish(*self._inherited.pop())
                self._next_reap = self.clock() + REAP
            self._announce(self._start_ready())
            self._start_new()
            self._report()
            self._look_ahead()
            ended = self.executor.wait(TICK)
            self._acknowledge()
            started = self._start_ready()  # a slot need not wait until the end of its last trial is told
            for job, outcome in ended:
                self._finish(job, outcome)
            self._announce(started)
            if self.ready and self._is_closed():
                self._requeue_ready()
        self._next_record = -math.inf
        self._report()

    def _wind_down(self, error: StorageError) -> None:
        """Let the running trials come to their next checkpoint. Whoever goes on with the study will find them left."""
        if running := self.executor.running():
            they = printing.trials(job.number for job in running.values())
            self.event(f"{str(error).partition(': ')[0]}: let {they} come to a checkpoint, and stop")
        self.executor.stop()
        while self.executor.running():
            self.executor.wait(TICK)

    def _is_closed(self) -> bool:
        """Tell whether no further trial may begin."""
        if self.stop.requested or self.ledger.abort is not None:
            return True
        return self.is_out_of_time() and not self.ledger.may_go_on(self._has_time)

    def is_out_of_time(self) -> bool:
        """Tell whether the time is over in which trials may begin; once it is, it stays so."""
        self._late |= not self._has_time(1.0)
        return self._late

    def _has_time(self, share: float) -> bool:
        """Tell whether there is time for a trial of which that share is still to be done; no more for whole ones."""
        timeout = self.limits.timeout
        if timeout is None:
            return True
        if self._late and share >= 1:
            return False
        return self.clock() - self.started < timeout - self.limits.reserved(share)

    def _may_start(self) -> bool:
        return len(self.executor.running()) < self.executor.slots and not self._is_closed()

    def _start_new(self) -> None:
        while self._may_start() and (trial := self.ledger.acquire(self._has_time)) is not None:
            self._submit(trial, self._job(trial))
            self._announce([trial])

    def _start_ready(self) -> list[FrozenTrial]:
        if self.is_out_of_time():  # they were acquired when there was more of it
            self._requeue_ready()
        started = []
        while self.ready and self._may_start():
            trial, job = self.ready.popleft()
            self._submit(trial, job)
            started.append(trial)
        return started

    def _look_ahead(self) -> None:
        """Have trials ready for slots that will be free; until one has ended there is no newest result to wait for."""
        is_short = not self._durations or statistics.median(self._durations) < SHORT
        ahead = is_short if self.draw_ahead is None else self.draw_ahead
        while ahead and not self.is_out_of_time() and not self._is_closed() and len(self.ready) < self.executor.spare:
            if (trial := self.ledger.acquire(self._has_time)) is None:
                return
            job = self._job(trial)
            self.executor.prepare(job)
            self.ready.append((trial, job))

    def _job(self, trial: FrozenTrial) -> Job:
        try:
            return self._described(trial, tuple(self.overrides(trial)))
        except BaseException:
            self.ledger.requeue(trial)
            raise

    def _described(self, trial: FrozenTrial, overrides: tuple[str, ...] = ()) -> Job:
        attempt = meta.get(trial, meta.ATTEMPT, 0)
        return Job(trial.number, overrides, self.ledger.folders.of(trial), self.ledger.study.study_name, attempt)

    def _adopt(self, trial: FrozenTrial) -> bool | None:
        """Take over what an earlier controller has left of a trial's job; None while it is stopping."""
        job = self._described(trial)
        if (slot := self.executor.adopt(job)) is None:
            left = Left.NOTHING if self.leftovers is None else self.leftovers.dismiss(job)
            if isinstance(left, Left):
                return None if left is Left.STOPPING else False
            self._inherited.append((job, left))
        self.running[trial.number] = (slot or 0, time.time())
        return True

    def _submit(self, trial: FrozenTrial, job: Job) -> None:
        try:
            slot = self.executor.submit(job)
        except BaseException:
            self.ledger.requeue(trial)
            raise
        self.running[trial.number] = (slot, time.time())

    def _announce(self, started: Sequence[FrozenTrial]) -> None:
        for trial in started:
            params = (f"{name}={_shown(value)}" for name, value in trial.params.items())
            self.event(f"trial {trial.number} started: {' '.join(params)}")

    def _finish(self, job: Job, outcome: Outcome) -> None:
        slot, begun = self.running.pop(job.number)
        self._durations.append(time.time() - begun)
        going_on = self.ledger.abort is None
        self.ledger.finish(job, outcome, slot, begun)
        if self.ledger.abort and going_on:
            self.executor.stop()

    def _requeue_ready(self) -> None:
        """Set back what will not start here any more."""
        while self.ready:
            trial, job = self.ready.popleft()
            self.executor.forget(job.number)
            self.ledger.requeue(trial)

    def _cancel_lost(self) -> None:
        """End jobs whose trial another controller has: it took us for dead, perhaps while the machine slept."""
        for job in self.executor.running().values():
            if not self.ledger.owns(job.number):
                self.executor.cancel(job.number)
        for trial, job in list(self.ready):
            if not self.ledger.owns(job.number):
                self.executor.forget(job.number)
                self.ready.remove((trial, job))

    def _acknowledge(self) -> None:
        """Say once that we were asked to stop."""
        if self.stop.requested and not self._acknowledged:
            self._acknowledged = True
            self.event("stopping: trials go on to their next checkpoint; once more to stop at once")

    def _report(self) -> None:
        if self.ledger.unrecorded and (begun := self.clock()) >= self._next_record:
            self.record()
            self.ledger.unrecorded = False
            self._next_record = self.clock() + (self.clock() - begun) / RECORDING
        if self.clock() >= self._next_refresh:
            self.refresh()
            self._next_refresh = self.clock() + TICK
        if self.clock() >= self._next_show:
            for job in self.executor.running().values():
                self.ledger.attach(job.number, job.folder)
            self._next_show = self.clock() + SHOW


def _shown(value: grammar.Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else grammar.as_text(value)
