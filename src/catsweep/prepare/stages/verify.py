"""Stage 4, verify: keep what a person decided to keep, and divide the photos into splits.

A person decides about what earlier stages doubt in the browser (`catsweep.prepare.verify_page`), in a table, or not at
all. Decisions are in data/stages/NAME/verify.csv, made to be edited by hand, by the sha256 of the source photo: they
outlive a rebuild of earlier stages, a photo that is gone for a while, another name. Spreadsheets may change line ends,
delimiters, columns and order; a table that cannot be understood is refused and left as it is.
"""

import codecs
import csv
import hashlib
import io
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar

from catsweep.data.ready import split
from catsweep.data.threads import watched
from catsweep.errors import DataError
from catsweep.prepare.manifest import DROP, KEEP, UNDECIDED, Record, kind_of
from catsweep.prepare.stage import Stage, StageBuilder, StageOutput
from steady.atomic import write_bytes
from steady.printing import escaped

log = logging.getLogger(__name__)

AUTO, SERVE, CSV = "auto", "serve", "csv"
ORIGINALS = "0.original"
TABLE = "verify.csv"
COLUMNS = ("decision", "doubts", "source", "image", "sha256")


@dataclass(frozen=True)
class Table:
    """Content of verify.csv."""

    rows: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by sha256, the cells of `COLUMNS` by name
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by sha256, the cells of `added`
    added: Sequence[str] = ()  # names of the columns that a person has added
    delimiter: str = ","  # between cells; kept as the file came back


class Decisions:
    """Decisions in a file and of this session; raises DataError if the file, which need not exist, is malformed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ours: dict[str, str] = {}
        self._seen = _stamp(path)
        self._table = _read(path)

    def of(self, sha256: str) -> str:
        """Look up the decision about a photo: `KEEP`, `DROP` or `UNDECIDED`."""
        return self._ours.get(sha256, self._table.rows.get(sha256, {}).get("decision", UNDECIDED))

    def write(self, photos: Sequence[Record], folder: str, decisions: Mapping[str, str] | None = None) -> None:
        """Write the file atomically, if it would change, for the photos of `to_decide`, whose files are in `folder`.

        What somebody else wrote into it meanwhile is merged, but decisions of this session win: a spreadsheet that was
        opened before saves everything, also stale cells. `decisions`, by sha256, are new ones; if the file is not
        written, nothing is decided.

        Raises:
            DataError: the file, changed by somebody else, is malformed.
            OSError: it cannot be written.
        """
        if _stamp(self.path) != self._seen:
            self._table = _read(self.path)
        ours = {**self._ours, **(decisions or {})}
        # With the mark by which Excel knows UTF-8. Names that are not UTF-8 keep their bytes.
        data = codecs.BOM_UTF8 + self._text(photos, folder, ours).encode("utf-8", errors="surrogateescape")
        if not self.path.exists() or self.path.read_bytes() != data:
            write_bytes(self.path, data)  # a decision is a person's time: it should outlast the power
        self._ours, self._seen = ours, _stamp(self.path)

    def _text(self, photos: Sequence[Record], folder: str, decisions: Mapping[str, str]) -> str:
        there, known = {photo.sha256 for photo in photos}, self._table
        rows = []
        for photo in photos:
            cells = {"source": photo.source, "image": f"{folder}/{photo.file}", "doubts": "; ".join(photo.doubts)}
            rows.append({"sha256": photo.sha256, **{name: escaped(cell) for name, cell in cells.items()}})
        gone = [dict(row) for key, row in known.rows.items() if key not in there]
        rows += sorted(gone, key=lambda row: (row["source"], row["sha256"]))
        text = io.StringIO(newline="")
        table = csv.writer(text, delimiter=known.delimiter)  # with CRLF, or a CR in a name would not be quoted
        table.writerow([*COLUMNS, *known.added])
        for row in rows:
            key = row["sha256"]
            notes = known.notes.get(key, ())
            row["decision"] = decisions.get(key, known.rows.get(key, {}).get("decision", UNDECIDED))
            if key in there or row["decision"] or any(notes):  # of a photo that is gone only what a person wrote
                table.writerow([*(row[column] for column in COLUMNS), *notes])
        return text.getvalue()


def to_decide(records: Iterable[Record]) -> list[Record]:
    """List the photos to decide about: one record each, doubtful ones first, then by name."""
    photos: dict[str, Record] = {}
    for record in records:
        if (first := photos.get(record.sha256)) is not None:  # several images of one photo are decided together
            record = replace(first, doubts=tuple(dict.fromkeys((*first.doubts, *record.doubts))))
        photos[record.sha256] = record
    return sorted(photos.values(), key=lambda photo: (not photo.doubts, photo.source, photo.sha256))


@dataclass
class Verify(Stage):
    """Keeps photos that a person decided to keep, and undecided ones without doubts. Files go on as they are."""

    name, folder = "verify", "verified"
    code = ("data/ready.py", "prepare/stages/verify.py")
    remedy = (
        "Look at them: verify=serve (browser) or verify=csv (table). zoom.whole=always keeps what has no clear face."
    )
    keeping: ClassVar[Mapping[str, str]] = {"dropped by hand": "verify=serve"}

    # `auto`: ask nobody; `serve`: ask in the browser until the person is done; `csv`: ask in verify.csv, and end the
    # command until all doubts are decided. Decisions count in every mode.
    mode: str = AUTO
    val_fraction: float = 0.1  # share of the kept photos that is held out, 0 <= fraction < 1; groups are never divided
    port: int = 8000  # of the page on 127.0.0.1; the next free one if it is taken; 0: any free one
    tolerate: Sequence[str] = ()  # kinds of doubt that do not leave out an undecided photo
    _decided: dict[str, str] = field(default_factory=dict, init=False)  # by sha256: `KEEP` or `DROP`

    def begin(self, root: Path, before: StageOutput, may_run: bool = True) -> str | None:
        """Ask a person, if that is the mode. See `Stage`."""
        decisions = Decisions(root / TABLE)
        photos = to_decide(before.kept)
        if may_run and self.mode == SERVE:
            self._serve(decisions, photos, root, before)
        elif may_run and self.mode == CSV:
            decisions.write(photos, before.folder.name)
        self._decided = {photo.sha256: decisions.of(photo.sha256) for photo in photos if decisions.of(photo.sha256)}
        doubtful = [photo for photo in photos if self._serious(photo)]
        undecided = sum(photo.sha256 not in self._decided for photo in doubtful)
        if undecided and self.mode == CSV and may_run:
            return (
                f"{undecided:,} of {len(doubtful):,} photos in doubt are undecided. Write keep or drop into the first "
                f"column of {decisions.path}, and give the command again; without verify={CSV} to leave out the rest."
            )
        if undecided and self.mode == AUTO:
            photos_are, are = ("1 photo is", "is") if undecided == 1 else (f"{undecided:,} photos are", "are")
            log.info("%s in doubt and undecided, and %s left out. To look at them: verify=serve (browser) "
                     "or verify=csv (table)", photos_are, are)  # fmt: skip
        return None

    def parameters(self) -> dict[str, Any]:
        """See `Stage`. Of the decisions only a digest, for there may be thousands; the manifest has each."""
        decided = json.dumps(self._decided, sort_keys=True).encode()
        counts = Counter(self._decided.values())
        decisions = {KEEP: counts[KEEP], DROP: counts[DROP], "digest": hashlib.sha256(decided).hexdigest()[:16]}
        return {"val_fraction": self.val_fraction, "tolerate": list(self.tolerate), "decisions": decisions}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        """See `Stage`."""
        records = [self._judge(record) for record in build.inputs]
        splits = iter(split([record.group or record.sha256 for record in records if record.kept], self.val_fraction))
        for record in watched(records, len(records), self.name):
            yield build.link(replace(record, split=next(splits))) if record.kept else record

    def _serious(self, record: Record) -> list[str]:
        """Select the doubts that leave out an undecided photo."""
        return [doubt for doubt in record.doubts if kind_of(doubt) not in self.tolerate]

    def _judge(self, record: Record) -> Record:
        """Keep or refuse an image."""
        decision = self._decided.get(record.sha256, UNDECIDED)
        by = "decision" if decision else "automatic"
        doubts = self._serious(record)
        record = replace(record, stage=self.name, parameters={}, operation=f"{by}: {KEEP}")
        if decision == KEEP:
            return replace(record, doubts=())  # they are settled
        if decision != DROP and not doubts:
            return record
        reason = "dropped by hand: in verify.csv" if decision == DROP else f"in doubt: {'; '.join(doubts)}"
        return replace(record, operation=f"{by}: {DROP}").refuse(reason)

    def _serve(self, decisions: Decisions, photos: Sequence[Record], root: Path, before: StageOutput) -> None:
        from catsweep.prepare.verify_page import Page, serve  # a web server, which the other modes need not wait for

        originals = StageOutput.read(root / ORIGINALS)
        files = {record.id: originals.folder / record.file for record in originals.kept} if originals else {}
        serve(Page(decisions, photos, before.folder, files, self._serious), self.port)


def _read(path: Path) -> Table:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Table()
    except OSError as error:
        raise DataError(f"Expected the decisions in {path}, but: {error.strerror}. Allow it to be read.") from error
    return _parse(data, str(path)) if data.strip() else Table()


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
                notes[key] = _merged(
                    notes.get(key, []),
                    [cell for place, cell in enumerate(cells) if place >= len(header) or header[place] not in COLUMNS],
                )
            line = lines.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}, line {lines.line_num}: expected a row of a CSV file, but: {error}. Correct it."
        ) from None
    # Added columns that are empty are left out.
    added = [name for name in header if name not in COLUMNS]
    used = max([place + 1 for cells in (added, *notes.values()) for place, cell in enumerate(cells) if cell], default=0)
    notes = {key: [*cells, *[""] * used][:used] for key, cells in notes.items()}
    return Table(rows, notes, [*added, *[""] * used][:used], delimiter)


def _header(text: str, path: str) -> tuple[str, list[str]]:
    """Find the delimiter and the names of the columns: ours in lower case, others as they are."""
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
    """Select the cells of `COLUMNS` and check decision and sha256."""
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


def _merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Join the notes of two lines about one photo."""
    pairs = zip_longest(first, second, fillvalue="")
    return [one if other in ("", one) else f"{one} {other}".strip() for one, other in pairs]


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return a value that changes when the file does."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
