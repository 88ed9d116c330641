"""Where the commands of README.md and docs/ are run: a small project of its own, and a warm process that runs them."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import ROOT

WARM = Path(__file__).with_name("warm.py")
NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there: whatever asks the network is refused at once


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, what it wrote to either stream, and the seconds of CPU it took itself."""

    code: int
    said: str
    seconds: float = 0.0


class Shop:
    """A folder with copies of conf/ and of the entry points, and with data/, outputs/ and sweeps/ of its own.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT / "conf", folder / "conf")
        (folder / "src").mkdir()
        for path in (ROOT / "src").iterdir():
            if path.suffix == ".py":
                shutil.copy(path, folder / "src")
            elif path.is_dir():
                (folder / "src" / path.name).symlink_to(path)
        for name in ("Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".mkdocs.yml", "docs"):
            (folder / name).symlink_to(ROOT / name)
        (folder / "sweeps").mkdir()
        for path in (ROOT / "sweeps").glob("*.yaml"):
            shutil.copy(path, folder / "sweeps")
        (folder / "home").mkdir()
        self.count = 0
        with (folder / "home" / "warm.log").open("w") as log:
            self.warm = subprocess.Popen(
                [sys.executable, str(WARM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                cwd=ROOT, env=self._environment(),
            )  # fmt: skip
        if self._answer() != "ready":
            raise RuntimeError((folder / "home" / "warm.log").read_text())

    def close(self) -> None:
        """End the warm process."""
        with self.warm:  # closes its pipes, and waits for it
            pass

    def run(self, argv: list[str], env: dict[str, str], meanwhile: Callable[[int, Path], None] | None = None) -> Done:
        """Run one command of Python's.

        Args:
            argv: a file or `-m` and a module, then its words.
            env: variables to set.
            meanwhile: called with the process id and the file that holds what it says, while it runs.
        """
        self.count += 1
        out = self.folder / "home" / f"{self.count}.log"
        path = [str(self.folder / entry) for entry in env.get("PYTHONPATH", "").split(os.pathsep) if entry]
        order = {"argv": argv, "env": env, "path": path, "cwd": str(self.folder), "out": str(out)}
        out.touch()
        assert self.warm.stdin is not None
        self.warm.stdin.write(json.dumps(order) + "\n")
        self.warm.stdin.flush()
        pid = int(self._answer())
        try:
            if meanwhile is not None:
                meanwhile(pid, out)
        finally:
            code, seconds = self._answer().split()
        return Done(int(code), out.read_text(encoding="utf-8", errors="replace"), float(seconds))

    def recipe(self, words: list[str]) -> list[str]:
        """The lines that `make` would run; the environment is there already."""
        line = ["make", "-n", "-s", "-o", ".venv/.installed", *words]
        told = subprocess.run(line, cwd=self.folder, capture_output=True, text=True, check=True)
        return told.stdout.splitlines()

    def argv(self, command: str) -> tuple[dict[str, str], list[str]]:
        """A line of a shell as `run` takes it."""
        variables = dict(re.findall(r"^([A-Z_0-9]+)=(\S+) ", command))
        program, *words = shlex.split(command)[len(variables) :]
        name = Path(program).name
        if name != "python":
            return variables, [str(Path(sys.executable).with_name(name)), *words]
        return variables, words

    def _answer(self) -> str:
        assert self.warm.stdout is not None
        return self.warm.stdout.readline().strip()

    def _environment(self) -> dict[str, str]:
        home = self.folder / "home"
        left = {"PATH", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV"}
        return {name: value for name, value in os.environ.items() if name in left} | {
            "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"),
            "HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "http_proxy": NOWHERE, "https_proxy": NOWHERE,
            "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost",
            "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT / "src"), "WANDB_ERROR_REPORTING": "false",
            "NO_MKDOCS_2_WARNING": "1", "HF_HUB_OFFLINE": "1",  # its package tries for half a minute
        }  # fmt: skip
