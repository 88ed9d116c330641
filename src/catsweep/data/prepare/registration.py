"""Registration: lay one photo on another, and see how much of the picture is the same.

Stage `duplicates` has candidates by their hashes and keypoints; whether they are copies is decided here, by pixels. Two
photos are laid on each other in two ways, edge on edge (a copy that was resized) and keypoint on keypoint (a crop),
then moved by fractions of a pixel until they fit best (Evangelidis and Psarakis, "Parametric image alignment using
enhanced correlation coefficient maximization", PAMI 2008). Where both have something to show, squares of 1/12 of the
crop's side are correlated: light and contrast do not matter, a caption spoils only the squares that it covers, and of
another shot of the same cat many squares differ.
"""

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data.prepare.images import Pixels
from catsweep.data.prepare.keypoints import Keypoints, keypoints, shrunk, similarity

_SIDE = 192  # of the photos that are compared, at most, pixels
_KEYPOINTS = 200
_RASTER, _SQUARE = 96, 8  # what squares are counted on: longer side of the smaller photo, and side of a square, pixels
_SAME = 0.9  # correlation of a square that shows the same
_TEXTURE = 3.0  # levels of grey by which the pixels of a square must differ, as a standard deviation
_SQUARES = 6  # with fewer that show something, nothing can be said
_HOPELESS = 0.1  # agreement, keypoint on keypoint, that no fractions of a pixel will mend
_SETTLED = 0.9  # agreement with which no other way has to be tried
_REFINE = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A photo made ready to be compared: shrunk, grey, with its keypoints (none if they are not wanted)."""

    grey: Pixels
    points: Keypoints | None

    @classmethod
    def of(cls, image: Pixels, with_keypoints: bool) -> "View":
        """Of a photo, uint8, shape (H, W, 3), RGB."""
        grey = shrunk(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), _SIDE)[0]
        return cls(grey, keypoints(grey, _KEYPOINTS) if with_keypoints else None)

    def mirrored(self) -> "View":
        """Its mirror image, whose keypoints have other descriptors."""
        grey = np.ascontiguousarray(self.grey[:, ::-1])
        return View(grey, None if self.points is None else keypoints(grey, _KEYPOINTS))


@dataclass(frozen=True)
class Match:
    """How two photos fit.

    Attributes:
        agreement: share of the squares in the common part that show the same, 0 to 1.
        of_one: share of the first photo's area that is in the common part.
        of_other: the same of the second.
    """

    agreement: float = 0.0
    of_one: float = 0.0
    of_other: float = 0.0

    def swapped(self) -> "Match":
        """As seen from the other photo."""
        return replace(self, of_one=self.of_other, of_other=self.of_one)


def match(one: View, other: View) -> Match:
    """Compare two photos, and take the way of laying them on each other in which they agree most."""
    best = _laid(one.grey, other.grey, _edge_on_edge(one.grey, other.grey), refine=True)
    if best.agreement < _SETTLED and one.points is not None and other.points is not None:
        matrix = similarity(one.points, other.points)
        if matrix is not None:
            best = max(best, _laid(one.grey, other.grey, matrix, refine=False), key=lambda found: found.agreement)
    return best


def _edge_on_edge(one: Pixels, other: Pixels) -> Matrix:
    across, down = one.shape[1] / other.shape[1], one.shape[0] / other.shape[0]
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def _laid(one: Pixels, other: Pixels, matrix: Matrix, refine: bool) -> Match:
    """How they fit if `matrix` (2, 3) takes places in `other` to places in `one`.

    Args:
        one: grey, shape (H, W).
        other: the same.
        matrix: from one to the other.
        refine: look for a better matrix also if hardly anything fits with this one.
    """
    area = abs(float(np.linalg.det(matrix[:, :2])))
    if not 1 / 400 < area < 400:
        return Match()
    if area * other.size > one.size:
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        return _fitted(other, one, inverse, refine).swapped()
    return _fitted(one, other, matrix, refine)


def _fitted(large: Pixels, small: Pixels, matrix: Matrix, refine: bool) -> Match:
    """The same, of a photo and one that covers less of the scene."""
    height, width = small.shape
    scale = _RASTER / max(height, width)
    size = max(_SQUARE, round(width * scale)), max(_SQUARE, round(height * scale))
    across, down = width / size[0], height / size[1]
    to_small = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])
    to_large = matrix @ np.vstack([to_small, [0, 0, 1]])
    # Of both only what the coarser one can show.
    finest = min(1.0, 1 / scale, float(np.sqrt(abs(np.linalg.det(to_large[:, :2])))))
    base, _ = _raster(*_coarse(small, to_small, finest), size)
    coarse, begin = _coarse(large, to_large, finest)

    def laid(transform: Matrix) -> Match:
        image, inside = _raster(coarse, transform, size)
        of_large = float(inside.sum()) * abs(float(np.linalg.det(transform[:, :2]))) / coarse.size
        return Match(_agreement(base, image, inside), min(1.0, of_large), float(inside.mean()))

    found = laid(begin)
    if not refine and found.agreement < _HOPELESS:
        return found
    return max(found, laid(_refined(base, coarse, begin)), key=lambda fit: fit.agreement)


def _coarse(image: Pixels, matrix: Matrix, finest: float) -> tuple[Pixels, Matrix]:
    """An image shrunk so that a pixel of the raster has about `finest` pixels a side, and the matrix to it."""
    factor = finest / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if factor >= 1:
        return image, matrix
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    moved = np.diag([across, down]) @ matrix + np.array([[0, 0, (across - 1) / 2], [0, 0, (down - 1) / 2]])
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), moved


def _refined(base: Pixels, image: Pixels, matrix: Matrix) -> Matrix:
    """A matrix near this one by which the image fits the raster better; the same if there is none."""
    try:
        begin = matrix.astype(np.float32)
        _, better = cv2.findTransformECC(base, image, begin, cv2.MOTION_AFFINE, _REFINE)
    except cv2.error:  # it does not converge, for the two have nothing in common
        return matrix
    return np.asarray(better, np.float64)


def _raster(image: Pixels, matrix: Matrix, size: tuple[int, int]) -> tuple[Pixels, NDArray[np.bool_]]:
    """An image on the raster, a little blurred, and where the raster lies within the image."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(image, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(image.shape, 255, np.uint8), matrix, size, flags=how)
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), 1.0), np.uint8), np.asarray(inside > 250)


def _agreement(one: Pixels, other: Pixels, inside: NDArray[np.bool_]) -> float:
    """Share of the squares with texture, in one image or the other, that correlate."""
    whole = _squares(inside).all(axis=1)
    first, second = (_squares(image)[whole].astype(np.float32) for image in (one, other))
    first, second = (some - some.mean(axis=1, keepdims=True) for some in (first, second))
    spread, spread_2 = first.std(axis=1), second.std(axis=1)
    textured = np.maximum(spread, spread_2) > _TEXTURE
    if textured.sum() < _SQUARES:
        return 0.0
    correlation = (first * second).mean(axis=1) / np.maximum(spread * spread_2, 1e-6)
    return float((correlation[textured] > _SAME).mean())


def _squares(image: NDArray[Any]) -> NDArray[Any]:
    """The squares of an image (H, W), one a row: shape (n, side²)."""
    down, across = image.shape[0] // _SQUARE, image.shape[1] // _SQUARE
    cut = image[: down * _SQUARE, : across * _SQUARE].reshape(down, _SQUARE, across, _SQUARE)
    return cut.swapaxes(1, 2).reshape(down * across, -1)
