"""From an image as Pillow holds it to uint8 RGB, upright, with little memory besides the result.

Second half of `catsweep.data.decode`. Works in bands: each step on the way, done to a whole photo of 60 megapixels,
would be another copy of 180 to 480 megabytes. Values of more than eight bits are scaled by what
`catsweep.data.levels` finds, and colours brought to sRGB by `catsweep.data.colour`.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from catsweep.data.colour import Conversion
from catsweep.data.levels import Scale

Pixels = NDArray[np.uint8]

# Mid-grey under transparent pixels: neither white fur nor black fur melts into it.
BACKGROUND = (128, 128, 128, 255)
BAND = 1 << 20  # pixels
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


def orientation(image: Image.Image) -> int:
    """What the EXIF block says, 1 to 8; 1 (as stored) if it says nothing that can be read.

    Not by `ImageOps.exif_transpose`, which also writes the block anew and fails on oddities elsewhere in it.
    """
    try:
        said = image.getexif().get(ExifTags.Base.Orientation)
        return int(said) if said in _STORED else 1
    except Exception:  # a broken EXIF block says nothing against the pixels
        return 1


def upright(stored: Pixels, turn: int) -> Pixels:
    """Turn pixels, (H, W, 3), as an EXIF orientation says; C-contiguous."""
    if turn == 1:
        return np.ascontiguousarray(stored)
    result, view = _canvas(stored.shape[0], stored.shape[1], turn)
    view[:] = stored
    return result


def to_rgb(image: Image.Image, turn: int, convert: Conversion, scale: Scale | None = None) -> Pixels:
    """Any colour mode to sRGB, turned upright: uint8 (H, W, 3), C-contiguous.

    Args:
        image: loaded.
        turn: EXIF orientation.
        convert: its colours.
        scale: its values of more than eight bits, where it has such.
    """
    result, view = _canvas(image.height, image.width, turn)
    transparent = scale is None and image.has_transparency_data
    for rows, band in bands(image):
        if scale is not None:
            band = Image.fromarray(scale(np.asarray(band)))
        view[rows] = np.asarray(_opaque(band, convert) if transparent else convert(band))
    return result


def _canvas(height: int, width: int, turn: int) -> tuple[Pixels, Pixels]:
    """Room for an upright picture, and a view of it in the order of the stored one, which has these sides."""
    result = np.empty((height, width, 3) if turn < 5 else (width, height, 3), np.uint8)
    return result, _STORED[turn](result)


def bands(image: Image.Image) -> Iterator[tuple[slice, Image.Image]]:
    """An image from top to bottom in pieces of at most `BAND` pixels, each with the rows that it has."""
    step = max(1, BAND // image.width)
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _opaque(band: Image.Image, convert: Conversion) -> Image.Image:
    above = convert(band).convert("RGBA")
    above.putalpha(band.convert("RGBA").getchannel("A"))
    return Image.alpha_composite(Image.new("RGBA", above.size, BACKGROUND), above).convert("RGB")
