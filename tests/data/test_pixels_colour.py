from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from tests.data import profiles
from tests.decoded import decode_bytes

from catsweep.data import pixels
from catsweep.data.decode import Photo, decoding
from catsweep.data.pixels import MAX_PROFILE, conversion

SWAPPED = profiles.rgb(profiles.BLUE, profiles.GREEN, profiles.RED)  # its red is blue
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FORMS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 97, "subsampling": 0}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {},
    "AVIF": {"quality": 97, "subsampling": "4:4:4"}, "HEIF": {"quality": 97, "chroma": 444},
}  # fmt: skip


@pytest.fixture(autouse=True)
def heif() -> None:
    import pillow_heif

    pillow_heif.register_heif_opener()


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, form, **{**FORMS.get(form, {}), **options})
    return buffer.getvalue()


def decoded(data: bytes) -> Photo:
    with decoding(data) as photo:
        return photo


def plain(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (64, 48), value)


@pytest.mark.parametrize("form", FORMS)
def test_colours_are_what_the_profile_says(form: str) -> None:
    photo = decoded(encoded(plain("RGB", (200, 40, 40)), form, icc_profile=SWAPPED))
    assert np.abs(photo.pixels - np.array([35.0, 35, 201])).max() <= 3
    assert photo.pixels.shape == (48, 64, 3)
    assert photo.notes == ()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", [None, SRGB, profiles.rgb()])
def test_srgb_under_any_name_or_none_stays_as_it_is(form: str, profile: bytes | None) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    kept = decoded(encoded(image, form, icc_profile=profile))
    if profile == profiles.rgb():  # with a power of 2.2, which differs from it in shadows
        assert np.abs(kept.pixels.astype(int) - decode_bytes(encoded(image, form))).max() < 12
    else:
        np.testing.assert_array_equal(kept.pixels, decode_bytes(encoded(image, form)))
    assert kept.notes == ()


def test_srgb_costs_no_pass_over_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(plain("RGB", (200, 40, 40)), "JPEG", icc_profile=SRGB)
    decode_bytes(data)  # by now the profile is known
    monkeypatch.setattr(ImageCms, "applyTransform", lambda *_: pytest.fail("was converted"))
    monkeypatch.setattr(ImageCms, "buildTransform", lambda *_: pytest.fail("was looked at again"))
    decode_bytes(data)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_transparency_stays_with_its_colours(form: str) -> None:
    image = plain("RGBA", (200, 40, 40, 255))
    image.paste((0, 255, 0, 0), (0, 0, 64, 24))
    pixels = decode_bytes(encoded(image, form, icc_profile=SWAPPED))
    assert pixels[5, 5].tolist() == [128, 128, 128]
    assert np.abs(pixels[40, 5] - np.array([35.0, 35, 201])).max() <= 3


def test_palettes_are_converted_too() -> None:
    data = encoded(plain("RGB", (200, 40, 40)).quantize(4), "PNG", icc_profile=SWAPPED)
    assert np.abs(decode_bytes(data)[5, 5] - np.array([35.0, 35, 201])).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
@pytest.mark.parametrize("mode", ["L", "I;16"])
def test_greys_are_converted_through_theirs(form: str, mode: str) -> None:
    if (form, mode) == ("JPEG", "I;16"):
        return
    image = Image.fromarray(np.full((48, 64), 100, np.uint8) if mode == "L" else np.full((48, 64), 25_700, np.uint16))
    photo = decoded(encoded(image, form, icc_profile=profiles.grey(1.0)))
    linear = 100 / 255
    expected = 255 * (1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(photo.pixels - expected).max() <= 2
    assert not any("profile" in note for note in photo.notes)


@pytest.mark.parametrize("form", ["JPEG", "TIFF"])
def test_inks_are_converted_through_theirs_or_by_formula_with_a_note(form: str) -> None:
    image = plain("RGB", (200, 40, 40)).convert("CMYK")
    photo = decoded(encoded(image, form, icc_profile=profiles.inks(128)))
    assert len(np.unique(photo.pixels.reshape(-1, 3), axis=0)) == 1
    assert np.ptp(photo.pixels[0, 0].astype(int)) <= 2  # a grey, for this press knows nothing else
    assert photo.notes == ()
    without = decoded(encoded(image, form))
    assert np.abs(without.pixels - np.array([200.0, 40, 40])).max() <= 3
    assert without.notes == ("no colour profile: CMYK by its plain formula",)


@pytest.mark.parametrize("orientation", [1, 6])
def test_in_bands_it_comes_out_as_in_one_piece(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(image, "JPEG", icc_profile=SWAPPED, exif=exif)
    whole = decode_bytes(data)
    monkeypatch.setattr(pixels, "BAND", 300)
    np.testing.assert_array_equal(decode_bytes(data), whole)
    assert whole.shape == ((64, 48, 3) if orientation == 6 else (48, 64, 3))


# --- profiles that are none ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("profile", [b"cat food", SWAPPED[:200], SWAPPED[:100] + bytes(300)])
def test_a_broken_profile_is_ignored_and_said_so(form: str, profile: bytes) -> None:
    image = plain("RGB", (200, 40, 40))
    photo = decoded(encoded(image, form, icc_profile=profile))
    np.testing.assert_array_equal(photo.pixels, decode_bytes(encoded(image, form)))
    assert len(photo.notes) == 1
    assert photo.notes[0].startswith("colour profile ignored: ")


def test_one_of_other_colours_or_of_any_size_is_ignored_and_said_so() -> None:
    notes = {
        "RGB": decoded(encoded(plain("RGB", (200, 40, 40)), "JPEG", icc_profile=profiles.inks(128))).notes,
        "L": decoded(encoded(plain("L", 100), "PNG", icc_profile=SWAPPED)).notes,
        "CMYK": decoded(encoded(plain("CMYK", (9, 9, 9, 9)), "JPEG", icc_profile=SWAPPED)).notes,
        "huge": decoded(encoded(plain("RGB", 0), "TIFF", icc_profile=SWAPPED + bytes(MAX_PROFILE))).notes,
    }
    assert notes == {
        "RGB": ("colour profile ignored: it is one of CMYK, but the photo is RGB",),
        "L": ("colour profile ignored: it is one of RGB, but the photo is GRAY",),
        "CMYK": ("colour profile ignored: it is one of RGB, but the photo is CMYK",),
        "huge": (f"colour profile ignored: {len(SWAPPED) + MAX_PROFILE:,} bytes, at most 4,194,304 are read",),
    }


@pytest.mark.parametrize(
    "profile",
    [
        profiles.rgb(power=0),
        profiles.rgb((0, 0, 0), (0, 0, 0), (0, 0, 0)),
        profiles.rgb((-0.5, -0.2, 0)),
        profiles.rgb(green=profiles.RED),
    ],
)
def test_one_that_makes_one_colour_of_several_is_ignored_and_said_so(profile: bytes) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    photo = decoded(encoded(image, "PNG", icc_profile=profile))
    np.testing.assert_array_equal(photo.pixels, np.asarray(image))
    assert photo.notes == ("colour profile ignored: it makes one colour of several",)


def test_a_grey_one_that_makes_all_white_is_ignored_and_said_so() -> None:
    photo = decoded(encoded(plain("L", 100), "PNG", icc_profile=profiles.grey(0)))
    assert (photo.pixels == 100).all()
    assert photo.notes == ("colour profile ignored: it makes one colour of several",)


PROPHOTO = profiles.rgb((0.7977, 0.2880, 0), (0.1352, 0.7119, 0), (0.0313, 0.0001, 0.8249), power=1.8)


@pytest.mark.parametrize("profile", [PROPHOTO, SWAPPED, profiles.rgb(power=1), profiles.rgb(power=3)])
def test_wide_and_odd_ones_are_obeyed(profile: bytes) -> None:
    image = plain("RGB", 0)
    image.info["icc_profile"] = profile
    assert conversion(image).transform is not None


def test_one_of_which_a_part_is_missing_is_ignored_and_said_so() -> None:
    data = encoded(plain("RGB", (200, 40, 40)), "JPEG", icc_profile=SWAPPED)
    count = data.index(b"ICC_PROFILE\0") + 13
    photo = decoded(data[:count] + b"\2" + data[count + 1 :])
    assert photo.notes == ("colour profile ignored: it is incomplete",)
    assert np.abs(photo.pixels - np.array([200.0, 40, 40])).max() <= 3


@given(data=st.data(), kind=st.sampled_from(["RGB", "L", "CMYK"]))
def test_any_profile_gives_a_conversion(data: st.DataObject, kind: str) -> None:
    whole = bytearray({"RGB": SWAPPED, "L": profiles.grey(1.8), "CMYK": profiles.inks(99)}[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    image = plain(kind, 0)
    image.info["icc_profile"] = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    made = conversion(image)
    assert made(image).mode == "RGB"
    assert (made.transform is None) or not made.notes
