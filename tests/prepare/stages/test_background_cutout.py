import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from catsweep.prepare.image_files import shrunk
from catsweep.prepare.stages.background import FILLS, cut_out, foreground_colours, shares

FUR, GROUND = np.array([200, 120, 40]), np.array([10, 60, 180])


def disc(height: int = 60, width: int = 80, soft: float = 8) -> NDArray[np.uint8]:
    """A round cat with a soft edge."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - width / 2, y - height / 2)
    return np.rint(np.clip((height / 3 - distance) / soft + 0.5, 0, 1) * 255).astype(np.uint8)


def mixed(alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What a camera makes of fur before a ground, each of one colour."""
    share = alpha[..., None] / 255
    return np.rint(FUR * share + GROUND * (1 - share)).astype(np.uint8)


@pytest.mark.parametrize(("fill", "behind"), [("white", [255] * 3), ("black", [0] * 3), ("mean", GROUND)])
def test_half_covered_pixels_show_the_fill_and_nothing_of_the_old_background(fill: str, behind: list[int]) -> None:
    alpha = disc()
    assert ((alpha > 0) & (alpha < 255)).sum() > 500
    share = alpha[..., None] / 255
    expected = FUR * share + np.array(behind) * (1 - share)
    photo = mixed(alpha)
    np.testing.assert_allclose(cut_out(photo, alpha, fill), expected, atol=3)
    if fill == "white":  # as it would be without: a seam of the old background
        assert np.abs(photo * share + 255 * (1 - share) - expected).max() > 20


@given(arrays(np.uint8, (6, 9, 3)), arrays(np.bool_, (6, 9)))
def test_of_a_hard_mask_the_cat_stays_to_the_bit_and_the_rest_is_the_fill(
    photo: NDArray[np.uint8], front: NDArray[np.bool_]
) -> None:
    alpha = front.astype(np.uint8) * 255
    behind = photo[~front]
    mean = np.rint((behind if len(behind) else photo.reshape(-1, 3)).mean(0, dtype=np.float64).astype(np.float32))
    for fill, colour in (("white", 255), ("black", 0), ("mean", mean)):
        image = cut_out(photo, alpha, fill)
        np.testing.assert_array_equal(image[front], photo[front])
        np.testing.assert_array_equal(image[~front], np.broadcast_to(np.uint8(colour), image[~front].shape))


@given(arrays(np.uint8, (5, 7, 3)), arrays(np.uint8, (5, 7)), st.sampled_from(list(FILLS)))
def test_any_mask_of_any_photo_makes_an_image(photo: NDArray[np.uint8], alpha: NDArray[np.uint8], fill: str) -> None:
    image = cut_out(photo, alpha, fill)
    assert image.dtype == np.uint8
    assert image.shape == (5, 7, 4 if fill == "transparent" else 3)


def test_a_transparent_cut_out_keeps_the_cats_colour_beyond_its_edge() -> None:
    alpha = disc()
    image = cut_out(mixed(alpha), alpha, "transparent")
    np.testing.assert_array_equal(image[..., 3], alpha)
    np.testing.assert_allclose(image[..., :3], np.broadcast_to(FUR, (60, 80, 3)), atol=4)
    # so a resize that knows nothing of transparency mixes fur with fur
    small = cv2.resize(image, (20, 15), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(small[..., :3], np.broadcast_to(FUR, (15, 20, 3)), atol=4)


def test_the_blurred_background_holds_nothing_of_the_cat_and_is_blurred() -> None:
    alpha = disc()
    photo = mixed(alpha)
    behind = cut_out(photo, alpha, "blur")[alpha == 0]
    np.testing.assert_allclose(behind, np.broadcast_to(GROUND, behind.shape), atol=3)
    stripes = photo.copy()
    stripes[::2][alpha[::2] == 0] = 250
    rows = cut_out(stripes, alpha, "blur")[:, 2]
    assert np.ptp(stripes[:, 2].astype(int), axis=0).max() > 150
    assert np.ptp(rows.astype(int), axis=0).max() < 15
    assert abs(float(rows[..., 0].mean()) - 130) < 10


def test_a_local_colour_is_taken_from_nearby() -> None:
    """A cat with a red left and a blue right half has a red edge on the left and a blue one on the right."""
    alpha = np.zeros((40, 100), np.uint8)
    alpha[:, 20:80] = 255
    alpha[:, 17:20] = alpha[:, 80:83] = 128
    fur = np.zeros((40, 100, 3))
    fur[:, :50, 0] = fur[:, 50:, 2] = 220
    share = alpha[..., None] / 255
    photo = np.rint(fur * share + 90 * (1 - share)).astype(np.uint8)
    own = foreground_colours(photo, share.astype(np.float32))
    np.testing.assert_allclose(own[:, 17:20].mean((0, 1)), [220, 0, 0], atol=12)
    np.testing.assert_allclose(own[:, 80:83].mean((0, 1)), [0, 0, 220], atol=12)


def test_shares() -> None:
    alpha = np.zeros((10, 10), np.uint8)
    assert shares(alpha) == (0, 0)
    alpha[:4] = 255
    assert shares(alpha) == (0.4, 0)
    alpha[0] = 51
    front, unsure = shares(alpha)
    assert front == pytest.approx(0.32)
    assert unsure == 0.25
    assert shares(np.full((3, 3), 127, np.uint8))[1] == 1


def test_shrinking_never_enlarges_and_keeps_at_least_a_pixel() -> None:
    assert shrunk(np.zeros((10, 400, 3), np.uint8), 40).shape == (1, 40, 3)
    assert shrunk(np.zeros((10, 4, 3), np.uint8), 40).shape == (10, 4, 3)
    assert shrunk(np.zeros((1, 900, 3), np.uint8), 40).shape == (1, 40, 3)
