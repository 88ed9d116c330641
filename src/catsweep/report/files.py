"""One way to write a text so that nobody ever reads half of it."""

import os
from pathlib import Path


def replace(path: Path, text: str) -> None:
    """Write a text so that a reader sees the old file or the new one, never half of either."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8", newline="\n")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
