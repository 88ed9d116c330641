"""What programs write beside the pixels costs no photo, whatever is wrong with it."""

import re
import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.data import profiles
from tests.decoded import decode_bytes

from catsweep.data.decode import Photo, Unreadable, decoding

SWAPPED = profiles.rgb(profiles.BLUE, profiles.GREEN, profiles.RED)  # its red is blue
PICTURE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)


def segment(code: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(content) + 2) + content


def chunk(name: bytes, content: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ wrong)


def encoded(form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(PICTURE).save(buffer, form, **options)
    return buffer.getvalue()


def decoded(data: bytes) -> Photo:
    with decoding(data) as photo:
        return photo


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


JPEG, PNG = encoded("JPEG"), encoded("PNG")
SEGMENTS = {
    "ICC": (0xE2, b"ICC_PROFILE\0\1\1" + SWAPPED[:60]),
    "JFIF": (0xE0, JPEG[6:20]),
    "EXIF": (0xE1, turned().tobytes()),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
    "Photoshop": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10" + bytes.fromhex("0048000000010001") * 2),
    "Adobe": (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "MPF": (0xE2, b"MPF\0" + struct.pack("<2sHIH", b"II", 42, 8, 3) + b"".join(
        struct.pack("<HHI4s", *entry)
        for entry in ((0xB000, 7, 4, b"0100"), (0xB001, 4, 1, b"\2\0\0\0"), (0xB002, 7, 32, b"\x32\0\0\0"))
    ) + bytes(36)),
    "comment": (0xFE, b"purr"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("APP2", segment(0xE2, b"ICC_PROFILE\0")),
        ("APP0", segment(0xE0, b"JFIF\0\1")),
        ("APP14", segment(0xEE, b"Adobe")),
        ("APP13", segment(0xED, b"Photoshop 3.0\x008BIM\x03\xed")),
    ],
)
def test_a_broken_segment_is_ignored_and_said_so(name: str, broken: bytes) -> None:
    for whole in (JPEG, encoded("JPEG", progressive=True)):
        photo = decoded(whole[:2] + broken + whole[2:])
        np.testing.assert_array_equal(photo.pixels, decode_bytes(whole))
        assert photo.notes == (f"segment ignored: {name} cannot be read",)


def test_a_marker_without_meaning_is_passed_over() -> None:
    photo = decoded(JPEG[:2] + b"\xff\1" + JPEG[2:])
    np.testing.assert_array_equal(photo.pixels, decode_bytes(JPEG))
    assert photo.notes == ()


def test_the_turn_and_the_colours_that_other_segments_tell_are_kept() -> None:
    whole = encoded("JPEG", exif=turned(), icc_profile=SWAPPED)
    photo = decoded(whole[:2] + segment(0xEE, b"Adobe") + whole[2:])
    np.testing.assert_array_equal(photo.pixels, decode_bytes(whole))
    assert photo.pixels.shape == (64, 48, 3)
    assert not np.array_equal(np.rot90(photo.pixels), decode_bytes(JPEG))


@settings(max_examples=300)
@given(kind=st.sampled_from(list(SEGMENTS)), data=st.data(), twice=st.booleans())
def test_no_segment_of_a_program_costs_a_photo(kind: str, data: st.DataObject, twice: bool) -> None:
    code, whole = SEGMENTS[kind]
    content = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 3)) if content else 0):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    broken = segment(code, bytes(content)) + (segment(*SEGMENTS[kind]) if twice else b"")
    assert decode_bytes(JPEG[:2] + broken + JPEG[2:]).size == PICTURE.size


def test_damage_beside_a_broken_segment_stays_damage() -> None:
    whole = JPEG[:2] + segment(0xEE, b"Adobe") + JPEG[2:]
    with pytest.raises(Unreadable, match="damaged or truncated"):
        decode_bytes(whole[:-200])
    with pytest.raises(Unreadable, match="not an image"):
        decode_bytes(re.sub(rb"\xff\xc0", b"\xff\xfe", whole))  # no frame


def test_a_file_of_segments_is_looked_at_no_longer_than_others() -> None:
    photo = decoded(JPEG[:2] + segment(0xEE, b"Adobe") * 3000 + JPEG[2:])
    np.testing.assert_array_equal(photo.pixels, decode_bytes(JPEG))


# --- PNG -----------------------------------------------------------------------------------------------------------

LONG = zlib.compress(bytes(2_000_000))


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"zTXt", b"Comment\0\0" + LONG),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + LONG),
        chunk(b"tEXt", b"prompt\0" + b"x" * 2_000_000),
        chunk(b"tEXt", b"a\0b", wrong=1),
    ],
)
@pytest.mark.parametrize("place", [33, len(PNG) - 12])
def test_texts_of_any_size_or_none_cost_no_photo(text: bytes, place: int) -> None:
    photo = decoded(PNG[:place] + text + PNG[place:])
    np.testing.assert_array_equal(photo.pixels, PICTURE)
    assert photo.notes == ()


@pytest.mark.parametrize(
    ("broken", "note"),
    [
        (chunk(b"iCCP", b"p\0\0" + LONG), "colour profile ignored: it cannot be read, or is too long"),
        (chunk(b"pHYs", b"\0"), "chunk ignored: pHYs cannot be read"),
        (chunk(b"gAMA", bytes(4), wrong=1), "chunk ignored: gAMA cannot be read"),
        (chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LONG), "chunk ignored: iTXt cannot be read"),
    ],
)
def test_a_broken_optional_chunk_is_ignored_and_said_so(broken: bytes, note: str) -> None:
    photo = decoded(PNG[:33] + broken + PNG[33:])
    np.testing.assert_array_equal(photo.pixels, PICTURE)
    assert photo.notes == (note,)


def test_a_text_that_says_how_the_photo_lies_is_kept() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="6"/></x:xmpmeta>'
    told = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
    np.testing.assert_array_equal(decode_bytes(PNG[:33] + told + PNG[33:]), np.rot90(PICTURE, -1))


def test_damaged_pixels_and_damaged_transparency_stay_refused() -> None:
    for broken in (PNG[:33] + chunk(b"tRNS", bytes(6), wrong=1) + PNG[33:], PNG[:-40]):
        with pytest.raises(Unreadable):
            decode_bytes(broken)
