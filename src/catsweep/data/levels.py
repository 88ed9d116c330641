"""Values of more than eight bits: which of them is white.

Part of `catsweep.data.decode`. Cameras and microscopes put 10, 12 or 14 bits into numbers of 16 and more, and unless
somebody notices, the photo is black. What the file says comes first, then the smallest usual range that holds all but
a few: a hot pixel or a glint beyond it is as white as white.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

_LIMITS = (255, 1023, 4095, 16383, 65535)
_USUAL = {"u": _LIMITS, "i": _LIMITS, "f": (1, *_LIMITS)}  # by NumPy's kind of number
_CERTAIN = {"u": 65535, "i": 255, "f": 1}
_FEW = 1e-3  # of all values may be beyond the white or black of a range
_ABOVE, _BELOW = 2, -0.1  # what resampling and glints make of numbers from 0 to 1; those of the next range reach 255
_SIGNED = 32767  # the largest of 16 bits with a sign
_LONG = 2**32 - 1
# TIFF 6.0: BitsPerSample, PhotometricInterpretation, SamplesPerPixel, MaxSampleValue, SampleFormat, SMaxSampleValue.
_BITS, _INTERPRETATION, _CHANNELS, _MAX, _FORMAT, _S_MAX = 258, 262, 277, 281, 339, 341
_FORMATS = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers"}
_TIFF = (b"II*\0", b"MM\0*")
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
        unsigned: 32 bits that come as if they had a sign.
    """

    black: float
    white: float
    notes: tuple[str, ...] = ()
    unsigned: bool = False

    def __call__(self, values: NDArray[np.generic]) -> NDArray[np.uint8]:
        """uint8 of the same shape."""
        if self.unsigned:
            values = values.astype(np.int32).view(np.uint32)
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
    tags = getattr(image, "tag_v2", {})
    form = _first(tags.get(_FORMAT, 1))
    unsigned = image.format == "TIFF" and image.mode == "I" and bits(image, data) == 32 and form == 1
    largest, count = _said(image, data), None
    for values in bands:
        if unsigned:  # Pillow holds them as if they had a sign
            values = values.astype(np.int32).view(np.uint32)
        if not np.isfinite(values).all():
            raise ValueError("grey values that are not finite")
        if count is None:
            further = _SIGNED if form == 2 and bits(image, data) == 16 else None
            count = _Count(values.dtype.kind, largest, further, scaled=image.format == "PNG")
        count.add(values)
    assert count is not None
    scale = replace(count.scale(), unsigned=unsigned)
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
    levels = np.array(image.histogram()[: 3 * 256]).reshape(3, 256)
    bright = levels[:, _DARK:].sum() > _FEW * levels.sum()
    if largest == _CERTAIN["u"] or (bright and largest is None):
        return None
    read = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if read is None or read.dtype != np.uint16 or read.shape != (image.height, image.width, len(image.mode)):
        return None
    values = np.asarray(read[..., [2, 1, 0, 3][: len(image.mode)]], np.uint16)
    if not np.array_equal(values >> 8, np.asarray(image)):  # read in another way
        return None
    count, step = _Count("u", largest, scaled=image.format == "PNG"), max(1, _BAND // image.width)
    for top in range(0, image.height, step):
        count.add(values[top : top + step, :, :3])
    scale = count.scale()
    # Transparency is of the same few bits, unless it shows that it is not.
    channels = slice(None) if values[..., 3:].max(initial=0) <= scale.white else slice(3)
    result = np.asarray(image).copy()
    for top in range(0, image.height, step):
        result[top : top + step, :, channels] = scale(values[top : top + step, :, channels])
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
    return float(2 ** data[place + 4] - 1) if place > 0 and 8 <= data[place + 4] <= 16 else None


@dataclass
class _Count:
    """How many values are beyond each range that they may have.

    Attributes:
        kind: NumPy's of the numbers.
        largest: what the file says of it.
        further: another range that is usual for these numbers.
        scaled: whether values beyond `largest` mean that all are scaled to the whole range, as in a PNG.
    """

    kind: str
    largest: float | None = None
    further: int | None = None
    scaled: bool = False
    low: float = np.inf
    high: float = -np.inf
    total: int = 0
    below: int = 0
    far_below: int = 0
    above: Counter[float] = field(default_factory=Counter)

    def limits(self) -> Sequence[float]:
        """Usual whites, the smallest first."""
        return sorted({*_USUAL[self.kind], *([self.further] if self.further else [])})

    def add(self, values: NDArray[Any]) -> None:
        """Count a part."""
        low, high = float(values.min()), float(values.max())
        self.low, self.high, self.total = min(self.low, low), max(self.high, high), self.total + values.size
        if low < 0:
            self.below += int(np.count_nonzero(values < 0))
            self.far_below += int(np.count_nonzero(values < _BELOW))
        for limit in {*self.limits(), self.largest or 0.0, _ABOVE}:
            if high > limit:
                self.above[limit] += int(np.count_nonzero(values > limit))

    def scale(self) -> Scale:
        """From all that were counted."""
        few = _FEW * self.total
        if self.largest is not None and self.below <= few and self.above[self.largest] <= few:
            said = f"levels as the file says: {self.largest:,.10g} is white"
            return Scale(0, self.largest, () if self.largest == _CERTAIN[self.kind] else (said,))
        if self.scaled and self.largest is not None:
            return Scale(0, _CERTAIN["u"])
        near = self.above[_ABOVE] <= few and self.far_below <= few and self.high > _ABOVE / 4
        if self.kind == "f" and near and (self.below > few or self.above[1] > few):
            beyond = f"levels by their range: from {self.low:,.10g} to {self.high:,.10g}, so 0 is black and 1 white"
            return Scale(0, 1, (beyond,))
        white = next((limit for limit in self.limits() if self.above[limit] <= few), None)
        if white is None and self.kind == "u" and self.high > _LONG / 4:
            return Scale(0, _LONG)
        if white is None or self.below > few:
            said = f"levels by their range: {self.low:,.10g} is black, {self.high:,.10g} white"
            return Scale(self.low, self.high, (said,))
        if self.above[white] or self.below:
            beyond = f"levels by their range: all but {self.above[white] + self.below:,} values of {self.total:,}"
            return Scale(0, white, (f"{beyond} are between 0 and {white:,}, which is white",))
        guess = f"levels by their range: the largest is {self.high:,.10g}, so {white:,} is white"
        certain = white in (_CERTAIN[self.kind], self.further)
        return Scale(0, white, () if certain else (guess,))


def unread(data: bytes) -> str:
    """What kind of a TIFF it is that Pillow knows to be one, but does not read; empty if it is another file."""
    if not data.startswith(_TIFF):
        return ""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        channels, bits, form = tags.get(_CHANNELS, 1), _first(tags[_BITS]), _first(tags.get(_FORMAT, 1))
    except Exception:  # of what a broken file makes of its fields
        return ""
    numbers = f"{channels} x {bits} bits of {_FORMATS.get(form, 'another kind')}"
    return f"a kind of TIFF that is not read: {numbers} a pixel; save it with 16 bits"


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value
