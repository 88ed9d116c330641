import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from catsweep.models.generator import draw_latents, interpolate

seeds = st.integers(0, 2**32 - 1)


@st.composite
def pairs(draw):
    """Two latents of one length: of any norm, from nearly parallel to nearly opposite."""
    size = draw(st.integers(2, 64))
    start, other = draw_latents(2, size, draw(seeds))
    assume(start.norm() > 0.1)
    mixed = torch.lerp(draw(st.floats(-3, 3)) * start, other, draw(st.sampled_from([0.0, 1e-6, 1e-3, 0.1, 1.0])))
    assume(mixed.norm() > 0.01)
    return start, mixed


@given(seed=seeds, n=st.integers(1, 20), more=st.integers(0, 20), size=st.integers(1, 40))
def test_the_first_latents_do_not_depend_on_how_many_are_drawn(seed, n, more, size):
    assert torch.equal(draw_latents(n, size, seed), draw_latents(n + more, size, seed)[:n])


def test_latents_belong_to_the_seed_and_leave_the_global_random_state_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw_latents(3, 5, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(draw_latents(3, 5, seed=7), first)
    assert not torch.equal(draw_latents(3, 5, seed=8), first)


def test_latents_are_standard_normal_and_different_from_row_to_row():
    latents = draw_latents(500, 40, seed=0)
    assert latents.shape == (500, 40)
    assert latents.dtype == torch.float32
    assert latents.mean().abs() < 0.03
    assert latents.std().item() == pytest.approx(1, abs=0.02)
    assert len(latents.unique(dim=0)) == 500


@given(ends=pairs(), steps=st.integers(2, 12))
def test_a_walk_starts_and_ends_exactly_at_its_ends(ends, steps):
    start, end = (latent.double() for latent in ends)  # in which the formula's rounding would show
    walk = interpolate(start, end, steps)
    assert walk.shape == (steps, len(start))
    assert torch.equal(walk[0], start)
    assert torch.equal(walk[-1], end)


@given(ends=pairs(), steps=st.integers(3, 12))
def test_norms_go_evenly_from_one_end_to_the_other(ends, steps):
    start, end = ends
    cosine = torch.cosine_similarity(start.double(), end.double(), dim=0)
    assume(cosine > -1 + 1e-6)  # opposite: straight through the origin
    expected = torch.linspace(start.norm(), end.norm(), steps)
    torch.testing.assert_close(interpolate(start, end, steps).norm(dim=1), expected, rtol=1e-4, atol=1e-5)


@given(ends=pairs(), steps=st.integers(3, 12))
def test_the_angle_is_walked_in_equal_parts(ends, steps):
    start, end = (latent.double() for latent in ends)
    cosine = torch.cosine_similarity(start, end, dim=0)
    assume(cosine.abs() < 0.999)
    walk = torch.nn.functional.normalize(interpolate(start, end, steps), dim=1)
    angles = torch.arccos((walk[:-1] * walk[1:]).sum(1).clamp(-1, 1))
    torch.testing.assert_close(angles, torch.arccos(cosine).expand(steps - 1) / (steps - 1), rtol=1e-5, atol=1e-7)


def test_half_way_between_two_axes():
    walk = interpolate(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0]), 3)
    torch.testing.assert_close(walk[1], torch.tensor([2.0, 2.0]) / 2**0.5)


@pytest.mark.parametrize("factor", [1.0, 3.0, -1.0, -2.0, 0.0])
def test_parallel_opposite_and_zero_ends_are_joined_without_nan(factor):
    start = draw_latents(1, 8, seed=0)[0]
    torch.testing.assert_close(interpolate(start, factor * start, 5).isfinite().all(), torch.tensor(True))
    if factor > 0:
        torch.testing.assert_close(interpolate(start, factor * start, 3)[1], start * (1 + factor) / 2)


def test_a_walk_keeps_the_precision_of_its_ends():
    assert interpolate(torch.ones(3), torch.zeros(3), 2).dtype == torch.float32
    assert interpolate(torch.ones(3).double(), torch.zeros(3).double(), 2).dtype == torch.float64


@pytest.mark.parametrize("steps", [1, 0, -1])
def test_fewer_than_two_steps_are_no_walk(steps):
    with pytest.raises(ValueError, match=f"at least 2 steps, both ends included; got {steps}"):
        interpolate(torch.ones(3), torch.zeros(3), steps)
