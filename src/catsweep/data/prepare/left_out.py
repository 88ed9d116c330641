"""What a preparation has left out, why, and what keeps it: for the end of the log and the beginning of the report.

`catsweep.data.prepare.pipeline` counts when all stages are done, so that nobody trains on a tenth of their photos
without having been told.
"""

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import Done

DOUBT = "in doubt"  # the reason of stage `verify`
FEW = 1 / 2  # with less than this share of the photos used, the log ends with what was left out
MUCH = 1 / 4  # with more than this share left out, the report begins with it
NO_PHOTOS = ("not an image", "not a regular file")  # texts, links and pipes that are called like photos


@dataclass(frozen=True)
class Loss:
    """Photos that were left out for the same reason.

    Attributes:
        stage: that left them out.
        kind: of the reason, or of the doubt.
        count: of photos; of those in doubt some are counted for several doubts.
        keeping: what to add to the command to keep them; empty if nothing does.
    """

    stage: str
    kind: str
    count: int
    keeping: str


@dataclass(frozen=True)
class LeftOut:
    """What became of all photos.

    Attributes:
        found: how many there were; what turned out to be no photo at all is not among them.
        used: how many of them are in the last stage.
        losses: the largest first.
    """

    found: int
    used: int
    losses: tuple[Loss, ...]

    @property
    def few(self) -> bool:
        """Whether so few are left that it has to be said at the end."""
        return self.used < FEW * self.found

    @property
    def many(self) -> bool:
        """Whether so many are left out that the report begins with it."""
        return self.found - self.used > MUCH * self.found

    @property
    def share(self) -> str:
        """Of the photos that are used: "0.4 %"."""
        return f"{self.used / max(1, self.found):.1%}".replace("%", " %")


def count(done: Sequence[Done]) -> LeftOut:
    """Count what stages have left out.

    Args:
        done: the stages, in their order.
    """
    keeping: dict[str, str] = {}
    for stage in done:
        keeping |= stage.card.get("keeping", {})
    counts = Counter((record.stage, kind) for stage in done for record in stage.records for kind in kinds(record))
    losses = [Loss(stage, kind, number, _keeping(stage, kind, keeping)) for (stage, kind), number in counts.items()]
    losses.sort(key=lambda loss: (-loss.count, loss.kind, loss.stage))
    found = sum(not set(NO_PHOTOS) & set(kinds(record)) for record in done[0].records)
    return LeftOut(found, len({record.source for record in done[-1].kept}), tuple(losses))


def kinds(record: Record) -> list[str]:
    """Why an image was left out, without the details; several, if it was for its doubts. None if it was not."""
    if record.kept:
        return []
    kind = record.reason.split(":", 1)[0]
    if kind != DOUBT:
        return [kind]
    doubts = (doubt for doubt in record.doubts if doubt in record.reason)  # the others are tolerated
    return list(dict.fromkeys(doubt.split(":", 1)[0] for doubt in doubts)) or [kind]


def lines(left: LeftOut) -> list[str]:
    """The end of the log, if few photos are left."""
    losses = [loss for loss in left.losses if loss.kind not in NO_PHOTOS]
    width = max((len(f"{loss.count:,}") for loss in losses), default=0)
    name = max((len(f"{loss.stage}: {loss.kind}") for loss in losses), default=0)
    table = [
        f"  {loss.count:>{width},}  {f'{loss.stage}: {loss.kind}':<{name}}  {loss.keeping or 'nothing'}"
        for loss in losses
    ]
    verb = "IS" if left.used == 1 else "ARE"
    return [
        f"ONLY {left.used:,} OF {left.found:,} PHOTOS ({left.share}) {verb} LEFT. "
        "Why the rest went, and what keeps it:",
        *table,
        "A photo in doubt may have several doubts. To look at them: verify=serve.",
    ]


def _keeping(stage: str, kind: str, keeping: Mapping[str, str]) -> str:
    """Of a kind that no stage has a word for, it is nothing; but of a doubt, that it is tolerated."""
    if (word := keeping.get(kind)) is not None:
        return word
    return shlex.quote(f"verification.tolerate=[near-duplicate,{kind}]") if stage == "verify" else ""
