"""What was drawn, as a page, as a folder of files or as an animation; last step of `python src/generate.py`."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from catsweep.folders import scratch_folder
from catsweep.grids import BACKGROUND, grid, save_png
from steady.atomic import replacing

Images = NDArray[np.uint8]

WEBP_QUALITY = 90


@dataclass(frozen=True)
class Strips:
    """Images, those together that belong together: a cat, a photo and its reconstruction, a row of steps.

    Attributes:
        images: uint8, shape (S, k, H, W, 3).
        names: of the files in a folder, without ending, one per strip.
        upright: whether the page shows a strip from top to bottom instead of from left to right.
    """

    images: Images
    names: Sequence[str]
    upright: bool = False

    def page(self, columns: int | None) -> Images:
        """All on one page.

        Args:
            columns: of single cats, and of upright strips; any other strip is a row. None: about as wide as high.

        Returns:
            uint8, shape (height, width, 3).
        """
        count, length, *shape = self.images.shape
        if length == 1:
            return grid(self.images[:, 0], columns)
        if not self.upright:
            return grid(self.images.reshape(-1, *shape), length)
        if columns is None:
            most = math.ceil(math.sqrt(count * length))
            columns = math.ceil(count / math.ceil(count / most))  # the same number in each row, as nearly as may be
        columns = min(count, columns)
        blank = np.full((-count % columns, length, *shape), BACKGROUND, np.uint8)
        blocks = np.concatenate([self.images, blank]).reshape(-1, columns, length, *shape)
        return grid(blocks.swapaxes(1, 2).reshape(-1, *shape), columns)


def upscale(images: Images, scale: int) -> Images:
    """Images (…, H, W, 3), each `scale` times as wide and high, smoothly (Lanczos)."""
    if scale == 1:
        return images
    *many, height, width, _ = images.shape
    large = [
        np.asarray(Image.fromarray(image).resize((scale * width, scale * height), Image.Resampling.LANCZOS))
        for image in images.reshape(-1, height, width, 3)
    ]
    return np.stack(large).reshape(*many, scale * height, scale * width, 3)


def save_folder(folder: Path, strips: Strips) -> list[Path]:
    """Write one PNG per strip; all are whole before the first is in its place.

    Args:
        folder: made if it is not there. Files of the same names are replaced, others stay.
        strips: a strip of several images becomes one PNG with all of them beside each other.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder / "images") as hidden:
        for name, strip in zip(strips.names, strips.images, strict=True):
            save_png(hidden / f"{name}.png", strip[0] if len(strip) == 1 else grid(strip, len(strip)))
        for name in strips.names:
            os.replace(hidden / f"{name}.png", folder / f"{name}.png")
    return [folder / f"{name}.png" for name in strips.names]


def save_animation(path: Path, frames: Images, fps: int) -> None:
    """Write an animation that repeats for ever; a reader sees the old file or the new one.

    Args:
        path: ends in .gif or .webp; missing folders are made.
        frames: uint8, shape (N, H, W, 3).
        fps: frames per second. A GIF counts in hundredths of a second, so there it is the next rate that divides 100.
    """
    images = [Image.fromarray(frame) for frame in frames]
    how: dict[str, Any] = (
        {"format": "GIF", "duration": 10 * round(100 / fps), "disposal": 1}  # Pillow finds 256 colours for each frame
        if path.suffix.lower() == ".gif"
        else {"format": "WEBP", "duration": round(1000 / fps), "quality": WEBP_QUALITY}
    )
    with replacing(path) as unfinished:
        images[0].save(unfinished, save_all=True, append_images=images[1:], loop=0, **how)
