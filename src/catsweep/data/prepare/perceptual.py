"""Perceptual hashes: 256 bits by which photos of one scene are known again, however they were saved.

Pure arithmetic for stage `duplicates`. The hash is that of `imagehash.phash` (the signs, about their median, of the
16 x 16 lowest frequencies of the photo's brightness); the distance of two photos is the number of bits in which theirs
differ, about 128 for photos that have nothing to do with each other. All pairs are compared: the 50 million pairs of
10,000 photos take a core less than a second, and twice as long if mirrored ones are looked for.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from catsweep.data.threads import in_order

BITS = 256
UNRELATED = BITS // 2  # distance at which two hashes tell nothing of each other
_SIDE = 64  # imagehash works on four times its 16 frequencies
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

    @property
    def unmirrored(self) -> "Hashes":
        """The photos as they are."""
        return Hashes(self.plain, None)

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
    small = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
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


def components(n: int, pairs: Iterable[Pairs]) -> Places:
    """Union-find: the first photo of those that are joined by pairs, for each of n photos; shape (n,)."""
    first = np.arange(n)
    waiting: list[Pairs] = []
    for found in pairs:
        waiting.append(found)
        if sum(len(some[0]) for some in waiting) > max(n, _BLOCK * _BLOCK):  # so that memory is bounded
            first, waiting = _joined(first, waiting), []
    return _joined(first, waiting)


def nearest_before(n: int, pairs: Iterable[Pairs]) -> tuple[Places, NDArray[np.uint16]]:
    """The nearest of the photos that come before it, for each of n photos, and its distance.

    Returns:
        Places, -1 if there is no such pair, and distances, 0 then; shapes (n,). Of several equally near, the first.
    """
    best = np.full(n, np.iinfo(np.int64).max)
    for first, second, distance in pairs:
        np.minimum.at(best, second, distance.astype(np.int64) * n + first)
    found = best < np.iinfo(np.int64).max
    return np.where(found, best % max(n, 1), -1), np.where(found, best // max(n, 1), 0).astype(np.uint16)


def _joined(first: Places, pairs: Sequence[Pairs]) -> Places:
    n = len(first)
    if not any(len(some[0]) for some in pairs):
        return first
    one = np.concatenate([np.arange(n), *(some[0] for some in pairs)])
    other = np.concatenate([first, *(some[1] for some in pairs)])
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(n, n))
    labels = connected_components(graph, directed=False)[1]
    return np.asarray(np.unique(labels, return_index=True)[1][labels])


def _differing(one: Words, other: Words) -> NDArray[np.uint16]:
    """Bits that differ; of shapes (…, 4), which are broadcast, (…) is left. Word by word, to save memory."""
    first, second, third, fourth = (np.bitwise_count(one[..., word] ^ other[..., word]) for word in range(4))
    return np.asarray(np.add(first + second, third + fourth, dtype=np.uint16))  # in 8 bits, 256 would be 0


def _words(numbers: Sequence[str]) -> Words:
    return np.frombuffer(bytes.fromhex("".join(numbers)), np.uint64).reshape(-1, BITS // 64)
