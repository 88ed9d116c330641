from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from catsweep.errors import ConfigError
from catsweep.models.blocks import (
    ConvArchitecture,
    Decoder,
    PlainOutput,
    PlainUp,
    ResidualOutput,
    ResidualUp,
    group_norm,
)

BLOCKS = [(PlainUp, PlainOutput), (ResidualUp, ResidualOutput)]
NORMALIZATIONS = [nn.BatchNorm2d, nn.Identity, group_norm, partial(nn.InstanceNorm2d, affine=True)]


def decoder(image_size=16, latent_size=6, halvings=2, channels=4, blocks=BLOCKS[0], normalization=nn.BatchNorm2d):
    parts = dict(zip(("up", "output"), blocks, strict=True)), normalization, nn.LeakyReLU
    return Decoder(ConvArchitecture(image_size, halvings, channels, 4 * channels, *parts), latent_size)


@settings(max_examples=30)
@given(
    halvings=st.integers(1, 4),
    cells=st.integers(2, 3),
    channels=st.integers(1, 8),
    latent_size=st.integers(1, 7),
    blocks=st.sampled_from(BLOCKS),
    normalization=st.sampled_from(NORMALIZATIONS),
)
def test_any_depth_width_block_and_normalisation_make_an_image(
    halvings, cells, channels, latent_size, blocks, normalization
):
    size = cells * 2**halvings
    images = decoder(size, latent_size, halvings, channels, blocks, normalization)(torch.randn(2, latent_size))
    assert images.shape == (2, 3, size, size)
    assert ((images >= 0) & (images <= 1)).all()


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_single_cell_is_enough_where_the_normalisation_can_take_it(blocks):
    assert decoder(16, halvings=4, blocks=blocks)(torch.randn(2, 6)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_images_reach_both_ends_of_the_range_and_never_leave_it(blocks):
    module = decoder(blocks=blocks)
    with torch.no_grad():
        for parameter in module.stages[-1].parameters():
            parameter.mul_(1000)
    images = module(torch.randn(8, 6))
    assert images.min() == 0
    assert images.max() == 1


def test_a_silent_network_draws_mid_grey():
    module = decoder()
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    assert (module(torch.randn(2, 6)) == 0.5).all()


def test_the_channels_mirror_the_encoders():
    module = decoder(32, halvings=4, channels=4)
    assert module.project[0].out_channels == 16
    assert [stage[0].in_channels for stage in module.stages] == [16, 16, 8, 4]


def test_everything_but_the_output_is_normalised():
    module = decoder(32, halvings=3)
    parts = [module.project, *module.stages]
    normalised = [any(isinstance(m, nn.BatchNorm2d) for m in part.modules()) for part in parts]
    assert normalised == [True, True, True, False]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_every_number_of_the_latent_and_every_parameter_counts(blocks):
    module = decoder(blocks=blocks)
    latents = torch.randn(3, 6, requires_grad=True)
    module(latents).square().sum().backward()
    assert latents.grad.count_nonzero() == latents.numel()
    assert all(parameter.grad.any() for parameter in module.parameters())


def test_each_latent_makes_its_own_image():
    module = decoder().eval()
    latents = torch.randn(3, 6)
    alone = torch.cat([module(latent[None]) for latent in latents])
    torch.testing.assert_close(module(latents), alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


def test_an_impossible_depth_is_refused():
    with pytest.raises(ConfigError, match="cannot be halved 5 times"):
        decoder(16, halvings=5)
