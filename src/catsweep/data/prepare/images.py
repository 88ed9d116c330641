"""Images as the stages keep them: reading, writing, and the small pictures of contact sheets.

Every stage reads what an earlier one wrote through here, so it may be fast and trusting.
"""

from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from catsweep.errors import DataError

THUMBNAIL = 96  # side, pixels

Pixels = NDArray[np.uint8]


def read_image(path: Path) -> Pixels:
    """A file that a stage wrote: uint8, (H, W, 3) RGB or (H, W, 4) with transparency."""
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
    """An image as a file's bytes: `.jpg` (quality 95, full colour resolution) or `.png` (lossless, quickly)."""
    if suffix == ".jpg":
        return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=95, colorsubsampling="444"))
    swapped = cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", swapped, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def on_white(image: Pixels) -> Pixels:
    """An image without transparency, (H, W, 3): what shows through is white."""
    if image.shape[2] == 3:
        return image
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.rint(image[..., :3] * alpha + 255 * (1 - alpha)).astype(np.uint8)


def thumbnail(image: Pixels, side: int = THUMBNAIL) -> Pixels:
    """The whole image, shrunk into a white square of shape (side, side, 3)."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    square = np.full((side, side, 3), 255, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    square[top : top + size[1], left : left + size[0]] = on_white(np.asarray(small, np.uint8))
    return square
