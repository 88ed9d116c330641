"""Show a running sweep: a live table on a terminal, plain lines elsewhere.

The scheduler calls `ProgressReporter.event` at each start and end of a trial and `refresh` about once a second; both
cost milliseconds.
"""

import heapq
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from steady import printing
from steady.jobs.executor import Executor
from steady.options import SweepOptions
from steady.printing import readable_name, say
from steady.study import budget, meta, results, select
from steady.study.trial_folders import PROGRESS
from steady.study.trial_store import TrialCursor, TrialView

LARGEST = 2**16  # bytes of a trial's progress that are read; one has some 150
REFRESH = 0.5  # seconds between two pictures of the table
BELOW = 5  # lines of the picture that are not slots: the heading, three lines below, the cursor's
ENDS = ("finished", "paused", "pruned", "failed", "waiting")  # counts that are shown; one running is in the table
NUMBERS = ("epoch", "epochs", "score", "seconds_left", "updated")  # in the progress of a trial


@dataclass(frozen=True)
class SlotView:
    """State of a busy slot."""

    slot: int  # number, from 0
    trial: int  # number of the trial in it
    epoch: int | None = None  # reached; None before the first has ended
    epochs: int | None = None  # at most
    metric: str | None = None  # name of the rung score
    score: float | None = None  # the latest
    seconds_left: float | None = None  # until the trial's budget is used up
    started: float = 0.0  # on the clock of `SweepState.now`


@dataclass(frozen=True)
class SweepState:
    """State of a sweep."""

    study: str  # name
    n_trials: int  # of the study in all
    counts: Mapping[str, int]  # of trials: finished, paused, pruned, failed, waiting, running
    slots: Sequence[SlotView | None]  # None for an idle one
    best: str = ""  # in words
    finished_seconds: Sequence[float] = ()  # duration of each trial that has ended, or is paused
    started: float = 0.0  # when this start of the sweep began, in seconds
    timeout: float | None = None  # seconds from then after which no trial begins
    now: float = 0.0  # on the same clock

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
    """Display of the state and the events of a running sweep, which began at `started` of `time.monotonic`.

    `view` is of the study's trials; None for a new one.
    """

    def __init__(
        self,
        study: optuna.Study,
        options: SweepOptions,
        executor: Executor,
        started: float | None = None,
        view: TrialView | None = None,
    ) -> None:
        self.options, self.executor = options, executor
        self.total = budget.total(study, options.n_trials)
        self.names = list(options.objective)
        self.started = time.monotonic() if started is None else started
        self.begun: dict[tuple[str, int, int], float] = {}
        self.display = display_for()
        self._watch(study, view or TrialView(study))

    def _watch(self, study: optuna.Study, view: TrialView) -> None:
        self.study, self.view, self.cursor = study, view, TrialCursor()
        # Of the trials that have ended.
        self.counts: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.best: list[FrozenTrial] = []

    def close(self) -> None:
        """Leave the terminal as it was."""
        self.display.close()

    def show_confirmation(self, runs: optuna.Study, plan: list[dict[str, Any]], total: int) -> None:
        """From now on, show the runs of the confirmation: those of a plan, and earlier ones, `total` in all."""
        self._watch(runs, TrialView(runs))
        self.total = total
        numbers = sorted({one[meta.CONFIRMS] for one in plan})
        seeds = len({one[meta.SEED] for one in plan})
        self.event(f"confirming {printing.trials(numbers)} under {seeds} other seeds each")

    def event(self, line: str) -> None:
        """Show one line."""
        self.display.event(line)

    def refresh(self) -> None:
        """Show the state."""
        self.view.refresh()
        ended, others = self.cursor.advance(self.view.trials)
        self.counts.update(map(_state, ended))
        self.seconds += [s for t in ended if not meta.has(t, meta.DUPLICATE_OF) and (s := results.seconds(t))]
        paused = [s for t in others if meta.paused_at(t) is not None and (s := results.seconds(t))]
        if ended:
            self.best = select.best_trials(self.study, [*self.best, *ended])
        self.display.show(
            SweepState(
                study=self.study.study_name,
                n_trials=self.total,
                counts=dict(self.counts + Counter(map(_state, others))),
                slots=self._slots(),
                best=results.best_words(self.study, self.names, self.best),
                finished_seconds=[*self.seconds, *paused],
                started=self.started,
                timeout=self.options.timeout,
                now=time.monotonic(),
            )
        )

    def _slots(self) -> list[SlotView | None]:
        running = self.executor.running()
        views: list[SlotView | None] = [None] * max(self.executor.slots, *(slot + 1 for slot in running), 0)
        for slot, job in running.items():
            attempt = (self.study.study_name, job.number, job.attempt)  # a trial that was paused is begun again
            began = self.begun.setdefault(attempt, time.monotonic())
            reported = read_progress(job.folder)
            reported.pop("updated", None)
            views[slot] = SlotView(slot, job.number, started=began, **reported)
        return views


def _state(trial: FrozenTrial) -> str:
    if meta.paused_at(trial) is not None:
        return "paused"
    names = {TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "waiting"}
    if trial.state in names:
        return names[trial.state]
    bad = trial.state == TrialState.FAIL or any(value > 0 for value in trial.constraints.values())
    return "failed" if bad else "pruned"


class PlainDisplay:
    """One line for each event in a stream, and no table."""

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
    """A table of the slots at the bottom, events above it. No thread: processes are forked beside it."""

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
        text = Text(f"{time.strftime('%H:%M:%S')}  {readable_name(line)}")
        self.console.print(text, overflow="ellipsis", no_wrap=True)

    def close(self) -> None:
        """Remove the table."""
        self.live.stop()


def display_for(stream: TextIO | None = None) -> PlainDisplay | LiveDisplay:
    """Make a live table if the stream (standard error) is a terminal that can show one, else lines on standard output.

    So standard error in a script has what ended the sweep, and no more.

    >>> isinstance(display_for(sys.stdout), PlainDisplay)
    True
    """
    picture = stream or sys.stderr
    if picture.isatty() and not (console := printing.console(file=picture)).is_dumb_terminal:
        return LiveDisplay(console)
    return PlainDisplay(stream or sys.stdout)


def render(state: SweepState, height: int | None = None) -> Group:
    """Draw the table, the time left, the counts and the best, without the last slots if `height` lines are too few.

    >>> printing.console(file=sys.stdout).print(render(SweepState("cats", 9, {"finished": 1}, [])).renderables[1])
    cats: 1 of 9 trials
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

    `remaining` have not begun. Of one that runs the seconds left may be unknown (None): half of the mean is assumed.
    Without a mean the result is None, if it is needed.

    >>> estimate_left([60.0, 120.0], remaining=2, slots=2, running_left=[30.0])
    120.0
    """
    mean = sum(finished) / len(finished) if finished else None
    if mean is None and (remaining or None in running_left):
        return None
    typical = mean or 0.0
    busy = [typical / 2 if left is None else max(0.0, left) for left in running_left]
    free = busy + [0.0] * (slots - len(busy))
    heapq.heapify(free)
    end = max(free, default=0.0)
    while free and remaining:
        if end - free[0] <= typical:  # then all slots take turns
            rounds, remaining = divmod(remaining, len(free))
            free, end = [until + rounds * typical for until in free], end + rounds * typical
            return max(end, sorted(free)[remaining - 1] + typical) if remaining else end
        heapq.heapreplace(free, free[0] + typical)  # the slot that is free first takes one
        remaining -= 1
    return end


def duration(seconds: float) -> str:
    """Format seconds for people.

    >>> duration(42), duration(185), duration(7800)
    ('42s', '3m05', '2h10')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if minutes == 0:
        return f"{rest}s"
    return f"{minutes}m{rest:02d}" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}"


def read_progress(folder: Path) -> dict[str, Any]:
    """Read the progress that a trial has reported (`TrialReporter.progress`), as far as it is there and sound.

    >>> read_progress(Path("nowhere"))
    {}
    """
    try:
        with (folder / PROGRESS).open("rb") as file:
            reported = json.loads(file.read(LARGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(reported, dict):
        return {}
    numbers = {name: reported[name] for name in NUMBERS if _is_number(reported.get(name))}
    metric = reported.get("metric")
    return {**numbers, "metric": metric} if isinstance(metric, str) else numbers


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
