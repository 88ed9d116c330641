"""Bundles of a tiny generator, written without an exporter; its images vary in everything that is measured."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SIDE, LATENT, BLOCK = 32, 6, 8


def _save(path: Path, name: str, given: list[object], nodes: list[onnx.NodeProto], **constants: np.ndarray) -> None:
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, given)],
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_bundle(folder: Path, reconstructs: bool = True) -> Path:
    folder.mkdir(parents=True)
    blocks = np.random.default_rng(0).normal(0, 1, (LATENT, 3, SIDE // BLOCK, SIDE // BLOCK)).astype(np.float32)
    blocks[0] += 1  # brightness is in one number of the latent
    weights = blocks.repeat(BLOCK, 2).repeat(BLOCK, 3).reshape(LATENT, -1)
    drawing = [
        helper.make_node("MatMul", ["latents", "weights"], ["flat"]),
        helper.make_node("Reshape", ["flat", "shape"], ["raw"]),
        helper.make_node("Sigmoid", ["raw"], ["images"]),
    ]
    shape = np.array([-1, 3, SIDE, SIDE])
    _save(folder / "generator.onnx", "latents", ["N", LATENT], drawing, weights=weights, shape=shape)
    if reconstructs:
        halving = [helper.make_node("Mul", ["photos", "half"], ["images"])]
        _save(folder / "reconstructor.onnx", "photos", ["N", 3, SIDE, SIDE], halving, half=np.float32([0.5]))
    return folder


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As of a VAE."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "tiny-3")


@pytest.fixture
def blind_bundle(tmp_path: Path) -> Path:
    """As of a DCGAN."""
    return write_bundle(tmp_path / "blind-1", reconstructs=False)


@pytest.fixture(scope="session")
def write() -> Callable[..., Path]:
    """Writes a bundle to a folder."""
    return write_bundle
