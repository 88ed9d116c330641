"""Manifest: the record of one image at one stage, and tables of records.

Each stage writes a manifest of its own. `write_table` joins those of all stages into one table for people.
"""

import builtins
import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from catsweep.errors import ConfigError
from steady.atomic import replacing
from steady.printing import escaped, readable_name, unescaped
from steady.safe_paths import why_not

if TYPE_CHECKING:
    from catsweep.prepare.stage import StageOutput

KEEP, DROP, UNDECIDED = "keep", "drop", ""  # what a person decided about a photo
MANIFEST = "manifest.csv"


@dataclass(frozen=True, slots=True)
class Record:
    """Record of one image at one stage."""

    stage: str  # name of the stage
    id: str  # unique among the photos; its files are named after it
    source: str  # path in the folder or archive, with its suffix
    sha256: str = ""  # of the source file; empty if it could not be read. Key of the decisions of stage `verify`
    group: str = ""  # photos of one group show the same scene and are never divided between the splits
    split: str = ""  # `train` or `val`; empty before stage `verify`
    kept: bool = True  # whether it goes on to the next stage
    reason: str = ""  # why it was left out, "kind: details"; empty if kept
    operation: str = ""  # done by the stage, one word or several, such as `zoom: landmarks`
    parameters: dict[str, Any] = field(default_factory=dict)  # of that operation, for this image
    confidence: float | None = None  # of the operation, 0 to 1; None if not defined
    doubts: tuple[str, ...] = ()  # for a person to look at, "kind: details" each; collected over the stages
    width: int = 0  # of the image of this stage, pixels; of a refused one, of the stage before
    height: int = 0
    bytes: int = 0  # size of the source file
    # Nine points (`catsweep.data.landmarks`), pixels counted from the centre of the first; None if unknown.
    landmarks: tuple[tuple[float, float], ...] | None = None
    file: str = ""  # relative to the stage's folder; empty if there is none. Arrays hold many images in one file
    index: int | None = None  # place in the file, if it is an array
    digest: str = ""  # sha256 of the file, or of the image's own pixels in an array
    mark: str = ""  # hash of what the image was made of (input, parameters and code)

    def refuse(self, reason: str) -> "Record":
        """Return the record with the image left out for a reason ("kind: details")."""
        return replace(self, kept=False, reason=reason)

    def doubt(self, *doubts: str) -> "Record":
        """Return the record with more doubts ("kind: details" each)."""
        return replace(self, doubts=(*self.doubts, *doubts))

    @property
    def points(self) -> NDArray[np.float64] | None:
        """Landmarks, float64 of shape (9, 2), or None."""
        return None if self.landmarks is None else np.array(self.landmarks, dtype=np.float64)

    def to_json(self, marked: bool = True) -> str:
        """Serialize to one line; without its mark if not `marked`."""
        values = dict(zip(_COLUMNS, _values(self), strict=True))  # `asdict` copies all, and takes 10 times as long
        return _JSON(values if marked else {**values, "mark": ""})

    def content(self) -> builtins.bytes:
        """Serialize what an image made of this one depends on: everything but the mark."""
        return self.to_json(marked=False).encode()

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """Parse a line of `to_json`; raises ValueError, KeyError or TypeError if it is none."""
        raw = json.loads(line)
        return cls(**{**raw, "doubts": tuple(raw["doubts"]), "landmarks": _pairs(raw["landmarks"])})._named()

    def _named(self) -> "Record":
        """Return self if id and file are safe file names; else raise ValueError."""
        if why := next((why for name in (self.id, self.file) if name and (why := why_not(name))), ""):
            raise ValueError(f"a record of {self.source} names a file by what is no name: {why}")
        return self


def _pairs(points: Any) -> tuple[tuple[float, float], ...] | None:
    return None if points is None else tuple((x, y) for x, y in points)


def kind_of(text: str) -> str:
    """Return the kind of a reason or doubt, "kind: details"."""
    return text.split(":", 1)[0]


def rounded(points: NDArray[np.floating[Any]]) -> tuple[tuple[float, float], ...]:
    """Round landmarks to hundredths of a pixel, as records keep them."""
    return tuple((x, y) for x, y in np.round(np.asarray(points, np.float64), 2).tolist())


def write_manifest(path: Path, records: Iterable[Record]) -> str:
    """Write records as CSV (RFC 4180), atomically; return `content_digest` of those that are kept.

    File names that are not UTF-8 keep their bytes; formulas are escaped (`steady.printing`).
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
    """Hash records, without their marks: sha256, hexadecimal."""
    state = hashlib.sha256()
    for record in records:
        state.update(_line(record).encode(errors="surrogateescape"))
    return state.hexdigest()


def read_manifest(path: Path) -> Iterator[Record]:
    """Read records that `write_manifest` wrote.

    Raises OSError, ValueError, KeyError, TypeError or csv.Error: there is no such file, or it is damaged.
    """
    with path.open("r", encoding="utf-8", errors="surrogateescape", newline="") as file:
        for row in csv.DictReader(file, strict=True):
            if None in row.values():
                raise ValueError(f"a row of {path} is cut off")
            row = {name: unescaped(cell) for name, cell in row.items()}
            read: dict[str, Any] = {
                "kept": row["kept"] == "1",
                "parameters": json.loads(row["parameters"] or "{}"),
                "confidence": float(row["confidence"]) if row["confidence"] else None,
                "doubts": tuple(json.loads(row["doubts"] or "[]")),
                "landmarks": _pairs(json.loads(row["landmarks"] or "null")),
                "index": int(row["index"]) if row["index"] else None,
                **{name: int(row[name]) for name in ("width", "height", "bytes")},
            }
            yield Record(**{**row, **read})._named()


def _line(record: Record) -> str:
    """Format a row of the table without its line end and the mark, which comes last and needs no quotes."""
    cells = list(_values(record)[:-1])
    cells[_KEPT] = int(cells[_KEPT])
    for place in _NESTED:  # `csv` writes the rest, None as nothing
        cells[place] = _JSON(cells[place]) if cells[place] else ""
    row = io.StringIO(newline="")
    csv.writer(row).writerow([escaped(cell) for cell in cells])
    return row.getvalue()[:-2]


_COLUMNS = tuple(column.name for column in fields(Record))
_KEPT, *_NESTED = (_COLUMNS.index(name) for name in ("kept", "parameters", "doubts", "landmarks"))
assert _COLUMNS[-1] == "mark"
_values = attrgetter(*_COLUMNS)
_JSON = json.JSONEncoder(sort_keys=True).encode


def check_kind(kind: str) -> None:
    """Check that a kind of table can be written; raises ConfigError if it needs a package that is not installed."""
    if kind == "parquet":
        need_pyarrow("manifest=parquet")


def write_table(root: Path, stages: "Sequence[StageOutput]", kind: str) -> Path:
    """Write the records of all stages, in their order, into `manifest.csv` or `.parquet` in their folder, atomically.

    The table of the other kind is removed.
    """
    path = root / f"manifest.{kind}"
    with replacing(path) as unfinished:
        (_write_parquet if kind == "parquet" else _join_csv)(unfinished, stages)
    path.with_suffix(".csv" if kind == "parquet" else ".parquet").unlink(missing_ok=True)
    return path


def need_pyarrow(what: str) -> None:
    """Raise ConfigError if pyarrow is missing; `what`, on the command line, asked for it."""
    if find_spec("pyarrow") is None:
        raise ConfigError(f"{what} needs the package pyarrow, which is not installed: pip install pyarrow")


def _join_csv(path: Path, stages: "Sequence[StageOutput]") -> None:
    """Concatenate the stages' own manifests: to write 75,000 rows anew would take seconds."""
    with path.open("wb") as table:
        for number, stage in enumerate(stages):
            with (stage.folder / MANIFEST).open("rb") as manifest:
                header = manifest.readline()
                if number == 0:
                    table.write(header)
                shutil.copyfileobj(manifest, table)


def _write_parquet(path: Path, stages: "Sequence[StageOutput]") -> None:
    import pyarrow as pa  # an optional extra
    import pyarrow.parquet as pq

    kinds: dict[Any, tuple[Any, Callable[[Any], Any] | None]] = {  # column type and conversion
        str: (pa.string(), readable_name),
        bool: (pa.bool_(), None),
        int: (pa.int64(), None),
        int | None: (pa.int64(), None),
        float | None: (pa.float64(), None),
        dict[str, Any]: (pa.string(), _JSON),
        tuple[str, ...]: (pa.list_(pa.string()), lambda value: [readable_name(text) for text in value]),
        tuple[tuple[float, float], ...] | None: (pa.list_(pa.list_(pa.float64())), None),
    }
    records = [record for stage in stages for record in stage.records]
    columns = []
    for name, annotation in get_type_hints(Record).items():
        kind, convert = kinds[annotation]
        values: Iterable[Any] = (getattr(record, name) for record in records)
        columns.append(pa.array(map(convert, values) if convert else values, type=kind))
    pq.write_table(pa.table(columns, names=list(_COLUMNS)), path)
