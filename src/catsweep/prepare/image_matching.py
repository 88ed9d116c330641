"""Image matching for stage `duplicates`: perceptual hashes, keypoints and registration.

- Hashes (`imagehash.phash`, 256 bits) and keypoints (SIFT: Lowe, IJCV 2004; RootSIFT: Arandjelović and Zisserman, CVPR
  2012) propose pairs. Hashes of unrelated photos differ in about 128 bits, in less where all are alike; all pairs are
  compared, 50 million in a second. Keypoints find crops: each is hashed to 64 bits and looked up in tables, so that the
  cost grows with the number of photos and not of pairs.
- Pixels decide (`match`). Photos are aligned edge on edge (a resized copy) and keypoint on keypoint (a crop) and
  refined (ECC: Evangelidis and Psarakis, PAMI 2008); then squares of 1/12 of the crop's side are correlated: light and
  contrast do not matter, and a caption spoils only the squares that it covers.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.linalg import hadamard

from catsweep.data.threads import in_order
from catsweep.prepare.image_files import Pixels, shrunk

BITS = 256
_HASH_SIDE = 64  # imagehash works on four times its 16 frequencies
_BLOCK = 512  # photos a side: what is worked on fits into a core's cache

Words = NDArray[np.uint64]
Places = NDArray[np.intp]
Pairs = tuple[Places, Places, NDArray[np.uint16]]


@dataclass(frozen=True)
class Hashes:
    """Hashes of n photos and (None: not looked for) of their mirror images, shape (n, 4) each."""

    plain: Words
    mirrored: Words | None

    @classmethod
    def read(cls, plain: Sequence[str], mirrored: Sequence[str] | None) -> "Hashes":
        """Parse the hexadecimal numbers of `phash`."""
        return cls(_words(plain), None if mirrored is None else _words(mirrored))

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: Any) -> "Hashes":
        return Hashes(self.plain[index], None if self.mirrored is None else self.mirrored[index])


def phash(image: NDArray[np.uint8]) -> tuple[str, str]:
    """Hash a photo, uint8 (H, W, 3), and its mirror image: 64 hexadecimal digits each, equal to `imagehash.phash`."""
    small = Image.fromarray(image).convert("L").resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
    plain, mirrored = (imagehash.phash(picture, hash_size=16) for picture in (small, ImageOps.mirror(small)))
    return str(plain), str(mirrored)


def distances(one: Hashes, other: Hashes) -> NDArray[np.uint16]:
    """Compute the distances of n photos from m others, or their mirror images if nearer; shape (n, m)."""
    return compared(one[:, None], other[None])[0]


def compared(one: Hashes, other: Hashes) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Compute the distances of photos from others in the same places, and whether to their mirror images; (n,) each."""
    plain = _differing(one.plain, other.plain)
    if one.mirrored is None or other.mirrored is None:
        return plain, np.zeros(plain.shape, bool)
    # Both ways, for rounding makes them differ by a bit or two, and which photo comes first must not matter.
    flipped = np.minimum(_differing(one.mirrored, other.plain), _differing(one.plain, other.mirrored))
    return np.minimum(plain, flipped), flipped < plain


def close_pairs(hashes: Hashes, limit: int) -> Iterator[Pairs]:
    """Find all pairs at a distance of at most `limit`, on all cores: places i < j, and their distances.

    Yields one block of photos against another at a time; its pairs take less than 5 MB.
    """

    def block(corner: tuple[int, int]) -> Pairs:
        top, left = corner
        found = distances(hashes[top : top + _BLOCK], hashes[left : left + _BLOCK])
        row, column = np.nonzero(found <= limit)
        first, second = row + top, column + left
        once = first < second
        return first[once], second[once], found[row[once], column[once]]

    yield from in_order(block, _corners(len(hashes)))


def chance_limit(hashes: Hashes, share: float, least: int, most: int) -> int:
    """Estimate the distance, from `least` to `most`, up to which at most `share` pairs per photo are close by chance.

    Decoys are pairs of a photo and the mirror image of another: as alike as any two photos of the set, but hardly ever
    copies (Elias and Gygi, "Target-decoy search strategy", Nature Methods 2007).
    """
    assert hashes.mirrored is not None
    mirrored = hashes.mirrored

    def block(corner: tuple[int, int]) -> NDArray[np.int64]:
        top, left = corner
        found = _differing(mirrored[top : top + _BLOCK, None], hashes.plain[None, left : left + _BLOCK])
        first = np.arange(top, top + found.shape[0])[:, None]
        second = np.arange(left, left + found.shape[1])[None]
        return np.bincount(found[(first < second) & (found <= most)], minlength=most + 1)

    counts = sum(in_order(block, _corners(len(hashes))), np.zeros(most + 1, np.int64))
    return max(least, int(np.searchsorted(np.cumsum(counts), share * len(hashes), side="right")) - 1)


def nearest_before(pairs: Iterable[Pairs], count: int) -> Pairs:
    """Select the pairs of each photo with the nearest `count` before it, by second photo, distance and first."""
    best: Pairs = (np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint16))
    for some in pairs:
        first, second = np.concatenate([best[0], some[0]]), np.concatenate([best[1], some[1]])
        distance = np.concatenate([best[2], some[2]])
        order = np.lexsort((first, distance, second))
        first, second, distance = first[order], second[order], distance[order]
        near = np.arange(len(second)) - np.searchsorted(second, second, side="left") < count
        best = first[near], second[near], distance[near]
    return best


def _corners(n: int) -> Iterator[tuple[int, int]]:
    return ((top, left) for top in range(0, n, _BLOCK) for left in range(top, n, _BLOCK))


def _differing(one: Words, other: Words) -> NDArray[np.uint16]:
    """Count the bits that differ, of broadcast shapes (…, 4): (…). Word by word, to save memory."""
    first, second, third, fourth = (np.bitwise_count(one[..., word] ^ other[..., word]) for word in range(4))
    return np.asarray(np.add(first + second, third + fourth, dtype=np.uint16))  # in 8 bits, 256 would be 0


def _words(numbers: Sequence[str]) -> Words:
    return np.frombuffer(bytes.fromhex("".join(numbers)), np.uint64).reshape(-1, BITS // 64)


SKETCH_SIDE = 160  # of the photo that is sketched, at most, pixels
_SKETCHED = 48  # keypoints of a photo, the strongest
_TABLES, _BITS = 3, 21  # in each table keypoints meet that have these bits in common
_MEET = 16  # with so many that come before it in a table
_DIFFERING = 8  # bits of two sketches of one patch, at most
_IN_COMMON = 2  # keypoints of two photos worth a closer look
_RATIO = 0.72  # of the distances to the nearest and the second: a match that might as well be another is none
_REPROJECTION = 4  # pixels from where the transform says a keypoint should be
_INLIERS = 4

# A descriptor's sums of some of its numbers less the others; about half of them are positive.
_PLANES = np.asarray(hadamard(128)[:, 1:65], np.float32)


@dataclass(frozen=True)
class Keypoints:
    """Keypoints of one photo, the strongest first."""

    places: NDArray[np.float64]  # float64, shape (n, 2): x and y in pixels, counted from the centre of the first
    descriptors: NDArray[np.float32]  # float32, shape (n, 128), of length 1


def find_keypoints(grey: Pixels, most: int) -> Keypoints:
    """Find keypoints in a grey photo of shape (H, W), at most so many; the same on every number of threads."""
    found, raw = cv2.SIFT.create(contrastThreshold=0.02).detectAndCompute(grey, None)
    if raw is None:
        return Keypoints(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    strongest = sorted(range(len(found)), key=lambda row: (-found[row].response, found[row].pt, row))[:most]
    chosen = np.asarray(raw[strongest], np.float32)
    chosen = np.sqrt(chosen / np.maximum(chosen.sum(axis=1, keepdims=True), 1e-9))
    return Keypoints(np.array([found[row].pt for row in strongest], np.float64), chosen)


def sketch(grey: Pixels) -> str:
    """Sketch a photo's keypoints: 8 bytes each, in base64."""
    signs = find_keypoints(shrunk(grey, SKETCH_SIDE), _SKETCHED).descriptors @ _PLANES > 0
    return base64.b64encode(np.packbits(signs, axis=1).tobytes()).decode()


def shared_keypoints(sketches: Sequence[str]) -> Pairs:
    """Find pairs of photos with common keypoints, by their sketches: places i < j, and how many they share."""
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


def estimate_similarity(one: Keypoints, other: Keypoints) -> NDArray[np.float64] | None:
    """Estimate rotation, scale and shift from the keypoints of `other` to those of `one`, (2, 3), or None."""
    if len(one.places) < _INLIERS or len(other.places) < _INLIERS:
        return None
    alike = other.descriptors @ one.descriptors.T
    nearest = np.argsort(-alike, axis=1, kind="stable")[:, :2]
    first, second = np.take_along_axis(2 - 2 * alike, nearest, axis=1).T
    clear = first < _RATIO * second
    if clear.sum() < _INLIERS:
        return None
    source, target = other.places[clear], one.places[nearest[clear, 0]]
    matrix, inliers = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION
    )
    return None if matrix is None or inliers.sum() < _INLIERS else np.asarray(matrix, np.float64)


def _meetings(word: NDArray[np.uint64], shift: np.uint64) -> NDArray[np.int64]:
    """Find pairs of alike sketches that share the bits from `shift` on: places i < j, as i · n + j."""
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


_MATCH_SIDE = 192  # of the photos that are compared, at most, pixels
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
    """Photo prepared for `match`: shrunk, grey, with its keypoints (None if they are not wanted)."""

    grey: Pixels
    points: Keypoints | None

    @classmethod
    def of(cls, image: Pixels, with_keypoints: bool) -> "View":
        """Prepare a photo, uint8 (H, W, 3), RGB."""
        grey = shrunk(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), _MATCH_SIDE)
        return cls(grey, find_keypoints(grey, _KEYPOINTS) if with_keypoints else None)

    def mirrored(self) -> "View":
        """Mirror the photo; its keypoints get other descriptors."""
        grey = np.ascontiguousarray(self.grey[:, ::-1])
        return View(grey, None if self.points is None else find_keypoints(grey, _KEYPOINTS))


@dataclass(frozen=True)
class Match:
    """Agreement of two photos, the share of equal squares in their common part, and its share of either's area."""

    agreement: float = 0.0
    of_one: float = 0.0
    of_other: float = 0.0


def match(one: View, other: View) -> Match:
    """Compare two photos, aligned in the way in which they agree most."""
    (height, width), (other_height, other_width) = one.grey.shape, other.grey.shape
    best = _laid(one.grey, other.grey, _scaling(width / other_width, height / other_height), refine=True)
    if best.agreement < _SETTLED and one.points is not None and other.points is not None:
        matrix = estimate_similarity(one.points, other.points)
        if matrix is not None:
            best = max(best, _laid(one.grey, other.grey, matrix, refine=False), key=lambda found: found.agreement)
    return best


def _scaling(across: float, down: float) -> Matrix:
    """Return the matrix, (2, 3), that scales pixels counted from the centre of the first."""
    return np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2]])


def _laid(one: Pixels, other: Pixels, matrix: Matrix, refine: bool) -> Match:
    """Match grey photos if `matrix` (2, 3) maps `other` to `one`; `refine` it even if hardly anything fits."""
    area = abs(float(np.linalg.det(matrix[:, :2])))
    if not 1 / 400 < area < 400:
        return Match()
    if area * other.size > one.size:
        inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
        fits = _fitted(other, one, inverse, refine)
        return Match(fits.agreement, fits.of_other, fits.of_one)
    return _fitted(one, other, matrix, refine)


def _fitted(large: Pixels, small: Pixels, matrix: Matrix, refine: bool) -> Match:
    """Match a photo and one that covers less of the scene; see `_laid`."""
    height, width = small.shape
    scale = _RASTER / max(height, width)
    size = max(_SQUARE, round(width * scale)), max(_SQUARE, round(height * scale))
    to_small = _scaling(width / size[0], height / size[1])
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
    """Shrink an image until a pixel of the raster has about `finest` pixels a side; return it and the matrix to it."""
    factor = finest / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if factor >= 1:
        return image, matrix
    size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    scaling = _scaling(across, down)
    moved = scaling[:, :2] @ matrix + scaling * [0, 0, 1]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8), moved


def _refined(base: Pixels, image: Pixels, matrix: Matrix) -> Matrix:
    """Refine the matrix by ECC; return it as it is where that does not converge."""
    try:
        _, better = cv2.findTransformECC(base, image, matrix.astype(np.float32), cv2.MOTION_AFFINE, _REFINE)
    except cv2.error:  # the two have nothing in common
        return matrix
    return np.asarray(better, np.float64)


def _raster(image: Pixels, matrix: Matrix, size: tuple[int, int]) -> tuple[Pixels, NDArray[np.bool_]]:
    """Warp an image to the raster, a little blurred; return it and where the raster lies within the image."""
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(image, matrix, size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.full(image.shape, 255, np.uint8), matrix, size, flags=how)
    return np.asarray(cv2.GaussianBlur(moved, (0, 0), 1.0), np.uint8), np.asarray(inside > 250)


def _agreement(one: Pixels, other: Pixels, inside: NDArray[np.bool_]) -> float:
    """Compute the share of correlating squares among those with texture in either image."""
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
    """Cut an image (H, W) into squares, one a row: shape (n, side²)."""
    down, across = image.shape[0] // _SQUARE, image.shape[1] // _SQUARE
    cut = image[: down * _SQUARE, : across * _SQUARE].reshape(down, _SQUARE, across, _SQUARE)
    return cut.swapaxes(1, 2).reshape(down * across, -1)
