"""The standard FID network, with random weights in the format of the published file."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from catsweep.errors import MetricError
from catsweep.metrics import inception
from catsweep.metrics.inception import Inception, InceptionNetwork


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for the published file: the same names and shapes, with the classifier."""
    torch.manual_seed(0)
    state = InceptionNetwork().state_dict() | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    path = tmp_path_factory.mktemp("weights") / inception.FILE
    torch.save(state, path)
    return path


def test_names_and_shapes_are_those_of_the_published_file() -> None:
    """As pytorch-fid 0.3.0 loads it into torchvision's Inception v3; its features are bit by bit the same."""
    state = InceptionNetwork().state_dict()
    assert len(state) == 564
    assert sum(value.numel() for name, value in state.items() if "num_batches" not in name) == 21_820_000
    shapes = {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.bn.running_var": (192,),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.conv.weight": (96, 96, 3, 3),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6e.branch7x7dbl_5.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7c.branch3x3_2b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch_pool.bn.bias": (192,),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes


def test_features(weights: Path, images: Callable[..., np.ndarray]) -> None:
    extractor = Inception(weights, backend="torch")
    features = extractor(torch.from_numpy(images(2, seed=0, side=32)))
    assert features.shape == (2, extractor.num_features) == (2, 2048)
    assert float((features[0] - features[1]).abs().max()) > 0
    assert extractor.name == "inception"
    assert len(extractor.weights_sha256) == 64


def test_batch_counters_may_be_missing(weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save({name: value for name, value in state.items() if "num_batches" not in name}, tmp_path / "old.pth")
    Inception(tmp_path / "old.pth")


def test_the_resize_is_that_of_tensorflow_1(weights: Path) -> None:
    """Output i reads position i * inputs / outputs: the first pixel is kept, the last is not reached."""
    extractor = Inception(weights)
    ramp = torch.arange(64, dtype=torch.uint8).view(1, 1, 64, 1).expand(1, 64, 64, 3)
    expected = (torch.arange(299) * (64 / 299)).clamp_max(63)
    torch.testing.assert_close(extractor.resized(ramp)[0, 1, 7], expected, rtol=0, atol=1e-4)
    upright = extractor.resized(ramp.transpose(1, 2))
    torch.testing.assert_close(upright[0, 2, :, 9], expected, rtol=0, atol=1e-4)


def test_antialiasing_is_another_resize_and_another_card(weights: Path) -> None:
    plain, antialiased = Inception(weights), Inception(weights, antialias=True)
    lines = torch.zeros(1, 598, 598, 3, dtype=torch.uint8)
    lines[:, :, 1::2] = 255
    assert float(plain.resized(lines).max()) == 0
    assert float((antialiased.resized(lines)[..., 1:-1] - 127.5).abs().max()) < 1
    assert plain.resize != antialiased.resize


def test_a_missing_file_says_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=r"(?s)weights\.pth.*there is no such file.*download=true"):
        Inception(tmp_path / "weights.pth")


def test_it_is_fetched_only_on_request(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(url: str, path: str, hash_prefix: str, progress: bool) -> None:
        calls.append((url, hash_prefix))
        Path(path).write_bytes(weights.read_bytes())

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        Inception(tmp_path / "new" / "weights.pth", download=True)
    assert calls == [(inception.URL, "6726825d")]


def test_without_a_network_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(MetricError, match=r"not known\. Fetch .* on a machine with a network"):
        Inception(tmp_path / "weights.pth", download=True)
    assert "torchvision" not in sys.modules
