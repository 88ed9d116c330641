"""Preparation report: data/ready/<name>/report.html, one file that opens offline, on a phone and on paper.

Shows how many images came through each stage, what was left out and why, with pictures, and what the ready set looks
like. The number of pictures is limited, so that the report of 75,000 images is as small as that of 1,000. Equal stages
and ready sets give equal bytes.
"""

import json
import math
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from catsweep import templates
from catsweep.data.files import say_passed_over
from catsweep.data.ready import TRAIN, VAL, ReadySet, pick
from catsweep.prepare.image_files import Pixels, read_image
from catsweep.prepare.manifest import Record, kind_of
from catsweep.prepare.report_images import Group, StageImages, data_uri, grouped
from catsweep.prepare.stage import SHEET, StageOutput
from catsweep.prepare.stage_cache import by_count
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
DOUBT = "in doubt"  # the reason of stage `verify`
FEW = 1 / 2  # with less than this share of the photos used, the log ends with what was left out
MUCH = 1 / 4  # with more than this share left out, the report begins with it
NO_PHOTOS = ("not an image", "not a regular file")  # texts, links and pipes that are called like photos
WIDTH, HEIGHT = 320, 96  # of the plot, in units of the SVG
BINS = 24  # at most
GAP = 1.0


@dataclass(frozen=True)
class Bar:
    """Bar of a histogram: rectangle and tooltip, in units of the SVG."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Histogram:
    """Histogram, laid out for SVG."""

    title: str  # of the chart
    note: str  # median and 5 % quantiles, in words
    bars: tuple[Bar, ...]  # from left to right, without empty ones
    ticks: tuple[tuple[float, str], ...]  # places on the axis, with their labels
    top: int  # count of the tallest bar


@dataclass(frozen=True)
class Share:
    """Part of a whole: name, count and share, 0 to 1."""

    name: str
    count: int
    share: float


@dataclass(frozen=True)
class Chart:
    """Histogram with its context."""

    histogram: Histogram  # of a measure
    what: str  # unit that was measured, `photo` or `image`
    about: str  # definition of the measure
    least: tuple[str, ...] = ()  # images at its lower end, if they are shown
    most: tuple[str, ...] = ()  # likewise at its upper end


@dataclass(frozen=True)
class Exclusion:
    """Photos that were left out for the same reason."""

    stage: str  # that left them out
    kind: str  # of the reason or doubt
    count: int  # of photos; a photo in doubt counts for each of its doubts
    keeping: str  # what to add to the command to keep them; empty if nothing does


@dataclass(frozen=True)
class Exclusions:
    """Photos of a preparation that were left out."""

    found: int  # number of photos, without files that turned out to be none
    used: int  # number of them in the last stage
    losses: tuple[Exclusion, ...]  # the largest first

    @property
    def few(self) -> bool:
        """Whether the log ends with a warning."""
        return self.used < FEW * self.found

    @property
    def many(self) -> bool:
        """Whether the report begins with what was left out."""
        return self.found - self.used > MUCH * self.found

    @property
    def share(self) -> str:
        """Share of the photos that are used, such as "0.4 %"."""
        return f"{self.used / max(1, self.found):.1%}".replace("%", " %")


def write(outputs: Sequence[StageOutput], ready: ReadySet, passed_over: Mapping[str, str] | None = None) -> Path:
    """Write the report of a ready set, which these stages made in this order, into its folder, atomically.

    `passed_over` holds files that were not taken for photos, with the reason.
    """
    images = StageImages(outputs)
    environment = templates.environment(Path(__file__).parent)
    environment.filters["number"] = "{:,}".format
    html = environment.get_template(TEMPLATE).render(
        ready=ready, name=readable_name(str(ready.card["name"])), command=command(ready),
        steps=[_step(images, place) for place in range(len(outputs))],
        left=count_exclusions(outputs), doubts=_doubts(images), journeys=_journeys(images),
        doubted=len({record.source for stage in outputs for record in stage.records if record.doubts}),
        charts=_charts(outputs, ready), methods=_methods(outputs), operations=_operations(outputs),
        families=_families(ready), passed_over=say_passed_over(passed_over or {}), splits=_splits(ready),
    )  # fmt: skip
    path = ready.path / PAGE
    write_text(path, html)
    return path


def command(ready: ReadySet) -> str:
    """Format the command that trains on a ready set, with a depth that fits its size; for odd sizes, advice."""
    if ready.size % 2:
        return f"no model takes images of {ready.size} pixels; prepare them again with size={ready.size + 1}"
    fitting = max(halvings for halvings in range(1, DEPTH + 1) if ready.size % 2**halvings == 0)
    depth = "" if fitting == DEPTH else f" depth.halvings={fitting}"
    return f"python src/train.py data=ready {shlex.quote(f'data.source={ready.path}')} data.size={ready.size}{depth}"


def count_exclusions(outputs: Sequence[StageOutput]) -> Exclusions:
    """Count the photos that stages, in their order, have left out."""
    keeping: dict[str, str] = {}
    for stage in outputs:
        keeping |= stage.card.get("keeping", {})
    counts = Counter(
        (record.stage, kind) for stage in outputs for record in stage.records for kind in reason_kinds(record)
    )
    losses = []
    for (name, kind), count in counts.items():
        tolerated = shlex.quote(f"verification.tolerate=[near-duplicate,{kind}]") if name == "verify" else ""
        losses.append(Exclusion(name, kind, count, keeping.get(kind, tolerated)))
    losses.sort(key=lambda loss: (-loss.count, loss.kind, loss.stage))
    found = sum(not set(NO_PHOTOS) & set(reason_kinds(record)) for record in outputs[0].records)
    return Exclusions(found, len({record.source for record in outputs[-1].kept}), tuple(losses))


def reason_kinds(record: Record) -> list[str]:
    """List the kinds of reasons why an image was left out: none if kept, several if for its doubts."""
    if record.kept:
        return []
    kind = kind_of(record.reason)
    if kind != DOUBT:
        return [kind]
    doubts = (doubt for doubt in record.doubts if doubt in record.reason)  # the others are tolerated
    return list(dict.fromkeys(map(kind_of, doubts))) or [kind]


def exclusion_lines(left: Exclusions) -> list[str]:
    """Format the warning at the end of the log that few photos are left."""
    losses = [(loss, f"{loss.stage}: {loss.kind}") for loss in left.losses if loss.kind not in NO_PHOTOS]
    width = max((len(f"{loss.count:,}") for loss, _ in losses), default=0)
    longest = max((len(name) for _, name in losses), default=0)
    verb = "IS" if left.used == 1 else "ARE"
    return [
        f"ONLY {left.used:,} OF {left.found:,} PHOTOS ({left.share}) {verb} LEFT. "
        "Why the rest went, and what keeps it:",
        *(f"  {loss.count:>{width},}  {name:<{longest}}  {loss.keeping or 'nothing'}" for loss, name in losses),
        "A photo in doubt may have several doubts. To look at them: verify=serve.",
    ]


def _step(images: StageImages, place: int) -> dict[str, Any]:
    """Count what came through a stage, and group what it left out by kind of reason."""
    stage = images.outputs[place]
    refused = [(record.reason, record) for record in stage.records if not record.kept]
    sheet = stage.folder / SHEET
    return {
        "name": stage.card["stage"],
        "folder": stage.folder.name,
        "into": len(images.outputs[place - 1].kept if place else stage.records),
        "records": len(stage.records),
        "kept": len(stage.kept),
        "out": len(refused),
        "doubtful": stage.card["counts"]["doubtful"],
        "parameters": json.dumps(stage.card["parameters"], indent=1, sort_keys=True),
        "sheet": data_uri(read_image(sheet), WIDE, quality=70) if sheet.is_file() else "",
        "notes": stage.card["notes"],
        "groups": grouped(refused, lambda record, said: images.picture(place, record, said, out=True)),
    }


def _doubts(images: StageImages) -> tuple[Group, ...]:
    """Group all doubts, each with the image of the stage where it first came up."""
    ready = {record.source for record in images.outputs[-1].kept}
    first: dict[tuple[str, str], tuple[int, Record]] = {}
    for place, stage in enumerate(images.outputs):
        for record in stage.records:
            for doubt in record.doubts:
                first.setdefault((record.source, doubt), (place, record))
    items = [(doubt, found) for (_, doubt), found in first.items()]
    return grouped(items, lambda found, said: images.picture(*found, said, out=found[1].source not in ready))


def _journeys(images: StageImages) -> dict[str, list[str]]:
    """Show some photos at every stage that changed one of them: images by name of stage."""
    photos = [record for record in images.outputs[-1].kept if "copy" not in record.parameters]
    chosen = [photos[place].id for place in pick(len(photos), FOLLOWED)]
    shown: dict[str, list[str]] = {}
    for place, stage in enumerate(images.outputs):
        row = [data_uri(images.image(place, identity)) for identity in chosen]
        if row not in shown.values():
            shown[str(stage.card["stage"])] = row
    return shown


def _kept(outputs: Sequence[StageOutput], name: str) -> list[Record]:
    """List the records that a stage, if it is there, has kept."""
    return [record for stage in outputs if stage.card["stage"] == name for record in stage.kept]


def _charts(outputs: Sequence[StageOutput], ready: ReadySet) -> list[Chart]:
    sides = [min(row.width, row.height) for row in ready.rows if row.copy == 0 and row.width]
    zoomed = _kept(outputs, "zoom")
    enlargement = "how many times a face is enlarged by stage zoom; below 1 it is shrunk"
    measures: list[tuple[str, list[Any], str, str]] = [
        ("Size of the photos", sides, " px", "the shorter side"),
        ("Enlargement", face_enlargements(zoomed), "", enlargement),
        ("Tilt of the head", head_tilts(zoomed), "°", "clockwise; 0 is upright"),
    ]
    black, plain = "mean of an image; 0 is black, 255 white", "how much neighbouring pixels differ"
    return [
        *(Chart(histogram(title, values, unit), "photo", about) for title, values, unit, about in measures if values),
        _measured(ready, "Brightness", black, brightness, (0, 255)),
        _measured(ready, "Sharpness", plain, sharpness, None),
    ]


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


def _methods(outputs: Sequence[StageOutput]) -> tuple[Share, ...]:
    """Count the faces by the method that found them."""
    found = [method_of(record) for record in _kept(outputs, "zoom")]
    return shares(Counter(found), len(found))


def _operations(outputs: Sequence[StageOutput]) -> tuple[Share, ...]:
    """Count the copies by operation."""
    made = [record.operation.split() for record in _kept(outputs, "augment") if "copy" in record.parameters]
    return shares(Counter(word for words in made for word in words), len(made))


def _families(ready: ReadySet) -> list[list[str]]:
    """Show some photos, each with some of its copies."""
    places: dict[str, list[int]] = {}
    for row in ready.rows:
        if row.index is not None:
            places.setdefault(row.source, []).append(row.index)
    several = [family for family in places.values() if len(family) > 1]
    chosen = [several[place] for place in pick(len(several), FAMILIES)] if several else []
    return [[data_uri(ready.images[family[place]], SMALL) for place in pick(len(family), MEMBERS)] for family in chosen]


def _splits(ready: ReadySet) -> list[dict[str, Any]]:
    splits = []
    for name in (TRAIN, VAL):
        rows = [row for row in ready.rows if row.kept and row.split == name]
        photos, groups = {row.source for row in rows}, {row.group for row in rows}
        splits.append({"name": name, "images": len(rows), "photos": len(photos), "groups": groups})
    return splits


def brightness(image: NDArray[np.uint8]) -> float:
    """Average the luma (ITU-R BT.601) of an image of shape (H, W, 3): 0 to 255."""
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())


def sharpness(image: NDArray[np.uint8]) -> float:
    """Compute the standard deviation of the Laplacian of an image of shape (H, W, 3), in levels of grey.

    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000, who take the variance.
    """
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).std())


def head_tilts(records: Iterable[Record]) -> list[float]:
    """Compute the tilt of faces in their photos, degrees, clockwise, from records of stage `zoom` that have a face."""
    faces = (record for record in records if method_of(record) != "centre")
    matrices = (record.parameters["matrix"] for record in faces if "matrix" in record.parameters)
    return [-math.degrees(math.atan2(matrix[1][0], matrix[0][0])) for matrix in matrices]


def face_enlargements(records: Iterable[Record]) -> list[float]:
    """Read how many times stage `zoom` enlarged each photo; below 1 it was shrunk."""
    return [float(record.parameters["enlarged"]) for record in records if "enlarged" in record.parameters]


def method_of(record: Record) -> str:
    """Read the method of an operation, for example `landmarks`."""
    return record.operation.rpartition(": ")[2]


def histogram(title: str, values: ArrayLike, unit: str = "", bounds: tuple[float, float] | None = None) -> Histogram:
    """Count values, finite and at least one, into bins with round edges.

    The axis has the `bounds`, else it reaches as far as all but 1 % of the values; what lies outside is counted at its
    end. `unit` comes with its space if it has one: " px", "x".
    """
    data = np.asarray(values, dtype=np.float64)
    low, high = bounds or (float(np.quantile(data, 0.005)), float(np.quantile(data, 0.995)))
    step = _bin_width(high - low)
    first = math.floor(low / step)
    last = max(math.ceil(high / step), first + 1)
    places = np.clip(np.floor(data / step).astype(np.int64), first, last - 1) - first
    counts = np.bincount(places, minlength=last - first)
    top, wide = int(counts.max()), WIDTH / (last - first)
    bars = []
    for number, count in enumerate(counts.tolist()):
        if count:
            start, end = (_plain((first + edge) * step) for edge in (number, number + 1))
            tall, tooltip = HEIGHT * count / top, f"{start} to {end}{unit}: {count:,}"
            place = number * wide + GAP / 2
            x, y, width, height = (round(size, 2) for size in (place, HEIGHT - tall, wide - GAP, tall))
            bars.append(Bar(x, y, width, height, tooltip))
    middle, few, most = (_plain(float(f"{np.quantile(data, share):.3g}")) for share in (0.5, 0.05, 0.95))
    note = f"median {middle}{unit}; 5 % are below {few}, 5 % above {most}"
    return Histogram(title, note, tuple(bars), _ticks(first, last, step), top)


def shares(counts: Mapping[str, int], total: int) -> tuple[Share, ...]:
    """Divide the counts of parts, which may overlap, by the total; the largest first."""
    return tuple(Share(name, count, round(count / total, 4)) for name, count in by_count(counts))


def _bin_width(span: float) -> float:
    """Choose the smallest of 1, 2, 5, 10, 20 … (or 0.5, 0.2 …) that needs at most `BINS` bins."""
    if span <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(span / BINS))
    return next(step for factor in (1, 2, 5, 10, 20) if span / (step := factor * power) <= BINS - 1)


def _ticks(first: int, last: int, step: float) -> tuple[tuple[float, str], ...]:
    """Place four to seven round numbers along the axis."""
    every = next(n for n in (1, 2, 5, 10, 20, 50) if (last - first) / n <= 6)
    marks = range(math.ceil(first / every) * every, last + 1, every)
    return tuple((round((mark - first) / (last - first) * WIDTH, 2), _plain(mark * step)) for mark in marks)


def _plain(value: float) -> str:
    """Format a number without the noise of binary fractions."""
    return f"{value:,.10g}" if abs(value) >= 1e-9 else "0"
