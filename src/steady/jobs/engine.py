"""What an engine of a cluster can do for `steady.jobs.cluster_executor`: start a command somewhere, watch it, end it.

An engine knows nothing of trials. It runs allocations: each is one command (`steady.jobs.allocation`) in resources that
the engine gives it, in a folder on a file system that all hosts share. What a trial came to is a file there, and so is
an order to stop (`steady.jobs.job_files`); the engine is asked only whether an allocation still waits or runs and,
when no result was left, what ended it. When it means to end an allocation itself, it sends SIGTERM to the command, some
time before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from steady.study.failures import Kind


class State(Enum):
    """State of an allocation."""

    WAITING = "waiting"  # in the engine's queue
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Status:
    """What an engine knows of an allocation."""

    state: State
    host: str = ""
    # Of one that has ended: what to make of a trial that left no result. LOST (a dead node, a cancelled job, an exit),
    # INTERRUPTED (preempted), or OUT_OF_MEMORY; never FAILED, which is for tasks that raised.
    kind: Kind = Kind.LOST
    message: str = ""  # one line: how it ended
    cancelled: bool = False  # by somebody: a trial that came to a checkpoint has all the same lost its job


class EngineAway(Exception):
    """The engine does not answer at the moment (its controller restarts, the network is down): ask again later."""


class Engine(Protocol):
    """An engine of a cluster, through one client for all slots."""

    name: str  # "slurm", "ray": before the id on a trial
    trials_per_job: int | None  # how many trials an allocation serves by default; None: as many as there are

    def check(self) -> None:
        """Find out, before anything is written, whether the engine takes such jobs: a ConfigError if not.

        EngineAway as below.
        """

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        """Start a command as an allocation that works in `folder` (absolute), with its output in `folder`/engine.log.

        The variable STEADY_JOB_ID tells the command the engine's id, if SLURM_JOB_ID does not.
        Returns the engine's id. An EngineAway if it is not known to have started; a ConfigError if it never will.
        """

    def statuses(self, started: Mapping[str, Path]) -> dict[str, Status]:
        """Ask for allocations, each by its id and the folder that it was started in, in one request.

        One that the engine has forgotten is missing, and so is one that was not started in that folder: its id came
        from a file, and may name what is not ours. EngineAway as above.
        """

    def cancel(self, started: Mapping[str, Path]) -> None:
        """End allocations now, named in the same way, those that wait too; no error for others. EngineAway as above."""

    def close(self) -> None:
        """Close the client. What was started goes on."""
