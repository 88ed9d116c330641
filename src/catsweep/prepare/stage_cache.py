"""Stage cache: make stage folders, keyed by content, resumable and atomic.

The key of a folder hashes the records that it starts from, its parameters and its code. A folder with another key is
made again, but takes over each image that was made of the same things (`Record.mark`). While it is made, a folder is
called `.FOLDER.KEY.partial`, so that builds with other parameters never mix, and has a journal of its finished images;
it appears by one rename.
"""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import simplejpeg
from PIL import Image

from catsweep.data.ready import IMAGES
from catsweep.errors import DataError
from catsweep.ownership import FolderKind, adopt, require
from catsweep.prepare.manifest import MANIFEST, Record, content_digest, kind_of, write_manifest
from catsweep.prepare.stage import CARD, JOURNAL, SHEET, Stage, StageBuilder, StageOutput
from catsweep.records import file_digest
from steady.atomic import write_text

_ID = "*" + 12 * "[0-9a-f]"  # names of image files begin so, see `stages.original.identity`
STAGE = FolderKind(
    "a stage",
    "name=NAME",
    (CARD, MANIFEST, SHEET, JOURNAL, IMAGES, f"{_ID}.png", f"{_ID}.jpg", f"sheets/{_ID}.jpg"),
    sign=MANIFEST,
)


class NothingLeft(DataError):
    """Error: a stage has left out every image."""


def build(
    stage: Stage, folder: Path, before: Path, inputs: tuple[Record, ...], content: str | None = None
) -> StageOutput:
    """Make a stage in `folder`, or open it if it is current.

    It starts from the records `inputs`, whose files are in the folder `before`; `content` is their
    `manifest.content_digest`, if it is known (`StageOutput.content`).

    Raises:
        NothingLeft: no image is left.
        TakenError: `folder` holds something that catsweep did not make.
    """
    key = _key(stage, inputs, content)
    old = StageOutput.open(folder)
    if old is not None and old.card["key"] == key:
        return old
    require(folder, STAGE)
    partial = folder.with_name(f".{folder.name}.{key[:16]}.partial")
    output = StageOutput.open(partial)
    if output is None or output.card["key"] != key:  # else it was killed when all was done but the renaming
        partial.mkdir(parents=True, exist_ok=True)
        known = {
            record.mark: (place, record) for place in _earlier(folder) for record in _finished(place) if record.mark
        }
        builder = StageBuilder(stage, partial, before, inputs, known)
        with (partial / JOURNAL).open("a", encoding="utf-8") as builder._journal:
            builder._journal.write("\n")  # ends a line that was torn
            records = tuple(stage.run(builder))
        if not any(record.kept for record in records):
            raise NothingLeft(_nothing_left(stage, records))
        output = _finish(builder, records, {"key": key, **stage.method()})
    return _move(output, folder)


def is_current(stage: Stage, output: StageOutput, inputs: tuple[Record, ...], content: str | None = None) -> bool:
    """Tell whether a stage has the key that `build`, with these arguments, would give it."""
    return bool(output.card["key"] == _key(stage, inputs, content))


def summary(output: StageOutput) -> str:
    """Format the counts of a stage, for example "zoom: 9 images, 7 kept, 2 left out (2 small), 3 doubtful"."""
    counts = output.card["counts"]
    line = (
        f"{output.card['stage']}: {counts['records']:,} image{'s' * (counts['records'] != 1)}, {counts['kept']:,} kept"
    )
    if refused := counts["refused"]:
        line += f", {sum(refused.values()):,} left out ({_listed(refused)})"
    return line + (f", {counts['doubtful']:,} doubtful" if counts["doubtful"] else "")


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Sort counts by frequency, largest first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in by_count(counts))


def _key(stage: Stage, inputs: Sequence[Record], content: str | None) -> str:
    """Hash what decides a stage; equal inputs have equal keys, whatever they were made of."""
    decides = [stage.method(), content_digest(inputs) if content is None else content]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _refused(records: Sequence[Record]) -> Counter[str]:
    return Counter(kind_of(record.reason) for record in records if not record.kept)


def _finish(builder: StageBuilder, records: tuple[Record, ...], card: dict[str, Any]) -> StageOutput:
    """Write everything but the images; the card comes last, so that a folder with one is complete."""
    folder = builder.folder
    wanted = {record.file for record in records if record.kept} | {JOURNAL}
    for file in list(folder.iterdir()):  # left by a build that was killed, or of images that were refused later
        if file.is_file() and file.name not in wanted:
            file.unlink()
    card["content"] = write_manifest(folder / MANIFEST, records)
    if (sheet := builder.stage.sheet(builder, records)) is not None:
        Image.fromarray(sheet).save(folder / SHEET)
    kept = [record for record in records if record.kept]
    doubtful = sum(bool(record.doubts) for record in kept)
    card |= {
        "counts": {
            "records": len(records),
            "kept": len(kept),
            "doubtful": doubtful,
            "refused": dict(_refused(records)),
        },
        "notes": builder.stage.notes(records),
        "keeping": dict(builder.stage.keeping),
        "manifest": file_digest(folder / MANIFEST),
        "versions": {library.__name__: library.__version__ for library in (cv2, np, PIL, simplejpeg)},
    }
    write_text(folder / CARD, json.dumps(card, indent=2, sort_keys=True) + "\n")
    return StageOutput(folder, records, card)


def _move(output: StageOutput, folder: Path) -> StageOutput:
    """Move a complete stage into its place; may be repeated after a kill."""
    (output.folder / JOURNAL).unlink(missing_ok=True)
    adopt(output.folder, STAGE)
    require(folder, STAGE)
    for place in _earlier(folder):
        if place != output.folder and place.exists():
            shutil.rmtree(place)
    output.folder.rename(folder)
    return replace(output, folder=folder)  # not read again: a manifest of 75,000 rows takes seconds


def _earlier(folder: Path) -> list[Path]:
    """List the folders in which earlier builds of a stage may have left images."""
    partial = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{16}}\.partial")
    return [folder, *sorted(place for place in folder.parent.glob(".*") if partial.fullmatch(place.name))]


def _finished(place: Path) -> Iterator[Record]:
    """Read the records of an earlier build, complete or killed."""
    if (output := StageOutput.read(place)) is not None:
        yield from output.records
    lines: list[str] = []
    with suppress(OSError):
        lines = (place / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):  # the last one may be torn
            yield Record.from_json(line)


def _nothing_left(stage: Stage, records: Sequence[Record]) -> str:
    reasons = _refused(records)
    kept = [f"{stage.keeping[reason]} ({reason})" for reason in sorted(reasons) if reason in stage.keeping]
    remedies = [f"To keep them: {', '.join(kept)}."] if kept else []
    if not kept or reasons.keys() - stage.keeping.keys():
        remedies.append(stage.remedy)
    return (
        f"Expected images to be left after stage {stage.name}, but all were left out: "
        f"{_listed(reasons) or 'there were none'}. {' '.join(remedies)}"
    )
