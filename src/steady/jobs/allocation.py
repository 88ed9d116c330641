"""Serve the jobs of one allocation of a cluster, one after the other: `python -m steady.jobs.allocation FOLDER DIGEST`.

An engine starts it somewhere (`steady.jobs.engine`). A job runs as it does on one machine, in a process of its own
under a reaper; what is wanted of it and what came of it are files (`steady.jobs.job_files`). So the job outlives its
controller, and its outcome waits in a file for whoever goes on with the study. An allocation without a job waits for
one for `IDLE` seconds, and leaves.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from steady.exceptions import InterruptedTrial, StorageError
from steady.jobs.executor import Job, ProcessExecutor, Shared
from steady.jobs.job_files import BEAT, JobFiles, Orders, Report, read_shared
from steady.jobs.main_module import Script
from steady.options import TrialTimeout
from steady.reporting import TrialReporter, identity
from steady.resources import cores
from steady.study.failures import Kind, Outcome, classify

IDLE = 60.0  # seconds
POLL = 0.1  # seconds between two looks for a job
LOOK = 1.0  # seconds between two looks whether a running one is to stop


def main(folder: Path, digest: str) -> int:
    """Serve until nothing more will come; returns the exit code."""
    files = JobFiles(folder)
    header, static = read_shared(folder.parent, digest)
    if not files.take():
        print("The engine has started this allocation before: nothing is done again.", file=sys.stderr)
        return 0
    os.chdir(header["cwd"])
    os.environ.update(STEADY_JOB_ENGINE=header["engine"], OMP_NUM_THREADS=_threads(os.environ))
    shared = Shared(static, Script(**header["script"]), header["preload"])
    # GPUs are those that the engine has given.
    with closing(ProcessExecutor(shared, 1, gpus=[], bounds=TrialTimeout(**header["bounds"]))) as executor:
        allocation = Allocation(files, executor, header["storage"])
        signal.signal(signal.SIGTERM, lambda *_: allocation.terminate())
        allocation.serve()
    return 0


def _threads(variables: Mapping[str, str]) -> str:
    """Choose the number of threads: the user's, or the cores that the engine has given.

    >>> _threads({"SLURM_CPUS_PER_TASK": "4", "SLURM_CPUS_ON_NODE": "8"})
    '4'
    """
    names = ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")
    return next((variables[name] for name in names if variables.get(name)), str(cores()))


@dataclass
class Allocation:
    """The jobs of one allocation, as they are asked for in its files."""

    files: JobFiles
    executor: ProcessExecutor
    storage: str  # URL of the study, without a password

    def __post_init__(self) -> None:
        own = identity()
        self.report = Report(host=own["host"], pid=own["pid"])
        self.terminated = False  # the engine sent SIGTERM
        self._next_beat = 0.0

    def terminate(self) -> None:
        """Let the job come to its next checkpoint, and begin no other: the handler of SIGTERM."""
        self.terminated = True
        self.executor.stop()

    def serve(self) -> None:
        """Run jobs until there will be none."""
        since = time.monotonic()
        while not self.terminated and time.monotonic() - since < IDLE:
            orders = self.files.orders()
            if orders is not None and orders.job is not None and orders.sequence > self.report.begun:
                self._serve(orders, orders.job)
                since = time.monotonic()
            elif orders is not None and not orders.more:
                break
            else:
                time.sleep(POLL)
        self._tell(left=True)

    def _serve(self, orders: Orders, job: Job) -> None:
        self._tell(begun=orders.sequence)
        again = self.files.orders()  # after we have said that we begin, see `job_files`
        if again is None or again.stop or again.sequence != orders.sequence:
            outcome = Outcome(Kind.INTERRUPTED, message="It was taken back before it began.", began=False)
        else:
            outcome = self._begin(job) or self._run(job)
        if outcome.kind == Kind.INTERRUPTED and self.terminated and not outcome.traceback:
            return  # it came to no checkpoint: what ended it is the engine's to say
        self._tell(ended=orders.sequence, outcome=outcome, terminated=self.terminated)

    def _begin(self, job: Job) -> Outcome | None:
        """Write on the trial that it runs here; returns why it must not."""
        if not job.study:
            return None
        who = {"storage": self.storage, "study": job.study, "number": job.number, "attempt": job.attempt}
        try:
            TrialReporter.from_config(OmegaConf.create(who))
        except InterruptedTrial as error:
            return Outcome(Kind.LOST, message=str(error))
        except StorageError as error:
            return classify(error)
        return None

    def _run(self, job: Job) -> Outcome:
        self.executor.submit(job)
        stopped = False
        while not (ended := self.executor.wait(LOOK)):
            orders = self.files.orders()
            if not stopped and orders is not None and orders.stop:
                stopped = True
                self.executor.stop()
            self._beat()
        return ended[0][1]

    def _beat(self) -> None:
        if time.monotonic() >= self._next_beat:
            self._tell(beat=self.report.beat + 1)

    def _tell(self, **changes: Any) -> None:
        self.report = replace(self.report, **changes)
        self.files.tell(self.report)
        self._next_beat = time.monotonic() + BEAT


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), sys.argv[2]))
