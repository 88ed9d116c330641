import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from catsweep.errors import DivergedError
from catsweep.models.prior import HEAD_START, JITTER, Coupling, FlowPrior

CHANNELS, SIDE = 4, 2
SIZE = CHANNELS * SIDE**2


def bent(prior: FlowPrior, strength: float = 0.3) -> FlowPrior:
    """As if it had been trained: every weight is something."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.normal_(0, strength)
    return prior


def maps(n: int = 200, seed: int = 0) -> torch.Tensor:
    """Correlated latents, off centre."""
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(n, SIZE, generator=generator) @ torch.randn(
        SIZE, SIZE, generator=torch.Generator().manual_seed(9)
    )
    return (2 + mixed).reshape(n, CHANNELS, SIDE, SIDE)


def fitted(couplings: int) -> FlowPrior:
    prior = FlowPrior(CHANNELS, SIDE, couplings, hidden=8)
    for batch in maps().split(50):
        prior.update(batch, torch.full_like(batch, 0.1))
    prior.double().fit()  # algebra is tested, not what float32 keeps of it: that depends on the order of sums
    return prior


def test_before_it_has_seen_anything_it_is_standard_normal():
    prior, latents = FlowPrior(CHANNELS, SIDE, 4, 8), torch.randn(5, SIZE)
    drawn = prior(latents)
    assert drawn.shape == (5, CHANNELS, SIDE, SIDE)
    torch.testing.assert_close(drawn.flatten(1), latents)
    expected = 0.5 * latents.square().sum(1) + SIZE / 2 * math.log(2 * math.pi)
    torch.testing.assert_close(prior.negative_log_likelihood(drawn), expected)


@pytest.mark.parametrize("couplings", [0, 5])
def test_it_is_inverted(couplings):
    prior, latents = bent(fitted(couplings)), torch.randn(7, SIZE, dtype=torch.float64)
    drawn = prior(latents)
    # float64 keeps 2e-16. The normal distribution may lose a factor 1 / sqrt(JITTER) = 100 of that, its bound on the
    # condition, and each coupling 2e: it stretches by at most e, and what it looks at moves what it adds by about 1.
    torch.testing.assert_close(prior.inverse(drawn), latents, atol=1e-9, rtol=0)
    assert (drawn - drawn.mean(0)).abs().mean() > 0.1


def test_the_likelihood_is_that_of_the_volume_it_takes():
    prior = bent(fitted(5))
    latents = torch.randn(SIZE, dtype=torch.float64)
    volume = torch.autograd.functional.jacobian(lambda u: prior(u[None])[0].flatten(), latents)
    assert isinstance(volume, torch.Tensor)
    expected = 0.5 * latents.square().sum() + SIZE / 2 * math.log(2 * math.pi) + torch.linalg.slogdet(volume)[1]
    found = prior.negative_log_likelihood(prior(latents[None]))[0]
    assert found.item() == pytest.approx(expected.item(), abs=1e-9)


def test_the_normal_distribution_has_the_moments_of_what_it_saw():
    prior, seen = fitted(0), maps().flatten(1).double()
    share = 200 / (200 + HEAD_START * SIZE)  # the rest is the standard normal it began with
    mean = share * seen.mean(0)
    second = share * (seen.T @ seen / 200 + 0.1 * torch.eye(SIZE)) + (1 - share) * torch.eye(SIZE)
    covariance = second - torch.outer(mean, mean)
    covariance.diagonal().add_(JITTER * covariance.diagonal().mean())
    # Moments are summed in float32, 200 numbers and four batches: a few of its 6e-8, of what they add up to.
    of_float32 = 20 * torch.finfo(torch.float32).eps
    torch.testing.assert_close(prior.mean, mean, rtol=0, atol=of_float32 * seen.abs().max().item())
    found = prior.colour @ prior.colour.T
    torch.testing.assert_close(found, covariance, rtol=0, atol=of_float32 * second.abs().max().item())
    torch.testing.assert_close(prior.colour @ prior.whiten, torch.eye(SIZE, dtype=torch.float64), atol=1e-9, rtol=0)
    expected = -MultivariateNormal(prior.mean, found).log_prob(seen)
    torch.testing.assert_close(prior.negative_log_likelihood(maps().double()), expected, rtol=1e-9, atol=1e-9)


def test_it_follows_what_it_sees_after_1_2_4_and_8_batches(monkeypatch):
    prior, seen, fits = FlowPrior(CHANNELS, SIDE, 0, 1), list[torch.Tensor](), list[int]()
    monkeypatch.setattr(prior, "fit", lambda: fits.append(len(seen)))
    for _ in range(9):
        seen.append(maps(4))
        prior.update(seen[-1], torch.zeros(4, CHANNELS, SIDE, SIDE))
    assert fits == [1, 2, 4, 8]


def test_a_few_photos_leave_no_direction_without_variance():
    prior = FlowPrior(CHANNELS, SIDE, 0, 1)
    prior.update(maps(2), torch.zeros(2, CHANNELS, SIDE, SIDE))
    assert prior.negative_log_likelihood(maps(50, seed=3)).max() < 5000


def test_halves_change_places_and_together_are_everything():
    for first, second in ((0, 1), (2, 3)):
        masks = [Coupling(CHANNELS, SIDE, 4, number).mask for number in (first, second)]
        assert torch.equal(masks[0] + masks[1], torch.ones_like(masks[0]))
        assert masks[0].mean() == 0.5
    assert not torch.equal(Coupling(CHANNELS, SIDE, 4, 0).mask, Coupling(CHANNELS, SIDE, 4, 2).mask)


def test_a_coupling_leaves_the_half_it_looks_at():
    coupling, given = Coupling(CHANNELS, SIDE, 4, 0), torch.randn(3, CHANNELS, SIDE, SIDE)
    torch.nn.init.normal_(coupling.leave.weight)
    moved = coupling(given) != given
    assert not moved[:, coupling.mask == 1].any()
    assert moved[:, coupling.mask == 0].all()


def test_it_learns_what_is_not_normal():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(512, CHANNELS, SIDE, SIDE, generator=generator)
    data[:, 1] = data[:, 0].square() + 0.1 * data[:, 1]  # a banana
    torch.manual_seed(0)
    prior = FlowPrior(CHANNELS, SIDE, 4, 8)
    prior.update(data, torch.zeros_like(data))
    before = prior.negative_log_likelihood(data).mean().item()
    optimizer = torch.optim.Adam(prior.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        prior.negative_log_likelihood(data).mean().backward()
        optimizer.step()
    assert prior.negative_log_likelihood(data).mean().item() < before - 2


def test_latents_that_are_not_finite_are_told():
    prior = FlowPrior(CHANNELS, SIDE, 0, 1)
    with pytest.raises(DivergedError, match="not finite"):
        prior.update(torch.full((2, CHANNELS, SIDE, SIDE), math.nan), torch.zeros(2, CHANNELS, SIDE, SIDE))
