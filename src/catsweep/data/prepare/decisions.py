"""What a person decided about photos: data/stages/NAME/verify.csv, kept for good and made to be edited by hand.

Stage `verify` obeys it; its page (`catsweep.data.prepare.verify_page`) and a spreadsheet both write it. A decision
belongs to a source photo, by the sha256 of its file: it outlives a rebuild of earlier stages, a photo that is gone
for a while, another name. What comes back from a spreadsheet may have other line ends, delimiters, columns and order;
but a table that cannot be understood is refused and left as it is, since it may hold the work of hours.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from catsweep.data.prepare.record import Record
from catsweep.errors import DataError
from steady.atomic import write_bytes
from steady.printing import escaped

TABLE = "verify.csv"
KEEP, DROP, UNDECIDED = "keep", "drop", ""
COLUMNS = ("decision", "doubts", "source", "image", "sha256")


@dataclass(frozen=True)
class Table:
    """What the file says.

    Attributes:
        rows: by sha256, the cells of `COLUMNS` by name.
        notes: by sha256, the cells of the columns that a person has added, in the order of `added`.
        added: what those columns are called.
        delimiter: between cells; the file is written with the one it came back with.
    """

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    delimiter: str = ","

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read the file; empty if there is none.

        Raises:
            DataError: it cannot be understood; with the line.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise DataError(f"Expected the decisions in {path}, but: {error.strerror}. Allow it to be read.") from error
        return _parse(data, str(path)) if data.strip() else cls()

    def text(self, photos: Sequence[Record], folder: str, decisions: Mapping[str, str]) -> str:
        """The file as it should be.

        Args:
            photos: to decide about, in this order, see `to_decide`.
            folder: of the photos' files, relative to that of the table.
            decisions: by sha256, instead of those of the table.
        """
        there = {photo.sha256 for photo in photos}
        gone = {key: row for key, row in self.rows.items() if key not in there}
        rows = [_row(photo, f"{folder}/{photo.file}") for photo in photos]
        rows += [dict(row) for key, row in sorted(gone.items(), key=lambda item: (item[1]["source"], item[0]))]
        text = io.StringIO(newline="")
        table = csv.writer(text, delimiter=self.delimiter)  # with CRLF, or a CR in a name would not be quoted
        table.writerow([*COLUMNS, *self.added])
        for row in rows:
            key = row["sha256"]
            notes = self.notes.get(key, ())
            row["decision"] = decisions.get(key, self.decision(key))
            if key in there or row["decision"] or any(notes):  # of a photo that is gone only what a person wrote
                table.writerow([*(row[column] for column in COLUMNS), *notes])
        return text.getvalue()

    def decision(self, sha256: str) -> str:
        """`KEEP`, `DROP` or `UNDECIDED`."""
        return self.rows[sha256]["decision"] if sha256 in self.rows else UNDECIDED


class Decisions:
    """The file together with what is decided while it is open.

    Args:
        path: of the file; need not exist.

    Raises:
        DataError: it cannot be understood.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours: dict[str, str] = {}
        self._seen = _stamp(path)
        self._table = Table.read(path)

    def of(self, sha256: str) -> str:
        """The decision about a photo: `KEEP`, `DROP` or `UNDECIDED`."""
        return self._ours.get(sha256, self._table.decision(sha256))

    def write(self, photos: Sequence[Record], folder: str, decisions: Mapping[str, str] | None = None) -> None:
        """Write the file, whole or not at all, if it would change.

        What somebody else wrote into it meanwhile is taken over, unless it was decided here, too: a spreadsheet that
        was opened before saves everything, also what has become old.

        Args:
            photos: see `Table.text`.
            folder: see `Table.text`.
            decisions: by sha256, new ones. If the file is not written, nothing is decided.

        Raises:
            DataError: somebody else made the file something that cannot be understood.
            OSError: it cannot be written.
        """
        if _stamp(self.path) != self._seen:
            self._table = Table.read(self.path)
        ours = {**self._ours, **(decisions or {})}
        # With the mark by which Excel knows UTF-8. Names that are not UTF-8 keep their bytes.
        data = codecs.BOM_UTF8 + self._table.text(photos, folder, ours).encode("utf-8", errors="surrogateescape")
        if not self.path.exists() or self.path.read_bytes() != data:
            write_bytes(self.path, data)  # a decision is a person's time: it should outlast the power
        self._ours, self._seen = ours, _stamp(self.path)


def to_decide(records: Iterable[Record]) -> list[Record]:
    """The photos that there are to decide about: one record for each, the doubtful ones first, then by name."""
    photos: dict[str, Record] = {}
    for record in records:
        if (first := photos.get(record.sha256)) is not None:  # several images of one photo are decided together
            record = replace(first, doubts=tuple(dict.fromkeys((*first.doubts, *record.doubts))))
        photos[record.sha256] = record
    return sorted(photos.values(), key=lambda photo: (not photo.doubts, photo.source, photo.sha256))


def _parse(data: bytes, path: str) -> Table:
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = data.decode("utf-16", errors="replace") if utf16 else data.decode("utf-8-sig", errors="surrogateescape")
    delimiter, header = _header(text, path)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: dict[str, dict[str, str]] = {}
    notes: dict[str, list[str]] = {}
    try:
        next(lines)
        line = lines.line_num + 1
        for cells in lines:
            if any(cell.strip() for cell in cells):  # spreadsheets leave lines of mere delimiters
                row = _checked(dict(zip(header, cells, strict=False)), f"{path}, line {line}")
                key = row["sha256"]
                if (other := rows.get(key)) and UNDECIDED != other["decision"] != row["decision"] != UNDECIDED:
                    raise DataError(
                        f"{path}, line {line}: expected one decision about {row['source']}, but an earlier line says "
                        f"{other['decision']} and this one {row['decision']}. Delete one of them."
                    )
                rows[key] = {**row, "decision": row["decision"] or (other or row)["decision"]}
                notes[key] = _merged(notes.get(key, []), _added(header, cells))
            line = lines.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {lines.line_num}: expected a row of a CSV file, but: {error}. Correct it."
        ) from None
    return _table(rows, notes, header, delimiter)


def _table(rows: dict[str, dict[str, str]], notes: dict[str, list[str]], header: list[str], delimiter: str) -> Table:
    """With as many added columns as there is something in."""
    added = [name for name in header if name.lower() not in COLUMNS]
    used = max([place + 1 for cells in (added, *notes.values()) for place, cell in enumerate(cells) if cell], default=0)
    padded = {key: tuple([*cells, *[""] * used][:used]) for key, cells in notes.items()}
    return Table(rows, padded, tuple([*added, *[""] * used][:used]), delimiter)


def _header(text: str, path: str) -> tuple[str, list[str]]:
    """The delimiter, and the names of the columns: ours in lower case, others as they are."""
    first = next(iter(text.splitlines()), "")
    for delimiter in (",", ";", "\t"):
        names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
        names = [name.lower() if name.lower() in COLUMNS else name for name in names]
        if names.count("sha256") == names.count("decision") == 1:
            return delimiter, names
    raise DataError(
        f"{path}, line 1: expected names of columns, among them decision and sha256 once each, got {first[:200]!r}. "
        "Correct it; or move the file away, and it is made anew, without the decisions in it."
    )


def _checked(cells: dict[str, str], where: str) -> dict[str, str]:
    """The cells of `COLUMNS`, the important ones known to be sound."""
    row = {column: cells.get(column, "").strip() for column in COLUMNS}
    row |= {"decision": row["decision"].lower(), "sha256": row["sha256"].lower()}
    if row["decision"] not in (KEEP, DROP, UNDECIDED):
        raise DataError(
            f"{where}: expected keep, drop or nothing as the decision, got {row['decision'][:80]!r}. Correct it."
        )
    if not re.fullmatch(r"[0-9a-f]{64}", row["sha256"]):
        raise DataError(
            f"{where}: expected the 64 hexadecimal digits of a photo as sha256, got {row['sha256'][:80]!r}. Copy them "
            "from another copy of the table, or delete the line: it is made anew, without a decision."
        )
    return row


def _added(header: Sequence[str], cells: Sequence[str]) -> list[str]:
    """What is not ours, cells beyond the header among it."""
    return [cell for place, cell in enumerate(cells) if place >= len(header) or header[place] not in COLUMNS]


def _merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Notes of two lines about one photo: nothing is lost."""
    pairs = zip_longest(first, second, fillvalue="")
    return [one if other in ("", one) else f"{one} {other}".strip() for one, other in pairs]


def _row(photo: Record, image: str) -> dict[str, str]:
    cells = {"doubts": "; ".join(photo.doubts), "source": photo.source, "image": image, "sha256": photo.sha256}
    return {name: escaped(cell) for name, cell in cells.items()}


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
