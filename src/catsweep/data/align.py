"""Align a cat's face: similarity transform on eyes and mouth, warp, resize.

Positions are continuous image coordinates: a picture of width W spans 0…W, and the centre of its first pixel lies at
0.5. (Landmarks and OpenCV count from the centre of the first pixel; `align` converts on entry and exit.)
"""

from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]

STANDARD = 360  # side of the standard aligned form, pixels
GREY = (128, 128, 128)  # neither white fur nor black fur melts into it
# Of the blurred border, in sides of the standard form: standard deviation of the blur, how far from the photo it has
# its full strength, and how far from it the photo's mean colour is all that is left. Chosen by eye.
BLUR, BLURRED, FADED = 0.04, 0.05, 0.5


class Border(StrEnum):
    """Border of the aligned square where it leaves the photo."""

    REFLECT = "reflect"  # the photo's mirror image; doubles a chin that is cut off
    CONSTANT = "constant"  # one colour
    BLUR = "blur"  # the mirror image, out of focus, which fades into the photo's mean colour


def similarity(source: Array, target: Array) -> Array:
    """Fit the 2 x 3 matrix that rotates, scales and shifts points `source` (n ≥ 2, 2) closest to `target` (n, 2).

    Least squares in closed form: with points as complex numbers the map is z ↦ a·z + b, a = Σ conj(s)·t / Σ|s|² for
    centred s and t. The same minimum as Umeyama, "Least-squares estimation of transformation parameters between two
    point patterns", PAMI 1991, held to proper rotations. ValueError if the source points coincide.
    """
    s, t = source @ [1, 1j], target @ [1, 1j]
    centred = s - s.mean()
    spread = float(np.sum(np.abs(centred) ** 2))
    if spread <= 0 or not np.isfinite(spread):
        raise ValueError("expected source points that are finite and differ from each other")
    a = np.sum(centred.conj() * (t - t.mean())) / spread
    b = t.mean() - a * s.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def scale(matrix: Array) -> float:
    """Return the factor by which a similarity enlarges."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def transform(matrix: Array, points: Array) -> Array:
    """Apply an affine map of shape (2, 3) to points of shape (n, 2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def inside(matrix: Array, height: int, width: int, side: int) -> float:
    """Compute the share, 0 to 1, of the aligned square that shows a photo; `matrix` maps photo to square, in pixels."""
    ticks = (np.arange(32) + 0.5) * side / 32
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    x, y = ((grid - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T).T
    return float(np.mean((x >= 0) & (x <= width) & (y >= 0) & (y <= height)))


def align(
    image: Pixels, matrix: Array, standard: int, size: int, border: Border = Border.REFLECT,
    colour: tuple[int, int, int] = GREY,
) -> Pixels:  # fmt: skip
    """Warp a photo, uint8 (H, W, 3 or 4), by `matrix` to the standard form, and shrink that to (size, size, 3 or 4).

    Antialiased throughout: the warp samples single pixels, so a photo larger than the standard form is first shrunk by
    averaging. A transparent photo is warped with colours weighted by opacity, so that hidden colours do not show at the
    edges, and is transparent outside. An opaque one has the border there, constant in `colour` (RGB). `size` is at most
    `standard`.
    """
    transparent = image.shape[2] == 4
    source, warp = _shrunk(_weighted(image) if transparent else image, matrix)
    plain = transparent or border is Border.CONSTANT
    mode = cv2.BORDER_CONSTANT if plain else cv2.BORDER_REFLECT_101
    fill = (0, 0, 0, 0) if transparent else colour
    warped = cv2.warpAffine(source, warp, (standard,) * 2, flags=cv2.INTER_CUBIC, borderMode=mode, borderValue=fill)
    form: NDArray[Any] = np.asarray(warped)
    if transparent:
        return _straight(_resized(form, size))
    if border is Border.BLUR:
        form = _blur_outside(form, warp, source)
    return np.asarray(_resized(form, size), np.uint8)


def _shrunk(image: NDArray[Any], matrix: Array) -> tuple[NDArray[Any], Array]:
    """Shrink a photo to what the standard form shows; return it and the warp from pixel centre to pixel centre."""
    height, width = image.shape[:2]
    factor = min(scale(matrix), 1.0)
    warp = matrix.copy()
    if factor < 1:
        small = (max(round(width * factor), 1), max(round(height * factor), 1))
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA))
        # Exact per-axis factors after rounding, so that the shrunk photo is not shifted by up to half a pixel.
        warp[:, :2] = matrix[:, :2] * [width / small[0], height / small[1]]
    warp[:, 2] += warp[:, :2] @ [0.5, 0.5] - 0.5
    return image, warp


def _blur_outside(form: Pixels, warp: Array, photo: Pixels) -> Pixels:
    """Blur the mirror image around a photo (H, W, 3) in a warped form (S, S, 3), fading to its mean colour outwards."""
    side = form.shape[0]
    within = cv2.warpAffine(np.ones(photo.shape[:2], np.uint8), warp, (side, side), flags=cv2.INTER_NEAREST)
    if within.all():
        return form
    away = cv2.distanceTransform(1 - within, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) / side
    # A blur this wide looks the same at a quarter of the size, in a tenth of the time.
    small = cv2.resize(form, (max(side // 4, 1), max(side // 4, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), BLUR * small.shape[0])
    soft = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    outside = away > 0
    away, mixed, filled = away[outside][:, None], form[outside].astype(np.float32), form.copy()
    mixed += (soft[outside] - mixed) * np.clip(away / BLURRED, 0, 1)
    mixed += (np.array(cv2.mean(photo)[:3], np.float32) - mixed) * np.clip(away / FADED, 0, 1)
    filled[outside] = np.rint(mixed)
    return filled


def resize(image: Pixels, size: int) -> Pixels:
    """Resize a square picture (H, W, 3 or 4): averaging when it shrinks (antialiased), cubic when it grows."""
    if image.shape[2] == 4 and image.shape[0] != size:
        return _straight(_resized(_weighted(image), size))
    return np.asarray(_resized(image, size), np.uint8)


def _resized(image: NDArray[Any], size: int) -> NDArray[Any]:
    if image.shape[0] == size:
        return image
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=how))


def _weighted(image: Pixels) -> NDArray[np.float32]:
    """Multiply colours by opacity, as averaging needs; float32 (H, W, 4), 0 to 255."""
    weighted = image.astype(np.float32)
    weighted[..., :3] *= weighted[..., 3:] / 255
    return weighted


def _straight(weighted: NDArray[np.float32]) -> Pixels:
    """Invert `_weighted`; what is wholly transparent is white."""
    alpha = weighted[..., 3:]
    seen = np.rint(alpha) > 0
    # Cubic interpolation may leave the range, colour and opacity by the same factor: clipped after the division.
    colour = np.where(seen, weighted[..., :3] * 255 / np.where(seen, alpha, 1), 255)
    return np.asarray(np.rint(np.clip(np.concatenate([colour, alpha], axis=2), 0, 255)), np.uint8)


def centre_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Crop the largest square in the middle of a picture of shape (H, W, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
