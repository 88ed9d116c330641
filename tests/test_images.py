import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catsweep.images import to_float, to_uint8

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))


def every_level() -> torch.Tensor:
    """All 256 levels in each channel, in different places: (1, 16, 16, 3)."""
    levels = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    return torch.stack([levels, levels.flip(0), levels.T], dim=-1).unsqueeze(0)


@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_storing_gives_back_what_was_loaded(shape, seed):
    images = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(to_uint8(to_float(images)), images)


def test_every_level_survives_the_round_trip_and_no_pixel_moves():
    assert torch.equal(to_uint8(to_float(every_level())), every_level())


def test_to_float_moves_channels_first_and_keeps_the_order_of_rows_and_columns():
    images = torch.zeros(2, 4, 5, 3, dtype=torch.uint8)
    images[1, 2, 3] = torch.tensor([255, 51, 0], dtype=torch.uint8)
    floats = to_float(images)
    assert floats.shape == (2, 3, 4, 5)
    assert floats.dtype == torch.float32
    torch.testing.assert_close(floats[1, :, 2, 3], torch.tensor([1.0, 0.2, 0.0]))
    assert floats.count_nonzero() == 2


def test_to_float_leaves_the_stored_images_alone():
    images = every_level()
    to_float(images).zero_()
    assert torch.equal(images, every_level())


def test_a_batch_becomes_channels_last_and_a_stored_image_contiguous():
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    assert to_float(images).is_contiguous(memory_format=torch.channels_last)
    assert to_uint8(torch.zeros(2, 3, 8, 8)).is_contiguous()


@pytest.mark.parametrize(
    ("value", "level"),
    [(-3.0, 0), (0.49 / 255, 0), (0.51 / 255, 1), (99.6 / 255, 100), (254.6 / 255, 255), (1.0, 255), (7.0, 255)],
)
def test_to_uint8_rounds_to_the_nearest_level_and_clamps(value, level):
    assert to_uint8(torch.full((1, 3, 2, 2), value)).unique().tolist() == [level]


@given(value=st.floats(0, 1, width=32))
def test_storing_errs_by_half_a_level_at_most(value):
    image = torch.full((1, 3, 1, 1), value)
    assert (to_float(to_uint8(image)) - image).abs().max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_rounded_once(dtype):
    # Scaled in bfloat16, 71.3 becomes 71.5 and then 72.
    image = torch.linspace(0, 1, 1000).to(dtype).expand(1, 3, 1, 1000)
    expected = (image.double() * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(to_uint8(image), expected)


def test_a_network_output_with_a_graph_can_be_stored():
    assert not to_uint8(torch.rand(1, 3, 2, 2, requires_grad=True)).requires_grad
