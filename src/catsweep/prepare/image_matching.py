"""Perceptual hashes: 256 bits by which photos of one scene are known again, however they were saved.

Pure arithmetic for stage `duplicates`. The hash is that of `imagehash.phash` (the signs, about their median, of the
16 x 16 lowest frequencies of the photo's brightness); the distance of two photos is the number of bits in which theirs
differ, about 128 for photos that have nothing to do with each other, and less where all are alike, as aligned faces
are. So hashes only say which photos to compare by their pixels (`catsweep.prepare.image_matching`). All pairs of
hashes are looked at: the 50 million pairs of 10,000 photos take a core less than a second, three with mirrored ones.

Keypoints: small patches by which a part of a photo is known again, wherever it lies in another one.

Stage `duplicates` finds crops with them, which no hash of a whole photo can. The keypoints are those of SIFT (Lowe,
"Distinctive image features from scale-invariant keypoints", IJCV 2004) with the descriptors of RootSIFT (Arandjelović
and Zisserman, CVPR 2012). To find out which photos have some in common, each is sketched in 64 bits, and those are
looked up in tables, so that the cost grows with the number of photos and not of pairs: a photo takes 6 ms to sketch,
and 10,000 of them take a few seconds to look up.

Registration: lay one photo on another, and see how much of the picture is the same.

Stage `duplicates` has candidates by their hashes and keypoints; whether they are copies is decided here, by pixels. Two
photos are laid on each other in two ways, edge on edge (a copy that was resized) and keypoint on keypoint (a crop),
then moved by fractions of a pixel until they fit best (Evangelidis and Psarakis, "Parametric image alignment using
enhanced correlation coefficient maximization", PAMI 2008). Where both have something to show, squares of 1/12 of the
crop's side are correlated: light and contrast do not matter, a caption spoils only the squares that it covers, and of
another shot of the same cat many squares differ.
"""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
    """Hashes of n photos.

    Attributes:
        plain: shape (n, 4).
        mirrored: of the photos' mirror images, the same shape; None: mirrored copies are not looked for.
    """

    plain: Words
    mirrored: Words | None

    @classmethod
    def read(cls, plain: Sequence[str], mirrored: Sequence[str] | None) -> "Hashes":
        """From the hexadecimal numbers that `phash` gives."""
        return cls(_words(plain), None if mirrored is None else _words(mirrored))

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, places: slice | Places) -> "Hashes":
        return Hashes(self.plain[places], None if self.mirrored is None else self.mirrored[places])


def phash(image: NDArray[np.uint8]) -> tuple[str, str]:
    """Hash a photo and its mirror image.

    Args:
        image: uint8, shape (H, W, 3), RGB.

    Returns:
        Two hexadecimal numbers of 64 digits. The photo is shrunk once, in the same way as `imagehash` would do it.
    """
    small = Image.fromarray(image).convert("L").resize((_HASH_SIDE, _HASH_SIDE), Image.Resampling.LANCZOS)
    plain, mirrored = (imagehash.phash(picture, hash_size=16) for picture in (small, ImageOps.mirror(small)))
    return str(plain), str(mirrored)


def distances(one: Hashes, other: Hashes) -> NDArray[np.uint16]:
    """How far each of n photos is from each of m others, or from its mirror image if that is nearer; shape (n, m)."""
    found = _differing(one.plain[:, None], other.plain[None])
    if one.mirrored is not None and other.mirrored is not None:
        # Both ways, for rounding makes them differ by a bit or two, and which photo comes first must not matter.
        np.minimum(found, _differing(one.mirrored[:, None], other.plain[None]), out=found)
        np.minimum(found, _differing(one.plain[:, None], other.mirrored[None]), out=found)
    return found


def compared(one: Hashes, other: Hashes) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Distance of n photos from n others, one by one, and whether it is that of a mirror image; shapes (n,)."""
    plain = _differing(one.plain, other.plain)
    if one.mirrored is None or other.mirrored is None:
        return plain, np.zeros(len(plain), bool)
    flipped = np.minimum(_differing(one.mirrored, other.plain), _differing(one.plain, other.mirrored))
    return np.minimum(plain, flipped), flipped < plain


def close_pairs(hashes: Hashes, limit: int) -> Iterator[Pairs]:
    """Find all pairs at a distance of at most `limit`, on all cores.

    Yields:
        For one block of photos against another: places i and j of the pairs, i < j, and their distances. A block's
        pairs take less than 5 MB, however many photos there are and however alike.
    """
    starts = range(0, len(hashes), _BLOCK)

    def block(corner: tuple[int, int]) -> Pairs:
        top, left = corner
        found = distances(hashes[top : top + _BLOCK], hashes[left : left + _BLOCK])
        row, column = np.nonzero(found <= limit)
        first, second = row + top, column + left
        once = first < second
        return first[once], second[once], found[row[once], column[once]]

    yield from in_order(block, ((top, left) for top in starts for left in starts if left >= top))


def chance_limit(hashes: Hashes, share: float, least: int, most: int) -> int:
    """The distance up to which it is worth looking at pairs, which depends on how alike the photos of a set are.

    How many pairs are that close by chance is told by pairs of a photo and the mirror image of another: such a pair is
    as alike as any two photos of the set, but next to never shows the same (decoys; Elias and Gygi, "Target-decoy
    search strategy", Nature Methods 2007, who count false matches in this way).

    Args:
        hashes: with those of the mirror images.
        share: at most so many pairs by chance, as a multiple of the number of photos.
        least: the answer is at least this,
        most: and at most this.
    """
    assert hashes.mirrored is not None
    mirrored = hashes.mirrored

    def block(corner: tuple[int, int]) -> NDArray[np.int64]:
        top, left = corner
        found = _differing(mirrored[top : top + _BLOCK, None], hashes.plain[None, left : left + _BLOCK])
        first = np.arange(top, top + found.shape[0])[:, None]
        second = np.arange(left, left + found.shape[1])[None]
        return np.bincount(found[(first < second) & (found <= most)], minlength=most + 1)

    starts = range(0, len(hashes), _BLOCK)
    counts = np.zeros(most + 1, np.int64)
    for some in in_order(block, ((top, left) for top in starts for left in starts if left >= top)):
        counts += some
    return max(least, int(np.searchsorted(np.cumsum(counts), share * len(hashes), side="right")) - 1)


def nearest_before(pairs: Iterable[Pairs], count: int) -> Pairs:
    """Of all pairs, those of each photo with the nearest that come before it, at most `count` of them.

    Returns:
        The pairs by their second photo, then by distance, then by their first. Memory is bounded by the answer and
        one block of pairs.
    """
    best: Pairs = (np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0, np.uint16))
    for some in pairs:
        first, second = np.concatenate([best[0], some[0]]), np.concatenate([best[1], some[1]])
        distance = np.concatenate([best[2], some[2]])
        order = np.lexsort((first, distance, second))
        first, second, distance = first[order], second[order], distance[order]
        begin = np.searchsorted(second, second, side="left")
        near = np.arange(len(second)) - begin < count
        best = first[near], second[near], distance[near]
    return best


def _differing(one: Words, other: Words) -> NDArray[np.uint16]:
    """Bits that differ; of shapes (…, 4), which are broadcast, (…) is left. Word by word, to save memory."""
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
    """Of one photo, the strongest first.

    Attributes:
        places: float64, shape (n, 2): x and y in pixels, counted from the centre of the first.
        descriptors: float32, shape (n, 128), of length 1.
    """

    places: NDArray[np.float64]
    descriptors: NDArray[np.float32]


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
    """What a photo's keypoints are remembered by: 8 bytes each, in base64."""
    signs = find_keypoints(shrunk(grey, SKETCH_SIDE), _SKETCHED).descriptors @ _PLANES > 0
    return base64.b64encode(np.packbits(signs, axis=1).tobytes()).decode()


def shared_keypoints(sketches: Sequence[str]) -> Pairs:
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


def estimate_similarity(one: Keypoints, other: Keypoints) -> NDArray[np.float64] | None:
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
    matrix, inliers = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=_REPROJECTION
    )
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
    """A photo made ready to be compared: shrunk, grey, with its keypoints (none if they are not wanted)."""

    grey: Pixels
    points: Keypoints | None

    @classmethod
    def of(cls, image: Pixels, with_keypoints: bool) -> "View":
        """Of a photo, uint8, shape (H, W, 3), RGB."""
        grey = shrunk(np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8), _MATCH_SIDE)
        return cls(grey, find_keypoints(grey, _KEYPOINTS) if with_keypoints else None)

    def mirrored(self) -> "View":
        """Its mirror image, whose keypoints have other descriptors."""
        grey = np.ascontiguousarray(self.grey[:, ::-1])
        return View(grey, None if self.points is None else find_keypoints(grey, _KEYPOINTS))


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
        matrix = estimate_similarity(one.points, other.points)
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
