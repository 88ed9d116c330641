"""Stage 1, duplicates: of copies of one photo, keep the one with the most pixels; see `image_matching`."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar

import cv2
import numpy as np

from catsweep.data.ready import contact_sheet
from catsweep.data.threads import watched
from catsweep.errors import ConfigError
from catsweep.prepare import image_matching
from catsweep.prepare.image_files import Pixels, on_white, read_image, thumbnail
from catsweep.prepare.image_matching import Hashes, Match, View, match
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import Stage, StageBuilder

EXACT, MIRRORED, CROPPED, NEAR, DOUBTFUL = (
    "exact copy", "mirrored copy", "cropped copy", "duplicate", "near-duplicate",
)  # fmt: skip
ON_SHEET = 50  # pairs
COMPARED = 6  # photos that a photo is compared with by their pixels, at most, of those that come before it
CLOSE, FAR = 32, 90  # bits of 256: photos that are closer are compared in any set, those that are farther in none
BY_CHANCE = 0.25  # pairs for each photo that are compared in vain
WHOLE, PART = 0.85, 0.4  # of a copy's area so much is in the other photo, of which it shows at least this part
GLIMPSE = 0.2  # what two photos have in common is at least this part of either, or it is not looked at
GROUP = 4, 0.02  # photos that are only alike and must not be divided: at most so many, or this share of all if more

Compare = Callable[[Record, Record, bool], Match]
Candidate = tuple[int, bool]  # place of a photo, and whether it is to be mirrored


@dataclass
class Duplicates(Stage):
    """Leaves copies out, doubts near-duplicates, and groups shots of one moment.

    The share of equal squares is at least 0.78 for copies that were resized, saved in low quality, brightened, made
    grey, captioned or cropped to 0.4 of their area, 0.37 to 0.69 for two shots of one moment, and hardly ever above
    0.45 for different cats, aligned faces included. Raises ConfigError if the shares are not in order.
    """

    name, folder = "duplicates", "no_duplicates"
    code = ("prepare/image_matching.py", "prepare/stages/duplicates.py")
    keeping: ClassVar[Mapping[str, str]] = {
        NEAR: "duplicates.threshold=1",
        MIRRORED: "duplicates.mirrored=false",
        CROPPED: "duplicates.crops=false",
    }

    # Least share of equal squares of copies. Photos are compared with kept ones only, so none is left out as the copy
    # of a copy that shows something else.
    threshold: float = 0.75
    # Least share of near-duplicates, which a person should look at. They are one group, never divided between training
    # and validation; groups are limited to 2 % of the photos, or four.
    review: float = 0.45
    mirrored: bool = True  # find mirrored copies, too
    crops: bool = True  # find copies of a part of a photo, too; more than half of the stage's time

    def __post_init__(self) -> None:
        if not 0 < self.review <= self.threshold <= 1:
            raise ConfigError(
                "Expected 0 < duplicates.review <= duplicates.threshold <= 1, shares of the picture that are the same, "
                f"got {self.review} and {self.threshold}."
            )

    def run(self, build: StageBuilder) -> Iterable[Record]:
        """See `Stage`."""

        def described(record: Record) -> tuple[Record, None]:
            image = on_white(build.read(record))
            plain, mirrored = image_matching.phash(image)
            grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
            keypoints = image_matching.sketch(grey) if self.crops else ""
            return replace(record, parameters={"hash": plain, "mirror": mirrored, "keypoints": keypoints}), None

        # They do not depend on what they are compared with, so that another threshold makes none anew.
        known = build.each(described, method={**self.method(), "parameters": {"crops": self.crops}})
        records = []
        for record, made in zip(build.inputs, known, strict=True):
            parameters = {key: made.parameters[key] for key in ("hash", "mirror", "keypoints")}  # and no comparisons
            records.append(replace(record, stage=self.name, operation="compare", parameters=parameters, mark=made.mark))
        sizes = {record.id: _size(record) for record in build.inputs}
        ranked = sorted(records, key=lambda record: (-sizes[record.id], -record.bytes, record.source))
        by_id = {record.id: record for record in self.judge(ranked, _comparison(build, self.crops))}
        for record in by_id.values():
            if record.kept:
                build.link(record)  # it may have been refused when its hash was made
        return [by_id[record.id] for record in build.inputs]

    def sheet(self, build: StageBuilder, records: Sequence[Record]) -> Pixels | None:
        """See `Stage`. Pairs of copies, the least alike first; if there are none, the photos."""
        by_id = {record.id: record for record in records}
        pairs = [record for record in records if "of" in record.parameters]
        if not pairs:
            return super().sheet(build, records)
        pairs.sort(key=lambda record: float(record.parameters["agreement"]))
        shown = [photo for record in pairs[:ON_SHEET] for photo in (record, by_id[record.parameters["of"]])]
        return contact_sheet(np.stack([thumbnail(read_image(build.before / record.file)) for record in shown]))

    def judge(self, ranked: Sequence[Record], compare: Compare) -> list[Record]:
        """Keep or refuse photos, ordered from the largest to the smallest, and set their doubts and groups.

        `compare` matches a larger photo with a smaller one, which may be mirrored.
        """
        records = list(ranked)
        once: dict[str, int] = {}
        kept: list[Candidate] = []  # of each photo, the one that is kept for it; of a copy of a copy that one's
        alike: list[tuple[float, int, int]] = []
        candidates = self._candidates(records)
        for place in watched(range(len(records)), len(records), f"{self.name}: comparing"):
            record = records[place]
            if (twin := once.setdefault(record.digest, place)) != place:
                kept.append(kept[twin])
                larger = records[kept[twin][0]]
                records[place] = _compared(record, larger, 1.0, 1.0).refuse(f"{EXACT}: of {larger.source}")
                continue
            found = [
                (compare(ranked[other], record, flipped), other, flipped)
                for other, flipped in _keepers(candidates[place], kept)
            ]
            if copies := [one for one in found if self._is_copy(one[0])]:
                fits, other, flipped = max(copies, key=_agreement)
                records[place] = _refused(record, records[other], fits, flipped)
                kept.append((other, flipped))
                continue
            near = [one for one in found if self._is_near(one[0])]
            alike += [(fits.agreement, other, place) for fits, other, _ in near]
            records[place] = replace(record, confidence=1.0)
            if near:
                fits, other, _ = max(near, key=_agreement)
                larger = records[other]
                records[place] = _compared(record, larger, fits.agreement, 1 - fits.agreement).doubt(
                    f"{DOUBTFUL}: of {larger.source}, {fits.agreement:.0%} the same"
                )
            kept.append((place, False))
        return _grouped(records, [place for place, _ in kept], alike)

    def _candidates(self, records: Sequence[Record]) -> list[list[Candidate]]:
        """List for each photo the photos before it to compare it with, the likeliest first."""
        plain, mirrored = ([record.parameters[key] for record in records] for key in ("hash", "mirror"))
        hashes = Hashes.read(plain, mirrored)
        limit = image_matching.chance_limit(hashes, BY_CHANCE, CLOSE, FAR)
        sought = hashes if self.mirrored else Hashes(hashes.plain, None)
        near = image_matching.nearest_before(image_matching.close_pairs(sought, limit), COMPARED)
        _, flipped = image_matching.compared(sought[near[1]], sought[near[0]])
        first, second, count = image_matching.shared_keypoints([record.parameters["keypoints"] for record in records])
        shared = image_matching.nearest_before([(first, second, np.iinfo(np.uint16).max - count)], COMPARED)
        found: list[list[Candidate]] = [[] for _ in records]
        for one, other, turned in zip(near[0].tolist(), near[1].tolist(), flipped.tolist(), strict=True):
            found[other].append((one, turned))
        for one, other in zip(shared[0].tolist(), shared[1].tolist(), strict=True):
            if (one, False) not in found[other]:
                found[other].append((one, False))
        return found

    def _is_copy(self, fits: Match) -> bool:
        least, most = sorted((fits.of_one, fits.of_other))
        return fits.agreement >= self.threshold and most >= WHOLE and least >= PART

    def _is_near(self, fits: Match) -> bool:
        return fits.agreement >= self.review and min(fits.of_one, fits.of_other) >= GLIMPSE


def _comparison(build: StageBuilder, crops: bool) -> Compare:
    """Return a function that compares photos of a stage and keeps the latest in memory."""
    by_id = {record.id: record for record in build.inputs}

    @lru_cache(maxsize=512)
    def view(identity: str) -> View:
        return View.of(on_white(build.read(by_id[identity])), crops)

    return lambda larger, smaller, mirrored: match(
        view(larger.id), view(smaller.id).mirrored() if mirrored else view(smaller.id)
    )


def _size(record: Record) -> int:
    """Count the pixels of a photo as it was found; stage `original` may have shrunk it."""
    return int(record.parameters.get("width", record.width)) * int(record.parameters.get("height", record.height))


def _keepers(candidates: Sequence[Candidate], kept: Sequence[Candidate]) -> list[Candidate]:
    """List what is kept in place of some photos: each once, at most `COMPARED`."""
    found = ((kept[place][0], flipped != kept[place][1]) for place, flipped in candidates)
    return list(dict.fromkeys(found))[:COMPARED]


def _agreement(found: tuple[Match, int, bool]) -> tuple[float, int]:
    """Order matches, the first photo last among equals."""
    return found[0].agreement, -found[1]


def _refused(record: Record, kept: Record, fits: Match, flipped: bool) -> Record:
    kind, details = NEAR, f"of {kept.source}, {fits.agreement:.0%} the same"
    if flipped:
        kind = MIRRORED
    elif fits.of_one < WHOLE:
        kind, details = CROPPED, f"of {kept.source}, {fits.of_one:.0%} of it"
    return _compared(record, kept, fits.agreement, fits.agreement).refuse(f"{kind}: {details}")


def _compared(record: Record, other: Record, agreement: float, confidence: float) -> Record:
    """Record the other photo, and the confidence that the two are copies, or are not."""
    parameters = {**record.parameters, "of": other.id, "agreement": round(agreement, 3)}
    return replace(record, parameters=parameters, confidence=round(confidence, 3))


def _grouped(
    records: Sequence[Record], keepers: Sequence[int], alike: Iterable[tuple[float, int, int]]
) -> list[Record]:
    """Group kept photos that are alike, the most alike first, and copies with what is kept for them.

    A group is named by the least label of its photos, which depends on neither names nor order.
    """
    least, share = GROUP
    most = max(least, int(share * len(set(keepers))))
    members = {place: [place] for place in keepers}
    for _, one, other in sorted(alike, key=lambda pair: (-pair[0], pair[1:])):
        if members[one] is not members[other] and len(members[one]) + len(members[other]) <= most:
            members[one] += members[other]
            for place in members[other]:
                members[place] = members[one]
    labels = {place: min(records[other].group for other in group) for place, group in members.items()}
    return [replace(record, group=labels[keeper]) for record, keeper in zip(records, keepers, strict=True)]
