import cv2
import numpy as np
import pytest

from catsweep.prepare import image_matching
from catsweep.prepare.image_matching import estimate_similarity, find_keypoints, shared_keypoints, shrunk, sketch


def scene(seed: int, height: int = 240, width: int = 320) -> np.ndarray:
    """A picture in grey with blobs of several sizes."""
    random = np.random.default_rng(seed)
    layers = [cv2.resize(random.uniform(0, 1, (side, side)), (width, height)) for side in (5, 12, 30)]
    return np.rint(255 * sum(layers) / 3).astype(np.uint8)


def cropped(image: np.ndarray) -> np.ndarray:
    """As in the issue: 216 x 298 of 240 x 320, not from the middle."""
    return image[20:236, 4:302]


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_GRAYSCALE)


def test_a_crop_has_keypoints_in_common_with_its_photo_and_other_photos_have_none() -> None:
    photos = [scene(seed) for seed in range(8)]
    photos += [jpeg(cropped(photos[3]), 60), cv2.resize(photos[5][:170, 90:], None, fx=0.7, fy=0.7)]
    one, other, count = shared_keypoints([sketch(photo) for photo in photos])
    assert list(zip(one.tolist(), other.tolist(), strict=True)) == [(3, 8), (5, 9)]
    assert count.min() >= 2


@pytest.mark.parametrize("sketches", [[], [""], ["", ""], [sketch(scene(0))]])
def test_photos_without_keypoints_and_single_ones_have_none_in_common(sketches: list[str]) -> None:
    assert [len(some) for some in shared_keypoints(sketches)] == [0, 0, 0]


def test_a_plain_photo_has_no_keypoints() -> None:
    plain = np.full((50, 70), 99, np.uint8)
    assert sketch(plain) == ""
    assert find_keypoints(plain, 9).descriptors.shape == (0, 128)
    assert estimate_similarity(find_keypoints(plain, 9), find_keypoints(scene(0), 9)) is None


def test_a_photo_with_a_thousand_copies_is_looked_up_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_matching, "_MEET", 3)
    one, other, _ = shared_keypoints([sketch(scene(1))] * 100)
    assert len(one) <= 3 * 100
    assert set(other.tolist()) == set(range(1, 100))


def test_the_strongest_come_first_and_no_more_than_are_asked_for() -> None:
    few, many = find_keypoints(scene(2), 10), find_keypoints(scene(2), 40)
    assert len(few.places) == 10
    assert np.array_equal(few.places, many.places[:10])
    assert np.allclose(np.linalg.norm(many.descriptors, axis=1), 1)


def test_the_transform_between_two_photos_is_found() -> None:
    whole = scene(4)
    turned = cv2.getRotationMatrix2D((160, 120), 12, 0.8)
    part = cv2.warpAffine(whole, turned, (300, 220))
    matrix = estimate_similarity(find_keypoints(part, 200), find_keypoints(whole, 200))
    assert matrix is not None
    corners = np.array([[40, 40, 1], [280, 40, 1], [160, 200, 1]], float).T
    assert np.abs(matrix @ corners - turned @ corners).max() < 1.5
    assert estimate_similarity(find_keypoints(scene(5), 200), find_keypoints(whole, 200)) is None


def test_large_photos_are_shrunk_and_small_ones_are_not() -> None:
    small = shrunk(scene(0, 100, 400), 100)
    assert small.shape == (25, 100)
    assert shrunk(small, 100) is small
