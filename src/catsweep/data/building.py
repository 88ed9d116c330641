"""Build a ready set once: keyed by content, locked, written whole or not at all.

Called by the datamodule before training. Any number of processes may call it for the same source at the same time;
one builds, the others wait and open what it built.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
import simplejpeg
from filelock import FileLock
from PIL import Image

from catsweep.data.contact_sheet import contact_sheet, pick
from catsweep.data.ready import CARD, IMAGES, MANIFEST, SHEET, Item, ReadySet, Row, Source, digest, write_manifest
from catsweep.data.splits import split
from catsweep.errors import DataError

log = logging.getLogger(__name__)

_PIXELS = "pixels.raw"


def open_or_build(source: Source, size: int, root: str | Path, val_fraction: float) -> ReadySet:
    """Open the ready set of a source, building it first if it is not there or not whole.

    Args:
        source: where the images come from.
        size: side of the images, pixels.
        root: folder of ready sets; the set is `<root>/<name>-<size>-<key8>`.
        val_fraction: share of held-out images.

    Raises:
        DataError: if the source has no usable photo.
    """
    parameters = {"source": source.key(size), "size": size, "val_fraction": val_fraction, "format": 1}
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    path = Path(root) / f"{source.name}-{size}-{key[:8]}"
    # A folder of that name is complete, for it came there by one rename: no lock is needed to read it.
    ready = _opened(path)
    if ready is not None:
        return ready
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            ready = _opened(path)
            if ready is None:
                _build(path, source, size, val_fraction, {"key": key, "parameters": parameters})
                ready = ReadySet.open(path)
        return ready
    except OSError as error:
        raise DataError(
            f"Expected to write a ready set to {path}, but: {error}. Make room or grant access, or set data.root=DIR."
        ) from error


def _opened(path: Path) -> ReadySet | None:
    """The ready set in a folder, or None if there is none, or a damaged one."""
    if not path.exists():
        return None
    try:
        return ReadySet.open(path)
    except DataError as error:
        log.warning("Building a damaged ready set again. %s", error)
        return None


def _build(path: Path, source: Source, size: int, val_fraction: float, card: dict[str, Any]) -> None:
    """Build beside `path`, then rename: whatever happens, `path` is complete or absent. The caller holds the lock."""
    for leftover in path.parent.glob(f".{path.name}.*"):  # of a build that was killed
        shutil.rmtree(leftover)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        _write(folder, source, size, val_fraction, card)
        folder.chmod(0o755)  # mkdtemp lets nobody else in
        if path.exists():
            shutil.rmtree(path)
        folder.rename(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, source: Source, size: int, val_fraction: float, card: dict[str, Any]) -> None:
    rows = list(_spool(folder / _PIXELS, source.items(size)))
    kept = [row for row in rows if row.kept]
    refused = Counter(row.reason.split(":", 1)[0] for row in rows if not row.kept)
    if not kept:
        raise DataError(_nothing_left(source, refused))
    splits = split([row.group for row in kept], val_fraction)
    shape = (len(kept), size, size, 3)
    images = np.lib.format.open_memmap(folder / IMAGES, mode="w+", dtype=np.uint8, shape=shape)
    images[:] = np.memmap(folder / _PIXELS, dtype=np.uint8, mode="r", shape=shape)
    images.flush()
    (folder / _PIXELS).unlink()
    named = iter(splits)
    write_manifest(folder / MANIFEST, [replace(row, split=next(named)) if row.kept else row for row in rows])
    Image.fromarray(contact_sheet(images[pick(len(images))])).save(folder / SHEET)
    card |= {
        "name": source.name,
        "size": size,
        "n": len(kept),
        "digest": digest(images, splits),
        "splits": dict(sorted(Counter(splits).items())),
        "refused": dict(refused.most_common()),
        "versions": {library.__name__: library.__version__ for library in (cv2, np, PIL, simplejpeg)},
    }
    (folder / CARD).write_text(json.dumps(card, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    log.info("%s", summary(source.name, len(kept), refused))


def _spool(path: Path, items: Iterator[Item]) -> Iterator[Row]:
    """Append the pixels of the kept items to a file (how many there are shows only at the end); yield all rows."""
    index = 0
    with path.open("wb") as file:
        for item in items:
            if item.image is None:
                yield Row.of(item, None)
                continue
            file.write(np.ascontiguousarray(item.image, dtype=np.uint8).data)
            yield Row.of(item, index)
            index += 1


def summary(name: str, kept: int, refused: Counter[str]) -> str:
    """One line for the log, for example "photos: 1,706 photos read, 12 left out: 9 empty file, 3 not an image"."""
    line = f"{name}: {kept + refused.total():,} photos found, {kept:,} ready"
    if not refused:
        return f"{line}, none left out"
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in refused.most_common())
    return f"{line}, {refused.total():,} left out ({reasons}); the manifest names them"


def _nothing_left(source: Source, refused: Counter[str]) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in refused.most_common())
    found = f"{refused.total():,} found, all left out: {reasons}" if refused else "none found"
    return f"Expected {source}, but no usable photo is there: {found}. Give another folder by data.source=DIR."
