"""Run jobs in processes: `ProcessExecutor` keeps one in each slot, and tells how each ended.

Each job is a process of its own, forked from a warm parent (a fork server that has imported what trials import), and
runs `steady.run.worker.serve`. With another launcher than Hydra's basic one, that process sends the job through it and
waits; the job itself then runs where the launcher puts it. The scheduler knows no more of this than `Executor`.

`Watchdog` takes a job to hang that shows no sign of progress for too long, or takes too long in all. Signs of progress
are a line in a log of the trial's folder (its output, or what Hydra logs), and a call of its reporter
(`steady.reporting`). Checkpoints, or what Weights & Biases keeps, are none: threads of libraries write on beside a
training that hangs.
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
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
import psutil
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from steady.exceptions import ConfigError
from steady.options import UNBOUNDED, TrialTimeout
from steady.resources import environment, visible_gpus, without_rank
from steady.run import main_module
from steady.run.detached import FORK_SERVER
from steady.run.reaper import DUMP, END
from steady.run.worker import OUTPUT, Incoming, serve
from steady.signals import NUMBERS
from steady.study.failures import FRAME, Kind, Outcome
from steady.study.trial_folders import PROGRESS

MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
PATIENCE = 10.0  # seconds that a process may take to leave after its outcome came
DUMPING = 2.0  # seconds for the stacks of one that hangs to be written
GRACE = 10.0  # seconds after SIGTERM for it to leave
UNKNOWN = 255  # exit code that multiprocessing gives when the fork server is gone; or the task's own
STACK = re.compile(r"^(?:Current thread|Thread|Stack) .*\(most recent call first\):$", re.MULTILINE)
STALL = 10.0  # seconds between two looks of which more do not count: it was we who slept, with the machine perhaps
SLOTS_PER_SPARE = 4  # several of them may become free at once

Signs = dict[str, tuple[int, int]]  # by the file's name: when it was written (ns), its size


@dataclass(frozen=True)
class Job:
    """A trial to run.

    Attributes:
        number: of the trial, and of Hydra's job.
        overrides: of the task's configuration.
        folder: of the trial, relative to the working directory.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path


class Executor(Protocol):
    """Runs jobs, one in a slot."""

    slots: int
    spare: int  # how many jobs may be prepared

    def prepare(self, job: Job) -> None:
        """Get a job ready that will be submitted, or forgotten."""

    def forget(self, number: int) -> None:
        """Give up a prepared job; one that was not prepared is no error."""

    def submit(self, job: Job) -> int:
        """Start a job in a free slot, and say in which."""

    def free(self) -> int:
        """How many jobs may be submitted now."""

    def running(self) -> dict[int, Job]:
        """The jobs that run, by slot."""

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """The jobs that ended; returns when there is one, or after `timeout` seconds."""

    def stop(self) -> None:
        """Ask all jobs, and those that are still to come, to stop at their next checkpoint."""

    def kill(self) -> None:
        """End all jobs now."""

    def drop(self, number: int) -> None:
        """End one job now, if it still runs; `wait` tells of it as of any."""

    def close(self) -> None:
        """Leave nothing running."""


class Watchdog:
    """Finds out whether an attempt of a trial hangs.

    Args:
        bounds: on the attempt's time.
        folder: of the trial.
        elsewhere: whether a launcher runs it, at a time of its own: time counts from the first sign of progress that
            is not the launcher's.
        clock: returns seconds that only go forward.
    """

    def __init__(
        self, bounds: TrialTimeout, folder: Path, elsewhere: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bounds, self.folder, self.clock = bounds, folder, clock
        self.waiting = elsewhere
        self.signs = self._signs()
        self.total = self.idle = 0.0
        self.last = clock()

    @property
    def due(self) -> float:
        """Seconds until the next look."""
        every = self.bounds.every
        return float("inf") if every is None else max(0.0, self.last + every - self.clock())

    def check(self) -> str:
        """Look for signs of progress: returns why the trial is to be ended; empty if it may go on."""
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
        if self.bounds.progress is not None and self.idle >= self.bounds.progress:
            return f"No sign of progress for {self.bounds.progress:g} s (hydra.sweeper.trial_timeout.progress)"
        if self.bounds.total is not None and self.total >= self.bounds.total:
            return f"Not done after {self.bounds.total:g} s (hydra.sweeper.trial_timeout.total)"
        return ""

    def _signs(self) -> Signs:
        found: Signs = {}
        for path in (*self.folder.glob("*.log"), self.folder / PROGRESS):
            try:
                stat = path.stat()
            except OSError:
                continue
            found[path.name] = (stat.st_mtime_ns, stat.st_size)
        return found


@dataclass
class TrialProcess:
    """A process that runs one job, as the controller sees it: signalled, ended when it hangs, and heard.

    Attributes:
        process: of multiprocessing: its reaper (`steady.run.reaper`), which dies as it did.
        pipe: the controller's end.
        job: that it runs; None before it has one.
        outcome: as the process told it, before it left.
        exit_by: time on the monotonic clock at which it should have left.
        oom_kills: of this machine when the job began.
        watchdog: while the job runs.
        hung: why the job is being ended; empty if it is not.
    """

    process: Any
    pipe: Connection
    job: Job | None = None
    outcome: Outcome | None = None
    exit_by: float = math.inf
    oom_kills: int = 0
    watchdog: Watchdog | None = None
    hung: str = ""
    _next: float = 0.0  # time at which the next step of ending it is due
    _asked: bool = False  # to leave, by SIGTERM
    _killed: bool = False
    _said: int = 0  # bytes of its log when it was found to hang

    def __post_init__(self) -> None:
        self.incoming = Incoming(self.pipe)
        self._itself: psutil.Process | None = None
        with suppress(psutil.Error):  # it has died already
            self._itself = psutil.Process(self.process.pid)

    def send(self, value: Any) -> None:
        """Send a value. That the process has died is no error here: `collect` tells."""
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
            self._end_unheard()
        elif self.process.exitcode == -signal.SIGKILL and not psutil.pid_exists(self.process.pid):
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if os.getsid(process.pid) == self.process.pid:
                        process.kill()

    def _end_unheard(self) -> None:
        """See that the reaper has gone, which ends by itself when nobody hears of it any more."""
        until = time.monotonic() + PATIENCE
        with suppress(psutil.Error):  # it has left
            while (
                self._itself is not None
                and self._itself.is_running()
                and self._itself.status() != psutil.STATUS_ZOMBIE
                and time.monotonic() < until
            ):
                self._itself.send_signal(END)
                time.sleep(0.01)

    def receive(self) -> None:
        """Read what came of the outcome. That it died without a word the pipe may tell before the process does."""
        self.exit_by = time.monotonic() + PATIENCE
        self.outcome = self.incoming.take()

    @property
    def due(self) -> float:
        """Seconds until `enforce_limits` is to be called again."""
        if self._killed:
            return math.inf
        if self.exit_by < math.inf:
            return self.exit_by - time.monotonic()
        if self.hung:
            return self._next - time.monotonic()
        return self.watchdog.due if self.watchdog else math.inf

    def enforce_limits(self) -> None:
        """End the process if it hangs, or does not leave: stacks into its log, then SIGTERM, then SIGKILL."""
        if self._killed or not self.process.is_alive():  # its number may be another's by now
            return
        now = time.monotonic()
        if self.exit_by < math.inf:
            if now >= self.exit_by:  # threads of the task's own, which are not daemons
                self._end()
        elif not self.hung:
            self.hung = self.watchdog.check() if self.watchdog else ""
            if self.hung:
                self._said = self._log_size()
                self.signal(DUMP)
                self._next = now + DUMPING
        elif now >= self._next and not self._asked:
            self.signal(signal.SIGTERM)
            self._asked, self._next = True, now + GRACE
        elif now >= self._next:
            self._end()

    def _end(self) -> None:
        self.kill()
        self._killed = True  # it leaves when the kernel lets it: the other trials are not to wait for that

    def collect(self, stopping: bool) -> Outcome:
        """Classify how the job ended, and close the process, which has; `stopping`: it may have been on purpose."""
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
            name = _named(-code)
            if stopping and -code in (signal.SIGTERM, signal.SIGKILL, END):
                return Outcome(Kind.INTERRUPTED, message=f"ended by {name}")
            if -code == signal.SIGKILL and oom_kills() > self.oom_kills:
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
        """What faulthandler wrote of where it hung; empty if it could not."""
        assert self.job is not None
        with suppress(OSError), (self.job.folder / OUTPUT).open("rb") as log:
            log.seek(self._said)
            written = log.read().decode(errors="replace")
            if begin := STACK.search(written):
                return written[begin.start() :]
        return ""

    def _log_size(self) -> int:
        assert self.job is not None
        with suppress(OSError):
            return (self.job.folder / OUTPUT).stat().st_size
        return 0


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals between the first and the last have no name
        return f"signal {number}"


def oom_kills() -> int:
    """Count the processes of this machine (or container) that the kernel ended for want of memory."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    return 0


class ProcessExecutor:
    """Runs each job in a process of its own.

    Args:
        hydra_context: of Hydra.
        task: called by a job with its configuration.
        config: the composed configuration of the multirun.
        slots: how many jobs may run at once.
        preload: modules that the warm parent imports.
        gpus: see `resources.visible_gpus`.
        gpus_per_slot: share of a GPU for each slot.
        through_launcher: send jobs through `hydra.launcher` instead of running them in the process.
        bounds: on the time of each job.
    """

    def __init__(
        self,
        hydra_context: HydraContext,
        task: TaskFunction,
        config: DictConfig,
        slots: int,
        preload: Sequence[str] = (),
        gpus: Any = "auto",
        gpus_per_slot: float = 1.0,
        through_launcher: bool = False,
        bounds: TrialTimeout = UNBOUNDED,
    ) -> None:
        self.bounds, self.launches = bounds, through_launcher
        self.slots = slots
        self.gpus, self.share = visible_gpus(gpus), gpus_per_slot
        self.static = packed(hydra_context, task, config, through_launcher)
        self.variables, self.script = without_rank(os.environ), main_module.Script.started()
        self.preload, self.context = preload, _context(preload)
        self.busy: dict[int, TrialProcess] = {}
        self.stopping = False
        self.spare = math.ceil(slots / SLOTS_PER_SPARE)
        self.reserve: list[TrialProcess] = []
        self.prepared: dict[int, TrialProcess] = {}  # by the job's number
        self._replenish()

    def prepare(self, job: Job) -> None:
        """Have a job's configuration composed by a process of the reserve."""
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
        worker.oom_kills = oom_kills()
        if self.bounds.every is not None:
            worker.watchdog = Watchdog(self.bounds, job.folder, elsewhere=self.launches)
        worker.send(environment(slot, self.slots, self.gpus, self.share))
        self.busy[slot] = worker
        if self.stopping:  # a signal came between the last look and now
            worker.signal(signal.SIGTERM)
        self._replenish()
        return slot

    def free(self) -> int:
        """Count the free slots."""
        return self.slots - len(self.busy)

    def running(self) -> dict[int, Job]:
        """The jobs that run, by slot."""
        return {slot: worker.job for slot, worker in self.busy.items() if worker.job is not None}

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        """Wait for jobs to end, without polling.

        A job has ended when its process has: until then it holds memory of the machine and of its GPU.
        """
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
                    self.context = _context(self.preload)
                return [(worker.job, worker.collect(self.stopping)) for _, worker in ended if worker.job is not None]

    def stop(self) -> None:
        """SIGTERM to each job's process and what it started, and to those that are yet to come."""
        self.stopping = True
        for worker in self.busy.values():
            worker.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to each job's process and what it started."""
        self.stopping = True
        for worker in self.busy.values():
            worker.kill()

    def drop(self, number: int) -> None:
        """SIGKILL to one job."""
        for worker in self.busy.values():
            if worker.job is not None and worker.job.number == number:
                worker.kill()

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
        worker = self._warm()
        worker.job = job
        worker.send(job)
        return worker

    def _warm(self) -> TrialProcess:
        """A process of the reserve, or a new one should they have died."""
        while self.reserve:
            if (worker := self.reserve.pop(0)).process.is_alive():
                return worker
            self._end([worker])
        return self._start()

    def _replenish(self) -> None:
        while len(self.reserve) < self.spare:
            self.reserve.append(self._start())

    def _start(self) -> TrialProcess:
        ours, theirs = self.context.Pipe()
        known = (theirs, self.variables, self.script, self.static)
        process = self.context.Process(target=serve, args=known, daemon=False)
        with main_module.hidden():
            process.start()
        theirs.close()  # so that a process that dies closes the last of its ends
        return TrialProcess(process, ours)

    def _listen(self, timeout: float) -> None:
        """Take in what processes tell, until one has left, or the time is over."""
        telling = {worker.pipe: worker for worker in self.busy.values() if not worker.incoming.over}
        leaving = [worker.process.sentinel for worker in self.busy.values()]
        patience = min(timeout, *(worker.due for worker in self.busy.values()))
        for end in multiprocessing.connection.wait([*telling, *leaving], max(0.0, patience)):
            if end in telling:
                telling[end].receive()
        for worker in self.busy.values():
            worker.enforce_limits()


def packed(hydra_context: HydraContext, task: TaskFunction, config: DictConfig, through_launcher: bool) -> bytes:
    """Pickle what all jobs share, see `ProcessExecutor`.

    Raises:
        ConfigError: the task cannot be sent.
    """
    try:
        return _sent((hydra_context, task, config, Singleton.get_state(), through_launcher))
    except Exception as error:  # pickle knows no class of its own for this
        raise ConfigError(
            f"Trials run in processes of their own, so the task must be such that it can be sent to one: {error}. "
            "Open files, locks and connections inside the task function, not beside it."
        ) from error


def _sent(shared: tuple[Any, ...]) -> bytes:
    """Pickle what all jobs share, and what `__main__` defines; of this only what can be pickled."""
    defined = main_module.definitions()
    try:
        return bytes(cloudpickle.dumps((*shared, defined)))
    except Exception:
        sound = {name: one for name, one in defined.items() if _can_be_sent(one)}
        return bytes(cloudpickle.dumps((*shared, sound)))


def _can_be_sent(value: Any) -> bool:
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _context(preload: Sequence[str]) -> Any:
    """Make the context of multiprocessing: processes come from a warm parent where there is one, else anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    plugins = [name for name in sys.modules if name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))]
    context.set_forkserver_preload(["steady.run.detached", __name__, *plugins, *preload])
    # The fork server of Python 3.11 imports before it knows our sys.path, and says nothing when it fails.
    # And what it imports makes semaphores (tqdm), of which Python's tracker would warn when all is over.
    before = dict(os.environ)
    for name in before.keys() - without_rank(before):
        del os.environ[name]
    os.environ[FORK_SERVER] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    from multiprocessing import forkserver, resource_tracker

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
