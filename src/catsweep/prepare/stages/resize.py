"""Stage 6, resize: write all images into one array of the size that will be trained on, which the ready set links.

Images that stage `augment` has made at this size are taken over by a hard link, which takes no space.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from catsweep.data import align as alignment
from catsweep.data.ready import IMAGES, contact_sheet, create_images, pick
from catsweep.data.threads import in_order, watched
from catsweep.prepare.image_files import Pixels, Points, on_white
from catsweep.prepare.manifest import Record, rounded
from catsweep.prepare.stage import Stage, StageBuilder


@dataclass
class Resize(Stage):
    """Resizes the centre squares of images, by averaging or, to enlarge them, cubic interpolation."""

    name, folder = "resize", "resized"
    code = ("data/align.py", "data/ready.py", "prepare/stages/resize.py")

    size: int = 64  # side of the images, pixels

    def run(self, build: StageBuilder) -> Iterator[Record]:
        """See `Stage`."""
        inputs, array = build.inputs, None
        if all(record.file == IMAGES for record in inputs):
            array = np.load(build.before / IMAGES, mmap_mode="r")
            if array.shape[1] == self.size and [record.index for record in inputs] == list(range(len(array))):
                build.link(inputs[0])
                yield from (replace(record, stage=self.name) for record in inputs)
                return
        images = np.asarray(create_images(build.folder, len(inputs), self.size))

        def resized(place: int) -> Record:
            record = inputs[place]
            image = build.read(record) if array is None else array[record.index]
            return write_resized(record, *squared(image, record.points), images, place, self.name)

        yield from watched(in_order(resized, range(len(inputs))), len(inputs), self.name)

    def sheet(self, build: StageBuilder, records: Sequence[Record]) -> Pixels | None:
        """See `Stage`."""
        images: Pixels = np.load(build.folder / IMAGES, mmap_mode="r")
        return contact_sheet(images[pick(len(images))])


def squared(image: Pixels, points: Points | None) -> tuple[Pixels, Points | None]:
    """Crop an image (H, W, 3 or 4) and its landmarks to the centre square, without transparency."""
    height, width = image.shape[:2]
    side = min(height, width)
    if points is not None:
        points = points - [(width - side) // 2, (height - side) // 2]
    return alignment.centre_square(on_white(image)), points


def write_resized(
    record: Record, image: Pixels, points: Points | None, images: Pixels, place: int, stage: str
) -> Record:
    """Write a square image, resized, into an array (n, size, size, 3); return its record."""
    side, size = image.shape[0], images.shape[1]
    images[place] = alignment.resize(image, size)
    landmarks = None if points is None else rounded((points + 0.5) * (size / side) - 0.5)
    return in_array(record, images, place, stage, "resize", {"from": side}, landmarks)


def in_array(
    record: Record, images: Pixels, place: int, stage: str, operation: str, parameters: dict[str, Any],
    landmarks: tuple[tuple[float, float], ...] | None, identity: str | None = None,
) -> Record:  # fmt: skip
    """Make the record of an image in an array, under the photo's id unless another is given."""
    if copy := record.parameters.get("copy"):
        parameters = {"copy": copy, **parameters}
    size, digest = images.shape[1], hashlib.sha256(images[place].data).hexdigest()
    return replace(
        record, id=identity or record.id, stage=stage, operation=operation, parameters=parameters, confidence=None,
        width=size, height=size, landmarks=landmarks, file=IMAGES, index=place, digest=digest, mark="",
    )  # fmt: skip
