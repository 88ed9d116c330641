"""Read one photo, defensively, once: any file in, uint8 RGB or a reason out.

First step of making a ready set. What a user's folder holds is not to be trusted (truncated downloads,
text named .jpg, named pipes, links, decompression bombs), so every check is here and nothing after it
needs one. Thread-safe; the heavy parts release the interpreter's lock.
"""

import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from catsweep.errors import DataError

# Formats that are pictures and whose readers are safe enough; never EPS (runs Ghostscript) or WMF. JPEG stands for
# MPO too, the two-lens sort of phones.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
Image.init()  # else Pillow looks for names in FORMATS before it has loaded their readers
MAX_BYTES = 1 << 29
MAX_SIDE = 32_766  # OpenCV warps nothing longer
# Mid-grey under transparent pixels: neither white fur nor black fur melts into it.
BACKGROUND = (128, 128, 128, 255)
# EXIF 2.32, tag 0x0112: how the stored picture has to be turned to stand upright.
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Unreadable(DataError):
    """A file that is left out of a ready set.

    Args:
        reason: "what is wrong: details"; the part before the colon is what the summary line counts by.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def kind(self) -> str:
        """The part of the reason that is the same for all files of this sort."""
        return self.reason.split(":", 1)[0]


def decode(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo.

    Args:
        path: an image file of one of `FORMATS`, whatever its name says.

    Returns:
        uint8, shape (H, W, 3), RGB, upright (EXIF orientation applied), C-contiguous.

    Raises:
        Unreadable: for whatever reason the file is not a usable photo; nothing else is raised.
    """
    return decode_bytes(read_bytes(path))


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular, non-empty file of at most `limit` bytes; links, pipes and folders are not even opened.

    Raises:
        Unreadable: if it is anything else, or may not be read.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"not a regular file: {_kind(status.st_mode)}")
        if status.st_size == 0:
            raise Unreadable("empty file")
        if status.st_size > limit:
            raise Unreadable(f"file too large: {status.st_size:,} bytes, at most {limit:,} are read")
        # The flags hold the answers of lstat even if the file is swapped in between.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            return file.read(limit)
    except (OSError, ValueError) as error:
        raise Unreadable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def decode_bytes(data: bytes) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into pixels; as `decode`, for bytes already read."""
    # Pillow's readers raise a zoo (OSError, SyntaxError, struct.error, KeyError, MemoryError, zlib.error, …),
    # and no bug in one of them on one odd file may stop a run.
    try:
        with _pillow_warnings():
            return _decode(data)
    except Unreadable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"not an image: none of {', '.join(FORMATS)}") from error
    except Exception as error:
        raise Unreadable(f"damaged or truncated: {type(error).__name__}: {error}") from error


def _decode(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if max(image.size) > MAX_SIDE:
            raise Unreadable(f"too many pixels: {image.width} x {image.height}, at most {MAX_SIDE} a side")
        frame: Image.Image = image  # an animated file stands at its first frame
        if image.format in ("JPEG", "MPO"):
            frame = _strict_jpeg(image, data)
        frame.load()
        return np.ascontiguousarray(_to_rgb(_upright(frame)), dtype=np.uint8)


def _strict_jpeg(image: Image.Image, data: bytes) -> Image.Image:
    """Decode a JPEG so that damage is an error; Pillow and OpenCV return grey blocks without a word."""
    try:
        if image.mode == "CMYK":  # Pillow knows Adobe's inverted inks, so simplejpeg only checks
            simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=True)
            return image
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError as error:
        raise Unreadable(f"damaged or truncated: {error}") from error
    frame = Image.fromarray(pixels)
    frame.info = image.info  # holds the EXIF block that _upright reads
    return frame


def _upright(image: Image.Image) -> Image.Image:
    """Turn a photo as its EXIF block says.

    Not by `ImageOps.exif_transpose`, which also writes the block anew and fails on oddities elsewhere in it.
    """
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a broken EXIF block says nothing against the pixels, which are decoded by now
        return image
    return image if turn is None else image.transpose(turn)


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Any colour mode to RGB, uint8 (H, W, 3)."""
    if image.mode.startswith(("I", "F")):
        levels = _to_levels(np.asarray(image))
        return np.repeat(levels[..., None], 3, axis=2)
    if image.has_transparency_data:
        above = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", above.size, BACKGROUND), above)
    return np.asarray(image.convert("RGB"))


def _to_levels(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Scale grey values of more than 8 bits to 0…255, where Pillow would clip them at 255.

    16-bit values are scaled by their full range. 32-bit and floating values carry no range of their own, so the
    smallest usual one that holds them is taken (1 for floats, 255, 65,535), else their own minimum and maximum.
    """
    wide = values.astype(np.float64)
    if not np.isfinite(wide).all():
        raise Unreadable("damaged or truncated: grey values that are not finite")
    low, high = float(wide.min()), float(wide.max())
    usual = {"u": (65535.0,), "i": (255.0, 65535.0), "f": (1.0, 255.0, 65535.0)}[values.dtype.kind]
    full = next((limit for limit in usual if low >= 0 and high <= limit), None)
    scaled = (wide - low) / max(high - low, 1e-12) if full is None else wide / full
    return np.rint(scaled * 255).astype(np.uint8)


def _kind(mode: int) -> str:
    names = {
        stat.S_IFLNK: "a link (links are not followed)",
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return names.get(stat.S_IFMT(mode), "neither file nor folder")


_lock = threading.Lock()
_inside = 0
_filters = ExitStack()


@contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Decompression bombs are errors; other warnings of Pillow (odd EXIF, odd palettes) are not worth a line.

    `warnings.catch_warnings` swaps process-wide state, so threads that decode at the same time share one:
    the first in sets it, the last out restores.
    """
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _filters.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _filters.close()
