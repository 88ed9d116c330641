import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from catsweep.data.operations import (
    DRAWS,
    LUMA,
    Brightness,
    Contrast,
    Crop,
    Flip,
    Nothing,
    Operation,
    Recipe,
    Saturation,
    active_operations,
    apply_recipe,
    brightness,
    describe_recipe,
    draw,
)
from catsweep.errors import ConfigError
from catsweep.synthetic.renderer import render

EACH: dict[str, Operation] = {
    "flip": Flip(0.5),
    "bright_dim": Brightness(0.3, [0.75, 0.95]),
    "bright_light": Brightness(0.3, [1.05, 1.25]),
    "contrast": Contrast(0.4, [0.8, 1.25]),
    "saturation": Saturation(0.4, [0.7, 1.25]),
    "crop_random": Crop(0.5, [0.8, 1.0]),
    "none": Nothing(0.1),
}
CATS = render(12, 48, seed=0)


def always(operation: type[Operation], amount: float) -> dict[str, Operation]:
    return {"it": operation(1.0, [amount, amount])}


def numbers(n: int, operations: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((n, operations, DRAWS))


def made(images: NDArray[np.uint8], operations: dict[str, Operation], size: int = 48, seed: int = 0) -> NDArray:
    recipe = draw(operations, brightness(images), numbers(len(images), len(operations), seed))
    out = np.zeros((len(images), size, size, 3), np.uint8)
    apply_recipe(images, recipe, out)
    return out


def test_nothing_drawn_is_nothing_done() -> None:
    np.testing.assert_array_equal(made(CATS.images, {}), CATS.images)
    np.testing.assert_array_equal(made(CATS.images, {"none": Nothing(1.0)}), CATS.images)


def test_flip_mirrors_left_and_right_and_twice_is_not_at_all() -> None:
    np.testing.assert_array_equal(made(CATS.images, {"it": Flip(1.0)}), CATS.images[:, :, ::-1])
    np.testing.assert_array_equal(made(CATS.images, {"it": Flip(1.0), "again": Flip(1.0)}), CATS.images)


@settings(max_examples=40)
@given(amount=st.floats(0.3, 1.7))
def test_brightness_multiplies_grey_and_leaves_black_and_white(amount: float) -> None:
    grey = np.full((1, 8, 8, 3), 128, np.uint8)
    assert made(grey, always(Brightness, amount), 8)[0, 0, 0, 0] == pytest.approx(128 * amount, abs=1.5)
    for value in (0, 255):
        plain = np.full((1, 8, 8, 3), value, np.uint8)
        np.testing.assert_array_equal(made(plain, always(Brightness, amount), 8), plain)


@settings(max_examples=40)
@given(amount=st.floats(0.5, 2.0), seed=st.integers(0, 50))
def test_contrast_keeps_black_white_and_average_and_spreads_what_is_around_it(amount: float, seed: int) -> None:
    low, high = np.random.default_rng(seed).integers(60, 180, 2)
    plain = np.full((1, 8, 8, 3), low, np.uint8)
    plain[:, :, 4:] = high  # the pixels by which brightness is measured: as many of one as of the other
    average = float(brightness(plain)[0])
    curve = draw(always(Contrast, amount), np.array([average]), numbers(1, 1)).curve[0]
    assert (curve[0], curve[255]) == pytest.approx((0, 255))
    assert np.all(np.diff(curve) > 0)
    pivot = round(average)
    assert curve[pivot] == pytest.approx(pivot, abs=0.1)
    assert (curve[pivot + 4] - curve[pivot - 4]) / 8 == pytest.approx(round(amount, 3), rel=0.05)


def test_contrast_after_brightness_turns_around_the_new_average() -> None:
    dim_first = {"dim": Brightness(1.0, [0.6, 0.6]), "contrast": Contrast(1.0, [1.5, 1.5])}
    curve = draw(dim_first, np.array([128.0]), numbers(1, 2)).curve[0]
    assert curve[128] == pytest.approx(128 * 0.6, abs=1)
    assert curve[140] - curve[116] > 1.4 * (255 * (140 / 255) ** 1.737 - 255 * (116 / 255) ** 1.737)


@settings(max_examples=20)
@given(amount=st.floats(0, 1.2))
def test_saturation_changes_colours_and_no_brightness(amount: float) -> None:
    soft = (CATS.images // 2 + 64).astype(np.uint8)  # far from the ends, where nothing has to be cut off
    changed = made(soft, always(Saturation, amount))
    np.testing.assert_allclose(changed @ LUMA, soft @ LUMA, atol=1.2)
    spread = [np.ptp(images.astype(int), axis=-1).mean() for images in (changed, soft)]
    assert spread[0] == pytest.approx(amount * spread[1], rel=0.05, abs=0.6)


def test_no_saturation_is_grey_and_full_saturation_nothing() -> None:
    grey = made(CATS.images, always(Saturation, 0.0))
    assert np.ptp(grey.astype(int), axis=-1).max() == 0
    np.testing.assert_array_equal(made(CATS.images, always(Saturation, 1.0)), CATS.images)


@settings(max_examples=40)
@given(amount=st.floats(0.3, 1.0), side=st.integers(8, 200), seed=st.integers(0, 99))
def test_crop_stays_inside_and_reaches_both_ends(amount: float, side: int, seed: int) -> None:
    recipe = draw(always(Crop, amount), np.zeros(50), numbers(50, 1, seed))
    corners = recipe.corners(side)
    assert np.all(corners[:, 2] == max(1, round(round(amount, 3) * side)))
    assert np.all(corners[:, :2] >= 0)
    assert np.all(corners[:, :2] + corners[:, 2:] <= side)
    room = side - corners[0, 2]
    assert np.ptp(corners[:, 0]) >= 0.7 * room - 2
    assert np.ptp(corners[:, 1]) >= 0.7 * room - 2


def test_a_crop_shows_the_part_that_was_cut_out() -> None:
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[None, None, :, None], (1, 200, 200, 3)).copy()
    recipe = draw(always(Crop, 0.5), np.array([100.0]), np.array([[[0, 0, 0.4, 0.0]]]))
    out = np.zeros((1, 50, 50, 3), np.uint8)
    apply_recipe(ramp, recipe, out)
    # Left edge at 0.4 of the 100 pixels of room; 100 pixels wide, averaged in pairs.
    np.testing.assert_allclose(out[0, 0, :, 0], 40 + 2 * np.arange(50) + 0.5, atol=0.6)


def test_a_crop_of_a_crop_is_a_crop() -> None:
    twice = {"a": Crop(1.0, [0.5, 0.5]), "b": Crop(1.0, [0.5, 0.5])}
    recipe = draw(twice, np.zeros(1), np.array([[[0, 0, 1.0, 0.0], [0, 0, 1.0, 1.0]]]))
    assert recipe.corners(100).tolist() == [[75, 25, 25]]


def test_operations_happen_as_often_as_they_should() -> None:
    recipe = draw(EACH, np.full(5_000, 100.0), numbers(5_000, len(EACH)))
    alone = recipe.done["none"][0]
    assert alone.mean() == pytest.approx(0.1, abs=0.02)
    for name, operation in EACH.items():
        chosen, amounts = recipe.done[name]
        assert chosen[~alone].mean() == pytest.approx(operation.probability if name != "none" else 0, abs=0.025)
        assert name == "none" or not chosen[alone].any()
        assert np.all((amounts >= operation.range[0]) & (amounts <= operation.range[1]))
    assert not recipe.mirrored[alone].any()
    assert (recipe.curve[alone] == np.arange(256)).all()


def test_images_are_independent_of_each_other() -> None:
    drawn = numbers(12, len(EACH))
    light = brightness(CATS.images)
    together, alone = np.zeros((2, 12, 32, 32, 3), np.uint8)
    apply_recipe(CATS.images, draw(EACH, light, drawn), together)
    for place in range(12):
        one = slice(place, place + 1)
        apply_recipe(CATS.images[one], draw(EACH, light[one], drawn[one]), alone[one])
    np.testing.assert_array_equal(together, alone)


def test_one_image_can_be_the_origin_of_many() -> None:
    recipe = draw(EACH, np.repeat(brightness(CATS.images[:1]), 12), numbers(12, len(EACH)))
    from_one, from_many = np.zeros((2, 12, 32, 32, 3), np.uint8)
    apply_recipe(CATS.images[:1], recipe, from_one)
    apply_recipe(np.repeat(CATS.images[:1], 12, axis=0), recipe, from_many)
    np.testing.assert_array_equal(from_one, from_many)
    assert len({image.tobytes() for image in from_one}) > 9


def test_the_default_operations_ruin_no_cat() -> None:
    """Of what is neither black nor white, almost nothing becomes so; and no cat becomes another colour on average."""
    before = CATS.images.repeat(20, axis=0)
    after = made(before, EACH)
    for end in (0, 255):
        assert ((after == end).mean() - (before == end).mean()) < 0.005
    hues = [images.mean(axis=(1, 2)) for images in (before, after)]
    tints = [hue / hue.sum(axis=1, keepdims=True) for hue in hues]
    assert np.abs(tints[1] - tints[0]).max() < 0.05
    assert np.abs(hues[1] - hues[0]).max() < 45


@settings(max_examples=40)
@given(amount=st.floats(0.8, 1.0), mirror=st.booleans(), seed=st.integers(0, 30), side=st.sampled_from([40, 64, 90]))
def test_landmarks_go_where_the_pixels_go(amount: float, mirror: bool, seed: int, side: int) -> None:
    draws = np.random.default_rng(seed)
    operations = {"crop": Crop(1.0, [amount, amount]), "flip": Flip(float(mirror))}
    recipe = draw(operations, np.zeros(1), draws.random((1, 2, DRAWS)))
    spot = draws.uniform(0.45, 0.55, 2) * side - 0.5
    y, x = np.mgrid[:side, :side]
    picture = np.exp(-((x - spot[0]) ** 2 + (y - spot[1]) ** 2) / (2 * (side / 24) ** 2))
    images = np.rint(picture[None, ..., None].repeat(3, axis=-1) * 255).astype(np.uint8)
    out = np.zeros((1, 64, 64, 3), np.uint8)
    apply_recipe(images, recipe, out)
    weight = out[0, ..., 0].astype(float) ** 2
    found = [(weight * axis).sum() / weight.sum() for axis in np.mgrid[:64, :64][::-1]]
    left, top, cut = recipe.corners(side)[0]
    x, y = (spot + 0.5 - [left, top]) * (64 / cut) - 0.5
    np.testing.assert_allclose(found, [63 - x if mirror else x, y], atol=0.35)


def test_the_account_tells_what_was_done_and_how_much() -> None:
    recipe = draw(EACH, np.full(200, 100.0), numbers(200, len(EACH)))
    accounts = list(describe_recipe(recipe, 96))
    for place, (done, parameters) in enumerate(accounts):
        names = [] if done == "none" else done.split()
        assert names == [name for name in EACH if name != "none" and recipe.done[name][0][place]]
        amounts = {name: value for name, value in parameters.items() if name != "box"}
        assert amounts == {name: recipe.done[name][1][place] for name in names if name != "flip"}
        assert parameters.get("box", [0, 0, 96]) == recipe.corners(96)[place].tolist()
    assert {"none", "flip"} <= {done for done, _ in accounts}


@pytest.mark.parametrize(
    ("operation", "probability", "span"),
    [
        (Flip, 1.1, (0, 0)),
        (Flip, -0.1, (0, 0)),
        (Brightness, 0.5, (1.2, 0.8)),
        (Brightness, 0.5, (0.0, 1.0)),
        (Contrast, 0.5, (1.0, 9.0)),
        (Saturation, 0.5, (-1.0, 1.0)),
        (Crop, 0.5, (0.8, 1.1)),
        (Crop, float("nan"), (0.8, 1.0)),
    ],
)
def test_what_cannot_be_is_refused(operation: type[Operation], probability: float, span: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match=f"Expected of {operation.__name__} a probability from 0 to 1"):
        operation(probability, span)


def test_what_never_happens_is_left_out_and_what_is_no_operation_refused() -> None:
    assert list(active_operations({"a": Flip(0.0), "b": Flip(0.1)})) == ["b"]
    assert active_operations(None) == {}
    with pytest.raises(ConfigError, match="Expected operation contrast to name a class by _target_"):
        active_operations({"contrast": {"probability": 0.5}})  # type: ignore[dict-item]


def test_an_operation_of_ones_own_needs_only_to_change_the_recipe() -> None:
    class Invert(Operation):
        def change(self, recipe: Recipe, rows: NDArray, amounts: NDArray, places: NDArray) -> None:
            recipe.curve[rows] = 255 - recipe.curve[rows]

    np.testing.assert_array_equal(made(CATS.images, {"invert": Invert(1.0)}), 255 - CATS.images)
