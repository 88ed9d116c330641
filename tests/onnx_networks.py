"""Networks of a few hundred bytes as ONNX files, such as a judge may be given."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

SIDE, TOKENS, FEATURES = 16, 4, 6


def weights(inputs: int, outputs: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((inputs, outputs)).astype(np.float32) / inputs**0.5


def network(
    shape: tuple[Any, ...] = ("N", 3, SIDE, SIDE), kind: int = TensorProto.FLOAT, seed: int = 0, **changes: Any
) -> onnx.ModelProto:
    """Colours times a matrix, between -1 and 1: outputs `tokens` (N, 4, 6), `maps` (N, 6, 2, 2), `flat` (N, 24)."""
    side = changes.get("side", SIDE)
    constants = {
        "matrix": weights(3 * side**2, TOKENS * FEATURES, seed), "to_tokens": np.array([-1, TOKENS, FEATURES]),
        "to_maps": np.array([-1, FEATURES, 2, 2]),
    }  # fmt: skip
    if kind == TensorProto.FLOAT16:
        constants["matrix"] = constants["matrix"].astype(np.float16)
    nodes = [
        helper.make_node("Flatten", ["images"], ["colours"]),
        helper.make_node("MatMul", ["colours", "matrix"], ["sums"]),
        helper.make_node("Tanh", ["sums"], ["flat"]),
        helper.make_node("Reshape", ["flat", "to_tokens"], ["tokens"]),
        helper.make_node("Reshape", ["flat", "to_maps"], ["maps"]),
    ]
    outputs: dict[str, list[str | int | None]] = {
        "tokens": ["N", TOKENS, FEATURES], "maps": ["N", FEATURES, 2, 2], "flat": ["N", 24]
    }  # fmt: skip
    graph = helper.make_graph(
        changes.get("nodes", nodes),
        "network",
        [helper.make_tensor_value_info(name, kind, shape) for name in changes.get("inputs", ["images"])],
        [helper.make_tensor_value_info(name, kind, sizes) for name, sizes in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def write(path: Path, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(network(**changes).SerializeToString())
    return path


def opened_sessions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets a 1 for each session of ONNX Runtime that is opened from now on."""
    opened: list[int] = []
    real = onnxruntime.InferenceSession

    def opening(*args: Any, **kwargs: Any) -> Any:
        opened.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opening)
    return opened
