"""Stage interface: `Stage`, the base class; `StageBuilder`, an unfinished folder; `StageOutput`, a complete one.

A stage turns the records and files of the stage before it into its own, in a folder that
`catsweep.prepare.stage_cache` creates, keeps and resumes:

    <id>.png …          one file per image, or images.npy
    manifest.csv        one row per image, kept or not (`manifest.Record`)
    contact_sheet.png   up to 100 of them
    card.json           key, parameters, counts, versions
"""

import csv
import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np

from catsweep.data.files import recorded_digest
from catsweep.data.ready import contact_sheet, pick
from catsweep.data.threads import in_order, watched
from catsweep.prepare.image_files import Pixels, encode, hard_link, read_image, thumbnail
from catsweep.prepare.manifest import MANIFEST, Record, read_manifest
from catsweep.records import file_digest
from steady.atomic import replacing

CARD, SHEET, JOURNAL = "card.json", "contact_sheet.png", "journal.jsonl"
# Code that all stages use.
CORE = ("prepare/stage.py", "prepare/stage_cache.py", "prepare/manifest.py", "prepare/image_files.py")

Work = Callable[[Record], tuple[Record, Pixels | None]]


class Stage(ABC):
    """Base class of one step from photos to a ready set."""

    name: ClassVar[str]  # on the command line, `stages=[NAME]`
    folder: ClassVar[str]  # name of its folder, after its place in the order
    code: ClassVar[tuple[str, ...]]  # files in `catsweep` whose text decides the outcome, besides `CORE`
    remedy: ClassVar[str] = "Loosen its parameters."  # advice if it leaves no image
    # By kind of reason or doubt (the text before its colon), what to add to the command to keep such images. Other
    # kinds cannot be kept, or are left to stage `verify`.
    keeping: ClassVar[Mapping[str, str]] = {}
    active: bool = True  # whether it has anything to do

    def begin(self, root: Path, before: "StageOutput", may_run: bool = True) -> str | None:
        """Prepare to run, for example by asking a person; called before it is decided whether the stage has to run.

        Args:
            root: folder of the stages.
            before: the stage before.
            may_run: whether it is among those that the user chose. If not, nobody is asked.

        Returns:
            None to go on, or a message with which the command ends here.
        """
        return None

    def parameters(self) -> dict[str, Any]:
        """Return all that decides the outcome besides input and code, as JSON: what a dataclass is made with."""
        # A stage that is no dataclass has to say it itself: of others, `fields` raises TypeError.
        return {one.name: getattr(self, one.name) for one in fields(self) if one.init}  # type: ignore[arg-type]

    @abstractmethod
    def run(self, build: "StageBuilder") -> Iterable[Record]:
        """Make the images in `build.folder`; yield one or several records for each input, in their order."""

    def notes(self, records: Sequence[Record]) -> list[str]:
        """Return remarks about the whole set, for the log and the report; a line each."""
        return []

    def sheet(self, build: "StageBuilder", records: Sequence[Record]) -> Pixels | None:
        """Draw the contact sheet of the kept images; None if there are none."""
        kept = [record for record in records if record.kept]
        if not kept:
            return None
        return contact_sheet(
            np.stack([thumbnail(read_image(build.folder / kept[place].file)) for place in pick(len(kept))])
        )

    def method(self) -> dict[str, Any]:
        """Return what decides the outcome besides the input: name, parameters and a digest of the code."""
        return {"stage": self.name, "parameters": self.parameters(), "code": recorded_digest(*self.code, *CORE)}


@dataclass(frozen=True)
class StageOutput:
    """Complete stage: its folder, records and card."""

    folder: Path
    records: tuple[Record, ...]
    card: dict[str, Any]

    @property
    def content(self) -> str:
        """`manifest.content_digest` of the kept records."""
        return str(self.card["content"])

    @property
    def kept(self) -> tuple[Record, ...]:
        """Records that go on to the next stage."""
        return tuple(record for record in self.records if record.kept)

    @classmethod
    def open(cls, folder: Path) -> "StageOutput | None":
        """Open a complete stage; None if there is none, or a damaged one."""
        output = cls.read(folder)
        if output is None or not all((folder / file).is_file() for file in {record.file for record in output.kept}):
            return None
        return output

    @classmethod
    def read(cls, folder: Path) -> "StageOutput | None":
        """Read records and card, though image files may be missing; None if there are none, or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            if file_digest(folder / MANIFEST) == card["manifest"]:
                return cls(folder, tuple(read_manifest(folder / MANIFEST)), card)
        return None


@dataclass
class StageBuilder:
    """Unfinished stage: its folder, its inputs, and the images that earlier builds have finished."""

    stage: Stage
    folder: Path  # of its files; renamed when complete
    before: Path  # folder of the stage before, with the files of `inputs`
    inputs: tuple[Record, ...]
    _known: dict[str, tuple[Path, Record]] = field(default_factory=dict)  # by mark: folder and record
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _journal: TextIO | None = None

    def read(self, record: Record) -> Pixels:
        """Read the image of an input: uint8, (H, W, 3) RGB or (H, W, 4) with transparency."""
        return read_image(self.before / record.file)

    def each(self, work: Work, suffix: str = ".png", method: Mapping[str, Any] | None = None) -> Iterator[Record]:
        """Apply a function to each input, on all cores, and write the results; yield the records in the same order.

        A record that is taken over from an earlier build is as the stage left it then: what a stage adds after it has
        seen all images has to be set anew in every record.

        Args:
            work: maps a record to the next one and its image, uint8 (H, W, 3 or 4). None instead of an image: the
                file goes on as it is. Nothing is written for a record that is not kept.
            suffix: of the files, `.png` or `.jpg`.
            method: what decides `work`, if that is less than `Stage.method`.
        """
        decides = json.dumps(self.stage.method() if method is None else method, sort_keys=True).encode()

        def one(record: Record) -> Record:
            mark = hashlib.sha256(decides + b"\n" + record.content()).hexdigest()
            return self._reuse(mark) or self._save(*work(record), mark, suffix)

        yield from watched(in_order(one, self.inputs), len(self.inputs), self.stage.name)

    def again(self, work: Work, records: Mapping[str, Record], suffix: str = ".png") -> Iterator[Record]:
        """Replace images that `each` has made, given by id, where knowledge of all of them asks for it; on all cores.

        Yields the replacing records in the order of the inputs, with the marks of the replaced ones. The next build may
        therefore be given either of the two by `each`, and has to decide anew.
        """
        inputs = [record for record in self.inputs if record.id in records]

        def one(record: Record) -> Record:
            return self._save(*work(record), records[record.id].mark, suffix)

        yield from watched(in_order(one, inputs), len(inputs), f"{self.stage.name}, again")

    def write(self, record: Record, image: Pixels, suffix: str = ".png") -> Record:
        """Write an image under the record's id; return the record with its file, digest and size."""
        data = encode(image, suffix)
        file = f"{record.id}{suffix}"
        with replacing(self.folder / file) as unfinished:
            unfinished.write_bytes(data)
        height, width = image.shape[:2]
        digest = hashlib.sha256(data).hexdigest()
        return replace(record, stage=self.stage.name, file=file, index=None, digest=digest, width=width, height=height)

    def link(self, record: Record) -> Record:
        """Link the file of an input into this stage; takes no space."""
        hard_link(self.before / record.file, self.folder / record.file)
        return replace(record, stage=self.stage.name)

    def _save(self, made: Record, image: Pixels | None, mark: str, suffix: str) -> Record:
        """Write an image and its record in the journal, where the later of two records with one mark counts."""
        made = replace(made, stage=self.stage.name, mark=mark)
        if made.kept:
            made = self.link(made) if image is None else self.write(made, image, suffix)
        with self._lock:
            assert self._journal is not None
            self._journal.write(made.to_json() + "\n")
            self._journal.flush()
        return made

    def _reuse(self, mark: str) -> Record | None:
        folder, record = self._known.get(mark, (None, None))
        if folder is None or record is None or not record.kept:
            return record
        with suppress(OSError):
            if file_digest(folder / record.file) == record.digest:  # else it was damaged since
                hard_link(folder / record.file, self.folder / record.file)
                return record
        return None
