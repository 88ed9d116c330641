import numpy as np
import pytest

from catsweep.data.ready import contact_sheet, pick


@pytest.mark.parametrize("n", [1, 2, 99, 100, 101, 1706])
def test_at_most_a_hundred_are_picked_from_first_to_last(n: int) -> None:
    chosen = pick(n)
    assert len(chosen) == min(n, 100)
    assert chosen[0] == 0
    assert chosen[-1] == n - 1
    assert (np.diff(chosen) > 0).all()


def test_images_stand_in_rows_on_white() -> None:
    images = np.stack([np.full((4, 6, 3), value, dtype=np.uint8) for value in (10, 20, 30)])
    sheet = contact_sheet(images, columns=2, gap=1)
    assert sheet.shape == (2 * 5 + 1, 2 * 7 + 1, 3)
    assert (sheet[1:5, 1:7] == 10).all()
    assert (sheet[1:5, 8:14] == 20).all()
    assert (sheet[6:10, 1:7] == 30).all()
    assert (sheet[6:10, 8:14] == 255).all()
    assert (sheet[0] == 255).all()


def test_a_single_image_gets_a_sheet_of_its_own_size() -> None:
    assert contact_sheet(np.zeros((1, 4, 4, 3), dtype=np.uint8)).shape == (8, 8, 3)
