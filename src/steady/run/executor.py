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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cloudpickle
from hydra.core.singleton import Singleton
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from steady.errors import ConfigError
from steady.options import UNBOUNDED, TrialTimeout
from steady.run import main_module
from steady.run.detached import FORK_SERVER
from steady.run.process import PATIENCE, UNKNOWN, TrialProcess, Watchdog, oom_kills
from steady.run.resources import alone, environment, visible_gpus
from steady.run.worker import serve
from steady.signals import NUMBERS
from steady.study.failures import Outcome

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
        self.variables, self.script = alone(os.environ), main_module.Script.started()
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
                if any(worker.process.exitcode == UNKNOWN for _, worker in ended):  # perhaps the fork server is gone
                    self.context = _context(self.preload)
                return [(worker.job, worker.bury(self.stopping)) for _, worker in ended if worker.job is not None]

    def stop(self) -> None:
        """SIGTERM to each job's process and what it started, and to those that are yet to come."""
        self.stopping = True
        for worker in self.busy.values():
            worker.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
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
            worker.end_the_rest()
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
                telling[end].hear()
        for worker in self.busy.values():
            worker.tend()


def packed(hydra_context: HydraContext, task: TaskFunction, config: DictConfig, through_launcher: bool) -> bytes:
    """What all jobs share, as it is sent to their processes.

    Args:
        hydra_context: of Hydra.
        task: what a job calls with its configuration.
        config: the composed configuration of the multirun.
        through_launcher: see `ProcessExecutor`.

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
    context.set_forkserver_preload(["steady.run.detached", __name__, *plugins, *preload])
    # The fork server of Python 3.11 imports before it knows our sys.path, and says nothing when it fails.
    # And what it imports makes semaphores (tqdm), of which Python's tracker would warn when all is over.
    before = dict(os.environ)
    for name in before.keys() - alone(before):
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
