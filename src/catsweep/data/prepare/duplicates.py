"""Stage 1, duplicates: of photos that were taken once and saved several times, the largest file goes on.

Comes after `original`, whose files it links. Copies are found in two ways: equal pixels (equal files have them, too),
and perceptual hashes that differ in few bits (`catsweep.data.prepare.perceptual`), also with one photo mirrored.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from catsweep.data.contact_sheet import contact_sheet
from catsweep.data.prepare import perceptual
from catsweep.data.prepare.images import Pixels, on_white, read_image, thumbnail
from catsweep.data.prepare.perceptual import UNRELATED, Hashes, Places
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import Build, Stage
from catsweep.errors import ConfigError

EXACT, MIRRORED, NEAR, DOUBTFUL = "exact copy", "mirrored copy", "duplicate", "near-duplicate"
ON_SHEET = 50  # pairs


class Duplicates(Stage):
    """Leaves copies out, marks what might be one, and puts photos of one scene into one group.

    Distances are bits of 256. Of 1,706 photos, the copies among them are at 0 to 50, shots of one cat in one moment at
    78 to 90, and cats that have nothing to do with each other from 82 on. Copies made of 1,000 of them are at 8 at most
    if they are half as large, at 10 if saved in low quality, at 34 if brightened, and at 46 if 3 % were cropped evenly;
    of those cropped on one side only, 3 % are beyond 64, and none beyond 82.

    Args:
        threshold: photos at most so far from each other are copies, and so are copies of copies.
        review: photos that are farther, but at most so far from a larger one, are for a person to look at. They are of
            one group, which is never divided between training and validation: if they are not copies, they are shots of
            the same moment, or else nothing is lost by it. The share of the latter grows with the number of photos.
        mirrored: take a photo and the mirror image of another for copies, too.

    Raises:
        ConfigError: the distances are not in order.
    """

    name: ClassVar[str] = "duplicates"
    folder: ClassVar[str] = "no_duplicates"
    code: ClassVar[tuple[str, ...]] = ("prepare/duplicates.py", "prepare/perceptual.py")
    keeping: ClassVar[Mapping[str, str]] = {
        NEAR: "duplicates.threshold=0",
        MIRRORED: "duplicates.mirrored=false",
    }

    def __init__(self, threshold: int = 64, review: int = 90, mirrored: bool = True) -> None:
        if not 0 <= threshold <= review < UNRELATED:
            raise ConfigError(
                f"Expected 0 <= duplicates.threshold <= duplicates.review < {UNRELATED} (there photos are unrelated), "
                f"got {threshold} and {review}."
            )
        self.threshold, self.review, self.mirrored = threshold, review, mirrored

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return {"threshold": self.threshold, "review": self.review, "mirrored": self.mirrored}

    def run(self, build: Build) -> Iterable[Record]:
        """See `Stage`."""

        def hashed(record: Record) -> tuple[Record, None]:
            plain, mirrored = perceptual.phash(on_white(build.read(record)))
            return replace(record, parameters={"hash": plain, "mirror": mirrored}), None

        # A hash does not depend on what it is compared with, so that another threshold makes none anew.
        known = build.each(hashed, method={**self.method(), "parameters": {}})
        records = [_fresh(record, made) for record, made in zip(build.inputs, known, strict=True)]
        told = self.judge(sorted(records, key=_rank))
        for record in told:
            if record.kept:
                build.link(record)  # it may have been refused when its hash was made
        by_id = {record.id: record for record in told}
        return [by_id[record.id] for record in build.inputs]

    def sheet(self, build: Build, records: Sequence[Record]) -> Pixels | None:
        """Photos beside what they are copies of, the least alike first; if there are no copies, the photos."""
        by_id = {record.id: record for record in records}
        pairs = [record for record in records if "of" in record.parameters]
        if not pairs:
            return super().sheet(build, records)
        pairs.sort(key=lambda record: -int(record.parameters["distance"]))
        shown = [photo for record in pairs[:ON_SHEET] for photo in (record, by_id[record.parameters["of"]])]
        return contact_sheet(np.stack([thumbnail(read_image(build.before / record.file)) for record in shown]))

    def judge(self, ranked: Sequence[Record]) -> list[Record]:
        """Tell copies from originals.

        Args:
            ranked: photos with their hashes in `parameters`, from the largest file to the smallest.

        Returns:
            The same photos in the same order: kept or refused, with doubts and groups.
        """
        records = list(ranked)
        once: dict[str, int] = {}
        for place, record in enumerate(records):
            once.setdefault(record.digest, place)
        unique = np.array(list(once.values()), dtype=np.intp)
        hashes = self._hashes(records)
        # The largest file comes first, so it is the one by which `components` calls its copies.
        kept_of = unique[perceptual.components(len(unique), perceptual.close_pairs(hashes[unique], self.threshold))]
        keeper = dict(zip(once, kept_of, strict=True))
        keepers = np.array([keeper[record.digest] for record in records], dtype=np.intp)
        distance, flipped = perceptual.compared(hashes, hashes[keepers])
        for place, record in enumerate(records):
            if (kept := int(keepers[place])) != place:
                records[place] = self._refused(record, records[kept], int(distance[place]), bool(flipped[place]))
        self._compare(records, hashes, np.unique(keepers))
        return [replace(record, group=records[kept].group) for record, kept in zip(records, keepers, strict=True)]

    def _compare(self, records: list[Record], hashes: Hashes, kept: Places) -> None:
        """Doubts and groups of the photos that go on, in place."""
        shots = hashes[kept].unmirrored  # a cat holds still for a second photo, but does not change sides for it
        first = perceptual.components(len(kept), perceptual.close_pairs(shots, self.review))
        nearest, distance = perceptual.nearest_before(len(kept), perceptual.close_pairs(shots, self.review))
        groups = _groups([records[place].group for place in kept], first)
        for row, place in enumerate(kept):
            record = replace(records[place], group=groups[row], confidence=1.0)
            if nearest[row] >= 0:
                record = self._doubted(record, records[kept[nearest[row]]], int(distance[row]))
            records[place] = record

    def _hashes(self, records: Sequence[Record]) -> Hashes:
        plain, mirrored = ([record.parameters[key] for record in records] for key in ("hash", "mirror"))
        return Hashes.read(plain, mirrored if self.mirrored else None)

    def _refused(self, record: Record, kept: Record, distance: int, flipped: bool) -> Record:
        kind, details = (MIRRORED if flipped else NEAR), f"of {kept.source}, distance {distance}"
        if record.digest == kept.digest:
            kind, details = EXACT, f"of {kept.source}"
        elif distance > self.threshold:
            details += ", by way of copies between the two"
        record = _beside(record, kept, distance, max(0.0, 1 - distance / UNRELATED))
        return record.refuse(f"{kind}: {details}")

    def _doubted(self, record: Record, larger: Record, distance: int) -> Record:
        record = _beside(record, larger, distance, distance / UNRELATED)
        return record.doubt(f"{DOUBTFUL}: of {larger.source}, distance {distance}")


def _rank(record: Record) -> tuple[int, int, str]:
    """Sorts photos from the largest file to the smallest."""
    return -record.bytes, -record.width * record.height, record.source


def _fresh(record: Record, made: Record) -> Record:
    """An input with its hashes, and nothing that an earlier build has found out about it."""
    hashes = {key: made.parameters[key] for key in ("hash", "mirror")}
    return replace(record, stage=made.stage, operation="compare", parameters=hashes, mark=made.mark)


def _beside(record: Record, other: Record, distance: int, confidence: float) -> Record:
    """With the photo it was compared with, and how sure it is that the two are copies, or that they are not."""
    parameters = {**record.parameters, "of": other.id, "distance": distance}
    return replace(record, parameters=parameters, confidence=round(confidence, 3))


def _groups(own: Sequence[str], first: Places) -> list[str]:
    """One label for each set of photos: the least of theirs, which depends on neither names nor order."""
    labels: dict[int, str] = {}
    for label, place in zip(own, first.tolist(), strict=True):
        labels[place] = min(label, labels.get(place, label))
    return [labels[place] for place in first.tolist()]
