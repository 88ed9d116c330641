import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from catsweep.data import ready
from catsweep.data.operations import Flip
from catsweep.data.ready import CARD, IMAGES, MANIFEST, ReadySet
from catsweep.errors import PlaceError
from catsweep.ownership import MARKER
from catsweep.prepare.pipeline import publish
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.augment import Augment
from catsweep.prepare.stages.resize import Resize
from steady.places import translated_errors

SPLITS = ("train", "", "val", "train", "train")


@pytest.fixture
def stages(verified: Callable, tmp_path: Path) -> Callable[..., list[StageOutput]]:
    """A preparation of five photos, one of them refused by a person, with two copies of each or none."""

    def stages(copies: int = 3, size: int = 16) -> list[StageOutput]:
        first = verified(SPLITS, 20, 30)
        done = [first]
        if copies > 1:
            augment = Augment({"flip": Flip(0.5)}, copies, size)
            done.append(build(augment, tmp_path / "1", first.folder, first.kept))
        return [*done, build(Resize(size), tmp_path / "2", done[-1].folder, done[-1].kept)]

    return stages


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_it_is_a_ready_set_with_the_stages_array(stages: Callable, tmp_path: Path) -> None:
    done = stages()
    ready = publish(done, tmp_path / "ready" / "cats-16", "cats")
    ready.verify()
    assert set(contents(ready.path)) == {"images.npy", "manifest.csv", "contact_sheet.png", "card.json", MARKER}
    assert (ready.path / IMAGES).samefile(done[-1].folder / IMAGES)
    assert ready.splits == ("train",) * 3 + ("val",) + ("train",) * 6
    assert ready.originals().tolist() == [0, 3, 4, 7]
    assert [row.copy for row in ready.rows if row.kept] == [0, 1, 2, 0, 0, 1, 2, 0, 1, 2]


def test_every_photo_found_has_its_row_and_a_refused_one_its_stage_and_reason(stages: Callable, tmp_path: Path) -> None:
    ready = publish(stages(), tmp_path / "cats-16", "cats")
    assert list(dict.fromkeys(row.source for row in ready.rows)) == [f"cats/{number}.jpg" for number in range(5)]
    (refused,) = (row for row in ready.rows if not row.kept)
    assert (refused.source, refused.stage, refused.reason) == ("cats/1.jpg", "", "dropped: by a person")
    assert (refused.index, refused.split, refused.sha256) == (None, "", f"{1:064x}")
    assert {row.stage for row in ready.rows if row.kept} == {"resize"}


def test_photos_that_a_later_stage_refused_stay_in_their_place(stages: Callable, tmp_path: Path) -> None:
    first, last = stages(copies=1)
    middle = tuple(
        replace(record, stage="zoom") if record.id != "cat-3" else replace(record, stage="zoom").refuse("no face: none")
        for record in first.kept
    )
    zoom = replace(first, records=middle, card={**first.card, "stage": "zoom"})
    last = build(Resize(16), tmp_path / "3", zoom.folder, zoom.kept)
    ready = publish([first, zoom, last], tmp_path / "cats-16", "cats")
    assert [(row.source[5:6], row.stage, row.kept) for row in ready.rows] == [
        ("0", "resize", True), ("1", "", False), ("2", "resize", True), ("3", "zoom", False), ("4", "resize", True),
    ]  # fmt: skip
    assert ready.card["refused"] == {"dropped": 1, "no face": 1}


def test_the_row_has_the_size_of_the_photo_not_of_what_was_made_of_it(stages: Callable, tmp_path: Path) -> None:
    done = stages(copies=1)
    known = replace(done[0].records[0], parameters={"width": 4000, "height": 3000})
    done[0] = replace(done[0], records=(known, *done[0].records[1:]))
    ready = publish(done, tmp_path / "cats-16", "cats")
    assert [(row.width, row.height) for row in ready.rows if row.kept] == [(4000, 3000)] + [(30, 20)] * 3


def test_the_card_says_how_it_came_to_be(stages: Callable, tmp_path: Path) -> None:
    done = stages()
    card = publish(done, tmp_path / "cats-16", "cats").card
    assert (card["name"], card["size"], card["n"], card["originals"]) == ("cats", 16, 10, 4)
    assert card["splits"] == {"train": 9, "val": 1}
    assert card["refused"] == {"dropped": 1}
    assert [stage["stage"] for stage in card["parameters"]["stages"]] == ["verify", "augment", "resize"]
    assert [stage["key"] for stage in card["parameters"]["stages"]] == [stage.card["key"] for stage in done]
    assert card["parameters"]["stages"][1]["parameters"]["copies"] == 3
    assert "cv2" in card["versions"]


def test_again_it_is_not_written_and_elsewhere_it_is_the_same_bytes(stages: Callable, tmp_path: Path) -> None:
    done = stages()
    first = publish(done, tmp_path / "cats-16", "cats")
    before = {file: file.stat().st_ino for file in first.path.iterdir()}
    again = publish(stages(), tmp_path / "cats-16", "cats")
    assert again.digest == first.digest
    assert {file: file.stat().st_ino for file in first.path.iterdir()} == before
    assert contents(publish(done, tmp_path / "other", "cats").path) == contents(first.path)


def test_other_stages_replace_it_as_a_whole_and_who_reads_the_old_one_may_go_on(
    stages: Callable, tmp_path: Path
) -> None:
    old = publish(stages(), tmp_path / "ready" / "cats-16", "cats")
    pixels = np.array(old.images)
    new = publish(stages(copies=2), tmp_path / "ready" / "cats-16", "cats")
    assert (len(new), len(ReadySet.open(new.path))) == (7, 7)
    np.testing.assert_array_equal(old.images, pixels)
    assert [path.name for path in new.path.parent.iterdir() if path.is_dir()] == ["cats-16"]


def test_killed_while_writing_it_leaves_the_old_one_and_the_next_one_clears_up(
    stages: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "ready" / "cats-16"
    publish(stages(), folder, "cats")
    before, other = contents(folder), stages(copies=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ready, "digest", killed)
        patched.setattr("shutil.rmtree", lambda *_, **__: None)  # nor does it clear up
        with pytest.raises(KeyboardInterrupt):
            publish(other, folder, "cats")
    assert contents(folder) == before
    assert len([path for path in folder.parent.iterdir() if path.is_dir()]) == 2
    assert len(publish(other, folder, "cats")) == 4
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["cats-16"]


def test_a_damaged_set_is_made_again(stages: Callable, tmp_path: Path) -> None:
    folder = tmp_path / "cats-16"
    before = contents(publish(stages(), folder, "cats").path)
    (folder / CARD).write_text("{")
    publish(stages(), folder, "cats")
    assert contents(folder) == before


def test_a_place_one_cannot_write_to_is_an_error_with_the_remedy(stages: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cfg = OmegaConf.create({"root": str(tmp_path / "file")})
    with pytest.raises(PlaceError, match=r"root=DIR"), translated_errors(cfg):
        publish(stages(), tmp_path / "file" / "cats-16", "cats")


def test_a_set_from_before_there_were_copies_can_still_be_read(stages: Callable, tmp_path: Path) -> None:
    ready = publish(stages(copies=1), tmp_path / "cats-16", "cats")
    with (ready.path / MANIFEST).open(newline="") as file:
        table = list(csv.DictReader(file))
    with (ready.path / MANIFEST).open("w", newline="") as file:
        columns = [name for name in table[0] if name not in ("stage", "copy")]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    card = json.loads((ready.path / CARD).read_text())
    del card["originals"]
    (ready.path / CARD).write_text(json.dumps(card))
    old = ReadySet.open(ready.path)
    assert old.originals().tolist() == [0, 1, 2, 3]
    assert old.splits == ready.splits
