from io import BytesIO

import pillow_heif
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from catsweep.data.decode import FORMATS
from catsweep.data.files import START, hidden, refusal


@pytest.mark.parametrize("form", [*FORMATS, "MPO", "HEIF"])
@pytest.mark.parametrize("mode", ["RGB", "L", "1"])
def test_every_format_that_is_read_is_known_by_its_start(form: str, mode: str) -> None:
    pillow_heif.register_heif_opener()
    buffer = BytesIO()
    try:
        Image.new(mode, (40, 30)).save(buffer, form)
    except (OSError, KeyError, ValueError):
        pytest.skip(f"{form} has no mode {mode}")
    assert refusal("photo", buffer.getvalue()[:START]) == ""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html>", "not an image: .x"),
        (b"%PDF-1.7", "not an image: .x"),
        (b"BM is short for bookmark, and that for nothing in particular", "not an image: .x"),
        (b"P1ease read me", "not an image: .x"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not an image: .x"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "not an image: .x"),
    ],
)
def test_what_is_no_image_is_passed_over_with_the_reason(data: bytes, reason: str) -> None:
    assert refusal("name.X", data) == reason


def test_camera_raw_is_no_tiff() -> None:
    assert refusal("a.NEF", b"MM\0*" + bytes(60)) == "camera raw: save it as JPEG first"
    assert refusal("a", b"MM\0*" + bytes(60)) == ""


def test_hidden_are_names_with_a_point_and_what_macos_adds() -> None:
    assert hidden(("a", "b.jpg")) is None
    assert hidden(("..", "b.jpg")) is None
    assert hidden(("a", ".b.jpg")) == ("a/.b.jpg", "hidden")
    assert hidden(("a", ".git", "c", "d")) == ("a/.git/", "hidden")
    assert hidden(("__MACOSX", "a", "._b.jpg")) == ("__MACOSX/", "metadata of macOS")
    assert hidden(("a", "._b.jpg")) == ("a/._b.jpg", "metadata of macOS")


@given(data=st.binary(max_size=START), name=st.text(max_size=20))
def test_any_start_is_an_image_or_has_a_reason(data: bytes, name: str) -> None:
    assert isinstance(refusal(name, data), str)


@pytest.mark.parametrize("suffix", [".cr2", ".NEF", ".dng"])
def test_camera_raw_is_what_begins_like_it(suffix: str) -> None:
    assert refusal("raw" + suffix, b"\xff\xd8\xff\xe0") == ""
    assert refusal("raw" + suffix, b"II*\0\x10\0\0\0CR").startswith("camera raw")
