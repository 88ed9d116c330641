"""Files on disk: written whole or not at all, linked instead of copied, known by their digest."""

import hashlib
import os
import shutil
from pathlib import Path

from steady.atomic import replacing


def file_digest(path: Path) -> str:
    """sha256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never half of either."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(data)


def hard_link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has none."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with replacing(target) as unfinished:
            shutil.copyfile(source, unfinished)
