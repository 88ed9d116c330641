"""What is known of one image at one stage: a row of the manifest.

Every stage reads the records of the one before it and writes its own (`catsweep.data.prepare.stage`). The manifest of
a preparation has those of all stages, so each image can be followed from the photo to the ready set.
"""

import builtins
import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from steady.atomic import replacing
from steady.links import why_not
from steady.printing import escaped, unescaped

MANIFEST = "manifest.csv"


@dataclass(frozen=True, slots=True)
class Record:
    """One image at one stage.

    Attributes:
        stage: name of the stage.
        id: unique among the photos, and the name of its files.
        source: what the user calls it: path in the folder or archive, with its suffix.
        sha256: of the source file, hexadecimal; empty if it could not be read. Decisions are kept by it.
        group: photos of one group show the same scene and are never divided between the splits; empty: not known yet.
        split: `train` or `val`; empty before stage `verify`.
        kept: whether it goes on to the next stage.
        reason: why not, "kind: details"; empty if it does.
        operation: what the stage did to it, one word or several, such as `face: landmarks`.
        parameters: of that operation, for this image.
        confidence: of the operation, 0 to 1; None where there is no such thing.
        doubts: what a person should look at, "kind: details" each; collected over the stages.
        width: of the image of this stage, pixels; of a refused one, of the one before.
        height: the same.
        bytes: size of the source file.
        landmarks: the nine points of `catsweep.data.landmarks`, shape (9, 2), pixels counted from the centre of the
            first; None if unknown.
        file: of this stage, relative to its folder; empty if there is none. Arrays hold many images in one file.
        index: place in the file, if it is an array; else None.
        digest: sha256 of the file, or of the image's own pixels in an array; hexadecimal.
        mark: what the image was made of (input, parameters and code), hexadecimal; equal marks, equal images.
    """

    stage: str
    id: str
    source: str
    sha256: str = ""
    group: str = ""
    split: str = ""
    kept: bool = True
    reason: str = ""
    operation: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    confidence: float | None = None
    doubts: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    bytes: int = 0
    landmarks: tuple[tuple[float, float], ...] | None = None
    file: str = ""
    index: int | None = None
    digest: str = ""
    mark: str = ""

    def refuse(self, reason: str) -> "Record":
        """The same image, left out for a reason ("kind: details")."""
        return replace(self, kept=False, reason=reason)

    def doubt(self, *doubts: str) -> "Record":
        """The same image, with more for a person to look at."""
        return replace(self, doubts=(*self.doubts, *doubts))

    @property
    def points(self) -> NDArray[np.float64] | None:
        """Landmarks, float64 of shape (9, 2), or None."""
        return None if self.landmarks is None else np.array(self.landmarks, dtype=np.float64)

    def to_json(self, marked: bool = True) -> str:
        """One line; `from_json` gives an equal record, but for the mark if it is to be left out."""
        values = dict(zip(_COLUMNS, _values(self), strict=True))  # `asdict` copies all, and takes 10 times as long
        return _JSON(values if marked else {**values, "mark": ""})

    def content(self) -> builtins.bytes:
        """What an image made of this one depends on: everything but what this one was made of."""
        return self.to_json(marked=False).encode()

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Read what `to_json` wrote."""
        raw = json.loads(line)
        points = raw["landmarks"]
        raw["landmarks"] = None if points is None else tuple((x, y) for x, y in points)
        return cls(**{**raw, "doubts": tuple(raw["doubts"])})._named()

    def _named(self) -> "Record":
        """The same, if what its files are called are names: they are part of paths.

        Raises:
            ValueError: they are not.
        """
        if why := next((why for name in (self.id, self.file) if name and (why := why_not(name))), ""):
            raise ValueError(f"a record of {self.source} names a file by what is no name: {why}")
        return self


def rounded(points: NDArray[np.floating[Any]]) -> tuple[tuple[float, float], ...]:
    """Landmarks as a record keeps them: hundredths of a pixel."""
    return tuple((x, y) for x, y in np.round(np.asarray(points, np.float64), 2).tolist())


def write_manifest(path: Path, records: Iterable[Record]) -> str:
    """Write records as CSV (RFC 4180), whole or not at all.

    File names that are not UTF-8 keep their bytes, and none is a formula (`steady.printing`).

    Returns:
        `content_digest` of the records that are kept.
    """
    state, lines = hashlib.sha256(), [",".join(_COLUMNS)]
    for record in records:
        line = _line(record)
        lines.append(f"{line},{record.mark}")
        if record.kept:
            state.update(line.encode(errors="surrogateescape"))
    with replacing(path) as unfinished:
        unfinished.write_bytes("\r\n".join([*lines, ""]).encode(errors="surrogateescape"))
    return state.hexdigest()


def content_digest(records: Iterable[Record]) -> str:
    """What a stage that starts from these records depends on: all but what they were made of; hexadecimal."""
    state = hashlib.sha256()
    for record in records:
        state.update(_line(record).encode(errors="surrogateescape"))
    return state.hexdigest()


def read_manifest(path: Path) -> Iterator[Record]:
    """Read records that `write_manifest` wrote.

    Raises:
        OSError, ValueError, KeyError, TypeError, csv.Error: there is no such file, or it is damaged.
    """
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row.values():
                raise ValueError(f"a row of {path} is cut off")
            row = {name: unescaped(cell) for name, cell in row.items()}
            points = json.loads(row["landmarks"] or "null")
            read: dict[str, Any] = {
                "kept": row["kept"] == "1",
                "parameters": json.loads(row["parameters"] or "{}"),
                "confidence": float(row["confidence"]) if row["confidence"] else None,
                "doubts": tuple(json.loads(row["doubts"] or "[]")),
                "landmarks": None if points is None else tuple((x, y) for x, y in points),
                "index": int(row["index"]) if row["index"] else None,
            }
            read |= {name: int(row[name]) for name in ("width", "height", "bytes")}
            yield Record(**{**row, **read})._named()


def _line(record: Record) -> str:
    """A row without its end, and without the mark, which comes last and holds nothing that would have to be quoted."""
    cells = list(_values(record)[:-1])
    cells[_KEPT] = int(cells[_KEPT])
    for place in _NESTED:  # the rest the table writes as it should: None as nothing
        cells[place] = _JSON(cells[place]) if cells[place] else ""
    row = io.StringIO(newline="")
    csv.writer(row).writerow([escaped(cell) for cell in cells])
    return row.getvalue()[:-2]


_COLUMNS = tuple(column.name for column in fields(Record))
_KEPT, *_NESTED = (_COLUMNS.index(name) for name in ("kept", "parameters", "doubts", "landmarks"))
assert _COLUMNS[-1] == "mark"
_values = attrgetter(*_COLUMNS)
_JSON = json.JSONEncoder(sort_keys=True).encode
