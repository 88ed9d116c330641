from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf
from tests.decoded import decode

from catsweep.data import align
from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate
from catsweep.prepare.image_files import encode, read_image
from catsweep.prepare.manifest import Record, rounded
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.zoom import TARGETS, Zoom
from catsweep.synthetic import renderer

Array = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Run = Callable[[Zoom, Iterable[tuple[Pixels, Array | None]]], tuple[StageOutput, list[Record]]]

BLANK = np.full((80, 120, 3), 90, np.uint8)
FACE = np.array([[40, 30], [60, 30], [50, 46.4], [32, 20], [30, 10], [38, 16], [62, 16], [70, 10], [68, 20]], float)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a stage on images with their landmarks (pixels counted from the centre of the first)."""

    def runs(stage: Zoom, photos: Iterable[tuple[Pixels, Array | None]]) -> tuple[StageOutput, list[Record]]:
        before = tmp_path / "before"
        before.mkdir(exist_ok=True)
        records = []
        for number, (image, points) in enumerate(photos):
            record = Record("original", f"{number:02d}", f"{number:02d}.jpg", f"{number}", file=f"{number:02d}.png")
            (before / record.file).write_bytes(encode(image, ".png"))
            records.append(replace(record, landmarks=None if points is None else rounded(points)))
        done = build(stage, tmp_path / "zoomed", before, tuple(records))
        return done, list(done.records)

    return runs


def dotted(points: Array, height: int = 300, width: int = 400) -> Pixels:
    """A dark picture with a bright spot at each of the first three points: red, green and blue."""
    rows, columns = np.mgrid[:height, :width]
    spots = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 50) for x, y in points[:3]]
    return np.rint(250 * np.stack(spots, axis=-1)).astype(np.uint8)


def centres(image: Pixels) -> Array:
    """Where the spots of `dotted` are, pixels counted from the centre of the first."""
    weights = image.astype(np.float64)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    sums = weights.sum((0, 1))
    return (
        np.stack([(weights * columns[..., None]).sum((0, 1)), (weights * rows[..., None]).sum((0, 1))], 1)
        / sums[:, None]
    )


def cat(number: int, size: int = 90, margin: int = 20) -> tuple[Pixels, Array]:
    """A drawn cat with some room around it, and its landmarks."""
    cats = renderer.render(number + 1, size, 0)
    image = cv2.copyMakeBorder(cats.images[number], margin, margin, margin, margin, cv2.BORDER_REPLICATE)
    return np.asarray(image, np.uint8), cats.landmarks[number] - 0.5 + margin


@pytest.mark.parametrize("angle", [0, 25, -140])
@pytest.mark.parametrize("size", [360, 90])
def test_eyes_and_mouth_come_to_lie_where_they_should(run: Run, size: int, angle: float) -> None:
    turn = np.add(cv2.getRotationMatrix2D((50, 35), angle, 1.7), [[0, 0, 150], [0, 0, 120]])
    points = align.transform(turn, FACE)
    done, [record] = run(Zoom(size=size, max_enlarged=9), [(dotted(points), points)])
    image = read_image(done.folder / record.file)
    assert image.shape == (size, size, 3)
    wanted = np.array([[130, 150], [230, 150], [180, 232]]) * size / 360 - 0.5
    np.testing.assert_allclose(centres(image), wanted, atol=0.3)
    assert record.points is not None
    np.testing.assert_allclose(record.points[:3], wanted, atol=0.05)
    assert (record.operation, record.confidence, record.doubts) == ("zoom: landmarks", 1.0, ())
    np.testing.assert_allclose(
        align.transform(np.array(record.parameters["matrix"]), points + 0.5) - 0.5, record.points, atol=0.05
    )


def test_a_drawn_cat_is_cut_by_its_landmarks(run: Run) -> None:
    _, records = run(Zoom(), [cat(number) for number in range(3)])
    for record in records:
        assert record.points is not None
        np.testing.assert_allclose(record.points[:3].mean(0), TARGETS.mean(0) * 360 - 0.5, atol=0.1)  # least squares
        assert np.abs(record.points[:3] - TARGETS * 360).max() < 12
        assert record.operation == "zoom: landmarks"


@pytest.mark.parametrize(
    "wrong", [[0, 80] - FACE * [-1, 1], FACE[:, ::-1], np.full((9, 2), 7.0), np.add(FACE, [5000, 0])]
)
def test_landmarks_that_cannot_be_a_face_are_passed_over_and_that_is_said(run: Run, wrong: Array) -> None:
    _, [record] = run(Zoom(whole="never"), [(BLANK, wrong)])
    assert record.operation == "zoom: centre"
    assert "landmarks" in record.parameters["landmarks"] or "too small" in record.parameters["landmarks"]
    assert record.landmarks is None


def test_without_landmarks_the_cascades_find_the_same_frame(run: Run) -> None:
    cats = [cat(number) for number in (0, 8, 9)]
    _, records = run(Zoom(whole="never"), [(image, None) for image, _ in cats])
    for record, (_, points) in zip(records, cats, strict=True):
        assert record.operation == "zoom: cascade"
        assert record.confidence is not None
        assert 0.5 < record.confidence <= 1
        found = align.transform(np.array(record.parameters["matrix"]), points[:2] + 0.5)
        assert np.abs(found - TARGETS[:2] * 360).max() < 40


def test_a_turned_cat_is_found_set_upright_and_doubted(run: Run) -> None:
    image, points = cat(8, margin=20)
    middle = (image.shape[1] - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -40, 1)
    tilted = np.asarray(cv2.warpAffine(image, turn, image.shape[:2], borderMode=cv2.BORDER_REPLICATE), np.uint8)
    _, [record] = run(Zoom(whole="never"), [(tilted, None)])
    assert record.operation == "zoom: cascade rotated"
    assert record.parameters["angle"] == 30
    assert any(doubt.startswith("turned: ") for doubt in record.doubts)
    found = align.transform(
        np.array(record.parameters["matrix"]), align.transform(np.asarray(turn, float), points)[:2] + 0.5
    )
    assert np.abs(found - TARGETS[:2] * 360).max() < 40


def test_where_there_is_no_face_the_middle_is_taken_and_doubted(run: Run) -> None:
    photo = BLANK.copy()
    photo[:, 20:100] = np.arange(80, dtype=np.uint8)[:, None, None]
    done, [record] = run(Zoom(size=80, whole="never"), [(photo, None)])
    np.testing.assert_array_equal(read_image(done.folder / record.file), photo[:, 20:100])
    assert (record.operation, record.confidence) == ("zoom: centre", 0.0)
    assert [doubt.split(":")[0] for doubt in record.doubts] == ["no face found"]
    assert record.kept


def test_whoever_looks_for_no_face_has_no_doubt_about_it(run: Run) -> None:
    _, [record] = run(Zoom(size=80, landmarks=False, cascades=False), [(BLANK, FACE)])
    assert (record.operation, record.confidence, record.doubts) == ("zoom: centre", None, ())
    assert record.points is not None
    np.testing.assert_allclose(record.points, FACE - [20, 0], atol=0.01)  # they move with the picture all the same


def test_a_face_that_has_to_be_enlarged_much_is_doubted(run: Run) -> None:
    photo = (dotted(FACE), FACE)  # eyes 20 pixels apart: enlarged five times at 360
    _, [record] = run(Zoom(), [photo])
    assert record.parameters["enlarged"] == pytest.approx(5, abs=0.01)
    assert "small: enlarged 5.0 times at 360 pixels" in record.doubts
    _, [record] = run(Zoom(final=180), [photo])  # 2.5 times
    assert "small: enlarged 2.5 times at 180 pixels" in record.doubts
    _, [record] = run(Zoom(final=140), [photo])
    assert not any(doubt.startswith("small") for doubt in record.doubts)
    _, [record] = run(Zoom(max_enlarged=5.1), [photo])
    assert not any(doubt.startswith("small") for doubt in record.doubts)
    _, [record] = run(Zoom(size=140), [photo])
    assert not any(doubt.startswith("small") for doubt in record.doubts)


EDGE = FACE - np.array([38.5, 9.5])  # the frame spans 72 pixels, of which 24 lie left of the photo and 9 above it


@pytest.mark.parametrize("border", ["reflect", "constant", "blur"])
def test_a_face_at_the_edge_is_filled_up_and_doubted(run: Run, border: str) -> None:
    photo = np.full((100, 100, 3), 200, np.uint8)
    done, [record] = run(Zoom(size=72, border=border, colour=(1, 2, 3)), [(photo, EDGE)])
    assert record.parameters["inside"] == pytest.approx(48 / 72 * 63 / 72, abs=0.02)
    assert any(doubt.startswith("cut off: ") for doubt in record.doubts)
    corner = read_image(done.folder / record.file)[0, 0].tolist()
    assert corner == ([1, 2, 3] if border == "constant" else [200, 200, 200])
    _, [record] = run(Zoom(size=72, border=border, min_inside=0.5), [(photo, EDGE)])
    assert record.doubts == ()


def test_drop_leaves_faces_at_the_edge_out_and_fills_up_what_little_is_missing_of_others(run: Run) -> None:
    photo = np.full((100, 100, 3), 200, np.uint8)
    near = FACE - np.array([16.5, 0])  # the frame begins two pixels left of the photo
    done, [whole, cut] = run(Zoom(size=72, border="drop"), [(photo, near), (photo, EDGE)])
    assert cut.reason.startswith("cut off: ")
    assert not (done.folder / "01.png").exists()
    assert whole.kept
    assert 0.9 < whole.parameters["inside"] < 1
    assert (read_image(done.folder / whole.file) == 200).all()


def test_transparent_images_stay_transparent_also_around(run: Run) -> None:
    image = np.dstack([np.full((100, 100, 3), 200, np.uint8), np.full((100, 100), 255, np.uint8)])
    done, [edge, blank] = run(Zoom(size=72), [(image, EDGE), (image, None)])
    result = read_image(done.folder / edge.file)
    assert result.shape == (72, 72, 4)
    assert result[0, 0, 3] == 0
    assert result[70, 70].tolist() == [200, 200, 200, 255]
    assert (read_image(done.folder / blank.file) == (200, 200, 200, 255)).all()


def test_it_comes_out_the_same_with_any_number_of_threads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photos: list[tuple[Pixels, Array | None]] = [cat(number) for number in (0, 9)]
    photos += [(image, None) for image, _ in photos]
    made = []
    for cores in (1, 4):
        monkeypatch.setattr("os.sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        _, records = run(Zoom(max_enlarged=1.0 + cores), photos)  # another key, so that it runs again
        made.append([(record.digest, record.parameters) for record in records])
    assert made[0] == made[1]


def test_the_configuration_is_what_the_stage_takes(root: Path) -> None:
    stage = instantiate(OmegaConf.load(root / "conf/prepare.yaml").zoom)
    assert stage.parameters() == Zoom(final=64).parameters()


def test_without_cascades_in_opencv_one_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "CascadeClassifier")
    with pytest.raises(ConfigError, match=r"opencv-python-headless>=4\.14,<5.*zoom\.cascades=false"):
        Zoom()
    Zoom(cascades=False)


@pytest.mark.photos
def test_real_cats_are_found_where_their_landmarks_are(photos: Path, run: Run) -> None:
    files = sorted((photos / "cats").glob("*.jpg"))[::300]
    truth = [
        np.array((file.parent / f"{file.name}.cat").read_text().split()[1:], float).reshape(9, 2) for file in files
    ]
    _, records = run(Zoom(landmarks=False), zip((decode(file) for file in files), truth, strict=True))
    right = 0
    for record in records:
        assert record.points is not None
        right += bool(np.hypot(*(record.points[:2] - TARGETS[:2] * 360).T).max() < 50)
    assert right >= 4
