"""Read JSON documents and check checkpoints of runs, bundles and studies; a torn one is refused by name.

A kill leaves none torn; copies, full disks and other people's hands do. Nothing heavy here: `best_model` must not wait
for torch. What is in a checkpoint: `catsweep.checkpoints`.
"""

import hashlib
import json
import zipfile
from itertools import chain
from pathlib import Path
from typing import Any

from catsweep.errors import DataError
from steady.safe_paths import require_regular

BEST_CHECKPOINT = Path("checkpoints/best.ckpt")  # in the folder of a run
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/last-previous.ckpt")
DEEPEST = 50  # levels of a document: what takes them one inside the other (copies, prints) has room for some hundreds
LARGEST = 1e100  # of a score: the sum, the spread and the axis of some that are larger have no number


def read_json(file: Path) -> dict[str, Any]:
    """Read a document that holds an object; else raise a `DataError`, whose message ends without a remedy."""
    try:
        require_regular(file)
        found = json.loads(file.read_text(encoding="utf-8"))
    # Deep nesting is a RecursionError, what is no UTF-8 and no JSON are ValueErrors.
    except (OSError, ValueError, RecursionError) as error:
        said = getattr(error, "strerror", None) or error
        raise DataError(f"{file} cannot be read: {said}. It is torn, or was never there.") from error
    if _deep(found):
        raise DataError(f"{file} is nested more than {DEEPEST} deep, as no document of catsweep's is.")
    if not isinstance(found, dict):
        raise DataError(f"{file} holds {str(found)[:40]!r}, and not the object that catsweep writes.")
    return found


def _deep(found: Any) -> bool:
    level = [found]
    for _ in range(DEEPEST):
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = list(chain.from_iterable(inner))
    return bool(level)


def is_score(value: float) -> bool:
    """Whether a number can be averaged and drawn beside others: finite, and no larger than any score is."""
    return abs(value) <= LARGEST


NUMBER, WHOLE, TEXT, ANY = "a number", "a whole number", "a text", "*"  # kinds of values; every key of an object


def misshapen(value: Any, shape: Any, at: str = "") -> str | None:
    """Find the first place where a document is not of the shape that catsweep writes, in words; None if there is none.

    A shape is a kind; an object of the shapes of its keys, `ANY` for all of them; or a list of the one of its items.
    What is missing or null passes. `at` is the place of the value, for the recursion.
    """
    if value is None:
        return None
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return f"{at or 'it'} must be an object; got {value!r:.40}"
        inner = [(key, value.get(key), shape[key]) for key in shape if key != ANY]
        inner += [(key, one, shape[ANY]) for key, one in value.items()] if ANY in shape else []
    elif isinstance(shape, list):
        if not isinstance(value, list):
            return f"{at or 'it'} must be a list; got {value!r:.40}"
        inner = [(str(place), one, shape[0]) for place, one in enumerate(value)]
    else:
        return None if _is(value, shape) else f"{at or 'it'} must be {shape}; got {value!r:.40}"
    found = (misshapen(one, kind, f"{at}.{key}".lstrip(".")) for key, one, kind in inner)
    return next((fault for fault in found if fault), None)


def _is(value: Any, kind: str) -> bool:
    if kind == TEXT:
        return isinstance(value, str)
    # A float64 holds no larger ones, and the text of a whole number is bounded too.
    is_whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**300
    return is_whole or (kind == NUMBER and isinstance(value, float))


def require_whole(checkpoint: Path) -> None:
    """Compare each byte of a checkpoint, a zip of `torch.save`, with the checksums in it; errors as of `read_json`.

    torch itself does not: what was not written is zeros on some disks, and weights to torch.
    """
    if not checkpoint.is_file():
        raise DataError(f"Expected the checkpoint {checkpoint}; it is not there.")
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed, as no tool writes one")  # it may hold a terabyte of zeros
            broken = archive.testzip()
        reason = f"{broken!r:.60} in it is not what was written" if broken else ""
    # A damaged directory makes it raise struct's errors, NotImplementedError, zlib's and more besides its own.
    except Exception as error:
        reason = in_short(error)
    if reason:
        raise DataError(torn(checkpoint, reason))


def torn(checkpoint: Path, reason: str) -> str:
    """Say that a checkpoint is torn."""
    return (
        f"The checkpoint {checkpoint} is torn, or none of catsweep's ({checkpoint.stat().st_size:,} bytes: {reason})."
    )


def in_short(error: Exception) -> str:
    """Shorten what an exception of a library says to its first line, in printable letters."""
    line = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)


def file_digest(path: Path) -> str:
    """Hash a file: sha256, hexadecimal; an `OSError` if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
