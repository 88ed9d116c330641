"""Files that a reader sees as they were or as they are, and never half written; whoever writes one comes here.

Folders as a whole: `catsweep.export.swap`.
"""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

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
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with named(path):
            yield unfinished
            os.replace(unfinished, path)
    finally:
        with suppress(OSError):  # what was raised says more
            unfinished.unlink(missing_ok=True)


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
