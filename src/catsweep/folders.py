"""Writes folders that a reader sees as they were or as they are, and never half written.

A folder is built in a scratch beside its place (see `catsweep.atomic`), and exchanges places with the one that is
there, which is removed afterwards; and only if catsweep made it (`catsweep.ownership`). So a kill at any moment leaves the old
one or the new one, and what it leaves beside that is removed by whoever writes there next.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from catsweep import ownership, renaming
from catsweep.atomic import SCRATCH, beside, lock_of_the_dead, locked
from catsweep.atomic import tidy as tidy_files
from catsweep.ownership import Kind

NEW, OLD, WRITER = "new", "old", "writer"  # in the scratch of a folder: what is built, what it changes places with
QUIET = 3600  # seconds since anything in it changed, after which what locks nothing counts as left


@contextmanager
def replacing_folder(folder: Path, kind: Kind) -> Iterator[Path]:
    """Build a folder beside the place it will take, and put it there when the block ends without an error.

    An error inside the block leaves whatever was there before, and no debris. Of two that write at the same time both
    succeed, and the later one stays. A link keeps its place, and the folder that it leads to is replaced.

    Args:
        folder: where the result goes. One that is there is replaced, if catsweep made it; its parents need not be.
        kind: what it is.

    Yields:
        An empty folder to build in, on the same file system.

    Raises:
        TakenError: there is something in the place that catsweep did not make.
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
        except renaming.Unsupported:
            _step_aside(new, target, kind)


def _exchange(new: Path, target: Path, kind: Kind) -> None:
    """Put a complete folder in its place by one rename, whatever others do there meanwhile."""
    old = new.with_name(OLD)
    while True:
        with suppress(FileExistsError, FileNotFoundError):  # another writer was faster, or the target was removed
            if not os.path.lexists(target):
                renaming.move(new, target)
                return
            ownership.require(target, kind)
            ownership.adopt(target, kind)
            new.rename(old)  # what is called so is looked at before it is removed
            try:
                renaming.exchange(old, target)
            except (OSError, renaming.Unsupported):
                old.rename(new)
                raise
            if ownership.is_ours(old, kind):
                return
            renaming.exchange(old, target)  # somebody put something into it since we looked
            old.rename(new)


def _step_aside(new: Path, target: Path, kind: Kind) -> None:
    """The same by two renames, one writer at a time; a kill between them leaves what `tidy` puts back."""
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
    """A new, empty folder `NEW` in a scratch; the scratch is removed when the block ends.

    Args:
        target: which it is to replace; its parent exists.
    """
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
        for folder in (folder for folder in found if SCRATCH.fullmatch(folder.name)):
            with suppress(OSError):
                _tidy_folder(folder)


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


def _tidy_folder(scratch: Path) -> None:
    writer = scratch / WRITER
    if not os.path.lexists(writer):
        scratch.rmdir()  # its writer was killed before it began, or begins now, and then takes another
        return
    with lock_of_the_dead(writer) as dead:
        if dead:
            _remove(scratch)


def _take_if_free(path: Path, target: Path) -> None:
    with suppress(FileExistsError):
        try:
            renaming.move(path, target)
        except renaming.Unsupported:
            path.rename(target)  # fails on a folder that is not empty


def _remove(scratch: Path) -> None:
    """Remove a scratch; its lock last, so that a kill half-way leaves what can be tidied.

    What was moved aside and whose place is free takes it again; what catsweep did not make stays where it is.
    """
    old = scratch / OLD
    match = SCRATCH.fullmatch(scratch.name)
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
