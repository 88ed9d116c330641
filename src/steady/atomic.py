"""Atomic writing of files: a reader sees them as they were or as they are, and never half written.

A file is written as a scratch file beside its place (`.NAME.HEX.steady`), and takes its place by one rename. The
scratch is locked (flock) as long as its writer lives, so whoever writes next in that folder tells the debris of dead
writers from the work of living ones, and removes only the debris.
"""

import fcntl
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from steady.places import named

SCRATCH = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.(steady|catsweep)", re.DOTALL)  # catsweep: up to 0.1
_tidied: set[tuple[int, str]] = set()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a scratch file, and move it to its place, in folders that are made, if the block ends without an error.

    >>> with replacing(Path("out/model.bin")) as unfinished:
    ...     unfinished.write_bytes(b"weights")
    7
    >>> Path("out/model.bin").read_bytes()
    b'weights'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), _scratch(path) as unfinished:
        yield unfinished
        os.replace(unfinished, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, flushed to the disk before the rename: no loss of power leaves an empty file.

    >>> write_bytes(Path("a.bin"), b"whole")
    """
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with its own line ends.

    >>> write_text(Path("a.txt"), "cats")
    """
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, *, ascii_only: bool = True) -> None:
    """Write plain values as indented JSON; with `ascii_only=False` letters are not escaped.

    >>> write_json(Path("a.json"), {"fid": 40.5})
    >>> print(Path("a.json").read_text(), end="")
    {
      "fid": 40.5
    }
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=ascii_only) + "\n")


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Make a locked, empty file, removed at the end. Not to be replaced: only this very file holds the lock."""
    if (place := (os.getpid(), str(target.parent))) not in _tidied:  # once: it costs more than the write
        _tidied.add(place)
        tidy(target.parent)
    path, lock = locked(lambda: beside(target))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def tidy(parent: Path) -> None:
    """Remove the scratch files that killed writers left in a folder.

    >>> beside(Path("a.txt")).touch()
    >>> tidy(Path("."))
    >>> list(Path(".").glob(".a.txt.*"))
    []
    """
    with suppress(OSError), os.scandir(parent) as entries:  # a folder that cannot be listed is not ours to tidy
        found = [Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False)]
        for path in (path for path in found if SCRATCH.fullmatch(path.name)):
            with suppress(OSError), lock_of_the_dead(path) as dead:
                if dead:
                    path.unlink()


@contextmanager
def lock_of_the_dead(path: Path) -> Iterator[bool]:
    """Yield whether the writer that locked a file is dead; then the block holds the lock.

    >>> path, lock = locked(lambda: beside(Path("a.txt")))
    >>> with lock_of_the_dead(path) as dead:
    ...     dead
    False
    >>> os.close(lock)
    """
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield _take(lock) and _is_still(lock, path)
    finally:
        os.close(lock)


def locked(make: Callable[[], Path]) -> tuple[Path, int]:
    """Make a new, locked file; get its path and the descriptor that holds the lock.

    If another process that tidies removes it before it is locked, `make` is asked for another path.

    >>> path, lock = locked(lambda: beside(Path("a.txt")))
    >>> os.close(lock)
    """
    while True:
        path = make()
        with suppress(FileNotFoundError):
            lock = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o666)
            if _take(lock, otherwise=True) and _is_still(lock, path):
                return path, lock
            os.close(lock)


def _take(lock: int, otherwise: bool = False) -> bool:
    """Take a lock; False if somebody has it, `otherwise` where the file system has none."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return otherwise
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def beside(target: Path) -> Path:
    """Get a unique path for a scratch of a file or folder, in the same folder.

    >>> beside(Path("out/a.txt"))
    PosixPath('out/.a.txt....steady')
    """
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:16]}.steady")
