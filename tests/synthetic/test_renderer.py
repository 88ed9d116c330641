"""Demo cats: the same for the same numbers, true to their landmarks and masks, alike at every size, and varied."""

import hashlib
import itertools
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catsweep.errors import DataError
from catsweep.synthetic.catalogue import BACKDROPS, PATTERNS, Cat, Pose, pick
from catsweep.synthetic.layers import fur, grid, landmarks_of, to_face, to_picture
from catsweep.synthetic.renderer import SMALLEST, Cats, draw, render

NAMES = (
    "left eye",
    "right eye",
    "mouth",
    "left outer",
    "left tip",
    "left inner",
    "right inner",
    "right tip",
    "right outer",
)
FRAMING = ((0.32, 0.42), (0.68, 0.42), (0.50, 0.70))


@pytest.fixture(scope="module")
def many() -> Cats:
    """Enough cats for statements about the whole set."""
    return render(120, 64, seed=0)


@pytest.fixture(scope="module")
def catalogue() -> list[Cat]:
    """The parameters of many cats; picking is cheap."""
    return [pick(1, i) for i in range(400)]


def gap(first: np.ndarray, second: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures, in grey levels."""
    return float(np.abs(first.astype(np.int16) - second).mean())


@given(size=st.integers(SMALLEST, 70), seed=st.integers(0, 2**64), n=st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_shapes_and_types_hold_for_any_size_and_seed(size: int, seed: int, n: int) -> None:
    cats = render(n, size, seed)
    assert (cats.images.shape, cats.images.dtype) == ((n, size, size, 3), np.dtype(np.uint8))
    assert (cats.landmarks.shape, cats.landmarks.dtype) == ((n, 9, 2), np.dtype(np.float32))
    assert (cats.masks.shape, cats.masks.dtype) == ((n, size, size), np.dtype(np.bool_))
    assert np.all((cats.landmarks >= 0) & (cats.landmarks <= size))


def test_same_numbers_give_the_same_cats() -> None:
    first, second = render(6, 48, seed=7), render(6, 48, seed=7)
    for name in ("images", "landmarks", "masks"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def numbers(value: Any) -> list[Any]:
    """All that a nested value holds, floats rounded."""
    if isinstance(value, dict | tuple | list):
        return [part for item in (value.values() if isinstance(value, dict) else value) for part in numbers(item)]
    return [round(value, 6) if isinstance(value, float) else value]


def test_the_cats_are_those_of_earlier_versions() -> None:
    """Ready sets and statistics of real images are found by the pixels."""
    drawn = repr([numbers(asdict(pick(0, index))) for index in range(200)])
    assert hashlib.sha256(drawn.encode()).hexdigest()[:16] == "4e1814097e2d984c"
    colours = [[96.0, 102.6, 114.2], [164.8, 162.8, 157.3], [118.0, 126.7, 131.0], [113.5, 103.5, 80.5]]
    np.testing.assert_allclose(render(4, 32, seed=0).images.mean(axis=(1, 2)), colours, atol=0.2)


def test_a_cat_does_not_depend_on_how_many_are_drawn() -> None:
    few, more = render(2, 32, seed=3), render(9, 32, seed=3)
    for name in ("images", "landmarks", "masks"):
        np.testing.assert_array_equal(getattr(few, name), getattr(more, name)[:2])


def test_another_seed_gives_other_cats() -> None:
    assert gap(render(4, 32, seed=0).images, render(4, 32, seed=1).images) > 20


@pytest.mark.parametrize(("n", "size", "seed"), [(0, 64, 0), (-1, 64, 0), (1, SMALLEST - 1, 0), (1, 64, -1)])
def test_impossible_requests_are_refused(n: int, size: int, seed: int) -> None:
    with pytest.raises(DataError, match=r"need \w+ >= \d+, got"):
        render(n, size, seed)


def test_every_landmark_lies_on_the_cat(many: Cats) -> None:
    size = many.images.shape[1]
    reach = np.ones((5, 5), np.uint8)  # ears end in a hair's breadth: allow two pixels
    for points, mask in zip(many.landmarks, many.masks, strict=True):
        near = cv2.dilate(mask.astype(np.uint8), reach)
        columns, rows = np.clip(np.floor(points).astype(int), 0, size - 1).T
        inside = mask[rows, columns][:3].tolist() + near[rows, columns][3:].tolist()
        assert all(inside), [name for name, held in zip(NAMES, inside, strict=True) if not held]


def test_ear_tips_end_the_mask(many: Cats) -> None:
    """Just beyond a tip, away from the ear's middle, the cat is over."""
    size = many.images.shape[1]
    for points, mask in zip(many.landmarks, many.masks, strict=True):
        for base, tip, other in (points[3:6], points[6:9]):
            axis = tip - (base + other) / 2
            column, row = np.floor(tip + 3.5 * axis / np.linalg.norm(axis)).astype(int)
            assert not (0 <= row < size and 0 <= column < size and mask[row, column])


def test_left_is_left_of_right_and_ears_are_above_the_eyes(many: Cats) -> None:
    x, y = many.landmarks[..., 0], many.landmarks[..., 1]
    assert np.all(x[:, 0] < x[:, 2])
    assert np.all(x[:, 2] < x[:, 1])
    assert np.all(np.diff(x[:, [3, 5, 6, 8]], axis=1) > 0)
    assert np.all(y[:, [4, 5, 6, 7]].max(axis=1) < y[:, :2].min(axis=1))
    assert np.all(y[:, 4] < y[:, 5])
    assert np.all(y[:, 7] < y[:, 6])
    assert np.all(y[:, :2].max(axis=1) < y[:, 2])


def test_framing_is_that_of_the_aligned_photos(catalogue: list[Cat]) -> None:
    points = np.stack([landmarks_of(cat)[:3] for cat in catalogue])
    np.testing.assert_allclose(points.mean(axis=0), FRAMING, atol=0.01)
    assert np.abs(points - FRAMING).max() < 0.06


def test_no_pose_pushes_a_landmark_out_of_the_picture(catalogue: list[Cat]) -> None:
    """Every combination of the extremes of the pose, with the widest and highest ears."""
    ears = replace(catalogue[0].shape, skull=(0.435, 0.34), ear_tip=(0.385, 0.075), ear_roundness=0.012)
    signs = itertools.product((-2, 2), repeat=5)
    poses = [Pose(1.03, 0.035 * a, (0.008 * b, 0.008 * c), 0.13 * d, 0.06 * e) for a, b, c, d, e in signs]
    points = np.stack([landmarks_of(replace(catalogue[0], shape=ears, pose=pose)) for pose in poses])
    assert points.min() > 0
    assert points.max() < 1
    for cat in catalogue:  # the extremes above are those of the draw
        assert cat.shape.ear_tip[0] <= 0.385
        assert cat.shape.ear_tip[1] >= 0.075
        assert cat.pose.scale <= 1.03
        assert np.all(np.abs([cat.pose.roll / 0.07, cat.pose.turn / 0.26, cat.pose.nod / 0.12]) <= 1 + 1e-9)


def test_eyes_are_drawn_where_the_landmarks_say() -> None:
    """Without its pupils the picture of a cat changes at the eye landmarks and nowhere else."""
    cat = pick(0, 0)
    blind = replace(cat, features=replace(cat.features, pupil=0.001))
    size = 128
    change = np.abs(draw(cat, size)[0].astype(int) - draw(blind, size)[0]).sum(axis=2)
    rows, columns = np.nonzero(change > 60)
    left = columns < size / 2
    found = [(columns[side].mean() + 0.5, rows[side].mean() + 0.5) for side in (left, ~left)]
    gaze = np.array(cat.features.gaze) * size
    np.testing.assert_allclose(found, landmarks_of(cat)[:2] * size + gaze, atol=0.025 * size)


@given(
    turn=st.floats(-0.26, 0.26),
    nod=st.floats(-0.12, 0.12),
    roll=st.floats(-0.07, 0.07),
    scale=st.floats(0.95, 1.03),
    shift=st.tuples(st.floats(-0.016, 0.016), st.floats(-0.016, 0.016)),
)
@settings(max_examples=40, deadline=None)
def test_to_picture_undoes_to_face(
    turn: float, nod: float, roll: float, scale: float, shift: tuple[float, float]
) -> None:
    pose = Pose(scale, roll, shift, turn, nod)
    x, y = grid(16)
    face = np.stack(to_face(x, y, pose), axis=-1).reshape(-1, 2)
    np.testing.assert_allclose(to_picture(face, pose), np.stack([x, y], axis=-1).reshape(-1, 2), atol=0.01)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_cat_is_the_same_at_twice_the_size(size: int) -> None:
    small, large = render(6, size, seed=2), render(6, 2 * size, seed=2)
    np.testing.assert_allclose(2 * small.landmarks, large.landmarks, rtol=1e-5)
    shrunk = np.stack([cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA) for image in large.images])
    assert gap(small.images, shrunk) < 4
    whole = large.masks.reshape(6, size, 2, size, 2).mean(axis=(2, 4)) > 0.5
    assert (small.masks != whole).mean() < 0.02


def test_masks_hold_the_cat_and_leave_a_background(many: Cats) -> None:
    share = many.masks.mean(axis=(1, 2))
    assert share.min() > 0.4
    assert share.max() < 0.9
    assert not many.masks[:, :2, 30:34].any()  # between the ears
    assert many.masks[:, -1, 28:36].all()  # the chest reaches the lower edge


def test_the_set_is_varied(many: Cats) -> None:
    pictures = many.images.reshape(len(many.images), -1)
    gaps = [gap(a, b) for i, a in enumerate(pictures[:40]) for b in pictures[i + 1 : 40]]
    assert np.mean(gaps) > 45
    assert np.min(gaps) > 10
    brightness = np.array([image[mask].mean() for image, mask in zip(many.images, many.masks, strict=True)])
    assert brightness.std() > 25  # black cats and white ones


def test_every_pattern_and_background_occurs(catalogue: list[Cat]) -> None:
    patterns = [cat.coat.pattern for cat in catalogue]
    for pattern in PATTERNS:
        assert patterns.count(pattern.name) / len(patterns) == pytest.approx(pattern.share, abs=0.08)
    assert all(any(cat.scene.backdrop is kind for cat in catalogue) for kind in BACKDROPS)


def test_patterns_are_what_their_names_say(catalogue: list[Cat]) -> None:
    for cat in catalogue:
        coat = cat.coat
        if coat.pattern == "tabby":
            assert coat.stripes >= 0.8
        if coat.pattern == "tuxedo":
            assert coat.white >= 0.35
        if coat.pattern == "siamese":
            assert coat.points == 1
            assert cat.features.iris[2] > cat.features.iris[0]  # blue eyes
        if coat.pattern == "solid":
            assert (coat.stripes, coat.white, coat.patches, coat.points) == (0, 0, 0, 0)
        assert bool(coat.patches) == (coat.pattern == "calico")


def test_a_tuxedo_has_a_white_chest_and_a_siamese_a_dark_mask() -> None:
    cats = [pick(4, i) for i in range(60)]
    tuxedo = next(c for c in cats if c.coat.pattern == "tuxedo" and max(c.coat.base) < 0.2 and not c.features.collar)
    image, _ = draw(tuxedo, 64)
    assert image[60:, 29:35].mean() > image[18:22, 24:28].mean() + 60
    siamese = next(c for c in cats if c.coat.pattern == "siamese" and max(c.coat.dark) < 0.3)
    image, _ = draw(siamese, 64)
    assert image[34:36, 30:34].mean() < image[34:36, 6:10].mean() - 40


def test_colours_stay_colours_whatever_was_varied(catalogue: list[Cat]) -> None:
    for cat in catalogue:
        values = asdict(cat)
        colours = [values["coat"][name] for name in ("base", "dark", "light", "second")]
        colours += [values["features"]["iris"], values["features"]["nose"], *values["scene"]["colours"]]
        assert np.all((np.array(colours) > 0) & (np.array(colours) < 1))


def test_fur_is_balanced_and_finer_on_a_larger_canvas() -> None:
    for size in (64, 512):
        x, y = grid(size)
        locks, hairs = fur(x - 0.5, y, np.random.default_rng(0))
        assert abs(float((locks + hairs).mean())) < 0.1
        assert 0.1 < float((locks + hairs).std()) < 1.2
        assert locks.dtype == hairs.dtype == np.float32
    x, y = grid(64)
    assert not fur(x - 0.5, y, np.random.default_rng(0))[1].any()  # single hairs cannot be seen here


@pytest.mark.photos
def test_fur_and_light_vary_as_much_as_in_photos(many: Cats, photos: Path) -> None:
    """The spread of brightness over a set is near that of real cats, so scores mean something on demo cats."""
    files = sorted((photos / "cats").glob("*.jpg"))[::40]
    real = np.array([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).mean() for file in files])
    ours = many.images.mean(axis=(1, 2, 3))
    assert ours.std() > 0.5 * real.std()
    assert abs(ours.mean() - real.mean()) < 30
