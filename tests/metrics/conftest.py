"""Small stand-ins for what the scores are taken with: an extractor, a ready set, a generator."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from catsweep.metrics.extractors import EfficientNetLite0, Extractor

SIDE = 16


class TinyExtractor(Extractor):
    """12 features of 16x16 images from two fixed random convolutions; counts the images it has seen."""

    def __init__(self, seed: int = 0, **facts: Any) -> None:
        generator = torch.Generator().manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 4, 4), nn.Tanh(), nn.Conv2d(8, 12, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
        facts = {"weights_sha256": "00", "name": "tiny", "resize": "none", "backend": "torch"} | facts
        super().__init__(network, num_features=12, size=SIDE, **facts)
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return super().forward(images)


@dataclass
class TinyReady:
    """32 blurred random images, the last 8 held out."""

    images: np.ndarray = field(default_factory=lambda: smooth_images(32, seed=0))
    held_out: int = 8
    digest: str = "digest"
    card: dict[str, Any] = field(default_factory=dict)

    def indices(self, split: str) -> np.ndarray:
        boundary = len(self.images) - self.held_out
        return {"train": np.arange(boundary), "val": np.arange(boundary, len(self.images))}[split]

    def originals(self) -> np.ndarray:
        return np.arange(len(self.images))


class TinyGenerator(nn.Module):
    """Draws from latents; in training mode something else, so that a score shows which mode it was taken in."""

    image_size = SIDE

    def __init__(self, latent_size: int = 4) -> None:
        super().__init__()
        self.latent_size = latent_size
        self.net = nn.Sequential(nn.Linear(latent_size, 3 * SIDE * SIDE, bias=False), nn.Dropout(0.5))
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            weight = self.net.get_parameter("0.weight")
            weight.copy_(torch.randn(weight.shape, generator=generator))

    def decode(self, latents: Tensor) -> Tensor:
        return torch.sigmoid(self.net(latents)).view(-1, 3, SIDE, SIDE)


class TinyReconstructor(TinyGenerator):
    def reconstruct(self, images: Tensor) -> Tensor:
        return images


def smooth_images(n: int, seed: int, side: int = SIDE) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    fine = nn.functional.interpolate(coarse, (side, side), mode="bilinear", align_corners=False)
    return fine.mul(255).byte().permute(0, 2, 3, 1).contiguous().numpy()


@pytest.fixture
def tiny_extractor() -> Callable[..., TinyExtractor]:
    return TinyExtractor


@pytest.fixture
def tiny_ready() -> Callable[..., TinyReady]:
    return TinyReady


@pytest.fixture
def tiny_generator() -> type[TinyGenerator]:
    return TinyGenerator


@pytest.fixture
def tiny_reconstructor() -> type[TinyReconstructor]:
    return TinyReconstructor


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    return smooth_images


@pytest.fixture(scope="session")
def lite0(graphs: Path) -> EfficientNetLite0:
    return EfficientNetLite0(backend="onnx", threads=1, cache_root=graphs)
