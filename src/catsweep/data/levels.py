"""Values of more than eight bits: which of them is white.

Part of `catsweep.data.decode`. Cameras and microscopes put 10, 12 or 14 bits into numbers of 16 and more, and unless
somebody notices, the photo is black. What the file says comes first, then the smallest usual range that holds all.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_LIMITS = (255, 1023, 4095, 16383, 65535)
_USUAL = {"u": _LIMITS, "i": _LIMITS, "f": (1, *_LIMITS)}  # by NumPy's kind of number
_CERTAIN = {"u": 65535, "i": 255, "f": 1}
# TIFF 6.0: BitsPerSample, PhotometricInterpretation, MaxSampleValue, SMaxSampleValue.
_BITS, _INTERPRETATION, _MAX, _S_MAX = 258, 262, 281, 341
_WHITE_IS_ZERO = 0
_DARK = 64  # of 256: what does not reach a quarter of the range of 16 bits has 14 or fewer, or is very dark
_BAND = 1 << 20  # values


@dataclass(frozen=True)
class Scale:
    """From values to 0…255.

    Attributes:
        black: the value of it.
        white: the value of it.
        notes: on what that is based, if not on the range of the numbers themselves.
    """

    black: float
    white: float
    notes: tuple[str, ...] = ()

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """uint8 of the same shape."""
        span = self.white - self.black or 1e-12
        scaled = (values.astype(np.float64) - self.black) / span * 255
        return np.asarray(np.rint(scaled.clip(0, 255)), np.uint8)


def of_greys(image: Image.Image, data: bytes, bands: Iterable[NDArray[np.generic]]) -> Scale:
    """The scale of an image in one of Pillow's wide modes.

    Args:
        image: loaded.
        data: its file.
        bands: its values.

    Raises:
        ValueError: values that are not finite.
    """
    low, high, kind = np.inf, -np.inf, "u"
    for values in bands:
        if not np.isfinite(values).all():
            raise ValueError("grey values that are not finite")
        low, high, kind = min(low, float(values.min())), max(high, float(values.max())), values.dtype.kind
    scale = _scale(low, high, kind, _said(image, data))
    if getattr(image, "tag_v2", {}).get(_INTERPRETATION) == _WHITE_IS_ZERO:
        return replace(scale, black=scale.white, white=scale.black)
    return scale


def of_colours(image: Image.Image, data: bytes) -> tuple[Image.Image, tuple[str, ...]] | None:
    """A colour image of 16 bits, of which Pillow holds only the upper eight, by its real range, with notes.

    Args:
        image: loaded.
        data: its file.

    Returns:
        None: the upper eight are what is wanted, or all that can be had.
    """
    if image.mode not in ("RGB", "RGBA") or bits(image, data) != 16:
        return None
    largest = _said(image, data)
    brightest = max(band.getextrema()[1] for band in image.split()[:3])
    if isinstance(brightest, tuple) or (brightest >= _DARK and largest is None):
        return None
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.shape != (image.height, image.width, len(image.mode)):
        return None
    values = np.asarray(read[..., [2, 1, 0, 3][: len(image.mode)]], np.uint16)
    if not np.array_equal(values >> 8, np.asarray(image)):  # read in another way
        return None
    scale = _scale(0, float(values[..., :3].max()), "u", largest)
    result = np.asarray(image).copy()
    step = max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        result[top : top + step, :, :3] = scale(values[top : top + step, :, :3])
    return Image.fromarray(result), scale.notes


def bits(image: Image.Image, data: bytes) -> int:
    """Bits of a value in a TIFF or PNG; 8 if that is not known."""
    if image.format == "PNG":
        return data[24]
    stored = getattr(image, "tag_v2", {}).get(_BITS, 8)
    return int(min(stored, default=8) if isinstance(stored, tuple) else stored)


def _said(image: Image.Image, data: bytes) -> float | None:
    """The largest value that a file says it may have; None if it says nothing, or only what its numbers can hold."""
    if image.format == "PNG":
        return _significant(data)
    stored = bits(image, data)
    tags = getattr(image, "tag_v2", {})
    for tag in (_S_MAX, _MAX):
        value = tags.get(tag)
        value = max(value, default=0) if isinstance(value, tuple) else value
        if isinstance(value, int | float) and value > 0 and not (stored <= 16 and value >= 2**stored - 1):
            return float(value)
    return float(2**stored - 1) if 8 < stored < 16 else None


def _significant(data: bytes) -> float | None:
    """What chunk sBIT of a PNG says (third edition, 11.3.2.4), for those who put few bits into many without scaling."""
    place = data.find(b"sBIT", 0, data.find(b"IDAT"))
    return float(2 ** data[place + 4] - 1) if place > 0 and 8 <= data[place + 4] < 16 else None


def _scale(low: float, high: float, kind: str, largest: float | None) -> Scale:
    if largest is not None and low >= 0 and high <= largest:
        return Scale(0, largest, (f"levels as the file says: {largest:,.10g} is white",))
    if low < 0 or high > _USUAL[kind][-1]:
        return Scale(low, high, (f"levels by their range: {low:,.10g} is black, {high:,.10g} white",))
    white = next(limit for limit in _USUAL[kind] if high <= limit)
    guess = f"levels by their range: the largest is {high:,.10g}, so {white:,} is white"
    return Scale(0, white, () if white == _CERTAIN[kind] else (guess,))
