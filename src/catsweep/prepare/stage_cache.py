"""Stage cache: make stage folders, keyed by content, resumable and atomic.

The key of a folder hashes the records that it starts from, its parameters and its code. A folder with the same key is
not made again. One with another key is, but each image in it that was made of the same things (`Record.mark`) is taken
over. While it is made, a folder is called `.FOLDER.KEY.partial`, so that builds with other parameters never mix, and
has a journal of its finished images; it appears by one rename.
"""

import hashlib
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from catsweep.prepare.image_files import write_whole
from catsweep.prepare.manifest import MANIFEST, Record, content_digest, write_manifest
from catsweep.prepare.stage import CARD, JOURNAL, SHEET, Build, Done, Stage
from catsweep.records import file_digest

_ID = "*" + 12 * "[0-9a-f]"  # names of image files begin so, see `stages.original.identity`
STAGE = FolderKind(
    "a stage",
    "name=NAME",
    (CARD, MANIFEST, SHEET, JOURNAL, IMAGES, f"{_ID}.png", f"{_ID}.jpg", f"sheets/{_ID}.jpg"),
    sign=MANIFEST,
)


class NothingLeft(DataError):
    """Error: a stage has left out every image."""


def build(stage: Stage, folder: Path, before: Path, inputs: tuple[Record, ...], content: str | None = None) -> Done:
    """Make a stage, or open it if it is current.

    Args:
        stage: to make.
        folder: of the stage.
        before: folder of the stage before.
        inputs: the records it starts from.
        content: their `manifest.content_digest`, if it is known (`Done.content`).

    Raises:
        NothingLeft: no image is left.
        TakenError: `folder` holds something that catsweep did not make.
    """
    key = _key(stage, inputs, content)
    old = Done.open(folder)
    if old is not None and old.card["key"] == key:
        return old
    require(folder, STAGE)
    partial = folder.with_name(f".{folder.name}.{key[:16]}.partial")
    whole = Done.open(partial)
    if whole is None or whole.card["key"] != key:  # else it was killed when all was done but the renaming
        partial.mkdir(parents=True, exist_ok=True)
        known = {record.mark: (place, record) for place in _left(folder) for record in _finished(place) if record.mark}
        desk = Build(stage, partial, before, inputs, known)
        with (partial / JOURNAL).open("a", encoding="utf-8") as desk._journal:
            desk._journal.write("\n")  # ends a line that was torn
            records = tuple(stage.run(desk))
        if not any(record.kept for record in records):
            raise NothingLeft(_nothing_left(stage, records))
        whole = _finish(desk, records, {"key": key, **stage.method()})
    return _settle(whole, folder)


def is_current(stage: Stage, done: Done, inputs: tuple[Record, ...], content: str | None = None) -> bool:
    """Tell whether a stage has the key that `build`, with these arguments, would give it."""
    return bool(done.card["key"] == _key(stage, inputs, content))


def summary(done: Done) -> str:
    """Format the counts of a stage, for example "zoom: 9 images, 7 kept, 2 left out (2 small), 3 doubtful"."""
    counts = done.card["counts"]
    line = f"{done.card['stage']}: {counts['records']:,} image{'s' * (counts['records'] != 1)}, {counts['kept']:,} kept"
    if refused := counts["refused"]:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in by_count(refused))
        line += f", {sum(refused.values()):,} left out ({reasons})"
    return line + (f", {counts['doubtful']:,} doubtful" if counts["doubtful"] else "")


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Sort counts by frequency, largest first, then by name."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _key(stage: Stage, inputs: Iterable[Record], content: str | None) -> str:
    """Hash what decides a stage; equal inputs have equal keys, whatever they were made of."""
    decides = [stage.method(), content_digest(inputs) if content is None else content]
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _finish(desk: Build, records: tuple[Record, ...], card: dict[str, Any]) -> Done:
    """Write everything but the images; the card comes last, so that a folder with one is complete."""
    wanted = {record.file for record in records if record.kept} | {JOURNAL}
    for file in list(desk.folder.iterdir()):  # left by a build that was killed, or of images that were refused later
        if file.is_file() and file.name not in wanted:
            file.unlink()
    card["content"] = write_manifest(desk.folder / MANIFEST, records)
    if (sheet := desk.stage.sheet(desk, records)) is not None:
        Image.fromarray(sheet).save(desk.folder / SHEET)
    refused = Counter(record.reason.split(":", 1)[0] for record in records if not record.kept)
    card["counts"] = {
        "records": len(records),
        "kept": sum(record.kept for record in records),
        "doubtful": sum(bool(record.doubts) for record in records if record.kept),
        "refused": dict(refused),
    }
    card["notes"] = desk.stage.notes(records)
    card["keeping"] = dict(desk.stage.keeping)
    card["manifest"] = file_digest(desk.folder / MANIFEST)
    card["versions"] = {library.__name__: library.__version__ for library in (cv2, np, PIL, simplejpeg)}
    write_whole(desk.folder / CARD, (json.dumps(card, indent=2, sort_keys=True) + "\n").encode())
    return Done(desk.folder, records, card)


def _settle(whole: Done, folder: Path) -> Done:
    """Move a complete stage into its place; may be repeated after a kill."""
    (whole.folder / JOURNAL).unlink(missing_ok=True)
    adopt(whole.folder, STAGE)
    require(folder, STAGE)
    for place in _left(folder):
        if place != whole.folder and place.exists():
            shutil.rmtree(place)
    whole.folder.rename(folder)
    return replace(whole, folder=folder)  # not read again: a manifest of 75,000 rows takes seconds


def _left(folder: Path) -> list[Path]:
    """List the folders in which earlier builds of a stage may have left images."""
    partial = re.compile(rf"\.{re.escape(folder.name)}\.[0-9a-f]{{16}}\.partial")
    return [folder, *sorted(place for place in folder.parent.glob(".*") if partial.fullmatch(place.name))]


def _finished(place: Path) -> Iterator[Record]:
    """Read the records of an earlier build, complete or killed."""
    if (done := Done.read(place)) is not None:
        yield from done.records
    lines: list[str] = []
    with suppress(OSError):
        lines = (place / JOURNAL).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in lines:
        with suppress(ValueError, KeyError, TypeError):  # the last one may be torn
            yield Record.from_json(line)


def _nothing_left(stage: Stage, records: Sequence[Record]) -> str:
    reasons = Counter(record.reason.split(":", 1)[0] for record in records)
    found = ", ".join(f"{count:,} {reason}" for reason, count in by_count(reasons)) or "there were none"
    kept = [f"{stage.keeping[reason]} ({reason})" for reason in sorted(reasons) if reason in stage.keeping]
    words = [f"To keep them: {', '.join(kept)}."] if kept else []
    if not words or set(reasons) - set(stage.keeping):
        words.append(stage.remedy)
    remedies = " ".join(words)
    return f"Expected images to be left after stage {stage.name}, but all were left out: {found}. {remedies}"
