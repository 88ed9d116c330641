import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from catsweep.errors import DivergedError
from catsweep.models.prior import DECAY, AggregatePrior


def test_before_any_photo_it_is_the_standard_normal_prior():
    prior, latents = AggregatePrior(3), torch.randn(5, 3)
    assert torch.equal(prior(latents), latents)
    prior.fit()
    assert torch.allclose(prior(latents), latents, atol=1e-3)


def test_draws_have_the_mean_and_covariance_of_the_posteriors_it_was_given():
    torch.manual_seed(0)
    root = torch.tensor([[2.0, 0.0, 0.0], [1.5, 0.5, 0.0], [0.0, -1.0, 0.3]])
    centre = torch.tensor([1.0, -2.0, 0.0])
    means = centre + torch.randn(4000, 3) @ root.T
    variances = torch.full((4000, 3), 0.25)
    prior = AggregatePrior(3)
    for _ in range(400):
        prior.update(means, variances)
    prior.fit()
    drawn = prior(torch.randn(20000, 3))
    assert torch.allclose(drawn.mean(0), centre, atol=0.1)
    assert torch.allclose(torch.cov(drawn.T), root @ root.T + 0.25 * torch.eye(3), atol=0.2)


def test_it_forgets_what_the_encoder_no_longer_says():
    prior = AggregatePrior(2)
    prior.update(torch.full((8, 2), 100.0), torch.ones(8, 2))
    for _ in range(600):
        prior.update(torch.zeros(8, 2), torch.ones(8, 2))
    assert prior.mean.abs().max() < 100 * DECAY**600 + 1e-3


@given(st.integers(1, 40), st.integers(1, 24), st.floats(1e-3, 1e3), st.floats(0, 1e2), st.integers(0, 2**31))
def test_it_can_always_be_fitted(batch, size, scale, variance, seed):
    generator = torch.Generator().manual_seed(seed)
    prior = AggregatePrior(size)
    for _ in range(5):
        prior.update(scale * torch.randn(batch, size, generator=generator), torch.full((batch, size), variance))
    prior.fit()
    assert prior(torch.ones(2, size)).isfinite().all()


def test_it_can_be_fitted_when_all_photos_look_alike_to_the_encoder():
    prior = AggregatePrior(64)
    for _ in range(1000):
        prior.update(torch.full((16, 64), 1e3) + torch.randn(16, 1), torch.zeros(16, 64))
    prior.fit()
    assert prior(torch.ones(2, 64)).isfinite().all()


@pytest.mark.parametrize("latent", [float("nan"), float("inf"), 1e30])
def test_latents_of_a_training_that_has_diverged_are_refused(latent):
    prior = AggregatePrior(2)
    prior.update(torch.full((8, 2), latent), torch.ones(8, 2))
    with pytest.raises(DivergedError, match="Lower the learning rate"):
        prior.fit()


def test_moments_are_taken_in_full_precision_inside_a_bf16_training_step():
    mean, plain, mixed = torch.randn(32, 4) + 10, AggregatePrior(4), AggregatePrior(4)
    plain.update(mean, torch.ones(32, 4))
    with torch.autocast("cpu", torch.bfloat16):
        mixed.update(mean, torch.ones(32, 4))
    assert torch.equal(plain.second_moment, mixed.second_moment)


def test_its_state_is_saved_and_passes_no_gradient():
    prior = AggregatePrior(2)
    prior.update(torch.randn(4, 2, requires_grad=True), torch.ones(4, 2))
    assert not any(buffer.requires_grad for buffer in prior.buffers())
    assert set(prior.state_dict()) == {"mean", "second_moment", "factor"}
    with pytest.raises(RuntimeError, match="size"):
        prior.load_state_dict(AggregatePrior(3).state_dict())
