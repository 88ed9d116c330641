"""The report of a preparation: data/ready/<name>/report.html, one file that opens offline, on a phone and on paper.

Last of what `catsweep.data.prepare.pipeline` makes for people: how many images came through each stage, what was left
out and why, with pictures, and what the ready set looks like. All pictures are in the file. Their number is limited,
so that the report of 75,000 images is as small as that of 1,000. Equal stages and ready sets give equal bytes.
"""

import json
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from catsweep import templates
from catsweep.data.files import say_passed_over
from catsweep.data.prepare import left_out, measures
from catsweep.data.prepare.album import Album, Group, data_uri, grouped
from catsweep.data.prepare.charts import Histogram, Share, histogram, shares
from catsweep.data.prepare.images import Pixels, read_image
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import SHEET, Done
from catsweep.data.ready import TRAIN, VAL, ReadySet, pick
from steady.atomic import write_text
from steady.printing import readable_name

PAGE = "report.html"
TEMPLATE = "report.html.jinja"
MEASURED = 2000  # images that are read for the distributions
EXTREMES = 6  # images at either end of one
FOLLOWED = 6  # photos that are shown at every stage
FAMILIES, MEMBERS = 4, 10  # photos whose copies are shown, and how many of them
DEPTH = 4  # halvings of conf/depth/medium.yaml, which a run has unless it is told otherwise
SMALL, WIDE = 96, 820  # longer sides of the smallest pictures and of contact sheets, pixels


@dataclass(frozen=True)
class Step:
    """One stage: its counts, and what it left out, by kind of reason."""

    name: str
    folder: str
    into: int
    records: int
    kept: int
    out: int
    doubtful: int
    parameters: str
    sheet: str
    notes: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Chart:
    """A distribution.

    Attributes:
        histogram: of what was measured.
        what: was measured, `photo` or `image`.
        about: how it was measured.
        least: images at its lower end, if they are shown.
        most: the same at its upper end.
    """

    histogram: Histogram
    what: str
    about: str
    least: tuple[str, ...] = ()
    most: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """What is in one split."""

    name: str
    images: int
    photos: int
    groups: frozenset[str]


def write(done: Sequence[Done], ready: ReadySet, passed_over: Mapping[str, str] | None = None) -> Path:
    """Write the report of a ready set beside it, whole or not at all.

    Args:
        done: the stages it was made by, in their order.
        ready: the set.
        passed_over: what was not taken for a photo, with the reason.

    Returns:
        The file.
    """
    environment = templates.environment(Path(__file__).parent)
    environment.filters["number"] = "{:,}".format
    album = Album(done)
    html = environment.get_template(TEMPLATE).render(
        ready=ready,
        name=readable_name(str(ready.card["name"])),
        command=command(ready),
        steps=[_step(album, place) for place in range(len(done))],
        left=left_out.count(done),
        doubts=_doubts(album),
        doubted=len({record.source for stage in done for record in stage.records if record.doubts}),
        journeys=_journeys(album),
        charts=_charts(done, ready),
        methods=_methods(done),
        operations=_operations(done),
        families=_families(ready),
        passed_over=say_passed_over(passed_over or {}),
        splits=[_split(ready, name) for name in (TRAIN, VAL)],
    )
    path = ready.path / PAGE
    write_text(path, html)
    return path


def command(ready: ReadySet) -> str:
    """The line that trains on a ready set, with a depth that fits its images where the usual one does not.

    No model halves images of an odd size; then it is the line that makes others.
    """
    if ready.size % 2:
        return f"no model takes images of {ready.size} pixels; prepare them again with size={ready.size + 1}"
    fitting = max(halvings for halvings in range(1, DEPTH + 1) if ready.size % 2**halvings == 0)
    depth = "" if fitting == DEPTH else f" depth.halvings={fitting}"
    return f"python src/train.py data=ready {shlex.quote(f'data.source={ready.path}')} data.size={ready.size}{depth}"


def _step(album: Album, place: int) -> Step:
    stage = album.done[place]
    refused = [(record.reason, record) for record in stage.records if not record.kept]
    kept, sheet = len(stage.kept), stage.folder / SHEET
    return Step(
        name=str(stage.card["stage"]),
        folder=stage.folder.name,
        into=len(album.done[place - 1].kept) if place else len(stage.records),
        records=len(stage.records),
        kept=kept,
        out=len(refused),
        doubtful=int(stage.card["counts"]["doubtful"]),
        parameters=json.dumps(stage.card["parameters"], indent=1, sort_keys=True),
        sheet=data_uri(read_image(sheet), WIDE, quality=70) if sheet.is_file() else "",
        notes=tuple(stage.card["notes"]),
        groups=grouped(refused, lambda record, said: album.picture(place, record, said, out=True)),
    )


def _doubts(album: Album) -> tuple[Group, ...]:
    """Every doubt, where it first came up, and what became of the image."""
    ready = {record.source for record in album.done[-1].kept}
    first: dict[tuple[str, str], tuple[int, Record]] = {}
    for place, stage in enumerate(album.done):
        for record in stage.records:
            for doubt in record.doubts:
                first.setdefault((record.source, doubt), (place, record))
    items = [(doubt, found) for (_, doubt), found in first.items()]
    return grouped(items, lambda found, said: album.picture(*found, said, out=found[1].source not in ready))


def _journeys(album: Album) -> dict[str, list[str]]:
    """Some photos at every stage that changed one of them: names of stages, each with its images."""
    photos = [record for record in album.done[-1].kept if "copy" not in record.parameters]
    chosen = [photos[place].id for place in pick(len(photos), FOLLOWED)]
    shown: dict[str, list[str]] = {}
    for place, stage in enumerate(album.done):
        images = [data_uri(album.image(place, identity)) for identity in chosen]
        if images not in shown.values():
            shown[str(stage.card["stage"])] = images
    return shown


def _charts(done: Sequence[Done], ready: ReadySet) -> list[Chart]:
    photos = [row for row in ready.rows if row.copy == 0 and row.width]
    zoomed = [record for stage in done if stage.card["stage"] == "zoom" for record in stage.kept]
    sides = [min(row.width, row.height) for row in photos]
    tilts, enlargements = measures.tilts(zoomed), measures.enlargements(zoomed)
    charts = []
    if sides:
        charts.append(Chart(histogram("Size of the photos", sides, " px"), "photo", "the shorter side"))
    if enlargements:
        about = "how many times a face is enlarged by stage zoom; below 1 it is shrunk"
        charts.append(Chart(histogram("Enlargement", enlargements), "photo", about))
    if tilts:
        charts.append(Chart(histogram("Tilt of the head", tilts, "°"), "photo", "clockwise; 0 is upright"))
    black, plain = "mean of an image; 0 is black, 255 white", "how much neighbouring pixels differ"
    charts.append(_measured(ready, "Brightness", black, measures.brightness, (0, 255)))
    charts.append(_measured(ready, "Sharpness", plain, measures.sharpness, None))
    return charts


def _measured(
    ready: ReadySet, title: str, about: str, measure: Callable[[Pixels], float], bounds: tuple[float, float] | None
) -> Chart:
    originals = ready.originals()
    chosen = originals[pick(len(originals), MEASURED)]
    values = np.array([measure(ready.images[place]) for place in chosen])
    order = chosen[np.argsort(values, kind="stable")]
    few = min(EXTREMES, len(order) // 2)
    least, most = ([data_uri(ready.images[i], SMALL) for i in ends] for ends in (order[:few], order[::-1][:few]))
    return Chart(histogram(title, values, bounds=bounds), "image", about, tuple(least), tuple(most))


def _methods(done: Sequence[Done]) -> tuple[Share, ...]:
    """How many faces were found in which way."""
    found = [measures.method(record) for stage in done if stage.card["stage"] == "zoom" for record in stage.kept]
    return shares(Counter(found), len(found))


def _operations(done: Sequence[Done]) -> tuple[Share, ...]:
    """How many of the copies had which operation."""
    stages = [stage for stage in done if stage.card["stage"] == "augment"]
    made = [record.operation.split() for stage in stages for record in stage.kept if "copy" in record.parameters]
    return shares(Counter(word for words in made for word in words), len(made))


def _families(ready: ReadySet) -> list[list[str]]:
    """Some photos, each with some of the copies that were made of it."""
    places: dict[str, list[int]] = {}
    for row in ready.rows:
        if row.index is not None:
            places.setdefault(row.source, []).append(row.index)
    several = [family for family in places.values() if len(family) > 1]
    chosen = [several[place] for place in pick(len(several), FAMILIES)] if several else []
    return [[data_uri(ready.images[family[place]], SMALL) for place in pick(len(family), MEMBERS)] for family in chosen]


def _split(ready: ReadySet, name: str) -> Split:
    rows = [row for row in ready.rows if row.kept and row.split == name]
    return Split(name, len(rows), len({row.source for row in rows}), frozenset(row.group for row in rows))
