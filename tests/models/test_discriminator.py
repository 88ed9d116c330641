"""What both discriminators promise to the models, and what is particular to looking through a frozen network."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from catsweep.errors import ConfigError
from catsweep.losses.frozen_features import FrozenFeatures
from catsweep.models.blocks import PlainDown, ResidualDown
from catsweep.models.discriminator import Discriminator, PlainDiscriminator, ProjectedDiscriminator

LEAKY = partial(nn.LeakyReLU, 0.2)
STRIDES = (2, 4, 8, 16)


def plain(image_size: int = 32, down=PlainDown, **changes) -> PlainDiscriminator:
    torch.manual_seed(0)
    arguments = {"halvings": 2, "channels": 4, "max_channels": 8, "normalization": nn.BatchNorm2d, "activation": LEAKY}
    return PlainDiscriminator(down, image_size=image_size, **{**arguments, **changes})


def projected(image_size: int = 32, **changes) -> ProjectedDiscriminator:
    torch.manual_seed(0)
    arguments = {
        "network": "efficientnet_lite1",
        "strides": STRIDES,
        "channels": 8,
        "head_channels": 8,
        "normalization": nn.BatchNorm2d,
        "activation": LEAKY,
    }
    return ProjectedDiscriminator(image_size, **{**arguments, **changes})


def photos(n: int = 4, size: int = 32, seed: int = 0) -> Tensor:
    coarse = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear")


each = pytest.mark.parametrize("make", [plain, partial(plain, down=ResidualDown), projected])


# What both promise


@each
def test_to_judge_is_to_see_and_then_to_judge(make):
    network, images = make().eval(), photos()
    logits = network(images)
    assert logits.shape[0] == 4
    assert logits.ndim == 2
    assert logits.isfinite().all()
    assert torch.equal(network.judge(network.see(images)), logits)


@each
def test_what_is_seen_has_no_graph_but_that_of_the_images(make):
    network = make()
    assert not any(part.requires_grad for part in network.see(photos()))
    seen = network.see(photos().requires_grad_())
    assert all(part.requires_grad for part in seen)
    network.requires_grad_(False)
    network.requires_grad_(True)  # as a generator's step does
    assert not any(part.requires_grad for part in network.see(photos()))


@each
def test_gradients_reach_images_and_all_that_is_trained(make):
    network, images = make(), photos().requires_grad_()
    network(images).square().mean().backward()
    assert images.grad.isfinite().all()
    assert images.grad.abs().sum() > 0
    kernels = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    assert kernels
    assert all(parameter.grad.abs().sum() > 0 for parameter in kernels)


@each
def test_in_evaluation_each_image_is_judged_by_itself(make):
    network, images = make().eval(), photos()
    one_by_one = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), one_by_one, atol=1e-4, rtol=1e-4)


@each
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_all_layers_or_none_have_their_spectral_norm_bounded(make, spectral_norm):
    network = make(spectral_norm=spectral_norm)
    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert all(hasattr(layer, "parametrizations") == spectral_norm for layer in layers)
    if spectral_norm:
        for _ in range(30):  # each pass estimates it a little better
            network(photos())
        norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() for layer in layers]
        assert norms == pytest.approx([1.0] * len(norms), abs=0.05)


@pytest.mark.parametrize(("make", "rate"), [(plain, 0.01), (partial(plain, down=ResidualDown), 0.01), (projected, 0.1)])
def test_it_learns_to_tell_photos_from_noise(make, rate):
    network, real = make(spectral_norm=False), photos(8)
    network.calibrate(real)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for step in range(20):
        noise = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        loss = torch.relu(1 - network(real)).mean() + torch.relu(1 + network(noise)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]


def test_a_discriminator_of_ones_own_needs_only_to_judge():
    class Brightness(Discriminator):
        def judge(self, seen):
            return seen[0].mean((1, 2, 3))[:, None]

    network, images = Brightness(), photos()
    network.calibrate(images)
    torch.testing.assert_close(network(images), images.mean((1, 2, 3))[:, None])


# The plain one


def test_the_plain_one_has_one_logit_and_the_names_that_checkpoints_have_always_had():
    network = plain()
    assert network(photos()).shape == (4, 1)
    assert {name.partition(".")[0] for name in network.state_dict()} == {"stages", "head"}


def test_the_plain_one_is_not_changed_by_a_measure_of_photos():
    network = plain()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.calibrate(photos())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


# The projected one


@pytest.mark.parametrize(
    ("size", "min_side", "depths", "logits"),
    [
        (16, None, 2, 2 * 4),
        (16, 64, 4, 4 * 4),
        (32, None, 3, 3 * 4),
        (64, None, 4, 4 * 4),
        (64, 32, 4, 4 * 4),
        (96, None, 4, 4 * 9),
        (100, None, 4, 4 * 9),
        (128, None, 4, 4 * 4),
        (64, 96, 4, 4 * 9),
    ],
)
def test_it_works_at_any_size_with_the_depths_that_have_a_map(size, min_side, depths, logits):
    network = projected(size, min_side=min_side)
    seen = network.see(photos(2, size))
    assert len(seen) == len(network.heads) == depths
    assert [part.shape[1] for part in seen] == [4, 8, 8, 8][:depths]
    found = network.judge(seen)
    assert found.isfinite().all()
    assert found.shape == (2, logits)


def test_the_pixels_of_each_cell_are_among_what_the_first_depth_mixes():
    network, images = projected(64, channels=24), photos(2, 64)
    # The network's 16 features are left out, and each of the 12 values of a cell is kept.
    network.projections.get_buffer("0.weight").copy_(torch.eye(28)[16:, :, None, None])
    torch.testing.assert_close(nn.functional.pixel_shuffle(network.see(images)[0], 2), 2 * images - 1)


def test_without_pixels_the_network_is_all_there_is_to_see_through():
    network = projected(64, pixels=False)
    features = FrozenFeatures.of("efficientnet_lite1", torch.device("cpu"))(photos(2, 64))
    assert [one.get_buffer("weight").shape[1] for one in network.projections] == [part.shape[1] for part in features]


@pytest.mark.parametrize("strides", [(8, 16), (4,)])
def test_pixels_join_whatever_depth_is_the_first(strides):
    network = projected(100, strides=strides)
    assert network.see(photos(2, 100))[0].shape == (2, 8, *[100 // strides[0]] * 2)


def test_fewer_depths_are_those_that_were_asked_for():
    network = projected(64, strides=[4, 16])
    assert [part.shape[1:] for part in network.see(photos(2, 64))] == [(8, 16, 16), (8, 4, 4)]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"image_size": 4}, r"\[2, 4, 8, 16\].*images of 4 pixels.*min_side=96"),
        ({"strides": [16]}, r"got \[16\] for images of 32 pixels"),
        ({"strides": [3, 4]}, r"got \[3, 4\]"),
        ({"strides": []}, r"got \[\]"),
        ({"network": "vgg"}, r"discriminator\.network must be one of .*efficientnet_lite1; got 'vgg'"),
    ],
)
def test_what_it_cannot_look_through_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        projected(**changes)


def test_calibration_gives_each_depth_unit_deviation_on_those_photos():
    network, real = projected(64), photos(8, 64)
    network.calibrate(real)
    assert [part.std().item() for part in network.see(real)] == pytest.approx([1.0] * 4, rel=1e-4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.calibrate(real)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-7)
    with torch.autocast("cpu", torch.bfloat16):
        network.calibrate(real)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=1e-4, atol=1e-7)


def test_the_state_has_the_mixtures_and_the_heads_but_not_the_frozen_network():
    network = projected(64)
    network(photos(2, 64))  # which loads it
    assert {name.partition(".")[0] for name in network.state_dict()} == {"projections", "heads"}
    assert sum(value.numel() for value in network.state_dict().values()) < 20_000
    frozen = {id(parameter) for parameter in FrozenFeatures.of("efficientnet_lite1", torch.device("cpu")).parameters()}
    assert not frozen & {id(parameter) for parameter in network.parameters()}
    assert len(list(network.projections.parameters())) == 0  # buffers, which no optimizer sees


def test_another_one_with_its_state_judges_the_same():
    network, real = projected(64), photos(4, 64)
    network.calibrate(real)
    network(real)
    torch.manual_seed(1)
    again = ProjectedDiscriminator(64, "efficientnet_lite1", STRIDES, 8, 8, nn.BatchNorm2d, LEAKY)
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(real), network.eval()(real))


def test_it_is_built_without_the_frozen_network_and_without_memory():
    """As bundles and loaded runs need, whose frozen network nobody asks for."""
    FrozenFeatures.of.cache_clear()
    with torch.device("meta"):
        network = projected(64)
    assert FrozenFeatures.of.cache_info().currsize == 0
    assert all(value.is_meta for value in network.state_dict().values())
