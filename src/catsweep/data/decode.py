"""Decode one photo defensively: any file in, uint8 RGB or a reason out.

What a user's folder holds is not to be trusted (truncated downloads, text named .jpg, pipes, links, decompression
bombs), so every check is here. Thread-safe; however many threads decode, they take no more than `MAX_MEMORY`.

Programs write their own segments (JPEG) and chunks (PNG) into photos. Pillow gives up a file for one that is broken or
long, where browsers pass over it: each is tried on its own, and what cannot be read is left out, with a note.

A damaged JPEG is refused, an untidy one is not. libjpeg warns alike of lost pixels and of odd headers. Here each
warning is an error at first; then what loses no pixel is put in order and the file is read again as strictly.
"""

import errno
import os
import re
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from catsweep.data.pixels import conversion, orientation, stored_bits, to_rgb, unsupported_tiff, upright
from catsweep.data.threads import ByteSemaphore, trim_heap
from catsweep.errors import DataError

# Formats that are pictures and whose readers are safe enough; never EPS (runs Ghostscript) or WMF. JPEG stands for
# MPO too, the two-lens sort of phones. HEIF is read if pillow-heif is there.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
Image.init()  # else Pillow looks for names in FORMATS before it has loaded their readers
MAX_BYTES = 1 << 26
MAX_SIDE = 32_766  # OpenCV warps nothing longer
MAX_MEMORY = 576 << 20  # bytes that decoding may take at a time: one JPEG of 67 megapixels, or many small photos
LARGE = 64 << 20
# Bytes per pixel that reading a format takes at its peak, the result included: measured, the dearest variant of each.
COST = {"AVIF": 20, "BMP": 8, "GIF": 8, "HEIF": 20, "JPEG": 9, "JPEG2000": 28, "MPO": 9, "PNG": 8, "PPM": 8}
COST |= {"TIFF": 12, "WEBP": 24}
# Passes over a pixel: a progressive JPEG of a few kilobytes may ask for thousands of passes over all of them.
MAX_PASSES = 5_000_000_000
_FILE_TYPES = {
    stat.S_IFLNK: "a link (links are not followed)", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip
MEMORY = ByteSemaphore(MAX_MEMORY)
# ITU-T T.81, table B.1: second bytes of markers.
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # without a length
_JFIF, _ADOBE = (0xE0, b"JFIF\0"), (0xEE, b"Adobe")
_PROGRAMS = frozenset({*range(0xE0, 0xF0), 0xFE})  # for programs and people; of two of them pixels depend
_MARKER = re.compile(rb"\xff([^\x00\xff])")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_AHEAD = 8  # bytes behind the last block that libjpeg may have taken in, and does not count among those that it left
_TRIES = 64  # scans that may have padding; encoders write ten for three colours and twenty for four inks
_MOST = 200  # segments or chunks of a file that are tried; phones write ten, and long profiles take some
_PNG_START = b"\x89PNG\r\n\x1a\n"
_PIXEL = struct.pack(">II5B", 1, 1, 8, 2, 0, 0, 0)  # content of IHDR: one pixel of eight bits, in colour
# Chunks that are not critical, but decide what is shown: of transparency and of animations.
_SHOWN = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_TURNS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts that may say how a photo lies


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


_EMPTY = _PNG_START + _chunk(b"IHDR", _PIXEL)  # a PNG without a picture


class Unreadable(DataError):
    """Error of a file that is left out, with its reason: "what is wrong: details"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    @property
    def kind(self) -> str:
        """Part of the reason before the colon, by which a summary counts."""
        return self.reason.split(":", 1)[0]


@dataclass(frozen=True)
class Photo:
    """Decoded photo."""

    pixels: NDArray[np.uint8]  # shape (H, W, 3), sRGB, upright (EXIF orientation applied), C-contiguous
    notes: tuple[str, ...] = ()  # what had to be assumed, or was ignored; "what: details" each


def read_bytes(path: str | Path, limit: int = MAX_BYTES, count: int | None = None) -> bytes:
    """Read a regular, non-empty file of at most `limit` bytes, or its first `count`, or raise Unreadable.

    Links, pipes and folders are not even opened.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            kind = _FILE_TYPES.get(stat.S_IFMT(status.st_mode), "neither file nor folder")
            raise Unreadable(f"not a regular file: {kind}")
        check_size(status.st_size, limit)
        # The flags hold the answers of lstat even if the file is swapped in between.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(descriptor, "rb") as file:
            return file.read(limit if count is None else count)
    except (OSError, ValueError) as error:
        if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):  # of this process, not of this photo
            raise
        raise Unreadable(f"cannot be opened: {getattr(error, 'strerror', None) or error}") from error


def check_size(size: int, limit: int) -> None:
    """Refuse an empty file and one of more than `limit` bytes, by an Unreadable."""
    if size == 0:
        raise Unreadable("empty file")
    if size > limit:
        raise Unreadable(f"file too large: {size:,} bytes, at most {limit:,} are read")


def read_start(path: str | Path, count: int) -> bytes:
    """Read the first bytes of a file, as `read_bytes`, whatever its size."""
    return read_bytes(path, sys.maxsize, count)


@contextmanager
def decoding(data: bytes) -> Iterator[Photo]:
    """Decode the bytes of an image file, for use within the block, during which its memory counts. Not to be nested."""
    with _reasons():
        image, data, notes = _opened(data)
        cost = _cost(image, data)
    with MEMORY.hold(cost):
        if cost > LARGE:
            trim_heap()
        with _reasons(), closing(image):
            photo = _photo(image, data)
        yield replace(photo, notes=notes + photo.notes)


def _opened(data: bytes) -> tuple[Image.Image, bytes, tuple[str, ...]]:
    """Open an image without reading pixels; also return the file without what hinders that, and notes on it."""
    data, notes = _readable_png(data)
    try:
        return Image.open(BytesIO(data), formats=(*FORMATS, *_heif(data))), data, notes
    except (Unreadable, Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise
    except Exception:
        for fewer, notes in _readable_jpegs(data):
            with suppress(Exception):  # of many kinds; the first one is told if none opens
                return Image.open(BytesIO(fewer), formats=FORMATS), fewer, notes
        if kind := unsupported_tiff(data):
            raise Unreadable(kind) from None
        raise


def _cost(image: Image.Image, data: bytes) -> int:
    """Estimate the bytes that decoding takes; refuse what takes too many, before it is decoded."""
    cost = COST[str(image.format)]
    phone = image.format == "HEIF" and (image.info.get("bit_depth"), image.info.get("chroma")) == (8, 420)
    if phone or image.mode == "CMYK":
        cost = 12
    elif image.mode in ("RGB", "RGBA") and image.format in ("PNG", "TIFF"):
        cost += 8 * (stored_bits(image, data) == 16)  # read twice
    pixels = image.width * image.height
    most = MAX_MEMORY // cost
    size = f"too many pixels: {image.width} x {image.height}"
    if max(image.size) > MAX_SIDE:
        raise Unreadable(f"{size}, at most {MAX_SIDE:,} a side")
    if pixels > most:
        raise Unreadable(f"{size}, at most {most / 1e6:.0f} million of {image.format}; save it smaller")
    if image.info.get("progressive") and pixels * (passes := data.count(b"\xff\xda")) > MAX_PASSES:
        raise Unreadable(f"{size} in {passes:,} passes; save it anew")
    return cost * pixels


def _photo(image: Image.Image, data: bytes) -> Photo:
    convert, stored = conversion(image), image
    notes = convert.notes
    if image.format in ("JPEG", "MPO"):
        try:
            pixels, tidy = decode_jpeg(data, "CMYK" if image.mode == "CMYK" else "RGB")
        except Unchecked:
            notes += ("not checked for damage: its subsampling is unusual",)
        else:
            if image.mode != "CMYK":
                return Photo(upright(convert.of_pixels(pixels), orientation(image)), notes)
            del pixels  # only checked: Pillow knows Adobe's inverted inks
            stored = image if tidy is data else Image.open(BytesIO(tidy), formats=("JPEG",))
    stored.load()  # an animated file stands at its first frame
    turn = orientation(image)  # asked only now: a TIFF was turned as it was loaded
    result, further = to_rgb(stored, data, turn, convert)
    return Photo(result, notes + further)


def _heif(data: bytes) -> tuple[str, ...]:
    """Name Pillow's reader of HEIF for a file of that kind; raises Unreadable without the optional package."""
    brands = data[8:64]
    if data[4:8] != b"ftyp" or not any(brand in brands for brand in (b"heic", b"heix", b"hevc", b"hevx")):
        return ()
    if not heif_is_there():
        raise Unreadable("HEIF is not read without its package: pip install pillow-heif")
    from pillow_heif import register_heif_opener

    register_heif_opener(decode_threads=1, thumbnails=False, depth_images=False, aux_images=False)
    return ("HEIF",)


def heif_is_there() -> bool:
    """Tell whether HEIF can be read."""
    return find_spec("pillow_heif") is not None


@contextmanager
def _reasons() -> Iterator[None]:
    """Turn any error of the block into `Unreadable`: no bug of a reader on one odd file may stop a run."""
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


_lock = threading.Lock()
_inside = 0
_filters = ExitStack()


@contextmanager
def _pillow_warnings() -> Iterator[None]:
    """Make decompression bombs errors and ignore Pillow's other warnings (odd EXIF, odd palettes).

    `warnings.catch_warnings` swaps process-wide state, so threads that decode at the same time share one.
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


def _readable_jpegs(data: bytes) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """Yield a JPEG file that Pillow does not open with less and less of its optional segments, and notes."""
    if not data.startswith(b"\xff\xd8"):
        return
    parts, rest = _head(data)
    needed = b"".join(part for code, part in parts if code not in _PROGRAMS and code not in _ALONE)
    scan = rest[: 2 + int.from_bytes(rest[2:4])]
    tried = [place for place, (code, _) in enumerate(parts) if code in _PROGRAMS][:_MOST]
    good = frozenset(place for place in tried if _opens(data[:2] + parts[place][1] + needed + scan))
    for kept in (good, frozenset[int]()):
        left_out = {place: code for place, (code, _) in enumerate(parts) if code in _PROGRAMS and place not in kept}
        chosen = (part for at, (code, part) in enumerate(parts) if code not in _ALONE and at not in left_out)
        names = dict.fromkeys("COM" if code == 0xFE else f"APP{code - 0xE0}" for code in left_out.values())
        notes = tuple(f"segment ignored: {name} cannot be read" for name in names)
        yield data[:2] + b"".join(chosen) + rest, notes


def _head(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Split a JPEG into the segments before its first scan, each with its code, and everything from there on."""
    parts: list[tuple[int, bytes]] = []
    place = after = 2
    while (found := _MARKER.search(data, place)) is not None and (code := found[1][0]) != _SOS:
        place = found.end()
        if code not in _ALONE:
            place += max(2, int.from_bytes(data[place : place + 2]))
        if place > len(data):
            return parts, data[after:]
        parts.append((code, data[found.start() : place]))
        after = place
    return parts, data[found.start() if found else after :]


def _readable_png(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Leave out of a PNG texts, but of how it lies, and unreadable optional chunks, with notes on these."""
    if not data.startswith(_PNG_START):
        return data, ()
    spans, dropped, tried, place, name = [(0, len(_PNG_START))], dict[str, None](), 0, len(_PNG_START), b""
    while name != b"IEND" and (end := place + 12 + int.from_bytes(data[place : place + 4])) <= len(data):
        name, start, place = data[place + 4 : place + 8], place, end
        if name in _TEXTS and not data.startswith(_TURNS, start + 8):
            continue
        optional = name[:1].islower() and name not in _SHOWN
        if not optional or (tried < _MOST and _opens(_EMPTY + data[start:end] + _chunk(b"IDAT", b""))):
            spans.append((start, end))
        else:
            dropped[name.decode("ascii", "replace")] = None
        tried += optional
    spans.append((place, len(data)))
    if all(one[1] == other[0] for one, other in pairwise(spans)):
        return data, ()
    notes = [f"chunk ignored: {name} cannot be read" for name in dropped if name != "iCCP"]
    if "iCCP" in dropped:
        notes.append("colour profile ignored: it cannot be read, or is too long")
    return b"".join(data[start:end] for start, end in spans), tuple(notes)


def _opens(data: bytes) -> bool:
    try:
        Image.open(BytesIO(data), formats=("JPEG", "PNG")).close()
    except Exception:
        return False
    return True


class Unchecked(ValueError):
    """Error of a file that may be sound, but whose subsampling (such as a third of the width) is not decoded."""


@dataclass(frozen=True)
class _Part:
    """Marker of a JPEG with its segment; for a scan also its entropy-coded data."""

    code: int
    body: bytes = b""
    coded: bytes = b""

    def __bytes__(self) -> bytes:
        return b"\xff" + bytes([self.code]) + self.body + self.coded


def decode_jpeg(data: bytes, colours: str) -> tuple[NDArray[np.uint8], bytes]:
    """Decode a JPEG to uint8 (H, W, 3 or 4), `RGB` or `CMYK`, as stored, if no pixel is lost, and a tidy file.

    Passed over are: bytes between segments and behind the picture, a scan header of a sequential file that says
    anything else than 0, 63, 0 (as some phones write it), an unknown revision of JFIF or unknown colour transform of
    Adobe, segments of programs that are broken, padding before a marker, a missing end marker. Else ValueError, with
    what libjpeg says; Unchecked if it cannot tell.
    """
    try:
        return _strictly(data, colours), data
    except Unchecked:
        raise
    except ValueError:
        parts = list(_tidied(data, colours))
    if not _shows_all(parts):
        raise ValueError("it ends early")
    if parts[-1].code != _EOI:
        parts.append(_Part(_EOI))
    for _ in range(_TRIES):
        tidy = b"".join(map(bytes, parts))
        try:
            return _strictly(tidy, colours), tidy
        except ValueError as error:
            if (unpadded := _unpadded(parts, str(error))) is None:
                raise
            parts = unpadded
    raise ValueError(f"{_TRIES} scans with padding")


def _strictly(data: bytes, colours: str) -> NDArray[np.uint8]:
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colorspace=colours, strict=True)
    except ValueError as error:
        if "subsampling" in str(error):
            raise Unchecked(str(error)) from error
        raise
    return pixels


def _tidied(data: bytes, colours: str) -> Iterator[_Part]:
    """Yield the parts of a file that decide its pixels, with headers as the standard has them."""
    yield _Part(_SOI)
    place, frame = 2, 0
    while (found := _MARKER.search(data, place)) is not None:
        code, place = found[1][0], found.end()
        if code == _EOI:
            yield _Part(_EOI)
            return
        if code in _ALONE:
            continue
        end = place + int.from_bytes(data[place : place + 2])
        body, place = data[place:end], end
        if len(data) < end:
            raise ValueError("it ends early")
        frame = code if code in _FRAMES else frame
        if code == _SOS:
            after = _END_OF_SCAN.search(data, end)
            place = len(data) if after is None else after.start()
            sequential = frame in _SEQUENTIAL
            yield _Part(code, body[:-3] + b"\0\x3f\0" if sequential else body, data[end:place].rstrip(b"\xff"))
        elif code not in _PROGRAMS:
            yield _Part(code, body)
        elif (code, body[2:7]) == _JFIF and len(body) >= 16:
            yield _Part(code, body[:7] + b"\1\1" + body[9:])
        elif (code, body[2:7]) == _ADOBE and len(body) >= 14:
            meant = 1 if colours == "RGB" else 2  # what is assumed of another than 0 (as stored) and this
            yield _Part(code, body[:13] + bytes([meant if body[13] else 0]) + body[14:])


def _shows_all(parts: Sequence[_Part]) -> bool:
    """Tell whether the scans hold each coefficient of each component to its last bit."""
    frames = [part.body for part in parts if part.code in _FRAMES]
    if not frames:
        return False
    missing = {(component, place) for component in frames[0][8::3] for place in range(64)}
    for scan in (part.body for part in parts if part.code == _SOS):
        first, last, bits = scan[-3:]
        if bits & 15 == 0:
            missing -= {(component, place) for component in scan[3:-3:2] for place in range(first, last + 1)}
    return not missing


def _unpadded(parts: Sequence[_Part], said: str) -> list[_Part] | None:
    """Remove the padding behind a scan's data that libjpeg complains of; None if it is no padding.

    What is left over may also be misplaced data, or zeros in the place of data. Padding is one byte repeated, of which
    next to nothing was taken for data. A few bytes that are not 0 may be equal by chance.
    """
    if (left := _LEFT_OVER.search(said)) is None:
        return None
    count, code = int(left[1]), int(left[2], 16)
    for place, (part, after) in enumerate(pairwise(parts)):
        run = len(part.coded) - len(part.coded.rstrip(part.coded[-1:]))
        likely = run >= _AHEAD or part.coded.endswith(b"\0")
        if after.code == code and count <= run <= count + _AHEAD and likely:
            return [*parts[:place], replace(part, coded=part.coded[:-count]), *parts[place + 1 :]]
    return None
