"""Jobs into processes, and back comes how they ended. The scheduler knows no more of engines than `Executor`.

Each job is a process of its own, forked from a warm parent (a fork server that has imported what trials import). With
another launcher than Hydra's basic one, that process sends the job through it and waits; the job itself then runs
where the launcher puts it.
"""

import math
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from catsweep.errors import ConfigError
from catsweep.search import main_module
from catsweep.search.detached import FORK_SERVER
from catsweep.search.outcome import Kind, Outcome
from catsweep.search.resources import environment, visible_gpus
from catsweep.search.worker import serve

MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
PATIENCE = 10.0  # seconds that a process may take to leave after its outcome came
SLOTS_PER_SPARE = 4  # several of them may become free at once


@dataclass(frozen=True)
class Job:
    """One trial to run.

    Attributes:
        number: of the trial, and of Hydra's job.
        overrides: of the task's configuration.
        folder: where it works, relative to the working directory.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path


class Executor(Protocol):
    """Where jobs run."""

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


@dataclass
class _Worker:
    process: Any
    pipe: Connection
    job: Job | None = None
    outcome: Outcome | None = None  # as its process told it, before it left
    leave_by: float = math.inf  # time on the monotonic clock at which it should have left
    oom_kills: int = 0  # of this machine when the job began

    def signal(self, number: int) -> None:
        """Send a signal to the process and to those it started."""
        with suppress(ProcessLookupError, PermissionError):
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:  # not yet the leader of a group of its own
                os.kill(self.process.pid, number)

    def end_the_rest(self) -> None:
        """End what an ended process has left behind: workers of a launcher or of DDP, which hold files and GPUs."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)


class ProcessExecutor:
    """Runs each job in a process of its own.

    Args:
        hydra_context: of Hydra.
        task: what a job calls with its configuration.
        config: the composed configuration of the multirun.
        slots: how many jobs may run at once.
        preload: modules that the warm parent imports.
        gpus: see `resources.visible_gpus`.
        gpus_per_slot: share of a GPU for each slot.
        through_launcher: send jobs through `hydra.launcher` instead of running them in the process.
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
    ) -> None:
        self.slots = slots
        self.gpus, self.share = visible_gpus(gpus), gpus_per_slot
        shared = (hydra_context, task, config, Singleton.get_state(), through_launcher)
        self.variables, self.script = dict(os.environ), main_module.Script.started()
        try:
            self.static = _sent(shared)
        except Exception as error:  # pickle knows no class of its own for this
            raise ConfigError(
                f"Trials run in processes of their own, so the task must be such that it can be sent to one: {error}. "
                "Open files, locks and connections inside the task function, not beside it."
            ) from error
        self.context = _context(preload)
        self.busy: dict[int, _Worker] = {}
        self.stopping = False
        self.spare = math.ceil(slots / SLOTS_PER_SPARE)
        self.reserve: list[_Worker] = []
        self.prepared: dict[int, _Worker] = {}  # by the job's number
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
        if worker is None or not worker.process.is_alive():
            worker = self._assign(job)
        worker.oom_kills = _oom_kills()
        worker.pipe.send(environment(slot, self.slots, self.gpus, self.share))
        self.busy[slot] = worker
        if self.stopping:  # a signal came between the last look and now
            worker.signal(signal.SIGTERM)
        self._replenish()
        return slot

    def free(self) -> int:
        """How many slots are free."""
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
                return [(worker.job, self._bury(worker)) for _, worker in ended if worker.job is not None]

    def stop(self) -> None:
        """SIGTERM to each job's process and what it started, and to those that are yet to come."""
        self.stopping = True
        for worker in self.busy.values():
            worker.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.stopping = True
        for worker in self.busy.values():
            worker.signal(signal.SIGKILL)

    def drop(self, number: int) -> None:
        """SIGKILL to one job."""
        for worker in self.busy.values():
            if worker.job is not None and worker.job.number == number:
                worker.signal(signal.SIGKILL)

    def close(self) -> None:
        """End everything that was started here, and wait for it."""
        self.kill()
        left = [*self.busy.values(), *self.prepared.values(), *self.reserve]
        self.busy, self.prepared, self.reserve = {}, {}, []
        self._end(left)

    def _end(self, workers: list[_Worker]) -> None:
        for worker in workers:
            worker.pipe.close()  # ends a process that still waits for its job, or for its slot
        for worker in workers:
            worker.process.join(PATIENCE)
            if worker.process.is_alive():
                worker.signal(signal.SIGKILL)
                worker.process.join()
            worker.end_the_rest()
            worker.process.close()

    def _assign(self, job: Job) -> _Worker:
        worker = self._warm()
        worker.job = job
        worker.pipe.send(job)
        return worker

    def _warm(self) -> _Worker:
        """A process of the reserve, or a new one should they have died."""
        while self.reserve:
            if (worker := self.reserve.pop(0)).process.is_alive():
                return worker
        return self._start()

    def _replenish(self) -> None:
        while len(self.reserve) < self.spare:
            self.reserve.append(self._start())

    def _start(self) -> _Worker:
        ours, theirs = self.context.Pipe()
        known = (theirs, self.variables, self.script, self.static)
        process = self.context.Process(target=serve, args=known, daemon=False)
        with main_module.hidden():
            process.start()
        theirs.close()  # so that a process that dies closes the last of its ends
        return _Worker(process, ours)

    def _listen(self, timeout: float) -> None:
        """Take in what processes tell, until one has left, or the time is over."""
        telling = {worker.pipe: worker for worker in self.busy.values() if worker.leave_by == math.inf}
        leaving = [worker.process.sentinel for worker in self.busy.values()]
        patience = min(worker.leave_by for worker in self.busy.values()) - time.monotonic()
        for end in multiprocessing.connection.wait([*telling, *leaving], max(0.0, min(timeout, patience))):
            if end in telling:
                self._hear(telling[end])
        for worker in self.busy.values():
            if time.monotonic() >= worker.leave_by:  # threads of the task's own, which are not daemons
                worker.signal(signal.SIGKILL)
                worker.process.join()

    def _hear(self, worker: _Worker) -> None:
        worker.leave_by = time.monotonic() + PATIENCE
        with suppress(EOFError, OSError):  # it died without a word; the pipe may tell so before the process does
            worker.outcome = worker.pipe.recv()

    def _bury(self, worker: _Worker) -> Outcome:
        """How the job of an ended process ended."""
        if worker.leave_by == math.inf:
            self._hear(worker)
        outcome = worker.outcome or self._lost(worker)
        worker.end_the_rest()
        worker.pipe.close()
        worker.process.close()
        return outcome

    def _lost(self, worker: _Worker) -> Outcome:
        code = worker.process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            if self.stopping and -code in (signal.SIGTERM, signal.SIGKILL):
                return Outcome(Kind.INTERRUPTED, message=f"ended by {name}")
            if -code == signal.SIGKILL and _oom_kills() > worker.oom_kills:
                return Outcome(Kind.OUT_OF_MEMORY, message="The kernel ended the process: the memory was used up.")
            return Outcome(Kind.LOST, message=f"The process was ended by {name}.")
        return Outcome(Kind.LOST, message=f"The process ended with exit code {code} and no result.")


def _sent(shared: tuple[Any, ...]) -> bytes:
    """What all jobs share, with what `__main__` defines; of this only what can be sent."""
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
    """A way to start processes: from a warm parent where there is one, else anew."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    plugins = [name for name in sys.modules if name.startswith(("hydra_plugins.", "hydra._internal.core_plugins."))]
    context.set_forkserver_preload(["catsweep.search.detached", __name__, *plugins, *preload])
    # The fork server of Python 3.11 imports before it knows our sys.path, and says nothing when it fails.
    # And what it imports makes semaphores (tqdm), of which Python's tracker would warn when all is over.
    before = dict(os.environ)
    os.environ[FORK_SERVER] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.environ["PYTHONWARNINGS"] = "ignore::UserWarning:multiprocessing.resource_tracker"
    try:
        from multiprocessing.forkserver import ensure_running

        ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return context


def _oom_kills() -> int:
    """How often the kernel ended a process of this machine (or container) for want of memory."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    return 0
