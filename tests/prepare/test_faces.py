from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
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
    images = [np.asarray(cv2.copyMakeBorder(image, 20, 20, 20, 20, cv2.BORDER_REPLICATE)) for image in drawn.images]
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


def find_with(classifiers: list[Any], photo: Pixels) -> Face | None:
    """Find with other classifiers, in a thread of its own, for each thread loads them once."""
    with patch.object(faces, "load", lambda: classifiers), ThreadPoolExecutor(1) as pool:
        return pool.submit(faces.find, photo).result()


def test_it_looks_at_less_than_half_of_all_windows(cats: list[tuple[Pixels, Array]]) -> None:
    windows: list[float] = []
    counting = [Counting(classifier, windows) for classifier in faces.load()]
    tilted = np.asarray(np.rot90(cats[2][0]), np.uint8)
    for photo in (cats[0][0], tilted, np.full((240, 180, 3), 90, np.uint8)):
        windows.clear()
        face = find_with(counting, np.ascontiguousarray(photo))
        looked = sum(windows)
        windows.clear()
        grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(photo), cv2.COLOR_RGB2GRAY), np.uint8)
        least = round(faces.LEAST * min(grey.shape))
        for angle in (0.0, *(faces.TURNS if face is None or face.angle else ())):
            for classifier in counting:
                classifier.detectMultiScale3(
                    turned(grey, angle), 1.05, 3, minSize=(least, least), maxSize=(0, 0), outputRejectLevels=True
                )
        assert looked < sum(windows) / 2


def turned(grey: Pixels, angle: float) -> Pixels:
    """The photo, turned counter-clockwise on a sheet that holds all of it."""
    height, width = grey.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1)
    sheet = np.ceil(np.abs(turn[:, :2]) @ [width, height]).astype(int)
    turn[:, 2] += (sheet - [width, height]) / 2
    return np.asarray(cv2.warpAffine(grey, turn, sheet.tolist(), borderMode=cv2.BORDER_REPLICATE), np.uint8)


class Spotting:
    """A classifier that takes a bright spot for a face, but not in a photo of the shape `upright`."""

    def __init__(self, upright: tuple[int, ...]) -> None:
        self.upright = upright

    def detectMultiScale3(self, grey: Pixels, step: float, neighbours: int, **options: Any) -> Any:
        if grey.shape == self.upright and not neighbours:
            return [], [], []
        assert grey.max() > 100, "the spot is not on the sheet"
        rows, columns = np.mgrid[: grey.shape[0], : grey.shape[1]] + 0.5
        x, y = ((place * grey).sum() / grey.sum() for place in (columns, rows))
        return [(x - 12, y - 12, 24, 24)], [], [1.0]


@settings(deadline=None)
@given(
    angle=st.floats(-180, 180).filter(lambda angle: abs(angle) > 1), width=st.integers(10, 90),
    height=st.integers(10, 90), x=st.floats(0, 1), y=st.floats(0, 1),
)  # fmt: skip
def test_a_turned_photo_is_searched_whole_and_faces_are_given_in_the_photo(
    angle: float, width: int, height: int, x: float, y: float
) -> None:
    photo = np.zeros((height, width, 3), np.uint8)
    left, top = 3 + round(x * (width - 10)), 3 + round(y * (height - 10))
    photo[top : top + 4, left : left + 4] = 240
    with patch.object(faces, "TURNS", (angle,)):
        face = find_with([Spotting((height, width))] * 2, photo)
    assert face is not None
    assert (face.angle, face.side) == (angle, 24)
    np.testing.assert_allclose([face.x, face.y], [left + 2, top + 2], atol=0.2)


def test_photos_are_turned_counter_clockwise() -> None:
    """Found after such a turn, a face lies clockwise: its right eye is the lower one."""
    seen: list[Pixels] = []

    class Recording(Spotting):
        def detectMultiScale3(self, grey: Pixels, step: float, neighbours: int, **options: Any) -> Any:
            seen.extend([grey] if not neighbours and grey.shape != self.upright else [])
            return super().detectMultiScale3(grey, step, neighbours, **options)

    photo = np.zeros((80, 120, 3), np.uint8)
    photo[20:25, 90:95] = 240  # right of the middle: a turn counter-clockwise lifts it
    with patch.object(faces, "TURNS", (30.0,)):
        face = find_with([Recording((80, 120))] * 2, photo)
    [sheet] = seen
    assert (np.mgrid[: sheet.shape[0], : sheet.shape[1]][0] * sheet).sum() / sheet.sum() - sheet.shape[0] / 2 < 22 - 40
    assert face is not None
    assert face.eyes[1, 1] > face.eyes[0, 1]


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


Box = tuple[float, float, float, float]  # centre x and y, side, weight


class Seeing:
    """A classifier whose first look finds a place of 40 pixels, and whose close look finds the boxes given."""

    def __init__(self, place: tuple[float, float], *boxes: Box) -> None:
        self.place, self.boxes = place, boxes

    def detectMultiScale3(self, grey: Pixels, step: float, neighbours: int, **options: Any) -> Any:
        (x, y), boxes = self.place, self.boxes
        if not neighbours:
            return [(x - 20, y - 20, 40, 40)], [], [0.0]
        left, top = int(x - 20 * faces.AROUND), int(y - 20 * faces.AROUND)  # of the part that is looked at
        found = [(x - side / 2 - left, y - side / 2 - top, side, side) for x, y, side, _ in boxes]
        return found, [], [weight for *_, weight in boxes]


@pytest.mark.parametrize(
    ("other", "merged"),
    [
        ((102, 98, 44, 2.0), Face(101, 99, 42, 0, 3.5)),
        ((100, 130, 40, 1.0), Face(100, 100, 40, 0, 1.5)),  # another place
        ((100, 100, 90, 9.0), Face(100, 100, 90, 0, 9.0)),  # another size
    ],
)
def test_boxes_on_which_both_cascades_agree_become_one(other: Box, merged: Face) -> None:
    one = (100.0, 100.0, 40.0, 1.5)
    photo = np.zeros((200, 240, 3), np.uint8)
    assert find_with([Seeing((100, 100), one), Seeing((100, 100), other)], photo) == merged


def test_cascades_that_are_not_there_are_an_error_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(faces, "DATA", tmp_path)
    with pytest.raises(ConfigError, match=r"frontalcatface\.xml.*missing.*Install"):
        faces.load()
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ConfigError, match="has none"):
        faces.load()
