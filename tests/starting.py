"""Commands in processes of their own, as from the shell; `warm.py` starts them, and has their imports already."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# What a sweep imports at once, and at its first look into the database.
OF_A_SWEEP = (
    "steady.sweep", "steady.watch.progress", "hydra_plugins.steady_sweeper.steady_sweeper",
    "hydra._internal.hydra", "hydra._internal.core_plugins.basic_launcher", "alembic.command",
    "optuna.storages._rdb.alembic", "sqlalchemy.dialects.sqlite",
)  # fmt: skip


class Warm:
    """`warm.py`, and what it has told of the processes that it started.

    Args:
        imports: the modules that it has imported.
        environment: of it and all that it starts.
        umask: likewise; as here if it is -1.
        share: whether all sweeps take their trials from one fork server. None of them may then be killed: one that
            asks for a process at that moment takes the server with it.
    """

    def __init__(
        self, imports: Sequence[str], environment: Mapping[str, str], umask: int = -1, share: bool = False
    ) -> None:
        words = ["--share-fork-server"] * share
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("warm.py")), *words, *imports],
            env={**environment, "PYTHONPATH": str(Path(__file__).parents[1] / "src")},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, umask=umask,
        )  # fmt: skip
        self.started: list[int] = []
        self.ended: dict[int, int] = {}

    def close(self) -> None:
        self.process.communicate()

    def start(self, file: Path, folder: Path, words: Sequence[str], out: Path, err: Path) -> int:
        wanted = {"file": str(file), "folder": str(folder), "words": list(words), "out": str(out), "err": str(err)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(wanted).encode() + b"\n")
        self.process.stdin.flush()
        while not self.started:
            self.listen(wait=True)
        return self.started.pop()

    def listen(self, wait: bool) -> None:
        """Hear what it tells, at least one thing if `wait`."""
        assert self.process.stdout is not None
        pipe = self.process.stdout.fileno()
        if not wait and not select.select([pipe], [], [], 0)[0]:
            return
        told = b""
        while not told.endswith(b"\n"):
            part = os.read(pipe, 4096)
            assert part, "warm.py ended; what it wrote to standard error says why"
            told += part
        for line in map(json.loads, told.splitlines()):
            if "code" in line:
                self.ended[line["pid"]] = line["code"]
            else:
                self.ended.pop(line["pid"], None)  # of an earlier process with this number
                self.started.append(line["pid"])


class Running:
    """A command in a process of its own, used as a `subprocess.Popen`.

    Args:
        warm: starts it.
        file: the command.
        folder: where it works.
        words: of its command line.
        logs: folder for what it writes to standard output and error.
    """

    def __init__(self, warm: Warm, file: Path, folder: Path, words: Sequence[str], logs: Path) -> None:
        logs.mkdir(exist_ok=True)
        number = len(list(logs.glob("*.out")))
        self.logs = logs / f"{number}.out", logs / f"{number}.err"
        self.logs[0].touch()
        self.warm, self.args = warm, [str(file), *words]
        self.returncode: int | None = None
        self.pid = warm.start(file, folder, words, *self.logs)

    def poll(self) -> int | None:
        self.warm.listen(wait=False)
        self.returncode = self.warm.ended.get(self.pid)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self) -> tuple[str, str]:
        """Wait for its end: what it wrote to standard output and error."""
        while self.poll() is None:
            self.warm.listen(wait=True)
        out, err = (log.read_text() for log in self.logs)
        return out, err

    def done(self) -> "subprocess.CompletedProcess[str]":
        """Wait for its end, as `subprocess.run`."""
        out, err = self.communicate()
        assert self.returncode is not None
        return subprocess.CompletedProcess(self.args, self.returncode, out, err)
