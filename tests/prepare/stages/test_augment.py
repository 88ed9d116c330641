import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image

from catsweep.data.operations import Brightness, Crop, Flip, Operation
from catsweep.data.ready import IMAGES, split
from catsweep.errors import ConfigError, DataError
from catsweep.instantiation import instantiate
from catsweep.prepare.pipeline import publish
from catsweep.prepare.stage import SHEET, StageBuilder, StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.augment import Augment
from catsweep.prepare.stages.resize import Resize

OPERATIONS: dict[str, Operation] = {
    "flip": Flip(0.5),
    "bright_dim": Brightness(0.5, [0.7, 0.9]),
    "crop_random": Crop(0.5, [0.7, 0.9]),
}


def stage(**changes: Any) -> Augment:
    return Augment(**{"operations": OPERATIONS, "copies": 5, "size": 16, **changes})


def augmented(before: StageOutput, folder: Path, **changes: Any) -> StageOutput:
    return build(stage(**changes), folder, before.folder, before.kept)


def pixels(done: StageOutput) -> np.ndarray:
    return np.load(done.folder / IMAGES)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_training_photos_become_many_and_held_out_ones_stay_alone(verified: Callable, tmp_path: Path) -> None:
    done = augmented(verified(), tmp_path / "a")
    images = pixels(done)
    assert images.shape == (3 * 5 + 1, 16, 16, 3)
    assert images.dtype == np.uint8
    assert [record.index for record in done.records] == list(range(16))
    assert len({record.id for record in done.records}) == 16
    assert {record.file for record in done.records} == {IMAGES}
    numbers = [record.parameters.get("copy", 0) for record in done.records]
    assert numbers == [0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert [record.split for record in done.records] == ["train"] * 5 + ["val"] + ["train"] * 10
    assert done.records[9].id == "cat-2+003"
    assert (done.records[9].source, done.records[9].group) == ("cats/2.jpg", "group-2")
    for record, image in zip(done.records, images, strict=True):
        assert record.digest == hashlib.sha256(image.tobytes()).hexdigest()
        assert (record.width, record.height) == (16, 16)


def test_the_first_of_them_is_the_photo_as_it_is(verified: Callable, tmp_path: Path) -> None:
    before = verified()
    done = augmented(before, tmp_path / "a")
    plain = build(Resize(16), tmp_path / "r", before.folder, before.kept)
    first = [record for record in done.records if "copy" not in record.parameters]
    places = np.array([record.index for record in first], int)
    np.testing.assert_array_equal(pixels(done)[places], pixels(plain))
    assert [record.landmarks for record in first] == [record.landmarks for record in plain.records]
    assert {record.operation for record in first} == {"resize"}


def test_the_others_are_what_their_records_say(verified: Callable, tmp_path: Path) -> None:
    done = augmented(verified(), tmp_path / "a", copies=40)
    images, photo = pixels(done), pixels(done)[0].astype(float)
    light = photo.mean()
    for record in done.records[1:40]:
        words = record.operation.split()
        image = images[record.index].astype(float)
        if words == ["none"]:
            assert np.abs(image - photo).mean() < 3  # from the working copy
        if words == ["flip"]:
            assert np.abs(image - photo[:, ::-1]).mean() < 3
        if "bright_dim" in words:
            assert 0.7 <= record.parameters["bright_dim"] <= 0.9
            assert image.mean() < light
        assert ("crop_random" in words) == ("box" in record.parameters)
    operations = {record.operation for record in done.records}
    assert {"resize", "none", "flip", "bright_dim", "flip bright_dim crop_random"} <= operations
    assert len({image.tobytes() for image in images[1:40]}) > 20


def test_landmarks_go_along_with_the_photo_and_copies_have_none(verified: Callable, tmp_path: Path) -> None:
    before = verified(height=30, width=40)
    photo, *copies = augmented(before, tmp_path / "a").records[:5]
    square = np.array(before.records[0].landmarks) - [5, 0]
    assert photo.points is not None
    np.testing.assert_allclose(photo.points, (square + 0.5) * 16 / 30 - 0.5, atol=0.006)
    assert {copy.landmarks for copy in copies} == {None}


def test_copies_depend_on_seed_photo_and_number_and_nothing_else(verified: Callable, tmp_path: Path) -> None:
    before = verified()
    usual = augmented(before, tmp_path / "a")
    backwards = build(stage(), tmp_path / "b", before.folder, before.kept[::-1])
    more = augmented(before, tmp_path / "c", copies=9)
    other = augmented(before, tmp_path / "d", seed=1)
    named = [{record.id: record.digest for record in done.records} for done in (usual, backwards, more, other)]
    assert named[0] == named[1]
    assert named[0].items() <= named[2].items()
    assert sum(named[0][key] != named[3][key] for key in named[0]) > 9
    assert len(set(named[0].values())) > 10


def test_killed_and_started_again_it_makes_the_same_bytes(
    verified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = verified(["train"] * 6)
    undisturbed = contents(augmented(before, tmp_path / "a").folder)
    calls = []

    def dies(sheet: np.ndarray, **_: object) -> bytes:
        calls.append(sheet)
        if len(calls) > 3:
            raise KeyboardInterrupt
        return b"half"

    with monkeypatch.context() as patched:
        patched.setattr(simplejpeg, "encode_jpeg", dies)
        with pytest.raises(KeyboardInterrupt):
            augmented(before, tmp_path / "b")
    (partial,) = tmp_path.glob(".b*partial")
    (partial / "sheets" / "of-another-time.jpg").touch()
    assert contents(augmented(before, tmp_path / "b").folder) == undisturbed


def test_there_is_a_sheet_of_each_training_photo_and_one_of_all(verified: Callable, tmp_path: Path) -> None:
    done = augmented(verified(), tmp_path / "a", copies=23)
    sheets = sorted((done.folder / "sheets").iterdir())
    assert [sheet.name for sheet in sheets] == ["cat-0.jpg", "cat-2.jpg", "cat-3.jpg"]
    sheet = simplejpeg.decode_jpeg(sheets[0].read_bytes())
    assert sheet.shape == (3 * 18 + 2, 10 * 18 + 2, 3)
    assert np.abs(sheet[2:18, 2:18].astype(float) - pixels(done)[0]).mean() < 8
    with Image.open(done.folder / SHEET) as overview:
        assert overview.size == (10 * 18 + 2, 3 * 18 + 2)
        np.testing.assert_array_equal(np.asarray(overview)[20:36, 2:18], pixels(done)[24])


def test_what_is_transparent_is_white(verified: Callable, tmp_path: Path) -> None:
    before = verified(["train", "val"], channels=4)
    for record in before.records:
        with Image.open(before.folder / record.file) as file:
            image = np.array(file)
        image[..., 3] = 0
        Image.fromarray(image).save(before.folder / record.file)
    assert pixels(augmented(before, tmp_path / "a")).min() == 255


def test_photos_smaller_than_the_images_are_enlarged(verified: Callable, tmp_path: Path) -> None:
    done = augmented(verified(["train", "val"], height=9, width=7), tmp_path / "a")
    assert pixels(done).shape == (6, 16, 16, 3)
    assert pixels(done).std() > 20


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    groups=st.lists(st.integers(0, 5), min_size=2, max_size=9),
    copies=st.integers(2, 6),
    fraction=st.floats(0, 0.6),
)
def test_training_sees_no_copy_of_a_held_out_photo_nor_of_one_of_its_group(
    verified: Callable, tmp_path: Path, groups: list[int], copies: int, fraction: float
) -> None:
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    names = [f"g{group}" for group in groups]
    before = verified(split(names, fraction), 8, 8, groups=names, place=root / "0")
    made = augmented(before, root / "1", copies=copies, size=8)
    ready = publish([before, made, build(Resize(8), root / "2", made.folder, made.kept)], root / "ready", "cats")
    rows = [row for row in ready.rows if row.kept]
    train, val = ([rows[place] for place in ready.indices(name)] for name in ("train", "val"))
    held_out = {record.group for record in before.records if record.split == "val"}
    assert {row.group for row in val} == held_out
    assert not held_out & {row.group for row in train}
    assert not {row.source for row in train} & {row.source for row in val}
    assert [row.copy for row in val] == [0] * len(val)
    assert len(train) == copies * sum(record.split == "train" for record in before.records)
    assert len(ready.originals()) == len(groups)


def test_without_copies_it_has_nothing_to_do() -> None:
    assert not stage(copies=1).active
    assert not Augment({}).active
    assert stage().active


def test_photos_in_no_split_are_refused(verified: Callable, tmp_path: Path) -> None:
    before = verified(["train", "val"])
    loose = tuple(replace(record, split="") for record in before.kept)
    with pytest.raises(DataError, match=r"cats/0.jpg is in none.*have \$\{verification\} before"):
        build(stage(), tmp_path / "a", before.folder, loose)


def test_copies_that_would_all_be_the_same_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"augment.operations to hold some for augment.copies=5, got none"):
        stage(operations={"flip": Flip(0.0)})


@pytest.mark.parametrize(
    "change", [{"copies": 6}, {"size": 17}, {"seed": 1}, {"working": 2}, {"operations": {"flip": Flip(0.4)}}]
)
def test_everything_that_decides_is_a_parameter(change: dict[str, Any]) -> None:
    assert stage(**change).parameters() != stage().parameters()
    assert stage().parameters() == stage().parameters()


def test_the_order_of_operations_is_a_parameter() -> None:
    backwards = dict(reversed(OPERATIONS.items()))
    assert stage(operations=backwards).method() != stage().method()


def test_conf_prepare_names_all_operations_and_they_can_be_built(root: Path) -> None:
    cfg = OmegaConf.load(root / "conf" / "prepare.yaml")
    cfg.augment.copies = 3
    made = instantiate(OmegaConf.create({"size": 64, "seed": 0, "augment": cfg.augment}).augment)
    assert isinstance(made, Augment)
    issue = "flip bright_dim bright_light contrast saturation crop_random none"
    assert list(made.operations) == issue.split()


def test_a_photo_is_read_once_however_many_copies(
    verified: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = StageBuilder.read, []
    monkeypatch.setattr(StageBuilder, "read", lambda self, record: seen.append(record.id) or read(self, record))
    augmented(verified(), tmp_path / "a", copies=30)
    assert sorted(seen) == ["cat-0", "cat-1", "cat-2", "cat-3"]
