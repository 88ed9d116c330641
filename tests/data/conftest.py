"""Sources and photos that the data tests make themselves."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from catsweep.data.ready import Item


class FakeSource:
    """Random images; `refused` more are refused; `built` counts how often it was asked for them."""

    name = "fake"

    def __init__(self, n: int = 20, seed: int = 0, refused: int = 0, copies: int = 1) -> None:
        self.n, self.seed, self.refused, self.copies = n, seed, refused, copies
        self.built = 0

    def __str__(self) -> str:
        return "fake photos"

    def key(self, size: int) -> dict[str, Any]:
        return {"n": self.n, "seed": self.seed, "refused": self.refused, "copies": self.copies}

    def items(self, size: int) -> Iterator[Item]:
        self.built += 1
        draws = np.random.default_rng(self.seed)
        for number in range(self.refused):
            yield Item(f"bad-{number}", reason="empty file")
        for number in range(self.n):
            group = f"group-{self.seed}-{number // self.copies}"
            image = draws.integers(0, 256, (size, size, 3), dtype=np.uint8)
            yield Item(f"cat-{number}", group, group, size, size, image, np.full((9, 2), float(number)))


def smooth(height: int = 60, width: int = 80, seed: int = 0) -> NDArray[np.uint8]:
    """A picture of soft colours, (height, width, 3), that survives JPEG."""
    small = np.random.default_rng(seed).integers(30, 225, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


@pytest.fixture
def fake() -> type[FakeSource]:
    return FakeSource


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    return smooth


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight good photos in a tree, with a note that is none of our business."""
    place = tmp_path / "photos"
    (place / "more" / "deep").mkdir(parents=True)
    for number in range(8):
        parent = (place, place / "more", place / "more" / "deep")[number % 3]
        Image.fromarray(smooth(seed=number)).save(parent / f"{number}.jpg", quality=90)
    (place / "notes.txt").write_text("not a photo, and not called one")
    return place
