"""Render synthetic cat faces: the background, the composition of the layers and the camera's light.

The framing is that of aligned photos: eyes near 0.32 and 0.68 of the width and 0.42 of the height, mouth near 0.70.
"""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from catsweep.errors import DataError
from catsweep.synthetic import layers
from catsweep.synthetic.catalogue import Cat, Scene, pick
from catsweep.synthetic.layers import Field, cloud, grid, paint, plane, smoothstep

_SMALL = 64  # side of the background before it is enlarged
SMALLEST = 16  # side in pixels; below it the features are thinner than a pixel


@dataclass(frozen=True)
class Cats:
    """Pictures of n cats with landmarks and masks."""

    images: npt.NDArray[np.uint8]  # (n, size, size, 3), RGB
    landmarks: npt.NDArray[np.float32]  # (n, 9, 2), x and y in pixels, pixel centres at half-integers
    masks: npt.NDArray[np.bool_]  # (n, size, size), true where the cat covers most of the pixel but for whiskers


def render(n: int, size: int, seed: int) -> Cats:
    """Draw n ≥ 1 cats of size x size pixels (≥ 16) of a seed ≥ 0; DataError for an argument out of its range.

    Cat i depends on (seed, i) alone: not on n, and on the size only as a photo does. Drawn by threads, which pays
    because numpy and OpenCV let go of the interpreter's lock.
    """
    for name, value, least in (("n", n, 1), ("size", size, SMALLEST), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"demo cats need {name} >= {least}, got {name}={value}; set a larger {name}")
    images = np.empty((n, size, size, 3), np.uint8)
    landmarks = np.empty((n, 9, 2), np.float32)
    masks = np.empty((n, size, size), np.bool_)

    def fill(index: int) -> None:
        cat = pick(seed, index)
        images[index], masks[index] = draw(cat, size)
        landmarks[index] = layers.landmarks_of(cat) * size

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(fill, range(n)):
            pass  # taking the results raises what a thread raised
    return Cats(images, landmarks, masks)


def draw(cat: Cat, size: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw a cat, uint8 (size, size, 3), and its mask, bool, on a canvas at least twice as large, and scale it down."""
    canvas = size * max(2, math.ceil(128 / size))
    rng = np.random.default_rng(cat.texture_seed)
    x, y = layers.to_face(*grid(canvas), cat.pose)
    behind = background(cat.scene, canvas, rng)
    fur, parts = layers.paint_coat(cat, x, y, rng)
    fur = layers.paint_collar(fur, x, y, cat.features, parts)
    fur = layers.paint_face(fur, x, y, cat.features, cat.scene)
    mask = layers.cover(np.minimum(np.minimum(parts.head, parts.ears), parts.body), cat.shape.fluff)
    image = paint(behind, fur, mask)
    image = layers.paint_whiskers(image, cat.features, cat.pose, rng)
    image = develop(image, cat.scene)
    small = cv2.resize(cv2.merge(list(image)), (size, size), interpolation=cv2.INTER_AREA)
    small_mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
    return np.rint(np.clip(small, 0, 1) * 255).astype(np.uint8), small_mask > 0.5


def background(scene: Scene, size: int, rng: np.random.Generator) -> Field:
    """Paint the backdrop, (3, size, size), about [0, 1]: small, blurred and enlarged, for it is out of focus."""
    x, y = grid(_SMALL)
    ground, second, accent = scene.colours
    lean = rng.uniform(-1, 1)
    image = paint(plane(ground), second, smoothstep(0.1, 0.9, y + lean * (x - 0.5)))
    image = paint(image, accent, 0.4 * smoothstep(0.0, 1.5, cloud(rng, 4, _SMALL)))
    kind = scene.backdrop
    if kind.window:
        image = _room(image, x, y, scene, rng)
    if kind.bands:
        image = paint(image, accent, kind.bands * _bands(x, y, rng))
    if kind.leaves:
        image = paint(image, second, 0.9 * kind.leaves * smoothstep(-0.6, 1.2, cloud(rng, 8, _SMALL)))
        image = paint(image, accent, 0.8 * kind.leaves * smoothstep(0.4, 2.0, cloud(rng, 13, _SMALL)))
    if kind.lights:
        image = _lights(image, x, y, scene, rng)
    sharp = image.transpose(1, 2, 0)
    soft = cv2.GaussianBlur(sharp, (0, 0), scene.blur * _SMALL, borderType=cv2.BORDER_REFLECT)
    large = cv2.resize(soft, (size, size), interpolation=cv2.INTER_CUBIC)
    return cast(Field, np.ascontiguousarray(large.transpose(2, 0, 1)))


def _bands(x: Field, y: Field, rng: np.random.Generator) -> Field:
    """Draw parallel bands, upright or lying, a little askew."""
    angle = rng.uniform(-0.4, 0.4) + (math.pi / 2 if rng.random() < 0.5 else 0.0)
    phase = rng.uniform(14, 34) * (x * math.cos(angle) + y * math.sin(angle)) + rng.uniform(0, 6)
    return smoothstep(-0.2, 0.5, np.cos(phase))


def _room(image: Field, x: Field, y: Field, scene: Scene, rng: np.random.Generator) -> Field:
    """Paint a floor below a wall, and a bright window with a frame."""
    _, floor, pane = scene.colours
    horizon, slope = rng.uniform(0.5, 0.85), rng.uniform(-0.1, 0.1)
    image = paint(image, floor, smoothstep(horizon - 0.01, horizon + 0.02, y + slope * x))
    middle, half, bottom = rng.uniform(0.0, 1.0), rng.uniform(0.12, 0.26), rng.uniform(0.3, 0.55)
    away = np.maximum(np.abs(x - middle) - half, y - bottom)
    image = paint(image, 0.7 * plane(floor), 0.8 * smoothstep(0.04, 0.025, away))
    return paint(image, pane, smoothstep(0.01, -0.01, away))


def _lights(image: Field, x: Field, y: Field, scene: Scene, rng: np.random.Generator) -> Field:
    """Paint lamps and gaps between leaves, out of focus: discs."""
    for _ in range(9):
        across, down, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.11)
        disc = smoothstep(radius + 0.015, radius - 0.015, np.hypot(x - across, y - down))
        strength = rng.uniform(0.2, 0.7) * scene.backdrop.lights
        image = paint(image, scene.colours[2 if rng.random() < 0.6 else 1], strength * disc)
    return image


def develop(image: Field, scene: Scene) -> Field:
    """Expose a picture (3, S, S): light that falls off across it, dark corners, warm or cool tint."""
    x, y = grid(image.shape[1])
    x, y = x - 0.5, y - 0.5
    fall = (1 - 1.6 * scene.vignette * (x * x + y * y)) * scene.exposure
    fall *= 1 + 0.25 * (x * scene.light[0] + y * scene.light[1])
    return image * fall * plane((1 + scene.warmth, 1.0, 1 - scene.warmth))
