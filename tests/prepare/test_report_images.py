import base64
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from catsweep.prepare.image_files import encode
from catsweep.prepare.manifest import Record
from catsweep.prepare.report_images import KINDS, SHOWN, Picture, StageImages, data_uri, grouped
from catsweep.prepare.stage import StageOutput


def read(uri: str) -> NDArray[np.uint8]:
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def show(item: int, said: str) -> Picture:
    return Picture("", "", str(item), said, True)


def test_an_image_is_shrunk_but_never_enlarged_and_keeps_its_shape(picture: Callable) -> None:
    assert read(data_uri(picture(60, 80), 40)).shape == (30, 40, 3)
    assert read(data_uri(picture(60, 80), 200)).shape == (60, 80, 3)
    assert read(data_uri(picture(1, 900), 90)).shape == (1, 90, 3)
    image = picture(60, 80)
    np.testing.assert_allclose(read(data_uri(image, 80, quality=95)), image, atol=12)


def test_what_shows_through_is_white() -> None:
    clear = np.zeros((16, 16, 4), np.uint8)
    assert (read(data_uri(clear)) == 255).all()


def test_no_image_is_no_word() -> None:
    assert data_uri(None) == ""


def test_kinds_come_by_their_number_with_some_of_each() -> None:
    items = [("rare: x", -1), *((f"common: {n}", n) for n in range(50))]
    common, rare = grouped(items, show)
    assert (common.kind, common.count, len(common.pictures)) == ("common", 50, SHOWN)
    assert (rare.kind, rare.count, len(rare.pictures)) == ("rare", 1, 1)
    shown = [int(one.source) for one in common.pictures]
    assert (shown[0], shown[-1]) == (0, 49)
    assert [one.note for one in common.pictures] == [f"common: {n}" for n in shown]


def test_reasons_without_end_do_not_make_a_page_without_end() -> None:
    groups = grouped([(f"reason {n}", n) for n in range(1000)], show)
    assert len(groups) == KINDS
    assert sum(group.count for group in groups) == 1000
    assert groups[-1].kind == "989 other kinds"
    assert len(groups[-1].pictures) == SHOWN


def stage(folder: Path, name: str, records: list[Record], colours: dict[str, int]) -> StageOutput:
    """A stage with plain images of these greys."""
    folder.mkdir()
    for identity, grey in colours.items():
        (folder / f"{identity}.png").write_bytes(encode(np.full((8, 8, 3), grey, np.uint8), ".png"))
    return StageOutput(folder, tuple(records), {"stage": name, "counts": {"doubtful": 0}, "parameters": {}})


@pytest.fixture
def images(tmp_path: Path) -> StageImages:
    first = [Record("original", name, f"{name}.jpg", file=f"{name}.png") for name in ("a", "b")]
    kept, other = (
        first[0],
        Record("second", "b", "b.jpg", parameters={"of": "a"}, file="b.png").refuse("copy: of a.jpg"),
    )
    array = tmp_path / "array"
    array.mkdir()
    np.save(array / "images.npy", np.full((2, 8, 8, 3), [[[[7]]], [[[200]]]], np.uint8))
    last = Record("third", "a", "a.jpg", file="images.npy", index=1)
    return StageImages([
        stage(tmp_path / "first", "original", first, {"a": 50, "b": 100}),
        stage(tmp_path / "second", "second", [kept, other], {"a": 150}),
        StageOutput(array, (last,), {"stage": "third"}),
    ])  # fmt: skip


def test_a_refused_image_is_shown_as_it_came_to_the_stage_beside_what_it_was_compared_with(images: StageImages) -> None:
    shown = images.picture(1, images.outputs[1].records[1], "copy: of a.jpg", out=True)
    assert np.abs(read(shown.uri).astype(int) - 100).max() <= 2
    assert np.abs(read(shown.beside).astype(int) - 50).max() <= 2
    assert (shown.source, shown.note, shown.out) == ("b.jpg", "of a.jpg", True)


def test_a_kept_image_is_shown_as_the_stage_left_it(images: StageImages) -> None:
    shown = images.picture(1, images.outputs[1].records[0], "small face", out=False)
    assert np.abs(read(shown.uri).astype(int) - 150).max() <= 2
    assert (shown.beside, shown.note) == ("", "")


def test_before_the_first_stage_there_is_no_image(images: StageImages) -> None:
    assert images.picture(0, Record("original", "c", "c.jpg").refuse("empty file"), "empty file", out=True).uri == ""


def test_images_in_an_array_are_found(images: StageImages) -> None:
    image = images.image(2, "a")
    assert image is not None
    assert (image == 200).all()
    assert images.image(2, "b") is None
