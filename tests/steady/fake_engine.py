"""An engine of a cluster whose allocations are processes of this machine, and which can be away, or lie."""

import os
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from steady.exceptions import ConfigError
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.job_files import OUTPUT
from steady.study.failures import Kind


class FakeEngine:
    name = "fake"
    trials_per_job: int | None = None

    def __init__(self, queue: bool = False) -> None:
        self.queue = queue  # whether what is started waits, until it is let go
        self.refuses = self.away = self.closed = False
        self.commands: dict[str, tuple[list[str], Path]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.told: dict[str, Status] = {}  # what it says, whatever is so
        self.cancelled: list[str] = []

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        self._answer()
        if self.refuses:
            raise ConfigError("no such partition")
        id = str(len(self.commands) + 1)
        self.commands[id] = list(command), folder
        if not self.queue:
            self.let_go(id)
        return id

    def let_go(self, id: str) -> None:
        command, folder = self.commands[id]
        variables = {**os.environ, "STEADY_JOB_ID": id}
        with (folder / OUTPUT).open("ab") as out:
            self.processes[id] = subprocess.Popen(command, env=variables, stdout=out, stderr=out)

    def statuses(self, ids: Collection[str]) -> dict[str, Status]:
        self._answer()
        return {id: self.told.get(id) or self._status(id) for id in ids}

    def _status(self, id: str) -> Status:
        cancelled = id in self.cancelled
        if id not in self.processes:
            return Status(State.ENDED if cancelled else State.WAITING, message="It was cancelled.", cancelled=cancelled)
        code = self.processes[id].poll()
        if code is None:
            return Status(State.RUNNING, "here")
        return Status(State.ENDED, kind=Kind.LOST, message=f"It ended with exit code {code}.", cancelled=cancelled)

    def cancel(self, ids: Collection[str]) -> None:
        self._answer()
        for id in ids:
            self.cancelled.append(id)
            if id in self.processes:
                self.processes[id].kill()

    def close(self) -> None:
        self.closed = True

    def end(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def _answer(self) -> None:
        if self.away:
            raise EngineAway("it restarts")
