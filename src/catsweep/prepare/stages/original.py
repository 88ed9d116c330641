"""Stage 0, original: decode every photo of the source once, defensively, and save it clean.

Later stages read only what is written here, so they may be fast and trusting.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any, ClassVar

import cv2
import numpy as np

from catsweep.data import landmarks
from catsweep.data.decode import Unreadable, decoding, heif_is_there
from catsweep.data.files import READING, Files, digests, reading
from catsweep.prepare.image_files import Pixels
from catsweep.prepare.manifest import Record, rounded
from catsweep.prepare.stage import Stage, StageBuilder


@dataclass
class Original(Stage):
    """Decodes photos and the landmarks beside them (`x.jpg.cat`), where there are any."""

    name, folder = "original", "original"
    code = (
        *(f"data/{name}" for name in READING), "data/landmarks.py", "prepare/stages/original.py",
    )  # fmt: skip
    remedy = "What cannot be read cannot be kept: give other photos, data.source=DIR."
    keeping: ClassVar[Mapping[str, str]] = dict.fromkeys(("photo too small", "photo too narrow"), "original.min_side=1")

    files: Files  # of the source
    min_side: int = 32  # least shorter side, pixels, also after shrinking; smaller photos are left out
    max_side: int = 2048  # most longer side, pixels; larger photos are shrunk to it

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return {"min_side": self.min_side, "max_side": self.max_side, "heif": heif_is_there()}

    def inputs(self) -> tuple[Record, ...]:
        """Make a record of each photo of the source, with the digests of all that will be read."""
        names = list(self.files)
        beside = [name + landmarks.SUFFIX for name in names if name + landmarks.SUFFIX in self.files]
        points = dict(zip(beside, digests(self.files, beside), strict=True))

        def record(name: str, sha256: str) -> Record:
            known = points.get(name + landmarks.SUFFIX)
            return Record("", identity(name), name, sha256, parameters={} if known is None else {"landmarks": known})

        return tuple(map(record, names, digests(self.files, names)))

    def run(self, build: StageBuilder) -> Iterable[Record]:
        """See `Stage`."""
        return build.each(self._photo, ".jpg")

    def _photo(self, record: Record) -> tuple[Record, Pixels | None]:
        record = replace(record, sha256="", operation="decode", parameters={})
        try:
            with reading(self.files, record.source) as data:
                sha256 = hashlib.sha256(data).hexdigest()
                record = replace(record, sha256=sha256, group=sha256, bytes=len(data))
                with decoding(data) as photo:
                    height, width = photo.pixels.shape[:2]
                    size = {"width": width, "height": height}
                    notes = {"notes": list(photo.notes)} if photo.notes else {}
                    record = replace(record, **size, parameters={**size, **notes})
                    if min(height, width) < self.min_side:
                        raise Unreadable(
                            f"photo too small: {width} x {height} pixels, at least {self.min_side} are needed"
                        )
                    return self._shrunk(self._with_landmarks(record), photo.pixels)
        except Unreadable as error:
            return record.refuse(error.reason), None

    def _with_landmarks(self, record: Record) -> Record:
        """Read the landmarks; a photo with unusable ones goes on without, and its record says why."""
        if record.source + landmarks.SUFFIX not in self.files:
            return record
        try:
            return replace(record, landmarks=rounded(landmarks.read(self.files, record.source)))
        except Unreadable as error:
            return replace(record, parameters={**record.parameters, "landmarks": error.reason})

    def _shrunk(self, record: Record, photo: Pixels) -> tuple[Record, Pixels]:
        height, width = photo.shape[:2]
        factor = self.max_side / max(height, width)
        if factor >= 1:
            return record, photo
        size = (round(width * factor), round(height * factor))
        if min(size) < self.min_side:
            raise Unreadable(
                f"photo too narrow: {width} x {height} pixels, and its longer side is to be {self.max_side}"
            )
        small = np.asarray(cv2.resize(photo, size, interpolation=cv2.INTER_AREA), np.uint8)
        if (points := record.points) is not None:
            # Landmarks count from the centre of the first pixel, whose place changes with its size.
            record = replace(record, landmarks=rounded((points + 0.5) * [size[0] / width, size[1] / height] - 0.5))
        return record, small


def identity(name: str) -> str:
    """Derive a short name, unique in the source and safe for any file system, from a photo's path."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", PurePath(name).stem).strip("-")[:40]
    tail = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
    return f"{slug}-{tail}" if slug else tail
