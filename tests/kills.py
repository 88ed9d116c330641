"""What is left of `steady.atomic` when a process is killed at any call, and what readers see while others write.

A program that `tests/steady/test_atomic.py` runs, for a process with threads, as pytest's may be, must not be forked::

    kills.py SCENARIO HOW FOLDER       folder, file, writers; exchange, or fallback: where the system has none

Python announces every call on files as an audit event (`sys.addaudithook`) before it makes it; there the child ends.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

from catsweep import folders
from catsweep.folders import replacing_folder
from catsweep.ownership import MARKER, FolderKind
from steady.atomic import write_bytes

CALLS = ("open", "os.", "shutil.", "fcntl.", "catsweep.")
KIND = FolderKind("a test", "out=DIR", ("a", "b"))
WRITES = 100  # of each of the two writers


def at_every_call(prepare: Callable[[], object], work: Callable[[], object], look: Callable[[], None]) -> int:
    """Fork, let the child do the work and kill itself at its first call; look; the same with its second; and so on.

    Returns:
        How many calls the work makes.
    """
    place = 0
    while True:
        prepare()
        if (child := os.fork()) == 0:
            _killed_at(place)
            work()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        look()
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return place
        place += 1


def _killed_at(place: int) -> None:
    left = place

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(CALLS):
            left -= 1
            if left == -1:  # for `os.kill` is an event, too
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def write(target: Path, text: str) -> None:
    with replacing_folder(target, KIND) as new:
        for name in ("a", "b"):
            (new / name).write_text(text)


def read(target: Path) -> str:
    """What both files of a folder say, through a handle of the folder, which may be replaced meanwhile."""
    while True:
        handle = os.open(target, os.O_RDONLY | os.O_DIRECTORY)  # never fails: it is never absent
        try:
            said = []
            for name in ("a", "b"):
                with open(os.open(name, os.O_RDONLY, dir_fd=handle)) as text:
                    said.append(text.read())
            assert said[0] == said[1]
            return said[0]
        except FileNotFoundError:
            assert os.fstat(handle).st_ino != os.stat(target).st_ino, "half a folder is in the place"
        finally:
            os.close(handle)


def folder(base: Path, is_exchange: bool) -> str:
    target = base / "target"

    def look() -> None:
        if is_exchange:
            assert read(target) in ("old", "new")
        write(base / "another", "")  # the next start
        assert read(target) in ("old", "new")
        left = {path.name for path in base.iterdir()} - {".target.lock", ".another.lock"}
        assert left == {"target", "another"}, left

    return f"{at_every_call(lambda: write(target, 'old'), lambda: write(target, 'new'), look)} calls"


def file(base: Path, is_exchange: bool) -> str:
    (target := base / "target").write_bytes(b"old")

    def look() -> None:
        assert target.read_bytes() in (b"old", b"new")
        if (child := os.fork()) == 0:  # the next start
            write_bytes(base / "another", b"")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert {path.name for path in base.iterdir()} == {"target", "another"}

    return f"{at_every_call(lambda: target.write_bytes(b'old'), lambda: write_bytes(target, b'new'), look)} calls"


def writers(base: Path, is_exchange: bool) -> str:
    target = base / "target"
    write(target, "first")

    def many(name: str) -> None:
        for number in range(WRITES):
            write(target, f"{name}{number}")

    at_work = [_forked(partial(many, name)) for name in "xy"]
    reads = 0
    while at_work:
        if is_exchange:
            read(target)
            reads += 1
        ended = [child for child in at_work if (found := os.waitpid(child, os.WNOHANG))[0] and found[1] == 0]
        at_work = [child for child in at_work if child not in ended]
    assert read(target) in [f"{name}{WRITES - 1}" for name in "xy"]
    assert {path.name for path in base.iterdir()} - {".target.lock"} == {"target"}
    assert {path.name for path in target.iterdir()} == {"a", "b", MARKER}
    return f"{reads} reads"


def _forked(work: Callable[[], None]) -> int:
    if (child := os.fork()) == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def _unsupported(*_: object, **__: object) -> NoReturn:
    raise folders.Unsupported


if __name__ == "__main__":
    scenario, how, base = sys.argv[1:]
    if how == "fallback":
        folders.exchange = folders.move = _unsupported
    print({"folder": folder, "file": file, "writers": writers}[scenario](Path(base), how == "exchange"))
