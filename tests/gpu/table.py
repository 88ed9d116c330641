"""The table that `make gpu-check` prints: one row per thing that was tried, and what it says in the end."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One thing that was tried.

    Attributes:
        what: was tried.
        wanted: of it.
        got: what came.
        ok: the verdict; None for a number that is only told.
    """

    what: str
    wanted: str
    got: str
    ok: bool | None


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown; a bar within a cell would end it, so it is written as a slash."""
    words = {True: "ok", False: "**failed**", None: ""}
    lines = ["| what | wanted | got | |", "| --- | --- | --- | --- |"]
    for row in rows:
        cells = (row.what, row.wanted, row.got, words[row.ok])
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "/").split()) for cell in cells) + " |")
    return "\n".join(lines)


def exit_code(rows: Sequence[Row]) -> int:
    """1 if anything failed, or nothing was tried."""
    return int(not rows or any(row.ok is False for row in rows))


def finite(what: str, scores: Mapping[str, float]) -> Row:
    """That there are scores, and all of them are numbers."""
    told = ", ".join(f"{name.removeprefix('val/')} {value:.4g}" for name, value in sorted(scores.items()))
    return Row(what, "finite", told or "none", bool(scores) and all(map(math.isfinite, scores.values())))


def equal(what: str, wanted: str, got: str) -> Row:
    """That something is what was wanted."""
    return Row(what, wanted, got, wanted == got)


def share(what: str, ours: float, bare: float, wanted: float) -> Row:
    """That our rate (images/s) is at least the wanted share of another."""
    return Row(what, f">= {wanted:.0%}", f"{ours:,.0f} of {bare:,.0f} = {ours / bare:.1%}", ours >= wanted * bare)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Keep rows for the process that prints them."""
    path.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")


def read(path: Path) -> list[Row]:
    """The rows that another process has kept; none if it has kept none."""
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
