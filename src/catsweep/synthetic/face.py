"""Face of a synthetic cat: eyes, nose, mouth, whiskers and collar, drawn over the coat.

Arguments `x`, `y` are face coordinates and pictures are (3, S, S), as in `coat`.
"""

import math
from typing import cast

import cv2
import numpy as np
import numpy.typing as npt

from catsweep.synthetic.canvas import (
    EYE,
    MOUTH,
    Field,
    cover,
    ellipse,
    gauss,
    meet,
    paint,
    plane,
    smoothstep,
    to_picture,
)
from catsweep.synthetic.catalogue import Features, Pose, Scene
from catsweep.synthetic.coat import Silhouette

_LID = (0.07, 0.05, 0.05)
_LIPS = (0.13, 0.07, 0.07)
_TONGUE = (0.88, 0.48, 0.50)
_WHISKER = (0.97, 0.96, 0.94)


def paint_face(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """Lay eyes, nose and mouth over the fur; only the rows that hold them are touched."""
    image = image.copy()
    for low, high, layer in ((EYE[1] - 0.13, EYE[1] + 0.13, _eyes), (0.54, 0.77, _nose_and_mouth)):
        rows = np.flatnonzero(((y > low) & (y < high) & (np.abs(x) < 0.32)).any(axis=1))
        band = slice(int(rows[0]), int(rows[-1]) + 1)
        image[:, band] = layer(image[:, band], x[band], y[band], features, scene)
    return image


def _eyes(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """Almond eyes with dark lids."""
    across, down = np.abs(x) - EYE[0], y - EYE[1]
    cos, sin = math.cos(features.eye_tilt), math.sin(features.eye_tilt)
    u, v = cos * across - sin * down, cos * down + sin * across
    t = np.square(u / features.eye_width)
    arch = 1 - t * (0.6 + 0.4 * t)  # rounder than a parabola, which would look painted
    upper, lower = 0.074 * features.eye_open, 0.062 * (0.4 + 0.6 * features.eye_open)
    gap = np.where(v < 0, -v - upper * arch, v - lower * arch)
    gap = gap / np.sqrt(1 + 1.5 * t)
    lid = smoothstep(0.022, 0.006, gap + 0.006 * smoothstep(-0.01, 0.02, v))
    tear_duct = gauss(u + 1.06 * features.eye_width, v - 0.012, 0.016, 0.009)
    image = paint(image, _LID, np.clip(0.9 * lid + 0.6 * tear_duct, 0, 0.95))
    iris = _iris(across, down, np.sign(x), gap, features, scene)
    return paint(image, iris, cover(gap, 0.004))


def _iris(across: Field, down: Field, sign: Field, gap: Field, features: Features, scene: Scene) -> Field:
    """Iris shaded by the lid, pupil, highlight on the side of the light; both eyes look the same way."""
    across, down = across - sign * features.gaze[0], down - features.gaze[1] + 0.002
    out = np.sqrt(across * across + down * down) / 0.085
    image = paint(plane(features.iris), features.iris_centre, smoothstep(0.85, 0.30, out))
    bright = (1 - 0.5 * smoothstep(0.80, 1.08, out)) * (0.55 + 0.45 * smoothstep(0.0, -0.022, gap))
    image = image * (bright * (0.80 + 0.35 * smoothstep(-0.05, 0.035, down)))
    image = paint(image, (0.02, 0.02, 0.03), cover(ellipse(across, down, features.pupil, 0.062), 0.008))
    towards = math.copysign(0.024, scene.light[0])  # beside a slit pupil, or it would seem broken
    spot_x, spot_y = sign * across - towards, down + 0.026
    glint = cover(ellipse(spot_x, spot_y, 0.019, 0.017), 0.006)
    echo = cover(ellipse(spot_x + 2 * towards, spot_y - 0.052, 0.010, 0.008), 0.008)
    return paint(image, (1.0, 1.0, 1.0), np.minimum(0.95 * glint + 0.35 * echo, 1))


def _nose_and_mouth(image: Field, x: Field, y: Field, features: Features, scene: Scene) -> Field:
    """A rounded triangle with nostrils; under it the line to the mouth, the curves of the lips, rows of freckles."""
    side = np.abs(x)
    pad = meet(0.568 + 0.05 * side - y, 0.80 * side + 0.60 * (y - 0.637), 0.022)
    shine = gauss(x - 0.008 * scene.light[0], y - 0.582, 0.03, 0.012)
    nostril = gauss(side - 0.026, y - 0.612 + 0.3 * (side - 0.026), 0.011, 0.006)
    nose = paint(plane(features.nose) * (0.88 + 0.35 * shine), (0.10, 0.05, 0.05), 0.85 * nostril)
    image = paint(image, (0.10, 0.06, 0.06), 0.35 * cover(pad - 0.006, 0.02))
    image = paint(image, nose, cover(pad, 0.008))

    sag = 0.018 * features.smile * np.sin(side * (math.pi / 0.072)) + 0.12 * side * (1 - features.smile)
    lips = gauss(y - MOUTH[1] - sag, np.maximum(side - 0.045, 0), 0.006, 0.018)
    line = gauss(side, np.maximum(np.maximum(0.632 - y, y - MOUTH[1]), 0), 0.005, 0.006)
    image = paint(image, _LIPS, 0.30 * gauss(x, y - MOUTH[1] - sag - 0.016, 0.050, 0.014))
    image = paint(image, _LIPS, 0.75 * np.maximum(lips, line))
    if features.tongue:
        tip = np.maximum(ellipse(x, y - MOUTH[1] - 0.010, 0.021, 0.030), MOUTH[1] + sag - y)
        image = paint(image, plane(_TONGUE) * (1 - 0.35 * gauss(x, y - MOUTH[1], 0.004, 0.02)), cover(tip, 0.006))
    dots = np.maximum(np.cos(230 * side) * np.cos(260 * y + 39 * side) - 0.55, 0)
    return paint(image, _LIPS, 0.8 * dots * gauss(side - 0.085, y - 0.665, 0.022, 0.018))


def paint_collar(image: Field, x: Field, y: Field, features: Features, parts: Silhouette) -> Field:
    """A band around the neck, below the head, with a small bell; nothing if the cat wears none."""
    if features.collar is None:
        return image
    hang = y - 0.895 + 0.55 * x * x
    band = cover(np.abs(hang) - 0.022) * (1 - cover(parts.head, 0.01))
    shade = 1.1 - 12 * np.abs(hang) - 1.6 * x * x
    image = paint(image, plane(features.collar) * shade, 0.95 * band)
    bell = ellipse(x, y - 0.935, 0.032, 0.032)
    gold = plane((0.88, 0.68, 0.24)) * (0.75 + 0.6 * gauss(x + 0.008, y - 0.925, 0.012, 0.012))
    gold = paint(gold, (0.25, 0.17, 0.05), cover(np.maximum(np.abs(y - 0.945) - 0.003, bell)))
    return paint(image, gold, cover(bell, 0.006))


def paint_whiskers(image: Field, features: Features, pose: Pose, rng: np.random.Generator) -> Field:
    """Fine pale hairs that fan out from the pads and rise from the brows, too thin to count as cat in the mask."""
    size = image.shape[1]
    hairs = np.concatenate([_one_side(features, rng) * (side, 1.0) for side in (-1.0, 1.0)])
    points = to_picture(hairs.reshape(-1, 2), pose).reshape(hairs.shape) * size - 0.5
    ink = np.zeros((size, size), np.uint8)
    fixed = np.rint(points * 256).astype(np.int32)  # cv2 takes fixed point with 8 fractional bits
    cv2.polylines(ink, list(fixed), False, 255, max(1, round(size / 420)), cv2.LINE_AA, shift=8)
    strength = 0.7 * min(1.0, size / 512)  # a line is at least a pixel wide: on a small canvas it is fainter instead
    return paint(image, _WHISKER, ink * np.float32(strength / 255))


def _one_side(features: Features, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Whiskers of the right half, (8 hairs, 9 points, 2): quadratic Bézier curves in face coordinates."""
    controls = np.empty((8, 3, 2))
    for hair in range(6):
        reach = features.whisker_length * rng.uniform(0.75, 1.05)
        rise = 0.04 * (hair - 2.2) + features.whisker_droop + rng.uniform(-0.025, 0.025)
        root = np.array((0.075 + 0.014 * (hair % 3), 0.650 + 0.013 * (hair // 2)))
        controls[hair] = root, root + np.array((0.55 * reach, 0.30 * rise - 0.03)), root + np.array((reach, rise))
    for hair in range(2):
        root, way = np.array((0.15 + 0.03 * hair, 0.335)), np.array((0.05 + 0.05 * hair, rng.uniform(-0.15, -0.11)))
        controls[6 + hair] = root, root + way / 2 - np.array((0.015, 0.0)), root + way
    t = np.linspace(0, 1, 9)
    weights = np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)
    return cast(npt.NDArray[np.float64], np.einsum("pc,hcd->hpd", weights, controls))
