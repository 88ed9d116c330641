r"""What may become part of a path when it comes from a file or a command line: a name, and nothing else.

A name of a study, a trial, a ready set, a checkpoint or a file that some document lists is checked here before a path
is built of it; so a `choice.json` of a stranger cannot name `/../../victim`. A name is one that every system takes
for one part of a path: Windows has more separators and reserved names than Linux, and bundles travel.

>>> checked("vae-2", "study")
'vae-2'
>>> why_not("../vae")
"it holds '/'"
"""

import os
import re
import unicodedata
from pathlib import Path

from catsweep.errors import CatsweepError, ConfigError

LONGEST = 200  # bytes; file systems take 255, of which `catsweep.atomic` and endings need some
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{3,99}(\.[a-z0-9]{2,5})?")  # the fast way: all but reserved names
_NOT_IN_NAMES = '/\\:*?"<>|'
_LIKE_SEPARATORS = "\u2044\u2215\u2216\u2571\u2572\u27cb\u27cd\u29f5\u29f8\u29f9\u2afd\ufe68\uff0f\uff3c"
_JOINERS = "\u200c\u200d"  # invisible, but parts of words and of emojis
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9])", re.IGNORECASE)


def why_not(name: str) -> str:
    """Why a text is no name; empty if it is one."""
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


def checked(name: object, what: str, error: type[CatsweepError] = ConfigError) -> str:
    """A name, as it is.

    Args:
        name: a text; a whole number is the name of a trial, and of a study that the command line takes for a number.
        what: it names, for the message: `study`, `"trial" in outputs/best_model/choice.json`.
        error: to raise.

    Raises:
        CatsweepError: of that class, if it is none.
    """
    if isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    why = why_not(name) if isinstance(name, str) else "it is no text"
    # Files of photos that we prepare may; a folder that a person types a command for may not.
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


def plain(text: str, otherwise: str) -> str:
    """A name for what is called `text`, in plain letters: for files that are named after somebody's photos.

    >>> plain("../Mia & Leo.", "photo")
    'Mia-Leo'
    """
    kept = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFKC", text)).strip("-.")[:60].strip("-.")
    return kept if kept and not why_not(kept) else otherwise


def inside(folder: Path, path: Path) -> bool:
    """Whether a path leads to a folder or to something in it, all links followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _is_invisible(char: str) -> bool:
    """Control characters, marks of direction, halves of surrogates, line separators."""
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in _JOINERS
