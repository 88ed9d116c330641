"""The end of a preparation: the last stage's array becomes a ready set, with an account of every photo found.

`python src/train.py data=ready data.source=data/ready/NAME-64` trains on it. The array is a hard link to the stage's,
so a set of gigabytes is there at once and takes no further space.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from catsweep.data.prepare.disk import hard_link
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import Done
from catsweep.data.ready import IMAGES, ReadySet, Row, describe, open_or_fill, points_text

FORMAT = 2  # raise when the files of a set would be written otherwise


def publish(done: Sequence[Done], folder: Path, name: str) -> ReadySet:
    """Make the ready set of a preparation, or find that it is made.

    Args:
        done: all stages, in their order; the first knows every photo found, the last has all images in one array.
        folder: of the set; replaced as a whole.
        name: of the photos.

    Raises:
        OSError: it cannot be written.
    """
    stages = [{key: stage.card[key] for key in ("stage", "key", "parameters", "code")} for stage in done]
    content = json.dumps([FORMAT, name, stages], sort_keys=True)
    key = hashlib.sha256(content.encode()).hexdigest()
    size = done[-1].kept[0].width
    card: dict[str, Any] = {"name": name, "size": size, "key": key, "parameters": {"stages": stages}}

    def fill(new: Path) -> None:
        hard_link(done[-1].folder / IMAGES, new / IMAGES)
        describe(new, list(rows(done)), card)

    return open_or_fill(folder, key, fill)


def rows(done: Sequence[Done]) -> Iterator[Row]:
    """Of each photo found, in their order, what became of it: images, or the reason why not."""
    became: dict[str, list[Record]] = defaultdict(list)
    for stage in done[:-1]:
        for record in stage.records:
            if not record.kept:
                became[record.source].append(record)
    for record in done[-1].records:
        became[record.source].append(record)
    for photo in done[0].records:
        # Of the photo, for what stage `original` has saved of it may be smaller.
        width, height = (int(photo.parameters.get(side, getattr(photo, side))) for side in ("width", "height"))
        for record in became[photo.source]:
            yield _row(record, width, height, "; ".join(photo.parameters.get("notes", ())))


def _row(record: Record, width: int, height: int, notes: str) -> Row:
    points = record.landmarks if record.kept else None
    return Row(
        index=record.index if record.kept else None,
        source=record.source,
        sha256=record.sha256,
        group=record.group,
        split=record.split if record.kept else "",
        kept=record.kept,
        reason=record.reason,
        width=width,
        height=height,
        landmarks="" if points is None else points_text(points),
        stage=record.stage,
        copy=int(record.parameters.get("copy", 0)),
        notes=notes,
    )
