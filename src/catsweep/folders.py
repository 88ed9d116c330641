"""Atomic replacement of folders: a reader sees the old one or the new one, never half of one.

A folder is built in a scratch beside its place (see `steady.atomic`), and exchanges places with the one that is
there, which is removed afterwards; and only if catsweep made it (`catsweep.ownership`). So a kill at any moment leaves
the old one or the new one, and what it leaves beside that is removed by whoever writes there next.

Linux exchanges two paths at once, and takes a place only if it is free, by flags of `renameat2` (man 2 rename); other
systems, and some file systems (NFS), do not, and then two renames under a lock do.
"""

import ctypes
import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from catsweep import ownership
from catsweep.ownership import FolderKind
from steady.atomic import SCRATCH, beside, lock_of_the_dead, locked
from steady.atomic import tidy as tidy_files

NOREPLACE, EXCHANGE = 1, 2  # linux/fs.h
_HERE = -100  # AT_FDCWD: paths are relative to the working directory
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)  # EPERM: a sandbox that knows no such call
_LIBC = ctypes.CDLL(None, use_errno=True)
NEW, OLD, WRITER = "new", "old", "writer"  # in a scratch: what is built, what it changes places with, the lock
QUIET = 3600  # seconds since anything in it changed, after which a scratch without a lock counts as left


class Unsupported(Exception):
    """The system or the file system has no such rename; nothing has changed."""


def exchange(one: Path, other: Path) -> None:
    """Let two files or folders take each other's place at the same moment."""
    _rename(one, other, EXCHANGE)


def move(path: Path, free: Path) -> None:
    """Rename a file or folder to where nothing is; raises FileExistsError if something is there."""
    _rename(path, free, NOREPLACE)


def _rename(source: Path, target: Path, flag: int) -> None:
    if (call := getattr(_LIBC, "renameat2", None)) is None:
        raise Unsupported
    sys.audit("catsweep.rename", str(source), str(target), flag)
    if call(_HERE, os.fsencode(source), _HERE, os.fsencode(target), flag) == 0:
        return
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        raise Unsupported
    raise OSError(number, os.strerror(number), str(source), None, str(target))


@contextmanager
def replacing_folder(folder: Path, kind: FolderKind) -> Iterator[Path]:
    """Yield an empty folder to build in, and put it in the place of `folder` when the block ends without an error.

    An error inside the block leaves whatever was there before, and no debris. Of two that write at the same time both
    succeed, and the later one stays. A link keeps its place, and the folder that it leads to is replaced. TakenError if
    there is something in the place that catsweep did not make.
    """
    target = Path(os.path.realpath(folder))  # of links in a circle, `resolve` makes an error that is no OSError
    ownership.require(folder, kind)
    target.parent.mkdir(parents=True, exist_ok=True)
    tidy_earlier(target, kind)
    with scratch_folder(target) as new:
        yield new
        ownership.mark(new, kind)
        try:
            _exchange(new, target, kind)
        except Unsupported:
            _step_aside(new, target, kind)


def _exchange(new: Path, target: Path, kind: FolderKind) -> None:
    """Put a complete folder in its place by one rename, whatever others do there meanwhile."""
    old = new.with_name(OLD)
    while True:
        with suppress(FileExistsError, FileNotFoundError):  # another writer was faster, or the target was removed
            if not os.path.lexists(target):
                move(new, target)
                return
            ownership.require(target, kind)
            ownership.adopt(target, kind)
            new.rename(old)  # what is called so is looked at before it is removed
            try:
                exchange(old, target)
            except (OSError, Unsupported):
                old.rename(new)
                raise
            if ownership.is_ours(old, kind):
                return
            exchange(old, target)  # somebody put something into it since we looked
            old.rename(new)


def _step_aside(new: Path, target: Path, kind: FolderKind) -> None:
    """Do so by two renames, one writer at a time; what a kill between them leaves, `tidy` puts back."""
    with FileLock(target.with_name(f".{target.name}.lock")):
        ownership.require(target, kind)
        if not os.path.lexists(target):
            os.replace(new, target)
            return
        ownership.adopt(target, kind)
        old = new.with_name(OLD)
        os.replace(target, old)
        try:
            ownership.require(old, kind)  # again: somebody may have put something into it
            os.replace(new, target)
        except BaseException:
            os.replace(old, target)
            raise


@contextmanager
def scratch_folder(target: Path) -> Iterator[Path]:
    """Make an empty folder in a scratch beside `target`, whose parent exists; it is removed when the block ends."""
    tidy(target.parent)

    def make() -> Path:
        scratch = beside(target)
        scratch.mkdir()
        return scratch / WRITER

    writer, lock = locked(make)
    try:
        (writer.parent / NEW).mkdir()
        yield writer.parent / NEW
    finally:
        _remove(writer.parent)
        os.close(lock)


def tidy(parent: Path) -> None:
    """Remove what killed writers left in a folder; what they had moved aside takes its place again, if that is free."""
    tidy_files(parent)
    with suppress(OSError), os.scandir(parent) as entries:  # a folder that cannot be listed is not ours to tidy
        found = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in found:
            if SCRATCH.fullmatch(folder.name):
                with suppress(OSError):
                    _tidy_folder(folder)


def tidy_earlier(target: Path, kind: FolderKind) -> None:
    """Do the same for what versions up to 0.1 left, `.NAME-xxxxxxxx`: they locked nothing, so time must tell."""
    pattern = re.compile(rf"\.{re.escape(target.name)}[-.][a-z0-9_]{{8}}")
    with suppress(OSError), os.scandir(target.parent) as entries:
        found = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name) and entry.is_dir()]
    for scratch in found:
        with suppress(OSError):
            parts = {entry.name for entry in os.scandir(scratch)}
            changed = max(path.stat().st_mtime for path in (scratch, *(scratch / part for part in parts)))
            if parts <= {NEW, OLD} and time.time() - changed > QUIET and not scratch.is_symlink():
                _put_back(old := scratch / OLD, target)
                if not old.exists() or ownership.is_ours(old, kind):
                    shutil.rmtree(scratch)


def _tidy_folder(scratch: Path) -> None:
    writer = scratch / WRITER
    if not os.path.lexists(writer):
        scratch.rmdir()  # its writer was killed before it began, or begins now, and then takes another
        return
    with lock_of_the_dead(writer) as dead:
        if dead:
            _remove(scratch)


def _put_back(old: Path, target: Path) -> None:
    if old.exists() and not os.path.lexists(target):
        with suppress(FileExistsError):
            try:
                move(old, target)
            except Unsupported:
                old.rename(target)  # fails on a folder that is not empty


def _remove(scratch: Path) -> None:
    """Remove a scratch but for what catsweep did not make; its lock last, so that after a kill it can be tidied."""
    old = scratch / OLD
    match = SCRATCH.fullmatch(scratch.name)
    assert match is not None
    _put_back(old, scratch.parent / match["target"])
    shutil.rmtree(scratch / NEW, ignore_errors=True)
    with suppress(OSError):
        if old.exists() and ownership.is_whole(old):
            old.rename(scratch / NEW)  # which is removed unseen: half of it cannot be told from what is not ours
            shutil.rmtree(scratch / NEW, ignore_errors=True)
    with suppress(OSError):  # a part that could not be removed keeps the rest, for the next one who tidies
        if {entry.name for entry in os.scandir(scratch)} <= {WRITER}:
            (scratch / WRITER).unlink(missing_ok=True)
            scratch.rmdir()
