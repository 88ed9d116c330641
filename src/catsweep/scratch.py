"""Where a file or a folder is written before it takes its place, and what becomes of it when its writer is killed.

For `catsweep.atomic`. A scratch lies beside its target, on the same file system, under a name of its own
(`.NAME.HEX.catsweep`), and is locked as long as its writer lives: the kernel lets go of the lock (flock) when the
writer ends, however it ends. So whoever writes next in that folder can tell the debris of the dead from the work of the
living, and removes the one without touching the other.
"""

import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from catsweep import ownership, renaming

NEW, OLD, WRITER = "new", "old", "writer"  # in the scratch of a folder: what is built, what it changes places with
QUIET = 3600  # seconds since anything in it changed, after which what locks nothing counts as left
_NAME = re.compile(r"\.(?P<target>.+)\.[0-9a-f]{16}\.catsweep", re.DOTALL)
_tidied: set[tuple[int, str]] = set()


@contextmanager
def file(target: Path) -> Iterator[Path]:
    """A new, empty file to write into; what is still there when the block ends is removed.

    It is this very file that is locked: one that is put in its place may be taken for debris.

    Args:
        target: which it is to replace; its folder exists.
    """
    if (place := (os.getpid(), str(target.parent))) not in _tidied:  # at each write it would cost more than the write
        _tidied.add(place)
        tidy(target.parent)
    path, lock = _locked(lambda: _beside(target))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


@contextmanager
def folder(target: Path) -> Iterator[Path]:
    """A new, empty folder `NEW` in a scratch; the scratch is removed when the block ends.

    Args:
        target: which it is to replace; its parent exists.
    """
    tidy(target.parent)

    def make() -> Path:
        scratch = _beside(target)
        scratch.mkdir()
        return scratch / WRITER

    writer, lock = _locked(make)
    try:
        (writer.parent / NEW).mkdir()
        yield writer.parent / NEW
    finally:
        _remove(writer.parent)
        os.close(lock)


def tidy(parent: Path) -> None:
    """Remove what killed writers left in a folder; what they had moved aside takes its place again, if that is free."""
    with suppress(OSError), os.scandir(parent) as entries:  # a folder that cannot be listed is not ours to tidy
        found = [entry for entry in entries if _NAME.fullmatch(entry.name) and not entry.is_symlink()]
        for entry in found:
            with suppress(OSError):
                _tidy_folder(Path(entry.path)) if entry.is_dir() else _tidy_file(Path(entry.path))


def tidy_earlier(target: Path, kind: ownership.Kind) -> None:
    """The same for what versions up to 0.1 left, `.NAME-xxxxxxxx`: they locked nothing, so time must tell."""
    pattern = re.compile(rf"\.{re.escape(target.name)}[-.][a-z0-9_]{{8}}")
    with suppress(OSError), os.scandir(target.parent) as entries:
        found = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir()]
    for scratch in found:
        with suppress(OSError):
            parts = {entry.name for entry in os.scandir(scratch)}
            changed = max(path.stat().st_mtime for path in (scratch, *(scratch / part for part in parts)))
            if parts <= {NEW, OLD} and time.time() - changed > QUIET and not scratch.is_symlink():
                _remove_earlier(scratch, target, kind)


def _remove_earlier(scratch: Path, target: Path, kind: ownership.Kind) -> None:
    old = scratch / OLD
    if old.exists() and not os.path.lexists(target):
        _take_if_free(old, target)
    if not old.exists() or ownership.is_ours(old, kind):
        shutil.rmtree(scratch)


def _tidy_file(path: Path) -> None:
    with _lock_of_the_dead(path) as dead:
        if dead:
            path.unlink()


def _tidy_folder(scratch: Path) -> None:
    writer = scratch / WRITER
    if not os.path.lexists(writer):
        scratch.rmdir()  # its writer was killed before it began, or begins now, and then takes another
        return
    with _lock_of_the_dead(writer) as dead:
        if dead:
            _remove(scratch)


def _take_if_free(path: Path, target: Path) -> None:
    with suppress(FileExistsError):
        try:
            renaming.move(path, target)
        except renaming.Unsupported:
            path.rename(target)  # fails on a folder that is not empty


@contextmanager
def _lock_of_the_dead(path: Path) -> Iterator[bool]:
    """Whether the writer that locked a file is dead; then nobody else looks at it during the block."""
    lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield _take(lock) and _is_still(lock, path)
    finally:
        os.close(lock)


def _locked(make: Callable[[], Path]) -> tuple[Path, int]:
    """A new file of which the lock is ours, and the descriptor that holds it.

    Between the making and the locking somebody who tidies may take it for debris; then there is another one.
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


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex[:16]}.catsweep")


def _remove(scratch: Path) -> None:
    """Remove a scratch; its lock last, so that a kill half-way leaves what can be tidied.

    What was moved aside and whose place is free takes it again; what catsweep did not make stays where it is.
    """
    old = scratch / OLD
    match = _NAME.fullmatch(scratch.name)
    assert match is not None
    if old.exists() and not os.path.lexists(target := scratch.parent / match["target"]):
        _take_if_free(old, target)
    shutil.rmtree(scratch / NEW, ignore_errors=True)
    with suppress(OSError):
        if old.exists() and ownership.is_whole(old):
            old.rename(scratch / NEW)  # which is removed unseen: half of it cannot be told from what is not ours
            shutil.rmtree(scratch / NEW, ignore_errors=True)
    with suppress(OSError):  # a part that could not be removed keeps the rest, for the next one who tidies
        if {entry.name for entry in os.scandir(scratch)} <= {WRITER}:
            (scratch / WRITER).unlink(missing_ok=True)
            scratch.rmdir()
