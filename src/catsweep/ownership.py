"""Mark the folders that catsweep made, which alone it may replace or remove, and only while nothing else is in them.

The marker names all files in the folder. So a folder of the user is never touched, whatever a configuration or a
stranger's file calls the target; nor is a file of his own in a folder of ours.
"""

import errno
import fnmatch
import json
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from catsweep.errors import TakenError

MARKER = ".catsweep.json"
_BEGINNING = 1 << 16  # bytes of a file, among which its sign is
NAMED = 3  # files that a message names
# Of systems, and scratches of writers that were killed (`steady.atomic`).
_SCRATCHES = tuple(f".*.{16 * '[0-9a-f]'}.{by}" for by in ("steady", "catsweep"))
_ANYWHERE = ("__pycache__/*.pyc", ".DS_Store", *_SCRATCHES)
_WORTHLESS = (*_ANYWHERE, *(f"*/{name}" for name in _ANYWHERE), "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class FolderKind:
    """Kind of folder that is made as a whole."""

    name: str  # for messages, with its article: `a bundle`
    remedy: str  # how another place is chosen: `out=DIR`
    files: tuple[str, ...]  # patterns (`*` also takes `/`) by which one of before there was a marker is known
    sign: str = ""  # the one of these that no such folder lacks; empty if it may be any
    later: tuple[str, ...] = ()  # patterns of what catsweep itself writes into it when it is complete


def mark(folder: Path, kind: FolderKind) -> None:
    """Write the marker of a complete folder."""
    with _opened(folder) as handle:
        _write(handle, kind)


def adopt(folder: Path, kind: FolderKind) -> None:
    """Mark a folder that `require` accepts, if it has no marker; one that may only be read stays without."""
    with _opened(folder) as handle:
        if _read(handle) is None and _is_at(handle, folder):
            with suppress(PermissionError):
                _write(handle, kind)


def is_whole(folder: Path) -> bool:
    """Tell whether a folder has the marker, and no file that the marker does not name."""
    with _opened(folder) as handle:
        marker = _read(handle)
        return marker is not None and not any(_others(handle, marker))


def require(folder: Path, kind: FolderKind) -> None:
    """Refuse, by TakenError, a place (links followed) for a folder unless it is free, empty or made by catsweep."""
    remedy = f"Move it away, or choose another place: {kind.remedy}."
    with suppress(OSError), _opened(folder) as handle:
        if (marker := _read(handle)) is not None and marker.made != kind.name:
            raise TakenError(f"Expected to write {kind.name} to {folder}, but {marker.made} is there. {remedy}")
    if (strange := _strangers(folder, kind)) is None:
        raise TakenError(f"Expected to write {kind.name} to {folder}, but a file of that name is there. {remedy}")
    if strange:
        named = ", ".join(file if file.isprintable() else ascii(file) for file in sorted(strange)[:NAMED])
        more = " and more" if len(strange) > NAMED else ""
        raise TakenError(
            f"Expected to write {kind.name} to {folder}, in the place of what is there; but catsweep did not make "
            f"{named}{more} in it, so nothing was changed. {remedy}"
        )


def require_file(path: Path, sign: str, remedy: str) -> None:
    """Refuse, by TakenError, to write over a file without the `sign` near its beginning that those of catsweep have."""
    try:
        with path.open("rb") as file:
            is_our_own = sign.encode() in file.read(_BEGINNING)
    except FileNotFoundError:
        return
    if not is_our_own:
        raise TakenError(
            f"Expected to write {path}, but a file of that name is there that catsweep did not write; it was left as "
            f"it is. Move it away, or choose another place: {remedy}."
        )


def is_ours(folder: Path, kind: FolderKind) -> bool:
    """Tell whether `require` would let a folder be replaced."""
    return _strangers(folder, kind) == []


def _strangers(folder: Path, kind: FolderKind) -> list[str] | None:
    """List files in a place that catsweep did not make; None if the place is a file itself."""
    while True:
        try:
            with _opened(folder) as handle:
                marker = _read(handle)
                known = () if marker is None else marker.files
                others = _others(handle, _Marker(kind.name, known, kind.later))
                if marker is None and (not kind.sign or _type(handle, kind.sign) == stat.S_IFREG):
                    others = (file for file in others if not _matches(file, kind.files))
                strange = list(islice(others, NAMED + 1))  # a place may be the home folder, or all there is
                if _is_at(handle, folder):  # else another writer has replaced it, and may be about to remove this one
                    return strange
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            if not folder.exists():
                return []
        except OSError as error:
            if error.errno != errno.ELOOP:  # of links in a circle
                raise
            return None


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder; the handle goes on meaning this folder when another takes its place."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _type(handle: int, name: str) -> int:
    """Return the type of a file in a folder, links not followed; 0 if it is not there or may not be looked at."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=handle, follow_symlinks=False).st_mode)
    except OSError:
        return 0


def _is_at(handle: int, folder: Path) -> bool:
    return os.path.samestat(os.fstat(handle), os.stat(folder))


@dataclass(frozen=True)
class _Marker:
    made: str  # name of the kind
    files: Collection[str]
    later: tuple[str, ...]  # patterns


def _others(handle: int, marker: _Marker) -> Iterator[str]:
    """List files in a folder that are none of ours, but for what systems leave everywhere."""
    known, allowed = set(marker.files), (*marker.later, *_WORTHLESS)
    return (file for file in _files(handle) if file not in known and not _matches(file, allowed))


def _files(handle: int) -> Iterator[str]:
    """List all files, links, and empty or locked folders (`name/`) below a folder, but the marker."""
    locked: list[str] = []

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            locked.append(str(error.filename))

    for parent, folders, names, here in os.fwalk(".", dir_fd=handle, onerror=note):
        place = PurePosixPath(parent)
        links = [name for name in folders if _type(here, name) == stat.S_IFLNK]
        found = (str(place / name) for name in (*names, *links))
        yield from (path for path in found if path != MARKER)
        if not folders and not names and parent != ".":
            yield f"{place}/"
    yield from locked


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(file, pattern) for pattern in patterns)


def _read(handle: int) -> _Marker | None:
    """Read the marker; None without one, or with one that is damaged."""
    try:
        descriptor = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=handle)
        with open(descriptor, encoding="utf-8") as file:
            found = json.load(file)
        made, files, later = str(found["made"]), found["files"], found["later"]
        assert found["by"] == "catsweep"
        assert all(isinstance(text, str) for text in (*files, *later))
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError):
        return None
    return _Marker(made, files, tuple(later))


def _write(handle: int, kind: FolderKind) -> None:
    about = "catsweep made this folder, and may replace it as a whole. A file that is not listed here is never deleted."
    # File names that are not UTF-8 keep their bytes, as escapes.
    said = {"by": "catsweep", "made": kind.name, "about": about, "files": sorted(_files(handle)), "later": kind.later}
    # One that is torn counts as none.
    marker = os.open(MARKER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666, dir_fd=handle)
    with open(marker, "w", encoding="utf-8") as file:
        file.write(json.dumps(said, indent=1) + "\n")
