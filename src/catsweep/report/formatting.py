"""Format values, durations, times, lists and links for report.html and report.md, the same on every machine."""

import math
import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from steady import grammar
from steady.printing import readable


def shown(value: Any) -> str:
    """Format a parameter or a score: four significant digits, `true`, `null`, or the readable text itself."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else {math.inf: "∞", -math.inf: "-∞"}.get(value, "nan")
    return readable(str(value))


def parameter(value: Any) -> str:
    """Format a parameter; strings in Hydra's grammar, in which `'null'` is not null."""
    return readable(grammar.as_text(value)) if isinstance(value, str) else shown(value)


def duration(seconds: float) -> str:
    """Format seconds: `48 s`, `6 min 40 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, unit, small, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {unit} {rest} {part}" if rest else f"{whole // size} {unit}"
    return f"{whole} s"


def moment(seconds: float) -> str:
    """Format Unix time: `2026-11-26 10:54 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def counted(n: int, one: str, many: str = "") -> str:
    """Format a count with its noun: `1 trial`, `1,200 trials`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Sequence[object], at_most: int = 12) -> str:
    """Format a list: `3`, `3 and 1`, `3, 1 and 2`, `3, 1 and 40 more`."""
    texts = [str(word) for word in words]
    if len(texts) > at_most:
        texts = [*texts[:at_most], f"{len(texts) - at_most} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def short(name: str, names: Sequence[str]) -> str:
    """Shorten a parameter's name to its last part, if no other name ends with the same."""
    last = name.rpartition(".")[2]
    return readable(last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name)


def breakable(text: str) -> Markup:
    """Escape a name for HTML and allow line breaks after its dots, underscores and slashes."""
    return Markup(re.sub(r"([._/]|\s(?=\())", r"\1<wbr>", str(escape(text))))


def link(folder: Path | None, home: Path) -> str:
    """Return the relative URL of a folder from the folder `home`; empty for None."""
    return quote(Path(os.path.relpath(folder, home)).as_posix(), errors="surrogateescape") + "/" if folder else ""
