import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from catsweep.data import align
from catsweep.data.align import Border

Array = NDArray[np.float64]

coordinates = arrays.arrays(np.float64, (3, 2), elements=st.floats(-100, 100, width=32))
spread = coordinates.filter(lambda points: float(np.ptp(points, axis=0).max()) > 1)


def matrix(angle: float, scale: float, x: float, y: float) -> Array:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


maps = st.builds(matrix, st.floats(-np.pi, np.pi), st.floats(0.05, 20), st.floats(-300, 300), st.floats(-300, 300))


def cost(m: Array, source: Array, target: Array) -> float:
    return float(np.sum((align.transform(m, source) - target) ** 2))


@given(points=spread, known=maps)
def test_a_known_similarity_is_recovered(points: Array, known: Array) -> None:
    found = align.similarity(points, align.transform(known, points))
    np.testing.assert_allclose(found, known, rtol=1e-6, atol=1e-6 * (1 + np.abs(known).max()))


@given(source=spread, target=coordinates, other=maps, step=st.floats(1e-3, 1))
def test_it_is_the_least_squares_answer(source: Array, target: Array, other: Array, step: float) -> None:
    best = align.similarity(source, target)
    nudged = best + step * (other - best)  # similarities are closed under mixing, so this is one too
    assert cost(best, source, target) <= cost(nudged, source, target) * (1 + 1e-9) + 1e-6


@given(source=spread, target=coordinates)
def test_it_never_reflects(source: Array, target: Array) -> None:
    m = align.similarity(source, target)
    assert m[0, 0] == pytest.approx(m[1, 1])
    assert m[0, 1] == pytest.approx(-m[1, 0])


def test_points_that_coincide_are_refused() -> None:
    with pytest.raises(ValueError, match="differ from each other"):
        align.similarity(np.full((3, 2), 7.0), np.eye(3, 2))


def test_inside_is_the_share_that_shows_the_photo() -> None:
    assert align.inside(matrix(0, 1, 0, 0), 100, 100, 100) == 1
    assert align.inside(matrix(0, 1, 50, 0), 100, 100, 100) == pytest.approx(0.5)
    assert align.inside(matrix(0, 1, 500, 0), 100, 100, 100) == 0


def blob(side: int, x: float, y: float, sigma: float) -> NDArray[np.uint8]:
    """A bright spot whose centre is at (x, y) in continuous coordinates."""
    ticks = np.arange(side) + 0.5
    across, down = (np.exp(-((ticks - place) ** 2) / (2 * sigma**2)) for place in (x, y))
    return np.repeat(np.rint(220 * np.outer(down, across))[..., None], 3, axis=2).astype(np.uint8)


def centre(image: NDArray[np.uint8]) -> Array:
    weight = image[..., 0].astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("scale", [0.23, 0.7, 1.0, 2.3, 4.0])
@pytest.mark.parametrize("angle", [0.0, 0.4, 2.5])
def test_what_was_at_a_point_is_where_the_map_says_to_a_tenth_of_a_pixel(scale: float, angle: float) -> None:
    side = round(540 / scale) + 1  # covers the aligned square however it is turned, so that nothing is reflected
    place = np.array([side / 2 + 0.3, side / 2 - 0.4])
    photo = blob(side, place[0], place[1], 20 / scale)
    shift = np.array([170, 190]) - matrix(angle, scale, 0, 0)[:, :2] @ place
    m = matrix(angle, scale, *shift)
    np.testing.assert_allclose(centre(align.align(photo, m, 360, 360)), [170, 190], atol=0.1)
    np.testing.assert_allclose(centre(align.align(photo, m, 360, 60)), [170 / 6, 190 / 6], atol=0.03)


@pytest.mark.parametrize("shrink", [2, 5, 11])
def test_large_photos_are_averaged_not_sampled(shrink: int) -> None:
    side = 360 * shrink
    stripes = np.zeros((side, side, 3), dtype=np.uint8)
    stripes[:, ::2] = 255  # finer than the result can show
    image = align.align(stripes, matrix(0, 1 / shrink, 0, 0), 360, 64)
    assert np.ptp(image) <= 4
    assert image.mean() == pytest.approx(127.5, abs=2)


def test_outside_the_photo_there_is_its_mirror_image_not_black() -> None:
    photo = np.full((100, 100, 3), 200, dtype=np.uint8)
    assert align.align(photo, matrix(0.3, 2, 90, 60), 360, 64).min() >= 199
    ramp = np.repeat(np.linspace(0, 250, 100)[None, :, None], 100, axis=0).repeat(3, axis=2).astype(np.uint8)
    image = align.align(ramp, matrix(0, 1, 100, 0), 200, 200)  # the left half is beyond the edge
    assert abs(int(image[100, 60, 0]) - int(image[100, 139, 0])) <= 6


def test_resize_averages_when_it_shrinks_and_keeps_when_it_need_not() -> None:
    checks = np.indices((64, 64)).sum(axis=0)[..., None].repeat(3, axis=2).astype(np.uint8) % 2 * 255
    assert np.ptp(align.resize(checks, 16)) <= 1
    assert align.resize(checks, 64) is checks
    assert align.resize(checks, 128).shape == (128, 128, 3)


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_the_centre_square_is_in_the_middle(height: int, width: int) -> None:
    grid = np.stack([*np.mgrid[:height, :width], np.zeros((height, width))], axis=-1).astype(np.uint8)
    square = align.centre_square(grid)
    side = min(height, width)
    assert square.shape == (side, side, 3)
    top, left = int(square[0, 0, 0]), int(square[0, 0, 1])
    assert abs((height - side) - 2 * top) <= 1
    assert abs((width - side) - 2 * left) <= 1
    assert square.flags.c_contiguous


def test_opencv_counts_pixels_as_the_module_says() -> None:
    """Pins the half pixel between continuous coordinates and OpenCV's: doubling puts pixel 0 on 0 and 1, evenly."""
    image = np.array([[0, 100]], dtype=np.uint8)
    assert cv2.resize(image, (4, 1), interpolation=cv2.INTER_LINEAR).tolist() == [[0, 25, 75, 100]]


SHIFT = np.array([[1.0, 0, 3], [0, 1, 2]])  # whole pixels, so that cubic interpolation changes nothing
photos = arrays.arrays(np.uint8, (8, 8, 3))


@given(photo=photos)
def test_a_reflected_border_is_the_mirror_image_pixel_by_pixel(photo: NDArray[np.uint8]) -> None:
    expected = np.pad(photo, ((2, 2), (3, 1), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(align.align(photo, SHIFT, 12, 12, Border.REFLECT), expected)
    np.testing.assert_array_equal(align.align(photo, SHIFT, 12, 12), expected)  # as training has always had it


@given(photo=photos, colour=st.tuples(*[st.integers(0, 255)] * 3))
def test_a_constant_border_has_the_colour_asked_for(photo: NDArray[np.uint8], colour: tuple[int, int, int]) -> None:
    expected = np.empty((12, 12, 3), np.uint8)
    expected[:] = colour
    expected[2:10, 3:11] = photo
    np.testing.assert_array_equal(align.align(photo, SHIFT, 12, 12, Border.CONSTANT, colour), expected)


@given(photo=photos)
def test_a_blurred_border_leaves_the_photo_itself_alone(photo: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(align.align(photo, SHIFT, 12, 12, Border.BLUR)[2:10, 3:11], photo)


def test_a_blurred_border_is_softer_and_nearer_to_the_mean_the_farther_out() -> None:
    stripes = np.zeros((200, 200, 3), dtype=np.uint8)
    stripes[::8], stripes[1::8], stripes[2::8], stripes[3::8] = 250, 250, 250, 250
    image = align.align(stripes, matrix(0, 1, 100, 0), 200, 200, Border.BLUR)
    contrast = np.ptp(image[20:180, :100, 0].astype(int), axis=0)  # of the columns outside, the last is the nearest
    assert (np.diff(contrast) >= 0).all()
    assert contrast[99] > 150
    assert contrast[80] < 30
    assert np.abs(image[:, 0].astype(int) - 125).max() <= 2


def test_a_blurred_border_of_a_plain_photo_cannot_be_seen() -> None:
    photo = np.full((50, 50, 3), (10, 200, 99), dtype=np.uint8)
    assert (align.align(photo, matrix(0.3, 2, 60, 40), 120, 120, Border.BLUR) == (10, 200, 99)).all()


@pytest.mark.parametrize("border", Border)
def test_outside_a_transparent_image_it_is_transparent_whatever_the_border(border: Border) -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    image[..., 3] = np.arange(64).reshape(8, 8) + 192
    moved = align.align(image, SHIFT, 12, 12, border, (9, 9, 9))
    np.testing.assert_array_equal(moved[2:10, 3:11], image)
    outside = np.ones((12, 12), bool)
    outside[2:10, 3:11] = False
    assert (moved[outside, 3] == 0).all()


@pytest.mark.parametrize("scale", [0.3, 0.8, 2.7])
def test_the_colour_of_what_cannot_be_seen_does_not_bleed_into_what_can(scale: float) -> None:
    image = np.zeros((90, 90, 4), dtype=np.uint8)
    image[:, :, 1] = 255  # green, and nothing to be seen of it …
    image[20:70, 33:61] = (200, 40, 0, 255)  # … but for a red cat
    result = align.align(image, matrix(0.2, scale, 10, 5), 120, 50)
    seen = result[result[..., 3] > 0]
    assert len(seen) > 20
    np.testing.assert_allclose(seen[:, :3], np.tile([200, 40, 0], (len(seen), 1)), atol=1)
    shrunk = align.resize(image, 40)
    assert (shrunk[shrunk[..., 3] > 0][:, 0] == 200).all()


@given(photo=arrays.arrays(np.uint8, (12, 12, 3)), size=st.integers(3, 30))
def test_an_opaque_image_is_resized_as_one_without_transparency(photo: NDArray[np.uint8], size: int) -> None:
    opaque = np.dstack([photo, np.full((12, 12), 255, np.uint8)])
    result = align.resize(opaque, size)
    assert (result[..., 3] == 255).all()
    assert np.abs(result[..., :3].astype(int) - align.resize(photo, size)).max() <= 1


def test_the_same_bytes_come_out_however_many_threads_opencv_has() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (300, 400, 4), dtype=np.uint8)
    m = matrix(0.4, 0.7, 150, -20)
    before = cv2.getNumThreads()
    found = []
    try:
        for threads in (1, 4):
            cv2.setNumThreads(threads)
            images = [align.align(photo[..., :3], m, 360, 360, border) for border in Border]
            found.append([image.tobytes() for image in [*images, align.align(photo, m, 360, 360)]])
    finally:
        cv2.setNumThreads(before)
    assert found[0] == found[1]
