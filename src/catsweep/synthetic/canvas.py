"""Canvas of the renderer: coordinates, pose, noise and arithmetic of smooth fields.

A field is a float32 array of shape (S, S), one value per pixel of a canvas larger than the picture. Shapes are signed
distances (negative inside, in fractions of the width); `cover` turns them into coverage. All functions are pure and,
up to sampling, independent of S, so that a cat looks the same at any size.
"""

import math
from functools import lru_cache
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt

from catsweep.synthetic.catalogue import Colour, Pose

Field = npt.NDArray[np.floating[Any]]
"""Float32 in fact; numpy's stubs cannot tell that a Python float does not widen it."""

EYE = (0.18, 0.42)
"""Centre of an eye in face coordinates: distance from the middle line, height."""

MOUTH = (0.0, 0.70)
"""Where the line under the nose meets the lips."""

NOSE = (0.0, 0.60)
"""Tip of the nose in face coordinates: the origin of the fur's flow and the point nearest to the viewer."""


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Pixel centres of a canvas.

    Returns:
        x and y, each (size, size), in fractions of the width; read-only, shared between threads.
    """
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = (np.ascontiguousarray(field) for field in np.meshgrid(axis, axis))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def depth(x: Field, y: Field) -> Field:
    """How far a point of the face stands out towards the viewer, 0 about the eyes.

    Args:
        x: signed distance from the middle line.
        y: height in the picture.
    """
    nose = gauss(x, y - NOSE[1], 0.10, 0.10)
    bowl: Field = 0.035 - 0.9 * x * x - 0.55 * np.square(y - 0.45)
    return bowl + 0.12 * nose


def to_face(x: Field, y: Field, pose: Pose) -> tuple[Field, Field]:
    """Undo the pose: picture coordinates to face coordinates (x = 0 is the middle line of the face).

    The head's turn is a parallax, picture = face + depth(face)·(turn, nod); three steps of a fixed-point
    iteration undo it, on the face to less than a thousandth of the width.
    """
    cos, sin = math.cos(pose.roll) / pose.scale, math.sin(pose.roll) / pose.scale
    x, y = x - (0.5 + pose.shift[0]), y - (0.5 + pose.shift[1])
    x, y = cos * x + sin * y, cos * y - sin * x + 0.5
    face_x, face_y = x, y
    for _ in range(3):
        out = depth(face_x, face_y)
        face_x, face_y = x - pose.turn * out, y - pose.nod * out
    return face_x, face_y


def to_picture(points: Field, pose: Pose) -> Field:
    """Apply the pose: face coordinates to picture coordinates, the inverse of `to_face`.

    Args:
        points: (n, 2) as x (from the middle line), y.
        pose: of the cat.

    Returns:
        (n, 2) in fractions of the width.
    """
    x, y = points[:, 0], points[:, 1]
    out = depth(x, y)
    x, y = x + pose.turn * out, y + pose.nod * out - 0.5
    cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
    moved = np.stack([cos * x - sin * y + 0.5 + pose.shift[0], sin * x + cos * y + 0.5 + pose.shift[1]], axis=1)
    return cast(Field, moved.astype(np.float32))


def gauss(x: Field, y: Field, width: float, height: float) -> Field:
    """A soft bump: 1 at the origin, with standard deviations `width` and `height`."""
    exponent = x * x * (-0.5 / width**2) + y * y * (-0.5 / height**2)
    return np.exp(exponent, dtype=np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """0 below `low`, 1 above `high`, a cubic between (low > high reverses it)."""
    t = np.clip((field - low) * (1 / (high - low)), 0, 1)
    return cast(Field, t * t * (3 - 2 * t))


def cover(distance: Field, softness: float = 0.0) -> Field:
    """Coverage in [0, 1] of a signed distance.

    Args:
        distance: (S, S), or a band of rows (R, S).
        softness: width of the edge; never less than a pixel and a half.
    """
    edge = max(1.5 / distance.shape[1], softness)
    return cast(Field, np.clip(0.5 - distance / edge, 0, 1))


def ellipse(x: Field, y: Field, width: float, height: float) -> Field:
    """Signed distance (approximate; exact at the edge) of an ellipse about the origin."""
    radius: Field = np.sqrt(np.square(x / width) + np.square(y / height))
    return (radius - 1) * min(width, height)


def join(first: Field, second: Field, blend: float) -> Field:
    """Smooth union of two signed distances: a polynomial minimum that rounds the seam over `blend`."""
    rounding = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - rounding * rounding * (0.25 / blend)


def meet(first: Field, second: Field, blend: float) -> Field:
    """Smooth intersection of two signed distances, rounding the corner over `blend`."""
    return -join(-first, -second, blend)


def paint(image: Field, colour: Field | Colour, weight: Field) -> Field:
    """Lay `colour` over `image` (3, S, S) with a weight in [0, 1] per pixel.

    Args:
        image: (3, S, S); planes rather than pixels, because broadcasting over long rows is many times faster.
        colour: one colour, or one per pixel (3, S, S).
        weight: (S, S).
    """
    return image + weight * (plane(colour) - image)


def plane(colour: Field | Colour) -> Field:
    """A colour in a shape that broadcasts against (3, S, S); pixels pass unchanged."""
    return colour if isinstance(colour, np.ndarray) else np.array(colour, np.float32)[:, None, None]


def cloud(rng: np.random.Generator, cells: int, size: int) -> Field:
    """Smooth noise with `cells` bumps across the picture, about zero mean and unit spread."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cast(Field, cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))


@lru_cache(maxsize=4)
def _strands(columns: int) -> Field:
    """A sheet of hair, long down the rows and fine across the columns; the same in every process.

    Returns:
        (256, 2·columns), of zero mean and unit spread: a periodic tile laid out twice each way, so that a walk that
        starts in the first tile needs no wrapping.
    """
    noise = np.random.default_rng(columns).standard_normal((128, columns), dtype=np.float32)
    blurred = cv2.GaussianBlur(np.pad(noise, 16, mode="wrap"), (0, 0), sigmaX=0.8, sigmaY=3.0)[16:-16, 16:-16]
    sheet = np.tile(blurred / blurred.std(), (2, 2))
    sheet.flags.writeable = False
    return sheet


def fur(x: Field, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Hair that flows away from the nose, as a cat's does.

    Octaves finer than the canvas can show fade out, so that a small picture is the large one, scaled.

    Returns:
        locks and single hairs, each (S, S), of zero mean and about unit spread in sum.
    """
    size = x.shape[0]
    radius, angle = cv2.cartToPolar(x - NOSE[0], y - (NOSE[1] - 0.03))
    angle += 0.05 * cloud(rng, 9, size)
    starts = rng.uniform(0.1, 0.9, 3).tolist()
    layers = []
    for columns, weight, start in zip((180, 420, 900), (0.6, 0.7, 0.6), starts, strict=True):
        visible = min(1.0, size / columns)  # at the cheek a hair is 2.5/columns of the width
        if visible > 0.2:
            across, down = angle * (columns / (2 * math.pi)) + start * columns, radius * 110 + start * 128
            layers.append(weight * visible * cv2.remap(_strands(columns), across, down, cv2.INTER_LINEAR))
    return layers[0], cast(Field, sum(layers[1:], np.zeros_like(x)))
