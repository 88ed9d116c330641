import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from tests.decoded import decode, decode_bytes

from catsweep.data import decode as decode_module
from catsweep.data import pixels
from catsweep.data.decode import COST, FORMATS, MAX_SIDE, Unreadable, decoding, read_bytes
from catsweep.data.pixels import BACKGROUND, conversion
from catsweep.data.threads import ByteSemaphore

Picture = Callable[..., NDArray[np.uint8]]


def encoded(pixels: NDArray[Any] | Image.Image, form: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def distance(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_come_back_exactly(picture: Picture, form: str) -> None:
    np.testing.assert_array_equal(decode_bytes(encoded(picture(), form)), picture())


def test_a_new_process_knows_all_formats(root: Path, picture: Picture, tmp_path: Path) -> None:
    """Pillow loads most of its readers late; in this process writing the files has loaded them."""
    for form in FORMATS:
        (tmp_path / form).write_bytes(encoded(picture(), form))
    code = "import sys; from tests.decoded import decode; print([decode(file).shape for file in sys.argv[1:]])"
    command = [sys.executable, "-c", code, *(str(tmp_path / form) for form in FORMATS)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    shapes = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert shapes.strip() == str([(60, 80, 3)] * len(FORMATS))


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "AVIF", "JPEG2000", "GIF"])
def test_lossy_formats_come_back_nearly(picture: Picture, form: str) -> None:
    assert distance(decode_bytes(encoded(picture(), form)), picture()) < 8


def test_the_result_is_contiguous_uint8_rgb(picture: Picture, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(picture(50, 70), "JPEG"))
    image = decode(tmp_path / "x.jpg")
    assert image.shape == (50, 70, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


# --- what is not a photo -------------------------------------------------------------------------------------------


def test_a_missing_file_an_empty_one_and_a_long_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "long.jpg").write_bytes(b"x" * 101)
    with pytest.raises(Unreadable, match="No such file"):
        decode(tmp_path / "missing.jpg")
    with pytest.raises(Unreadable, match="empty file"):
        decode(tmp_path / "empty.jpg")
    with pytest.raises(Unreadable, match="101 bytes, at most 100"):
        read_bytes(tmp_path / "long.jpg", limit=100)


def test_links_pipes_and_folders_are_refused_unopened(
    picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real.jpg").write_bytes(encoded(picture(), "JPEG"))
    (tmp_path / "link.jpg").symlink_to(tmp_path / "real.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("was opened"))
    for name, word in {"link.jpg": "a link", "folder.jpg": "a folder", "pipe.jpg": "a pipe"}.items():
        with pytest.raises(Unreadable, match=f"not a regular file: {word}"):
            decode(tmp_path / name)


def test_a_file_one_may_not_read_is_refused(picture: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(picture(), "JPEG"))

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Unreadable, match="cannot be opened: Permission denied"):
        decode(tmp_path / "x.jpg")


def test_an_impossible_path_is_refused() -> None:
    with pytest.raises(Unreadable, match="cannot be opened"):
        decode("a\0b.jpg")


@pytest.mark.parametrize(
    "data", [b"These are not the pixels you look for.", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0"]
)
def test_text_named_jpg_and_postscript_are_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match=r"not an image|damaged"):
        decode_bytes(data)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000"])
def test_truncated_files_are_refused(picture: Picture, form: str) -> None:
    data = encoded(picture(), form)
    for share in (0.4, 0.7, 0.95):
        with pytest.raises(Unreadable):
            decode_bytes(data[: int(len(data) * share)])


def test_a_jpeg_damaged_in_the_middle_is_noticed_though_pillow_says_nothing(picture: Picture) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    data = bytearray(encoded(noise, "JPEG", quality=90))
    middle = len(data) // 2
    data[middle : middle + 400] = b"\xff\xd9" * 200
    with Image.open(BytesIO(data)) as image:
        image.load()  # Pillow is content
    with pytest.raises(Unreadable, match="damaged or truncated") as caught:
        decode_bytes(bytes(data))
    assert caught.value.kind == "damaged or truncated"


@pytest.mark.parametrize("place", [0.3, 0.6, 0.9])
def test_a_png_damaged_in_the_middle_is_noticed(place: float) -> None:
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)))
    start = int(place * len(data))
    data[start : start + 40] = bytes(40)
    with pytest.raises(Unreadable, match="damaged or truncated"):
        decode_bytes(bytes(data))


def test_a_decompression_bomb_is_refused_before_it_goes_off(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    for limit in (4000, 2000):  # 4,800 pixels: above the limit a warning, above twice the limit an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(Unreadable, match="too many pixels"):
            decode_bytes(encoded(picture()))


def test_a_photo_longer_than_opencv_can_warp_is_refused() -> None:
    with pytest.raises(Unreadable, match=f"too many pixels: {MAX_SIDE + 1} x 1"):
        decode_bytes(encoded(np.zeros((1, MAX_SIDE + 1), dtype=np.uint8)))


# --- what is a photo, but an odd one -------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_photos_are_turned_upright(orientation: int, form: str) -> None:
    upright = np.zeros((40, 64, 3), dtype=np.uint8)
    upright[:20, :32] = 255  # bright only at the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.ascontiguousarray(stored), form, exif=exif)
    assert distance(decode_bytes(data), upright) < 3


@pytest.mark.parametrize("block", [b"Exif\0\0II*\0\xff\xff\xff\xff broken", b"Exif\0\0II*\0", b"Exif\0\0cat food"])
def test_a_broken_exif_block_does_not_cost_the_photo(picture: Picture, block: bytes) -> None:
    assert distance(decode_bytes(encoded(picture(), "JPEG", exif=block)), picture()) < 5


def test_an_oddity_elsewhere_in_the_exif_block_does_not_leave_the_photo_on_its_side(picture: Picture) -> None:
    maker = b"\x01\x00\x00\x02\x00\x00\x00\x04cat\x82"  # the width (0x0100) as text, which Pillow cannot write again
    orientation = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
    block = b"Exif\0\0MM\x00*\x00\x00\x00\x08\x00\x02" + maker + orientation + b"\x00\x00\x00\x00"
    data = encoded(np.ascontiguousarray(np.rot90(picture())), "JPEG", exif=block)
    assert distance(decode_bytes(data), picture()) < 5


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for form in ("PNG", "TIFF", "PPM"):
        image = decode_bytes(encoded(values, form))
        np.testing.assert_array_equal(image[..., 1], np.rint(values / 65535 * 255))
        np.testing.assert_array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 100.0, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[0.0, 65535.0 / 5, 65535.0]], np.float32), [0, 51, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 13107, 65535]], np.int32), [0, 51, 255]),
        (np.array([[-100_000, 0, 100_000]], np.int32), [0, 128, 255]),
        (np.array([[2.0**20, 2.0**20, 2.0**20]], np.float32), [0, 0, 0]),
    ],
)
def test_wider_greys_are_scaled_by_the_range_they_use(values: NDArray[Any], expected: list[int]) -> None:
    assert decode_bytes(encoded(values, "TIFF"))[0, :, 0].tolist() == expected


def test_greys_that_are_not_finite_are_refused() -> None:
    with pytest.raises(Unreadable, match="not finite"):
        decode_bytes(encoded(np.array([[0, np.nan]], np.float32), "TIFF"))


def test_cmyk_keeps_its_colours(picture: Picture) -> None:
    image = Image.fromarray(picture()).convert("CMYK")
    for form in ("JPEG", "TIFF"):
        assert distance(decode_bytes(encoded(image, form)), picture()) < 5


def test_a_damaged_cmyk_jpeg_is_noticed(picture: Picture) -> None:
    data = encoded(Image.fromarray(picture(200, 200)).convert("CMYK"), "JPEG")
    with pytest.raises(Unreadable, match="damaged"):
        decode_bytes(data[: len(data) // 2] + b"\xff\xd9")


def test_palette_grey_and_bilevel_become_rgb(picture: Picture) -> None:
    photo = Image.fromarray(picture())
    palette = photo.quantize(64)
    np.testing.assert_array_equal(decode_bytes(encoded(palette)), np.asarray(palette.convert("RGB")))
    for form in ("PNG", "JPEG"):
        grey = decode_bytes(encoded(photo.convert("L"), form))
        assert distance(grey, np.repeat(np.asarray(photo.convert("L"))[..., None], 3, axis=2)) < 2
    black_white = decode_bytes(encoded(photo.convert("1")))
    assert set(np.unique(black_white)) == {0, 255}


def test_transparency_shows_mid_grey_beneath(picture: Picture) -> None:
    pixels = np.dstack([picture(), np.full((60, 80), 255, np.uint8)])
    pixels[:30, :, 3] = 0
    image = decode_bytes(encoded(pixels))
    assert (image[:30] == BACKGROUND[0]).all()
    np.testing.assert_array_equal(image[30:], picture()[30:])
    half = decode_bytes(encoded(np.full((4, 4, 4), (255, 255, 255, 128), np.uint8)))
    assert abs(int(half[0, 0, 0]) - 192) <= 1


def test_transparency_of_grey_and_palette_images_counts_too() -> None:
    grey = np.dstack([np.full((4, 4), 250, np.uint8), np.zeros((4, 4), np.uint8)])
    assert (decode_bytes(encoded(grey)) == 128).all()
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([250, 0, 0, 0, 250, 0])
    assert (decode_bytes(encoded(palette, transparency=0)) == 128).all()


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_taken(picture: Picture, form: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    data = encoded(
        frames[0], form, save_all=True, append_images=frames[1:], **({"lossless": True} if form == "WEBP" else {})
    )
    assert decode_bytes(data)[8, 8].tolist() == [255, 0, 0]


def test_two_lens_photos_of_phones_are_read(picture: Picture) -> None:
    second = Image.fromarray(picture(seed=1))
    data = encoded(picture(), "MPO", save_all=True, append_images=[second])
    assert distance(decode_bytes(data), picture()) < 5


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "I;16", "F", "1", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_in_bands_it_comes_out_as_in_one_piece(
    picture: Picture, mode: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = Image.fromarray(picture(50, 70))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    elif mode == "RGBA":
        image.putalpha(image.convert("L"))
    else:
        image = image.convert(mode)
    whole, notes = pixels.to_rgb(image, b"", orientation, conversion(image))
    assert whole.shape == ((70, 50, 3) if orientation > 4 else (50, 70, 3))
    for band in (1, 71, 500):
        monkeypatch.setattr(pixels, "BAND", band)
        banded, noted = pixels.to_rgb(image, b"", orientation, conversion(image))
        np.testing.assert_array_equal(banded, whole)
        assert noted == notes


# --- HEIF, by its optional package ---------------------------------------------------------------------------------


@pytest.fixture
def heif(picture: Picture) -> Callable[..., bytes]:
    import pillow_heif

    pillow_heif.register_heif_opener()
    return lambda image=None, **options: encoded(picture() if image is None else image, "HEIF", **options)


def test_photos_of_iphones_are_read(picture: Picture, heif: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "x.heic").write_bytes(heif(quality=90))
    assert distance(decode(tmp_path / "x.heic"), picture()) < 5
    clear = np.dstack([picture(), np.full((60, 80), 255, np.uint8)])
    clear[:30, :, 3] = 0
    half = decode_bytes(heif(clear, quality=90))
    assert abs(half[:28].astype(int) - 128).max() < 6
    assert distance(half[32:], picture()[32:]) < 5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_they_are_turned_upright_once(heif: Callable[..., bytes], orientation: int) -> None:
    upright = np.zeros((64, 96, 3), dtype=np.uint8)
    upright[:32, :48] = 255
    stored = np.empty_like(upright if orientation < 5 else upright.transpose(1, 0, 2))
    stored[:] = pixels._STORED[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(stored)
    image.info["exif"] = exif.tobytes()  # so that it is written as phones do, in the file's own terms as well
    assert distance(decode_bytes(heif(image, quality=90)), upright) < 5


def test_damaged_ones_are_refused(heif: Callable[..., bytes]) -> None:
    data = heif(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8))
    for share in (0.05, 0.4, 0.7, 0.95):
        with pytest.raises(Unreadable):
            decode_bytes(data[: int(len(data) * share)])


def test_without_the_package_they_are_refused_with_the_remedy(
    heif: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode_module, "heif_is_there", lambda: False)
    with pytest.raises(Unreadable, match="HEIF is not read without its package: pip install pillow-heif"):
        decode_bytes(heif())


def test_its_reader_is_loaded_only_when_it_is_needed(root: Path, heif: Callable[..., bytes], tmp_path: Path) -> None:
    (tmp_path / "x.heic").write_bytes(heif())
    code = (
        "import sys; from tests.decoded import decode; loaded = 'pillow_heif' in sys.modules\n"
        "print(loaded, decode(sys.argv[1]).shape)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, "-c", code, str(tmp_path / "x.heic")]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False (60, 80, 3)"


# --- memory --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*FORMATS, "HEIF"])
def test_no_format_may_take_more_memory_than_there_is(
    picture: Picture, heif: Callable[..., bytes], form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture(60, 80), form)
    for spare in (0, -1):  # HEIF of 8 bits takes less than its dearest variant
        monkeypatch.setattr(decode_module, "MAX_MEMORY", (12 if form == "HEIF" else COST[form]) * 4800 + spare)
        if spare == 0:
            assert decode_bytes(data).shape == (60, 80, 3)
        else:
            with pytest.raises(
                Unreadable, match=r"too many pixels: 80 x 60, at most 0 million of \w+; save it smaller"
            ):
                decode_bytes(data)


def test_threads_decode_large_photos_one_at_a_time(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture())
    inside, most, lock = [0], [0], threading.Lock()

    def work(_: int) -> None:
        with decoding(data):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            met.wait(120)
            time.sleep(0.03)  # would one too many come in, it would be seen
            with lock:
                inside[0] -= 1

    for photos in (1, 3):
        monkeypatch.setattr(decode_module, "MEMORY", ByteSemaphore(photos * 4800 * COST["PNG"]))
        most[0], met = 0, threading.Barrier(photos)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert most[0] == photos


def test_what_one_large_photo_took_is_given_back_before_the_next(
    picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr(decode_module, "trim_heap", lambda: given.append(1))
    for large, times in ((COST["PNG"] * 4800, 0), (COST["PNG"] * 4800 - 1, 1)):
        monkeypatch.setattr(decode_module, "LARGE", large)
        assert decode_bytes(encoded(picture())).shape == (60, 80, 3)
        assert len(given) == times


def test_what_the_block_raises_is_not_taken_for_damage(picture: Picture) -> None:
    with pytest.raises(ZeroDivisionError), decoding(encoded(picture())):
        _ = 1 / 0


def test_a_photo_in_thousands_of_passes_is_refused(picture: Picture, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "JPEG", progressive=True)
    passes = data.count(b"\xff\xda")
    assert 2 < passes < 20
    monkeypatch.setattr(decode_module, "MAX_PASSES", passes * 4800)
    assert decode_bytes(data).shape == (60, 80, 3)
    monkeypatch.setattr(decode_module, "MAX_PASSES", passes * 4800 - 1)
    with pytest.raises(Unreadable, match=f"too many pixels: 80 x 60 in {passes} passes"):
        decode_bytes(data)
    assert decode_bytes(encoded(picture(), "JPEG")).shape == (60, 80, 3)


# --- for any bytes at all ------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(data=st.data(), form=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
def test_damaged_bytes_give_an_image_or_unreadable_and_nothing_else(data: st.DataObject, form: str) -> None:
    whole = bytearray(encoded(np.arange(24 * 20 * 3, dtype=np.uint8).reshape(24, 20, 3), form))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with suppress(Unreadable):
            image = decode_bytes(bytes(whole[: data.draw(st.integers(1, len(whole)))]))
            assert image.dtype == np.uint8
            assert image.shape[2] == 3


def test_threads_leave_the_warning_filters_as_they_were(picture: Picture) -> None:
    files = [encoded(picture(seed=seed)) for seed in range(16)]
    before = list(warnings.filters)
    start = threading.Barrier(4)

    def work(part: int) -> int:
        start.wait()
        return sum(decode_bytes(data).shape[0] for data in files[part::4])

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 16 * 60
    assert list(warnings.filters) == before


@pytest.mark.photos
def test_every_real_photo_is_accepted(photos: Path) -> None:
    files = sorted(photos.rglob("*.jpg"))
    assert len(files) >= 1706
    with ThreadPoolExecutor(2) as pool:
        assert all(min(shape[:2]) > 60 for shape in pool.map(lambda file: decode(file).shape, files))
