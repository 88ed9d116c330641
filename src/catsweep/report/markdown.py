"""report.md and its pictures in report/: the same story as report.html, for a pull request or a paper.

After `catsweep.report.page`, from the same `Story`. Every text of a study goes through `catsweep.markdown`; every
picture it links exists.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from catsweep.atomic import replacing_folder, write_text
from catsweep.markdown import Markdown, fenced, plain, preformatted, table
from catsweep.metrics.judge import RunScores, better
from catsweep.ownership import Kind
from catsweep.report import charts, figures, pictures, words
from catsweep.report.failures import failures, first_line
from catsweep.report.grids import Images, save_png
from catsweep.report.page import SEED, SHARE, STRIP, budget, link, pruned_by
from catsweep.report.parallel import parallel
from catsweep.report.record import Entry
from catsweep.report.story import Story

PAGE, PICTURES = "report.md", "report"
DRAWN = Kind(
    "the pictures of a report",
    "sweeps=DIR",
    ("history.png", "importance.png", "parallel.png", "pareto.png", "pareto_samples.png", "reconstructions.png",
     "second_opinion.png", "seeds_*.png", "slices_*.png", "timeline.png", "winner.png"),
)  # fmt: skip
SHOWN = 30  # rows of the table
FRONT = 5  # Pareto-optimal trials whose samples are in a picture


def write(story: Story, folder: Path) -> Path:
    """Write report.md and its pictures.

    Args:
        story: of the study.
        folder: the study's.

    Returns:
        The Markdown file.
    """
    with replacing_folder(folder / PICTURES, DRAWN) as drawn:
        _draw(story, drawn)
        names = {path.name for path in drawn.iterdir()}
    write_text(folder / PAGE, "\n".join(_lines(story, folder, names)) + "\n")
    return folder / PAGE


def _draw(story: Story, folder: Path) -> None:
    _photos(story, folder)
    record, front, winner = story.record, story.winner.front, story.winner.number
    places = range(len(record.objectives))
    second = [story.second.plot] if story.second and story.second.plot else []
    drawings: dict[str, tuple[list[charts.Plot], dict[str, Any]]] = {
        "second_opinion": (second, {"numbered": True}),
        "pareto": (charts.pareto(record, front, winner), {"numbered": True}),
        "history": ([plot for i in places if (plot := charts.history(record, i, front, winner))], {}),
    }
    for i in places:
        drawings[f"slices_{i}"] = (charts.slices(record, i, story.names, front, winner), {"columns": 4, "height": 2.0})
    for name, (plots, form) in drawings.items():
        if plots:
            figures.charts(folder / f"{name}.png", plots, **form)
    if chart := parallel(record, story.names, front, winner):
        figures.parallel(folder / "parallel.png", chart)
    if any(one.shares for one in story.importances):
        figures.importance(folder / "importance.png", story.importances, record.labels)
    if story.timeline:
        figures.timeline(folder / "timeline.png", story.timeline)


def _photos(story: Story, folder: Path) -> None:
    sides = [pictures.sheet(some, *SHARE, padding=2) for some in (story.samples, story.real) if len(some)]
    if len(story.samples):
        save_png(folder / "winner.png", figures.beside(*sides))
    if story.reconstructions is not None:
        save_png(folder / "reconstructions.png", story.reconstructions)
    if strips := [strip for trial in _front(story)[:FRONT] if (strip := _strip(trial)) is not None]:
        save_png(folder / "pareto_samples.png", figures.beside(*strips))
    for trial, runs in (story.second.seeds if story.second else {}).items():
        sheets = [pictures.sheet(one.images, *SEED, padding=2) for one in runs]
        save_png(folder / f"seeds_{trial}.png", figures.beside(*sheets))


def _lines(story: Story, home: Path, drawn: set[str]) -> Iterable[str]:
    record = story.record
    counts = ", ".join(f"{len(record.named(role))} {role}" for role in ("finished", "pruned", "failed"))
    yield f"# {plain(record.name)}: what the sweep found"
    yield ""
    over = words.counted(len(story.names), "parameter")
    yield f"{words.counted(len(record.trials), 'trial')} ({counts}) over {over}."
    if unfinished := story.unfinished():
        yield f"**Not finished yet:** {plain(unfinished)}"
    yield from _searched(story)
    yield from _winner(story, home, drawn)
    yield from _pareto(story, drawn)
    yield from _second(story, drawn)
    yield from _picture("History", "history.png", drawn, "The line is the best so far; ticks below: pruned or failed.")
    yield from _picture(
        "All trials at once", "parallel.png", drawn, f"The stronger a line, the better its {plain(record.labels[0])}."
    )
    notes = " ".join(f"{plain(record.labels[one.objective])}: {plain(one.note)}" for one in story.importances)
    yield from _section("Which parameters mattered", [f"PED-ANOVA. {notes}"], "importance.png", drawn)
    for i, label in enumerate(record.labels):
        yield from _picture(f"Slices of {plain(label)}", f"slices_{i}.png", drawn, "")
    yield from _picture("Who ran when", "timeline.png", drawn, "One row a slot; the numbers are trials.")
    yield from _failures(story)
    yield from _trials(story, home)
    yield from _measured(story)
    yield from _again(story)


def _searched(story: Story) -> Iterable[str]:
    record, line = story.record, story.timeline
    aims = [f"{plain(label)} {charts.arrow(record, i)}" for i, label in enumerate(record.labels)]
    facts = {"objectives": ", ".join(aims), "budget": plain(budget(record)), "photos": plain(story.photos)}
    facts["pruned by"] = plain(pruned_by(record))
    if line:
        pauses = f" and {words.duration(line.paused)} of pauses" if line.paused else ""
        facts["when"] = (
            f"{words.moment(line.start)} to {words.moment(line.end)}: {words.duration(line.worked)}{pauses}, "
            f"{words.duration(line.busy)} of work in {words.counted(len(line.lanes), 'slot')}, "
            f"{line.share:.0%} busy"
        )
    yield from ("", "## What was searched", "")
    yield from (f"- {name}: {said}" for name, said in facts.items() if said)
    space = record.contract.get("space") or dict.fromkeys(story.names, "")
    yield from ("", *table(["parameter", "range"], space.items()))


def _winner(story: Story, home: Path, drawn: set[str]) -> Iterable[str]:
    winner = story.winner
    yield from ("", "## The winner", "")
    if winner.choice is None:
        yield plain(winner.remark)
        return
    yield f"Trial {winner.number}: {plain(story.reason)}. {plain(winner.remark)}".rstrip()
    yield plain(story.doubt)
    best = next(trial for trial in story.record.trials if trial.number == winner.number)
    yield from ("", *(f"- {plain(name)}: {plain(words.parameter(value))}" for name, value in best.params.items()))
    what = "What it draws, beside real cats" if len(story.real) else "What it draws"
    yield from _image(what, "winner.png", drawn)
    yield from _image("Held-out photos, and what it makes of them", "reconstructions.png", drawn)
    if winner.confirmed:
        beside = winner.confirmed.beside(story.record.opinion.again)
        rows = [
            [str(one.trial), *(f"{one.words(i)} ({words.shown(v)})" for i, v in enumerate(one.searched)),
             *(said.get(one.trial, "") for said in beside.values()), str(len(one.values)), winner.role(one.trial)]
            for one in winner.confirmed.candidates
        ]  # fmt: skip
        yield from ("", "Under other seeds, mean ± standard deviation (in brackets: in the search):", "")
        more = [f"{story.record.label(name)} {better(name)}" for name in beside]
        yield from table(["trial", *story.record.labels, *more, "seeds", ""], rows)


def _pareto(story: Story, drawn: set[str]) -> Iterable[str]:
    if "pareto.png" not in drawn:
        return
    yield from _picture("The Pareto set", "pareto.png", drawn, "")
    numbers = [trial.number for trial in _front(story)]
    with_strip = [t.number for t in _front(story)[:FRONT] if _strip(t) is not None]
    yield from ("", f"Pareto-optimal: {words.listed(numbers)}.")
    yield from _image(f"Samples of trials {words.listed(with_strip)}, from left to right", "pareto_samples.png", drawn)


def _second(story: Story, drawn: set[str]) -> Iterable[str]:
    second = story.second
    if second is None:
        return
    yield from ("", "## A second opinion", "", plain(story.judged))
    yield from _image("FID against the judge's", "second_opinion.png", drawn)
    if second.rows:
        rows = [
            [f"{row.trial}, {row.role}", *(f"{own} ({means})" if means else own for own, means in row.cells)]
            for row in second.rows
        ]
        photos = [["real photos in their place", *second.photos]] if second.photos else []
        yield from ("", *table(["trial", *second.columns], [*rows, *photos], right=True), "")
        yield "In brackets: mean ± standard deviation under other seeds. One cat drawn well has no recall, no coverage."
    for trial, runs in second.seeds.items():
        seeds = ["the search" if one.seed is None else f"seed {one.seed}" for one in runs]
        yield from _image(f"Trial {trial}, from left to right: {', '.join(seeds)}", f"seeds_{trial}.png", drawn)


def _failures(story: Story) -> Iterable[str]:
    found = failures(story.record)
    yield from ("", "## Failures", "", *([] if found else ["None."]))
    for failure in found:
        who = f"trial{'s' if len(failure.trials) > 1 else ''} {plain(words.listed(failure.trials))}"
        yield from ("", f"**{plain(failure.kind)}**, {who}: {plain(failure.message)}")
        if failure.traceback:
            yield from (
                "",
                "<details><summary>traceback</summary>",
                "",
                preformatted(failure.traceback),
                "",
                "</details>",
            )


def _trials(story: Story, home: Path) -> Iterable[str]:
    record, winner, front = story.record, story.winner.number, story.winner.front
    by_number = {trial.number: trial for trial in record.trials}
    rows = []
    for number in record.ranked[:SHOWN]:
        trial = by_number[number]
        scores = [""] * len(record.objectives) if trial.values is None else [words.shown(v) for v in trial.values]
        how = "winner" if number == winner else "Pareto-optimal" if number in front else trial.state
        said = first_line(trial.message)[:120]
        took = "" if trial.seconds is None else words.duration(trial.seconds)
        chosen = " ".join(f"{name}={words.parameter(value)}" for name, value in trial.params.items())
        folder = link(trial.run, home)
        name = Markdown(f"[{number}]({folder})") if folder else number
        own = record.opinion.own.get(number, RunScores()).values
        more = [words.shown(own[one]) if one in own else "" for one in record.beside]
        rows.append([name, f"{how} {said}", *scores, *more, took, chosen])
    yield from ("", "## All trials", "")
    more = [record.label(one) for one in record.beside]
    yield from table(["trial", "ended", *record.labels, *more, "time", "parameters"], rows)
    if len(record.ranked) > SHOWN:
        yield from ("", f"And {len(record.ranked) - SHOWN:,} more, in report.html and leaderboard.csv.")


def _measured(story: Story) -> Iterable[str]:
    cards = {story.record.label(score): card for score, card in story.record.cards.items()}
    if not cards:
        return
    yield from ("", "## How it was measured", "")
    yield "Two scores can be compared only if their cards agree; an FID is one of its extractor."
    keys = list(dict.fromkeys(key for card in cards.values() for key in card))
    rows = [[key.replace("_", " "), *(_said(card.get(key)) for card in cards.values())] for key in keys]
    yield from ("", *table(["", *cards], rows))


def _again(story: Story) -> Iterable[str]:
    again = story.reproduction
    yield from ("", "## Do it again", "")
    if not again.sweep:
        yield "Neither the study nor a run folder keeps the line that began it."
        return
    yield f"The sweep{f', at commit {plain(again.commit)}' if again.commit else ''}:"
    yield from ("", *fenced(again.sweep))
    if not again.exact:
        yield from ("", "Put together from what the study keeps; options of hydra.sweeper are not kept there.")
    if again.winner:
        yield from ("", "The winner alone:", "", *fenced(again.winner))


def _front(story: Story) -> list[Entry]:
    by_number = {trial.number: trial for trial in story.record.trials}
    return [by_number[number] for number in story.winner.front]


def _strip(trial: Entry) -> Images | None:
    images = pictures.read_cells(pictures.latest(trial.run, "samples", pictures.scored_epoch(trial.run)))
    return pictures.sheet(images, *STRIP, cell=pictures.CELL) if len(images) else None


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {words.shown(item)}" for key, item in value.items())
    text = "" if value is None else words.shown(value)
    return f"{text[:16]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


def _picture(title: str, name: str, drawn: set[str], about: str) -> Iterable[str]:
    return _section(title, [about] if about else [], name, drawn) if name in drawn else []


def _section(title: str, about: Sequence[str], name: str, drawn: set[str]) -> Iterable[str]:
    yield from ("", f"## {title}", "", *about)
    yield from _image(title, name, drawn)


def _image(title: str, name: str, drawn: set[str]) -> Iterable[str]:
    return ["", f"![{title}]({PICTURES}/{name})"] if name in drawn else []
