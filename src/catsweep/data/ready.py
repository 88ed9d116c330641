"""Ready set: the images that train in one memory-mapped array, and where each of them came from.

Everything before it (sources, decoding, alignment) runs once; everything after it (batches, metrics, nearest training
images) touches no photo again. A folder, which can be opened by itself on any machine:

    images.npy         uint8, (N, size, size, 3)
    manifest.csv       one row per photo found, kept or refused, with the reason; one per copy made of it
    contact_sheet.png  up to 100 of them
    card.json          name, size, n, digest, counts, the parameters it was built with, versions
    passed_over.csv    what else lay among the photos and was not taken for one, with the reason; only if there is any

It is keyed by content, locked, and written whole or not at all: of any number of processes one builds, the others wait.
"""

import csv
import hashlib
import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import PIL
import simplejpeg
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image

from catsweep.data.files import PASSED_OVER, say_passed_over, write_passed_over
from catsweep.errors import ConfigError, DataError
from catsweep.folders import replacing_folder
from catsweep.heartbeat import every_minute
from catsweep.ownership import FolderKind
from catsweep.records import read_json
from steady.places import explain, named
from steady.printing import escaped, unescaped
from steady.safe_paths import checked_name, require_regular

log = logging.getLogger(__name__)
IMAGES, MANIFEST, SHEET, CARD = "images.npy", "manifest.csv", "contact_sheet.png", "card.json"
REBUILD = "Delete that folder; the next run builds it again."
TRAIN, VAL = "train", "val"
DRAWN = "demo_cats"  # the source without photos
_PIXELS = "pixels.raw"
READY_SET = FolderKind(
    "a ready set",
    "data.root=DIR, or root=DIR of a preparation",
    (IMAGES, MANIFEST, CARD, SHEET, PASSED_OVER),
    later=("report.html", ".report.html"),
)


@dataclass(frozen=True, slots=True)
class Item:
    """Photo as a source yields it: an `image`, (size, size, 3), with landmarks if there are any, or a `reason`.

    The reason is "kind: details", as is each of `notes` on what was assumed or ignored. `source` is what the user calls
    the photo, usually a path relative to the source's folder; `sha256`, `bytes`, `width` and `height` are those of its
    file, if known. Images of one `group`, usually that sha256, stay in one split.
    """

    source: str
    group: str = ""
    sha256: str = ""
    width: int = 0
    height: int = 0
    image: NDArray[np.uint8] | None = None
    landmarks: NDArray[np.floating[Any]] | None = None  # shape (9, 2), pixels of `image`
    reason: str = ""
    notes: tuple[str, ...] = ()
    bytes: int = 0


class Source(Protocol):
    """Source of images: a class named by `_target_` in conf/data/*.yaml. It may have `passed_over`, as `Files` have."""

    name: str

    def key(self, size: int) -> dict[str, Any]:
        """Return all that decides the outcome, as JSON: parameters, digest of the content, version of the code."""

    def items(self, size: int) -> Iterator[Item]:
        """Yield each photo found, in an order that does not depend on the machine."""


@dataclass(frozen=True, slots=True)
class Row:
    """Row of the manifest; for the other fields see `Item`."""

    index: int | None  # place in images.npy, None for a refused photo
    source: str
    sha256: str
    group: str
    split: str  # `train` or `val`; empty for a refused photo
    kept: bool
    reason: str
    width: int
    height: int
    landmarks: str
    stage: str = ""  # of the preparation that refused it or made it last; empty if there were no stages
    copy: int = 0  # 0 for the photo itself, from 1 on for what augmentation made of it
    notes: str = ""  # joined by "; "

    @classmethod
    def of(cls, item: Item, index: int | None) -> "Row":
        """Build the row of an item; its split is not known yet."""
        points = "" if item.landmarks is None else format_points(item.landmarks.tolist())
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
        return cls(**{**texts, **numbers})  # type: ignore[arg-type]  # each column has its own type, by name


@dataclass(frozen=True)
class ReadySet:
    """Opened ready set: read-only `images`, (N, size, size, 3), the split of each, and `rows` of all, also refused."""

    path: Path
    images: NDArray[np.uint8]
    rows: tuple[Row, ...]
    splits: tuple[str, ...]
    card: dict[str, Any]

    @property
    def digest(self) -> str:
        """Digest of pixels and splits, hexadecimal: sets with the same one train the same."""
        return str(self.card["digest"])

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return int(self.images.shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def indices(self, split: str) -> NDArray[np.int64]:
        """List the places in `images` of a split ("train" or "val"), ascending, with copies made by augmentation."""
        return np.flatnonzero(np.array(self.splits, dtype=str) == split)

    def originals(self) -> NDArray[np.int64]:
        """List the places in `images` of photos without copies, ascending: what scores compare with."""
        return np.flatnonzero(np.array([row.copy for row in self.rows if row.kept], dtype=np.int64) == 0)

    def verify(self) -> None:
        """Read all pixels and compare them with the digest; raises DataError if a pixel or a split has changed."""
        found = digest(self.images, self.splits)
        if found != self.digest:
            raise _damaged(self.path, f"digest {self.digest[:12]}… in {CARD}, but pixels and splits give {found[:12]}…")

    @classmethod
    def open(cls, path: str | Path, remedy: str = REBUILD) -> "ReadySet":
        """Open a folder; DataError, with `remedy`, if it is no complete ready set, OSError if it cannot be read now."""
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
    """Find the ready set of a digest in folders, or folders of them; one that cannot be read gives a warning."""
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
    """Hash shape, pixels and splits: sha256, hexadecimal."""
    state = hashlib.sha256(repr(images.shape).encode())
    for start in range(0, len(images), 1024):
        state.update(np.ascontiguousarray(images[start : start + 1024]).data)
    state.update(json.dumps(list(splits)).encode())
    return state.hexdigest()


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as CSV. File names that are not UTF-8 keep their bytes, and none is a formula (`steady.printing`)."""
    names = [field.name for field in fields(Row)]
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(names)
        table.writerows(
            [int(value) if value is True or value is False else escaped(value) for value in attrgetter(*names)(row)]
            for row in rows
        )


def read_manifest(path: Path) -> Iterator[Row]:
    """Read rows that `write_manifest` wrote."""
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            yield Row.parse(row)


def format_points(points: Iterable[Iterable[float]]) -> str:
    """Format landmarks, (9, 2), for the manifest: x and y of each in turn, to hundredths of a pixel."""
    return " ".join([f"{value:.2f}" for point in points for value in point])


def create_images(folder: Path, n: int, size: int) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Create images.npy in a folder, memory-mapped, to be filled: uint8, shape (n, size, size, 3).

    One that is there may have hard links in other folders, so it is never written over. All room is taken at once
    (OSError without it): to write into a hole of a mapped file on a full disk ends the process by SIGBUS.
    """
    path = folder / IMAGES
    path.unlink(missing_ok=True)
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n, size, size, 3))
    with named(path), path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)  # writes itself where the disk cannot
    return images


def _damaged(path: Path, details: str, remedy: str = REBUILD) -> DataError:
    return DataError(
        f"Expected a complete ready set ({IMAGES}, {MANIFEST}, {CARD}) in {path}, but found: {details}. {remedy}"
    )


def open_or_build(source: Source, size: int, root: str | Path, val_fraction: float) -> ReadySet:
    """Open the ready set `<root>/<name>-<size>-<key8>` of a source, building it first if it is not there or not whole.

    ConfigError if the source's name is no name of a folder, DataError if it has no usable photo, else as
    `open_or_fill`.
    """
    parameters = {"source": source.key(size), "size": size, "val_fraction": val_fraction, "format": 1}
    key = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()
    card = {"name": source.name, "size": size, "key": key, "parameters": parameters}

    def fill(folder: Path) -> None:
        passed_over = source.passed_over() if hasattr(source, "passed_over") else {}
        rows, places = _spool(folder / _PIXELS, source.items(size))
        kept = [row for row in rows if row.kept]
        if not kept:
            raise DataError(no_photos_message(source, _refused(rows), passed_over))
        images = create_images(folder, len(kept), size)
        spooled = np.memmap(folder / _PIXELS, dtype=np.uint8, mode="r").reshape(-1, *images.shape[1:])
        for index, place in enumerate(places):
            images[index] = spooled[place]
        images.flush()
        (folder / _PIXELS).unlink()
        write_passed_over(folder / PASSED_OVER, passed_over)
        named = iter(split([row.group for row in kept], val_fraction))
        write_metadata(folder, [replace(row, split=next(named)) if row.kept else row for row in rows], card)
        log.info("%s", summary(source.name, len(kept), _refused(rows)))
        if passed_over:
            log.info("%s: %s; %s names them", source.name, say_passed_over(passed_over), PASSED_OVER)

    name = checked_name(f"{source.name}-{size}-{key[:8]}", "A ready set", ConfigError)
    return open_or_fill(Path(root) / name, key, fill)


def open_or_fill(path: Path, key: str, fill: Callable[[Path], None]) -> ReadySet:
    """Open the ready set of a key in a folder, first made by `fill` (in an empty folder) if it is not there or whole.

    OSError if it cannot be written, TakenError if in its place is something that catsweep did not make.
    """
    # A folder of that name is complete, for it came there by one rename: no lock is needed to read it.
    if (ready := _opened(path, key)) is not None:
        return ready
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), named(path):
        if (ready := _opened(path, key)) is not None:
            return ready
        with replacing_folder(path, READY_SET) as new:
            fill(new)
        return ReadySet.open(path)


def _opened(path: Path, key: str) -> ReadySet | None:
    """Open the ready set in a folder; None if there is none, a damaged one, or one of another key."""
    if not path.exists():
        return None
    try:
        ready = ReadySet.open(path)
    except DataError as error:
        log.warning("Building a damaged ready set again. %s", error)
        return None
    return ready if ready.card.get("key") == key else None


def write_metadata(folder: Path, rows: Sequence[Row], card: dict[str, Any]) -> None:
    """Write all of a ready set but images.npy, which is there; kept `rows` are in the order of the images."""
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


def _refused(rows: Iterable[Row]) -> Counter[str]:
    return Counter(row.reason.split(":", 1)[0] for row in rows if not row.kept)


def _counted(refused: Counter[str]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in refused.most_common())


def _spool(path: Path, items: Iterable[Item]) -> tuple[list[Row], list[int]]:
    """Append the pixels of the items to a file; return the rows, and where in the file the images of those kept are.

    Of equal images that of the most pixels is kept, then of the most bytes, then the first by name.
    """
    rows: list[Row] = []
    same: dict[bytes, list[tuple[tuple[int, int, str], int]]] = {}  # equal images: rank (the best is least) and row
    written = 0
    with path.open("wb") as file:
        for item in every_minute(items, log, "%s photos read so far"):
            rows.append(Row.of(item, None if item.image is None else written))
            if item.image is not None:
                pixels = np.ascontiguousarray(item.image, dtype=np.uint8).data
                file.write(pixels)
                written += 1
                rank = (-item.width * item.height, -item.bytes, item.source)
                same.setdefault(hashlib.sha256(pixels).digest(), []).append((rank, len(rows) - 1))
    best = {place: min(equal)[1] for equal in same.values() for _, place in equal}
    places: list[int] = []
    for place, row in enumerate(rows):
        if row.index is None:
            continue
        if (original := best[place]) != place:
            reason = f"exact copy: of {rows[original].source}"
            rows[place] = replace(row, index=None, kept=False, reason=reason, landmarks="")
        else:
            places.append(row.index)
            rows[place] = replace(row, index=len(places) - 1)
    return rows, places


def summary(name: str, kept: int, refused: Counter[str]) -> str:
    """Summarise for the log: "photos: 1,706 photos found, 1,694 ready, 12 left out (9 empty file, 3 not an image)"."""
    line = f"{name}: {kept + refused.total():,} photos found, {kept:,} ready"
    if not refused:
        return f"{line}, none left out"
    return f"{line}, {refused.total():,} left out ({_counted(refused)}); the manifest names them"


def no_photos_message(source: Source, refused: Counter[str], passed_over: Mapping[str, str]) -> str:
    """Say that there is no photo: what was looked for, and what was found instead, by reason."""
    found = f"{refused.total():,} found, all left out: {_counted(refused)}" if refused else "none found"
    found += f"; {say_passed_over(passed_over)}" if passed_over else ""
    return f"Expected {source}, but no usable photo is there: {found}. Give another folder by data.source=DIR."


def refuse_unread(source: str | None, reader: Source) -> None:
    """Refuse photos that nothing would read: drawn cats would be taken for them. A ConfigError."""
    if source is not None and reader.name == DRAWN:
        raise ConfigError(
            f"data={DRAWN} draws its cats, and would not read data.source={source}. Add data=photos for a folder of "
            "photos, or data=ready for a set that is prepared."
        )


def split(groups: Sequence[str], val_fraction: float) -> list[str]:
    """Assign each image, given by its group, to "train" or "val", so that no copy of a held-out photo is trained on.

    Groups, usually sha256 of the source photo's file, are held out in the order of a hash of their names while they fit
    into the fraction, 0 ≤ fraction < 1: neither order nor names of files matter, and a few photos more or less move
    only a few others. At most round(n · val_fraction) images are held out, but at least one group, if the fraction is
    above 0 and one is left to train on.
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
    """Choose which of `n` images to show: all, or `at_most` spread evenly from first to last."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(np.int64))


def contact_sheet(images: NDArray[np.uint8], columns: int = 10, gap: int = 2) -> NDArray[np.uint8]:
    """Lay images (N ≥ 1, H, W, 3) out in rows on white, `gap` pixels around each."""
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + gap, width + gap, 3), 255, dtype=np.uint8)
    cells[:n, gap:, gap:] = images
    laid = cells.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    sheet = laid.reshape(rows * (height + gap), columns * (width + gap), 3)
    return np.pad(sheet, ((0, gap), (0, gap), (0, 0)), constant_values=255)
