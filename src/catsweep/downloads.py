"""Download networks once, by `make judge` and `make background-model`: the command, and the comparison of digests."""

import argparse
import hashlib
from collections.abc import Callable
from pathlib import Path

from catsweep.errors import CatsweepError
from steady.places import translated_errors
from steady.printing import readable, say


def command(fetch: Callable[[Path], bool], file: Path, description: str, words: list[str] | None = None) -> None:
    """Run a command line (None: that of this process) that fetches a network; SystemExit with a message if it cannot.

    `fetch` puts it into a file, by default `file`, unless it is there, and returns whether it had to.
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
    """Tell whether a file is there, and has this digest."""
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256


def require(content: bytes, sha256: str, what: str, kind: type[CatsweepError]) -> None:
    """Refuse, by an error of this kind, content of another digest than expected."""
    if (came := hashlib.sha256(content).hexdigest()) != sha256:
        raise kind(f"Expected {what} to have the sha256 {sha256[:12]}…, but it has {came[:12]}….")
