"""Perceptual hashes: 256 bits by which photos of one scene are known again, however they were saved.

Pure arithmetic for stage `duplicates`. The hash is that of `imagehash.phash` (the signs, about their median, of the
16 x 16 lowest frequencies of the photo's brightness); the distance of two photos is the number of bits in which theirs
differ, about 128 for photos that have nothing to do with each other, and less where all are alike, as aligned faces
are. So hashes only say which photos to compare by their pixels (`catsweep.data.prepare.registration`). All pairs of
hashes are looked at: the 50 million pairs of 10,000 photos take a core less than a second, three with mirrored ones.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from catsweep.data.threads import in_order

BITS = 256
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
