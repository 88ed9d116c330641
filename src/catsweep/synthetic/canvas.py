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

Field = npt.NDArray[np.floating[Any]]  # float32: numpy's stubs cannot tell that a Python float does not widen it
# In face coordinates (distance from the middle line, height):
EYE = (0.18, 0.42)  # its centre
MOUTH = (0.0, 0.70)  # where the line under the nose meets the lips
NOSE = (0.0, 0.60)  # its tip: the origin of the fur's flow and the point nearest to the viewer


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Compute pixel centres x and y, each (size, size), in fractions of the width; read-only, shared by threads."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    x, y = (np.ascontiguousarray(field) for field in np.meshgrid(axis, axis))
    x.flags.writeable = y.flags.writeable = False
    return x, y


def depth(x: Field, y: Field) -> Field:
    """Compute how far points of the face, at x from the middle line and height y, stand out; 0 about the eyes."""
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
    """Apply the pose to points (n, 2): face coordinates to picture coordinates, the inverse of `to_face`."""
    x, y = points[:, 0], points[:, 1]
    out = depth(x, y)
    x, y = x + pose.turn * out, y + pose.nod * out - 0.5
    cos, sin = math.cos(pose.roll) * pose.scale, math.sin(pose.roll) * pose.scale
    moved = np.stack([cos * x - sin * y + 0.5 + pose.shift[0], sin * x + cos * y + 0.5 + pose.shift[1]], axis=1)
    return cast(Field, moved.astype(np.float32))


def gauss(x: Field, y: Field, width: float, height: float) -> Field:
    """Evaluate a Gaussian of height 1 at the origin with standard deviations `width` and `height`."""
    exponent = x * x * (-0.5 / width**2) + y * y * (-0.5 / height**2)
    return np.exp(exponent, dtype=np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Step smoothly from 0 below `low` to 1 above `high` by a cubic (low > high reverses it)."""
    t = np.clip((field - low) * (1 / (high - low)), 0, 1)
    return cast(Field, t * t * (3 - 2 * t))


def cover(distance: Field, softness: float = 0.0) -> Field:
    """Turn a signed distance, (S, S) or a band of rows (R, S), into coverage in [0, 1].

    `softness` is the width of the edge; never less than a pixel and a half.
    """
    edge = max(1.5 / distance.shape[1], softness)
    return cast(Field, np.clip(0.5 - distance / edge, 0, 1))


def ellipse(x: Field, y: Field, width: float, height: float) -> Field:
    """Compute the signed distance (approximate; exact at the edge) of an ellipse about the origin."""
    radius: Field = np.sqrt(np.square(x / width) + np.square(y / height))
    return (radius - 1) * min(width, height)


def join(first: Field, second: Field, blend: float) -> Field:
    """Unite two signed distances by a polynomial minimum that rounds the seam over `blend`."""
    rounding = np.maximum(blend - np.abs(first - second), 0)
    return np.minimum(first, second) - rounding * rounding * (0.25 / blend)


def meet(first: Field, second: Field, blend: float) -> Field:
    """Intersect two signed distances, rounding the corner over `blend`."""
    return -join(-first, -second, blend)


def paint(image: Field, colour: Field | Colour, weight: Field) -> Field:
    """Blend `colour`, one or one per pixel (3, S, S), over `image` (3, S, S) with a weight (S, S) in [0, 1].

    Planes rather than pixels, because broadcasting over long rows is many times faster.
    """
    return image + weight * (plane(colour) - image)


def plane(colour: Field | Colour) -> Field:
    """Shape a colour to broadcast against (3, S, S); pixels pass unchanged."""
    return colour if isinstance(colour, np.ndarray) else np.array(colour, np.float32)[:, None, None]


def cloud(rng: np.random.Generator, cells: int, size: int) -> Field:
    """Draw smooth noise, (size, size), with `cells` bumps across, about zero mean and unit spread."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return cast(Field, cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC))
