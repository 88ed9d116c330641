"""A toy model whose images tell its latents, and a bundle of it that takes no exporter and no second."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

SIDE = 4
GENERATOR = f"""
<ir_version: 8, opset_import: ["": 17]>
toy (float[N, 5] latents) => (float[N, 3, {SIDE}, {SIDE}] images)
<int64[1] first = {{0}}, int64[1] last = {{3}}, int64[1] one = {{1}}, int64[2] flat = {{2, 3}},
 int64[4] shape = {{1, 3, {SIDE}, {SIDE}}}>
{{ three = Slice(latents, first, last, one) colours = Sigmoid(three) dots = Unsqueeze(colours, flat)
   images = Expand(dots, shape) }}
"""
RECONSTRUCTOR = f"""
<ir_version: 8, opset_import: ["": 17]>
toy (float[N, 3, {SIDE}, {SIDE}] photos) => (float[N, 3, {SIDE}, {SIDE}] images)
<int64[2] flat = {{2, 3}}, int64[4] shape = {{1, 3, {SIDE}, {SIDE}}}>
{{ dots = ReduceMean<axes = [2, 3]>(photos) images = Expand(dots, shape) }}
"""


class Toy(nn.Module):
    """Paints each image in one colour, which tells the first three numbers of its latent; and the way back."""

    latent_size, image_size = 5, SIDE

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def decode(self, latents: Tensor) -> Tensor:
        return (self.one * latents[:, :3, None, None]).sigmoid().expand(-1, 3, SIDE, SIDE)

    def latents_of(self, images: Tensor) -> Tensor:
        colours = self.one * images.mean((2, 3)).clamp(0.01, 0.99).logit()
        return nn.functional.pad(colours, (0, 2))

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.decode(self.latents_of(images))


class Blind(nn.Module):
    """A toy without an encoder, as a DCGAN is."""

    latent_size, image_size = 5, SIDE
    decode = Toy.decode

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def blind() -> Blind:
    return Blind()


def write_bundle(folder: Path, reconstructs: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("generator", GENERATOR), ("reconstructor", RECONSTRUCTOR))[: 1 + reconstructs]:
        onnx.save(onnx.parser.parse_model(text), str(folder / f"{name}.onnx"))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle: `bundle("name", reconstructs=False)` for one like a DCGAN's."""
    return lambda name="toy-1", reconstructs=True: write_bundle(tmp_path / name, reconstructs)


@pytest.fixture
def config() -> Callable[..., DictConfig]:
    """conf/generate.yaml with changes; `attribute_measure=…` is attribute.measure."""
    keys = OmegaConf.load(Path(__file__).parents[2] / "conf" / "generate.yaml")

    def changed(**changes: object) -> DictConfig:
        cfg = OmegaConf.create({key: keys[key] for key in keys if key not in ("defaults", "hydra")})
        for key, value in changes.items():
            OmegaConf.update(cfg, key.replace("attribute_", "attribute."), value)
        assert isinstance(cfg, DictConfig)
        return cfg

    return changed


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """Writes photos of 40 x 60 pixels, each of one grey level: `photos("dark", 20, 40)`."""

    def written(name: str, *levels: int) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number, level in enumerate(levels):
            Image.fromarray(np.full((40, 60, 3), level, np.uint8)).save(folder / f"{number}.png")
        return folder

    return written


def colours(latents: Tensor) -> np.ndarray:
    return (latents[..., :3].sigmoid() * 255).round().int().numpy()


@pytest.fixture
def painted() -> Callable[[Tensor], np.ndarray]:
    """The colours that the toy gives latents (…, 5): int, shape (…, 3)."""
    return colours


@pytest.fixture
def cells() -> Callable[[Path], np.ndarray]:
    """The colours of a page's cells: int, shape (rows, columns, 3)."""

    def read(path: Path) -> np.ndarray:
        with Image.open(path) as image:
            page = np.asarray(image.convert("RGB")).astype(int)
        step = SIDE + 2
        return page[2::step, 2::step][: (len(page) - 2) // step, : (page.shape[1] - 2) // step]

    return read
