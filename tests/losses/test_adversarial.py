"""Each adversarial loss against its paper's formula, and the two gradient penalties against closed forms."""

import dataclasses
import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from catsweep.errors import ConfigError
from catsweep.losses import adversarial
from catsweep.losses.adversarial import (
    AdversarialLoss,
    BinaryCrossEntropy,
    Hinge,
    LeastSquares,
    RelativisticAverage,
    RelativisticPairs,
    WassersteinGradientPenalty,
    interpolated_gradient_penalty,
    r1_penalty,
)

RELATIVISTIC = (RelativisticAverage, RelativisticPairs)
KINDS = [
    kind
    for kind in vars(adversarial).values()
    if inspect.isclass(kind) and issubclass(kind, AdversarialLoss) and not inspect.isabstract(kind)
]
every_kind = pytest.mark.parametrize("kind", KINDS)
logits = st.lists(st.floats(-20, 20, width=32), min_size=4, max_size=4).map(torch.tensor)


@given(real=logits, fake=logits)
@settings(deadline=None)
def test_bce_is_torch_s_cross_entropy_with_labels(real, fake):
    loss, entropy = BinaryCrossEntropy(), F.binary_cross_entropy_with_logits
    expected = entropy(real, torch.ones(4)) + entropy(fake, torch.zeros(4))
    torch.testing.assert_close(loss.discriminator(real, fake), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.generator(None, fake), entropy(fake, torch.ones(4)), rtol=1e-4, atol=1e-5)


@given(real=logits, fake=logits)
@settings(deadline=None)
def test_relativistic_average_is_the_paper_s_formula(real, fake):
    entropy, ones, zeros = F.binary_cross_entropy_with_logits, torch.ones(4), torch.zeros(4)
    to_fake, to_real = real - fake.mean(), fake - real.mean()
    loss = RelativisticAverage()
    expected = entropy(to_fake, ones) + entropy(to_real, zeros)
    torch.testing.assert_close(loss.discriminator(real, fake), expected, rtol=1e-4, atol=1e-5)
    expected = entropy(to_real, ones) + entropy(to_fake, zeros)
    torch.testing.assert_close(loss.generator(real, fake), expected, rtol=1e-4, atol=1e-5)


@given(real=logits, fake=logits)
@settings(deadline=None)
def test_relativistic_pairs_are_the_paper_s_formula(real, fake):
    entropy, ones, loss = F.binary_cross_entropy_with_logits, torch.ones(4), RelativisticPairs()
    torch.testing.assert_close(loss.discriminator(real, fake), entropy(real - fake, ones), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss.generator(real, fake), entropy(fake - real, ones), rtol=1e-4, atol=1e-5)


@every_kind
def test_each_of_several_logits_counts_as_one_of_a_batch_of_its_own(kind):
    real, fake = torch.randn(4, 3), torch.randn(4, 3) + torch.tensor([0.0, 1.0, 5.0])
    one_by_one = [kind().discriminator(a, b) for a, b in zip(real.unbind(1), fake.unbind(1), strict=True)]
    torch.testing.assert_close(kind().discriminator(real, fake), torch.stack(one_by_one).mean())
    one_by_one = [kind().generator(a, b) for a, b in zip(real.unbind(1), fake.unbind(1), strict=True)]
    torch.testing.assert_close(kind().generator(real, fake), torch.stack(one_by_one).mean())


def test_known_values():
    real, fake = torch.tensor([[2.0], [0.0]]), torch.tensor([[-0.5], [1.5]])
    assert Hinge().discriminator(real, fake).item() == pytest.approx((0 + 1) / 2 + (0.5 + 2.5) / 2)
    assert Hinge().generator(None, fake).item() == pytest.approx(-0.5)
    assert LeastSquares().discriminator(real, fake).item() == pytest.approx(0.5 * (1 + (0.25 + 2.25) / 2))
    assert LeastSquares().generator(None, fake).item() == pytest.approx(0.5 * (2.25 + 0.25) / 2)
    assert WassersteinGradientPenalty().discriminator(real, fake).item() == pytest.approx(0.5 - 1)
    assert WassersteinGradientPenalty().generator(None, fake).item() == pytest.approx(-0.5)
    undecided = torch.zeros(3)
    assert BinaryCrossEntropy().discriminator(undecided, undecided).item() == pytest.approx(2 * math.log(2))


@every_kind
def test_the_two_sides_pull_the_logits_of_fakes_apart(kind):
    loss = kind()
    # Between 0 and 1, where the least-squares sides disagree too.
    real, fake = torch.tensor([0.3, 0.6, 0.1]), torch.tensor([0.2, 0.1, 0.4], requires_grad=True)
    (for_discriminator,) = torch.autograd.grad(loss.discriminator(real, fake), fake)
    (for_generator,) = torch.autograd.grad(loss.generator(real, fake), fake)
    assert (for_discriminator > 0).all()
    assert (for_generator < 0).all()


@every_kind
def test_half_precision_logits_give_a_float32_scalar(kind):
    real, fake = torch.randn(4, 1).bfloat16(), torch.randn(4, 1).bfloat16()
    for value in (kind().discriminator(real, fake), kind().generator(real, fake)):
        assert value.dtype == torch.float32
        assert value.shape == ()


@every_kind
def test_huge_logits_stay_finite(kind):
    real, fake = torch.tensor([1e4, -1e4], requires_grad=True), torch.tensor([-1e4, 1e4], requires_grad=True)
    total = kind().discriminator(real, fake) + kind().generator(real, fake)
    total.backward()
    assert torch.isfinite(total)
    assert fake.grad is not None
    assert torch.isfinite(fake.grad).all()


@every_kind
def test_only_the_relativistic_generator_needs_real_logits(kind):
    assert kind().needs_real is (kind in RELATIVISTIC)
    if kind().needs_real:
        with pytest.raises(ConfigError, match="needs_real"):
            kind().generator(None, torch.zeros(2))
    else:
        kind().generator(None, torch.zeros(2))


@every_kind
def test_losses_are_values_with_a_penalty_that_only_wgan_gp_sets(kind):
    assert kind().gradient_penalty == (10.0 if kind is WassersteinGradientPenalty else 0.0)
    assert kind(gradient_penalty=3.0).gradient_penalty == 3.0
    assert kind() == kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().gradient_penalty = 1.0


def linear_critic(weight: torch.Tensor) -> nn.Module:
    critic = nn.Sequential(nn.Flatten(), nn.Linear(weight.numel(), 1))
    with torch.no_grad():
        critic.get_parameter("1.weight").copy_(weight.view(1, -1))
    return critic


def test_r1_of_a_linear_critic_is_its_squared_norm_and_trains_it():
    weight = torch.randn(3 * 4 * 4)
    critic = linear_critic(weight)
    images = torch.rand(5, 3, 4, 4, requires_grad=True)
    penalty = r1_penalty(images, critic(images))
    torch.testing.assert_close(penalty, weight.square().sum())
    penalty.backward()
    torch.testing.assert_close(critic.get_parameter("1.weight").grad, 2 * weight.view(1, -1))


def test_interpolated_penalty_of_a_linear_critic_is_its_slope_s_distance_from_one():
    weight = torch.randn(3 * 4 * 4)
    critic = linear_critic(weight)
    real, fake = torch.rand(5, 3, 4, 4), torch.rand(5, 3, 4, 4, requires_grad=True)
    penalty = interpolated_gradient_penalty(critic, real, fake)
    torch.testing.assert_close(penalty, (weight.norm() - 1).square())
    penalty.backward()
    assert critic.get_parameter("1.weight").grad.abs().sum() > 0
    assert fake.grad is None


def test_interpolated_penalty_looks_between_the_images_and_repeats_with_its_generator():
    seen = []

    def critic(images):
        seen.append(images.detach())
        return images.square().flatten(1).sum(dim=1)

    real, fake = torch.ones(64, 1, 2, 2), torch.zeros(64, 1, 2, 2)
    penalties = []
    for _ in range(2):
        torch.manual_seed(7)
        penalties.append(interpolated_gradient_penalty(critic, real, fake))
    assert torch.equal(*penalties)
    shares = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], shares.view(-1, 1, 1, 1).expand_as(real))  # one share for all pixels of an image
    assert 0 < shares.min() < 0.2 < 0.8 < shares.max() < 1


def test_interpolated_penalty_of_a_flat_critic_is_one_with_finite_gradients():
    critic = linear_critic(torch.zeros(12))
    penalty = interpolated_gradient_penalty(critic, torch.rand(2, 3, 2, 2), torch.rand(2, 3, 2, 2))
    penalty.backward()
    assert penalty.item() == pytest.approx(1, abs=1e-5)
    gradient = critic.get_parameter("1.weight").grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()


def test_interpolated_penalty_works_where_gradients_are_off_and_under_autocast():
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 6 * 6, 1))
    real, fake = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert interpolated_gradient_penalty(critic, real, fake).isfinite()
    with torch.autocast("cpu", torch.bfloat16):
        penalty = interpolated_gradient_penalty(critic, real, fake)
    penalty.backward()
    assert penalty.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in critic.parameters() if p.grad is not None)


def test_unequal_batches_cannot_be_mixed():
    with pytest.raises(ConfigError, match=r"\(4, 3, 8, 8\).*\(2, 3, 8, 8\)"):
        interpolated_gradient_penalty(nn.Flatten(), torch.zeros(4, 3, 8, 8), torch.zeros(2, 3, 8, 8))
