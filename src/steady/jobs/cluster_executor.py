"""Run jobs on a cluster: `ClusterExecutor`, one client of an engine for all slots, and no process for each.

It keeps allocations (`steady.jobs.allocation`), starts one when a job finds none that is free, and reads in files what
came of each (`steady.jobs.job_files`). Nothing of a job depends on this process: it may die, and another adopts what
runs or waits in the engine's queue.
"""

import itertools
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from steady.exceptions import ConfigError
from steady.jobs.engine import Engine, EngineAway, State, Status
from steady.jobs.executor import SLOTS_PER_SPARE, Job, Shared
from steady.jobs.job_files import BEAT, OUTPUT, SHARED, JobFiles, Orders, Report, TrialFiles, new_folder, write_shared
from steady.options import UNBOUNDED, TrialTimeout
from steady.storage import shown
from steady.study.failures import Kind, Outcome, shortened

POLL = 0.1  # seconds between two looks for what came, of few jobs
PER_JOB = 0.005  # seconds more for each: files of a network are not free
ASK = 1.0  # seconds between two questions to the engine
AGAIN = 30.0  # the longest time between two tries, while it is away
SILENT = 4 * BEAT  # seconds without a sign of life after which a job that its engine does not know is lost
LEAVING = 15.0  # seconds that allocations may take to leave by themselves, before they are cancelled
CANCELLING = 60.0  # seconds to wait for that


@dataclass
class Allocation:
    """An allocation, as its controller sees it."""

    files: JobFiles
    orders: Orders
    adopted: Job | None = None  # its job, as the study has it, if another controller has started it
    slot: int | None = None  # None: it waits for a job
    status: Status | None = None  # the last that the engine said
    ended: int = 0  # how often it has said that this one has ended
    beat: int = -1  # of its report, as last seen
    beaten: float = 0.0  # when that changed, by the executor's clock
    cancelled: bool = False  # by us
    outcome: Outcome | None = None  # of its job, if that is known without its report
    given_away: bool = False  # another controller has it
    again: bool = False  # its job had another before, which ended without having begun it

    @property
    def job(self) -> Job:
        """The job that it was given last."""
        job = self.adopted or self.orders.job
        assert job is not None
        return job

    def give(self, **changes: object) -> None:
        """Change its orders."""
        self.orders = replace(self.orders, **changes)  # type: ignore[arg-type]
        self.files.give(self.orders)


@dataclass
class ClusterExecutor:
    """Runs jobs in allocations of an engine, and those of others in theirs."""

    engine: Engine
    shared: Shared
    slots: int  # how many jobs may run or wait in the queue at once
    root: Path  # of the files of jobs; the engine's machines see it under the same path
    storage: str = ""  # URL of the studies
    trials_per_job: int | None = None  # how many an allocation serves; None: as many as there are
    name: str = "steady"  # of the engine's jobs
    bounds: TrialTimeout = UNBOUNDED  # on the time of each job
    python: str = sys.executable
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    busy: dict[int, Allocation] = field(default_factory=dict)  # by slot

    def __post_init__(self) -> None:
        self.spare = math.ceil(self.slots / SLOTS_PER_SPARE)
        self.root = self.root.absolute()
        self.trials = TrialFiles(self.root)
        self.folder = new_folder(self.root)
        self.token = self.folder.name
        header = {
            "engine": self.engine.name,
            "cwd": os.getcwd(),
            "storage": shown(self.storage),
            "script": vars(self.shared.script),
            "preload": list(self.shared.preload),
            "bounds": asdict(self.bounds),
        }
        digest = write_shared(self.folder, header, self.shared.static)
        # As in the controller: a script's folder is on its path. `env` leaves the process to Python.
        path = os.pathsep.join(os.path.abspath(place) for place in sys.path if place)
        self.command = ("env", f"PYTHONPATH={path}", self.python, "-m", "steady.jobs.allocation", "{}", digest)
        self.free: list[Allocation] = []
        self.leaving: list[Allocation] = []  # without a job, and without another to come
        self._told: list[Job] = []  # whose outcome the last `wait` has returned
        self.stopping = self.killing = False
        self._numbers = itertools.count(1)
        self._next_question, self._delay = 0.0, ASK

    def prepare(self, job: Job) -> None:
        """Do nothing: an allocation prepares its job itself."""

    def forget(self, number: int) -> None:
        """Do nothing."""

    def submit(self, job: Job) -> int:
        """Give a job to an allocation that waits for one, or to a new one. A ConfigError if the engine refuses that."""
        allocation = self.free.pop(0) if self.free else self._new()
        sequence = allocation.orders.sequence + 1
        self.trials.assign(job, allocation.files.folder, sequence)
        more = self.trials_per_job is None or sequence < self.trials_per_job
        allocation.give(sequence=sequence, job=job, more=more, stop=self.stopping)
        if not allocation.orders.id and not self.stopping:
            self._start(allocation)
        return self._occupy(allocation)

    def adopt(self, job: Job) -> int | None:
        """Take over a job that is in the engine's hands; it ends with its allocation."""
        if (found := self.trials.find(job)) is None:
            return None
        files, sequence = found
        orders = files.orders()
        if orders is None and files.report().begun == sequence:
            # They are damaged, and the job may live: new ones, without the engine's id, which only they had.
            orders = Orders(self.token, self.engine.name, sequence=sequence, job=job)
        elif orders is None or orders.sequence != sequence or orders.engine != self.engine.name or not orders.id:
            return None
        allocation = Allocation(files, orders, adopted=job)
        allocation.give(controller=self.token, more=False)
        return self._occupy(allocation)

    def running(self) -> dict[int, Job]:
        """Get the jobs that run, or wait in the engine's queue, by slot."""
        return {slot: allocation.job for slot, allocation in self.busy.items()}

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Wait until jobs have ended: look into their files, and ask the engine about once a second."""
        self._forget_told()
        self._make_room()
        deadline = self.clock() + timeout
        while True:
            self._ask()
            if self.stopping:
                self._take_back()
            ended = self._collect()
            if ended or self.clock() >= deadline:
                return ended
            self.sleep(min(POLL + PER_JOB * len(self.busy), max(0.0, deadline - self.clock())))

    def stop(self) -> None:
        """Let jobs that wait leave the queue, and those that run come to their next checkpoint, as `wait` is called."""
        self.stopping = True

    def kill(self) -> None:
        """Cancel all jobs, as `wait` is called."""
        self.stopping = self.killing = True

    def cancel(self, number: int) -> None:
        """End the job of a trial that another controller has, unless that has adopted the job with it."""
        for allocation in self.busy.values():
            if allocation.job.number == number:
                if self._is_ours(allocation):
                    allocation.give(more=False, stop=True)
                    self._cancel([allocation])
                else:
                    allocation.given_away = True
                    allocation.outcome = Outcome(Kind.INTERRUPTED, message="Another controller has adopted its job.")

    def close(self) -> None:
        """End everything that was started, and wait until the engine has nothing more of it."""
        unfinished = [one for one in self.busy.values() if self._is_ours(one)]
        left = [*unfinished, *(one for one in (*self.free, *self.leaving) if self._is_ours(one))]
        for allocation in (*unfinished, *self.free):
            allocation.give(more=False, stop=allocation in unfinished)
        self._cancel(unfinished)
        began = self.clock()
        while (left := [one for one in left if one.ended == 0 and one.orders.id]) and (
            self.clock() - began < LEAVING + CANCELLING
        ):
            if self.clock() - began > LEAVING:
                self._cancel([one for one in left if not one.cancelled])
            self._ask(left)
            self.sleep(POLL)
        self._forget_told()
        if not left:
            (self.folder / SHARED).unlink(missing_ok=True)
            with suppress(OSError):  # there are outcomes that may not be in the study, or logs that tell of a failure
                self.folder.rmdir()
        self.busy, self.free, self.leaving = {}, [], []
        self.engine.close()

    def _new(self) -> Allocation:
        files = JobFiles(self.folder / str(next(self._numbers)))
        files.folder.mkdir()
        return Allocation(files, Orders(self.token, self.engine.name))

    def _occupy(self, allocation: Allocation) -> int:
        slot = next(slot for slot in itertools.count() if slot not in self.busy)
        allocation.slot, self.busy[slot] = slot, allocation
        return slot

    def _start(self, allocation: Allocation) -> None:
        """Start an allocation; one that the engine does not take now is tried again later."""
        folder = allocation.files.folder
        command = [str(folder) if word == "{}" else word for word in self.command]
        try:
            allocation.give(id=self.engine.start(command, folder, self.name))
        except EngineAway:
            self._next_question = self.clock() + self._delay
        except ConfigError:
            self.trials.forget(allocation.job)
            allocation.files.remove()
            raise

    def _ask(self, of: list[Allocation] | None = None) -> None:
        """Ask the engine for the states of its allocations, when it is due, and start those that it has not taken."""
        if self.clock() < self._next_question:
            return
        asked = [*self.busy.values(), *self.free, *self.leaving] if of is None else of
        try:
            if known := [one for one in asked if one.orders.id]:
                statuses = self.engine.statuses({one.orders.id: one.files.folder for one in known})
                for one in known:
                    one.status = statuses.get(one.orders.id)
                    one.ended += one.status is None or one.status.state == State.ENDED
            self._next_question, self._delay = self.clock() + ASK, ASK
        except EngineAway:
            self._next_question, self._delay = self.clock() + self._delay, min(2 * self._delay, AGAIN)
            return
        for one in self.busy.values():
            if not one.orders.id and not one.adopted and not self.stopping:
                self._start(one)
        for one in [one for one in (*self.free, *self.leaving) if one.ended]:
            (self.free if one in self.free else self.leaving).remove(one)
            if not self.stopping:
                one.files.remove()

    def _make_room(self) -> None:
        """Let allocations leave that have found no job, if another's job waits for the place that they hold."""
        waiting = [one for one in self.busy.values() if one.status and one.status.state == State.WAITING]
        for one in self.free[: len(waiting)]:
            self.free.remove(one)
            self.leaving.append(one)
            one.give(more=False)

    def _take_back(self) -> None:
        """Stop jobs: those that run at their checkpoints, and all others before they begin."""
        for one in self.busy.values():
            if not one.orders.stop and self._is_ours(one):
                one.give(more=False, stop=True)
            if one.outcome is None and one.files.report().begun < one.orders.sequence:
                one.outcome = Outcome(Kind.INTERRUPTED, message="It was taken out of the queue.", began=False)
                self._cancel([one])
        if self.killing:
            self._cancel([one for one in self.busy.values() if not one.cancelled])

    def _collect(self) -> list[tuple[Job, Outcome]]:
        ended = []
        for slot, allocation in list(self.busy.items()):
            report = allocation.files.report()
            if report.beat != allocation.beat:
                allocation.beat, allocation.beaten = report.beat, self.clock()
            if self._is_to_be_given_again(allocation, report):
                self._give_again(allocation)
            elif (outcome := self._outcome(allocation, report)) is not None:
                del self.busy[slot]
                allocation.slot = None
                ended.append((allocation.job, outcome))
                if allocation.given_away:
                    continue
                self._told.append(allocation.job)
                if report.begun < allocation.orders.sequence and outcome.traceback:
                    continue  # its files stay: they say why it did not begin
                again = allocation.orders.more and not (report.left or allocation.ended or allocation.cancelled)
                (self.free if again else self.leaving).append(allocation)
        return ended

    def _outcome(self, allocation: Allocation, report: Report) -> Outcome | None:
        """Say how a job has ended; None if it has not, as far as is known."""
        if allocation.outcome is not None:
            return allocation.outcome
        status = allocation.status
        if report.ended >= allocation.orders.sequence and report.outcome is not None:
            if not (report.terminated and report.outcome.kind == Kind.INTERRUPTED) or self.stopping:
                return report.outcome
            if not allocation.ended:
                return None  # the engine will say why it sent SIGTERM
            if status is not None and status.cancelled:
                return replace(report.outcome, kind=Kind.LOST, message=status.message)
            return report.outcome
        if report.left and report.begun < allocation.orders.sequence:
            return Outcome(Kind.INTERRUPTED, message="It had not begun when its job left.", began=False)
        # Asked twice: its last report may take a moment to come to this machine.
        unknown = allocation.adopted is not None and not allocation.orders.id  # and cannot be asked about
        if allocation.ended < 2 and not unknown:
            return None
        if status is None and report.begun and self.clock() - allocation.beaten < SILENT:
            return None  # whatever the engine says: it gives signs of life
        if status is None:
            return Outcome(Kind.LOST, message=f"{self.engine.name} has forgotten its job, which left no result.")
        return self._without_result(allocation, report, status)

    @staticmethod
    def _without_result(allocation: Allocation, report: Report, status: Status) -> Outcome:
        """Say what the engine says of a job without a result; of one that never began, what was printed as well."""
        said = allocation.files.output if report.begun < allocation.orders.sequence else ""
        message = status.message
        if said:
            message += f" {shortened(said.splitlines()[-1])} ({allocation.files.folder / OUTPUT})"
        return Outcome(status.kind, message=message, traceback=said)

    def _is_to_be_given_again(self, allocation: Allocation, report: Report) -> bool:
        """Tell whether an allocation has gone without having begun its job, which then lost nothing."""
        if report.begun >= allocation.orders.sequence or allocation.adopted or self.stopping or allocation.outcome:
            return False
        if report.left:  # it had waited for too long, and did not see this one
            return True
        cancelled = allocation.cancelled or (allocation.status is not None and allocation.status.cancelled)
        return allocation.ended >= 2 and not (cancelled or allocation.again)  # once: it may never start

    def _give_again(self, allocation: Allocation) -> None:
        job, slot = allocation.job, allocation.slot
        assert slot is not None
        fresh = self._new()
        fresh.again = allocation.ended > 0
        self.trials.assign(job, fresh.files.folder, 1)
        fresh.give(sequence=1, job=job, more=self.trials_per_job != 1)
        fresh.slot, self.busy[slot] = slot, fresh
        self.leaving.append(allocation)
        self._start(fresh)

    def _cancel(self, allocations: list[Allocation]) -> None:
        try:
            known = [one for one in allocations if one.orders.id and not one.ended and self._is_ours(one)]
            if known:
                self.engine.cancel({one.orders.id: one.files.folder for one in known})
        except EngineAway:
            return  # tried again while they are there
        for one in allocations:
            one.cancelled = True

    def _is_ours(self, allocation: Allocation) -> bool:
        """Tell whether no other controller, which took us for dead, has adopted its job."""
        orders = allocation.files.orders()
        return orders is None or orders.controller == self.token

    def _forget_told(self) -> None:
        """Forget jobs whose outcome is in the study by now; but who stops may do so as it cannot be written."""
        if not self.stopping:
            for job in self._told:
                self.trials.forget(job)
            self._told = []
