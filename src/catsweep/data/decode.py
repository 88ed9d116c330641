"""Read one photo, defensively, once: any file in, uint8 RGB or a reason out.

First step of making a ready set. What a user's folder holds is not to be trusted (truncated downloads,
text named .jpg, named pipes, links, decompression bombs), so every check is here and nothing after it
needs one. Thread-safe; the heavy parts release the interpreter's lock. However many threads decode, they
take no more than `MAX_MEMORY`. What damage of a JPEG is, says `catsweep.data.jpeg`.
"""

import errno
import os
import stat
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from catsweep.data import headers, jpeg, levels
from catsweep.data.colour import conversion
from catsweep.data.memory import Budget, give_back
from catsweep.data.pixels import BACKGROUND, bands, orientation, to_rgb, upright
from catsweep.errors import DataError

__all__ = ["BACKGROUND", "FORMATS", "Unreadable", "decode", "decode_bytes", "decoding", "heif_is_there", "read_bytes"]

# Formats that are pictures and whose readers are safe enough; never EPS (runs Ghostscript) or WMF. JPEG stands for
# MPO too, the two-lens sort of phones. HEIF is read if pillow-heif is there.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
Image.init()  # else Pillow looks for names in FORMATS before it has loaded their readers
MAX_BYTES = 1 << 26
MAX_SIDE = 32_766  # OpenCV warps nothing longer
MAX_MEMORY = 576 << 20  # bytes that decoding may take at a time: one JPEG of 67 megapixels, or many small photos
LARGE = 64 << 20
# Bytes per pixel that reading a format takes at its peak, the result included: measured, the dearest variant of each.
_COST = {"AVIF": 20, "BMP": 8, "GIF": 8, "HEIF": 20, "JPEG": 9, "JPEG2000": 28, "MPO": 9, "PNG": 8, "PPM": 8}
_COST |= {"TIFF": 12, "WEBP": 24}
# Passes over a pixel: a progressive JPEG of a few kilobytes may ask for thousands of passes over all of them.
_SCAN = b"\xff\xda"  # opens one; stands by chance in data that some phones append, too
MAX_PASSES = 5_000_000_000
MEMORY = Budget(MAX_MEMORY)


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


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        pixels: uint8, shape (H, W, 3), sRGB, upright (EXIF orientation applied), C-contiguous.
        notes: what had to be assumed, or was ignored, for the manifest; "what: details" each.
    """

    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


def decode(path: str | Path) -> NDArray[np.uint8]:
    """Read a photo.

    Args:
        path: an image file of one of `FORMATS`, whatever its name says.

    Returns:
        `Photo.pixels`.

    Raises:
        Unreadable: for whatever reason the file is not a usable photo; nothing else is raised.
    """
    return decode_bytes(read_bytes(path))


def read_bytes(path: str | Path, limit: int = MAX_BYTES) -> bytes:
    """Read a regular, non-empty file of at most `limit` bytes; links, pipes and folders are not even opened.

    Raises:
        Unreadable: if it is anything else, or may not be read.
    """
    return _read(path, limit, limit)


def read_start(path: str | Path, count: int) -> bytes:
    """The first bytes of a file, as `read_bytes`, whatever its size."""
    return _read(path, count, sys.maxsize)


def _read(path: str | Path, count: int, limit: int) -> bytes:
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
            return file.read(count)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # of this process, not of this photo
            raise
        raise Unreadable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def decode_bytes(data: bytes) -> NDArray[np.uint8]:
    """Turn the bytes of an image file into pixels; as `decode`, for bytes already read."""
    with decoding(data) as photo:
        return photo.pixels


@contextmanager
def decoding(data: bytes) -> Iterator[Photo]:
    """As `decode_bytes`, with notes, for a photo that is needed only while the block runs.

    Until then its memory counts, so make a small one of it in the block. Blocks must not be nested: the inner one
    could wait for the outer one.
    """
    with _reasons():
        image, data, notes = _opened(data)
        cost = _cost(image, data)
    with MEMORY.hold(cost):
        if cost > LARGE:
            give_back()
        with _reasons(), closing(image):
            photo = _photo(image, data)
        yield replace(photo, notes=notes + photo.notes)


def _opened(data: bytes) -> tuple[Image.Image, bytes, tuple[str, ...]]:
    """An image whose pixels are not read yet, with the file without what hinders that, and notes on it."""
    data, notes = headers.png(data)
    try:
        return Image.open(BytesIO(data), formats=(*FORMATS, *_heif(data))), data, notes
    except (Unreadable, Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise
    except Exception:
        for fewer, notes in headers.jpegs(data):
            with suppress(Exception):  # of Pillow's zoo; the first one is told if none does
                return Image.open(BytesIO(fewer), formats=FORMATS), fewer, notes
        if kind := levels.unread(data):
            raise Unreadable(kind) from None
        raise


def _cost(image: Image.Image, data: bytes) -> int:
    """Bytes that decoding will take; refuses what takes too many, before it is decoded."""
    cost = _COST[str(image.format)]
    if image.format == "HEIF" and (image.info.get("bit_depth"), image.info.get("chroma")) == (8, 420):
        cost = 12  # as phones write it, with 48 megapixels
    elif image.mode == "CMYK":
        cost = 12
    elif image.mode in ("RGB", "RGBA") and image.format in ("PNG", "TIFF"):
        cost += 8 * (levels.bits(image, data) == 16)  # read twice
    pixels = image.width * image.height
    most = MAX_MEMORY // cost
    size = f"too many pixels: {image.width} x {image.height}"
    if max(image.size) > MAX_SIDE:
        raise Unreadable(f"{size}, at most {MAX_SIDE:,} a side")
    if pixels > most:
        raise Unreadable(f"{size}, at most {most / 1e6:.0f} million of {image.format}; save it smaller")
    if image.info.get("progressive") and pixels * (passes := data.count(_SCAN)) > MAX_PASSES:
        raise Unreadable(f"{size} in {passes:,} passes; save it anew")
    return cost * pixels


def _photo(image: Image.Image, data: bytes) -> Photo:
    convert, stored = conversion(image), image
    notes = convert.notes
    if image.format in ("JPEG", "MPO"):
        try:
            pixels, tidy = jpeg.decode(data, "CMYK" if image.mode == "CMYK" else "RGB")
        except jpeg.Unchecked:
            notes += ("not checked for damage: its subsampling is unusual",)
        else:
            if image.mode != "CMYK":
                return Photo(upright(convert.of_pixels(pixels), orientation(image)), notes)
            del pixels  # only checked: Pillow knows Adobe's inverted inks
            stored = image if tidy is data else Image.open(BytesIO(tidy), formats=("JPEG",))
    stored.load()  # an animated file stands at its first frame
    turn = orientation(image)  # asked only now: a TIFF was turned as it was loaded
    scale = None
    if stored.mode.startswith(("I", "F")):
        scale = levels.of_greys(stored, data, (np.asarray(band) for _, band in bands(stored)))
        notes += scale.notes
    elif (wide := levels.of_colours(stored, data)) is not None:
        stored, notes = wide[0], notes + wide[1]
    return Photo(to_rgb(stored, turn, convert, scale), notes)


def _heif(data: bytes) -> tuple[str, ...]:
    """The name of Pillow's reader, for a file of Apple's sort.

    Raises:
        Unreadable: the optional package that reads it is not installed.
    """
    brands = data[8:64]
    if data[4:8] != b"ftyp" or not any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx")):
        return ()
    if not heif_is_there():
        raise Unreadable("HEIF is not read without its package: pip install pillow-heif")
    _register_heif()
    return ("HEIF",)


@cache
def heif_is_there() -> bool:
    """Whether HEIF can be read."""
    return find_spec("pillow_heif") is not None


@cache
def _register_heif() -> None:
    """Done when it is first needed, for it takes time."""
    from pillow_heif import register_heif_opener

    register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)


@contextmanager
def _reasons() -> Iterator[None]:
    """Whatever goes wrong in the block comes out as `Unreadable`.

    Pillow's readers raise a zoo (OSError, SyntaxError, struct.error, KeyError, MemoryError, zlib.error, …), and no
    bug in one of them on one odd file may stop a run.
    """
    try:
        with _pillow_warnings():
            yield
    except Unreadable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise Unreadable(f"too many pixels: {error}") from error
    except UnidentifiedImageError as error:
        raise Unreadable(f"not an image: none of {', '.join(FORMATS)}") from error
    except Exception as error:
        said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise Unreadable(f"damaged or truncated: {' '.join(said.split())[:200]}") from error


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
