"""Images of the report: read from the stages' folders, shrunk, and embedded as data URIs."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import simplejpeg

from catsweep.data.ready import pick
from catsweep.prepare.image_files import Pixels, on_white, read_image, shrunk
from catsweep.prepare.manifest import Record, kind_of
from catsweep.prepare.stage import StageOutput
from steady.printing import readable_name

SHOWN = 12  # pictures of one kind
KINDS = 12  # kinds of one stage; the rarer ones are put together
SIDE = 160  # of a picture, pixels

Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """Image in the page."""

    uri: str  # `data:` URI; empty if there is no image
    beside: str  # likewise, of the photo it was compared with
    source: str  # path of the photo, readable
    note: str  # about the image
    out: bool  # whether it is left out of the ready set


@dataclass(frozen=True)
class Group:
    """Images with the same kind of remark: their number, and some of them."""

    kind: str
    count: int
    pictures: tuple[Picture, ...]


class StageImages:
    """Reader of the images of all stages, in their order."""

    def __init__(self, outputs: Sequence[StageOutput]) -> None:
        self.outputs = outputs
        self._kept = [{record.id: record for record in stage.kept} for stage in outputs]

    def image(self, place: int, identity: str) -> Pixels | None:
        """Read the image, uint8 (H, W, 3 or 4), that stage number `place` has kept; None if there is none."""
        record = self._kept[place].get(identity) if place >= 0 else None
        if record is None:
            return None
        path = self.outputs[place].folder / record.file
        return read_image(path) if record.index is None else np.load(path, mmap_mode="r")[record.index]

    def picture(self, place: int, record: Record, said: str, out: bool) -> Picture:
        """Make the picture of a record of stage number `place`: its image or, if it was refused, the one before.

        `said` is a remark, "kind: details"; for `out` see `Picture`.
        """
        image = self.image(place if record.kept else place - 1, record.id)
        other = self.image(place - 1, str(record.parameters.get("of", "")))  # see stage `duplicates`
        note = readable_name(said.partition(": ")[2])
        return Picture(data_uri(image), data_uri(other), readable_name(record.source), note, out)


def grouped(items: Sequence[tuple[str, Item]], show: Callable[[Item, str], Picture]) -> tuple[Group, ...]:
    """Group pairs of a remark, "kind: details", and an item by kind, the most frequent first; show `SHOWN` of each."""
    kinds: dict[str, list[tuple[str, Item]]] = {}
    for said, item in items:
        kinds.setdefault(kind_of(said), []).append((said, item))
    order = sorted(kinds.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    if len(order) > KINDS:
        rare = [one for _, group in order[KINDS - 1 :] for one in group]
        order = [*order[: KINDS - 1], (f"{len(order) - KINDS + 1:,} other kinds", rare)]
    groups = []
    for kind, group in order:
        chosen = [group[place] for place in pick(len(group), SHOWN)]
        groups.append(Group(readable_name(kind), len(group), tuple(show(item, said) for said, item in chosen)))
    return tuple(groups)


def data_uri(image: Pixels | None, side: int = SIDE, quality: int = 80) -> str:
    """Encode an image as data URI: a JPEG of at most `side` pixels a side. Empty for None."""
    if image is None:
        return ""
    small = np.ascontiguousarray(on_white(shrunk(image, side)))
    jpeg = simplejpeg.encode_jpeg(small, quality=quality, colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
