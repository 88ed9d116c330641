"""JPEG files to pixels: damage is an error, untidiness is not.

Between `catsweep.data.decode` and libjpeg. The library has one sort of warning for pixels that are lost and for headers
that are merely odd; Pillow, browsers and OpenCV pass over both, so that a damaged photo has grey blocks or a shifted
half. Here each warning is an error at first. Then what loses no pixel is put in order and the file is read again as
strictly: whatever is still complained of is damage.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import simplejpeg
from numpy.typing import NDArray

# ITU-T T.81, table B.1: second bytes of markers.
SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
_SEQUENTIAL = (0xC0, 0xC1, 0xC9)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # without a length
_JFIF, _ADOBE = (0xE0, b"JFIF\0"), (0xEE, b"Adobe")
PROGRAMS = frozenset({*range(0xE0, 0xF0), 0xFE})  # for programs and people; of two of them pixels depend
MARKER = re.compile(rb"\xff([^\x00\xff])")
_END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0x([0-9a-f]{2})")
_AHEAD = 8  # bytes behind the last block that libjpeg may have taken in, and does not count among those that it left
_TRIES = 64  # scans that may have padding; encoders write ten for three colours and twenty for four inks


class Unchecked(ValueError):
    """A file that may well be sound, but is of a sort that libjpeg's strict half does not read."""


@dataclass(frozen=True)
class _Part:
    """A marker with what belongs to it; for a scan also its entropy-coded data."""

    code: int
    body: bytes = b""
    coded: bytes = b""

    def __bytes__(self) -> bytes:
        return b"\xff" + bytes([self.code]) + self.body + self.coded


def decode(data: bytes, colours: str) -> tuple[NDArray[np.uint8], bytes]:
    """Decode a JPEG file of which no pixel is lost.

    Passed over are: bytes between segments and behind the picture, a scan header of a sequential file that says
    anything else than 0, 63, 0 (as some phones write it), an unknown revision of JFIF or unknown colour transform of
    Adobe, segments of programs that are broken, padding before a marker, a missing end marker.

    Args:
        data: the file.
        colours: `RGB` or `CMYK`.

    Returns:
        uint8, shape (H, W, 3 or 4), as stored, and the file as it can be read without a complaint.

    Raises:
        Unchecked: its colours are stored in a resolution that has no name, such as a third of the width.
        ValueError: with what libjpeg says of it.
    """
    try:
        return _strictly(data, colours), data
    except Unchecked:
        raise
    except ValueError:
        parts = list(_tidied(data, colours))
    if not _shows_all(parts):
        raise ValueError("it ends early")
    if parts[-1].code != EOI:
        parts.append(_Part(EOI))
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
    """The parts of a file that decide its pixels, with headers as the standard has them.

    Raises:
        ValueError: it ends within a segment.
    """
    yield _Part(SOI)
    place, frame = 2, 0
    while (found := MARKER.search(data, place)) is not None:
        code, place = found[1][0], found.end()
        if code == EOI:
            yield _Part(EOI)
            return
        if code in ALONE:
            continue
        end = place + int.from_bytes(data[place : place + 2])
        body, place = data[place:end], end
        if len(data) < end:
            raise ValueError("it ends early")
        frame = code if code in _FRAMES else frame
        if code == SOS:
            after = _END_OF_SCAN.search(data, end)
            place = len(data) if after is None else after.start()
            sequential = frame in _SEQUENTIAL
            yield _Part(code, body[:-3] + b"\0\x3f\0" if sequential else body, data[end:place].rstrip(b"\xff"))
        elif code not in PROGRAMS:
            yield _Part(code, body)
        elif (code, body[2:7]) == _JFIF and len(body) >= 16:
            yield _Part(code, body[:7] + b"\1\1" + body[9:])
        elif (code, body[2:7]) == _ADOBE and len(body) >= 14:
            meant = 1 if colours == "RGB" else 2  # what is assumed of another than 0 (as stored) and this
            yield _Part(code, body[:13] + bytes([meant if body[13] else 0]) + body[14:])


def _shows_all(parts: Sequence[_Part]) -> bool:
    """Whether the scans hold each coefficient of each component to its last bit."""
    frames = [part.body for part in parts if part.code in _FRAMES]
    if not frames:
        return False
    missing = {(component, place) for component in frames[0][8::3] for place in range(64)}
    for scan in (part.body for part in parts if part.code == SOS):
        first, last, bits = scan[-3:]
        if bits & 15 == 0:
            missing -= {(component, place) for component in scan[3:-3:2] for place in range(first, last + 1)}
    return not missing


def _unpadded(parts: Sequence[_Part], said: str) -> list[_Part] | None:
    """The parts without the padding behind a scan's data that libjpeg complains of; None if it is no padding.

    What is left over may as well be data that lost their place after damage, or zeros in the place of data. Padding is
    one byte repeated, of which next to nothing was taken for data. A few bytes that are not 0 may be equal by chance.
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
