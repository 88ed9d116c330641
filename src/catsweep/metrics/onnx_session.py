"""Runs a frozen network on the CPU through ONNX Runtime: several times the speed of the same network in torch.

Called by `catsweep.metrics.extractors` at the first batch, never at import or construction: a session owns
threads, which do not survive a fork, and the exporter takes seconds. The exported graph is therefore kept in
`data/statistics/`, keyed by the weights and by the libraries that wrote it.
"""

import hashlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from filelock import FileLock
from torch import nn

from catsweep.errors import MetricError
from steady.atomic import write_bytes
from steady.links import checked

# Relative distance allowed between ONNX Runtime and torch on the probe image: fused batch norms and another order
# of summation cost about 2e-6; anything near this bound is a different network.
AGREEMENT = 1e-4


def open_session(
    network: nn.Module, size: int, name: str, weights_sha256: str, threads: int | None, cache_root: Path | None
) -> onnxruntime.InferenceSession:
    """Open a session that computes what `network` computes, exporting the network unless that was done before.

    The session is checked against torch on one image before it is trusted, so a damaged cached graph is exported
    again instead of being used.

    Args:
        network: frozen, in evaluation mode, on the CPU; maps float32 (N, 3, size, size) to float32 (N, D).
        size: input side in pixels.
        name: the network's name; begins the cached file's name.
        weights_sha256: digest of the weights; part of the cache key.
        threads: threads one inference uses; None takes `torch.get_num_threads()`.
        cache_root: folder of cached graphs; None exports into memory.

    Raises:
        MetricError: a freshly exported graph does not compute what torch computes.
    """
    if cache_root is None:
        session = open_graph(_export(network, size), threads)
        _require_agreement(session, network, size, name)
        return session
    cache_root.mkdir(parents=True, exist_ok=True)
    path = cache_root / f"{checked(name, 'The name of an extractor', MetricError)}-{_key(weights_sha256, size)}.onnx"
    with FileLock(f"{path}.lock"):
        if path.exists():
            try:
                session = open_graph(path.read_bytes(), threads)
                _require_agreement(session, network, size, name)
            except Exception:  # onnxruntime raises bare RuntimeErrors and its own; whatever is wrong, export anew
                path.unlink()
            else:
                return session
        graph = _export(network, size)
        session = open_graph(graph, threads)
        _require_agreement(session, network, size, name)
        write_bytes(path, graph)
    return session


def _key(weights_sha256: str, size: int) -> str:
    parts = (weights_sha256, str(size), *(version(package) for package in ("torch", "onnx", "onnxscript")))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _export(network: nn.Module, size: int) -> bytes:
    # Two images, not one: the exporter bakes a batch of one into the graph. Lightning validates in inference mode,
    # whose tensors the exporter cannot trace.
    with torch.inference_mode(False), torch.no_grad(), _quiet_exporter():
        example = torch.zeros(2, 3, size, size)
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
    assert program is not None, "the dynamo exporter returns a program"
    content: bytes = program.model_proto.SerializeToString()
    return content


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence what torch's exporter says about itself on each call: two known messages, nothing else."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)  # "torchvision is not installed": so it shall be
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
            yield
    finally:
        registration.setLevel(level)


def open_graph(graph: bytes, threads: int | None, quiet: bool = False) -> onnxruntime.InferenceSession:
    """Open a session on the CPU.

    Args:
        graph: an ONNX file's content.
        threads: threads one inference uses; None takes `torch.get_num_threads()`.
        quiet: print nothing of what is wrong with it, as it may be a stranger's; errors are raised all the same.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if quiet else 3
    # Idle threads that spin take the cores from torch's own (the resize between two batches): a third of the speed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def _require_agreement(session: onnxruntime.InferenceSession, network: nn.Module, size: int, name: str) -> None:
    probe = torch.linspace(0, 255, 3 * size * size).reshape(1, 3, size, size)
    with torch.no_grad():
        expected = network(probe).numpy()
    (found,) = session.run(None, {"images": probe.numpy()})
    distance = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    if not distance < AGREEMENT:
        raise MetricError(
            f"ONNX Runtime must compute the features of {name} as torch does, to {AGREEMENT:g}; "
            f"on a probe image they differ by {distance:.2g}. Set metrics.extractor.backend=torch."
        )
