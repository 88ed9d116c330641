"""What of a file's head Pillow cannot read, though no pixel depends on it, is left out.

First half of `catsweep.data.decode`. Programs write their own segments (JPEG) and chunks (PNG) into photos: profiles,
comments, the whole workflow that made a picture. Pillow gives up a file for one of them that is broken or long, where
browsers pass over it. Each is tried on its own, so that the turn and the colours that others tell are kept.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise

from PIL import Image

from catsweep.data.jpeg import ALONE, MARKER, PROGRAMS, SOS

_MOST = 200  # segments or chunks of a file that are tried; phones write ten, and long profiles take some
_PNG = b"\x89PNG\r\n\x1a\n"
_PIXEL = struct.pack(">II5B", 1, 1, 8, 2, 0, 0, 0)  # the content of IHDR: one, of eight bits, in colour
# Chunks that are not critical, but decide what is shown: of transparency and of animations.
_SHOWN = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_TURNS = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")  # texts that may say how a photo lies


def jpegs(data: bytes) -> Iterator[tuple[bytes, tuple[str, ...]]]:
    """A JPEG file that Pillow does not open, with less and less of what programs put in its head, and notes."""
    if not data.startswith(b"\xff\xd8"):
        return
    parts, rest = _head(data)
    needed = b"".join(part for code, part in parts if code not in PROGRAMS and code not in ALONE)
    scan = rest[: 2 + int.from_bytes(rest[2:4])]
    tried = [place for place, (code, _) in enumerate(parts) if code in PROGRAMS][:_MOST]
    good = frozenset(place for place in tried if _opens(data[:2] + parts[place][1] + needed + scan))
    for kept in (good, frozenset[int]()):
        left_out = [code for place, (code, _) in enumerate(parts) if code in PROGRAMS and place not in kept]
        chosen = (part for at, (code, part) in enumerate(parts) if code not in ALONE and _wanted(code, at in kept))
        names = dict.fromkeys("COM" if code == 0xFE else f"APP{code - 0xE0}" for code in left_out)
        notes = tuple(f"segment ignored: {name} cannot be read" for name in names)
        yield data[:2] + b"".join(chosen) + rest, notes


def _wanted(code: int, kept: bool) -> bool:
    return kept or code not in PROGRAMS


def _head(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The segments of a JPEG before its first scan, each with its code; and everything from there on."""
    parts: list[tuple[int, bytes]] = []
    place = after = 2
    while (found := MARKER.search(data, place)) is not None and (code := found[1][0]) != SOS:
        place = found.end()
        if code not in ALONE:
            place += max(2, int.from_bytes(data[place : place + 2]))
        if place > len(data):
            return parts, data[after:]
        parts.append((code, data[found.start() : place]))
        after = place
    return parts, data[found.start() if found else after :]


def png(data: bytes) -> tuple[bytes, tuple[str, ...]]:
    """A PNG file without its texts and without what cannot be read of its other optional chunks, with notes.

    Of texts only those are kept that may say how the photo lies. Anything else comes back as it is.
    """
    if not data.startswith(_PNG):
        return data, ()
    spans, dropped, tried, place, name = [(0, len(_PNG))], dict[str, None](), 0, len(_PNG), b""
    while name != b"IEND" and (end := place + 12 + int.from_bytes(data[place : place + 4])) <= len(data):
        name, start, place = data[place + 4 : place + 8], place, end
        if name in _TEXTS and not data.startswith(_TURNS, start + 8):
            continue
        optional = name[:1].islower() and name not in _SHOWN
        if not optional or (tried < _MOST and _opens(_single(data[start:end]))):
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


def _single(chunk: bytes) -> bytes:
    """A PNG of nothing else; its picture is not needed."""
    return _PNG + _chunk(b"IHDR", _PIXEL) + chunk + _chunk(b"IDAT", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _opens(data: bytes) -> bool:
    try:
        Image.open(BytesIO(data), formats=("JPEG", "PNG")).close()
    except Exception:  # of Pillow's zoo
        return False
    return True
