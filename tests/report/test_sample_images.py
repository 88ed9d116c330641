import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.report.studies import Lab, images

from catsweep.data.ready import find_ready_set
from catsweep.grids import grid
from catsweep.report import sample_images


@pytest.mark.parametrize(("n", "columns", "side"), [(64, None, 32), (10, 4, 32), (1, None, 48), (16, 8, 64)])
def test_a_grid_is_cut_back_into_its_images(n: int, columns: int | None, side: int) -> None:
    made = images(n, side=side)
    assert np.array_equal(sample_images.cells(grid(made, columns)), made)


def test_what_is_no_grid_of_ours_has_no_images() -> None:
    assert len(sample_images.cells(np.zeros((50, 70, 3), np.uint8))) == 0
    assert len(sample_images.cells(np.full((68, 68, 3), 255, np.uint8))) == 0


def test_a_damaged_or_missing_picture_is_no_error(tmp_path: Path) -> None:
    (half := tmp_path / "samples/epoch_0001.png").parent.mkdir()
    half.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert len(sample_images.samples(tmp_path)) == 0
    assert len(sample_images.samples(tmp_path / "gone")) == 0
    assert sample_images.read_grid(tmp_path, "samples") is None
    assert sample_images.read_grid(None, "samples") is None


def test_the_latest_grid_up_to_the_scored_epoch_is_taken(lab: Lab) -> None:
    """Epoch 10 of 5, 10 and 15; the last one where no scores tell of an epoch."""
    run = lab.run("cats", 0, (1.0,), ("val/fid",))
    assert np.array_equal(sample_images.samples(run), images(16, shade=30))
    (run / "metrics.json").unlink()
    assert np.array_equal(sample_images.samples(run), images(16, shade=35))
    assert sample_images.read_grid(run, "nothing") is None


def test_strips_are_small_and_equal_images_give_equal_words() -> None:
    strip = sample_images.sheet(images(64, side=128), 4, 2, cell=64)
    assert strip.shape == (2 * 65 + 1, 4 * 65 + 1, 3)
    word = sample_images.data_uri(strip)
    assert word == sample_images.data_uri(strip.copy())
    with Image.open(io.BytesIO(base64.b64decode(word.partition(",")[2]))) as image:
        assert image.size == (261, 131)


def test_real_cats_come_from_the_set_of_that_digest(lab: Lab) -> None:
    digest = lab.set()
    found = find_ready_set(digest, [lab.folder / "nowhere", lab.ready])
    assert found is not None
    assert sample_images.real_cats(found, 9).shape == (9, 32, 32, 3)
    assert find_ready_set("another", [lab.ready]) is None
    assert find_ready_set(None, [lab.ready]) is None
    assert len(sample_images.real_cats(None, 9)) == 0


def test_a_damaged_set_is_as_good_as_none(lab: Lab) -> None:
    digest = lab.set()
    (lab.ready / "squares-32/images.npy").write_bytes(b"")
    assert find_ready_set(digest, [lab.ready]) is None
