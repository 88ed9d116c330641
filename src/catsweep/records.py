"""The JSON documents and checkpoints of runs, bundles and studies, looked at such that a torn one is named.

They are written by `catsweep.atomic`, so a kill leaves none torn; copies, full disks and other people's hands do.
Nothing heavy here: `best_model` must not wait for torch. What is in a checkpoint: `catsweep.checkpoints`.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

from catsweep.errors import DataError
from catsweep.links import require_regular


def read_json(file: Path) -> dict[str, Any]:
    """Read a document that holds an object.

    Args:
        file: in UTF-8.

    Raises:
        DataError: it is not there, cannot be read, is torn, or holds something else; the message ends without a remedy.
    """
    try:
        require_regular(file)
        found = json.loads(file.read_text(encoding="utf-8"))
    # Deep nesting is a RecursionError, what is no UTF-8 and no JSON are ValueErrors.
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DataError(f"{file} cannot be read: {said}. It is torn, or was never there.") from error
    if not isinstance(found, dict):
        raise DataError(f"{file} holds {str(found)[:40]!r}, and not the object that catsweep writes.")
    return found


def require_whole(checkpoint: Path) -> None:
    """Compare each byte of a checkpoint with the checksums in it.

    torch itself does not: what was not written is zeros on some disks, and weights to torch.

    Args:
        checkpoint: the zip that `torch.save` writes.

    Raises:
        DataError: there is none, or it is torn; the message ends without a remedy.
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
    """The sentence that says so."""
    return (
        f"The checkpoint {checkpoint} is torn, or none of catsweep's ({checkpoint.stat().st_size:,} bytes: {reason})."
    )


def in_short(error: Exception) -> str:
    """What an exception of a library says in its first line, in letters that a terminal only shows."""
    line = (str(error).strip() or type(error).__name__).partition("\n")[0][:200]
    return "".join(letter if letter.isprintable() else "?" for letter in line)
