from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from catsweep.errors import ConfigError
from catsweep.prepare import faces
from catsweep.prepare.faces import Face
from catsweep.synthetic import renderer

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def cats() -> list[tuple[Pixels, Array]]:
    """Drawn cats with some room around them, and their eyes in continuous positions."""
    drawn = renderer.render(10, 90, 0)
    images = [np.asarray(cv2.copyMakeBorder(image, *[20] * 4, cv2.BORDER_REPLICATE)) for image in drawn.images]
    return [(images[number], drawn.landmarks[number][:2] + 20.0) for number in (0, 7, 8, 9)]


def error(face: Face, eyes: Array) -> float:
    """How far the eyes are from where they should be, in distances between them."""
    return float(np.hypot(*(face.eyes - eyes).T).max() / np.hypot(*(eyes[1] - eyes[0])))


def test_drawn_cats_are_found(cats: list[tuple[Pixels, Array]]) -> None:
    for image, eyes in cats:
        face = faces.find(image)
        assert face is not None
        assert face.angle == 0
        assert error(face, eyes) < 0.35


@pytest.mark.parametrize("tilt", [40, -40])
def test_a_tilted_cat_is_found_by_turning_the_photo_back(cats: list[tuple[Pixels, Array]], tilt: float) -> None:
    image, eyes = cats[2]
    turn = cv2.getRotationMatrix2D((64.5, 64.5), -tilt, 1)  # clockwise
    tilted = np.asarray(cv2.warpAffine(image, turn, (130, 130), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    face = faces.find(tilted)
    assert face is not None
    assert face.angle == np.sign(tilt) * 30
    assert error(face, (eyes - 0.5) @ turn[:, :2].T + turn[:, 2] + 0.5) < 0.4


def test_a_large_photo_is_searched_in_small_and_the_face_given_in_its_own_pixels(
    cats: list[tuple[Pixels, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, eyes = cats[2]
    monkeypatch.setattr(faces, "LONG", 130)
    small = faces.find(image)
    large = faces.find(np.asarray(cv2.resize(image, (650, 650), interpolation=cv2.INTER_CUBIC), np.uint8))
    assert small is not None
    assert large is not None
    np.testing.assert_allclose(large.eyes, small.eyes * 5, atol=15)
    assert error(large, eyes * 5) < 0.35


def test_what_is_transparent_is_not_searched(cats: list[tuple[Pixels, Array]]) -> None:
    image = np.dstack([cats[0][0], np.zeros((130, 130), np.uint8)])
    assert faces.find(image) is None
    image[..., 3] = 255
    assert faces.find(image) == faces.find(cats[0][0])


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 700, 3), (23, 23, 3), (300, 5, 4)])
def test_photos_too_small_for_a_face_have_none(shape: tuple[int, int, int]) -> None:
    assert faces.find(np.full(shape, 77, np.uint8)) is None


def test_threads_find_what_one_alone_finds(cats: list[tuple[Pixels, Array]]) -> None:
    """A classifier that is shared between threads mixes up their photos, or crashes."""
    photos = [image for image, _ in cats] * 3
    before = cv2.getNumThreads()
    alone = [faces.find(photo) for photo in photos[:4]]
    try:
        cv2.setNumThreads(1)
        assert [faces.find(photo) for photo in photos[:4]] == alone
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(faces.find, photos)) == alone * 3
    finally:
        cv2.setNumThreads(before)


class Counting:
    """A classifier that counts the windows it looks at."""

    def __init__(self, classifier: "cv2.CascadeClassifier", windows: list[float]) -> None:
        self.classifier, self.windows = classifier, windows

    def detectMultiScale3(self, grey: Pixels, step: float, *words: Any, **options: Any) -> Any:
        side, (height, width) = float(max(24, options["minSize"][0])), grey.shape
        most = options.get("maxSize", (0, 0))[0] or max(height, width)
        while side <= min(height, width, most):
            self.windows.append((height - side) * (width - side) * (24 / side) ** 2)
            side *= step
        return self.classifier.detectMultiScale3(grey, step, *words, **options)


def test_it_looks_at_less_than_half_of_all_windows(
    cats: list[tuple[Pixels, Array]], monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[float] = []
    monkeypatch.setattr(faces, "_mine", faces._Mine())
    counting = [Counting(classifier, windows) for classifier in faces.load()]
    monkeypatch.setattr(faces, "load", lambda: counting)
    tilted = np.asarray(np.rot90(cats[2][0]), np.uint8)
    for photo in (cats[0][0], tilted, np.full((240, 180, 3), 90, np.uint8)):
        windows.clear()
        face = faces.find(np.ascontiguousarray(photo))
        looked = sum(windows)
        windows.clear()
        grey = cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2GRAY)
        least = round(faces.LEAST * min(grey.shape))
        for angle in (0.0, *(faces.TURNS if face is None or face.angle else ())):
            for classifier in counting:
                turned, _ = faces._turn(np.asarray(grey, np.uint8), angle)
                classifier.detectMultiScale3(
                    turned, 1.05, 3, minSize=(least, least), maxSize=(0, 0), outputRejectLevels=True
                )
        assert looked < sum(windows) / 2


@given(
    angle=st.floats(-180, 180), width=st.integers(1, 90), height=st.integers(1, 90),
    x=st.floats(0, 1), y=st.floats(0, 1),
)  # fmt: skip
def test_turning_keeps_the_whole_photo_and_leads_back(
    angle: float, width: int, height: int, x: float, y: float
) -> None:
    grey = np.zeros((height, width), np.uint8)
    turned, back = faces._turn(grey, angle)
    place = np.array([x * width, y * height])
    there = np.linalg.solve(back[:, :2], place - back[:, 2])
    assert (there >= -1e-6).all()
    assert (there <= np.array(turned.shape[::-1]) + 1e-6).all()


def test_turning_moves_pixels_where_the_matrix_says() -> None:
    grey = np.zeros((80, 120), np.uint8)
    grey[20:25, 90:95] = 240  # right of the middle: a turn counter-clockwise lifts it
    turned, back = faces._turn(grey, 30)
    rows, columns = np.mgrid[: turned.shape[0], : turned.shape[1]] + 0.5
    x, y = (columns * turned).sum() / turned.sum(), (rows * turned).sum() / turned.sum()
    assert y - turned.shape[0] / 2 < 22.5 - 40
    np.testing.assert_allclose(back[:, :2] @ [x, y] + back[:, 2], [92.5, 22.5], atol=0.1)


def test_the_eyes_are_in_the_upper_half_of_the_box_and_turn_with_it() -> None:
    upright = Face(100, 100, 80, 0, 1)
    left, right = upright.eyes
    assert left[1] == right[1] < 100
    assert left[0] < 100 < right[0]
    turned = replace(upright, angle=90).eyes - 100  # found after a quarter turn counter-clockwise, so it lies clockwise
    np.testing.assert_allclose(turned, (upright.eyes - 100) @ [[0, 1], [-1, 0]], atol=1e-9)
    assert turned[1, 1] > turned[0, 1]


def test_confidence_grows_with_the_weight_and_is_less_for_turned_photos() -> None:
    upright = [Face(0, 0, 1, 0, weight).confidence for weight in (-2, 0, 1, 5)]
    turned = [Face(0, 0, 1, 15, weight).confidence for weight in (-2, 0, 1, 5)]
    assert upright == sorted(upright)
    assert turned == sorted(turned)
    assert all(0 < low < high < 1 for low, high in zip(turned, upright, strict=True))


def test_boxes_on_which_both_cascades_agree_become_one() -> None:
    one = [Face(50, 50, 40, 15, 1.5), Face(200, 50, 40, 15, 0.5)]
    other = [Face(52, 48, 44, 15, 2.0), Face(200, 80, 40, 15, 1.0), Face(50, 50, 90, 15, 9.0)]
    merged = faces._merged(one, other)
    assert merged == [Face(51, 49, 42, 15, 3.5), one[1], other[1], other[2]]


def test_cascades_that_are_not_there_are_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faces, "DATA", tmp_path)
    with pytest.raises(ConfigError, match=r"frontalcatface\.xml.*missing.*Install"):
        faces.load()
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ConfigError, match="has none"):
        faces.load()
