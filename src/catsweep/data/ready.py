"""The ready set: what trains. Pixels in one memory-mapped array, and where each of them came from.

Everything before it (sources, decoding, alignment) runs once and ends here; everything after it (batches, metrics,
nearest training images) starts here and touches no photo again. A folder

    images.npy         uint8, (N, size, size, 3)
    manifest.csv       one row per photo found, kept or refused, with the reason; one per copy made of it
    contact_sheet.png  a look at up to 100 of them
    card.json          name, size, n, digest, counts, the parameters it was built with, versions
    passed_over.csv    what else lay among the photos and was not taken for one, with the reason; only if there is any

that can be opened by itself, on any machine.

Divide photos into training and held-out ones by what they show, not by name or place in the folder.

Part of making a ready set. Copies of a photo share a group, and a group is never divided, so that no copy of a
held-out photo is trained on.

One picture of many: the contact sheet by which one sees at a glance what a data set holds.

Pure arithmetic on arrays; a ready set's contact_sheet.png is made of it.
"""

import csv
import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catsweep.cells import escaped, unescaped
from catsweep.errors import DataError
from catsweep.links import require_regular
from catsweep.places import explain, named
from catsweep.records import read_json

log = logging.getLogger(__name__)

IMAGES, MANIFEST, SHEET, CARD = "images.npy", "manifest.csv", "contact_sheet.png", "card.json"
REBUILD = "Delete that folder; the next run builds it again."


@dataclass(frozen=True, slots=True)
class Item:
    """One photo as a source hands it over: an image, or the reason why there is none.

    Attributes:
        source: what the user calls it, usually the path relative to the source's folder.
        group: images of one group stay in one split; usually the sha256 of the photo's file.
        sha256: of the photo's file, hexadecimal; empty if it could not be read.
        width: of the original, pixels; 0 if unknown.
        height: of the original, pixels; 0 if unknown.
        image: uint8, shape (size, size, 3), or None if refused.
        landmarks: shape (9, 2), pixels of `image`, or None.
        reason: why it is refused, "kind: details"; empty if it is not.
        notes: what was assumed or ignored as it was read, "what: details" each.
        bytes: size of the photo's file; 0 if unknown.
    """

    source: str
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    image: NDArray[np.uint8] | None = None
    landmarks: NDArray[np.floating[Any]] | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()
    bytes: int = 0


class Source(Protocol):
    """Where images come from: a class named by `_target_` in conf/data/*.yaml.

    One that passes over some of what it finds has a method `passed_over` like that of `catsweep.data.files.Files`.
    """

    name: str

    def key(self, size: int) -> dict[str, Any]:
        """All that decides the outcome, as JSON: parameters, digest of the content, version of the code."""

    def items(self, size: int) -> Iterator[Item]:
        """Each photo found, in an order that does not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the manifest; see `Item`.

    Attributes:
        index: place in images.npy, None for a refused photo.
        split: `train` or `val`; empty for a refused photo.
        stage: of the preparation that refused it or made it last; empty if there were no stages.
        copy: 0 for the photo itself, from 1 on for what augmentation made of it.
        notes: see `Item`; those of one photo are joined by "; ".
    """

    index: int | None
    source: str
    sha256: str
    group: str
    split: str
    kept: bool
    reason: str
    width: int
    height: int
    landmarks: str
    stage: str = ""
    copy: int = 0
    notes: str = ""

    @classmethod
    def of(cls, item: Item, index: int | None) -> "Row":
        """The manifest's row for an item; its split is not known yet."""
        points = "" if item.landmarks is None else points_text(item.landmarks.tolist())
        kept = index is not None
        return cls(
            index=index, source=item.source, sha256=item.sha256, group=item.group, split="", kept=kept,
            reason=item.reason, width=item.width, height=item.height, landmarks=points, notes="; ".join(item.notes),
        )  # fmt: skip

    @classmethod
    def parse(cls, row: dict[str, str]) -> "Row":
        """Read a row as `csv.DictReader` gives it. Older sets have no column for stage, copy and notes."""
        index = int(row["index"]) if row["index"] else None
        numbers = {"index": index, "kept": index is not None, "width": int(row["width"]), "height": int(row["height"])}
        numbers["copy"] = int(row.get("copy", 0))
        texts = {name: unescaped(cell) if isinstance(cell, str) else cell for name, cell in row.items()}
        # The columns are the fields, and those that are no text are replaced: more than a type can say of a dict.
        return cls(**{**texts, **numbers})  # type: ignore[arg-type]  # each column has its own type, by name


@dataclass(frozen=True)
class ReadySet:
    """An opened ready set.

    Attributes:
        path: its folder.
        images: uint8, shape (N, size, size, 3), memory-mapped, read-only.
        rows: the manifest, kept and refused.
        splits: "train" or "val" for each image.
        card: card.json.
    """

    path: Path
    images: NDArray[np.uint8]
    rows: tuple[Row, ...]
    splits: tuple[str, ...]
    card: dict[str, Any]

    @property
    def digest(self) -> str:
        """Hash over pixels and splits, hexadecimal: two sets with the same digest train the same."""
        return str(self.card["digest"])

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def indices(self, split: str) -> NDArray[np.int64]:
        """Places in `images` of a split ("train" or "val"), ascending; copies that augmentation made are included."""
        return np.flatnonzero(np.array(self.splits, dtype=str) == split)

    def originals(self) -> NDArray[np.int64]:
        """Places in `images` of the photos themselves, ascending: what scores compare with."""
        return np.flatnonzero(np.array([row.copy for row in self.rows if row.kept], dtype=np.int64) == 0)

    def verify(self) -> None:
        """Compare the pixels with the digest, which reads all of them.

        Raises:
            DataError: if a pixel or a split is not what it was when the set was made.
        """
        found = digest(self.images, self.splits)
        if found != self.digest:
            raise _damaged(self.path, f"digest {self.digest[:12]}… in {CARD}, but pixels and splits give {found[:12]}…")

    @classmethod
    def open(cls, path: str | Path, remedy: str = REBUILD) -> "ReadySet":
        """Open a folder; needs nothing but the folder.

        Args:
            path: the folder.
            remedy: what to do if it cannot be opened.

        Raises:
            DataError: if it is not a ready set, or not a complete one.
            OSError: it may not be read, or cannot be now.
        """
        path = Path(path)
        try:
            for name in (CARD, MANIFEST, IMAGES):
                require_regular(path / name)
            card = read_json(path / CARD)
            rows = tuple(read_manifest(path / MANIFEST))
            images = np.load(path / IMAGES, mmap_mode="r", allow_pickle=False)
            expected = (int(card["n"]), int(card["size"]), int(card["size"]), 3)
            str(card["digest"])
        except Exception as error:  # of the disk, of JSON, CSV and NumPy, and of numbers that are none (1e400)
            cause = error.__cause__ if isinstance(error, DataError) else error
            if isinstance(cause, OSError) and explain(cause) is not None:  # it may be whole, and must not be deleted
                raise cause from None
            raise _damaged(path, f"{type(error).__name__}: {error}", remedy) from error
        if images.shape != expected or images.dtype != np.uint8:
            raise _damaged(path, f"uint8 {expected} in {CARD}, {images.dtype} {images.shape} in {IMAGES}", remedy)
        kept = [row for row in rows if row.kept]
        if [row.index for row in kept] != list(range(len(images))):
            raise _damaged(path, f"{len(images)} images in {IMAGES}, {len(kept)} kept rows in {MANIFEST}", remedy)
        return cls(path, images, rows, tuple(row.split for row in kept), card)


def find_ready_set(digest: str | None, places: Sequence[Path]) -> ReadySet | None:
    """The ready set of this digest; None if it is not here any more.

    One that cannot be read, whoever left it there, is passed over, which is said: it stands in nobody's way.

    Args:
        digest: of pixels and splits.
        places: folders of ready sets, or of folders of them.
    """
    if not digest:
        return None
    for place in places:
        for card in [*place.glob(CARD), *sorted(place.glob(f"*/{CARD}"))]:
            try:
                require_regular(card)
                if read_json(card).get("digest") == digest:
                    return ReadySet.open(card.parent)
            except (OSError, DataError) as error:
                log.warning("%s is passed over: %s", card.parent, error)
    return None


def digest(images: NDArray[np.uint8], splits: Sequence[str]) -> str:
    """sha256 over shape, pixels and splits, hexadecimal."""
    state = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), 1024):
        state.update(np.ascontiguousarray(images[start : start + 1024]).data)
    state.update(json.dumps(list(splits)).encode())
    return state.hexdigest()


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV. File names that are not UTF-8 keep their bytes, and none is a formula (`catsweep.cells`)."""
    names = [field.name for field in fields(Row)]
    values = attrgetter(*names)
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows(
            [int(value) if value is True or value is False else escaped(value) for value in values(row)] for row in rows
        )


def read_manifest(path: Path) -> Iterator[Row]:
    """Read rows that `write_manifest` wrote."""
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield Row.parse(row)


def points_text(points: Iterable[Iterable[float]]) -> str:
    """Landmarks of shape (9, 2) as the manifest has them: x and y of one after the other, hundredths of a pixel."""
    return " ".join([f"{value:.2f}" for point in points for value in point])


def create_images(folder: Path, n: int, size: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """A new images.npy in a folder, memory-mapped, to be filled: uint8, shape (n, size, size, 3).

    One that is there already may have other names in other folders, so it is never written over.

    Raises:
        OSError: there is not so much room.
    """
    path = folder / IMAGES
    path.unlink(missing_ok=True)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
    reserve(path)
    return images


def reserve(path: Path) -> None:
    """Take the room for all of a file, which may have holes.

    To write into a hole of a mapped file on a full disk ends the process by SIGBUS, without a word.

    Raises:
        OSError: there is not so much room.
    """
    with named(path), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)  # writes itself where the disk cannot


def _damaged(path: Path, details: str, remedy: str = REBUILD) -> DataError:
    return DataError(
        f"Expected a complete ready set ({IMAGES}, {MANIFEST}, {CARD}) in {path}, but found: {details}. {remedy}"
    )


TRAIN, VAL = "train", "val"


def split(groups: Sequence[str], val_fraction: float) -> list[str]:
    """Assign each image to a split.

    Groups are put in the order of a hash of their names; each is held out if it still fits into the fraction.
    The answer therefore depends on neither the order nor the names of files, only on what groups there are, and
    a few photos more or less move only a few others.

    Args:
        groups: one label per image, usually the sha256 of the source photo's file.
        val_fraction: wanted share of held-out images, 0 ≤ fraction < 1.

    Returns:
        "train" or "val" per image. Of n images round(n · val_fraction) are held out, or as many fewer as whole
        groups require; at least one group when `val_fraction` > 0, and always one is left to train on.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"split:{group}".encode()).digest())
    room, held = round(val_fraction * len(groups)), set[str]()
    for group in order[:-1]:
        if sizes[group] <= room:
            held.add(group)
            room -= sizes[group]
    if not held and val_fraction > 0 and len(order) > 1:
        held.add(min(order, key=sizes.__getitem__))
    return [VAL if group in held else TRAIN for group in groups]


def pick(n: int, at_most: int = 100) -> NDArray[np.int64]:
    """Which of `n` images to show: all of them, or `at_most` spread evenly from first to last."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(np.int64))


def contact_sheet(images: NDArray[np.uint8], columns: int = 10, gap: int = 2) -> NDArray[np.uint8]:
    """Lay images out in rows, left to right, on white.

    Args:
        images: uint8, shape (N, H, W, 3), N ≥ 1.
        columns: images in a row; fewer if there are fewer images.
        gap: white pixels around each image.

    Returns:
        uint8, shape (rows · (H + gap) + gap, columns · (W + gap) + gap, 3).
    """
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + gap, width + gap, 3), 255, dtype=np.uint8)
    cells[:n, gap:, gap:] = images
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    laid = cells.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    sheet[: -gap or None, : -gap or None] = laid.reshape(rows * (height + gap), columns * (width + gap), 3)
    return sheet
