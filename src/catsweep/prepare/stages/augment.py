"""Stage 5, augment: write changed copies of each training photo (`augment.copies`).

Held-out photos are never augmented, and a copy has the group and the split of its photo. Copies are made from a small
version of the photo, straight into one array of the final size.
"""

import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg

from catsweep.data import operations as ops
from catsweep.data.ready import IMAGES, TRAIN, VAL, contact_sheet, create_images, pick
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError, DataError
from catsweep.prepare.image_files import Pixels
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import Stage, StageBuilder
from catsweep.prepare.stages.resize import in_array, squared, write_resized

SHEETS = "sheets"
ACROSS = 10  # images in a row of the contact sheet: a photo and what was made of it


@dataclass
class Augment(Stage):
    """Makes randomly changed copies of training photos; raises ConfigError without operations to make them with."""

    name, folder = "augment", "augmented"
    code = (
        "data/align.py", "data/operations.py", "data/ready.py", "prepare/stages/augment.py", "prepare/stages/resize.py",
    )  # fmt: skip

    operations: Mapping[str, ops.Operation]  # by name, in their order; see `catsweep.data.operations`
    copies: int = 1  # images of each training photo; the first is the unchanged photo
    size: int = 64  # side of the images, pixels
    seed: int = 0  # copies are functions of seed, the photo's id and the copy's number
    working: float = 1.5  # side of the version of the photo that copies are made from, in multiples of `size`

    def __post_init__(self) -> None:
        self.operations = ops.active_operations(self.operations)
        self.active = self.copies > 1
        if self.active and not self.operations:
            raise ConfigError(f"Expected augment.operations to hold some for augment.copies={self.copies}, got none.")

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        operations = [[name, operation.parameters()] for name, operation in self.operations.items()]  # in their order
        return super().parameters() | {"operations": operations}

    def run(self, build: StageBuilder) -> Iterator[Record]:
        """See `Stage`."""
        shutil.rmtree(build.folder / SHEETS, ignore_errors=True)  # of a build that was killed
        (build.folder / SHEETS).mkdir()
        counts = [self.count(record) for record in build.inputs]
        starts = np.cumsum([0, *counts]).tolist()
        images = np.asarray(create_images(build.folder, starts[-1], self.size))  # slices of a memmap are slow

        def photo(number: int) -> list[Record]:
            record, start, count = build.inputs[number], starts[number], counts[number]
            image, points = squared(build.read(record), record.points)
            records = [write_resized(record, image, points, images, start, self.name)]
            if count > 1:
                records += self._copies(record, image, images, start)
                sheet = contact_sheet(images[start : start + count])
                jpeg = simplejpeg.encode_jpeg(sheet, quality=85, colorsubsampling="420")
                (build.folder / SHEETS / f"{record.id}.jpg").write_bytes(jpeg)
            return records

        for records in watched(in_order(photo, range(len(counts))), len(counts), self.name):
            yield from records

    def count(self, record: Record) -> int:
        """Count the images that are made of a photo; raises DataError if it is in no split."""
        if record.split not in (TRAIN, VAL):
            raise DataError(
                f"Expected each photo to be in a split before stage {self.name}, but {record.source} is in none. "
                "Let the pipeline have ${verification} before ${augment}."
            )
        return self.copies if record.split == TRAIN else 1

    def sheet(self, build: StageBuilder, records: Sequence[Record]) -> Pixels | None:
        """See `Stage`. A row for each of some training photos and some of its copies."""
        images: Pixels = np.load(build.folder / IMAGES, mmap_mode="r")
        photos = [record.index for record in records if record.split == TRAIN and "copy" not in record.parameters]
        if not photos:
            return contact_sheet(images[pick(len(images))])
        copies = pick(self.copies, ACROSS)
        chosen = [place + copies for place in (photos[i] for i in pick(len(photos), ACROSS)) if place is not None]
        return contact_sheet(images[np.concatenate(chosen)], columns=len(copies))

    def _copies(self, record: Record, image: Pixels, images: Pixels, start: int) -> list[Record]:
        side = max(self.size, round(self.working * self.size))
        if image.shape[0] > side:
            image = np.asarray(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        side = image.shape[0]
        recipe = self.recipe(record.id, image)
        ops.apply_recipe(image[None], recipe, images[start + 1 : start + self.copies])
        records = []
        for number, (done, parameters) in enumerate(ops.describe_recipe(recipe, side), start=1):
            parameters = {"copy": number, **parameters}
            identity = f"{record.id}+{number:03d}"
            # Without landmarks, which would be half of the manifest; `box` and `flip` say where they are now.
            records.append(in_array(record, images, start + number, self.name, done, parameters, None, identity))
        return records

    def recipe(self, identity: str, image: Pixels) -> ops.Recipe:
        """Draw what is done to the copies 1, 2, … of a photo; each has its own random numbers."""
        own = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8], "big")
        numbers = np.random.default_rng([self.seed, own]).random((self.copies - 1, len(self.operations), ops.DRAWS))
        light = np.repeat(ops.brightness(image[None]), self.copies - 1)
        return ops.draw(self.operations, light, numbers)
