"""Around a demo cat: the background behind it and the camera's light over everything.

First and last layer of the demo renderer. Backgrounds are out of focus, so they are painted small, blurred and
enlarged: the cheapest way to a soft picture that looks the same at any size.
"""

import math
from typing import cast

import cv2
import numpy as np

from catsweep.data.demo_canvas import Field, cloud, grid, paint, plane, smoothstep
from catsweep.data.demo_catalogue import Scene

_SMALL = 64
"""Side of the background before it is enlarged."""


def background(scene: Scene, size: int, rng: np.random.Generator) -> Field:
    """Paint what is behind the cat: a slope of two colours, and the layers its backdrop has.

    Returns:
        (3, size, size), values about [0, 1].
    """
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
    """Parallel bands, upright or lying, a little askew."""
    angle = rng.uniform(-0.4, 0.4) + (math.pi / 2 if rng.random() < 0.5 else 0.0)
    phase = rng.uniform(14, 34) * (x * math.cos(angle) + y * math.sin(angle)) + rng.uniform(0, 6)
    return smoothstep(-0.2, 0.5, np.cos(phase))


def _room(image: Field, x: Field, y: Field, scene: Scene, rng: np.random.Generator) -> Field:
    """A floor below a wall, and a bright window with a frame."""
    _, floor, pane = scene.colours
    horizon, slope = rng.uniform(0.5, 0.85), rng.uniform(-0.1, 0.1)
    image = paint(image, floor, smoothstep(horizon - 0.01, horizon + 0.02, y + slope * x))
    middle, half, bottom = rng.uniform(0.0, 1.0), rng.uniform(0.12, 0.26), rng.uniform(0.3, 0.55)
    away = np.maximum(np.abs(x - middle) - half, y - bottom)
    image = paint(image, 0.7 * plane(floor), 0.8 * smoothstep(0.04, 0.025, away))
    return paint(image, pane, smoothstep(0.01, -0.01, away))


def _lights(image: Field, x: Field, y: Field, scene: Scene, rng: np.random.Generator) -> Field:
    """Lamps and gaps between leaves, thrown out of focus into discs."""
    for _ in range(9):
        across, down, radius = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.03, 0.11)
        disc = smoothstep(radius + 0.015, radius - 0.015, np.hypot(x - across, y - down))
        strength = rng.uniform(0.2, 0.7) * scene.backdrop.lights
        image = paint(image, scene.colours[2 if rng.random() < 0.6 else 1], strength * disc)
    return image


def develop(image: Field, scene: Scene) -> Field:
    """Expose the picture: light that falls off across it, dark corners, warm or cool tint.

    Args:
        image: (3, S, S).
        scene: exposure, direction of light, warmth, vignette.
    """
    x, y = grid(image.shape[1])
    x, y = x - 0.5, y - 0.5
    fall = (1 - 1.6 * scene.vignette * (x * x + y * y)) * scene.exposure
    fall *= 1 + 0.25 * (x * scene.light[0] + y * scene.light[1])
    return image * fall * plane((1 + scene.warmth, 1.0, 1 - scene.warmth))
