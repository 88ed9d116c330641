import itertools
import re
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from catsweep.errors import ConfigError
from catsweep.models.blocks import ConvArchitecture, Encoder, PlainDown, ResidualDown, group_norm

NORMALIZATIONS = [nn.BatchNorm2d, nn.Identity, group_norm, partial(nn.InstanceNorm2d, affine=True)]


def encoder(image_size=16, outputs=5, halvings=2, channels=4, down=PlainDown, normalization=nn.BatchNorm2d):
    parts = {"down": down}, normalization, nn.LeakyReLU
    return Encoder(ConvArchitecture(image_size, halvings, channels, 4 * channels, *parts), outputs)


def sizes(image_size=64, halvings=4, channels=4, max_channels=8):
    return ConvArchitecture(image_size, halvings, channels, max_channels, {}, nn.BatchNorm2d, nn.LeakyReLU)


@given(halvings=st.integers(1, 8), channels=st.integers(1, 64), bound=st.integers(1, 512))
def test_channels_double_up_to_the_bound(halvings, channels, bound):
    widths = sizes(2**halvings, halvings, channels, bound).widths
    assert len(widths) == halvings
    assert widths[0] == min(channels, bound)
    assert all(after == min(2 * before, bound) for before, after in itertools.pairwise(widths))


@given(cells=st.integers(1, 9), halvings=st.integers(1, 6))
def test_the_smallest_side_doubled_again_is_the_image(cells, halvings):
    assert sizes(cells * 2**halvings, halvings).side == cells


@pytest.mark.parametrize(("image_size", "halvings"), [(64, 0), (64, -1), (64, 7), (48, 5), (63, 1)])
def test_a_depth_that_leaves_a_rest_is_refused(image_size, halvings):
    with pytest.raises(ConfigError, match=rf"{image_size} pixels cannot be halved {halvings} times"):
        sizes(image_size, halvings)


def test_the_refusal_names_every_depth_that_works():
    with pytest.raises(ConfigError, match=r"from \[1, 2, 3, 4\], or another data\.size, as 32 or 64 "):
        sizes(48, 5)


@pytest.mark.parametrize("width", [{"channels": 0}, {"max_channels": 0}, {"channels": -4}])
def test_a_network_without_channels_is_refused(width):
    with pytest.raises(ConfigError, match=r"width\.channels and width\.max_channels must be 1 or more; got"):
        sizes(**width)


def test_a_block_without_what_is_needed_is_refused():
    with pytest.raises(ConfigError, match=r"A block needs down, up and output.*got \['up'\]"):
        Encoder(ConvArchitecture(16, 2, 4, 8, {"up": PlainDown}, nn.BatchNorm2d, nn.ReLU), 5)


@pytest.mark.security
@given(image_size=st.integers(1, 600), halvings=st.integers(-2, 9))
def test_what_the_refusal_names_works(image_size, halvings):
    try:
        sizes(image_size, halvings)
        return
    except ConfigError as error:
        said = str(error)
    assert "[]" not in said
    depths = re.search(r"depth\.halvings from \[([\d, ]+)\]", said)
    assert (depths is None) == (image_size % 2 == 1)
    for depth in map(int, depths[1].split(", ") if depths else []):
        assert sizes(image_size, depth).side >= 1
    others = re.search(r"another data\.size, as ([\d or]+) \(", said)
    assert others, said
    for size in map(int, others[1].split(" or ")):
        assert sizes(size, max(1, halvings)).side >= 1
        assert abs(size - image_size) <= 2 ** max(1, halvings)


@settings(max_examples=30)
@given(
    halvings=st.integers(1, 4),
    cells=st.integers(2, 3),
    channels=st.integers(1, 8),
    outputs=st.integers(1, 7),
    down=st.sampled_from([PlainDown, ResidualDown]),
    normalization=st.sampled_from(NORMALIZATIONS),
)
def test_any_depth_width_block_and_normalisation_make_a_vector(halvings, cells, channels, outputs, down, normalization):
    size = cells * 2**halvings
    vectors = encoder(size, outputs, halvings, channels, down, normalization)(torch.rand(2, 3, size, size))
    assert vectors.shape == (2, outputs)
    assert vectors.isfinite().all()


@pytest.mark.parametrize("down", [PlainDown, ResidualDown])
def test_a_single_cell_is_enough_where_the_normalisation_can_take_it(down):
    assert encoder(16, 5, 4, down=down)(torch.rand(2, 3, 16, 16)).shape == (2, 5)


def test_the_channels_are_those_of_the_stages():
    widths = [stage[0].out_channels for stage in encoder(32, halvings=4, channels=4).stages]
    assert widths == [4, 8, 16, 16]


def test_the_first_stage_is_not_normalised_and_the_others_are():
    normalised = [any(isinstance(m, nn.BatchNorm2d) for m in stage.modules()) for stage in encoder(halvings=3).stages]
    assert normalised == [False, True, True]


def test_mid_grey_is_zero_to_the_network():
    module = encoder(normalization=nn.Identity)
    seen = []
    module.stages.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(torch.tensor([0.0, 0.5, 1.0]).reshape(3, 1, 1, 1).expand(3, 3, 16, 16))
    assert [image.unique().tolist() for image in seen[0]] == [[-1.0], [0.0], [1.0]]


@pytest.mark.parametrize("down", [PlainDown, ResidualDown])
def test_every_pixel_and_every_parameter_counts(down):
    module = encoder(down=down)
    images = torch.rand(3, 3, 16, 16, requires_grad=True)
    module(images).square().sum().backward()
    assert images.grad.count_nonzero() == images.numel()
    assert all(parameter.grad.any() for parameter in module.parameters())


def test_the_layout_in_memory_changes_nothing():
    module = encoder().eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(module(images.to(memory_format=torch.channels_last)), module(images))
