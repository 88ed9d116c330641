"""DiffAugment: what each part does to an image, that gradients pass twice, and that no two images share their draws."""

import copy

import pytest
import torch
from torch import nn

from catsweep.errors import ConfigError
from catsweep.losses.adversarial import r1_penalty
from catsweep.models.diffaugment import DiffAugment, color, cutout, translation

PARTS = ("color", "translation", "cutout")
every_part = pytest.mark.parametrize("policy", [*([part] for part in PARTS), list(PARTS)], ids="+".join)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_an_empty_policy_is_the_identity():
    images = torch.rand(4, 3, 32, 32)
    assert DiffAugment([])(images) is images


@pytest.mark.parametrize("policy", [["colour"], ["color", "flip"]])
def test_an_unknown_name_is_refused_with_the_names_there_are(policy):
    with pytest.raises(ConfigError, match=rf"color, translation, cutout.*'{policy[-1]}'"):
        DiffAugment(policy)


def test_the_order_of_names_does_not_matter():
    assert DiffAugment(["cutout", "color"]).policy == DiffAugment(["color", "cutout"]).policy == ("color", "cutout")


@every_part
@pytest.mark.parametrize("size", [32, 64, 128])
def test_keeps_the_shape_and_changes_each_image_in_its_own_way(policy, size):
    images = torch.rand(1, 3, size, size).expand(16, 3, size, size)
    result = DiffAugment(policy)(images)
    assert result.shape == images.shape
    distinct = {tuple(image.flatten().tolist()) for image in result}
    assert len(distinct) > 12
    assert not torch.equal(result, DiffAugment(policy)(images))


@every_part
def test_repeats_with_torch_s_seed(policy):
    images, augment = torch.rand(4, 3, 32, 32), DiffAugment(policy)
    torch.manual_seed(3)
    first = augment(images)
    torch.manual_seed(3)
    assert torch.equal(augment(images), first)


@every_part
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_also_under_autocast(policy, dtype):
    images = torch.rand(4, 3, 32, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(3)
        result = DiffAugment(policy)(images)
    torch.manual_seed(3)
    expected = DiffAugment(policy)(images.float())
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


@every_part
def test_gradients_are_those_of_finite_differences_first_and_second(policy):
    part = {"color": color, "translation": translation, "cutout": cutout}

    def seeded(images):
        torch.manual_seed(5)
        for name in policy:
            images = part[name](images)
        return images.square()  # so that there is a second derivative to check

    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, images, fast_mode=True)
    assert torch.autograd.gradgradcheck(seeded, images, fast_mode=True)


@every_part
def test_r1_reaches_the_discriminator_through_it(policy):
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 30 * 30, 1))
    images = torch.rand(4, 3, 32, 32, requires_grad=True)
    r1_penalty(images, critic(DiffAugment(policy)(images))).backward()
    assert critic.get_parameter("0.weight").grad.abs().sum() > 0


def test_color_is_the_paper_s_three_steps():
    images = torch.rand(5, 3, 16, 16)
    torch.manual_seed(9)
    result = color(images)
    torch.manual_seed(9)
    brightness, saturation, contrast = torch.rand(3, 5, 1, 1, 1)
    expected = images + (brightness - 0.5) / 2  # the paper's -0.5 to 0.5 is on images in [-1, 1]
    grey = expected.mean(dim=1, keepdim=True)
    expected = (expected - grey) * (saturation * 2) + grey
    level = expected.mean(dim=(1, 2, 3), keepdim=True)
    expected = (expected - level) * (contrast + 0.5) + level
    torch.testing.assert_close(result, expected)


def test_color_stays_within_the_documented_range():
    extremes = torch.randint(0, 2, (256, 3, 4, 4)).float()
    result = color(extremes)
    assert result.min() >= -2.5
    assert result.max() <= 3.5
    usual = color(torch.rand(256, 3, 16, 16))
    assert ((usual > -0.5) & (usual < 1.5)).float().mean() > 0.98


def test_translation_moves_whole_pixels_and_fills_with_grey():
    images = torch.zeros(200, 1, 16, 24)
    images[:, :, 8, 12] = 1
    result = translation(images)
    places = (result == 1).nonzero()
    assert len(places) == 200  # a bright pixel in each image, not spread over neighbours
    assert set((places[:, 2] - 8).tolist()) == set((places[:, 3] - 12).tolist()) == {-3, -2, -1, 0, 1, 2, 3}
    down = places[:, 2] - 8
    moved_down = result[down == 2][:, :, :2]
    assert torch.equal(moved_down, torch.full_like(moved_down, 0.5))


def test_translation_gives_filled_pixels_no_gradient_and_lost_pixels_none():
    images = torch.rand(8, 1, 16, 16, requires_grad=True)
    result = translation(images)
    kept = (result.detach() != 0.5).sum()
    result.sum().backward()
    assert images.grad.sum() == kept
    assert set(images.grad.unique().tolist()) <= {0.0, 1.0}


def test_cutout_paints_at_most_half_the_side_and_hides_every_place_only_sometimes():
    result = cutout(torch.ones(400, 1, 16, 16))
    painted = result == 0.5
    assert torch.equal(painted | (result == 1), torch.ones_like(painted))
    assert painted.flatten(1).sum(dim=1).max() == 8 * 8
    assert painted.flatten(1).sum(dim=1).min() >= 4 * 4  # the centre is in the image
    often = painted.float().mean(dim=0)
    assert 0.05 < often.min() < often.max() < 0.5


def test_a_model_with_it_can_be_copied_and_prints_its_policy():
    augment = copy.deepcopy(DiffAugment(["translation"]))
    assert "translation" in repr(augment)
    assert not list(augment.parameters())
    assert not augment.state_dict()
