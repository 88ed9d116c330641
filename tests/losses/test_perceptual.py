"""The contract of the reconstruction losses, kept by one that looks through a network."""

import pickle
from functools import partial
from typing import Any

import pytest
import torch
from kornia.filters import gaussian_blur2d
from torch import Tensor

from catsweep.errors import ConfigError
from catsweep.losses.frozen_features import NETWORKS
from catsweep.losses.perceptual import PER_MSE, perceptual
from catsweep.losses.reconstruction import REFERENCE_ERROR, l1, mse

features_alone = partial(perceptual, features=1.0)


def pictures(n: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    """Smooth shapes with some texture."""
    noise = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    shapes = gaussian_blur2d(noise, (25, 25), (6.0, 6.0))
    return (0.5 + 8 * (shapes - 0.5) + 0.5 * (gaussian_blur2d(noise, (7, 7), (1.0, 1.0)) - 0.5)).clamp(0, 1)


def worsened(target: Tensor) -> Tensor:
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    return (target + REFERENCE_ERROR * noise).clamp(0, 1)


def gradient(loss, prediction: Tensor, target: Tensor) -> Tensor:
    prediction = prediction.clone().requires_grad_()
    (result,) = torch.autograd.grad(loss(prediction, target), prediction)
    return result


@pytest.mark.parametrize("size", [32, 64, 128])
def test_is_zero_at_equality_and_falls_all_the_way_to_it(size):
    target = pictures(2, size)
    values = [features_alone(target.lerp(worsened(target), share), target).item() for share in (0, 0.25, 0.5, 1)]
    assert values[0] == pytest.approx(0, abs=1e-4 * target[0].numel() * REFERENCE_ERROR**2)
    assert values == sorted(values)
    assert values[1] > 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("other", [0.0, 1.0])
def test_gradients_are_finite_for_flat_images_and_at_both_ends_of_the_range(value, other):
    prediction, target = torch.full((1, 3, 32, 32), value), torch.full((1, 3, 32, 32), other)
    assert torch.isfinite(gradient(perceptual, prediction, target)).all()


def test_identical_images_have_no_gradient_and_others_one_that_improves_them():
    target = pictures()
    prediction = worsened(target)
    slope = gradient(features_alone, prediction, target)
    assert gradient(features_alone, target, target).norm() < 1e-3 * slope.norm()
    better = prediction - 0.5 * slope / slope.norm()
    assert features_alone(better, target) < features_alone(prediction, target)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_computes_in_float32_whatever_comes_and_under_autocast(dtype):
    target = pictures()
    prediction = worsened(target).to(dtype)
    expected = perceptual(prediction.float(), target)
    with torch.autocast("cpu", torch.bfloat16):
        result = perceptual(prediction, target)
    torch.testing.assert_close(result.float(), expected)


def test_sums_over_an_image_and_averages_over_the_batch():
    target = pictures(3)
    prediction = worsened(target)
    one_by_one = [perceptual(prediction[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(perceptual(prediction, target), torch.stack(one_by_one).mean())
    large = features_alone(prediction.repeat(1, 1, 4, 4), target.repeat(1, 1, 4, 4))
    # Sixteen tiles cost about sixteen times as much; at 32 pixels the deepest maps are 2 x 2, and all border.
    assert large.item() == pytest.approx(16 * features_alone(prediction, target).item(), rel=0.3)


def test_a_share_of_the_features_and_the_rest_of_l1():
    target = pictures()
    prediction = worsened(target)
    torch.testing.assert_close(perceptual(prediction, target, features=0.0), l1(prediction, target))
    parts = 0.3 * features_alone(prediction, target) + 0.7 * l1(prediction, target)
    torch.testing.assert_close(perceptual(prediction, target, features=0.3), parts)


@pytest.mark.photos
@pytest.mark.parametrize("network", NETWORKS)
def test_the_constants_are_those_of_blurred_photos(network, photos):
    """What the docstring says was measured: at a squared error of 0.010, all depths save what `mse` saves."""
    from tests.decoded import decode

    files = sorted((photos / "cats").glob("*.jpg"))[:24]
    target = torch.stack([_face(decode(file)) for file in files])
    error = gaussian_blur2d(target, (25, 25), (3.5, 3.5)) - target
    assert 0.006 < error.square().mean() < 0.015  # else the comparison says nothing
    assert 0.67 < saving(partial(features_alone, network=network), target, error) / saving(mse, target, error) < 1.5


def _face(image) -> Tensor:
    side = min(image.shape[:2])
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    square = torch.from_numpy(image[top : top + side, left : left + side].copy()).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True)[0].clamp(0, 1)


def saving(loss, target: Tensor, error: Tensor) -> float:
    """What the loss falls by when all errors shrink, per unit of shrinking."""
    factor = torch.ones((), requires_grad=True)
    return torch.autograd.grad(loss((target + factor * error).clamp(0, 1), target), factor)[0].item()


def test_every_network_has_its_constants():
    assert PER_MSE.keys() == NETWORKS.keys()
    assert all(len(PER_MSE[name]) == len(facts.taps) for name, facts in NETWORKS.items())


def test_the_network_is_no_part_of_a_model():
    model: Any = torch.nn.Module()
    model.reconstruction_loss = partial(perceptual, features=0.4)
    assert model.state_dict() == {}
    assert len(pickle.dumps(model.reconstruction_loss)) < 1000


def test_another_network_and_shapes_that_differ_are_refused():
    with pytest.raises(ConfigError, match=r"efficientnet_lite0, efficientnet_lite1; got 'vgg'"):
        perceptual(pictures(1), pictures(1), network="vgg")
    with pytest.raises(ConfigError, match=r"\(1, 3, 64, 64\).*\(1, 3, 32, 32\)"):
        perceptual(pictures(1, 64), pictures(1, 32))
