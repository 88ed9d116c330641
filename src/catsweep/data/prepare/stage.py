"""What a stage is: its name and parameters, its complete folder, and its folder while it is being made.

`catsweep.data.prepare.pipeline` runs one stage after the other. A stage turns the records and files of the one before
it into its own, in a folder

    <id>.png …          one file per image, or images.npy
    manifest.csv        one row per image, kept or not (`record.Record`)
    contact_sheet.png   a look at up to 100 of them
    card.json           key, parameters, counts, versions

that `catsweep.data.prepare.making` makes, keeps and resumes.
"""

import csv
import hashlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np

from catsweep.data.prepare.disk import file_digest, hard_link, write_whole
from catsweep.data.prepare.images import Pixels, encode, read_image, thumbnail
from catsweep.data.prepare.record import MANIFEST, Record, read_manifest
from catsweep.data.ready import contact_sheet, pick
from catsweep.data.threads import in_order, watched

CARD, SHEET, JOURNAL = "card.json", "contact_sheet.png", "journal.jsonl"
CORE = ("prepare/stage.py", "prepare/making.py", "prepare/record.py", "prepare/images.py")  # code that all stages use
_DATA = Path(__file__).parents[1]

Work = Callable[[Record], tuple[Record, Pixels | None]]


class Stage(ABC):
    """One step from photos to a ready set.

    Attributes:
        name: on the command line, `stages=[NAME]`.
        folder: what its folder is called, after its place in the order.
        code: modules in `catsweep/data` whose text decides the outcome, besides those all stages use.
        remedy: what to do when it leaves nothing.
        keeping: by kind of reason or doubt (what stands before its colon), what to add to the command to keep such
            images. A kind that is not here cannot be kept, or is left to stage `verify`.
        active: whether it has anything to do.
    """

    name: ClassVar[str]
    folder: ClassVar[str]
    code: ClassVar[tuple[str, ...]]
    remedy: ClassVar[str] = "Loosen its parameters."
    keeping: ClassVar[Mapping[str, str]] = {}
    active: bool = True

    def begin(self, root: Path, before: "Done", may_run: bool = True) -> str | None:
        """Called before it is decided whether the stage has to run; a person may be asked here.

        Args:
            root: folder of the stages.
            before: the stage before.
            may_run: whether it is among those that the user chose. If not, nobody is asked.

        Returns:
            None to go on, or what to say before the command ends here.
        """
        return None

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """All that decides the outcome besides input and code, as JSON."""

    @abstractmethod
    def run(self, build: "Build") -> Iterable[Record]:
        """Make the stage's images in `build.folder`; a record for each input, in their order, or several for one."""

    def notes(self, records: Sequence[Record]) -> list[str]:
        """What is to be said of the whole set, in the log and in the report; a line each."""
        return []

    def sheet(self, build: "Build", records: Sequence[Record]) -> Pixels | None:
        """The contact sheet of the kept images; None if there are none."""
        kept = [record for record in records if record.kept]
        chosen = [kept[place] for place in pick(len(kept))] if kept else []
        thumbnails = [thumbnail(read_image(build.folder / record.file)) for record in chosen]
        return contact_sheet(np.stack(thumbnails)) if thumbnails else None

    def method(self) -> dict[str, Any]:
        """What the stage does, whatever it does it to: parameters and a digest of the code."""
        files = sorted(_DATA / name for name in (*self.code, *CORE))
        text = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
        return {"stage": self.name, "parameters": self.parameters(), "code": text}


@dataclass(frozen=True)
class Done:
    """A complete stage: its folder, records and card."""

    folder: Path
    records: tuple[Record, ...]
    card: dict[str, Any]

    @property
    def content(self) -> str:
        """`record.content_digest` of the records that go on."""
        return str(self.card["content"])

    @property
    def kept(self) -> tuple[Record, ...]:
        """The records that go on."""
        return tuple(record for record in self.records if record.kept)

    @classmethod
    def open(cls, folder: Path) -> "Done | None":
        """A complete stage in a folder; None if there is none, or a damaged one."""
        done = cls.read(folder)
        whole = done is not None and all((folder / file).is_file() for file in {record.file for record in done.kept})
        return done if whole else None

    @classmethod
    def read(cls, folder: Path) -> "Done | None":
        """Records and card as they were written, though files may be missing; None if there are none, or damaged."""
        with suppress(OSError, ValueError, KeyError, TypeError, csv.Error):
            card = json.loads((folder / CARD).read_text(encoding="utf-8"))
            if file_digest(folder / MANIFEST) == card["manifest"]:
                return cls(folder, tuple(read_manifest(folder / MANIFEST)), card)
        return None


@dataclass
class Build:
    """A stage's folder while it is being made.

    Attributes:
        stage: whose.
        folder: where its files go; renamed when complete.
        before: folder of the stage before, with the files of `inputs`.
        inputs: what the stage starts from.
    """

    stage: Stage
    folder: Path
    before: Path
    inputs: tuple[Record, ...]
    _known: dict[str, tuple[Path, Record]] = field(default_factory=dict)  # by mark: in which folder, and what
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _journal: TextIO | None = None

    def read(self, record: Record) -> Pixels:
        """The image of an input: uint8, (H, W, 3) RGB or (H, W, 4) with transparency."""
        return read_image(self.before / record.file)

    def each(
        self,
        work: Work,
        suffix: str = ".png",
        inputs: Sequence[Record] | None = None,
        method: Mapping[str, Any] | None = None,
    ) -> Iterator[Record]:
        """Do the same to each image, on all cores, and write what comes of it.

        Args:
            work: from a record to the next one, and its image, uint8 (H, W, 3 or 4). None instead of an image: the
                file goes on as it is. Nothing is written for a record that is not kept.
            suffix: of the files, `.png` or `.jpg`.
            inputs: instead of `self.inputs`.
            method: what decides `work`, if that is less than what decides the stage (`Stage.method`).

        Yields:
            The records, in the order of the inputs. One that is taken over from an earlier build is as the stage left
            it then: what a stage adds when it has seen all images, it has to set anew in every record.
        """
        inputs = self.inputs if inputs is None else inputs
        decides = json.dumps(self.stage.method() if method is None else method, sort_keys=True).encode()

        def one(record: Record) -> Record:
            mark = hashlib.sha256(decides + b"\n" + record.content()).hexdigest()
            if (known := self._reuse(mark)) is not None:
                return known
            return self._note(*work(record), mark, suffix)

        yield from watched(in_order(one, inputs), len(inputs), self.stage.name)

    def again(self, work: Work, records: Mapping[str, Record], suffix: str = ".png") -> Iterator[Record]:
        """Do it anew to images that `each` has made, where what is known of all of them asks for it; on all cores.

        Args:
            work: see `each`; it is given the input.
            records: that `each` has made of the inputs in question, by their id.
            suffix: see `each`.

        Yields:
            In the order of the inputs, what takes the place of these records, with the mark that they had. The next
            build may therefore be given any of the two by `each`, and has to ask the same question again.
        """
        inputs = [record for record in self.inputs if record.id in records]

        def one(record: Record) -> Record:
            return self._note(*work(record), records[record.id].mark, suffix)

        yield from watched(in_order(one, inputs), len(inputs), f"{self.stage.name}, again")

    def _note(self, made: Record, image: Pixels | None, mark: str, suffix: str) -> Record:
        """Write what was made of an image, and into the journal that it was; of two records, the later one counts."""
        made = replace(made, stage=self.stage.name, mark=mark)
        if made.kept:
            made = self.link(made) if image is None else self.write(made, image, suffix)
        with self._lock:
            assert self._journal is not None
            self._journal.write(made.to_json() + "\n")
            self._journal.flush()
        return made

    def write(self, record: Record, image: Pixels, suffix: str = ".png") -> Record:
        """Write an image under the record's id; the record with its file, digest and size."""
        data = encode(image, suffix)
        file = f"{record.id}{suffix}"
        write_whole(self.folder / file, data)
        height, width = image.shape[:2]
        digest = hashlib.sha256(data).hexdigest()
        return replace(record, stage=self.stage.name, file=file, index=None, digest=digest, width=width, height=height)

    def link(self, record: Record) -> Record:
        """Let an input's file be a file of this stage as well; takes no space."""
        hard_link(self.before / record.file, self.folder / record.file)
        return replace(record, stage=self.stage.name)

    def _reuse(self, mark: str) -> Record | None:
        if (known := self._known.get(mark)) is None:
            return None
        folder, record = known
        if record.kept:
            with suppress(OSError):
                if file_digest(folder / record.file) == record.digest:  # else it was damaged since
                    hard_link(folder / record.file, self.folder / record.file)
                    return record
            return None
        return record
