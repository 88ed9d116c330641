"""All trials as lines across their parameters and scores: parallel coordinates, upright or, for a phone, lying.

Drawn as plain SVG, for plotly's needs WebGL, which phones and printers lack. Pruned and failed trials end at the last
parameter; a parameter that a trial did not have leaves a gap in its line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from catsweep.report.charts import arrow, brief, said
from catsweep.report.record import Entry, Record
from catsweep.report.scales import Axis, of_parameter, over
from steady.printing import readable

ORDER = {"failed": 0, "pruned": 1, "running": 2, "finished": 3, "front": 4}  # what lies above what


@dataclass(frozen=True)
class Rail:
    """One axis.

    Attributes:
        name: of the parameter or the score.
        ticks: along it, 0 to 1, with their labels.
        score: whether it is a score.
        detail: of a score, its extractor; else empty.
        way: of a score, an arrow to where it is better; else empty.
    """

    name: str
    ticks: tuple[tuple[float, str], ...]
    score: bool
    detail: str = ""
    way: str = ""


@dataclass(frozen=True)
class Thread:
    """One trial: its place on each rail, 0 to 1, None where it has none.

    Attributes:
        shade: of a finished trial, 0 for the best by the first objective to 1 for the worst.
    """

    trial: int
    role: str
    text: str
    places: tuple[float | None, ...]
    shade: float
    winner: bool = False


@dataclass(frozen=True)
class Parallel:
    """The whole chart."""

    rails: tuple[Rail, ...]
    threads: tuple[Thread, ...]


def parallel(record: Record, names: Sequence[str], front: Sequence[int], winner: int | None) -> Parallel | None:
    """Lay the trials over the parameters.

    Args:
        record: of the study.
        names: of the parameters, in the order of the rails.
        front: numbers of the Pareto-optimal trials.
        winner: number of the winner.

    Returns:
        None if there is nothing to see: fewer than two rails, or no trial with a parameter.
    """
    axes: list[tuple[str, Axis]] = [(name, of_parameter(record.distributions[name])) for name in names]
    scored = [trial for trial in record.trials if trial.scored]
    scores = [over([trial.values[i] for trial in scored if trial.values]) for i in range(len(record.objectives))]
    scores = scores if scored else []
    rails = [Rail(short(name, names), _brief(axis), False) for name, axis in axes]
    rails += [_score(record, i, axis) for i, axis in enumerate(scores)]
    drawn = [trial for trial in record.trials if trial.params and trial.role != "waiting"]
    if len(rails) < 2 or not drawn:
        return None
    order = sorted(scored, key=lambda trial: (record.objectives[0].loss((trial.values or (0.0,))[0]), trial.number))
    shades = {trial.number: i / max(1, len(order) - 1) for i, trial in enumerate(order)}
    threads = [_thread(record, trial, axes, scores, front, winner, shades.get(trial.number, 1.0)) for trial in drawn]
    threads.sort(key=lambda thread: (thread.winner, ORDER.get(thread.role, 0), -thread.shade, thread.trial))
    return Parallel(tuple(rails), tuple(threads))


def path(thread: Thread, length: float, across: float, lying: bool, start: float = 0.0) -> str:
    """A thread as an SVG path.

    Args:
        thread: the trial.
        length: from one rail to the next, in units of the SVG.
        across: from the lower end of a rail to its upper.
        lying: whether the rails lie, one below the other, from left to right; else they stand.
        start: of the first rail.
    """
    words, pen = [], "M"
    for i, place in enumerate(thread.places):
        if place is None:
            pen = "M"
            continue
        along, value = start + i * length, across * place
        x, y = (value, along) if lying else (along, across - value)
        words.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(words)


def _thread(
    record: Record,
    trial: Entry,
    axes: Sequence[tuple[str, Axis]],
    scores: Sequence[Axis],
    front: Sequence[int],
    winner: int | None,
    shade: float,
) -> Thread:
    places = [axis.place(trial.params[name]) if name in trial.params else None for name, axis in axes]
    if trial.scored and trial.values:
        places += [axis.place(value) for axis, value in zip(scores, trial.values, strict=True)]
        role = "front" if trial.number in front else "finished"
    else:
        places += [None] * len(scores)
        role = "failed" if trial.role == "finished" else trial.role  # finished, with a score that is no number
    clipped = tuple(None if place is None else round(min(1.0, max(0.0, place)), 4) for place in places)
    return Thread(trial.number, role, said(record, trial), clipped, round(shade, 3), trial.number == winner)


def _brief(axis: Axis) -> tuple[tuple[float, str], ...]:
    return tuple((at, brief(label)) for at, label in axis.ticks())


def _score(record: Record, place: int, axis: Axis) -> Rail:
    name, label = readable(record.objectives[place].name), record.labels[place]
    return Rail(name, axis.ticks(), True, label.removeprefix(name).strip(" ()"), arrow(record, place))


def short(name: str, names: Sequence[str]) -> str:
    """The last part of a parameter's name, if no other ends so."""
    last = name.rpartition(".")[2]
    return readable(last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name)
