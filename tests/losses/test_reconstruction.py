"""One contract for all reconstruction losses: zero at equality, one currency, finite gradients, float32, any size."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.filters import gaussian_blur2d
from torch import Tensor

from catsweep.errors import ConfigError
from catsweep.losses import reconstruction
from catsweep.losses.reconstruction import (
    REFERENCE_ERROR,
    bce,
    charbonnier,
    huber,
    l1,
    l1_ssim,
    ms_ssim,
    mse,
    psnr,
    ssim,
)

LOSSES = [
    value
    for name, value in vars(reconstruction).items()
    if getattr(value, "__module__", "") == reconstruction.__name__ and not name.startswith("_")
]
PIXELWISE = (mse, l1, huber, charbonnier, bce, psnr)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.__name__)


def pictures(n: int = 4, size: int = 64, seed: int = 0) -> Tensor:
    """Smooth shapes with some texture, values across [0, 1], as a stand-in for photos."""
    noise = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    shapes = gaussian_blur2d(noise, (25, 25), (6.0, 6.0))
    texture = gaussian_blur2d(noise.flip(0), (7, 7), (1.0, 1.0))
    return (0.5 + 8 * (shapes - 0.5) + 0.5 * (texture - 0.5)).clamp(0, 1)


def worsened(target: Tensor, seed: int = 1) -> Tensor:
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(seed))
    return (target + REFERENCE_ERROR * noise).clamp(0, 1)


def gradient(loss, prediction: Tensor, target: Tensor) -> Tensor:
    prediction = prediction.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(prediction, target), prediction)
    return result


@every_loss
@pytest.mark.parametrize("size", [32, 64, 128])
def test_is_zero_at_equality_and_positive_elsewhere(loss, size):
    target = pictures(2, size)
    assert loss(target, target).item() == pytest.approx(0, abs=1e-4 * target[0].numel() * REFERENCE_ERROR**2)
    assert loss(worsened(target), target) > 0
    assert loss(worsened(target), target).shape == ()


@every_loss
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 9))
@settings(max_examples=5, deadline=None)
def test_falls_all_the_way_to_equality(loss, seed, steps):
    target = pictures(2, 32, seed)
    start = worsened(target, seed + 1)
    nearer, farther = (target.lerp(start, share / 10) for share in (steps, steps + 1))
    assert loss(nearer, target) < loss(farther, target)


@every_loss
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("other", [0.0, 0.5, 1.0])
def test_gradients_are_finite_for_flat_images_and_at_both_ends_of_the_range(loss, value, other):
    prediction, target = torch.full((2, 3, 32, 32), value), torch.full((2, 3, 32, 32), other)
    assert torch.isfinite(loss(prediction, target))
    assert torch.isfinite(gradient(loss, prediction, target)).all()


@every_loss
def test_identical_images_have_no_gradient(loss):
    target = pictures()
    share_of_a_real_one = gradient(loss, target, target).norm() / gradient(loss, worsened(target), target).norm()
    assert share_of_a_real_one < 1e-3


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_computes_in_float32_whatever_comes_and_under_autocast(loss, dtype):
    target = pictures()
    prediction = worsened(target).to(dtype)
    expected = loss(prediction.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        result = loss(prediction, target)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


@every_loss
def test_sums_over_an_image_and_averages_over_the_batch(loss):
    target = pictures()
    prediction = worsened(target)
    one_by_one = [loss(prediction[i : i + 1], target[i : i + 1]) for i in range(len(target))]
    torch.testing.assert_close(loss(prediction, target), torch.stack(one_by_one).mean())
    large_target = target.repeat(1, 1, 2, 2)
    large = loss(prediction.repeat(1, 1, 2, 2), large_target)
    # Four tiles cost four times as much; the windows of the structural losses also see the seams.
    assert large.item() == pytest.approx(4 * loss(prediction, target).item(), rel=1e-4 if loss in PIXELWISE else 0.05)


@pytest.mark.parametrize("loss", PIXELWISE)
def test_pixelwise_losses_are_in_the_currency_of_mse_for_gaussian_errors(loss):
    target = 0.35 + 0.3 * pictures()
    error = REFERENCE_ERROR * torch.randn(target.shape, generator=torch.Generator().manual_seed(3))
    assert 0.5 < saving(loss, target, error) / saving(mse, target, error) < 2


@pytest.mark.parametrize("loss", [ssim, ms_ssim, l1_ssim])
def test_structural_losses_are_in_the_currency_of_mse_for_blurred_images(loss):
    target = photo_like()
    error = gaussian_blur2d(target, (19, 19), (3.0, 3.0)) - target
    assert error.std().item() == pytest.approx(REFERENCE_ERROR, rel=0.1)  # else the comparison says nothing
    assert 0.5 < saving(loss, target, error) / saving(mse, target, error) < 2


def saving(loss, target: Tensor, error: Tensor) -> float:
    """What the loss falls by when all errors shrink, per unit of shrinking."""
    factor = torch.ones((), requires_grad=True)
    return torch.autograd.grad(loss((target + factor * error).clamp(0, 1), target), factor)[0].item()


def photo_like() -> Tensor:
    """Noise with the 1/f amplitude spectrum of photographs, the same in every channel up to a tint."""
    white = torch.randn(4, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    frequency = torch.hypot(torch.fft.fftfreq(64)[:, None], torch.fft.rfftfreq(64)[None])
    pink = torch.fft.irfft2(torch.fft.rfft2(white) / frequency.clamp(min=1 / 64))
    return (0.5 + 0.17 * pink / pink.std() * torch.tensor([1.0, 0.9, 0.8]).view(1, 3, 1, 1)).clamp(0, 1)


def test_mse_is_the_plain_sum_of_squares():
    target = pictures()
    prediction = worsened(target)
    torch.testing.assert_close(mse(prediction, target), (prediction - target).square().sum() / len(target))


def test_robust_losses_equal_mse_for_small_errors_and_grow_linearly_beyond():
    target = torch.full((1, 3, 32, 32), 0.5)
    small, large, larger = target + 1e-3, target + 0.3, target + 0.4
    for loss in (huber, charbonnier):
        assert loss(small, target).item() == pytest.approx(mse(small, target).item(), rel=1e-3)
        step = loss(larger, target) - loss(large, target)
        assert step.item() == pytest.approx(target.numel() * 2 * 0.1 * 0.1, rel=0.06)


def test_bce_has_the_gradient_of_half_the_cross_entropy():
    target = pictures().clamp(0.05, 0.95)
    prediction = worsened(target).clamp(0.05, 0.95)

    def half_entropy(p: Tensor, t: Tensor) -> Tensor:
        return torch.nn.functional.binary_cross_entropy(p, t, reduction="sum") / (2 * len(t))

    # Squeezing both by half a grey level costs a few percent at 0.05 and 0.95.
    expected = gradient(half_entropy, prediction, target)
    torch.testing.assert_close(gradient(bce, prediction, target), expected, rtol=0.1, atol=1e-3)


def test_psnr_is_monotone_in_decibels():
    target = pictures(1)
    prediction = worsened(target)
    decibels = -10 * (prediction - target).square().mean().log10()
    halved = target.lerp(prediction, 0.5)
    saved = (psnr(prediction, target) - psnr(halved, target)) / (REFERENCE_ERROR**2 * target.numel())
    assert decibels > 0
    assert 10 / math.log(10) * saved.item() == pytest.approx(20 * math.log10(2), rel=1e-2)


def test_l1_ssim_mixes_the_two():
    target = pictures()
    prediction = worsened(target)
    torch.testing.assert_close(l1_ssim(prediction, target, structure=1.0), ssim(prediction, target))
    torch.testing.assert_close(l1_ssim(prediction, target, structure=0.0), l1(prediction, target))


@every_loss
def test_shapes_that_differ_are_refused_with_both_shapes_named(loss):
    with pytest.raises(ConfigError, match=r"\(2, 3, 64, 64\).*\(2, 3, 32, 32\)"):
        loss(torch.zeros(2, 3, 64, 64), torch.zeros(2, 3, 32, 32))


@every_loss
def test_a_few_steps_of_descent_improve_the_image(loss):
    target = pictures(2, 32)
    prediction = worsened(target).requires_grad_()
    before = loss(prediction, target).item()
    optimizer = torch.optim.Adam([prediction], lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        loss(prediction.clamp(0, 1), target).backward()
        optimizer.step()
    assert loss(prediction.detach().clamp(0, 1), target).item() < 0.8 * before


def test_every_public_loss_of_the_module_is_tried():
    assert {mse, l1, huber, charbonnier, bce, ssim, ms_ssim, l1_ssim, psnr} <= {*LOSSES}
