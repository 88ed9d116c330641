from collections.abc import Callable

import cv2
import numpy as np
import pytest

from catsweep.prepare.image_matching import Match, View, match

Image = np.ndarray


def scene(seed: int, height: int = 240, width: int = 320) -> Image:
    random = np.random.default_rng(seed)
    layers = [cv2.resize(random.uniform(0, 1, (side, side, 3)), (width, height)) for side in (5, 12, 30)]
    return np.rint(255 * sum(layers) / 3).astype(np.uint8)


def face(seed: int) -> Image:
    """A small picture that has most in common with the others of its kind, as aligned faces do."""
    common, own = scene(0, 64, 64) - 128.0, scene(1000 + seed, 64, 64) - 128.0
    return np.clip(128 + 1.4 * common + 1.1 * own, 0, 255).astype(np.uint8)


def jpeg(image: Image, quality: int) -> Image:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def resized(image: Image, factor: float) -> Image:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def captioned(image: Image) -> Image:
    image, width = image.copy(), image.shape[1]
    place = (width // 20, round(image.shape[0] * 0.95))
    cv2.putText(image, "so fluffy", place, cv2.FONT_HERSHEY_SIMPLEX, width / 200, (255, 255, 255), 2)
    return image


def grey(image: Image) -> Image:
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


CHANGES: dict[str, Callable[[Image], Image]] = {
    "pressed": lambda image: jpeg(image, 30),
    "small": lambda image: resized(image, 0.5),
    "brighter": lambda image: np.clip(image * 1.1 + 12, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "grey": grey,
    "captioned": captioned,
    "cropped a little": lambda image: image[1:-2, 2:-1],
}


def fit(one: Image, other: Image) -> Match:
    return match(View.of(one, with_keypoints=True), View.of(other, with_keypoints=True))


@pytest.mark.parametrize("photo", [scene(3), face(3)], ids=["photo", "face"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_the_same(change: str, photo: Image) -> None:
    found = fit(photo, CHANGES[change](photo))
    assert found.agreement > 0.75
    assert min(found.of_one, found.of_other) > 0.85


def test_faces_that_have_most_in_common_are_not_the_same() -> None:
    for seed in range(8):
        one, other = face(seed), face(seed + 8)
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.5
        assert fit(one, other).agreement < 0.45


@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_of_a_crop_it_is_said_how_much_it_shows(factor: float) -> None:
    photo = scene(5)
    found = fit(photo, jpeg(resized(photo[20:236, 4:302], factor), 70))
    assert found.agreement > 0.9
    assert found.of_one == pytest.approx(216 * 298 / (240 * 320), abs=0.05)
    assert found.of_other > 0.95
    half = fit(photo, photo[60:230, 90:310])
    assert half.agreement > 0.9
    assert half.of_one == pytest.approx(170 * 220 / (240 * 320), abs=0.05)
    swapped = fit(photo[60:230, 90:310], photo)
    assert (swapped.of_one, swapped.of_other) == pytest.approx((half.of_other, half.of_one), abs=0.02)


def test_a_mirror_image_fits_when_it_is_mirrored_back() -> None:
    photo, mirror = scene(6), scene(6)[:, ::-1]
    assert fit(photo, mirror).agreement < 0.45
    view = View.of(np.ascontiguousarray(mirror), with_keypoints=False)
    assert match(View.of(photo, with_keypoints=False), view.mirrored()).agreement > 0.95


def test_of_photos_that_show_nothing_nothing_can_be_said() -> None:
    plain = np.full((60, 80, 3), 90, np.uint8)
    assert fit(plain, plain).agreement == 0
    assert fit(scene(1), plain).agreement < 0.45
