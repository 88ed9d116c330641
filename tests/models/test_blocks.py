from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from catsweep.models.blocks import (
    PlainDown,
    PlainOutput,
    PlainUp,
    ResidualDown,
    ResidualOutput,
    ResidualUp,
    convolution,
    group_norm,
)

DOWN, UP, OUTPUT = [PlainDown, ResidualDown], [PlainUp, ResidualUp], [PlainOutput, ResidualOutput]
NORMALIZATIONS = [nn.BatchNorm2d, nn.Identity, group_norm, partial(nn.InstanceNorm2d, affine=True)]


@given(channels=st.integers(1, 600), group_size=st.integers(1, 64))
def test_group_norm_fits_any_channel_count(channels, group_size):
    norm = group_norm(channels, group_size)
    assert norm.num_channels == channels
    assert norm.num_groups <= max(1, channels // group_size)
    if channels % group_size == 0:
        assert norm.num_groups == channels // group_size


def test_group_norm_takes_the_most_groups_that_divide_the_channels():
    assert group_norm(20, 6).num_groups == 2  # 3 groups of about 6 do not divide 20
    assert group_norm(48).num_groups == 3


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("block", DOWN)
def test_down_halves(block, normalization):
    assert block(3, 5, normalization, nn.ReLU)(torch.rand(2, 3, 8, 12)).shape == (2, 5, 4, 6)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("block", UP)
def test_up_doubles(block, normalization):
    assert block(5, 3, normalization, nn.ReLU)(torch.rand(2, 5, 4, 6)).shape == (2, 3, 8, 12)


@pytest.mark.parametrize("block", OUTPUT)
def test_output_doubles_into_rgb_without_a_bound(block):
    images = block(5)(100 * torch.randn(2, 5, 4, 6))
    assert images.shape == (2, 3, 8, 12)
    assert images.min() < -1
    assert images.max() > 1


@pytest.mark.parametrize("block", DOWN + UP)
def test_a_block_ends_in_its_activation(block):
    assert (block(3, 4, nn.BatchNorm2d, nn.ReLU)(torch.randn(4, 3, 8, 8)) >= 0).all()
    assert (block(3, 4, nn.BatchNorm2d, nn.Tanh)(torch.randn(4, 3, 8, 8)) < 0).any()


@pytest.mark.parametrize("block", [ResidualDown, ResidualUp])
def test_a_residual_block_without_its_main_path_is_the_shortcut(block):
    module = block(3, 4, nn.Identity, nn.Identity)
    nn.init.zeros_(module.main[-2].weight)
    nn.init.zeros_(module.main[-2].bias)
    x = torch.rand(2, 3, 4, 4)
    scale = 0.5 if block is ResidualDown else 2.0
    mode = "area" if block is ResidualDown else "nearest"
    convolved = next(layer for layer in module.shortcut if isinstance(layer, nn.Conv2d))(x)
    torch.testing.assert_close(module(x), nn.functional.interpolate(convolved, scale_factor=scale, mode=mode))


@pytest.mark.parametrize("block", DOWN + UP)
def test_each_block_reads_its_input_through_every_parameter(block):
    module = block(3, 4, nn.BatchNorm2d, nn.SiLU)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    module(x).square().sum().backward()
    assert x.grad.count_nonzero() == x.numel()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in module.parameters())


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_a_convolution_has_a_bias_where_no_normalisation_would_subtract_it(kind, normalization):
    layer, normalized = convolution(kind, 2, 3, (4, 2, 1), normalization)
    assert (layer.bias is not None) == isinstance(normalized, nn.Identity)
    assert isinstance(layer, kind)
    assert (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))


@pytest.mark.parametrize("block", DOWN + UP)
def test_blocks_are_biased_exactly_where_it_is_felt(block):
    def main_biases(normalization):
        layers = [m for name, m in block(3, 4, normalization, nn.ReLU).named_modules() if "shortcut" not in name]
        return [m.bias is not None for m in layers if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]

    assert not any(main_biases(nn.BatchNorm2d))
    assert all(main_biases(nn.Identity))
