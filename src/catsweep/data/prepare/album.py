"""The pictures of the report: found in the folders of the stages, shrunk, and written into the page itself.

A report shows some images of each kind, spread evenly over all there are; `catsweep.data.prepare.report` says which.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import simplejpeg

from catsweep.data.prepare.images import Pixels, on_white, read_image
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import Done
from catsweep.data.ready import pick
from steady.printing import readable_name

SHOWN = 12  # pictures of one kind
KINDS = 12  # kinds of one stage; the rarer ones are put together
SIDE = 160  # of a picture, pixels

Item = TypeVar("Item")


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        uri: `data:` with the image; empty if there is none.
        beside: the same, of the photo it was compared with; empty if there is none.
        source: of the photo, readable.
        note: about it.
        out: whether it is left out of the ready set.
    """

    uri: str
    beside: str
    source: str
    note: str
    out: bool


@dataclass(frozen=True)
class Group:
    """Images of which the same is said: how many, and some of them."""

    kind: str
    count: int
    pictures: tuple[Picture, ...]


class Album:
    """The images of all stages.

    Args:
        done: the stages, in their order.
    """

    def __init__(self, done: Sequence[Done]) -> None:
        self.done = done
        self._kept = [{record.id: record for record in stage.kept} for stage in done]

    def image(self, place: int, identity: str) -> Pixels | None:
        """The image that a stage has kept, uint8 (H, W, 3 or 4).

        Args:
            place: of the stage; before the first there is no image.
            identity: `Record.id`.
        """
        record = self._kept[place].get(identity) if place >= 0 else None
        if record is None:
            return None
        path = self.done[place].folder / record.file
        return read_image(path) if record.index is None else np.load(path, mmap_mode="r")[record.index]

    def picture(self, place: int, record: Record, said: str, out: bool) -> Picture:
        """A record's image, as the stage has kept it or, if it did not, as it came to it.

        Args:
            place: of the stage.
            record: of that stage.
            said: of it, "kind: details".
            out: see `Picture`.
        """
        image = self.image(place if record.kept else place - 1, record.id)
        other = self.image(place - 1, str(record.parameters.get("of", "")))  # see stage `duplicates`
        note = readable_name(said.partition(": ")[2])
        return Picture(data_uri(image), data_uri(other), readable_name(record.source), note, out)


def grouped(items: Sequence[tuple[str, Item]], show: Callable[[Item, str], Picture]) -> tuple[Group, ...]:
    """Put things of the same kind together, the most frequent kind first.

    Args:
        items: what is said of each, "kind: details", and the thing.
        show: makes a picture of a thing and what is said of it; asked for `SHOWN` of a kind.
    """
    kinds: dict[str, list[tuple[str, Item]]] = {}
    for said, item in items:
        kinds.setdefault(said.split(":", 1)[0], []).append((said, item))
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
    """An image in a word, as HTML and CSS take it: a JPEG of at most `side` pixels a side. Empty for None."""
    if image is None:
        return ""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor < 1:
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(on_white(image)), quality=quality, colorsubsampling="420")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
