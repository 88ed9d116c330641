"""Pages, folders and animations."""

import numpy as np
import pytest
from PIL import Image

from catsweep.generate import drawing
from catsweep.generate.drawing import Strips
from catsweep.grids import grid

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 2, 3, 3, 3), np.uint8)
NAMES = [f"{number}" for number in range(5)]


def test_rows_stay_rows() -> None:
    assert np.array_equal(Strips(IMAGES, NAMES).page(None), grid(IMAGES.reshape(10, 3, 3, 3), 2))


def test_upright_strips_fill_the_page_and_the_rest_is_white() -> None:
    page = Strips(IMAGES, NAMES, upright=True).page(3)
    above, below = IMAGES[:, 0], IMAGES[:, 1]
    white = np.full((1, 3, 3, 3), 255, np.uint8)
    expected = np.concatenate([above[:3], below[:3], above[3:], white, below[3:], white])
    assert np.array_equal(page, grid(expected, 3))


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (8, 4), (24, 6), (64, 11)])
def test_upright_strips_are_about_square_and_fill_their_rows(count, columns) -> None:
    page = Strips(np.zeros((count, 2, 3, 3, 3), np.uint8), [], upright=True).page(None)
    assert page.shape[1] == 5 * columns + 2


def test_folder_holds_each_strip_and_no_debris(tmp_path) -> None:
    files = drawing.save_folder(tmp_path / "new", Strips(IMAGES, NAMES))
    assert sorted(files) == sorted((tmp_path / "new").iterdir())
    with Image.open(files[3]) as image:
        assert np.array_equal(np.asarray(image), grid(IMAGES[3], 2))


def test_a_folder_that_fails_half_way_is_left_as_it_was(tmp_path, monkeypatch) -> None:
    (tmp_path / "0.png").write_bytes(b"mine")
    save, count = drawing.save_png, iter(range(5))
    monkeypatch.setattr(drawing, "save_png", lambda *given: save(*given) if next(count) < 3 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawing.save_folder(tmp_path, Strips(IMAGES, NAMES))
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]
    assert (tmp_path / "0.png").read_bytes() == b"mine"


def test_an_animation_that_fails_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "walk.gif"
    path.write_bytes(b"old")
    monkeypatch.setattr(Image.Image, "save", lambda *given, **how: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        drawing.save_animation(path, IMAGES[:, 0], 12)
    assert [file.name for file in tmp_path.iterdir()] == ["walk.gif"]
    assert path.read_bytes() == b"old"


def test_enlarging_keeps_the_shape_of_the_rest() -> None:
    assert drawing.upscale(IMAGES, 1) is IMAGES
    assert drawing.upscale(IMAGES, 4).shape == (5, 2, 12, 12, 3)


def test_gifs_keep_soft_colours(tmp_path) -> None:
    ramp = np.linspace(60, 200, 64, dtype=np.uint8)
    frame = np.stack([np.add.outer(ramp // 2, ramp // 2), np.tile(ramp, (64, 1)), np.tile(ramp, (64, 1)).T], -1)
    drawing.save_animation(tmp_path / "a.gif", np.stack([frame, frame[::-1]]), 12)
    with Image.open(tmp_path / "a.gif") as image:
        seen = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(seen - frame).mean() < 5
