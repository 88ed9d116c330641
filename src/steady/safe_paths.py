"""Checks of names and links that come from somebody else, before they become part of a path or are followed.

A name in a stranger's document may be `/../../victim`; it must be one that every system takes for one part of a path,
since bundles travel. Archives and copies keep links, so a friend's run may hold one to a file of the user. The folder
itself may be a link: where the user keeps `outputs` is theirs to say. What changes between check and use is not
defended.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from steady.exceptions import ConfigError, DataError, SteadyError

LONGEST = 200  # bytes; file systems take 255, of which `steady.atomic` and endings need some
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{3,99}(\.[a-z0-9]{2,5})?")  # the fast way: all but reserved names
_NOT_IN_NAMES = '/\\:*?"<>|'
_LIKE_SEPARATORS = "\u2044\u2215\u2216\u2571\u2572\u27cb\u27cd\u29f5\u29f8\u29f9\u2afd\ufe68\uff0f\uff3c"
_JOINERS = "\u200c\u200d"  # invisible, but parts of words and of emojis
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9])", re.IGNORECASE)


def why_not(name: str) -> str:
    """Explain why a text is no safe name; empty if it is one.

    >>> why_not("../vae"), why_not("vae-2")
    ("it holds '/'", '')
    """
    if _PLAIN.fullmatch(name) and not _RESERVED.match(name):
        return ""
    # What a font or a file system may take for another character counts as that one: fullwidth dots for dots.
    folded = unicodedata.normalize("NFKC", name)
    if not folded.strip(_JOINERS + " "):
        return "it is empty"
    if found := next((char for char in folded if char in _NOT_IN_NAMES), None):
        return f"it holds {found!r}"
    if found := next((char for char in name if char in _LIKE_SEPARATORS), None):
        return f"it holds {found!a}, which looks like a separator"
    if found := next((char for char in name + folded if _is_invisible(char)), None):
        return f"it holds the character {found!a}, which cannot be seen"
    if folded[0] == ".":
        return "it begins with a dot"
    if folded != folded.strip() or folded.endswith("."):
        return "it begins or ends with a space, or ends with a dot"
    if _RESERVED.fullmatch(folded.partition(".")[0].rstrip()):
        return "Windows reserves it for a device"
    if max(len(os.fsencode(name)), len(os.fsencode(folded))) > LONGEST:
        return f"it is longer than {LONGEST} bytes"
    return ""


def checked_name(name: object, what: str, error: type[SteadyError] = ConfigError) -> str:
    """Return a name, also a whole number as one; raise `error` for what is no safe name of `what`.

    >>> checked_name("vae-2", "study"), checked_name(7, "trial")
    ('vae-2', '7')
    """
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    why = why_not(name) if isinstance(name, str) else "it is no text"
    # Our files of photos may; a folder whose name a person types in a command may not.
    if not why and unicodedata.normalize("NFKC", str(name)).startswith("-"):
        why = "it begins with '-', as the options of commands do"
    if why:
        said = ascii(name) if isinstance(name, str) and not name.isprintable() else repr(name)
        raise error(
            f"{what} must be a name that a folder may have (letters, digits, '-', '_', '.', spaces; no path), "
            f"but {said[:80]}{'…' if len(said) > 80 else ''} came: {why}. Give another name."
        )
    assert isinstance(name, str)
    return name


def plain_name(text: str, otherwise: str) -> str:
    """Convert a text to a safe name of at most 60 characters, or else `otherwise`.

    >>> plain_name("../Mia & Leo.", "photo")
    'Mia-Leo'
    """
    kept = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFKC", text)).strip("-.")[:60].strip("-.")
    return kept if kept and not why_not(kept) else otherwise


def inside(folder: Path, path: Path) -> bool:
    """Tell whether a path leads to a folder or into it, all links followed.

    >>> inside(Path("out"), Path("out/../secret"))
    False
    """
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_invisible(char: str) -> bool:
    """Tell whether a character is a control, a mark of direction, half of a surrogate or a line separator."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS


# Its core's log, which W&B keeps in its cache and never opens by this name.
_OF_WANDB = re.compile(r"wandb/(offline-)?run-[^/]+/logs/debug-core\.log")


def refuse_links(
    paths: Iterable[Path], folder: Path, what: str, error: type[SteadyError], dangling: bool = True
) -> None:
    """Raise `error` for paths that lead out of a folder (a `what`), or are neither file nor folder.

    A path may be missing; a link within the folder may lead nowhere only if `dangling`.

    >>> Path("link").symlink_to("/etc")
    >>> refuse_links([Path("link/passwd")], Path("."), "run", DataError)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    steady.exceptions.DataError: link is a link out of the run, to /etc, and links are not followed.
    """
    for path in paths:
        if not inside(folder, path) or (not dangling and path.is_symlink() and not path.exists()):
            link = next((part for part in (path, *path.parents) if part.is_symlink()), path)
            to = f", to {os.readlink(link)}" if link.is_symlink() else ""
            raise error(
                f"{link} is a link out of the {what}{to}, and links are not followed. If that is where its files "
                f"really are: cp -rL {folder} COPY, and name the copy."
            )
        if _is_special(path):
            raise error(f"{path} is no file, but a pipe, a socket or a device. Remove it from the {what}.")


def refuse_links_within(folder: Path, what: str, error: type[SteadyError]) -> None:
    """Refuse the same (`refuse_links`) among all that is in a folder, however deep; it may be missing.

    >>> refuse_links_within(Path("nowhere"), "run", DataError)
    """
    refuse_links(_unusual(folder), folder, what, error)


def require_regular(file: Path) -> None:
    """Refuse to open a pipe, a socket or a device, all links followed: reading may never end.

    Raises:
        DataError: it is one of these. A folder passes: that is an error of who opens it.
        OSError: it is not there, or cannot be looked at.

    >>> require_regular(Path("/dev/zero"))
    Traceback (most recent call last):
    steady.exceptions.DataError: /dev/zero is no file, but a pipe, a socket or a device.
    """
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise DataError(f"{file} is no file, but a pipe, a socket or a device.")


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _unusual(folder: Path) -> Iterator[Path]:
    """Yield what is no plain file and no folder, but for what W&B makes."""
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
            of_wandb = path.is_symlink() and _OF_WANDB.fullmatch(path.relative_to(folder).as_posix())
            if not of_wandb and (path.is_symlink() or _is_special(path)):
                yield path
