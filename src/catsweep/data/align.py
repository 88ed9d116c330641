"""Bring a cat's face to its standard place: similarity transform on eyes and mouth, warp, shrink.

The step between reading a photo with landmarks and storing it in a ready set. Positions are continuous image
coordinates here: a picture of width W spans 0…W, and the centre of its first pixel lies at 0.5. (Landmarks and
OpenCV count from the centre of the first pixel, half a pixel less; `align` converts on entry and exit.)
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STANDARD = 360  # side of the standard aligned form, pixels


def similarity(source: Array, target: Array) -> Array:
    """The rotation, uniform scale and shift, without reflection, that takes `source` closest to `target`.

    Least squares in closed form. With points as complex numbers the map is z ↦ a·z + b, so it is linear regression
    over them: a = Σ conj(s)·t / Σ|s|² for centred s and t. The same minimum as Umeyama, "Least-squares estimation of
    transformation parameters between two point patterns", PAMI 1991, held to proper rotations.

    Args:
        source: shape (n, 2), n ≥ 2, not all the same point.
        target: shape (n, 2).

    Returns:
        shape (2, 3): the matrix M of x ↦ M[:, :2] x + M[:, 2].

    Raises:
        ValueError: if the source points coincide.
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
    """How much a similarity enlarges."""
    return float(np.hypot(matrix[0, 0], matrix[1, 0]))


def transform(matrix: Array, points: Array) -> Array:
    """Apply an affine map of shape (2, 3) to points of shape (n, 2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2])


def inside(matrix: Array, height: int, width: int, side: int) -> float:
    """Which share of the aligned square (side x side) shows the photo; the rest is reflected border.

    Args:
        matrix: photo → square.
        height: of the photo, pixels.
        width: of the photo, pixels.
        side: of the square, pixels.
    """
    ticks = (np.arange(32) + 0.5) * side / 32
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)
    back = np.linalg.inv(matrix[:, :2])
    x, y = ((grid - matrix[:, 2]) @ back.T).T
    return float(np.mean((x >= 0) & (x <= width) & (y >= 0) & (y <= height)))


def align(image: NDArray[np.uint8], matrix: Array, standard: int, size: int) -> NDArray[np.uint8]:
    """Warp a photo to the standard form, then shrink it to the training size; antialiased throughout.

    The warp samples single pixels, so a photo larger than the standard form is first shrunk by averaging.
    What lies outside the photo is its mirror image rather than black.

    Args:
        image: uint8, shape (H, W, 3).
        matrix: photo → standard form, shape (2, 3).
        standard: side of the standard form, pixels.
        size: side of the result, pixels, at most `standard`.

    Returns:
        uint8, shape (size, size, 3).
    """
    height, width = image.shape[:2]
    factor = min(scale(matrix), 1.0)
    small = (max(round(width * factor), 1), max(round(height * factor), 1))
    if factor < 1:
        image = np.asarray(cv2.resize(image, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    # Exact per-axis factors after rounding, so that the shrunk photo is not shifted by up to half a pixel.
    warp = matrix.copy()
    warp[:, :2] = matrix[:, :2] * [width / small[0], height / small[1]] if factor < 1 else matrix[:, :2]
    warp[:, 2] += warp[:, :2] @ [0.5, 0.5] - 0.5
    form = cv2.warpAffine(image, warp, (standard, standard), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    return resize(np.asarray(form, dtype=np.uint8), size)


def resize(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize a square picture: averaging when it shrinks (antialiased), cubic when it grows."""
    if image.shape[0] == size:
        return image
    how = cv2.INTER_AREA if image.shape[0] > size else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size, size), interpolation=how), dtype=np.uint8)


def centre_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The largest square in the middle of a picture of shape (H, W, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
