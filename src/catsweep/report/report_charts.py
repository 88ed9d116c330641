"""Compute the geometry of the report's charts: axes, plots, parallel coordinates and the timeline.

charts.jinja draws them as SVG. Every mark carries the number of its trial, by which the page shows its samples.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from catsweep.metrics.judge import FID, JUDGED, RunScores
from catsweep.report.formatting import counted, duration, short, shown
from catsweep.study_record import Attempt, Entry, StudyRecord
from steady.printing import readable
from steady.study.select import Objective

# --- axes

MARGIN = 0.06  # of a linear axis, beyond its outermost values
TICKS = 4  # intervals of an axis, about
LETTERS = 16  # of a choice
Ticks = tuple[tuple[float, str], ...]  # positions with labels


@dataclass(frozen=True)
class Axis:
    """A linear, logarithmic or categorical axis."""

    low: float = 0.0  # value at place 0; above 0 on a logarithmic axis
    high: float = 1.0  # value at place 1, above `low`
    log: bool = False  # whether the axis is logarithmic
    choices: tuple[str, ...] = ()  # of a categorical axis, as `shown` formats them; its numbers are not used

    @classmethod
    def over(cls, values: Iterable[float], whole: bool = False) -> "Axis":
        """Make a linear axis over finite values, with a margin: half a unit if they are counts (`whole`)."""
        finite = [value for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        margin = 0.5 if whole else MARGIN * (high - low) or abs(high) * MARGIN or 0.5
        return cls(low - margin, high + margin)

    @classmethod
    def of_parameter(cls, distribution: BaseDistribution) -> "Axis":
        """Make the axis of a parameter over its whole distribution."""
        if isinstance(distribution, CategoricalDistribution):
            return cls(choices=tuple(dict.fromkeys(shown(choice) for choice in distribution.choices)))
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high = float(distribution.low), float(distribution.high)
        return cls(low - 0.5, high + 0.5) if low == high else cls(low, high, log=distribution.log)

    def place(self, value: Any) -> float | None:
        """Return the place of a value, 0 to 1; None if the value is not on such an axis."""
        if self.choices:
            text = shown(value)
            return (self.choices.index(text) + 0.5) / len(self.choices) if text in self.choices else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else None
        return (value - self.low) / (self.high - self.low)

    def ticks(self, letters: int | None = None) -> Ticks:
        """List places with their labels, cut to a number of letters, from low to high."""
        if self.choices:
            return tuple(((i + 0.5) / len(self.choices), brief(c, letters)) for i, c in enumerate(self.choices))
        marks = _decades(self.low, self.high) if self.log else _round(self.low, self.high)
        digits = 6 if self.log else max(6, _digits(self.low, self.high))
        placed = [(self.place(mark), brief(f"{mark:.{digits}g}", letters)) for mark in marks]
        return tuple((place, label) for place, label in placed if place is not None and -1e-9 <= place <= 1 + 1e-9)


def brief(label: str, letters: int | None = LETTERS) -> str:
    """Cut a label to a number of letters; None for no limit."""
    return label if letters is None or len(label) <= letters else f"{label[: letters - 1]}…"


def _round(low: float, high: float) -> list[float]:
    """List round numbers of a linear axis."""
    step = _step(high - low)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Not by repeated sums, which end in 0.30000000000000004; and -0 is 0.
    return [float(f"{n * step:.{max(10, _digits(low, high))}g}") + 0.0 for n in range(first, last + 1)]


def _digits(low: float, high: float) -> int:
    """Return the number of digits that distinguishes neighbouring ticks."""
    return min(17, 2 + math.ceil(math.log10(max(abs(low), abs(high)) / _step(high - low))))


def _step(span: float) -> float:
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    return next(factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= TICKS + 1)


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 3)
    every = max(1, math.ceil((last - first) / 5))
    return [float(f"{factor}e{power}") for power in range(first, last + 1, every) for factor in factors]


# --- plots of scores

PAIRS = 3  # of objectives that are plotted against each other
ROW, HEAD, FOOT = 26, 8, 28  # of a slice plot: height of a choice, and the margins above and below


@dataclass(frozen=True)
class Area:
    """The size of a plot and the edges of its data area, in units of the SVG."""

    width: float = 480.0
    height: float = 330.0
    left: float = 62.0
    right: float = 462.0
    top: float = 34.0
    bottom: float = 282.0

    def x(self, place: float | None) -> float:
        """Convert a place, 0 to 1, to units from the left."""
        return round(self.left + (self.right - self.left) * (place or 0.0), 2)

    def y(self, place: float | None) -> float:
        """Convert a place, 0 to 1, to units from the top."""
        return round(self.bottom - (self.bottom - self.top) * min(1.0, max(0.0, place or 0.0)), 2)


class Mark(NamedTuple):
    """A trial in a plot."""

    x: float  # units from the left
    y: float  # units from the top
    trial: int  # its number
    role: str  # `front`, `finished`, `confirmation`, `pruned`, `paused` or `failed`
    text: str  # description
    winner: bool = False  # whether the trial is the winner


@dataclass(frozen=True)
class Plot:
    """A chart with two axes."""

    title: str  # of the chart
    x_title: str  # below the x axis
    y_title: str  # above the y axis; empty for a slice plot
    x_ticks: Ticks  # units from the left
    y_ticks: Ticks  # units from the top
    marks: tuple[Mark, ...] = ()  # trials
    rug: tuple[Mark, ...] = ()  # trials without a score, on the lower edge
    line: tuple[tuple[float, float], ...] = ()  # points of a curve; may be none
    role: str = "best"  # of the curve, `best` or `front`
    area: Area = field(default_factory=Area)  # size and edges


class ParallelAxis(NamedTuple):
    """An axis of parallel coordinates."""

    name: str  # of the parameter or the score
    ticks: Ticks  # places, 0 to 1
    score: bool  # whether the axis is a score
    detail: str = ""  # extractor of a score, or empty
    way: str = ""  # arrow to where a score is better, or empty


@dataclass(frozen=True)
class ParallelLine:
    """A trial in parallel coordinates."""

    trial: int  # its number
    role: str  # as in `Entry`, or `front`
    text: str  # description
    places: tuple[float | None, ...]  # on each axis, 0 to 1; None where the trial has no value
    shade: float  # of a finished trial, 0 for the best by the first objective to 1 for the worst
    winner: bool = False  # whether the trial is the winner

    def path(self, length: float, across: float, lying: bool) -> str:
        """Return the line as an SVG path, `length` units from axis to axis, `across` units from their low to high ends.

        Axes that are `lying` run from left to right, one below the other; else upwards, one beside the other.
        """
        path, pen = "", "M"
        for i, place in enumerate(self.places):
            if place is not None:
                x, y = (across * place, i * length) if lying else (i * length, across - across * place)
                path += f"{pen}{x:.1f} {y:.1f}"
            pen = "M" if place is None else "L"
        return path


class ParallelCoordinates(NamedTuple):
    """All trials as lines across their parameters and scores, in the order of drawing."""

    axes: tuple[ParallelAxis, ...]
    lines: tuple[ParallelLine, ...]


def arrow(objective: Objective) -> str:
    """Return an arrow to where an objective is better."""
    return "↑" if objective.maximise else "↓"


class StudyCharts:
    """The charts of a study's scores; the front and the winner are numbers of trials."""

    def __init__(self, record: StudyRecord, front: Sequence[int], winner: int | None) -> None:
        self.record, self.front, self.winner = record, front, winner
        self.scored = [(trial, trial.values) for trial in record.trials if trial.values is not None and trial.scored]

    def pareto(self) -> list[Plot]:
        """Plot one objective against another; empty for one objective or without a finished trial."""
        n = len(self.record.objectives)
        pairs = [(a, b) for a in range(n) for b in range(a + 1, n)][:PAIRS] if self.scored else []
        return [self._pareto(a, b) for a, b in pairs]

    def history(self) -> list[Plot]:
        """Plot each objective and the best so far over the trials; empty without a finished trial."""
        return [self._history(objective) for objective in range(len(self.record.objectives)) if self.scored]

    def _history(self, objective: int) -> Plot:
        record, label, area = self.record, self.record.labels[objective], Area()
        x, y = Axis.over([trial.number for trial in record.trials], whole=True), self._axis(objective)
        points: list[tuple[float, float]] = []
        best = math.inf
        for trial, values in self.scored:
            if (loss := record.objectives[objective].loss(values[objective])) < best:
                at = area.x(x.place(trial.number))
                points += [(at, points[-1][1])] if points else []
                points.append((at, area.y(y.place(values[objective]))))
                best = loss
        points.append((area.right, points[-1][1]))
        marks = tuple(self._mark(t, area, x.place(t.number), y.place(v[objective])) for t, v in self.scored)
        rug = tuple(
            Mark(area.x(x.place(trial.number)), area.bottom, trial.number, trial.role, self._described(trial))
            for trial in record.trials
            if not trial.scored and trial.role in ("pruned", "paused", "failed")
        )
        title = f"{label} {arrow(record.objectives[objective])}"
        plot = _plot(label, "trial", title, x, y, area, marks=marks, rug=rug, line=tuple(points))
        return replace(plot, x_ticks=tuple((at, number) for at, number in plot.x_ticks if "." not in number))

    def slices(self, names: Sequence[str]) -> list[list[Plot]]:
        """Plot for each objective (x) each parameter (y), without parameters that no finished trial has."""
        known = [name for name in names if any(name in trial.params for trial, _ in self.scored)]
        return [[self._slice(i, name) for name in known] for i in range(len(self.record.objectives))]

    def judged(self) -> list[Plot]:
        """Plot the judge's FID against the extractor's, for all judged runs; empty without any."""
        opinion, area = self.record.opinion, Area()
        runs: list[tuple[int, int | None, RunScores]] = [(trial, None, one) for trial, one in opinion.own.items()]
        runs += [(trial, seed, one) for trial, again in opinion.again.items() for seed, one in again.items()]
        judged = [(trial, seed, one.values) for trial, seed, one in runs if {FID, JUDGED} <= one.values.keys()]
        if not judged:
            return []
        labels = {name: self.record.label(name) for name in (FID, JUDGED)}
        x, y = (Axis.over([values[name] for _, _, values in judged]) for name in (FID, JUDGED))
        marks = tuple(
            Mark(
                area.x(x.place(values[FID])), area.y(y.place(values[JUDGED])), trial,
                "confirmation" if seed is not None else "front" if trial in self.front else "finished",
                f"trial {trial}{'' if seed is None else f' under seed {seed}'}: "
                + ", ".join(f"{label} {shown(values[name])}" for name, label in labels.items()),
                trial == self.winner and seed is None,
            )
            for trial, seed, values in judged
        )  # fmt: skip
        title = f"{labels[FID]} against {labels[JUDGED]}"
        return [_plot(title, f"{labels[FID]} ← better", f"{labels[JUDGED]} ↓ better", x, y, area, marks=marks)]

    def parallel(self, names: Sequence[str]) -> ParallelCoordinates | None:
        """Draw all trials across named parameters and scores; None with fewer than two axes, or trials without any.

        Pruned and failed trials end at the last parameter; a parameter that a trial lacks leaves a gap in its line.
        """
        record = self.record
        axes = {name: Axis.of_parameter(record.distributions[name]) for name in names}
        scores = [self._axis(i) for i in range(len(record.objectives))] if self.scored else []
        rails = [ParallelAxis(short(name, names), axis.ticks(LETTERS), False) for name, axis in axes.items()]
        for i, axis in enumerate(scores):
            name, label = readable(record.objectives[i].name), record.labels[i]
            detail = label.removeprefix(name).strip(" ()")
            rails.append(ParallelAxis(name, axis.ticks(), True, detail, arrow(record.objectives[i])))
        drawn = [trial for trial in record.trials if trial.params and trial.role != "waiting"]
        if len(rails) < 2 or not drawn:
            return None
        losses = sorted((record.objectives[0].loss(values[0]), trial.number) for trial, values in self.scored)
        shades = {number: i / max(1, len(losses) - 1) for i, (_, number) in enumerate(losses)}
        lines = [self._line(trial, axes, scores, shades.get(trial.number, 1.0)) for trial in drawn]
        order = ("failed", "pruned", "paused", "running", "finished", "front")  # the last lies on top
        lines.sort(key=lambda line: (line.winner, order.index(line.role), -line.shade, line.trial))
        return ParallelCoordinates(tuple(rails), tuple(lines))

    def _pareto(self, a: int, b: int) -> Plot:
        record, area, x, y = self.record, Area(), self._axis(a), self._axis(b)
        marks = tuple(self._mark(trial, area, x.place(v[a]), y.place(v[b])) for trial, v in self.scored)
        stairs: list[tuple[float, float]] = []
        for corner in sorted((m.x, m.y) for m in marks if m.role == "front") if len(record.objectives) == 2 else []:
            if stairs:  # what the front dominates has its corner at the worse of both
                worse_x = record.objectives[a].maximise
                stairs.append((stairs[-1][0], corner[1]) if worse_x else (corner[0], stairs[-1][1]))
            stairs.append(corner)
        return _plot(
            f"{record.labels[a]} against {record.labels[b]}",
            f"{record.labels[a]} {'→' if record.objectives[a].maximise else '←'} better",
            f"{record.labels[b]} {arrow(record.objectives[b])} better",
            x, y, area, marks=marks, line=tuple(stairs) if len(stairs) > 1 else (), role="front",
        )  # fmt: skip

    def _slice(self, objective: int, name: str) -> Plot:
        x, axis = self._axis(objective), Axis.of_parameter(self.record.distributions[name])
        height = float(HEAD + ROW * max(3, len(axis.choices)) + (0 if axis.choices else ROW) + FOOT + 2)
        letters = max((len(label) for _, label in axis.ticks()), default=3)
        area = Area(300.0, height, float(min(max(12 + 7 * letters, 40), 130)), 290.0, float(HEAD), height - FOOT)
        marks = []
        for trial, values in self.scored:
            if name in trial.params and (at := axis.place(trial.params[name])) is not None:
                # Trials of one choice lie side by side, always the same way.
                side = ((trial.number * 0.618034) % 1 - 0.5) * 0.5 / len(axis.choices) if axis.choices else 0.0
                marks.append(self._mark(trial, area, x.place(values[objective]), at + side))
        x_title = f"{self.record.labels[objective]} {arrow(self.record.objectives[objective])}"
        return _plot(readable(name), x_title, "", x, axis, area, LETTERS, marks=tuple(marks))

    def _line(self, trial: Entry, axes: dict[str, Axis], scores: Sequence[Axis], shade: float) -> ParallelLine:
        places = [axis.place(trial.params[name]) if name in trial.params else None for name, axis in axes.items()]
        if trial.scored and trial.values:
            places += [axis.place(value) for axis, value in zip(scores, trial.values, strict=True)]
            role = "front" if trial.number in self.front else "finished"
        else:
            places += [None] * len(scores)
            role = "failed" if trial.role == "finished" else trial.role  # finished, with a score that is no number
        clipped = tuple(None if place is None else round(min(1.0, max(0.0, place)), 4) for place in places)
        winner = trial.number == self.winner
        return ParallelLine(trial.number, role, self._described(trial), clipped, round(shade, 3), winner)

    def _axis(self, objective: int) -> Axis:
        return Axis.over([values[objective] for _, values in self.scored])

    def _mark(self, trial: Entry, area: Area, x: float | None, y: float | None) -> Mark:
        role, winner = "front" if trial.number in self.front else "finished", trial.number == self.winner
        return Mark(area.x(x), area.y(y), trial.number, role, self._described(trial), winner)

    def _described(self, trial: Entry) -> str:
        if trial.values is None:
            return f"trial {trial.number}: {trial.state}"
        scores = zip(self.record.labels, trial.values, strict=True)
        return f"trial {trial.number}: {', '.join(f'{label} {shown(value)}' for label, value in scores)}"


def _plot(
    title: str, x_title: str, y_title: str, x: Axis, y: Axis, area: Area, letters: int | None = None, **parts: Any
) -> Plot:
    x_ticks = tuple((area.x(at), label) for at, label in x.ticks())
    y_ticks = tuple((area.y(at), label) for at, label in y.ticks(letters))
    return Plot(title, x_title, y_title, x_ticks, y_ticks, area=area, **parts)


# --- timeline

LEAST_PAUSE, SHARE_PAUSE = 120.0, 0.05  # seconds, and share of the working time: shorter pauses are drawn to scale
MOST_PAUSES = 12  # the longest
OVERLAP = 2.0  # seconds that two attempts in one slot may overlap: the next begins before the last is settled
CUT = 2.5  # width of a pause, per cent of the axis
Stay = tuple[Attempt, Entry]
MARKS = 6  # on the axis, about
STEPS = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800)  # seconds


class Bar(NamedTuple):
    """An attempt in the timeline."""

    left: float  # start, per cent of the axis
    width: float  # per cent
    role: str  # as in `Entry`, or `confirmation`
    trial: int  # its number; of a confirmation run, that of the repeated trial
    text: str  # description


class Lane(NamedTuple):
    """A slot in the timeline: its name, its bars from left to right, and its busy share of the working time, 0 to 1."""

    name: str
    bars: tuple[Bar, ...]
    busy: float


@dataclass(frozen=True)
class Timeline:
    """Attempts by slot over time."""

    lanes: tuple[Lane, ...]  # one for each slot
    pauses: tuple[tuple[float, float, str], ...]  # left and width in per cent, description
    marks: Ticks  # places in per cent, with the working time since the start
    start: float  # Unix time of the first attempt
    end: float  # Unix time of the last end
    paused: float  # seconds of pauses
    busy: float  # seconds of all slots together

    @property
    def worked(self) -> float:
        """Seconds from the first start to the last end, without pauses."""
        return self.end - self.start - self.paused

    @property
    def share(self) -> float:
        """Share of the working time in which the slots were busy, 0 to 1."""
        return self.busy / (self.worked * len(self.lanes) or math.inf)


def timeline(record: StudyRecord) -> Timeline | None:
    """Lay out the attempts of a study by slot and time; None if no time is known."""
    stays = [(attempt, entry) for entry in (*record.trials, *record.confirmations) for attempt in entry.attempts]
    if not stays:
        return None
    stays.sort(key=lambda stay: (stay[0].start, stay[0].end, stay[1].number))
    now = max(attempt.end for attempt, _ in stays)
    stays = [(replace(attempt, end=now) if attempt.open else attempt, entry) for attempt, entry in stays]
    pauses = _pauses([attempt for attempt, _ in stays])
    start, scale = stays[0][0].start, _Scale(stays[0][0].start, now, pauses)
    lanes = tuple(
        Lane(name, tuple(_bar(*stay, scale) for stay in row), _busy(row) / (scale.worked or 1.0))
        for name, row in _rows(stays)
    )
    cuts = tuple((scale(a), scale(b) - scale(a), f"nothing ran for {duration(b - a)}") for a, b in pauses)
    return Timeline(lanes, cuts, scale.marks(), start, now, sum(b - a for a, b in pauses), _busy(stays))


def _busy(stays: Sequence[Stay]) -> float:
    return sum(attempt.end - attempt.start for attempt, _ in stays)


class _Scale:
    """A map from Unix time to per cent of the axis, on which each pause takes `CUT`."""

    def __init__(self, start: float, end: float, pauses: Sequence[tuple[float, float]]) -> None:
        self.times = np.array([start, *itertools.chain(*pauses), end])
        seconds = np.diff(self.times)
        seconds[1::2] = 0.0  # of pauses
        self.work = np.append(0.0, np.cumsum(seconds))
        self.worked = float(self.work[-1])
        cuts = CUT * (np.arange(len(self.times)) // 2)
        self.places = cuts + (100 - CUT * len(pauses)) * self.work / (self.worked or 1.0)

    def __call__(self, time: float) -> float:
        return round(float(np.interp(time, self.times, self.places)), 3)

    def marks(self) -> Ticks:
        step = next((s for s in STEPS if self.worked / s <= MARKS), self.worked / MARKS)
        works = itertools.takewhile(lambda work: work <= self.worked, itertools.count(0.0, step))
        places = ((float(np.interp(work, self.work, self.places)), work) for work in works)
        return tuple((round(place, 3), duration(work) if work else "0") for place, work in places)


def _pauses(attempts: Sequence[Attempt]) -> list[tuple[float, float]]:
    """Find long times without any attempt; attempts are sorted by start."""
    gaps, until, worked = [], attempts[0].start, 0.0
    for attempt in attempts:
        if attempt.start > until:
            gaps.append((until, attempt.start))
        worked += max(0.0, attempt.end - max(until, attempt.start))
        until = max(until, attempt.end)
    long = [(a, b) for a, b in gaps if b - a > max(LEAST_PAUSE, SHARE_PAUSE * worked)]
    return sorted(sorted(long, key=lambda gap: gap[0] - gap[1])[:MOST_PAUSES])


def _rows(stays: Sequence[Stay]) -> list[tuple[str, list[Stay]]]:
    """Group attempts by slot, of two controllers' slots of one number in a row each; then those without a slot."""
    rows: dict[tuple[int, int], list[Stay]] = {}
    for stay in sorted(stays, key=lambda stay: stay[0].slot is None):
        if stay[0].slot is not None:
            places: Iterable[tuple[int, int]] = ((stay[0].slot, copy) for copy in itertools.count())
        else:
            places = [*sorted(rows), (max((slot for slot, _ in rows), default=-1) + 1, 0)]
        place = next(place for place in places if _is_free(rows.get(place, []), stay[0]))
        rows.setdefault(place, []).append(stay)
    return [
        (f"slot {slot}{f' ({copy + 1})' if copy else ''}", sorted(row, key=lambda stay: stay[0].start))
        for (slot, copy), row in sorted(rows.items())
    ]


def _is_free(row: Sequence[Stay], attempt: Attempt) -> bool:
    return all(attempt.start >= other.end - OVERLAP or attempt.end <= other.start + OVERLAP for other, _ in row)


def _bar(attempt: Attempt, entry: Entry, scale: _Scale) -> Bar:
    left, took = scale(attempt.start), duration(attempt.end - attempt.start)
    if entry.confirms is None:
        trial, last = entry.number, attempt == entry.attempts[-1] or attempt.open
        role = entry.role if last else "waiting"
        text = f"trial {trial}, {entry.state if last else 'gone on with later'}, {took}"
        text += f" ({counted(len(entry.attempts), 'attempt')} in all)" if len(entry.attempts) > 1 else ""
    else:
        trial, role = entry.confirms, "failed" if entry.role == "failed" else "confirmation"
        text = f"trial {trial} again, under seed {entry.seed}: {entry.state}, {took}"
    return Bar(left, round(scale(attempt.end) - left, 3), role, trial, text)
