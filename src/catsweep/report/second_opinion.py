"""What the report tells beside the objectives: the judge's scores against FID, and confirmed trials, seed beside seed.

Pure arithmetic over `catsweep.report.record`, for report.html and report.md alike. Without a judge there is no chart
and no table, and the sentence says how to ask one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from catsweep.metrics.judge import BESIDE, FID, JUDGED, PREFIX, RunScores, better
from catsweep.metrics.scores import Copied
from catsweep.report import charts, pictures
from catsweep.report.charts import Mark, Plot
from catsweep.report.grids import Images
from catsweep.report.record import Record
from catsweep.report.scales import over
from catsweep.report.words import shown

COLUMNS = (FID, *BESIDE, f"{PREFIX}{Copied.name}")  # of the table
SHOWN = 16  # samples of each run
TRIALS = 5  # confirmed ones that are shown with samples


@dataclass(frozen=True)
class Row:
    """A trial in the table.

    Attributes:
        trial: its number.
        role: `winner`, `Pareto-optimal`, `confirmed`.
        cells: of each column, what the run of the search got, and mean ± deviation over other seeds; may be empty.
    """

    trial: int
    role: str
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Seen:
    """What one run of a confirmed trial draws.

    Attributes:
        seed: under which it was trained; None for that of the search.
        images: uint8 (N, side, side, 3), N at least 1.
        words: its scores.
    """

    seed: int | None
    images: Images
    words: str


@dataclass(frozen=True)
class SecondOpinion:
    """The section.

    Attributes:
        sentence: whether the judge agrees, or how to ask it.
        plot: FID against the judge's, of all judged runs; None with none.
        columns: labels of the scores in the table, each with an arrow to where it is better.
        rows: the Pareto set and the confirmed trials; none if nothing was judged.
        photos: what photos score in the place of drawn images, a text per column; empty if that is not known.
        seeds: by confirmed trial, the best mean first, its runs beside each other.
    """

    sentence: str
    plot: Plot | None
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    photos: tuple[str, ...]
    seeds: dict[int, tuple[Seen, ...]]


def second_opinion(record: Record, winner: int, front: Sequence[int], confirmed: Sequence[int]) -> SecondOpinion:
    """Work out the section.

    Args:
        record: of the study.
        winner: number of the winner.
        front: numbers of the Pareto-optimal trials, best first.
        confirmed: numbers of the confirmed ones, best mean first.
    """
    opinion = record.opinion
    names = [name for name in COLUMNS if opinion.judged and any(name in one.values for one in _every(record))]
    trials = list(dict.fromkeys([winner, *confirmed, *front])) if names else []
    photos = tuple(shown(opinion.reals[name]) if name in opinion.reals else "" for name in names)
    return SecondOpinion(
        sentence=opinion.sentence(winner),
        plot=_plot(record, front, winner),
        columns=tuple(f"{record.label(name)} {better(name)}".strip() for name in names),
        rows=tuple(
            Row(
                trial,
                "winner" if trial == winner else "Pareto-optimal" if trial in front else "confirmed",
                tuple(_cell(record, trial, name) for name in names),
            )
            for trial in trials
        ),
        photos=photos if any(photos) else (),
        seeds={trial: runs for trial in confirmed[:TRIALS] if (runs := _seen(record, trial))},
    )


def _every(record: Record) -> list[RunScores]:
    return [*record.opinion.own.values(), *(one for runs in record.opinion.again.values() for one in runs.values())]


def _cell(record: Record, trial: int, name: str) -> tuple[str, str]:
    own = record.opinion.own.get(trial, RunScores()).values
    over_seeds = [one.values[name] for one in record.opinion.again.get(trial, {}).values() if name in one.values]
    spread = f" ± {stdev(over_seeds):.2g}" if len(over_seeds) > 1 else ""
    return shown(own[name]) if name in own else "", f"{shown(fmean(over_seeds))}{spread}" if over_seeds else ""


def _plot(record: Record, front: Sequence[int], winner: int) -> Plot | None:
    runs: list[tuple[int, int | None, RunScores]] = [(trial, None, one) for trial, one in record.opinion.own.items()]
    runs += [(trial, seed, one) for trial, again in record.opinion.again.items() for seed, one in again.items()]
    judged = [(trial, seed, one.values) for trial, seed, one in runs if {FID, JUDGED} <= one.values.keys()]
    if not judged:
        return None
    labels = {name: record.label(name) for name in (FID, JUDGED)}
    x, y = (over([values[name] for _, _, values in judged]) for name in (FID, JUDGED))
    return charts.square(
        title=f"{labels[FID]} against {labels[JUDGED]}",
        x_title=f"{labels[FID]} ← better",
        y_title=f"{labels[JUDGED]} ↓ better",
        x=x,
        y=y,
        marks=tuple(
            Mark(
                *charts.place(x, values[FID], y, values[JUDGED]),
                trial,
                "confirmation" if seed is not None else "front" if trial in front else "finished",
                f"trial {trial}{'' if seed is None else f' under seed {seed}'}: "
                + ", ".join(f"{labels[name]} {shown(values[name])}" for name in (FID, JUDGED)),
                trial == winner and seed is None,
            )
            for trial, seed, values in judged
        ),
    )


def _seen(record: Record, trial: int) -> tuple[Seen, ...]:
    """The runs of a trial: that of the search, then by seed."""
    [own] = [one for one in record.trials if one.number == trial]
    again = [one for one in record.confirmations if one.confirms == trial and one.scored and one.seed is not None]
    found = []
    for entry in (own, *sorted(again, key=lambda one: one.seed or 0)):
        scores = record.opinion.own if entry is own else record.opinion.again.get(trial, {})
        values = scores.get(trial if entry is own else entry.seed or 0, RunScores()).values
        images = pictures.read_cells(pictures.latest(entry.run, "samples", pictures.scored_epoch(entry.run)))
        if len(images):
            words = ", ".join(f"{record.label(name)} {shown(values[name])}" for name in (FID, JUDGED) if name in values)
            found.append(Seen(None if entry is own else entry.seed, images[:SHOWN], words))
    return tuple(found)
