from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from catsweep.data import align
from catsweep.prepare import faces
from catsweep.prepare.faces import Face
from catsweep.prepare.image_files import encode, read_image
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import StageBuilder, StageOutput, Work
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages import zoom
from catsweep.prepare.stages.zoom import FACELESS, FACES, Zoom, centred
from catsweep.synthetic import renderer

Pixels = NDArray[np.uint8]


def searched(frames: Iterable[float], none: int = 0) -> list[Record]:
    """Records of certain faces with such frames, and of photos in which none is found."""
    found = [Record("zoom", f"{place}", "", confidence=1.0, parameters={"frame": side, "angle": 0.0, "box": [1]})
             for place, side in enumerate(frames)]  # fmt: skip
    lost = Record("zoom", "", "", confidence=0.0, parameters={}).doubt("no face found: the middle was taken")
    return [*found, *[lost] * none]


@pytest.mark.parametrize(
    ("frames", "none", "why"),
    [
        ([1.3] * 19 + [0.4], 0, FACES),
        ([1.3] * 18 + [0.4], 0, ""),  # a mixture
        ([0.67] * 3, 0, FACES),  # cut loosely
        ([1.3] * 2, 0, ""),  # by chance, it may be
        ([1.3] * 3, 20, FACES),  # the faces that are found say what the others are
        ([0.4], 9, ""),
        ([0.4], 10, FACELESS),
        ([], 1, FACELESS),
        ([], 0, ""),
    ],
)
def test_it_is_nearly_all_of_a_set_that_decides(frames: list[float], none: int, why: str) -> None:
    assert zoom.why_whole(searched(frames, none), 0.8) == why


def test_what_is_found_in_a_face_does_not_say_what_a_set_is() -> None:
    noses = [replace(record, confidence=0.99) for record in searched([0.2] * 9)]
    assert zoom.why_whole([*searched([1.1] * 3), *noses], 0.8) == FACES
    assert zoom.why_whole([replace(record, confidence=0.99) for record in searched([1.1] * 9)], 0.8) == ""


def test_who_searches_for_nothing_misses_nothing() -> None:
    assert zoom.why_whole([Record("zoom", "a", "a.jpg")] * 3, 0.8) == ""


@given(
    height=st.integers(1, 400), width=st.integers(1, 400), size=st.integers(1, 400),
    x=st.floats(-500, 900), y=st.floats(-500, 900), scale=st.floats(0.1, 9),
)  # fmt: skip
def test_the_square_lies_in_the_photo_as_near_to_the_face_as_it_can(
    height: int, width: int, size: int, x: float, y: float, scale: float
) -> None:
    frame = np.array([[scale, 0, size / 2 - scale * x], [0, scale, size / 2 - scale * y]])  # around (x, y)
    back = np.asarray(cv2.invertAffineTransform(centred(height, width, size, frame)), float)
    low, high = align.transform(back, np.array([[0, 0], [size, size]], float))
    side = min(height, width)
    np.testing.assert_allclose(high - low, side, rtol=1e-6)
    assert (low >= -1e-6).all()
    assert (high <= np.array([width, height]) + 1e-6).all()
    np.testing.assert_allclose(
        (low + high) / 2, np.clip([x, y], side / 2, [width - side / 2, height - side / 2]), atol=1e-3
    )


@given(height=st.integers(1, 400), width=st.integers(1, 400), size=st.integers(1, 400))
def test_the_middle_fits_the_photo_exactly(height: int, width: int, size: int) -> None:
    back = np.asarray(cv2.invertAffineTransform(centred(height, width, size)), float)
    corners = align.transform(back, np.array([[0, 0], [size, size]], float))
    side = min(height, width)
    np.testing.assert_allclose(corners[1] - corners[0], side, rtol=1e-9)
    np.testing.assert_allclose(corners.sum(0), [width, height], rtol=1e-9)


def test_in_a_set_of_faces_small_faces_are_believed_only_if_they_are_certain() -> None:
    def found(side: float, confidence: float) -> Record:
        return Record("zoom", "a", "a.jpg", confidence=confidence, parameters={"frame": side, "angle": 0.0, "box": [1]})

    assert zoom.better_whole(found(0.3, 0.9))
    assert zoom.better_whole(found(0.34, 0.996))  # a nose
    assert not zoom.better_whole(found(0.3, 1.0))
    assert zoom.better_whole(found(1.0, 1.0))
    by_landmarks = Record("zoom", "a", "a.jpg", confidence=1.0, parameters={"frame": 1.2})
    assert not zoom.better_whole(by_landmarks)
    assert zoom.better_whole(by_landmarks.doubt("cut off: 60 % of the frame lies in the photo"))


class Photos:
    """A stage `zoom` run on photos, of which some have a face that fills them, as told to a search that is none."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.searches = folder, 0
        (folder / "before").mkdir()
        monkeypatch.setattr(faces, "find", self._find)

    def _find(self, photo: Pixels) -> Face | None:
        self.searches += 1
        side = int(photo[0, 0, 0])  # of the face, in hundredths of the photo's shorter side
        height, width = photo.shape[:2]
        return Face(width / 2, height / 2, side / 100 * min(height, width), 0.0, 9.0) if side else None

    def zoom(self, sides: Sequence[int], stage: Zoom | None = None, height: int = 60, width: int = 60) -> StageOutput:
        records = []
        for number, side in enumerate(sides):
            image = np.full((height, width, 3), side, np.uint8)
            image[height // 2 :] = 10 * number
            name = f"{number:02d}.png"
            (self.folder / "before" / name).write_bytes(encode(image, ".png"))
            records.append(Record("original", name[:2], name, name, digest=f"{side}", file=name))
        before = self.folder / "before"
        return build(stage or Zoom(size=60), self.folder / "zoomed", before, tuple(records))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photos:
    return Photos(tmp_path, monkeypatch)


def methods(done: StageOutput) -> list[str]:
    return [record.operation.removeprefix("zoom: ") for record in done.records]


def kinds(done: StageOutput) -> list[list[str]]:
    return [[doubt.split(":")[0] for doubt in record.doubts] for record in done.records]


def test_a_set_of_faces_is_taken_as_it_is(photos: Photos) -> None:
    done = photos.zoom([80, 80, 0, 60])  # 60: as cut loosely
    assert methods(done) == ["whole photo"] * 4
    assert kinds(done) == [[]] * 4
    for record in done.kept:
        np.testing.assert_array_equal(
            read_image(done.folder / record.file), read_image(photos.folder / "before" / record.file)
        )
    [note] = done.card["notes"]
    assert note.startswith("4 of 4 photos were taken whole: 3 of 3 faces that are certain fill their photo")
    assert "zoom.whole=never" in note


def test_in_a_set_of_whole_cats_only_what_the_frame_exceeds_is_taken_whole(photos: Photos) -> None:
    done = photos.zoom([80, 40, 40, 0])
    assert methods(done) == ["whole photo", "cascade", "cascade", "centre"]
    assert kinds(done) == [[], [], [], ["no face found"]]
    [note] = done.card["notes"]
    assert note.startswith("1 of 4 photos was taken whole: the frame of the face would be larger than the photo.")


def test_in_a_mixture_only_faces_are_taken_whole(photos: Photos) -> None:
    done = photos.zoom([80, 80, 80, 40, 0, 0])
    assert methods(done) == ["whole photo"] * 3 + ["cascade", "centre", "centre"]
    assert kinds(done) == [[]] * 4 + [["no face found"]] * 2
    [note] = done.card["notes"]
    assert note.startswith("3 of 6 photos were taken whole: the frame of the face would be larger")


def test_without_faces_the_photos_are_taken_whole_and_that_is_no_error(photos: Photos) -> None:
    done = photos.zoom([0, 0, 0])
    assert (methods(done), kinds(done)) == (["whole photo"] * 3, [[]] * 3)
    assert done.card["notes"][0].startswith("3 of 3 photos were taken whole: a face was found for sure in none.")
    one = photos.zoom([0])
    assert one.card["notes"][0].startswith("1 of 1 photo was taken whole: a face was found for sure in none.")


def test_one_may_insist_on_either(photos: Photos) -> None:
    never = photos.zoom([80, 80, 0], Zoom(size=60, whole="never"))
    assert (methods(never), kinds(never)) == (
        ["cascade", "cascade", "centre"],
        [["cut off"], ["cut off"], ["no face found"]],
    )
    assert never.card["notes"] == []
    always = photos.zoom([40, 40, 0], Zoom(size=60, whole="always"))
    assert (methods(always), kinds(always)) == (["cascade", "cascade", "whole photo"], [[], [], []])


def test_another_set_is_judged_anew_and_only_what_differs_is_searched_again(photos: Photos) -> None:
    faces_only = photos.zoom([80, 80, 80, 0])
    photos.searches = 0
    again = photos.zoom([80, 80, 80, 0, 0])
    assert photos.searches == 1
    assert methods(again) == ["whole photo"] * 5
    mixed = photos.zoom([80, 80, 80, 0, 0, 40])
    assert methods(mixed) == ["whole photo"] * 3 + ["centre", "centre", "cascade"]
    assert kinds(mixed)[3] == ["no face found"]
    back = photos.zoom([80, 80, 80, 0])
    assert [(record.digest, record.parameters, record.doubts, record.mark) for record in back.records] == [
        (record.digest, record.parameters, record.doubts, record.mark) for record in faces_only.records
    ]


def test_a_build_that_was_killed_while_it_took_photos_whole_comes_to_the_same(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = photos.zoom([80, 80, 0, 80]).records
    (photos.folder / "zoomed").rename(photos.folder / "undisturbed")
    again = StageBuilder.again

    def killed(build: StageBuilder, work: Work, *words: Any) -> Iterator[Record]:
        done: list[Record] = []

        def take(record: Record) -> Any:
            if done:
                raise KeyboardInterrupt
            done.append(record)
            return work(record)

        return again(build, take, *words)

    monkeypatch.setattr(StageBuilder, "again", killed)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    with pytest.raises(KeyboardInterrupt):
        photos.zoom([80, 80, 0, 80])
    monkeypatch.setattr(StageBuilder, "again", again)
    photos.searches = 0
    assert photos.zoom([80, 80, 0, 80]).records == whole
    assert photos.searches == 0


def test_landmarks_of_faces_move_with_the_photo(tmp_path: Path) -> None:
    drawn = renderer.render(3, 64, 0)
    before = tmp_path / "before"
    before.mkdir()
    records = []
    for number, (image, points) in enumerate(zip(drawn.images, drawn.landmarks, strict=True)):
        eyes = points[:2].mean(0).round().astype(int)
        tight = np.ascontiguousarray(image[eyes[1] - 16 : eyes[1] + 24, eyes[0] - 20 : eyes[0] + 20])
        moved = points - 0.5 - [eyes[0] - 20, eyes[1] - 16]
        name = f"{number}.png"
        (before / name).write_bytes(encode(tight, ".png"))
        landmarks = tuple((float(x), float(y)) for x, y in moved.round(2))
        records.append(Record("original", f"{number}", name, name, digest=name, file=name, landmarks=landmarks))
    done = build(Zoom(size=80), tmp_path / "zoomed", before, tuple(records))
    assert methods(done) == ["whole photo"] * 3
    for record, source in zip(done.records, records, strict=True):
        assert record.points is not None
        assert source.points is not None
        np.testing.assert_allclose(record.points + 0.5, (source.points + 0.5) * 2, atol=0.02)
