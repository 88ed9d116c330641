"""Values, durations and moments as the report writes them: short, the same on every machine, and safe for UTF-8.

Pure functions, used by report.html and report.md alike.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from steady import grammar
from steady.printing import readable

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def shown(value: Any) -> str:
    """A parameter or a score: four digits that count, `true`, `null`, or the text itself."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else {math.inf: "∞", -math.inf: "-∞"}.get(value, "nan")
    return readable(str(value))


def parameter(value: Any) -> str:
    """A parameter as `shown` has it, but a string as Hydra takes it: `'null'` is not null."""
    return readable(grammar.spelled(value)) if isinstance(value, str) else shown(value)


def duration(seconds: float) -> str:
    """`48 s`, `6 min 40 s`, `3 h 5 min`, `2 d 4 h`."""
    whole = round(seconds)
    for size, unit, small, part in ((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min"), (MINUTE, "min", 1.0, "s")):
        if whole >= size:
            most, rest = int(whole // size), int(whole % size // small)
            return f"{most} {unit} {rest} {part}" if rest else f"{most} {unit}"
    return f"{whole} s"


def moment(seconds: float) -> str:
    """Unix time as `2026-11-26 10:54 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"


def counted(n: int, one: str, many: str = "") -> str:
    """`1 trial`, `1,200 trials`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def listed(words: Sequence[object], at_most: int = 12) -> str:
    """`3`, `3 and 1`, `3, 1 and 2`, `3, 1 and 40 more`."""
    texts = [str(word) for word in words]
    if len(texts) > at_most:
        texts = [*texts[:at_most], f"{len(texts) - at_most} more"]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
