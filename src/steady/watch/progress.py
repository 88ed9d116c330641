"""Show a running sweep: a live table on a terminal, plain lines elsewhere.

`ProgressReporter` fills a `SweepState` from the study, the executor and the progress files of trials, and hands it to
a `Display`. The scheduler calls `event` at each start and end of a trial and `refresh` about once a second; both cost
milliseconds.
"""

import heapq
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TextIO

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steady import printing
from steady.options import SweepOptions
from steady.printing import readable_name, say
from steady.run.executor import Executor, Job
from steady.study import budget, meta, results
from steady.study.trial_folders import PROGRESS

REFRESH = 0.5  # seconds between two pictures of the table
BELOW = 5  # lines of the picture that are not slots: the heading, three lines below, the cursor's
ENDS = ("finished", "pruned", "failed", "waiting")  # counts that are shown; one running is in the table
NUMBERS = ("epoch", "epochs", "score", "seconds_left", "updated")  # in the progress of a trial


@dataclass(frozen=True)
class SlotView:
    """State of a busy slot.

    Attributes:
        slot: number, from 0.
        trial: number of the trial in it.
        epoch: reached; None before the first has ended.
        epochs: at most.
        metric: name of the rung score.
        score: the latest.
        seconds_left: until the trial's budget is used up.
        started: on the clock of `SweepState.now`.
    """

    slot: int
    trial: int
    epoch: int | None = None
    epochs: int | None = None
    metric: str | None = None
    score: float | None = None
    seconds_left: float | None = None
    started: float = 0.0


@dataclass(frozen=True)
class SweepState:
    """State of a sweep.

    Attributes:
        study: name.
        n_trials: of the study in all.
        counts: number of trials that are finished, pruned, failed, waiting, running.
        slots: one entry each; None for an idle one.
        best: in words.
        finished_seconds: how long each trial took that has ended.
        started: when this start of the sweep began, seconds.
        timeout: seconds from then after which no trial begins.
        now: on the same clock.
    """

    study: str
    n_trials: int
    counts: Mapping[str, int]
    slots: Sequence[SlotView | None]
    best: str = ""
    finished_seconds: Sequence[float] = field(default_factory=list)
    started: float = 0.0
    timeout: float | None = None
    now: float = 0.0

    def seconds_left(self) -> float | None:
        """Estimate the seconds until all trials have ended, or the timeout lets none begin; None if nobody can."""
        remaining = max(0, self.n_trials - sum(self.counts.values())) + self.counts.get("waiting", 0)
        running = [slot.seconds_left for slot in self.slots if slot is not None]
        left = estimate_left(self.finished_seconds, remaining, len(self.slots), running)
        if self.timeout is None:
            return left
        # Those that run at the timeout go on to their own end.
        until = max([self.timeout - (self.now - self.started), 0.0, *(value for value in running if value is not None)])
        return until if left is None else min(left, until)


class ProgressReporter:
    """Shows the state and the events of a running sweep, which began at `started` of `time.monotonic` (None: now)."""

    def __init__(
        self, study: optuna.Study, options: SweepOptions, executor: Executor, started: float | None = None
    ) -> None:
        self.study, self.options, self.executor = study, options, executor
        self.total = budget.total(study, options.n_trials)
        self.names = list(options.objective)
        self.started = time.monotonic() if started is None else started
        self.begun: dict[tuple[str, int], float] = {}
        self.display = display_for()

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.display.close()

    def show_confirmation(self, runs: optuna.Study, plan: list[dict[str, Any]]) -> None:
        """From now on, show the runs of the confirmation."""
        self.study, self.total = runs, len(plan)
        numbers = sorted({one[meta.CONFIRMS] for one in plan})
        seeds = len({one[meta.SEED] for one in plan})
        self.event(f"confirming trials {', '.join(map(str, numbers))} under {seeds} other seeds each")

    def event(self, line: str) -> None:
        """Show one line."""
        self.display.event(line)

    def refresh(self) -> None:
        """Show the state."""
        trials = self.study.get_trials(deepcopy=False)
        self.display.show(
            SweepState(
                study=self.study.study_name,
                n_trials=self.total,
                counts=dict(Counter(_state(trial) for trial in trials)),
                slots=self._slots(),
                best=results.best_words(self.study, self.names),
                finished_seconds=[s for t in trials if _ran(t) and (s := results.seconds(t))],
                started=self.started,
                timeout=self.options.timeout,
                now=time.monotonic(),
            )
        )

    def _slots(self) -> list[SlotView | None]:
        running = self.executor.running()
        return [self._view(slot, running[slot]) if slot in running else None for slot in range(self.executor.slots)]

    def _view(self, slot: int, job: Job) -> SlotView:
        began = self.begun.setdefault((self.study.study_name, job.number), time.monotonic())
        told = read_progress(job.folder)
        told.pop("updated", None)
        return SlotView(slot, job.number, started=began, **told)


def _ran(trial: FrozenTrial) -> bool:
    """Whether a trial ended after a run of its own; one that reused values tells nothing of how long one takes."""
    return trial.state.is_finished() and not meta.has(trial, meta.DUPLICATE_OF)


def _state(trial: FrozenTrial) -> str:
    names = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}
    if trial.state in names:
        return names[trial.state]
    bad = trial.state == TrialState.FAIL or any(value > 0 for value in trial.constraints.values())
    return "failed" if bad else "pruned"


class Display(Protocol):
    """Output of a sweep's progress."""

    def show(self, state: SweepState) -> None:
        """Show a state."""

    def event(self, line: str) -> None:
        """Show one line: something has happened."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class PlainDisplay:
    """Writes one line for each event to a stream, and no table."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def show(self, state: SweepState) -> None:
        """Do nothing."""

    def event(self, line: str) -> None:
        """Write the line, with the time."""
        say(f"{time.strftime('%H:%M:%S')}  {readable_name(line)}", file=self.stream, flush=True)

    def close(self) -> None:
        """Do nothing."""


class LiveDisplay:
    """A table of the slots that stays at the bottom, events above it. No thread: processes are forked beside it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.live.start()
        self._next = 0.0

    def show(self, state: SweepState) -> None:
        """Draw the state, unless it was drawn a moment ago."""
        if state.now >= self._next:
            self.live.update(render(state, self.console.height), refresh=True)
            self._next = state.now + REFRESH

    def event(self, line: str) -> None:
        """Write the line above the table."""
        self.console.print(
            Text(f"{time.strftime('%H:%M:%S')}  {readable_name(line)}"), overflow="ellipsis", no_wrap=True
        )

    def close(self) -> None:
        """Take the table away."""
        self.live.stop()


def display_for(stream: TextIO | None = None) -> Display:
    """Make a live table if the stream (standard error) is a terminal that can show one, else lines on standard output.

    That is where Hydra's own log goes: standard error of a sweep in a script has what ended the sweep, and no more.
    """
    picture = stream or sys.stderr
    if picture.isatty() and not (console := printing.console(file=picture)).is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(stream or sys.stdout)


def render(state: SweepState, height: int | None = None) -> Group:
    """Draw the table, and below it the time left, the counts, the best so far.

    `height` is that of the terminal in lines; with more slots than that the last of them are not drawn.
    """
    table = Table(box=None, pad_edge=False, header_style="dim")
    metrics = {slot.metric for slot in state.slots if slot is not None and slot.metric}
    score = metrics.pop() if len(metrics) == 1 else "score"
    for name in ("slot", "trial", "epoch", score, "left", "running for"):
        table.add_column(Text(name), justify="right", no_wrap=True)
    most = len(state.slots) if height is None else max(1, height - BELOW)
    shown = len(state.slots) if len(state.slots) <= most else max(1, most - 1)
    for number, slot in enumerate(state.slots[:shown]):
        table.add_row(str(number), *(["idle"] if slot is None else _cells(slot, state.now)))
    begun, left = sum(state.counts.values()), state.seconds_left()
    counts = [f"{state.counts[name]} {name}" for name in ENDS if state.counts.get(name)]
    lines = [
        *([f"   …  and {len(state.slots) - shown} more slots"] if shown < len(state.slots) else []),
        f"{state.study}: {begun} of {state.n_trials} trials{'' if left is None else f', about {duration(left)} left'}",
        ", ".join(counts) or "none has ended yet",
        f"best {state.best}" if state.best else "no trial has finished yet",
    ]
    return Group(table, *(Text(line, overflow="ellipsis", no_wrap=True) for line in lines))


def _cells(slot: SlotView, now: float) -> list[str]:
    epoch = "" if slot.epoch is None else f"{slot.epoch}/{slot.epochs}" if slot.epochs else str(slot.epoch)
    score = "" if slot.score is None else f"{slot.score:.4g}"
    left = "" if slot.seconds_left is None else duration(slot.seconds_left)
    return [str(slot.trial), epoch, score, left, duration(now - slot.started)]


def estimate_left(
    finished: Sequence[float], remaining: int, slots: int, running_left: Sequence[float | None]
) -> float | None:
    """Estimate the seconds until all trials have ended, if each takes as long as the mean of those that have.

    Args:
        finished: seconds that each took that has.
        remaining: number of trials that have not begun.
        slots: how many run beside each other.
        running_left: seconds of those that run; None where it is not known: half of the mean is assumed.

    Returns:
        None if nothing has finished, and there are trials of which nothing is known.

    Examples:
        >>> estimate_left([60.0, 120.0], remaining=2, slots=2, running_left=[30.0])
        120.0
    """
    mean = sum(finished) / len(finished) if finished else None
    if mean is None and (remaining or None in running_left):
        return None
    typical = mean or 0.0
    busy = [typical / 2 if left is None else max(0.0, left) for left in running_left]
    free = busy + [0.0] * (slots - len(busy))
    end = max(busy, default=0.0)
    heapq.heapify(free)
    for _ in range(remaining if free else 0):  # each takes the slot that is free first
        end = max(end, free[0] + typical)
        heapq.heapreplace(free, free[0] + typical)
    return end


def duration(seconds: float) -> str:
    """Format seconds as a person says them.

    Examples:
        >>> duration(42), duration(185), duration(7800)
        ('42s', '3m05', '2h10')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}"


def read_progress(folder: Path) -> dict[str, Any]:
    """Read from its folder the progress that a trial has reported, see `steady.reporting`.

    Returns:
        `epoch`, `epochs`, `metric`, `score`, `seconds_left` and `updated`, as far as they are there and sound. Never
        an error: a file that is not there, or not whole, says nothing yet, and no picture is worth a sweep.
    """
    try:
        told = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(told, dict):
        return {}
    said = {name: told[name] for name in NUMBERS if _is_number(told.get(name))}
    return {**said, "metric": told["metric"]} if isinstance(told.get("metric"), str) else said


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
