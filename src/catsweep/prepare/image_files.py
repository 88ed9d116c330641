"""Image files of the stages: decode, encode, shrink and link.

These functions trust their input, which an earlier stage wrote; strangers' photos are decoded by `data.decode`.
"""

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from catsweep.errors import DataError
from steady.atomic import replacing

THUMBNAIL = 96  # side, pixels

Pixels = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Points = NDArray[np.float64]  # shape (n, 2): x and y
Image = TypeVar("Image", Pixels, Floats)


def read_image(path: Path) -> Pixels:
    """Read an image that a stage wrote, uint8 (H, W, 3) RGB or (H, W, 4); raises DataError if it is damaged."""
    data = path.read_bytes()
    image = None
    with suppress(ValueError, cv2.error):
        if path.suffix == ".jpg":
            return np.asarray(simplejpeg.decode_jpeg(data, colorspace="RGB"))
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise DataError(
            f"Expected an image in {path}, but it is damaged. Delete all files called {path.name} in "
            f"{path.parents[1]}, for stages share them, and give the command again."
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA if image.shape[2] == 4 else cv2.COLOR_BGR2RGB), np.uint8)


def encode(image: Pixels, suffix: str) -> bytes:
    """Encode an image as `.jpg` (quality 95, full colour resolution) or `.png` (lossless, fast)."""
    if suffix == ".jpg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95, colorsubsampling="444"))
    swapped = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def on_white(image: Pixels) -> Pixels:
    """Composite an image onto white: (H, W, 3)."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def size_within(image: NDArray[Any], side: int) -> tuple[int, int]:
    """Width and height, in OpenCV's order, of an image scaled until its longer side is `side` pixels."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    return max(1, round(width * factor)), max(1, round(height * factor))


def shrunk(image: Image, side: int) -> Image:
    """Shrink an image by averaging until its longer side is at most `side` pixels."""
    if side >= max(image.shape[:2]):
        return image
    size = size_within(image, side)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.dtype)


def thumbnail(image: Pixels, side: int = THUMBNAIL) -> Pixels:
    """Fit a whole image into a white square of shape (side, side, 3)."""
    size = size_within(image, side)
    how = cv2.INTER_AREA if side < max(image.shape[:2]) else cv2.INTER_LINEAR
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    small = np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)
    square[top : top + size[1], left : left + size[0]] = on_white(small)
    return square


def hard_link(source: Path, target: Path) -> None:
    """Link a file, replacing `target`; copy it where the file system has no hard links."""
    if target.exists() and target.samefile(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with replacing(target) as unfinished:
            shutil.copyfile(source, unfinished)
