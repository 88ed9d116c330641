"""Stage 6, resize: all images in one array of the size that will be trained on.

The last stage. What it makes is the array that the ready set has under another name (`catsweep.data.prepare.ready`).
Images that stage `augment` has made at this size already are taken over by a hard link, which takes no space.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data.prepare.images import Pixels, on_white
from catsweep.data.prepare.record import Record, rounded
from catsweep.data.prepare.stage import Build, Stage
from catsweep.data.ready import IMAGES, contact_sheet, create_images, pick
from catsweep.data.threads import in_order, watched

Points = NDArray[np.float64]


class Resize(Stage):
    """Shrinks images (averaging) or enlarges them (cubic); of an image that is not square, the square in the middle.

    Args:
        size: side of the images, pixels.
    """

    name: ClassVar[str] = "resize"
    folder: ClassVar[str] = "resized"
    code: ClassVar[tuple[str, ...]] = ("align.py", "ready.py", "prepare/resize.py")

    def __init__(self, size: int = 64) -> None:
        self.size = size

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return {"size": self.size}

    def run(self, build: Build) -> Iterable[Record]:
        """See `Stage`."""
        array = None
        if all(record.file == IMAGES for record in build.inputs):
            array = np.load(build.before / IMAGES, mmap_mode="r")
            places = [record.index for record in build.inputs]
            if array.shape[1] == self.size and places == list(range(len(array))):
                build.link(build.inputs[0])
                return [replace(record, stage=self.name) for record in build.inputs]
        return self._resized(build, reader(build, array))

    def sheet(self, build: Build, records: Sequence[Record]) -> Pixels | None:
        """See `Stage`."""
        images: Pixels = np.load(build.folder / IMAGES, mmap_mode="r")
        return contact_sheet(images[pick(len(images))])

    def _resized(self, build: Build, read: Callable[[Record], Pixels]) -> Iterator[Record]:
        images = np.asarray(create_images(build.folder, len(build.inputs), self.size))

        def one(place: int) -> Record:
            record = build.inputs[place]
            image, points = squared(read(record), record.points)
            side = image.shape[0]
            images[place] = alignment.resize(image, self.size)
            landmarks = None if points is None else rounded((points + 0.5) * (self.size / side) - 0.5)
            return in_array(record, images, place, self.name, "resize", {"from": side}, landmarks)

        yield from watched(in_order(one, range(len(build.inputs))), len(build.inputs), self.name)


def reader(build: Build, array: Pixels | None) -> Callable[[Record], Pixels]:
    """How to come by the image of an input: from its own file, or from an array of all."""
    return build.read if array is None else lambda record: array[record.index]


def squared(image: Pixels, points: Points | None) -> tuple[Pixels, Points | None]:
    """The square in the middle of an image (H, W, 3 or 4), without transparency, and where its landmarks are then."""
    height, width = image.shape[:2]
    side = min(height, width)
    if points is not None:
        points = points - [(width - side) // 2, (height - side) // 2]
    return alignment.centre_square(on_white(image)), points


def in_array(
    record: Record,
    images: Pixels,
    place: int,
    stage: str,
    operation: str,
    parameters: dict[str, Any],
    landmarks: tuple[tuple[float, float], ...] | None,
    identity: str | None = None,
) -> Record:
    """The record of an image that was written into an array; it has the photo's id, if no other is given."""
    if copy := record.parameters.get("copy"):
        parameters = {"copy": copy, **parameters}
    size = images.shape[1]
    digest = hashlib.sha256(images[place].data).hexdigest()
    return replace(
        record, id=identity or record.id, stage=stage, operation=operation, parameters=parameters, confidence=None,
        width=size, height=size, landmarks=landmarks, file=IMAGES, index=place, digest=digest, mark="",
    )  # fmt: skip
