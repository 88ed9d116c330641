"""The ready set: what trains. Pixels in one memory-mapped array, and where each of them came from.

Everything before it (sources, decoding, alignment) runs once and ends here; everything after it (batches, metrics,
nearest training images) starts here and touches no photo again. A folder

    images.npy         uint8, (N, size, size, 3)
    manifest.csv       one row per photo found, kept or refused, with the reason
    contact_sheet.png  a look at up to 100 of them
    card.json          name, size, n, digest, counts, the parameters it was built with, versions

that can be opened by itself, on any machine.
"""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from catsweep.errors import DataError

IMAGES, MANIFEST, SHEET, CARD = "images.npy", "manifest.csv", "contact_sheet.png", "card.json"


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
    """

    source: str
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    image: NDArray[np.uint8] | None = None
    landmarks: NDArray[np.floating[Any]] | None = None
    reason: str = ""


class Source(Protocol):
    """Where images come from: a class named by `_target_` in conf/data/*.yaml."""

    name: str

    def key(self, size: int) -> dict[str, Any]:
        """All that decides the outcome, as JSON: parameters, digest of the content, version of the code."""

    def items(self, size: int) -> Iterator[Item]:
        """Each photo found, in an order that does not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the manifest; see `Item`. `index` is the place in images.npy, None for a refused photo."""

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

    @classmethod
    def of(cls, item: Item, index: int | None) -> "Row":
        """The manifest's row for an item; its split is not known yet."""
        points = "" if item.landmarks is None else " ".join(f"{value:.2f}" for value in item.landmarks.ravel())
        kept = index is not None
        return cls(index, item.source, item.sha256, item.group, "", kept, item.reason, item.width, item.height, points)

    @classmethod
    def parse(cls, row: dict[str, str]) -> "Row":
        """Read a row as `csv.DictReader` gives it."""
        index = int(row["index"]) if row["index"] else None
        numbers = {"index": index, "kept": index is not None, "width": int(row["width"]), "height": int(row["height"])}
        # The columns are the fields, and those that are no text are replaced: more than a type can say of a dict.
        return cls(**{**row, **numbers})  # type: ignore[arg-type]


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
        """Places in `images` of a split ("train" or "val"), ascending."""
        return np.flatnonzero(np.array(self.splits, dtype=str) == split)

    def verify(self) -> None:
        """Compare the pixels with the digest, which reads all of them.

        Raises:
            DataError: if a pixel or a split is not what it was when the set was made.
        """
        found = digest(self.images, self.splits)
        if found != self.digest:
            raise _damaged(self.path, f"digest {self.digest[:12]}… in {CARD}, but pixels and splits give {found[:12]}…")

    @classmethod
    def open(cls, path: str | Path) -> "ReadySet":
        """Open a folder; needs nothing but the folder.

        Raises:
            DataError: if it is not a ready set, or not a complete one.
        """
        path = Path(path)
        try:
            card = json.loads((path / CARD).read_text(encoding="utf-8"))
            rows = tuple(read_manifest(path / MANIFEST))
            images = np.load(path / IMAGES, mmap_mode="r", allow_pickle=False)
            expected = (int(card["n"]), int(card["size"]), int(card["size"]), 3)
            str(card["digest"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, csv.Error) as error:
            raise _damaged(path, f"{type(error).__name__}: {error}") from error
        if images.shape != expected or images.dtype != np.uint8:
            raise _damaged(path, f"uint8 {expected} in {CARD}, {images.dtype} {images.shape} in {IMAGES}")
        kept = [row for row in rows if row.kept]
        if [row.index for row in kept] != list(range(len(images))):
            raise _damaged(path, f"{len(images)} images in {IMAGES}, {len(kept)} kept rows in {MANIFEST}")
        return cls(path, images, rows, tuple(row.split for row in kept), card)


def digest(images: NDArray[np.uint8], splits: Sequence[str]) -> str:
    """sha256 over shape, pixels and splits, hexadecimal."""
    state = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), 1024):
        state.update(np.ascontiguousarray(images[start : start + 1024]).data)
    state.update(json.dumps(list(splits)).encode())
    return state.hexdigest()


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV. File names that are not UTF-8 keep their bytes."""
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.DictWriter(file, [field.name for field in fields(Row)])
        table.writeheader()
        for row in rows:
            table.writerow({**asdict(row), "kept": int(row.kept)})


def read_manifest(path: Path) -> Iterator[Row]:
    """Read rows that `write_manifest` wrote."""
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield Row.parse(row)


def _damaged(path: Path, details: str) -> DataError:
    return DataError(
        f"Expected a complete ready set ({IMAGES}, {MANIFEST}, {CARD}) in {path}, but found: {details}. "
        "Delete that folder; the next run builds it again."
    )
