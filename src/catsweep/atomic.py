"""Files and folders that a reader sees as they were or as they are, and never half written; all writers come here.

What is written stands in a scratch beside its place (`catsweep.scratch`) until it is whole. A file takes its place by
one rename. A folder exchanges places with the one that is there (`catsweep.renaming`), which is removed afterwards; and
only if catsweep made it (`catsweep.ownership`). So a kill at any moment leaves the old one or the new one, and what it
leaves beside that is removed by whoever writes there next.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from catsweep import ownership, renaming, scratch
from catsweep.ownership import Kind
from catsweep.places import named


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file elsewhere, and put it in its place when the block ends without an error.

    An error inside the block leaves what was there before, and no debris.

    Args:
        path: of the file; missing folders are made.

    Yields:
        Where to write, on the same file system; nobody else, of any machine, writes there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with named(path), scratch.file(path) as unfinished:
        yield unfinished
        os.replace(unfinished, path)


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
    scratch.tidy_earlier(target, kind)
    with scratch.folder(target) as new:
        yield new
        ownership.mark(new, kind)
        try:
            _exchange(new, target, kind)
        except renaming.Unsupported:
            _step_aside(new, target, kind)


def _exchange(new: Path, target: Path, kind: Kind) -> None:
    """Put a complete folder in its place by one rename, whatever others do there meanwhile."""
    old = new.with_name(scratch.OLD)
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
    """The same by two renames, one writer at a time; a kill between them leaves what `scratch.tidy` puts back."""
    with FileLock(target.with_name(f".{target.name}.lock")):
        ownership.require(target, kind)
        if not os.path.lexists(target):
            os.replace(new, target)
            return
        ownership.adopt(target, kind)
        old = new.with_name(scratch.OLD)
        os.replace(target, old)
        try:
            ownership.require(old, kind)  # again: somebody may have put something into it
            os.replace(new, target)
        except BaseException:
            os.replace(old, target)
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes that are on the disk before they are in their place: no loss of power leaves an empty file."""
    with replacing(path) as unfinished, unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a text, in UTF-8, with line ends as they are in it."""
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path, content: Any, *, ascii_only: bool = True) -> None:
    """Write plain values as a person reads them; with `ascii_only=False` letters stay as they are."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=ascii_only) + "\n")
