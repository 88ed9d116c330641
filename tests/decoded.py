"""The pixels of photos, as the sources decode them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catsweep.data.decode import decoding, read_bytes


def decode(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo, or raise Unreadable."""
    return decode_bytes(read_bytes(path))


def decode_bytes(data: bytes) -> NDArray[np.uint8]:
    with decoding(data) as photo:
        return photo.pixels
