import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.decoded import decode_bytes

from catsweep.data import decode
from catsweep.data.decode import Unreadable, decoding

SORTS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "fine": {"quality": 97, "subsampling": 0},
    "wide": {"subsampling": 1},
    "optimised": {"optimize": True},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
}


def texture(height: int = 96, width: int = 120) -> NDArray[np.uint8]:
    """Soft colours with fine grain, so that no part of a scan is like another."""
    rows, columns = np.mgrid[:height, :width]
    soft = np.stack([np.sin(rows / 9), np.cos(columns / 7), np.sin((rows + columns) / 11)], -1) * 60 + 128
    grain = np.random.default_rng(0).normal(0, 12, soft.shape)
    return np.asarray((soft + grain).clip(0, 255), np.uint8)


def encoded(image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = BytesIO()
    (Image.fromarray(texture()) if image is None else image).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def seen(data: bytes) -> NDArray[np.uint8]:
    """As Pillow shows it."""
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def scans(data: bytes) -> int:
    """Where the data of the first scan begin."""
    place = data.index(b"\xff\xda")
    return place + 2 + int.from_bytes(data[place + 2 : place + 4])


def before_end(filling: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:-2] + filling + data[-2:]


def at_start(segment: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:2] + segment + data[2:]


def selection(first: int, last: int, bits: int) -> Callable[[bytes], bytes]:
    return lambda data: data[: scans(data) - 3] + bytes([first, last, bits]) + data[scans(data) :]


HARMLESS: dict[str, Callable[[bytes], bytes]] = {
    "zeros before the end": before_end(bytes(99)),
    "many zeros before the end": before_end(bytes(70_000)),
    "spaces before the end": before_end(b" " * 50),
    "fill bytes before the end": before_end(b"\xff" * 40),
    "bytes after a segment": at_start(b"\xff\xe1\0\x08Exif\0\0abcd"),
    "bytes before the frame": lambda data: re.sub(rb"\xff[\xc0\xc2]", rb"cat\g<0>", data, count=1),
    "bytes before the scan": lambda data: data.replace(b"\xff\xda", b"cat\xff\xda"),
    "fill bytes before a marker": at_start(b"\xff" * 9),
    "a thumbnail and a film behind the picture": lambda data: data + data + b"ftypmp42" * 99,
    "zeros behind the picture": lambda data: data + bytes(999),
    "another revision of JFIF": lambda data: data[:11] + b"\x07\x09" + data[13:],
    "an unknown transform of Adobe": at_start(b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07"),
    "a broken colour profile": at_start(b"\xff\xe2\0\x14ICC_PROFILE\0\x09\x05xx"),
    "a broken segment of a program": at_start(b"\xff\xed\0\x0ePhotoshop \xff"),
}  # fmt: skip


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("oddity", HARMLESS)
def test_what_loses_no_pixel_is_passed_over(sort: str, oddity: str) -> None:
    whole = encoded(**SORTS[sort])
    odd = HARMLESS[oddity](whole)
    assert odd != whole
    np.testing.assert_array_equal(decode_bytes(odd), seen(odd))
    np.testing.assert_array_equal(decode_bytes(odd), seen(whole))


@pytest.mark.parametrize("sort", ["baseline", "fine", "wide", "optimised", "restarts"])
@pytest.mark.parametrize("said", [(0, 0, 0), (0, 62, 0), (1, 63, 0), (0, 63, 0x10), (99, 255, 255)])
def test_a_scan_header_of_some_phones_is_as_good(sort: str, said: tuple[int, int, int]) -> None:
    whole = encoded(**SORTS[sort])
    np.testing.assert_array_equal(decode_bytes(selection(*said)(whole)), seen(whole))


@pytest.mark.parametrize("sort", SORTS)
def test_several_oddities_at_once_are_no_more_than_each(sort: str) -> None:
    odd = whole = encoded(**SORTS[sort])
    for oddity in (
        "zeros before the end",
        "bytes before the frame",
        "bytes before the scan",
        "zeros behind the picture",
        "an unknown transform of Adobe",
        "bytes after a segment",
    ):
        odd = HARMLESS[oddity](odd)
    np.testing.assert_array_equal(decode_bytes(odd), seen(whole))


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("behind", [b"", b"\xff", bytes(300)])
def test_a_missing_end_is_passed_over_if_all_scans_are_there(sort: str, behind: bytes) -> None:
    whole = encoded(**SORTS[sort])
    np.testing.assert_array_equal(decode_bytes(whole[:-2] + behind), seen(whole))


def test_a_progressive_file_without_its_last_scan_is_truncated() -> None:
    whole = encoded(progressive=True)
    last = whole.rindex(b"\xff\xda")
    with pytest.raises(Unreadable, match="it ends early"):
        decode_bytes(whole[:last])


@pytest.mark.parametrize("mode", ["L", "CMYK"])
@pytest.mark.parametrize("oddity", ["zeros before the end", "bytes after a segment", "a broken colour profile"])
def test_grey_and_inks_may_be_odd_too(mode: str, oddity: str) -> None:
    whole = encoded(Image.fromarray(texture()).convert(mode))
    np.testing.assert_array_equal(decode_bytes(HARMLESS[oddity](whole)), seen(whole))
    np.testing.assert_array_equal(decode_bytes(whole[:-2]), seen(whole))


def test_padding_behind_each_of_many_scans_is_passed_over() -> None:
    whole = encoded(Image.fromarray(texture()).convert("CMYK"), progressive=True)
    start = scans(whole)
    odd = whole[:start] + re.sub(rb"\xff[\xc4\xda\xd9]", bytes(12) + rb"\g<0>", whole[start:])
    assert odd.count(bytes(12) + b"\xff") > 16
    np.testing.assert_array_equal(decode_bytes(odd), seen(whole))


def test_colours_in_a_resolution_without_a_name_are_read_with_a_note() -> None:
    """A third of the width, which libjpeg reads, but not its half that is strict."""
    whole = encoded(Image.new("RGB", (24, 8), (128, 128, 128)), subsampling=0)
    frame = whole.index(b"\xff\xc0") + 11
    # Three blocks of light, two of colour; each a difference of nothing, and its end (ITU-T T.81, tables K.3 to K.6).
    bits = "001010" * 3 + "0000" * 2
    coded = int(bits.ljust(-len(bits) % 8 + len(bits), "1"), 2).to_bytes(-(-len(bits) // 8))
    third = whole[:frame] + b"\x31" + whole[frame + 1 : scans(whole)] + coded + b"\xff\xd9"
    with decoding(third) as photo:
        np.testing.assert_array_equal(photo.pixels, np.full((8, 24, 3), 128))
        assert photo.notes == ("not checked for damage: its subsampling is unusual",)
    with pytest.raises(Unreadable, match="damaged or truncated"):
        decode_bytes(third[: scans(whole)])


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99])
@pytest.mark.parametrize("tail", ["cut", "ended", "zeros"])
def test_a_scan_that_is_not_whole_is_damage(sort: str, share: float, tail: str) -> None:
    whole = encoded(**SORTS[sort])
    start = scans(whole)
    left = whole[: start + int((len(whole) - start) * share)]
    broken = left + {"cut": b"", "ended": b"\xff\xd9", "zeros": bytes(len(whole) - 2 - len(left)) + b"\xff\xd9"}[tail]
    with pytest.raises(Unreadable, match="damaged or truncated"):
        decode_bytes(broken)


@pytest.mark.parametrize("filling", [b"meow" * 25, bytes(range(1, 100))])
def test_data_left_over_that_are_no_padding_are_damage(filling: bytes) -> None:
    """After damage, data lose their place and the rest of them is left over: nobody can tell from outside."""
    with pytest.raises(Unreadable, match="extraneous bytes before marker 0xd9"):
        decode_bytes(before_end(filling)(encoded()))


@given(
    sort=st.sampled_from(list(SORTS)), place=st.floats(0, 1), kind=st.sampled_from(["flip", "zeros", "lost", "marker"])
)
def test_tidiness_excuses_no_damage(sort: str, place: float, kind: str) -> None:
    """What libjpeg itself complains of and what is damaged within a scan stays refused."""
    whole = bytearray(encoded(**SORTS[sort]))
    start = scans(bytes(whole))
    where = start + int(place * (len(whole) - 60 - start))
    if kind == "flip":
        whole[where] ^= 0x55
    elif kind == "zeros":
        whole[where : where + 48] = bytes(48)
    elif kind == "lost":
        del whole[where : where + 40]
    else:
        whole[where : where + 2] = b"\xff\xd9"
    broken = bytes(whole)
    try:
        simplejpeg.decode_jpeg(broken, colorspace="RGB", strict=True)
    except ValueError:
        pass
    else:
        assume(False)  # libjpeg takes it for a picture
    with pytest.raises(ValueError, match=r".+"):
        decode.decode_jpeg(broken, "RGB")


@given(sort=st.sampled_from(list(SORTS)), data=st.data())
def test_any_bytes_are_a_picture_or_a_value_error(sort: str, data: st.DataObject) -> None:
    whole = bytearray(encoded(Image.fromarray(texture(24, 32)), **SORTS[sort]))
    for _ in range(data.draw(st.integers(1, 5))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    for colours in ("RGB", "CMYK"):
        try:
            pixels, _ = decode.decode_jpeg(bytes(whole[: data.draw(st.integers(1, len(whole)))]), colours)
        except ValueError:
            continue
        assert pixels.dtype == np.uint8
