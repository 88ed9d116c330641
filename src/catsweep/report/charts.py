"""The report's charts as places and words: what its template draws in SVG, and matplotlib for report.md.

Pure arithmetic over `catsweep.report.record`. Every mark carries the number of its trial, so that the page can show
that trial's samples when one points at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from catsweep.report.record import Entry, Record
from catsweep.report.scales import Axis, of_parameter, over
from catsweep.report.words import shown
from steady.printing import readable

WIDTH, HEIGHT = 480, 330  # of a chart, in units of its SVG
LEFT, RIGHT, TOP, BOTTOM = 62, 18, 34, 48
PAIRS = 3  # of objectives, that are drawn against each other
LETTERS = 16  # of a choice that are shown
ROW, HEAD = 26, 8  # of a slice: height of a choice, and of what is above the first


@dataclass(frozen=True)
class Mark:
    """One trial in a chart.

    Attributes:
        x: from the left, in units of the SVG.
        y: from the top.
        trial: its number.
        role: how it looks: `front`, `finished`, `pruned`, `failed`, `running`.
        text: in words.
    """

    x: float
    y: float
    trial: int
    role: str
    text: str
    winner: bool = False


@dataclass(frozen=True)
class Line:
    """A curve: its points from left to right, and how it looks."""

    points: tuple[tuple[float, float], ...]
    role: str


@dataclass(frozen=True)
class Plot:
    """A chart with two axes.

    Attributes:
        title: above it.
        x_title: below the x axis.
        y_title: above the y axis.
        x_ticks: places on the x axis with their labels.
        y_ticks: the same on the y axis.
        marks: the trials.
        rug: trials without a score, on the lower edge.
        lines: curves.
        width: in units of the SVG.
        height: the same.
        left: where the plot's area begins; `right`, `top` and `bottom` are its other edges.
    """

    title: str
    x_title: str
    y_title: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...]
    rug: tuple[Mark, ...] = ()
    lines: tuple[Line, ...] = ()
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def pareto(record: Record, front: Sequence[int], winner: int | None) -> list[Plot]:
    """The finished trials, one objective against another; none for one objective or no finished trial."""
    scored = [trial for trial in record.trials if trial.scored]
    n = len(record.objectives)
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n)][:PAIRS] if scored else []
    return [_pareto(record, scored, a, b, front, winner) for a, b in pairs]


def square(title: str, x_title: str, y_title: str, x: Axis, y: Axis, marks: tuple[Mark, ...]) -> Plot:
    """A chart of marks alone.

    Args:
        title: above it.
        x_title: of the x axis.
        y_title: of the y axis.
        x: from left to right.
        y: from below.
        marks: in their places, see `place`.
    """
    return Plot(
        title, x_title, y_title,
        x_ticks=tuple((_x(at), label) for at, label in x.ticks()),
        y_ticks=tuple((_y(at), label) for at, label in y.ticks()),
        marks=marks,
    )  # fmt: skip


def place(x: Axis, left: float, y: Axis, up: float) -> tuple[float, float]:
    """Where two values are in a chart with these axes."""
    return _x(x.place(left)), _y(y.place(up))


def history(record: Record, place: int, front: Sequence[int], winner: int | None) -> Plot | None:
    """One objective over the trials, and the best so far; None if no trial has finished."""
    scored = [trial for trial in record.trials if trial.scored]
    if not scored:
        return None
    objective = record.objectives[place]
    x = over([trial.number for trial in record.trials], whole=True)
    y = over([_value(trial, place) for trial in scored])
    points: list[tuple[float, float]] = []
    best = None
    for trial in scored:
        loss = objective.loss(_value(trial, place))
        if best is None or loss < best:
            points += [(_x(x.place(trial.number)), points[-1][1])] if points else []
            points.append((_x(x.place(trial.number)), _y(y.place(_value(trial, place)))))
            best = loss
    points.append((float(WIDTH - RIGHT), points[-1][1]))
    return Plot(
        title=record.labels[place],
        x_title="trial",
        y_title=f"{record.labels[place]} {arrow(record, place)}",
        x_ticks=tuple((_x(at), label) for at, label in x.ticks() if "." not in label),
        y_ticks=tuple((_y(at), label) for at, label in y.ticks()),
        marks=tuple(
            _mark(record, trial, _x(x.place(trial.number)), _y(y.place(_value(trial, place))), front, winner)
            for trial in scored
        ),
        rug=tuple(
            Mark(_x(x.place(trial.number)), HEIGHT - BOTTOM, trial.number, trial.role, said(record, trial))
            for trial in record.trials
            if not trial.scored and trial.role in ("pruned", "failed")
        ),
        lines=(Line(tuple(points), "best"),),
    )


def slices(record: Record, place: int, names: Sequence[str], front: Sequence[int], winner: int | None) -> list[Plot]:
    """One objective against each parameter: the objective from left to right, the parameter from below.

    Args:
        record: of the study.
        place: of the objective.
        names: of the parameters, in the order to draw them; those that no finished trial has are left out.
        front: numbers of the Pareto-optimal trials.
        winner: number of the winner.
    """
    scored = [trial for trial in record.trials if trial.scored]
    x = over([_value(trial, place) for trial in scored])
    found = []
    for name in names:
        having = [trial for trial in scored if name in trial.params]
        if having:
            found.append(_slice(record, place, name, having, x, front, winner))
    return found


def arrow(record: Record, place: int) -> str:
    """Where an objective is better."""
    return "↑" if record.objectives[place].maximise else "↓"


def brief(label: str) -> str:
    """A choice, cut where it would run into something else."""
    return label if len(label) <= LETTERS else f"{label[: LETTERS - 1]}…"


def said(record: Record, trial: Entry) -> str:
    """A trial in a few words."""
    if trial.values is None:
        return f"trial {trial.number}: {trial.state}"
    scores = zip(record.labels, trial.values, strict=True)
    return f"trial {trial.number}: {', '.join(f'{label} {shown(value)}' for label, value in scores)}"


def _pareto(record: Record, scored: Sequence[Entry], a: int, b: int, front: Sequence[int], winner: int | None) -> Plot:
    x, y = over([_value(trial, a) for trial in scored]), over([_value(trial, b) for trial in scored])
    placed = {t.number: (_x(x.place(_value(t, a))), _y(y.place(_value(t, b)))) for t in scored}
    corners = sorted(placed[number] for number in front if number in placed)
    stairs: list[tuple[float, float]] = []
    for corner in corners if len(record.objectives) == 2 else []:
        if stairs:  # what the front dominates has its corner at the worse of both
            worse_x = record.objectives[a].maximise
            stairs.append((stairs[-1][0], corner[1]) if worse_x else (corner[0], stairs[-1][1]))
        stairs.append(corner)
    return Plot(
        title=f"{record.labels[a]} against {record.labels[b]}",
        x_title=f"{record.labels[a]} {'→' if record.objectives[a].maximise else '←'} better",
        y_title=f"{record.labels[b]} {arrow(record, b)} better",
        x_ticks=tuple((_x(at), label) for at, label in x.ticks()),
        y_ticks=tuple((_y(at), label) for at, label in y.ticks()),
        marks=tuple(_mark(record, trial, *placed[trial.number], front, winner) for trial in scored),
        lines=(Line(tuple(stairs), "front"),) if len(stairs) > 1 else (),
    )


def _slice(
    record: Record, place: int, name: str, having: Sequence[Entry], x: Axis, front: Sequence[int], winner: int | None
) -> Plot:
    axis = of_parameter(record.distributions[name])
    height = HEAD + ROW * max(3, len(axis.choices)) + (0 if axis.choices else ROW) + 30
    letters = max((len(label) for _, label in axis.ticks()), default=3)
    left = float(min(max(12 + 7 * letters, 40), 130))
    right, bottom, room = 300.0 - 10, float(height - 28), height - 28 - HEAD

    def across(value: float) -> float:
        return round(left + (right - left) * (x.place(value) or 0.0), 2)

    def up(value: object, trial: int) -> float:
        at = axis.place(value)
        # Trials of one choice lie side by side, always the same way.
        shift = ((trial * 0.618034) % 1 - 0.5) * 0.5 / len(axis.choices) if axis.choices else 0.0
        return round(bottom - room * min(1.0, max(0.0, (at or 0.0) + shift)), 2)

    ticks = [(round(bottom - room * at, 2), brief(label)) for at, label in axis.ticks()]
    marks = tuple(
        _mark(record, t, across(_value(t, place)), up(t.params[name], t.number), front, winner)
        for t in having
        if axis.place(t.params[name]) is not None
    )
    return Plot(
        title=readable(name), x_title=f"{record.labels[place]} {arrow(record, place)}", y_title="",
        x_ticks=tuple((round(left + (right - left) * at, 2), label) for at, label in x.ticks()),
        y_ticks=tuple(ticks), marks=marks, width=300.0, height=float(height), left=left, right=right,
        top=float(HEAD), bottom=bottom,
    )  # fmt: skip


def _mark(record: Record, trial: Entry, x: float, y: float, front: Sequence[int], winner: int | None) -> Mark:
    role = "front" if trial.number in front else "finished"
    return Mark(x, y, trial.number, role, said(record, trial), trial.number == winner)


def _value(trial: Entry, place: int) -> float:
    assert trial.values is not None
    return trial.values[place]


def _x(place: float | None) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (place or 0.0), 2)


def _y(place: float | None) -> float:
    return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (place or 0.0), 2)
