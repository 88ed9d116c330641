"""Build a ready set once: keyed by content, locked, written whole or not at all.

Called by the datamodule before training (`open_or_build`, straight from a source) and at the end of a preparation
(`catsweep.data.prepare.ready`); both share `open_or_fill` and `describe`. Any number of processes may call it for the
same set at the same time; one builds, the others wait and open what it built.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import simplejpeg
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from catsweep.atomic import replacing_folder
from catsweep.data.contact_sheet import contact_sheet, pick
from catsweep.data.files import PASSED_OVER, say_passed_over, write_passed_over
from catsweep.data.ready import (
    CARD,
    IMAGES,
    MANIFEST,
    SHEET,
    Item,
    ReadySet,
    Row,
    Source,
    create_images,
    digest,
    write_manifest,
)
from catsweep.data.splits import split
from catsweep.errors import ConfigError, DataError
from catsweep.heartbeat import every_minute
from catsweep.names import checked
from catsweep.ownership import Kind
from catsweep.places import named

log = logging.getLogger(__name__)

_PIXELS = "pixels.raw"
READY_SET = Kind(
    "a ready set",
    "data.root=DIR, or root=DIR of a preparation",
    (IMAGES, MANIFEST, CARD, SHEET, PASSED_OVER),
    later=("report.html", ".report.html"),
)
Place = tuple[tuple[int, int, str], int]  # of an image among its copies, the best being least, and of its row


def open_or_build(source: Source, size: int, root: str | Path, val_fraction: float) -> ReadySet:
    """Open the ready set of a source, building it first if it is not there or not whole.

    Args:
        source: where the images come from.
        size: side of the images, pixels.
        root: folder of ready sets; the set is `<root>/<name>-<size>-<key8>`.
        val_fraction: share of held-out images.

    Raises:
        ConfigError: the source is called by what is no name.
        DataError: if the source has no usable photo.
        TakenError: in the place of the set is something that catsweep did not make.
    """
    parameters = {"source": source.key(size), "size": size, "val_fraction": val_fraction, "format": 1}
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    card = {"name": source.name, "size": size, "key": key, "parameters": parameters}

    def fill(folder: Path) -> None:
        passed_over = source.passed_over() if hasattr(source, "passed_over") else {}
        rows, places = _without_copies(*_spool(folder / _PIXELS, source.items(size)))
        kept = [row for row in rows if row.kept]
        if not kept:
            raise DataError(nothing_left(source, _refused(rows), passed_over))
        images = create_images(folder, len(kept), size)
        spooled = np.memmap(folder / _PIXELS, dtype=np.uint8, mode="r").reshape(-1, *images.shape[1:])
        for index, place in enumerate(places):
            images[index] = spooled[place]
        images.flush()
        (folder / _PIXELS).unlink()
        write_passed_over(folder / PASSED_OVER, passed_over)
        named = iter(split([row.group for row in kept], val_fraction))
        describe(folder, [replace(row, split=next(named)) if row.kept else row for row in rows], card)
        log.info("%s", summary(source.name, len(kept), _refused(rows)))
        if passed_over:
            log.info("%s: %s; %s names them", source.name, say_passed_over(passed_over), PASSED_OVER)

    name = checked(f"{source.name}-{size}-{key[:8]}", "A ready set", ConfigError)
    return open_or_fill(Path(root) / name, key, fill)


def open_or_fill(path: Path, key: str, fill: Callable[[Path], None]) -> ReadySet:
    """Open the ready set in a folder, making it first if it is not there, not whole, or another one.

    Args:
        path: the folder.
        key: on the card of the set that is wanted.
        fill: writes all files of the set into an empty folder.

    Raises:
        OSError: it cannot be written.
        TakenError: in its place is something that catsweep did not make.
    """
    # A folder of that name is complete, for it came there by one rename: no lock is needed to read it.
    if (ready := _opened(path, key)) is not None:
        return ready
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), named(path):
        ready = _opened(path, key)
        if ready is None:
            with replacing_folder(path, READY_SET) as new:
                fill(new)
            ready = ReadySet.open(path)
    return ready


def describe(folder: Path, rows: Sequence[Row], card: dict[str, Any]) -> None:
    """Write all of a ready set but its images, which are there.

    Args:
        folder: with images.npy.
        rows: of the manifest, with their splits; those kept in the order of the images.
        card: name, size, key, and with what parameters it was made.
    """
    images: NDArray[np.uint8] = np.load(folder / IMAGES, mmap_mode="r")
    kept = [row for row in rows if row.kept]
    originals = np.array([row.index for row in kept if row.copy == 0])
    write_manifest(folder / MANIFEST, rows)
    Image.fromarray(contact_sheet(images[originals[pick(len(originals))]])).save(folder / SHEET)
    splits = [row.split for row in kept]
    card = card | {
        "n": len(images),
        "originals": len(originals),
        "digest": digest(images, splits),
        "splits": dict(sorted(Counter(splits).items())),
        "refused": dict(_refused(rows).most_common()),
        "versions": {library.__name__: library.__version__ for library in (cv2, np, PIL, simplejpeg)},
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _opened(path: Path, key: str) -> ReadySet | None:
    """The ready set in a folder, or None if there is none, a damaged one, or one with another key."""
    if not path.exists():
        return None
    try:
        ready = ReadySet.open(path)
    except DataError as error:
        log.warning("Building a damaged ready set again. %s", error)
        return None
    return ready if ready.card.get("key") == key else None


def _refused(rows: Iterable[Row]) -> Counter[str]:
    return Counter(row.reason.split(":", 1)[0] for row in rows if not row.kept)


def _spool(path: Path, items: Iterable[Item]) -> tuple[list[Row], dict[str, list[Place]]]:
    """Append the pixels of the kept items to a file, for how many there are shows only at the end.

    Returns:
        All rows, and of each image, by the digest of its pixels, those of its copies.
    """
    rows: list[Row] = []
    copies: dict[str, list[Place]] = {}
    index = 0
    with path.open("wb") as file:
        for item in every_minute(items, log, "%s photos read so far"):
            if item.image is None:
                rows.append(Row.of(item, None))
                continue
            pixels = np.ascontiguousarray(item.image, dtype=np.uint8).data
            file.write(pixels)
            rank = (-item.width * item.height, -item.bytes, item.source)
            copies.setdefault(hashlib.sha256(pixels).hexdigest(), []).append((rank, len(rows)))
            rows.append(Row.of(item, index))
            index += 1
    return rows, copies


def _without_copies(rows: Sequence[Row], copies: Mapping[str, Sequence[Place]]) -> tuple[list[Row], list[int]]:
    """Keep one of those that train as the same image: that of the most pixels, then bytes, then the first by name.

    Returns:
        The rows, the others of each refused, and where the images of those kept are in the file.
    """
    of = {place: min(same)[1] for same in copies.values() for _, place in same}
    result, places = [], []
    for place, row in enumerate(rows):
        if row.index is not None and of[place] != place:
            row = replace(row, index=None, kept=False, reason=f"exact copy: of {rows[of[place]].source}", landmarks="")
        elif row.index is not None:
            places.append(row.index)
            row = replace(row, index=len(places) - 1)
        result.append(row)
    return result, places


def summary(name: str, kept: int, refused: Counter[str]) -> str:
    """One line for the log, for example "photos: 1,706 photos read, 12 left out: 9 empty file, 3 not an image"."""
    line = f"{name}: {kept + refused.total():,} photos found, {kept:,} ready"
    if not refused:
        return f"{line}, none left out"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in refused.most_common())
    return f"{line}, {refused.total():,} left out ({reasons}); the manifest names them"


def nothing_left(source: Source, refused: Counter[str], passed_over: Mapping[str, str]) -> str:
    """That there is no photo: what was looked for, and what was found instead, by the reason why it is none."""
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in refused.most_common())
    found = f"{refused.total():,} found, all left out: {reasons}" if refused else "none found"
    found += f"; {say_passed_over(passed_over)}" if passed_over else ""
    return f"Expected {source}, but no usable photo is there: {found}. Give another folder by data.source=DIR."
