import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image

from catsweep.grids import enlarge, grid, rows, save_png


def counted(n, height=3, width=5):
    """n images, image i filled with the value i."""
    return np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, height, width, 3)).copy()


@given(n=st.integers(1, 20), columns=st.integers(1, 8), padding=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_each_image_lands_in_its_cell_and_the_rest_is_white(n, columns, padding):
    page = grid(counted(n), columns, padding)
    lines = -(-n // columns)
    assert page.shape == (lines * (3 + padding) + padding, columns * (5 + padding) + padding, 3)
    seen = np.zeros(page.shape[:2], bool)
    for i in range(n):
        top, left = padding + i // columns * (3 + padding), padding + i % columns * (5 + padding)
        cell = np.s_[top : top + 3, left : left + 5]
        assert (page[cell] == i).all()
        seen[cell] = True
    assert (page[~seen] == 255).all()


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (3, 2), (64, 8), (10, 4)])
def test_is_as_square_as_possible_by_default(n, columns):
    assert np.array_equal(grid(counted(n)), grid(counted(n), columns))


def test_rows_put_the_same_item_in_the_same_column():
    originals = counted(4)
    page = rows(originals, originals + 100, padding=0)
    assert page.shape == (6, 20, 3)
    assert (page[3:] == page[:3] + 100).all()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)],
    ids=["float", "one image", "no image"],
)
def test_refuses_what_is_not_a_batch_of_stored_images(images):
    with pytest.raises(ValueError, match="uint8 images of shape"):
        grid(images)


def test_refuses_impossible_layouts():
    with pytest.raises(ValueError, match="columns=0"):
        grid(counted(2), columns=0)
    with pytest.raises(ValueError, match="one common shape"):
        rows(counted(2), counted(3))
    with pytest.raises(ValueError, match="at least one batch"):
        rows()


@pytest.mark.parametrize(("side", "factor"), [(1, 1), (9, 1), (10, 2), (19, 3), (20, 4)])
def test_small_images_are_enlarged_by_a_whole_factor(side, factor):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    large = enlarge(images, side)
    assert large.shape == (2, 3 * factor, 5 * factor, 3)
    for offset in range(factor):
        assert np.array_equal(large[:, offset::factor, offset::factor], images)


def test_a_png_holds_the_same_pixels_and_leaves_nothing_else(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)
    save_png(tmp_path / "deep" / "page.png", image)
    with Image.open(tmp_path / "deep" / "page.png") as stored:
        assert np.array_equal(np.asarray(stored), image)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["page.png"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "page.png"
    save_png(path, counted(1)[0])
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        save_png(path, np.zeros((2, 2, 7), np.uint8))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["page.png"]
