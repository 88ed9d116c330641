"""A stage of made-up photos, for tests of the stages that come after it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.data.conftest import fake, picture

from catsweep.prepare.manifest import Record, rounded
from catsweep.prepare.stage import Stage, StageBuilder, StageOutput

__all__ = ["fake", "picture"]
from catsweep.prepare.stage_cache import build


class Verified(Stage):
    """Images as stage `verify` hands them on: each in a file, in a split."""

    name, folder, code = "verify", "verified", ()

    def __init__(self, images: Sequence[NDArray[np.uint8]]) -> None:
        self.images = images

    def parameters(self) -> dict[str, Any]:
        return {"shapes": [image.shape for image in self.images]}

    def run(self, build: StageBuilder) -> Iterator[Record]:
        for record, image in zip(build.inputs, self.images, strict=True):
            yield build.write(record, image) if record.kept else record


def soft(height: int, width: int, seed: int, channels: int = 3) -> NDArray[np.uint8]:
    """A picture of soft colours."""
    small = np.random.default_rng(seed).integers(30, 225, (4, 4, channels), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


@pytest.fixture
def verified(tmp_path: Path) -> Callable[..., StageOutput]:
    """Makes a complete stage `verify`: one photo for each split; a split "" is a photo that is refused."""

    def verified(
        splits: Sequence[str] = ("train", "val", "train", "train"),
        height: int = 24,
        width: int = 24,
        channels: int = 3,
        groups: Sequence[str] | None = None,
        place: Path = tmp_path / "0.verified",
    ) -> StageOutput:
        records = []
        for number, split in enumerate(splits):
            group = groups[number] if groups else f"group-{number}"
            points = rounded(np.random.default_rng(number).uniform(0, min(height, width) - 1, (9, 2)))
            record = Record("", f"cat-{number}", f"cats/{number}.jpg", f"{number:064x}", group, split, landmarks=points)
            records.append(record if split else record.refuse("dropped: by a person"))
        images = [soft(height, width, number, channels) for number in range(len(splits))]
        return build(Verified(images), place, place, tuple(records))

    return verified


class Zoomed(Verified):
    """Images as stage `zoom` hands them on: some in doubt."""

    name, folder, code = "zoom", "zoomed", ()


@pytest.fixture
def zoomed(tmp_path: Path) -> Callable[..., StageOutput]:
    """Makes a complete stage `zoom`, and `original`: a photo for each tuple of doubts."""

    def zoomed(
        doubts: Sequence[tuple[str, ...]] = (
            (),
            ("no face: none was found",),
            (),
            ("small face: 20 pixels", "tilted: 30"),
        ),
        groups: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> StageOutput:
        records = tuple(
            Record(
                "", f"cat-{n}", names[n] if names else f"cats/{n}.jpg", f"{n:064x}", groups[n] if groups else f"g{n}"
            )
            for n in range(len(doubts))
        )
        build(Verified([soft(48, 64, n) for n in range(len(doubts))]), tmp_path / "0.original", tmp_path, records)
        doubtful = tuple(record.doubt(*found) for record, found in zip(records, doubts, strict=True))
        images = [soft(24, 24, n, 3 + n % 2) for n in range(len(doubts))]  # some with transparency
        return build(Zoomed(images), tmp_path / "3.zoomed", tmp_path / "0.original", doubtful)

    return zoomed
