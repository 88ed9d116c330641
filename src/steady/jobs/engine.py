"""What an engine of a cluster can do for `steady.jobs.cluster_executor`: start a command somewhere, watch it, end it.

An engine knows nothing of trials. It runs allocations: each is one command (`steady.jobs.allocation`) in resources that
the engine gives it, in the same folder on a file system that all hosts share. What a trial came to is a file there; the
engine is asked only whether an allocation still waits or runs and, when no result was left, what ended it.
"""

from collections.abc import Collection, Sequence
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


class EngineAway(Exception):
    """The engine does not answer at the moment (its controller restarts, the network is down): ask again later."""


class Engine(Protocol):
    """An engine of a cluster, through one client for all slots."""

    name: str  # "slurm", "ray": before the id on a trial

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        """Start a command as an allocation that works in `folder` (absolute), with its output in `folder`/engine.log.

        Returns the engine's id. An EngineAway if it is not known to have started; a ConfigError if it never will.
        """

    def statuses(self, ids: Collection[str]) -> dict[str, Status]:
        """Ask for all allocations in one request. One that the engine has forgotten is missing. EngineAway as above."""

    def interrupt(self, ids: Collection[str]) -> None:
        """Send SIGTERM to the commands of allocations that run, and take those that wait out of the queue."""

    def cancel(self, ids: Collection[str]) -> None:
        """End allocations now; no error for those that have ended."""

    def close(self) -> None:
        """Close the client. What was started goes on."""
