"""Show how far `src/cats.py` is: a table that is drawn anew on a terminal, elsewhere a line now and then."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from steady import printing
from steady.printing import readable_name, say
from steady.watch.progress import duration

EVERY = 0.5  # seconds between two pictures
LINE_EVERY = 60.0  # seconds between two lines
TAIL = 4096  # bytes of a log in which its last line is looked for
WIDTH, WIDTH_OF_ONE = 100, 60  # characters of the only log in a line, and of one of several


@dataclass(frozen=True)
class Progress:
    """How far a run is; times in seconds."""

    name: str
    budget: float
    spent: Mapping[str, float]  # by step
    planned: Mapping[str, float]  # by step, in their order
    titles: Mapping[str, str]  # by step
    step: str  # that is running
    logs: Sequence[Path]  # of its commands

    @property
    def left(self) -> float:
        """Seconds of the budget that are left; 0 if it is overdrawn."""
        return max(0.0, self.budget - sum(self.spent.values()))


class Lines:
    """A line a minute, and one for each step."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream, self.step, self.due = stream or sys.stdout, "", 0.0

    def show(self, now: Progress) -> None:
        """Write a line, if a minute has passed or another step has begun."""
        if now.step == self.step and time.monotonic() < self.due:
            return
        said = [] if now.step != self.step else last_lines(now.logs)
        width = WIDTH if len(now.logs) == 1 else WIDTH_OF_ONE
        self.say(
            "  |  ".join([f"{now.titles[now.step]}, {duration(now.left)} left", *(cut(one, width) for one in said)])
        )
        self.step, self.due = now.step, time.monotonic() + LINE_EVERY

    def say(self, line: str) -> None:
        """Write a line with the time."""
        say(f"{time.strftime('%H:%M:%S')}  {readable_name(line)}", file=self.stream, flush=True)

    def close(self) -> None:
        """Do nothing."""


class Picture(Lines):
    """The steps with their times, and the last line of each log of the one that runs."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.live.start()

    def show(self, now: Progress) -> None:
        """Draw, unless that was done a moment ago."""
        if time.monotonic() >= self.due:
            self.live.update(render(now), refresh=True)
            self.due = time.monotonic() + EVERY

    def say(self, line: str) -> None:
        """Write a line above the picture."""
        self.console.print(Text(f"{time.strftime('%H:%M:%S')}  {readable_name(line)}"))

    def close(self) -> None:
        """Remove the picture."""
        self.live.stop()


def display_for(stream: TextIO | None = None) -> Lines:
    """Make a picture if the stream (standard error) is a terminal that can show one, else lines on standard output.

    >>> type(display_for(sys.stdout)).__name__
    'Lines'
    """
    target = stream or sys.stderr
    if target.isatty() and not (console := printing.console(file=target)).is_dumb_terminal:
        return Picture(console)
    return Lines(stream)


def render(now: Progress) -> Group:
    """Draw the time left, the steps, and the last line of each log."""
    words = (Column(name, no_wrap=True) for name in ("", "step"))
    amounts = (Column(name, no_wrap=True, justify="right") for name in ("took", "planned"))
    table = Table(*words, *amounts, box=None, pad_edge=False, header_style="dim")
    steps = list(now.planned)
    for place, step in enumerate(steps):
        mark = "▸" if step == now.step else "✓" if place < steps.index(now.step) else " "
        taken = duration(now.spent[step]) if step in now.spent else ""
        style: Any = "bold" if step == now.step else "dim" if mark == "✓" else None
        planned = duration(now.planned[step]) if now.planned[step] else ""
        table.add_row(mark, now.titles[step], taken, planned, style=style)
    head = f"{now.name}: {duration(now.left)} left of {duration(now.budget)}"
    said = (Text(line, style="dim", overflow="ellipsis", no_wrap=True) for line in last_lines(now.logs))
    return Group(Text(head), table, *said)


def cut(line: str, width: int) -> str:
    """Shorten a line at the end of a word, if there is one.

    >>> cut("trial 3 finished", 12), cut("trial", 4)
    ('trial 3…', 'tri…')
    """
    if len(line) <= width:
        return line
    short = line[: width - 1]
    return f"{short.rpartition(' ')[0] or short}…"


def last_lines(logs: Sequence[Path]) -> list[str]:
    """Read the last line of each log that says anything, with the log's name if there are several logs."""
    last = {log: (tail(log, 1) or [""])[0] for log in logs}
    return [f"{log.stem}: {line}" if len(logs) > 1 else line for log, line in last.items() if line]


def tail(log: Path, lines: int) -> list[str]:
    """Read the last lines of a log that say anything, at most `lines`."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    said = [line.strip() for line in text.replace("\r", "\n").split("\n")]
    return [readable_name(line) for line in said if any(map(str.isalnum, line))][-lines:]
