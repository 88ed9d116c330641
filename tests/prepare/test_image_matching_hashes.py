from collections.abc import Iterator

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from catsweep.prepare import image_matching
from catsweep.prepare.image_matching import (
    Hashes,
    Pairs,
    chance_limit,
    close_pairs,
    compared,
    distances,
    nearest_before,
)

BIT_SETS = st.lists(st.integers(0, 255), max_size=4).map(lambda bits: sum(1 << bit for bit in set(bits)))
FULL = (1 << 256) - 1
NUMBERS = st.one_of(BIT_SETS, BIT_SETS.map(lambda number: FULL ^ number), st.integers(0, FULL))
MANY = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few photos are several blocks."""
    monkeypatch.setattr(image_matching, "_BLOCK", 3)


def scene(seed: int, height: int = 120, width: int = 150) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC)


def hashes_of(numbers: list[tuple[int, int]], mirrored: bool = True) -> Hashes:
    plain, flipped = ([f"{pair[place]:064x}" for pair in numbers] for place in (0, 1))
    return Hashes.read(plain, flipped if mirrored else None)


def true_distance(one: tuple[int, int], other: tuple[int, int], mirrored: bool = True) -> int:
    found = [(one[0] ^ other[0]).bit_count()]
    if mirrored:
        found += [(one[1] ^ other[0]).bit_count(), (one[0] ^ other[1]).bit_count()]
    return min(found)


def in_blocks(pairs: list[tuple[int, int, int]], size: int) -> Iterator[Pairs]:
    for start in range(0, len(pairs) + 1, size):  # the last of them is empty
        first, second, distance = np.array(pairs[start : start + size], dtype=np.int64).reshape(-1, 3).T
        yield first, second, distance.astype(np.uint16)


@pytest.mark.parametrize("shape", [(64, 64), (33, 200), (301, 77)])
def test_the_hash_is_that_of_imagehash(shape: tuple[int, int]) -> None:
    image = Image.fromarray(scene(1, *shape))
    plain, mirrored = image_matching.phash(np.asarray(image))
    assert plain == str(imagehash.phash(image, hash_size=16))
    # Mirrored after it was shrunk instead of before: the same but for rounding.
    assert imagehash.hex_to_hash(mirrored) - imagehash.phash(ImageOps.mirror(image), hash_size=16) <= 6


def test_distances_are_those_of_imagehash() -> None:
    found = [image_matching.phash(scene(seed)) for seed in range(4)]
    ours = distances(*[Hashes.read([plain for plain, _ in found], None)] * 2)
    theirs = [imagehash.hex_to_hash(plain) for plain, _ in found]
    assert ours.tolist() == [[one - other for other in theirs] for one in theirs]


@given(MANY, st.integers(0, 256), st.booleans())
def test_all_close_pairs_are_found_once(numbers: list[tuple[int, int]], limit: int, mirrored: bool) -> None:
    blocks = list(close_pairs(hashes_of(numbers, mirrored), limit))
    found = [tuple(map(int, pair)) for block in blocks for pair in zip(*block, strict=True)]
    expected = {
        (i, j, true_distance(one, other, mirrored))
        for j, other in enumerate(numbers)
        for i, one in enumerate(numbers[:j])
        if true_distance(one, other, mirrored) <= limit
    }
    assert len(found) == len(set(found))
    assert set(found) == expected


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8))
def test_photos_are_compared_one_by_one(rows: list[tuple[int, int, int, int]]) -> None:
    one, other = [row[:2] for row in rows], [row[2:] for row in rows]
    found, flipped = compared(hashes_of(one), hashes_of(other))
    assert found.tolist() == [true_distance(*pair) for pair in zip(one, other, strict=True)]
    plain = [true_distance(*pair, mirrored=False) for pair in zip(one, other, strict=True)]
    assert flipped.tolist() == [mine > least for mine, least in zip(plain, found.tolist(), strict=True)]
    unflipped, never = compared(hashes_of(one, mirrored=False), hashes_of(other, mirrored=False))
    assert unflipped.tolist() == plain
    assert not never.any()


PAIRS = st.lists(st.tuples(st.integers(0, 7), st.integers(8, 14), st.integers(0, 3)), max_size=40)


@given(PAIRS, st.integers(1, 9), st.integers(1, 4))
def test_the_nearest_come_before_and_the_first_of_equals_wins(
    pairs: list[tuple[int, int, int]], size: int, count: int
) -> None:
    pairs = list({(one, other): (one, other, far) for one, other, far in pairs}.values())
    found = list(zip(*(some.tolist() for some in nearest_before(in_blocks(pairs, size), count)), strict=True))
    expected = []
    for photo in range(15):
        nearest = sorted((far, one) for one, other, far in pairs if other == photo)[:count]
        expected += [(one, photo, far) for far, one in nearest]
    assert found == expected


def test_a_thousand_equal_photos_take_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_matching, "_BLOCK", 64)
    first, second, far = nearest_before(close_pairs(hashes_of([(5, 7)] * 1000), 0), 4)
    assert len(first) == len(second) == 4 * 996 + 3 + 2 + 1
    assert not far.any()
    assert np.all(first < second)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=9), st.floats(0, 3), st.integers(0, 90))
def test_the_limit_leaves_few_pairs_by_chance(numbers: list[tuple[int, int]], share: float, least: int) -> None:
    limit = chance_limit(hashes_of(numbers), share, least, 90)
    decoys = [(one[1] ^ other[0]).bit_count() for j, other in enumerate(numbers) for one in numbers[:j]]

    def by_chance(far: int) -> int:
        return sum(decoy <= far for decoy in decoys)

    assert least <= limit <= 90
    assert limit == least or by_chance(limit) <= share * len(numbers)
    assert limit == 90 or by_chance(limit + 1) > share * len(numbers)


def test_the_more_photos_are_alike_the_closer_they_have_to_be() -> None:
    """Half of the bits are those of the whole set in the second, as of faces that are brought to one place."""
    random = np.random.default_rng(0)
    limits = []
    for common in (0, 128):
        bits = random.integers(0, 2, (300, 2, 256))
        bits[:, :, :common] = 0
        numbers = [tuple(int("".join(map(str, side)), 2) for side in photo) for photo in bits.tolist()]
        limits.append(chance_limit(hashes_of(numbers), 0.25, 0, 128))
    assert limits[0] > 90
    assert limits[1] < 50
