"""report.html: one file that opens offline, on a phone and on a desktop.

Fills `report.html.jinja` with what the other modules of `catsweep.report` worked out. Every text of a study is escaped
by the template; pictures are in the file; the page asks for nothing and its own policy forbids it to.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from catsweep import templates
from catsweep.metrics.judge import better
from catsweep.printing import readable
from catsweep.report import charts, parallel, pictures, words
from catsweep.report.failures import failures
from catsweep.report.grids import Images
from catsweep.report.optuna_plots import library
from catsweep.report.record import Entry, Record
from catsweep.report.story import Story

TEMPLATE = "report.html.jinja"
STRIP = (4, 2)  # columns and rows of the samples of one trial
STRIPS = 300  # trials that are shown with samples; each takes about 15 kB
SEED = (4, 4)  # of the samples of a confirmed trial under one seed
SHARE = (6, 6)  # the same of the winner's samples, and of the real cats beside them


@dataclass(frozen=True)
class Row:
    """A trial in the table.

    Attributes:
        trial: the trial.
        rank: its place, from 1.
        strip: some of its samples, a data URI; empty without any.
        link: its folder, from the page; empty if it is not there.
        label: how it ended, with a star for a Pareto-optimal one.
    """

    trial: Entry
    rank: int
    strip: str
    link: str
    label: str


def render(story: Story, home: Path) -> str:
    """The page.

    Args:
        story: of the study.
        home: folder that the page will be in; links to run folders start there.

    Returns:
        HTML; equal stories give equal pages.
    """
    environment = templates.environment(Path(__file__).parent)
    environment.filters.update(shown=words.shown, parameter=words.parameter, duration=words.duration)
    environment.filters.update(better=better)
    environment.filters.update(moment=words.moment, listed=words.listed, readable=readable, breakable=breakable)
    environment.globals.update(counted=words.counted, path=parallel.path)
    return environment.get_template(TEMPLATE).render(**_context(story, home)).lstrip()


def breakable(text: str) -> Markup:
    """A name, escaped, that may be broken behind its points, strokes and slashes."""
    return Markup(re.sub(r"([._/]|\s(?=\())", r"\1<wbr>", str(escape(text))))


def budget(record: Record) -> str:
    """What each trial was given, in words; empty if unknown."""
    config = record.contract.get("config") or {}
    minutes, epochs = config.get("minutes"), config.get("epochs")
    bounds = [f"{words.shown(minutes)} min"] if minutes else []
    bounds += [words.counted(int(epochs), "epoch")] if isinstance(epochs, int) else []
    return (
        f"{' or '.join(bounds)} of training each{', whichever ends first' if len(bounds) > 1 else ''}" if bounds else ""
    )


def pruned_by(record: Record) -> str:
    """The scores that trials were given up by, and the pruner; empty if there is none."""
    pruning = record.pruning or {}
    pruner = pruning.get("pruner")
    name = str(pruner.get("_target_", "")).rpartition(".")[2] if isinstance(pruner, dict) else ""
    scores = [record.label(str(score)) for score in pruning.get("metrics") or []]
    return readable(", ".join(word for word in (*scores, name) if word))


def link(folder: Path | None, home: Path) -> str:
    """From the page to a folder, as a URL; empty if there is none."""
    return quote(Path(os.path.relpath(folder, home)).as_posix(), errors="surrogateescape") + "/" if folder else ""


def _context(story: Story, home: Path) -> dict[str, Any]:
    record, front, number = story.record, story.winner.front, story.winner.number
    n = len(record.objectives)
    return {
        "story": story,
        "record": record,
        "name": readable(record.name),
        "winner": story.winner,
        "best": next((trial for trial in record.trials if trial.number == number), None),
        "front": front,
        "labels": record.labels,
        "arrows": [charts.arrow(record, place) for place in range(n)],
        "budget": budget(record),
        "pruned_by": pruned_by(record),
        "sides": [_sheet(some) for some in (story.samples, story.real)],
        "reconstructions": "" if story.reconstructions is None else pictures.data_uri(story.reconstructions),
        "pareto": charts.pareto(record, front, number),
        "histories": [plot for i in range(n) if (plot := charts.history(record, i, front, number))],
        "slices": [charts.slices(record, i, story.names, front, number) for i in range(n)],
        "parallel": parallel.parallel(record, story.names, front, number),
        "failures": failures(record),
        "rows": _rows(record, front, number, home),
        "names": list(record.distributions),
        "beside": record.beside,
        "again": _again(story),
        "seeds": [
            (trial, [(one, pictures.data_uri(pictures.sheet(one.images, *SEED))) for one in runs])
            for trial, runs in (story.second.seeds if story.second else {}).items()
        ],
        "short": {name: parallel.short(name, list(record.distributions)) for name in record.distributions},
        "cards": _cards(record),
        "library": library() if story.drawings else "",
    }


def _again(story: Story) -> dict[str, dict[int, str]]:
    """Scores beside the objectives under other seeds, by score and trial."""
    confirmed = story.winner.confirmed
    return confirmed.beside(story.record.opinion.again) if confirmed else {}


def _sheet(images: Images) -> str:
    return pictures.data_uri(pictures.sheet(images, *SHARE)) if len(images) else ""


def _cards(record: Record) -> list[dict[str, Any]]:
    """Metric cards by the score's label: first those of the objectives, then those of other scores."""
    own = [objective.name for objective in record.objectives]
    labelled = [(score in own, record.label(score), card) for score, card in record.cards.items()]
    return [{label: card for is_own, label, card in labelled if is_own == wanted} for wanted in (True, False)]


def _rows(record: Record, front: Sequence[int], winner: int | None, home: Path) -> list[Row]:
    trials = {trial.number: trial for trial in record.trials}
    return [
        Row(
            trial=(trial := trials[number]),
            rank=rank,
            strip=_strip(trial) if rank <= STRIPS or number in front else "",
            link=link(trial.run, home),
            label="winner" if number == winner else "Pareto-optimal" if number in front else trial.state,
        )
        for rank, number in enumerate(record.ranked, start=1)
    ]


def _strip(trial: Entry) -> str:
    images = pictures.read_cells(pictures.latest(trial.run, "samples", pictures.scored_epoch(trial.run)))
    if not len(images):
        return ""
    return pictures.data_uri(pictures.sheet(images, *STRIP, cell=pictures.CELL), quality=80)
