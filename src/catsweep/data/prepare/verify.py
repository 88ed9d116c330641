"""Stage 4, verify: a person has the last word on what is kept, and the photos are divided into splits.

What earlier stages are unsure of (`Record.doubts`) comes here. A person decides in the browser (`verify_page`), in a
table (`decisions`), or not at all. From here on it is known which photos are trained on and which are held out, so
that `augment` makes copies of the former only.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from catsweep.data.prepare.decisions import DROP, KEEP, TABLE, UNDECIDED, Decisions, to_decide
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import Build, Done, Stage
from catsweep.data.ready import split
from catsweep.data.threads import watched

log = logging.getLogger(__name__)

AUTO, SERVE, CSV = "auto", "serve", "csv"
ORIGINALS = "0.original"


class Verify(Stage):
    """Keeps what was decided to be kept, and of the undecided what nobody doubts. Files go on as they are.

    Args:
        mode: `auto`: nobody is asked; `serve`: in the browser, until the person says that they are done; `csv`: in
            verify.csv, the command ends until all that is in doubt is decided. Decisions count in every mode.
        val_fraction: share of the kept photos that are held out, 0 <= fraction < 1; copies of one are never divided.
        port: of the page on 127.0.0.1; the next free one if it is taken; 0: any that is free.
        tolerate: kinds of doubt (what stands before the colon) that do not suffice to leave out a photo that nobody
            decided about.
    """

    name: ClassVar[str] = "verify"
    folder: ClassVar[str] = "verified"
    code: ClassVar[tuple[str, ...]] = ("ready.py", "prepare/verify.py")
    remedy: ClassVar[str] = (
        "Look at them: verify=serve (browser) or verify=csv (table). zoom.whole=always keeps what has no clear face."
    )
    keeping: ClassVar[Mapping[str, str]] = {"dropped by hand": "verify=serve"}

    def __init__(
        self, mode: str = AUTO, val_fraction: float = 0.1, port: int = 8000, tolerate: Sequence[str] = ()
    ) -> None:
        self.mode, self.val_fraction, self.port, self.tolerate = mode, val_fraction, port, tuple(tolerate)
        self._decided: dict[str, str] = {}

    def begin(self, root: Path, before: Done, may_run: bool = True) -> str | None:
        """Let a person decide, if that is the mode. See `Stage`."""
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
        """See `Stage`. Of the decisions a digest, for there may be thousands; the manifest has each."""
        decided = json.dumps(self._decided, sort_keys=True).encode()
        counts = Counter(self._decided.values())
        decisions = {KEEP: counts[KEEP], DROP: counts[DROP], "digest": hashlib.sha256(decided).hexdigest()[:16]}
        return {"val_fraction": self.val_fraction, "tolerate": list(self.tolerate), "decisions": decisions}

    def run(self, build: Build) -> Iterable[Record]:
        """See `Stage`."""
        records = [judge(record, self._decided, self._serious(record)) for record in build.inputs]
        splits = iter(split([_group(record) for record in records if record.kept], self.val_fraction))
        for record in watched(records, len(records), self.name):
            yield build.link(replace(record, split=next(splits))) if record.kept else record

    def _serious(self, record: Record) -> list[str]:
        """The doubts that leave out a photo about which nobody has decided."""
        return [doubt for doubt in record.doubts if doubt.split(":", 1)[0] not in self.tolerate]

    def _serve(self, decisions: Decisions, photos: Sequence[Record], root: Path, before: Done) -> None:
        # A web server, which the other modes need not wait for.
        from catsweep.data.prepare.verify_page import Page, serve

        originals = Done.read(root / ORIGINALS)
        files = {record.id: originals.folder / record.file for record in originals.kept} if originals else {}
        serve(Page(decisions, photos, before.folder, files), self.port)


def judge(record: Record, decided: Mapping[str, str], doubts: Sequence[str]) -> Record:
    """Keep or refuse an image.

    Args:
        record: of the stage before.
        decided: `KEEP` or `DROP` by sha256 of the source photo.
        doubts: those that leave it out if nobody has decided.
    """
    decision = decided.get(record.sha256, UNDECIDED)
    by = "decision" if decision else "automatic"
    record = replace(record, stage=Verify.name, parameters={}, operation=f"{by}: {KEEP}")
    if decision == KEEP:
        return replace(record, doubts=())  # they are settled
    if decision == DROP:
        return replace(record, operation=f"{by}: {DROP}").refuse("dropped by hand: in verify.csv")
    if doubts:
        return replace(record, operation=f"{by}: {DROP}").refuse(f"in doubt: {'; '.join(doubts)}")
    return record


def _group(record: Record) -> str:
    return record.group or record.sha256
