"""Draw cats with the generator that lies beside this file.

    pip install numpy onnxruntime pillow
    python generate.py --n 16 --seed 0 --truncation 1.0 --out cats.png

The same seed draws the same cats. A truncation below 1 draws likelier cats, and less diversity.
"""

import argparse
import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it would tell its maker of its use
import onnxruntime

MODEL = Path(__file__).resolve().parent / "generator.onnx"


def draw(n: int, seed: int, truncation: float = 1.0, model: Path = MODEL) -> NDArray[np.uint8]:
    """Draw n cats: uint8, shape (n, H, W, 3)."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    size = session.get_inputs()[0].shape[1]
    latents = np.random.default_rng(seed).standard_normal((n, size), dtype=np.float32) * np.float32(truncation)
    parts = np.split(latents, range(64, n, 64))
    images = np.concatenate([session.run(["images"], {"latents": part})[0] for part in parts])
    return (images.clip(0, 1) * np.float32(255)).round().astype(np.uint8).transpose(0, 2, 3, 1)


def page(images: NDArray[np.uint8], gap: int = 2) -> NDArray[np.uint8]:
    """Lay images out on one white page, about as wide as high."""
    columns = math.ceil(math.sqrt(len(images)))
    cells = np.pad(images, ((0, -len(images) % columns), (gap, 0), (gap, 0), (0, 0)), constant_values=255)
    rows = [np.concatenate(list(cells[i : i + columns]), axis=1) for i in range(0, len(cells), columns)]
    return np.pad(np.concatenate(rows), ((0, gap), (0, gap), (0, 0)), constant_values=255)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=16, help="how many cats")
    parser.add_argument("--seed", type=int, default=0, help="the same seed draws the same cats")
    parser.add_argument("--truncation", type=float, default=1.0, help="above 0, at most 1")
    parser.add_argument("--out", default="cats.png", help="an image file")
    chosen = parser.parse_args()
    if chosen.n < 1 or chosen.seed < 0 or not 0 < chosen.truncation <= 1:
        parser.error("expected --n of at least 1, --seed of at least 0, --truncation above 0 and at most 1")
    Image.fromarray(page(draw(chosen.n, chosen.seed, chosen.truncation))).save(chosen.out)
    print(chosen.out)
