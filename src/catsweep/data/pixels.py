"""Convert an image as Pillow holds it to uint8 sRGB, upright, in bands: with little memory besides the result.

Profiles of photos are nearly all sRGB or as good as: those are recognised by what they do, and cost nothing. One that
is broken, or of another kind than the photo, is passed over with a note.

Values of more than eight bits are scaled: cameras and microscopes put 10, 12 or 14 bits into numbers of 16 and more,
and unscaled the photo is black. What the file says is white comes first, then the smallest usual range that holds all
but a few values: a hot pixel or a glint beyond it is as white as white.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from io import BytesIO
from itertools import combinations
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin

MAX_PROFILE = 1 << 22  # bytes; those of printing presses have two to three million
SAME = 2  # of 255: a profile that moves no colour further is taken for sRGB; variants of sRGB differ by that in shadows
APART = 32  # of 255: black and white, and any two of the eight corners of RGB, stay further apart than this
BAND = 1 << 20  # pixels
# As Photoshop converts: what sRGB cannot show becomes its nearest colour, and black stays black.
_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of profiles, and the mode of images in them
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
Pixels = NDArray[np.uint8]
# Mid-grey under transparent pixels: neither white fur nor black fur melts into it.
BACKGROUND = (128, 128, 128, 255)
# EXIF 2.32, tag 0x0112: how the stored picture lies in the upright one. Each gives a view of the upright picture in
# the order in which the file stores it.
_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: upright.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}


@dataclass(frozen=True)
class Conversion:
    """Conversion of an image to sRGB."""

    mode: str  # in which the transform takes it: `RGB`, `L` or `CMYK`
    transform: ImageCms.ImageCmsTransform | None = None  # by its profile; None: it is sRGB, or nobody knows
    notes: tuple[str, ...] = ()  # for a person

    def __call__(self, image: Image.Image) -> Image.Image:
        """Convert an image, or a band of it, to mode `RGB`; transparency is left out."""
        if self.transform is None:
            return image.convert("RGB")
        return cast(Image.Image, ImageCms.applyTransform(image.convert(self.mode), self.transform))

    def of_pixels(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Convert uint8 pixels, (H, W, 3), in place; grey has three equal channels."""
        if self.transform is None:
            return stored
        for rows in _slices(*stored.shape[:2]):
            band = stored[rows]
            band[:] = np.asarray(self(Image.fromarray(band[..., 0] if self.mode == "L" else band)))
        return stored


@dataclass(frozen=True)
class _Levels:
    """Linear map from values between black and white to 0…255."""

    black: float
    white: float
    notes: tuple[str, ...] = ()  # on what that is based, if not on the range of the numbers themselves
    unsigned: bool = False  # 32 bits that come as if they had a sign

    def __call__(self, values: NDArray[np.generic]) -> Pixels:
        if self.unsigned:
            values = values.astype(np.int32).view(np.uint32)
        span = self.white - self.black or 1e-12
        scaled = (values.astype(np.float64) - self.black) / span * 255
        return np.asarray(np.rint(scaled.clip(0, 255)), np.uint8)


def to_rgb(image: Image.Image, data: bytes, turn: int, convert: Conversion) -> tuple[Pixels, tuple[str, ...]]:
    """Convert a loaded image of any mode to sRGB, uint8 (H, W, 3), C-contiguous, upright by `turn`, with notes.

    `data` are the bytes of its file. ValueError for grey values that are not finite.
    """
    scale: _Levels | None = None
    notes: tuple[str, ...] = ()
    if image.mode.startswith(("I", "F")):
        scale = _grey_scale(image, data)
        notes = scale.notes
    elif (rescaled := _rescaled_colours(image, data)) is not None:
        image, notes = rescaled
    result, view = _canvas(image.height, image.width, turn)
    transparent = scale is None and image.has_transparency_data
    for rows, band in _bands(image):
        if scale is not None:
            band = Image.fromarray(scale(np.asarray(band)))
        view[rows] = np.asarray(_opaque(band, convert) if transparent else convert(band))
    return result, notes


def _opaque(band: Image.Image, convert: Conversion) -> Image.Image:
    above = convert(band).convert("RGBA")
    above.putalpha(band.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", above.size, BACKGROUND), above).convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """Cut an image into bands of at most `BAND` pixels, from top to bottom, each with its rows."""
    for rows in _slices(image.height, image.width):
        yield rows, image.crop((0, rows.start, image.width, rows.stop))


def _slices(height: int, width: int) -> list[slice]:
    step = max(1, BAND // width)
    return [slice(top, min(top + step, height)) for top in range(0, height, step)]


def _canvas(height: int, width: int, turn: int) -> tuple[Pixels, Pixels]:
    """Allocate an upright picture, and a view of it in the order of the stored one, which has these sides."""
    result = np.empty((height, width, 3) if turn < 5 else (width, height, 3), np.uint8)
    return result, _STORED[turn](result)


def upright(stored: Pixels, turn: int) -> Pixels:
    """Turn pixels, (H, W, 3), as an EXIF orientation says; C-contiguous."""
    if turn == 1:
        return np.ascontiguousarray(stored)
    result, view = _canvas(stored.shape[0], stored.shape[1], turn)
    view[:] = stored
    return result


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation, 1 to 8; 1 (as stored) if there is none that can be read.

    `ImageOps.exif_transpose` also writes the block anew, and fails on oddities elsewhere in it.
    """
    try:
        said = image.getexif().get(ExifTags.Base.Orientation)
        return int(said) if said in _STORED else 1
    except Exception:  # a broken EXIF block says nothing against the pixels
        return 1


def conversion(image: Image.Image) -> Conversion:
    """Choose the conversion of an opened image by its colour profile; its pixels are not needed."""
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    mode = "L" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if "icc_profile" not in image.info:
        return Conversion(mode, notes=("no colour profile: CMYK by its plain formula",) if mode == "CMYK" else ())
    profile = image.info["icc_profile"]
    try:
        if not profile:
            raise ValueError("it is incomplete")
        if len(profile) > MAX_PROFILE:
            raise ValueError(f"{len(profile):,} bytes, at most {MAX_PROFILE:,} are read")
        return Conversion(mode, _transform(profile, mode))
    except Exception as error:  # of Pillow, and of what a broken profile makes of its fields
        said = " ".join(str(error).split())[:120]
        return Conversion(mode, notes=(f"colour profile ignored: {said or type(error).__name__}",))


@lru_cache(maxsize=16)  # a photo album has few; each may be `MAX_PROFILE` long
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from a profile to sRGB; None if there is nothing to do. ValueError if it cannot be used."""
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if _SPACES.get(space) != mode:
        raise ValueError(f"it is one of {space or 'nothing'}, but the photo is {'GRAY' if mode == 'L' else mode}")
    srgb = ImageCms.createProfile("sRGB")
    made = ImageCms.buildTransform(opened, srgb, mode, "RGB", _INTENT, _FLAGS)
    if mode == "CMYK":
        return made
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[levels] * 3), -1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
    asked = Image.fromarray(cube)
    given = Conversion(mode, made)(asked)
    shown = np.asarray(given).astype(int)
    if _collapses(shown.reshape(*[9] * 3, 3) if mode == "RGB" else shown[0]):
        raise ValueError("it makes one colour of several")
    moved = np.abs(shown - np.asarray(asked.convert("RGB")))
    return None if moved.max() <= SAME else made


def _collapses(shown: NDArray[np.int_]) -> bool:
    """Detect that evenly spaced colours, (N, N, N, 3), or greys, (N, 3), become indistinguishable in what is shown."""
    colours = shown.ndim == 4
    greys = (shown[(np.arange(len(shown)),) * 3] if colours else shown).mean(-1)
    if greys[-1] - greys[0] < APART or np.diff(greys).min() < -SAME:
        return True
    corners = shown[:: len(shown) - 1, :: len(shown) - 1, :: len(shown) - 1].reshape(-1, 3) if colours else shown[:0]
    return any(np.abs(one - other).max() < APART for one, other in combinations(corners, 2))


def _grey_scale(image: Image.Image, data: bytes) -> _Levels:
    """Find the scale of a loaded image in one of Pillow's wide modes from its file and its values."""
    tags, bits = getattr(image, "tag_v2", {}), stored_bits(image, data)
    form = _first(tags.get(_FORMAT, 1))
    unsigned = image.format == "TIFF" and image.mode == "I" and bits == 32 and form == 1
    kind = "u" if unsigned else np.asarray(image.crop((0, 0, 1, 1))).dtype.kind
    count = _Count(kind, _declared_white(image, data), image.format == "PNG", form == 2 and bits == 16)
    for _, band in _bands(image):
        values = np.asarray(band)
        if unsigned:  # Pillow holds them as if they had a sign
            values = values.astype(np.int32).view(np.uint32)
        if not np.isfinite(values).all():
            raise ValueError("grey values that are not finite")
        count.add(values)
    scale = replace(count.scale(), unsigned=unsigned)
    if tags.get(_INTERPRETATION) == _WHITE_IS_ZERO:
        return replace(scale, black=scale.white, white=scale.black)
    return scale


def _rescaled_colours(image: Image.Image, data: bytes) -> tuple[Image.Image, tuple[str, ...]] | None:
    """Rescale a colour image of 16 bits, of which Pillow holds the upper eight, by its real range; None: they do."""
    if image.mode not in ("RGB", "RGBA") or stored_bits(image, data) != 16:
        return None
    largest = _declared_white(image, data)
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
    count, parts = _Count("u", largest, image.format == "PNG"), _slices(image.height, image.width)
    for rows in parts:
        count.add(values[rows, :, :3])
    scale = count.scale()
    # Transparency is of the same few bits, unless it shows that it is not.
    channels = slice(None) if values[..., 3:].max(initial=0) <= scale.white else slice(3)
    result = np.asarray(image).copy()
    for rows in parts:
        result[rows, :, channels] = scale(values[rows, :, channels])
    return Image.fromarray(result), scale.notes


def stored_bits(image: Image.Image, data: bytes) -> int:
    """Read the bits of a value in a TIFF or PNG; 8 if that is not known."""
    if image.format == "PNG":
        return data[24]
    stored = getattr(image, "tag_v2", {}).get(_BITS, 8)
    return int(min(stored, default=8) if isinstance(stored, tuple) else stored)


def _declared_white(image: Image.Image, data: bytes) -> float | None:
    """Read the largest value that a file declares; None if it says nothing, or only what its numbers can hold."""
    if image.format == "PNG":
        # Chunk sBIT (third edition, 11.3.2.4), for those who put few bits into many without scaling.
        place = data.find(b"sBIT", 0, data.find(b"IDAT"))
        return float(2 ** data[place + 4] - 1) if place > 0 and 8 <= data[place + 4] <= 16 else None
    stored = stored_bits(image, data)
    tags = getattr(image, "tag_v2", {})
    for tag in (_S_MAX, _MAX):
        value = tags.get(tag)
        value = max(value, default=0) if isinstance(value, tuple) else value
        if isinstance(value, int | float) and value > 0 and not (stored <= 16 and value >= 2**stored - 1):
            return float(value)
    return float(2**stored - 1) if 8 < stored < 16 else None


@dataclass
class _Count:
    """Counter of the values beyond each range that they may have."""

    kind: str  # NumPy's, of the numbers
    largest: float | None  # as the file declares it
    scaled: bool  # as in a PNG: values beyond `largest` mean that all are scaled to the whole range
    signed: bool = False  # 16 bits with a sign, of which 32,767 is a usual white, too
    low: float = np.inf
    high: float = -np.inf
    total: int = 0
    below: int = 0
    far_below: int = 0
    above: Counter[float] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.limits = sorted({*_USUAL[self.kind], *([_SIGNED] if self.signed else [])})  # usual whites

    def add(self, values: NDArray[Any]) -> None:
        low, high = float(values.min()), float(values.max())
        self.low, self.high, self.total = min(self.low, low), max(self.high, high), self.total + values.size
        if low < 0:
            self.below += int(np.count_nonzero(values < 0))
            self.far_below += int(np.count_nonzero(values < _BELOW))
        for limit in {*self.limits, self.largest or 0.0, _ABOVE}:
            if high > limit:
                self.above[limit] += int(np.count_nonzero(values > limit))

    def scale(self) -> _Levels:
        few = _FEW * self.total
        if self.largest is not None and self.below <= few and self.above[self.largest] <= few:
            said = f"levels as the file says: {self.largest:,.10g} is white"
            return _Levels(0, self.largest, () if self.largest == _CERTAIN[self.kind] else (said,))
        if self.scaled and self.largest is not None:
            return _Levels(0, _CERTAIN["u"])
        near = self.above[_ABOVE] <= few and self.far_below <= few and self.high > _ABOVE / 4
        if self.kind == "f" and near and (self.below > few or self.above[1] > few):
            beyond = f"levels by their range: from {self.low:,.10g} to {self.high:,.10g}, so 0 is black and 1 white"
            return _Levels(0, 1, (beyond,))
        white = next((limit for limit in self.limits if self.above[limit] <= few), None)
        if white is None and self.kind == "u" and self.high > _LONG / 4:
            return _Levels(0, _LONG)
        if white is None or self.below > few:
            said = f"levels by their range: {self.low:,.10g} is black, {self.high:,.10g} white"
            return _Levels(self.low, self.high, (said,))
        if self.above[white] or self.below:
            beyond = f"levels by their range: all but {self.above[white] + self.below:,} values of {self.total:,}"
            return _Levels(0, white, (f"{beyond} are between 0 and {white:,}, which is white",))
        guess = f"levels by their range: the largest is {self.high:,.10g}, so {white:,} is white"
        certain = white == _CERTAIN[self.kind] or white == _SIGNED
        return _Levels(0, white, () if certain else (guess,))


def unsupported_tiff(data: bytes) -> str:
    """Describe a TIFF that Pillow does not read; empty if it is another file."""
    if not data.startswith(_TIFF):
        return ""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        file = BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        channels, depth, form = tags.get(_CHANNELS, 1), _first(tags[_BITS]), _first(tags.get(_FORMAT, 1))
    except Exception:  # of what a broken file makes of its fields
        return ""
    numbers = f"{channels} x {depth} bits of {_FORMATS.get(form, 'another kind')}"
    return f"a kind of TIFF that is not read: {numbers} a pixel; save it with 16 bits"


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value
