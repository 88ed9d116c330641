"""Keypoints: small patches by which a part of a photo is known again, wherever it lies in another one.

Stage `duplicates` finds crops with them, which no hash of a whole photo can. The keypoints are those of SIFT (Lowe,
"Distinctive image features from scale-invariant keypoints", IJCV 2004) with the descriptors of RootSIFT (Arandjelović
and Zisserman, CVPR 2012). To find out which photos have some in common, each is sketched in 64 bits, and those are
looked up in tables, so that the cost grows with the number of photos and not of pairs: a photo takes 6 ms to sketch,
and 10,000 of them take a few seconds to look up.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

from catsweep.data.prepare.images import Pixels
from catsweep.data.prepare.perceptual import Pairs

SIDE = 160  # of the photo that is sketched, at most, pixels
_SKETCHED = 48  # keypoints of a photo, the strongest
_TABLES, _BITS = 3, 21  # in each table keypoints meet that have these bits in common
_MEET = 16  # with so many that come before it in a table
_DIFFERING = 8  # bits of two sketches of one patch, at most
_IN_COMMON = 2  # keypoints of two photos worth a closer look
_RATIO = 0.72  # of the distances to the nearest and the second: a match that might as well be another is none
_NEAR = 4  # pixels from where the transform says a keypoint should be
_INLIERS = 4

# A descriptor's sums of some of its numbers less the others; about half of them are positive.
_PLANES = np.asarray(hadamard(128)[:, 1:65], np.float32)


@dataclass(frozen=True)
class Keypoints:
    """Of one photo, the strongest first.

    Attributes:
        places: float64, shape (n, 2): x and y in pixels, counted from the centre of the first.
        descriptors: float32, shape (n, 128), of length 1.
    """

    places: NDArray[np.float64]
    descriptors: NDArray[np.float32]


def keypoints(grey: Pixels, most: int) -> Keypoints:
    """Find keypoints in a grey photo of shape (H, W), at most so many; the same on every number of threads."""
    found, raw = cv2.SIFT.create(contrastThreshold=0.02).detectAndCompute(grey, None)
    if raw is None:
        return Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    strongest = sorted(range(len(found)), key=lambda row: (-found[row].response, found[row].pt, row))[:most]
    chosen = np.asarray(raw[strongest], np.float32)
    chosen = np.sqrt(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1e-9))
    return Keypoints(np.array([found[row].pt for row in strongest], np.float64), chosen)


def sketch(grey: Pixels) -> str:
    """What a photo's keypoints are remembered by: 8 bytes each, in base64."""
    signs = keypoints(shrunk(grey, SIDE)[0], _SKETCHED).descriptors @ _PLANES > 0
    return base64.b64encode(np.packbits(signs, axis=1).tobytes()).decode()


def shrunk(grey: Pixels, side: int) -> tuple[Pixels, float]:
    """A photo whose longer side is at most `side`, and how many times as large as before it is."""
    factor = side / max(grey.shape)
    if factor >= 1:
        return grey, 1.0
    size = max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor))
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8), factor


def in_common(sketches: Sequence[str]) -> Pairs:
    """Find photos that have keypoints in common.

    Args:
        sketches: of n photos, see `sketch`.

    Returns:
        Places i < j of pairs that may show the same, and how many keypoints they share.
    """
    words = [np.frombuffer(base64.b64decode(text), np.uint64) for text in sketches]
    photo = np.repeat(np.arange(len(words)), [len(some) for some in words])
    word = np.concatenate([*words, np.zeros(0, np.uint64)])
    met = [_meetings(word, np.uint64(table * _BITS)) for table in range(_TABLES)]
    once = np.unique(np.concatenate(met))  # two keypoints may meet in several tables
    one, other = photo[once // max(len(word), 1)], photo[once % max(len(word), 1)]
    ours = one != other  # a keypoint's place is that of its photo, too: one < other
    pairs, count = np.unique(one[ours] * len(words) + other[ours], return_counts=True)
    pairs, count = pairs[count >= _IN_COMMON], count[count >= _IN_COMMON]
    return pairs // max(len(words), 1), pairs % max(len(words), 1), count.astype(np.uint16)


def similarity(one: Keypoints, other: Keypoints) -> NDArray[np.float64] | None:
    """The turn, scale and shift from most keypoints of `other` to those of `one`, shape (2, 3); None: there is none."""
    if len(one.places) < _INLIERS or len(other.places) < _INLIERS:
        return None
    alike = other.descriptors @ one.descriptors.T
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :2]
    first, second = np.take_along_axis(2 - 2 * alike, nearest, axis=1).T
    clear = first < _RATIO * second
    if clear.sum() < _INLIERS:
        return None
    source, target = other.places[clear], one.places[nearest[clear, 0]]
    matrix, inliers = cv2.estimateAffinePartial2D(source, target, method=cv2.RANSAC, ransacReprojThreshold=_NEAR)
    return None if matrix is None or inliers.sum() < _INLIERS else np.asarray(matrix, np.float64)


def _meetings(word: NDArray[np.uint64], shift: np.uint64) -> NDArray[np.int64]:
    """Pairs of alike sketches that share the bits from `shift` on: places i < j, as i · n + j."""
    key = (word >> shift) & np.uint64((1 << _BITS) - 1)
    order = np.argsort(key, kind="stable")
    key, n = key[order], len(word)
    found = [np.zeros(0, np.int64)]
    for step in range(1, _MEET + 1):
        same = np.flatnonzero(key[step:] == key[:-step])
        one, other = order[same], order[same + step]
        alike = np.bitwise_count(word[one] ^ word[other]) <= _DIFFERING
        found.append(one[alike].astype(np.int64) * n + other[alike])
    return np.concatenate(found)
