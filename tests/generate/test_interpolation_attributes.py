"""Measures on images whose value is known, and directions in latents whose meaning is known."""

import numpy as np
import pytest
import torch

from catsweep.errors import DataError
from catsweep.generate import interpolation
from catsweep.models.generator import draw_latents


def flat(*colour: int) -> np.ndarray:
    return np.full((1, 4, 4, 3), colour, np.uint8)


HALVES = np.concatenate([flat(0, 0, 0)[:, :, :2], flat(255, 255, 255)[:, :, :2]], 2)


@pytest.mark.parametrize(
    ("name", "image", "value"),
    [
        ("brightness", flat(255, 255, 255), 1),
        ("brightness", flat(0, 255, 0), 0.587),
        ("contrast", flat(9, 200, 70), 0),
        ("contrast", HALVES, 0.5),
        ("warmth", flat(255, 80, 0), 1),
        ("warmth", flat(0, 80, 255), -1),
        ("warmth", flat(200, 0, 200), 0),
        ("colour", flat(90, 90, 90), 0),
        ("colour", flat(51, 0, 0), 0.2),
        ("detail", flat(1, 2, 3), 0),
        ("detail", HALVES, 1 / 6),  # one of three steps across, none down
    ],
)
def test_measures(name, image, value) -> None:
    assert interpolation.MEASURES[name](image).tolist() == pytest.approx([value], abs=1e-6)


def test_measured_directions_point_to_what_they_are_called(toy) -> None:
    found = interpolation.measured(toy, list(interpolation.MEASURES))
    assert list(found) == ["brightness", "warmth", "colour"]  # the toy's images are plain: no contrast, no detail
    assert all(way.norm().item() == pytest.approx(1) for way in found.values())
    red, green, blue, *idle = found["brightness"].tolist()
    assert green > red > blue > 0
    assert max(map(abs, idle)) < 0.15
    red, green, blue, *idle = found["warmth"].tolist()
    assert red > 0.6
    assert blue < -0.6
    assert max(map(abs, (green, *idle))) < 0.15


def test_measuring_is_repeatable(toy) -> None:
    one, two = (interpolation.measured(toy, ["warmth"], 64)["warmth"] for _ in range(2))
    assert torch.equal(one, two)


def test_direction_is_from_the_mean_without_to_the_mean_with() -> None:
    lacking = draw_latents(5, 3, seed=0)
    way = interpolation.direction(lacking + torch.tensor([0.0, 4.0, 3.0]), lacking, "a hat")
    assert way.tolist() == pytest.approx([0, 0.8, 0.6], abs=1e-6)
    with pytest.raises(DataError, match="with and without a hat"):
        interpolation.direction(lacking, lacking.flip(0), "a hat")


def test_photos_are_told_apart_by_means_that_do_not_know_them() -> None:
    near, far = draw_latents(40, 200, seed=0), draw_latents(40, 200, seed=1)
    right, asked = interpolation.told_apart(near, far)
    assert asked == 80
    assert 15 <= right <= 60  # of noise, about half; by means that know them it would be all
    shift = torch.nn.functional.pad(torch.tensor([8.0]), (0, 199))
    assert interpolation.told_apart(near + shift, far) == (80, 80)


def test_leaving_one_out_is_done_as_it_says() -> None:
    having, lacking = draw_latents(6, 4, seed=2) + 0.8, draw_latents(5, 4, seed=3)
    right = 0
    for group, other, sign in ((having, lacking, 1), (lacking, having, -1)):
        for place in range(len(group)):
            mean, away = torch.cat([group[:place], group[place + 1 :]]).mean(0), other.mean(0)
            right += int((group[place] - (mean + away) / 2) @ (mean - away) > 0)
        del sign
    assert interpolation.told_apart(having, lacking) == (right, 11)


def test_a_group_of_one_is_not_asked() -> None:
    assert interpolation.told_apart(draw_latents(1, 4, 0), draw_latents(1, 4, 1)) == (0, 0)
    assert interpolation.told_apart(draw_latents(1, 4, 0), draw_latents(3, 4, 1))[1] == 3
