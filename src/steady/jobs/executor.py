"""Run jobs in processes: the `Executor` protocol, and `ProcessExecutor`, which keeps one process in each slot.

Each job is a process of its own, forked from a warm parent (a fork server that has imported what trials import), and
runs `steady.jobs.worker.serve`. With another launcher than Hydra's basic one, that process sends the job through it and
waits; the job itself then runs where the launcher puts it.
"""

import math
import multiprocessing
import multiprocessing.connection
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
import psutil
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from steady.composition import Composition
from steady.exceptions import ConfigError
from steady.jobs import main_module
from steady.jobs.detached import FORK_SERVER
from steady.jobs.reaper import DUMP, END
from steady.jobs.worker import OUTPUT, Incoming, serve
from steady.options import UNBOUNDED, TrialTimeout
from steady.resources import environment, visible_gpus, without_rank
from steady.signals import NUMBERS
from steady.study.failures import FRAME, Kind, Outcome
from steady.study.trial_folders import PROGRESS

MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
PATIENCE = 10.0  # seconds that a process may take to leave after its outcome came
DUMPING = 2.0  # seconds for the stacks of one that hangs to be written
GRACE = 10.0  # seconds after SIGTERM for it to leave
UNKNOWN = 255  # exit code that multiprocessing gives when the fork server is gone; or the task's own
STACK = re.compile(r"^(?:Current thread|Thread|Stack) .*\(most recent call first\):$", re.MULTILINE)
STALL = 10.0  # seconds between two looks of which more do not count: this process slept, with the machine perhaps
SLOTS_PER_SPARE = 4  # several of them may become free at once


@dataclass(frozen=True)
class Job:
    """A trial to run."""

    number: int  # of the trial, and of Hydra's job
    overrides: tuple[str, ...]  # of the task's configuration
    folder: Path  # of the trial, relative to the working directory
    study: str = ""  # name of the trial's; empty: it is of none
    attempt: int = 0  # which of the trial


@dataclass(frozen=True)
class Shared:
    """What all jobs of a sweep share, as it travels to their processes."""

    static: bytes  # see `pickle_shared`
    script: main_module.Script = field(default_factory=main_module.Script)
    preload: Sequence[str] = ()  # modules that the warm parent imports
    through_launcher: bool = False  # send jobs through `hydra.launcher` instead of running them in the process

    @classmethod
    def of(
        cls,
        hydra_context: HydraContext,
        task: TaskFunction,  # called by a job with its configuration
        config: DictConfig,  # composed, of the multirun
        preload: Sequence[str] = (),
        through_launcher: bool = False,
    ) -> "Shared":
        """Pickle it; a ConfigError for a task that cannot be sent to another process."""
        parts = None if through_launcher else Composition(hydra_context.config_loader, config)
        static = pickle_shared(hydra_context, task, config, parts)
        return cls(static, main_module.Script.started(), preload, through_launcher)


class Executor(Protocol):
    """Runs jobs, at most one in each of its slots."""

    slots: int
    spare: int  # how many jobs may be prepared

    def prepare(self, job: Job) -> None:
        """Get a job ready that will be submitted, or forgotten."""

    def forget(self, number: int) -> None:
        """Give up a prepared job; one that was not prepared is no error."""

    def submit(self, job: Job) -> int:
        """Start a job in a free slot, and return the slot."""

    def adopt(self, job: Job) -> int | None:
        """Take over a job that an earlier controller has started, and return the slot; None if it cannot.

        A job's overrides are not known then. There may be more jobs than slots afterwards.
        """

    def running(self) -> dict[int, Job]:
        """Get the running jobs, by slot."""

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Wait until a job has ended, or for `timeout` seconds; returns the jobs that ended."""

    def stop(self) -> None:
        """Ask all jobs, and those that are still to come, to stop at their next checkpoint."""

    def kill(self) -> None:
        """End all jobs now."""

    def cancel(self, number: int) -> None:
        """End one job now, if it still runs, whose trial another controller has; `wait` returns it as any other."""

    def close(self) -> None:
        """End everything that was started, and wait for it."""


@dataclass
class Watchdog:
    """Detects that an attempt of a trial hangs: no sign of progress for too long, or too long in all.

    Signs of progress are a line in a log of the trial's folder (its output, or what Hydra logs), and a call of its
    reporter (`steady.reporting`). Checkpoints, or what Weights & Biases keeps, are none: threads of libraries write on
    beside a training that hangs.
    """

    bounds: TrialTimeout
    folder: Path  # of the trial
    # A launcher runs it, at a time of its own: time counts from the first sign that is not the launcher's.
    elsewhere: bool = False
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.waiting = self.elsewhere
        self.signs = self._signs()
        self.total = self.idle = 0.0
        self.last = self.clock()

    @property
    def due(self) -> float:
        """Seconds until the next look."""
        every = self.bounds.every
        return math.inf if every is None else max(0.0, self.last + every - self.clock())

    def check(self) -> str:
        """Look for signs of progress; returns why the trial is to be ended, or nothing."""
        if self.due > 0:
            return ""
        passed = min(self.clock() - self.last, STALL)
        self.last = self.clock()
        before, self.signs = self.signs, self._signs()
        if self.waiting:
            self.waiting = all(before.get(name) == self.signs[name] for name in self.signs if name != OUTPUT)
            return ""
        self.total += passed
        self.idle = 0.0 if self.signs != before else self.idle + passed
        progress, total = self.bounds.progress, self.bounds.total
        if progress is not None and self.idle >= progress:
            return f"No sign of progress for {progress:g} s (hydra.sweeper.trial_timeout.progress)"
        if total is not None and self.total >= total:
            return f"Not done after {total:g} s (hydra.sweeper.trial_timeout.total)"
        return ""

    def _signs(self) -> dict[str, tuple[int, int]]:
        """Time of writing (ns) and size of each file, by name."""
        found = {}
        for path in (*self.folder.glob("*.log"), self.folder / PROGRESS):
            with suppress(OSError):
                stat = path.stat()
                found[path.name] = (stat.st_mtime_ns, stat.st_size)
        return found


@dataclass
class TrialProcess:
    """A process that runs one job, as the controller sees it."""

    process: Any  # multiprocessing's, of the reaper (`steady.jobs.reaper`), which dies as the trial did
    pipe: Connection  # the controller's end
    job: Job | None = None
    outcome: Outcome | None = None  # as the process sent it
    oom_kills: int = 0  # of this machine when the job began
    watchdog: Watchdog | None = None
    hung: str = ""  # why the job is being ended
    deadline: float = math.inf  # time on the monotonic clock at which the next step of ending it is due
    leaving: bool = False  # an outcome came, or SIGTERM was sent: the next step is SIGKILL
    killed: bool = False  # it leaves when the kernel lets it: the other trials are not to wait for that
    log_size: int = 0  # bytes, when the job was found to hang

    def __post_init__(self) -> None:
        self.incoming = Incoming(self.pipe)
        self._reaper: psutil.Process | None = None
        with suppress(psutil.Error):  # it has died already
            self._reaper = psutil.Process(self.process.pid)

    def send(self, value: Any) -> None:
        """Send a value. That the process has died is no error here: `collect` reports it."""
        with suppress(OSError):
            self.pipe.send(value)

    def kill(self) -> None:
        """End the process and all that it started, in whatever session, now."""
        self.signal(END)
        self.signal(signal.SIGCONT)  # the reaper may have been stopped by the task

    def signal(self, number: int) -> None:
        """Send a signal to the process's reaper, which passes it on."""
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.process.pid, number)

    def kill_leftovers(self) -> None:
        """End what a reaper could not, because it was killed itself, or because the fork server was."""
        if self.process.exitcode == UNKNOWN:
            self._end_reaper()
        elif self.process.exitcode == -signal.SIGKILL and not psutil.pid_exists(self.process.pid):
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if os.getsid(process.pid) == self.process.pid:
                        process.kill()

    def _end_reaper(self) -> None:
        """Wait until the reaper has gone, whose end nobody is told without the fork server."""
        until = time.monotonic() + PATIENCE
        with suppress(psutil.Error):  # it has left
            while self._reaper and self._reaper.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
                self._reaper.send_signal(END)
                time.sleep(0.01)

    def receive(self) -> None:
        """Read what came of the outcome; a death may close the pipe before the process is known to be dead."""
        self.deadline, self.leaving = time.monotonic() + PATIENCE, True
        self.outcome = self.incoming.take()

    @property
    def due(self) -> float:
        """Seconds until `enforce_limits` is to be called again."""
        if self.killed:
            return math.inf
        if self.deadline < math.inf:
            return self.deadline - time.monotonic()
        return self.watchdog.due if self.watchdog else math.inf

    def enforce_limits(self) -> None:
        """End the process if it hangs, or does not leave: stacks into its log, then SIGTERM, then SIGKILL."""
        now = time.monotonic()
        if self.killed or not self.process.is_alive():  # its number may be another's by now
            return
        if self.deadline == math.inf:
            self.hung = self.watchdog.check() if self.watchdog else ""
            if self.hung:
                with suppress(OSError):
                    self.log_size = self._log.stat().st_size
                self.signal(DUMP)
                self.deadline = now + DUMPING
        elif now >= self.deadline and not self.leaving:
            self.signal(signal.SIGTERM)
            self.deadline, self.leaving = now + GRACE, True
        elif now >= self.deadline:
            self.kill()
            self.killed = True

    def collect(self, stopping: bool) -> Outcome:
        """Classify how the job ended, and close its process; one that is `stopping` may be ended by a signal."""
        if not self.incoming.over:
            self.receive()
        outcome = self.outcome or self._lost(stopping)
        if outcome.kind == Kind.INTERRUPTED and not stopping:
            # The task raised KeyboardInterrupt itself, or was sent a signal by others: it may do so without end.
            message = f"The task was interrupted, though nobody asked the sweep to stop: {outcome.message}"
            outcome = replace(outcome, kind=Kind.LOST, message=message)
        if self.hung and outcome.kind not in (Kind.COMPLETE, Kind.PRUNED):  # what it still came to is a result
            outcome = self._timed_out()
        self.kill_leftovers()
        self.pipe.close()
        self.process.close()
        return outcome

    def _lost(self, stopping: bool) -> Outcome:
        code = self.process.exitcode
        if code is not None and code < 0:
            # Real-time signals between the first and the last have no name.
            name = {one.value: one.name for one in signal.Signals}.get(-code, f"signal {-code}")
            if stopping and -code in (signal.SIGTERM, signal.SIGKILL, END):
                return Outcome(Kind.INTERRUPTED, message=f"ended by {name}")
            if -code == signal.SIGKILL and _oom_kills() > self.oom_kills:
                return Outcome(Kind.OUT_OF_MEMORY, message="The kernel ended the process: the memory was used up.")
            return Outcome(Kind.LOST, message=f"The process was ended by {name}.")
        return Outcome(Kind.LOST, message=f"The process ended with exit code {code} and no result.")

    def _timed_out(self) -> Outcome:
        stacks = self._stacks()
        main = stacks[list(STACK.finditer(stacks))[-1].start() :] if stacks else ""  # the oldest thread comes last
        found = FRAME.search(main)
        where = f", in {Path(found[1]).name}, line {found[2]}" if found else ""
        told = "; its log has the stacks" if stacks else "; there are no stacks: it was stopped, or deaf to signals"
        return Outcome(Kind.TIMED_OUT, message=f"{self.hung}{where}{told}.", traceback=stacks)

    def _stacks(self) -> str:
        """Read what faulthandler has written since the job was found to hang."""
        with suppress(OSError), self._log.open("rb") as log:
            log.seek(self.log_size)
            written = log.read().decode(errors="replace")
            if begin := STACK.search(written):
                return written[begin.start() :]
        return ""

    @property
    def _log(self) -> Path:
        assert self.job is not None
        return self.job.folder / OUTPUT


def _oom_kills() -> int:
    """Count the processes of this machine (or container) that the kernel ended for want of memory."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


@dataclass
class ProcessExecutor:
    """Runs each job in a process of its own."""

    shared: Shared
    slots: int  # how many jobs may run at once
    gpus: Any = "auto"  # see `resources.visible_gpus`
    gpus_per_slot: float = 1.0
    bounds: TrialTimeout = UNBOUNDED  # on the time of each job

    def __post_init__(self) -> None:
        self.spare = math.ceil(self.slots / SLOTS_PER_SPARE)
        self.visible = visible_gpus(self.gpus)
        self.variables = without_rank(os.environ)
        self.context = warm_context(self.shared.preload)
        self.busy: dict[int, TrialProcess] = {}  # by slot
        self.prepared: dict[int, TrialProcess] = {}  # by the job's number
        self.reserve: list[TrialProcess] = []
        self.stopping = False
        self._replenish()

    def prepare(self, job: Job) -> None:
        """Have a process of the reserve compose a job's configuration."""
        self.prepared[job.number] = self._assign(job)
        self._replenish()

    def forget(self, number: int) -> None:
        """Give up a prepared job."""
        if (worker := self.prepared.pop(number, None)) is not None:
            self._end([worker])

    def submit(self, job: Job) -> int:
        """Start a job in the first free slot."""
        slot = next(slot for slot in range(self.slots) if slot not in self.busy)
        worker = self.prepared.pop(job.number, None)
        if worker is not None and not worker.process.is_alive():
            self._end([worker])
            worker = None
        worker = worker or self._assign(job)
        worker.oom_kills = _oom_kills()
        if self.bounds.every is not None:
            worker.watchdog = Watchdog(self.bounds, job.folder, elsewhere=self.shared.through_launcher)
        worker.send(environment(slot, self.slots, self.visible, self.gpus_per_slot))
        self.busy[slot] = worker
        if self.stopping:  # a signal came between the last look and now
            worker.signal(signal.SIGTERM)
        self._replenish()
        return slot

    def adopt(self, job: Job) -> int | None:
        """Take none over: processes end with their controller."""
        return None

    def running(self) -> dict[int, Job]:
        """Get the running jobs, by slot."""
        return {slot: worker.job for slot, worker in self.busy.items() if worker.job is not None}

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Wait, without polling, for the processes of jobs to end: until then they hold memory and their GPU."""
        if not self.busy:
            time.sleep(timeout)
            return []
        deadline = time.monotonic() + timeout
        while True:
            self._listen(max(0.0, deadline - time.monotonic()))
            ended = [(slot, worker) for slot, worker in self.busy.items() if not worker.process.is_alive()]
            if ended or time.monotonic() >= deadline:
                for slot, _ in ended:
                    del self.busy[slot]
                if any(worker.process.exitcode == UNKNOWN for _, worker in ended):  # perhaps the fork server is gone
                    self.context = warm_context(self.shared.preload)
                return [(worker.job, worker.collect(self.stopping)) for _, worker in ended if worker.job is not None]

    def stop(self) -> None:
        """Send SIGTERM to each job's process and what it started, and to those that are yet to come."""
        self.stopping = True
        for worker in self.busy.values():
            worker.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End each job's process and what it started."""
        self.stopping = True
        for worker in self.busy.values():
            worker.kill()

    def cancel(self, number: int) -> None:
        """End one job's process and what it started."""
        for slot, job in self.running().items():
            if job.number == number:
                self.busy[slot].kill()

    def close(self) -> None:
        """End everything that was started here, and wait for it."""
        self.kill()
        left = [*self.busy.values(), *self.prepared.values(), *self.reserve]
        self.busy, self.prepared, self.reserve = {}, {}, []
        self._end(left)

    def _end(self, workers: list[TrialProcess]) -> None:
        for worker in workers:
            worker.pipe.close()  # ends a process that still waits for its job, or for its slot
        for worker in workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.kill()
                worker.process.join()
            worker.kill_leftovers()
            worker.process.close()

    def _assign(self, job: Job) -> TrialProcess:
        """Send a job to a process of the reserve, or to a new one should they have died."""
        while self.reserve and not self.reserve[0].process.is_alive():
            self._end([self.reserve.pop(0)])
        worker = self.reserve.pop(0) if self.reserve else self._start()
        worker.job = job
        worker.send(job)
        return worker

    def _replenish(self) -> None:
        while len(self.reserve) < self.spare:
            self.reserve.append(self._start())

    def _start(self) -> TrialProcess:
        ours, theirs = self.context.Pipe()
        known = (theirs, self.variables, self.shared.script, self.shared.static)
        process = self.context.Process(target=serve, args=known, daemon=False)
        with main_module.hidden():
            process.start()
        theirs.close()  # so that a process that dies closes the last of its ends
        return TrialProcess(process, ours)

    def _listen(self, timeout: float) -> None:
        """Receive from the processes, until one has left, or the time is over."""
        telling = {worker.pipe: worker for worker in self.busy.values() if not worker.incoming.over}
        leaving = [worker.process.sentinel for worker in self.busy.values()]
        patience = min(timeout, *(worker.due for worker in self.busy.values()))
        for end in multiprocessing.connection.wait([*telling, *leaving], max(0.0, patience)):
            if end in telling:
                telling[end].receive()
        for worker in self.busy.values():
            worker.enforce_limits()


def pickle_shared(
    hydra_context: HydraContext, task: TaskFunction, config: DictConfig, parts: Composition | None = None
) -> bytes:
    """Pickle what all jobs share, and what can be pickled of `__main__`; a task that cannot be is a ConfigError.

    `parts` is for jobs that run where they are composed; None for those that go through the user's launcher.

    Example:
        >>> type(pickle_shared(None, print, None))
        <class 'bytes'>
    """
    shared = (hydra_context, task, config, Singleton.get_state(), parts)
    defined = main_module.definitions()
    if whole := _try_pickle((*shared, defined)):
        return whole
    try:
        return bytes(cloudpickle.dumps((*shared, {name: one for name, one in defined.items() if _try_pickle(one)})))
    except Exception as error:  # pickle knows no class of its own for this
        raise ConfigError(
            f"Trials run in processes of their own, so the task must be such that it can be sent to one: {error}. "
            "Open files, locks and connections inside the task function, not beside it."
        ) from error


def _try_pickle(value: Any) -> bytes | None:
    try:
        return bytes(cloudpickle.dumps(value))
    except Exception:
        return None


def warm_context(preload: Sequence[str]) -> Any:
    """Make a context of multiprocessing, and start its fork server, which imports Hydra's plugins and `preload`.

    Example:
        >>> warm_context([]).get_start_method()
        'forkserver'
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    plugins = [name for name in sys.modules if name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))]
    context.set_forkserver_preload(["steady.jobs.detached", __name__, *plugins, *preload])
    from multiprocessing import forkserver, resource_tracker

    before = dict(os.environ)
    os.environ.clear()
    # The fork server of Python 3.11 imports before it knows our sys.path, and says nothing when it fails.
    # And what it imports makes semaphores (tqdm), of which Python's tracker would warn when all is over.
    os.environ.update(
        without_rank(before),
        **{FORK_SERVER: "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        PYTHONWARNINGS="ignore::UserWarning:multiprocessing.resource_tracker",
    )

    resource_tracker.ensure_running()  # else the fork server starts it, and unblocks signals
    # Until it has left our session a Ctrl-C is the fork server's, too. It keeps what is blocked, see `detached`.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # what came meanwhile comes now
    return context
