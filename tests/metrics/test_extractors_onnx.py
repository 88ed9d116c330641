"""The exported graph: made once, checked against torch each time, never trusted when damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from catsweep.errors import MetricError, PlaceError
from catsweep.metrics import extractors
from catsweep.metrics.extractors import Extractor
from steady.places import translated_errors

SIZE = 8


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def extract(seed: int, cache_root: Path | None, weights: str = "sha", name: str = "net") -> torch.Tensor:
    """Features of network `seed` in ONNX Runtime."""
    facts: dict[str, Any] = {"num_features": 4, "weights_sha256": weights, "size": SIZE, "resize": "none"}
    extractor = Extractor(network(seed), name=name, **facts, backend="onnx", threads=1, cache_root=cache_root)
    return extractor(torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8))


@pytest.fixture(scope="module")
def exported() -> dict[int, bytes]:
    """Graphs of the networks 0 and 1. An export takes seconds."""
    with torch.inference_mode():  # as in a validation loop
        return {seed: extractors.export_onnx(network(seed), SIZE) for seed in (0, 1)}


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch, exported: dict[int, bytes]) -> list[int]:
    """Replaces the exporter by one that hands out the graph of network 0, and counts."""
    calls: list[int] = []

    def export(network: nn.Module, size: int) -> bytes:
        calls.append(size)
        return exported[0]

    monkeypatch.setattr(extractors, "export_onnx", export)
    return calls


def test_any_batch_size_gives_torch_s_features(exported: dict[int, bytes]) -> None:
    session = extractors.open_graph(exported[1], threads=1)
    for n in (1, 2, 5):
        images = torch.rand(n, 3, SIZE, SIZE)
        with torch.no_grad():
            expected = network(1)(images).numpy()
        np.testing.assert_allclose(session.run(None, {"images": images.numpy()})[0], expected, rtol=1e-4, atol=1e-6)


def test_the_graph_is_exported_once(tmp_path: Path, exports: list[int]) -> None:
    for _ in range(3):
        extract(0, tmp_path)
    assert exports == [SIZE]
    assert len(list(tmp_path.glob("net-*.onnx"))) == 1
    extract(0, tmp_path, "other sha")
    assert len(exports) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "noise", "another network"])
def test_a_damaged_graph_is_exported_again(
    tmp_path: Path, exports: list[int], exported: dict[int, bytes], damage: str
) -> None:
    extract(0, tmp_path)
    (path,) = tmp_path.glob("*.onnx")
    content = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": content[:-40], "noise": b"\x07" * 400}.get(damage, exported[1]))
    extract(0, tmp_path)
    assert path.read_bytes() == content
    assert len(exports) == 2


@pytest.mark.parametrize("cached", [True, False])
def test_a_graph_that_computes_something_else_is_refused(tmp_path: Path, exports: list[int], cached: bool) -> None:
    with pytest.raises(MetricError, match="backend=torch"):
        extract(1, tmp_path if cached else None)
    assert not list(tmp_path.glob("*.onnx"))


def test_without_a_cache_nothing_is_written(
    tmp_path: Path, exports: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    extract(0, None)
    assert exports == [SIZE]
    assert not list(tmp_path.iterdir())


def test_threads_are_torch_s_unless_given(exported: dict[int, bytes]) -> None:
    for threads, expected in ((None, torch.get_num_threads()), (3, 3)):
        session = extractors.open_graph(exported[0], threads)
        assert session.get_session_options().intra_op_num_threads == expected


def test_a_cache_that_cannot_be_made_is_refused(tmp_path: Path, exports: list[int]) -> None:
    (tmp_path / "file").touch()
    cfg = OmegaConf.create({"metrics": {"cache_root": str(tmp_path / "file" / "cache")}})
    with pytest.raises(PlaceError, match=r"file cannot be used: .* metrics\.cache_root=DIR"), translated_errors(cfg):
        extract(0, tmp_path / "file" / "cache")


@pytest.mark.security
def test_the_name_of_an_extractor_is_no_path(tmp_path: Path) -> None:
    """It may come from the configuration of somebody else, and begins the name of a file that is written."""
    with pytest.raises(MetricError, match="The name of an extractor must be a name"):
        extract(0, tmp_path / "cache", name="../../victim")
