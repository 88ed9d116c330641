import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from catsweep.data import align as alignment
from catsweep.data.operations import Flip
from catsweep.data.ready import IMAGES
from catsweep.prepare.image_files import read_image
from catsweep.prepare.stage import SHEET, StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.augment import Augment
from catsweep.prepare.stages.resize import Resize


def resized(before: StageOutput, folder: Path, size: int) -> StageOutput:
    return build(Resize(size), folder, before.folder, before.kept)


def augmented(before: StageOutput, folder: Path, size: int) -> StageOutput:
    return build(Augment({"flip": Flip(0.5)}, 3, size), folder, before.folder, before.kept)


def pixels(done: StageOutput) -> np.ndarray:
    return np.load(done.folder / IMAGES)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(height=st.integers(5, 40), width=st.integers(5, 40), size=st.integers(4, 40))
def test_each_file_becomes_a_square_in_the_array(
    verified: Callable, tmp_path: Path, height: int, width: int, size: int
) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    before = verified(["train", "", "val"], height, width, place=root / "0")
    done = resized(before, root / "1", size)
    side, offset = (
        min(height, width),
        np.array([(width - height) // 2, 0] if width > height else [0, (height - width) // 2]),
    )
    assert [record.index for record in done.records] == [0, 1]
    for record, made, image in zip(before.kept, done.records, pixels(done), strict=True):
        photo = read_image(before.folder / record.file)
        np.testing.assert_array_equal(image, alignment.resize(alignment.centre_square(photo), size))
        assert made.digest == hashlib.sha256(image.tobytes()).hexdigest()
        assert (made.width, made.height, made.file, made.split) == (size, size, IMAGES, record.split)
        expected = (np.array(record.landmarks) - offset + 0.5) * size / side - 0.5
        assert made.points is not None
        np.testing.assert_allclose(made.points, expected, atol=0.006)


def test_what_augmentation_made_at_this_size_is_taken_over_without_a_copy(verified: Callable, tmp_path: Path) -> None:
    before = augmented(verified(), tmp_path / "a", 16)
    done = resized(before, tmp_path / "r", 16)
    assert (done.folder / IMAGES).samefile(before.folder / IMAGES)
    assert [(r.id, r.parameters, r.digest) for r in done.records] == [
        (r.id, r.parameters, r.digest) for r in before.records
    ]
    assert {record.stage for record in done.records} == {"resize"}


@pytest.mark.parametrize("size", [8, 24])
def test_what_augmentation_made_at_another_size_is_resized(verified: Callable, tmp_path: Path, size: int) -> None:
    before = augmented(verified(), tmp_path / "a", 16)
    done = resized(before, tmp_path / "r", size)
    expected = [alignment.resize(image, size) for image in pixels(before)]
    np.testing.assert_array_equal(pixels(done), expected)
    assert [record.parameters.get("copy") for record in done.records] == [None, 1, 2, None, None, 1, 2, None, 1, 2]
    assert {record.operation for record in done.records} == {"resize"}


def test_an_array_of_which_some_images_were_dropped_is_made_anew(verified: Callable, tmp_path: Path) -> None:
    before = augmented(verified(), tmp_path / "a", 16)
    some = before.kept[:4] + before.kept[6:]
    done = build(Resize(16), tmp_path / "r", before.folder, some)
    np.testing.assert_array_equal(pixels(done), np.delete(pixels(before), [4, 5], axis=0))
    assert [record.index for record in done.records] == list(range(8))


def test_an_array_that_is_also_another_stage_s_is_never_written_over(verified: Callable, tmp_path: Path) -> None:
    before = augmented(verified(), tmp_path / "a", 16)
    whole = pixels(before)
    (partial := tmp_path / f".r.{'0' * 16}.partial").mkdir()  # of a build that was killed
    (partial / IMAGES).hardlink_to(before.folder / IMAGES)
    resized(before, tmp_path / "r", 16)
    resized(before, tmp_path / "r", 8)
    np.testing.assert_array_equal(pixels(before), whole)
    again = StageOutput.open(tmp_path / "r")
    assert again is not None
    assert pixels(again).shape[1] == 8


def test_there_is_a_contact_sheet(verified: Callable, tmp_path: Path) -> None:
    done = resized(verified(), tmp_path / "r", 16)
    with Image.open(done.folder / SHEET) as sheet:
        np.testing.assert_array_equal(np.asarray(sheet)[2:18, 20:36], pixels(done)[1])
