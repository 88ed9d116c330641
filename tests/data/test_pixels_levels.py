import struct
import zlib
from io import BytesIO
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from catsweep.data.decode import Photo, Unreadable, decoding

RAMP = np.linspace(0, 4095, 48 * 64).astype(np.uint16).reshape(48, 64)
COLOURS = np.stack([RAMP, RAMP // 2, RAMP[::-1]], -1)
MAX, S_MAX = 281, 341


def decoded(data: bytes) -> Photo:
    with decoding(data) as photo:
        return photo


def encoded(values: NDArray[Any], form: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(values).save(buffer, form)
    return buffer.getvalue()


def tiff(
    values: NDArray[Any], tags: dict[int, int] | None = None, order: Any = "<", white_is_zero: bool = False
) -> bytes:
    """An uncompressed TIFF, of 16 bits unless the values have others, with further tags of type SHORT."""
    height, width, channels = (*values.shape, 1)[:3]
    kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    body = values.astype(values.dtype.newbyteorder(order)).tobytes()
    several = (
        {258: 8 * values.itemsize}
        | ({} if kind == 1 else {339: kind})
        | {tag: value for tag, value in (tags or {}).items() if tag != 274}
    )
    interpretation = 0 if white_is_zero else 1 if channels == 1 else 2
    single = {256: width, 257: height, 259: 1, 262: interpretation, 274: (tags or {}).get(274, 1), 277: channels}
    single |= {278: height} | ({338: 2} if channels == 4 else {})
    entries, tail = [], b""
    after = 8 + len(body) + 2 + 12 * (len(several) + len(single) + 2) + 4
    for tag, value in sorted((several | single | {273: 8, 279: len(body)}).items()):
        if tag in several and channels > 2:
            entries.append(struct.pack(f"{order}HHII", tag, 3, channels, after + len(tail)))
            tail += struct.pack(f"{order}{channels}H", *[value] * channels)
        elif tag in (273, 279):
            entries.append(struct.pack(f"{order}HHII", tag, 4, 1, value))
        else:
            entries.append(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0))
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(body))
    return head + body + struct.pack(f"{order}H", len(entries)) + b"".join(entries) + bytes(4) + tail


def png(values: NDArray[np.uint16], significant: int | None = None) -> bytes:
    data = cv2.imencode(".png", values if values.ndim == 2 else values[..., ::-1])[1].tobytes()
    if significant is None:
        return data
    content = bytes([significant] * (1 if values.ndim == 2 else 3))
    chunk = struct.pack(">I", len(content)) + b"sBIT" + content
    return data[:33] + chunk + struct.pack(">I", zlib.crc32(chunk[4:])) + data[33:]


def scaled(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    grey = np.rint(values / white * 255).astype(np.uint8)
    return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)


@pytest.mark.parametrize("values", [RAMP, COLOURS])
@pytest.mark.parametrize("order", ["<", ">"])
def test_twelve_bits_in_sixteen_are_no_black_picture(values: NDArray[np.uint16], order: str) -> None:
    photo = decoded(tiff(values, order=order))
    np.testing.assert_array_equal(photo.pixels, scaled(values, 4095))
    assert photo.notes == ("levels by their range: the largest is 4,095, so 4,095 is white",)
    np.testing.assert_array_equal(decoded(png(values)).pixels, photo.pixels)


@pytest.mark.parametrize(("largest", "white"), [(200, 255), (700, 1023), (3000, 4095), (12_000, 16_383)])
@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_the_smallest_usual_range_that_holds_all_is_taken(values: NDArray[np.uint16], largest: int, white: int) -> None:
    dark = (values / 4095 * largest).astype(np.uint16)
    photo = decoded(tiff(dark))
    np.testing.assert_array_equal(photo.pixels, scaled(dark, white))
    assert photo.notes == (f"levels by their range: the largest is {largest:,}, so {white:,} is white",)


@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_what_the_numbers_themselves_can_hold_needs_no_note(values: NDArray[np.uint16]) -> None:
    for data in (tiff(values * 16), png(values * 16)):
        photo = decoded(data)
        assert np.abs(photo.pixels.astype(int) - scaled(values * 16, 65535)).max() <= 1
        assert photo.notes == ()


@pytest.mark.parametrize("tag", [MAX, S_MAX])
@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_what_a_tiff_says_comes_first(values: NDArray[np.uint16], tag: int) -> None:
    dark = values // 8
    photo = decoded(tiff(dark, {tag: 4095}))
    np.testing.assert_array_equal(photo.pixels, scaled(dark, 4095))
    assert photo.notes == ("levels as the file says: 4,095 is white",)


@pytest.mark.parametrize("said", [65_535, 0, 900])
def test_what_says_nothing_or_cannot_be_is_passed_over(said: int) -> None:
    np.testing.assert_array_equal(decoded(tiff(RAMP, {MAX: said})).pixels, scaled(RAMP, 4095))


@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_what_a_png_says_comes_first(values: NDArray[np.uint16]) -> None:
    dark = values // 8
    photo = decoded(png(dark, 12))
    np.testing.assert_array_equal(photo.pixels, scaled(dark, 4095))
    assert photo.notes == ("levels as the file says: 4,095 is white",)
    whole = decoded(png(values * 16, 12))  # as the standard has it: scaled to all sixteen
    assert np.abs(whole.pixels.astype(int) - scaled(values * 16, 65535)).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_turned_upright_as_any_other(orientation: int) -> None:
    eight = decoded(tiff(COLOURS * 16, {274: orientation})).pixels  # by Pillow alone
    twelve = decoded(tiff(COLOURS, {274: orientation})).pixels
    assert np.abs(twelve.astype(int) - eight).max() <= 1


def test_white_may_be_zero() -> None:
    np.testing.assert_array_equal(decoded(tiff(RAMP, white_is_zero=True)).pixels, scaled(4095 - RAMP, 4095))


def test_transparency_keeps_its_own_levels() -> None:
    opaque = np.full((48, 64, 1), 65_535, np.uint16)
    opaque[:24] = 0
    pixels = decoded(tiff(np.concatenate([COLOURS, opaque], -1))).pixels
    assert (pixels[:24] == 128).all()
    np.testing.assert_array_equal(pixels[24:], scaled(COLOURS, 4095)[24:])


def test_floats_and_long_numbers_say_so_where_they_are_guessed() -> None:
    for values, notes in (
        (RAMP.astype(np.float32) / 4095, ()),
        (RAMP.astype(np.float32), ("levels by their range: the largest is 4,095, so 4,095 is white",)),
        (RAMP.astype(np.float32) - 5, ("levels by their range: -5 is black, 4,090 white",)),
        (RAMP.astype(np.int32), ("levels by their range: the largest is 4,095, so 4,095 is white",)),
        (RAMP.astype(np.int32) * 100, ("levels by their range: 0 is black, 409,500 white",)),
    ):
        photo = decoded(encoded(values, "TIFF"))
        assert photo.notes == notes
        np.testing.assert_array_equal(photo.pixels, scaled(RAMP, 4095))


# --- beyond the range ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_a_hot_pixel_makes_no_black_picture(values: NDArray[np.uint16]) -> None:
    hot = values.copy()
    hot[5, 5] = 65_535
    for data in (tiff(hot), png(hot)):
        photo = decoded(data)
        np.testing.assert_array_equal(photo.pixels, scaled(hot.clip(max=4095), 4095))
        assert len(photo.notes) == 1
        assert photo.notes[0].startswith(f"levels by their range: all but {hot[5, 5].size} values of {hot.size:,} are ")
    np.testing.assert_array_equal(decoded(tiff(hot, {MAX: 4095})).pixels, scaled(hot.clip(max=4095), 4095))


@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_more_than_a_few_bright_ones_are_the_range(values: NDArray[np.uint16]) -> None:
    bright = values.copy()
    bright[:2] = 65_535
    photo = decoded(tiff(bright))
    assert np.abs(photo.pixels.astype(int) - scaled(bright, 65_535)).max() <= 1
    assert photo.notes == ()


def test_floats_may_go_a_little_beyond_white_and_black() -> None:
    unit = RAMP.astype(np.float32) / 4095
    beyond = unit * np.float32(1.04) - np.float32(0.02)
    photo = decoded(tiff(beyond))
    np.testing.assert_array_equal(photo.pixels, scaled(beyond.clip(0, 1), 1))
    assert len(photo.notes) == 1
    assert photo.notes[0].endswith("so 0 is black and 1 white")
    beyond[3, 3] = 5
    np.testing.assert_array_equal(decoded(tiff(beyond)).pixels, scaled(beyond.clip(0, 1), 1))
    unit[3, 3] = 300
    photo = decoded(tiff(unit))
    np.testing.assert_array_equal(photo.pixels, scaled(unit.clip(0, 1), 1))
    assert photo.notes == ("levels by their range: all but 1 values of 3,072 are between 0 and 1, which is white",)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_transparency_may_have_the_range_of_the_colours(bits: int) -> None:
    most = 2**bits - 1
    colours = np.rint(COLOURS / 4095 * most).astype(np.uint16)
    opaque = np.full((48, 64, 1), most, np.uint16)
    for data in (tiff(np.concatenate([colours, opaque], -1)), tiff(colours)):
        np.testing.assert_array_equal(decoded(data).pixels, scaled(colours, most))


@pytest.mark.parametrize(("kind", "white"), [("u4", 2**32 - 1), ("i2", 32_767), ("u4", 4095), ("i4", 4095)])
def test_long_and_signed_numbers_have_their_own_range(kind: str, white: int) -> None:
    values = np.rint(RAMP / 4095 * white).astype(kind)
    assert np.abs(decoded(tiff(values)).pixels.astype(int) - scaled(RAMP, 4095)).max() <= 1


@pytest.mark.parametrize("values", [RAMP, COLOURS])
def test_a_dark_png_that_says_its_range_stays_dark(values: NDArray[np.uint16]) -> None:
    for significant in (12, 16):  # of which 12 cannot be what the numbers hold: they are scaled, as the standard has it
        dark = values * 3
        photo = decoded(png(dark, significant))
        assert np.abs(photo.pixels.astype(int) - scaled(dark, 65_535)).max() <= 1
        assert photo.notes == ()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (COLOURS.astype(np.float32), "3 x 32 bits of floating-point numbers"),
        (RAMP.astype(np.float64), "1 x 64 bits of floating-point numbers"),
        (RAMP.astype(np.float16), "1 x 16 bits of floating-point numbers"),
        (COLOURS.astype(np.uint32), "3 x 32 bits of whole numbers"),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_of_a_kind_that_is_not_read_is_called_that(values: NDArray[Any], said: str, order: str) -> None:
    with pytest.raises(Unreadable, match=f"a kind of TIFF that is not read: {said} a pixel; save it with 16 bits"):
        decoded(tiff(values, order=order))
