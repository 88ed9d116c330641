"""The files of a source as one thing: names in a fixed order, and bytes behind each name.

What the sources read from. `Folder` is here; `catsweep.data.archives` has zips and tars, `catsweep.data.demo_files`
cats that are drawn when asked for, `catsweep.data.hub` a set of the Hugging Face Hub.
"""

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from catsweep.data.decode import MAX_BYTES, Unreadable, read_bytes
from catsweep.data.memory import Budget
from catsweep.data.threads import in_order
from catsweep.errors import DataError

# Modules that say what comes of a file.
READING = ("archives.py", "colour.py", "decode.py", "files.py", "jpeg.py", "levels.py", "pixels.py")
MEMORY = Budget(MAX_BYTES)


class Files(Protocol):
    """Files of a source, each under the name that a person knows it by."""

    def __iter__(self) -> Iterator[str]:
        """Names of the photos, in an order that depends on nothing but the source; what cannot be read is included."""

    def __contains__(self, name: object) -> bool:
        """Whether there is a file of this name, photo or not."""

    def size(self, name: str) -> int:
        """Bytes that `read` will take, or a little more; 0 if it will not take any."""

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """The bytes of one file, at most `limit`. Thread-safe.

        Raises:
            Unreadable: if it is missing, or may not or cannot be read.
        """

    def digest(self, name: str) -> str:
        """Differs if the content does; usually `content_digest`. Of one that cannot be read, the kind of reason."""


@contextmanager
def reading(files: Files, name: str) -> Iterator[bytes]:
    """The bytes of a photo, while the block runs; together, all threads read no more than `MAX_BYTES` at a time.

    Raises:
        Unreadable: see `Files.read`.
    """
    with MEMORY.hold(files.size(name)):
        yield files.read(name)


def content_digest(files: Files, name: str) -> str:
    """sha256 of a file's content, hexadecimal; of one that cannot be read, the kind of reason."""
    try:
        with reading(files, name) as data:
            return hashlib.sha256(data).hexdigest()
    except Unreadable as error:
        return error.kind


def digests(files: Files, names: Sequence[str]) -> Iterator[str]:
    """`Files.digest` of each, in their order, on all cores."""
    return in_order(files.digest, names)


def digest(files: Files, beside: str | None = None) -> str:
    """Over names and content of all photos, and of the files called NAME + `beside`; hexadecimal.

    A folder and an archive of it have the same.
    """
    names = [file for name in files for file in ([name] if beside is None else [name, name + beside])]
    state = hashlib.sha256()
    for name, content in zip(names, digests(files, names), strict=True):
        state.update(os.fsencode(name) + b"\0" + content.encode() + b"\0")
    return state.hexdigest()


class Folder:
    """A folder with its sub-folders; hidden ones (also macOS's `._x.jpg`) are passed over.

    Args:
        path: of the folder.
        suffixes: endings of photos, in lower case with their dot.
    """

    def __init__(self, path: Path, suffixes: Collection[str]) -> None:
        self.path, self.suffixes = path, suffixes

    def __iter__(self) -> Iterator[str]:
        def fail(error: OSError) -> None:
            raise DataError(f"Expected to list {error.filename}, but: {error.strerror}. Allow it, or move it away.")

        for parent, folders, names in os.walk(self.path, onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = {name for name in folders if Path(parent, name).is_symlink()}  # not followed, but accounted for
            for name in sorted([*names, *links]):
                if name in links or (not name.startswith(".") and Path(name).suffix.lower() in self.suffixes):
                    yield str(Path(parent, name).relative_to(self.path))

    def __contains__(self, name: object) -> bool:
        return os.path.lexists(self.path / str(name))

    def size(self, name: str) -> int:
        """See `Files`."""
        with suppress(OSError, ValueError):
            return os.lstat(self.path / name).st_size
        return 0

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        return read_bytes(self.path / name, limit)

    def digest(self, name: str) -> str:
        """See `Files`."""
        return content_digest(self, name)
