from collections.abc import Iterator

import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from catsweep.data.prepare import perceptual
from catsweep.data.prepare.perceptual import Hashes, Pairs, close_pairs, compared, components, distances, nearest_before

BIT_SETS = st.lists(st.integers(0, 255), max_size=4).map(lambda bits: sum(1 << bit for bit in set(bits)))
FULL = (1 << 256) - 1
NUMBERS = st.one_of(BIT_SETS, BIT_SETS.map(lambda number: FULL ^ number), st.integers(0, FULL))
MANY = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few photos are several blocks."""
    monkeypatch.setattr(perceptual, "_BLOCK", 3)


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
    plain, mirrored = perceptual.phash(np.asarray(image))
    assert plain == str(imagehash.phash(image, hash_size=16))
    # Mirrored after it was shrunk instead of before: the same but for rounding.
    assert imagehash.hex_to_hash(mirrored) - imagehash.phash(ImageOps.mirror(image), hash_size=16) <= 6


def test_distances_are_those_of_imagehash() -> None:
    found = [perceptual.phash(scene(seed)) for seed in range(4)]
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


@given(PAIRS, st.integers(1, 9))
def test_what_is_joined_by_pairs_is_called_by_its_first(pairs: list[tuple[int, int, int]], size: int) -> None:
    expected = list(range(15))
    for _ in range(15):
        for one, other, _ in pairs:
            expected[one] = expected[other] = min(expected[one], expected[other])
    assert components(15, in_blocks(pairs, size)).tolist() == expected


@given(PAIRS, st.integers(1, 9))
def test_the_nearest_comes_before_and_the_first_of_equals_wins(pairs: list[tuple[int, int, int]], size: int) -> None:
    places, found = nearest_before(15, in_blocks(pairs, size))
    for photo in range(15):
        candidates = [(distance, one) for one, other, distance in pairs if other == photo]
        assert (found[photo], places[photo]) == min(candidates, default=(0, -1))


def test_a_thousand_equal_photos_are_joined_in_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "_BLOCK", 64)
    held: list[int] = []
    joined = perceptual._joined

    def watched(first: np.ndarray, pairs: list[Pairs]) -> np.ndarray:
        held.append(sum(len(some[0]) for some in pairs))
        return joined(first, pairs)

    monkeypatch.setattr(perceptual, "_joined", watched)
    assert not components(1000, close_pairs(hashes_of([(5, 7)] * 1000), 0)).any()
    assert sum(held) == 1000 * 999 // 2
    assert max(held) <= 3 * 64 * 64
