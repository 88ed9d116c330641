import logging
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from tests.decoded import decode

from catsweep.prepare.removers.grabcut import GrabCut, enlarge, mark_centre, mark_face, rim, segment
from catsweep.synthetic.renderer import Cats, render


def overlap(alpha: NDArray[np.uint8], truth: NDArray[np.bool_]) -> float:
    """IoU."""
    front = alpha >= 128
    return float((front & truth).sum() / (front | truth).sum())


@pytest.fixture(scope="module")
def cats() -> Cats:
    return render(8, 64, seed=3)


def test_drawn_cats_are_found_and_by_their_landmarks_even_better(cats: Cats) -> None:
    remove = GrabCut(side=64)
    blind = [overlap(remove(image, None), mask) for image, mask in zip(cats.images, cats.masks, strict=True)]
    # Demo landmarks count from the corner of the first pixel, those of a record from its centre.
    seeded = [
        overlap(remove(image, points.astype(np.float64) - 0.5), mask)
        for image, points, mask in zip(cats.images, cats.landmarks, cats.masks, strict=True)
    ]
    assert np.mean(blind) > 0.7
    assert np.mean(seeded) > 0.95
    assert np.median(seeded) > np.median(blind)


def test_landmarks_are_those_of_the_photo_and_not_of_its_shrunk_copy(cats: Cats) -> None:
    image, mask, points = cats.images[0], cats.masks[0], cats.landmarks[0].astype(np.float64) - 0.5
    large = np.asarray(cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC))
    truth = cv2.resize(mask.astype(np.uint8), (256, 256)) == 1
    assert overlap(GrabCut(side=64)(large, (points + 0.5) * 4 - 0.5), truth) > 0.9


def test_equal_photos_have_equal_masks_whatever_the_thread_did_before(cats: Cats) -> None:
    remove = GrabCut(side=64)
    first = remove(cats.images[0], None)
    cv2.setRNGSeed(99)
    cv2.randu(np.empty((3, 3), np.uint8), np.array(0), np.array(255))
    np.testing.assert_array_equal(remove(cats.images[0], None), first)
    masks: list[NDArray[np.uint8]] = []
    threads = [threading.Thread(target=lambda: masks.append(remove(cats.images[0], None))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [mask.tobytes() for mask in masks] == [first.tobytes()] * 4


def test_it_says_once_that_it_is_a_fallback(cats: Cats, caplog: pytest.LogCaptureFixture) -> None:
    remove = GrabCut(side=32)
    with caplog.at_level(logging.INFO):
        for image in cats.images[:3]:
            remove(image, None)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "often wrong" in line
    assert "background/remover=onnx" in line
    assert remove.reliability < 0.7


@settings(max_examples=40)
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda shape: arrays(np.uint8, (*shape, 3))),
    st.none() | arrays(np.float64, (9, 2), elements=st.sampled_from([-1e5, -3.0, 0.0, 7.5, 20.0, 1e5])),
)
def test_any_photo_with_any_landmarks_has_a_mask(photo: NDArray[np.uint8], points: NDArray[np.float64] | None) -> None:
    alpha = GrabCut(side=24)(photo, points)
    assert (alpha.shape, alpha.dtype) == (photo.shape[:2], np.dtype(np.uint8))


def test_first_guesses() -> None:
    labels = rim((100, 50), 0.1)
    assert (labels[:10] == cv2.GC_BGD).all()
    assert (labels[:, [0, 4, 45, 49]] == cv2.GC_BGD).all()
    assert (labels[10:90, 5:45] == cv2.GC_PR_FGD).all()
    assert (labels[90:, 5:45] == cv2.GC_PR_BGD).all()
    known = labels.copy()
    mark_centre(labels)
    assert labels[50, 25] == labels[38, 25] == cv2.GC_FGD
    assert labels[33, 25] == cv2.GC_PR_FGD
    assert labels[12, 7] == cv2.GC_PR_BGD
    assert labels[0, 0] == cv2.GC_BGD
    eyes_mouth = [[20, 50], [30, 50], [25, 58]]
    mark_face(known, np.array([*eyes_mouth, [15, 45], [16, 36], [22, 42], [28, 42], [34, 36], [60, 45]], np.float64))
    assert {known[y, x] for x, y in eyes_mouth} == {cv2.GC_FGD}
    assert known[41, 18] == cv2.GC_FGD  # in the left ear
    assert known[40, 25] == cv2.GC_PR_FGD  # between the ears there may be background
    assert known[45, 47] == cv2.GC_BGD  # of the right ear, in the rim


def test_where_nothing_is_in_front_or_all_is_the_guess_stays() -> None:
    photo = np.zeros((4, 5, 3), np.uint8)
    for label in (cv2.GC_BGD, cv2.GC_FGD):
        np.testing.assert_array_equal(segment(photo, np.full((4, 5), label, np.uint8), 1), label)


def test_a_mask_is_enlarged_along_the_edges_of_the_photo() -> None:
    """The photo's edge runs at x = 100.5, the small mask's pixels could only say 100 or 104."""
    photo = np.full((80, 200, 3), 40, np.uint8)
    photo[:, 101:] = 210
    small = np.asarray(cv2.resize(photo, (50, 20), interpolation=cv2.INTER_AREA), np.uint8)
    mask = np.zeros((20, 50), np.float32)
    mask[:, 25:] = 1
    alpha = enlarge(mask, small, photo)
    assert (alpha[:, :101] < 50).all()
    assert (alpha[:, 101:] > 205).all()
    blunt = cv2.resize(mask, (200, 80), interpolation=cv2.INTER_LINEAR)
    assert 0.1 < blunt[40, 101] < 0.9  # which knows nothing of the photo


def test_the_key_follows_the_parameters() -> None:
    keys = [str(GrabCut(**given).parameters()) for given in ({}, {"side": 64}, {"rounds": 1}, {"margin": 0.1})]
    assert len({*keys}) == 4


@pytest.mark.photos
def test_real_cats_are_found_well_enough_for_a_fallback(photos: Path) -> None:
    remove, overlaps = GrabCut(side=128), []
    for file in sorted((photos / "masked").glob("*.jpg"))[::18]:
        truth = cv2.imread(str(file.with_suffix(".mask.png")), cv2.IMREAD_GRAYSCALE)
        assert truth is not None
        overlaps.append(overlap(remove(decode(file), None), truth > 127))
    assert len(overlaps) == 5
    assert np.mean(overlaps) > 0.45
    assert min(overlaps) > 0.1
