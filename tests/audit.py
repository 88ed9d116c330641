"""What a piece of code does besides computing, as Python's own audit events tell it: files, processes, connections."""

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PLACES = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path, f"{Path(__file__).parents[1]}/src"}
# Where code, and what it ships with, is read from; and what the system tells of itself.
CODE = (*(str(Path(place).resolve()) for place in _PLACES if place and Path(place).is_dir()), "/proc", "/sys", "/usr")
ACTS = (
    "socket.", "subprocess.", "os.", "shutil.", "urllib.", "http.client.", "ftplib.", "smtplib.", "webbrowser.",
    "pickle.find_class", "sqlite3.", "tempfile.", "pty.", "mmap.", "ctypes.dlopen", "syslog.",
)  # fmt: skip
HARMLESS = {"os.listdir", "os.scandir", "os.putenv", "os.unsetenv"}  # of an import; the last two are settings of torch

_watching: list[list[str]] = []
_installed = False


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is done while the block runs, a line each; reading code and what lies beside it does not count."""
    global _installed
    if not _installed:
        sys.addaudithook(_hook)
        _installed = True
    seen: list[str] = []
    _watching.append(seen)
    try:
        yield seen
    finally:
        _watching.remove(seen)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open":
        path, _, flags = args
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if isinstance(path, int) or (not writes and _of_code(path)):
            return
    elif event in HARMLESS or not event.startswith(ACTS):
        return
    for seen in _watching:
        seen.append(f"{event} {args!r}"[:300])


def _of_code(path: Any) -> bool:
    return os.path.abspath(os.fsdecode(path)).startswith(CODE)
