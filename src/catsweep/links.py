"""Links and pipes in folders that somebody else may have made: what would be written, read or waited for elsewhere.

Archives and copies keep links, so a friend's run may hold one to a file of the user. `catsweep.runs` and
`catsweep.search.folders` ask here before anything is written into a folder that is there already, `export.digests`
before a bundle is read, and whoever reads a document `require_regular`. The folder may itself be a link: where the user
keeps `outputs` is theirs to say. What changes between check and use is not defended.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from catsweep.errors import CatsweepError, DataError
from catsweep.names import inside

# Its core's log, which W&B keeps in its cache and never opens by this name.
_OF_WANDB = re.compile(r"wandb/(offline-)?run-[^/]+/logs/debug-core\.log")


def refuse(paths: Iterable[Path], folder: Path, what: str, error: type[CatsweepError], dangling: bool = True) -> None:
    """Refuse what is elsewhere, or no file: it would be whatever it points to on this machine.

    Args:
        paths: in the folder; they need not be there.
        folder: they may not lead out of it.
        what: it is, for the message: `bundle`.
        error: to raise.
        dangling: whether a link within the folder may lead nowhere.

    Raises:
        CatsweepError: of that class, if one leads out of the folder, or is no file and no folder.
    """
    for path in paths:
        if not inside(folder, path) or (not dangling and path.is_symlink() and not path.exists()):
            link = next((part for part in (path, *path.parents) if part.is_symlink()), path)
            to = f", to {os.readlink(link)}" if link.is_symlink() else ""
            raise error(
                f"{link} is a link out of the {what}{to}, and links are not followed. If that is where its files "
                f"really are: cp -rL {folder} COPY, and name the copy."
            )
        if path.exists() and not path.is_file() and not path.is_dir():
            raise error(f"{path} is no file, but a pipe, a socket or a device. Remove it from the {what}.")


def refuse_within(folder: Path, what: str, error: type[CatsweepError]) -> None:
    """As `refuse`, for all that is in a folder, however deep; it need not be there.

    Raises:
        CatsweepError: see `refuse`.
    """
    refuse(_unusual(folder), folder, what, error)


def require_regular(file: Path) -> None:
    """Refuse to open what a read of might never come back from, or what has no end.

    Args:
        file: links are followed.

    Raises:
        DataError: it is a pipe, a socket or a device.
        OSError: it is not there, or cannot be looked at.
    """
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # that of a folder is told by who opens it
        raise DataError(f"{file} is no file, but a pipe, a socket or a device.")


def _unusual(folder: Path) -> Iterator[Path]:
    """What is no plain file and no folder, but for what W&B makes."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            linked = path.is_symlink()
            if linked and _OF_WANDB.fullmatch(path.relative_to(folder).as_posix()):
                continue
            if linked or (path.exists() and not path.is_file() and not path.is_dir()):
                yield path
