import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep.data.files import Folder
from catsweep.data.prepare import perceptual
from catsweep.data.prepare.duplicates import Duplicates
from catsweep.data.prepare.making import build
from catsweep.data.prepare.original import Original
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.stage import SHEET, Done
from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate

Image = np.ndarray
FULL = (1 << 256) - 1  # far from all that is used here


def scene(seed: int, height: int = 120, width: int = 150) -> Image:
    """A picture with as much in it as a photo; two of them differ in 90 bits or more."""
    cells = np.random.default_rng(seed).integers(0, 256, (12, 15, 3), dtype=np.uint8)
    return np.clip(cv2.resize(cells, (width, height), interpolation=cv2.INTER_CUBIC), 8, 247)


def jpeg(image: Image, quality: int = 95) -> bytes:
    return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)


def png(image: Image) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


CHANGES: dict[str, Callable[[Image], bytes]] = {
    "small": lambda image: jpeg(cv2.resize(image, (75, 60), interpolation=cv2.INTER_AREA)),
    "pressed": lambda image: jpeg(image, 30),
    "cropped": lambda image: jpeg(image[2:-2, 2:-2], 80),
    "brighter": lambda image: jpeg(np.clip(image * 1.1 + 12, 0, 255).astype(np.uint8), 80),
}


def run(files: Mapping[str, bytes], root: Path, stage: Duplicates | None = None) -> Done:
    """Stages 0 and 1 of a folder with these files."""
    photos = root / "photos"
    shutil.rmtree(photos, ignore_errors=True)
    photos.mkdir(parents=True)
    for name, data in files.items():
        (photos / name).write_bytes(data)
    first = Original(Folder(photos, {".jpg", ".png"}))
    before = build(first, root / "0.original", root, first.inputs())
    return build(stage or Duplicates(), root / "1.no_duplicates", before.folder, before.kept)


def told(done: Done) -> dict[str, Record]:
    return {record.source: record for record in done.records}


@pytest.fixture(scope="module")
def mixed() -> dict[str, bytes]:
    """Six photos, and a copy of each of the first four, changed in one way or another."""
    files = {f"{seed}.jpg": jpeg(scene(seed)) for seed in range(6)}
    for seed, (change, made) in enumerate(CHANGES.items()):
        files[f"{seed}-{change}.jpg"] = made(scene(seed))
    return files


def test_changed_copies_are_found_and_nothing_else(mixed: dict[str, bytes], tmp_path: Path) -> None:
    records = told(run(mixed, tmp_path))
    for seed, change in enumerate(CHANGES):
        record = records[f"{seed}-{change}.jpg"]
        assert not record.kept
        kind, details = record.reason.split(": ", 1)
        assert kind == "duplicate"
        assert details == f"of {seed}.jpg, distance {record.parameters['distance']}"
        assert 0 < record.parameters["distance"] <= 64
        assert record.confidence == pytest.approx(1 - record.parameters["distance"] / 128, abs=1e-3)
        assert record.group == records[f"{seed}.jpg"].group
    kept = [record for record in records.values() if record.kept]
    assert [record.source for record in kept] == [f"{seed}.jpg" for seed in range(6)]
    assert {(record.doubts, record.confidence, record.operation) for record in kept} == {((), 1.0, "compare")}
    assert [record.group for record in kept] == [record.sha256 for record in kept]


def test_mirrored_copies_are_found_if_asked_for(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(scene(1)), "b.jpg": jpeg(scene(1)[:, ::-1], 85), "c.jpg": jpeg(scene(2))}
    record = told(run(files, tmp_path))["b.jpg"]
    assert record.reason == f"mirrored copy: of a.jpg, distance {record.parameters['distance']}"
    assert all(record.kept for record in run(files, tmp_path, Duplicates(mirrored=False)).records)


def test_equal_files_and_equal_pixels_are_exact_copies(tmp_path: Path) -> None:
    photo = jpeg(scene(1))
    noted = photo[:2] + b"\xff\xfe\x00\x08a note" + photo[2:]  # a comment changes the file, not the picture
    pixels = simplejpeg.decode_jpeg(photo)
    done = run({"b.jpg": photo, "a.jpg": photo, "noted.jpg": noted, "lossless.png": png(pixels)}, tmp_path)
    reasons = {record.source: record.reason for record in done.records}
    copy = "exact copy: of lossless.png"
    assert reasons == {"a.jpg": copy, "b.jpg": copy, "lossless.png": "", "noted.jpg": copy}
    assert {record.confidence for record in done.records} == {1.0}
    assert done.card["counts"]["refused"] == {"exact copy": 3}


def test_the_largest_file_is_kept_then_the_most_pixels_then_the_first_name(tmp_path: Path) -> None:
    large, small = jpeg(scene(1), 95), jpeg(scene(1), 60)
    assert told(run({"a.jpg": small, "b.jpg": large}, tmp_path / "1"))["b.jpg"].kept
    padded = small + b"\0" * (len(large) - len(small))  # what follows the end of a JPEG is not looked at
    assert told(run({"a.jpg": padded, "b.jpg": large}, tmp_path / "2"))["a.jpg"].kept
    shrunk = jpeg(scene(1, 60, 75), 95)
    padded = shrunk + b"\0" * (len(large) - len(shrunk))
    assert told(run({"a.jpg": padded, "b.jpg": large}, tmp_path / "3"))["b.jpg"].kept


def test_files_are_linked_and_copies_take_no_space(mixed: dict[str, bytes], tmp_path: Path) -> None:
    done = run(mixed, tmp_path)
    for record in done.kept:
        assert (done.folder / record.file).samefile(tmp_path / "0.original" / record.file)
    assert len(list(done.folder.glob("*.jpg"))) == len(done.kept) == 6


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    made: list[None] = []
    phash = perceptual.phash

    def counted(image: Image) -> tuple[str, str]:
        made.append(None)
        return phash(image)

    monkeypatch.setattr(perceptual, "phash", counted)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_no_photo_is_hashed_twice_and_nothing_of_an_earlier_verdict_stays(
    mixed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_hashes(monkeypatch)
    run(mixed, tmp_path / "old")
    assert len(made) == 10
    strict = Duplicates(threshold=0, review=1, mirrored=False)  # so all are kept
    done = run(mixed, tmp_path / "old", strict)
    assert len(made) == 10
    fewer = {name: data for name, data in mixed.items() if name != "0.jpg"} | {"new.jpg": jpeg(scene(9))}
    assert told(run(fewer, tmp_path / "old"))["0-small.jpg"].kept
    assert len(made) == 11
    run(mixed, tmp_path / "old", strict)
    run(mixed, tmp_path / "new", strict)
    assert len(done.kept) == 10
    assert content(tmp_path / "old" / "1.no_duplicates") == content(tmp_path / "new" / "1.no_duplicates")


def test_the_sheet_shows_copies_beside_what_they_are_copies_of(mixed: dict[str, bytes], tmp_path: Path) -> None:
    sheet = cv2.imread(str(run(mixed, tmp_path / "a").folder / SHEET))
    assert sheet.shape == (2 + 98, 2 + 8 * 98, 3)  # four pairs
    for left in range(2, 8 * 98, 2 * 98):
        one, other = (sheet[22:78, left + 98 * place : left + 98 * place + 96].astype(int) for place in (0, 1))
        assert np.abs(one - other).mean() < 40
    only = {name: data for name, data in mixed.items() if "-" not in name}
    assert cv2.imread(str(run(only, tmp_path / "b").folder / SHEET)).shape == (2 + 98, 2 + 6 * 98, 3)


@pytest.mark.parametrize("wrong", [{"threshold": 91}, {"threshold": -1}, {"review": 128}])
def test_distances_out_of_order_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"0 <= duplicates\.threshold <= duplicates\.review < 128"):
        Duplicates(**wrong)


def test_the_configuration_has_all_that_there_is_to_set(root: Path) -> None:
    node = OmegaConf.load(root / "conf" / "prepare.yaml").duplicates
    stage = instantiate(node)
    assert isinstance(stage, Duplicates)
    assert stage.parameters() == Duplicates().parameters()
    assert set(node) == {"_target_", *stage.parameters()}


# What becomes of photos with given hashes: no pixels are needed for it.


def photo(name: str, plain: int, mirror: int = FULL, size: int = 10, digest: str = "") -> Record:
    hashes = {"hash": f"{plain:064x}", "mirror": f"{mirror:064x}"}
    sha256 = name * 3
    return Record("", name, f"{name}.jpg", sha256, sha256, bytes=size, digest=digest or name, parameters=hashes)


def ones(count: int, start: int = 0) -> int:
    return ((1 << count) - 1) << start


@pytest.mark.parametrize(("count", "start", "of"), [(75, 36, "b.jpg, distance 67"), (70, 45, "a.jpg, distance 70")])
def test_a_photo_in_the_review_band_is_doubted_for_the_nearest_larger_one(count: int, start: int, of: str) -> None:
    photos = [photo("a", 0), photo("b", ones(80)), photo("c", ones(count, start))]
    large, middle, small = Duplicates(64, 90).judge(photos)
    assert large.doubts == ()
    assert middle.doubts == ("near-duplicate: of a.jpg, distance 80",)
    assert middle.confidence == 80 / 128
    assert small.doubts == (f"near-duplicate: of {of}",)
    assert large.kept
    assert middle.kept
    assert small.kept


@pytest.mark.parametrize(
    ("distance", "kept", "doubtful", "grouped"),
    [(64, False, False, True), (65, True, True, True), (90, True, True, True), (91, True, False, False)],
)
def test_the_bounds_belong_to_what_they_bound(distance: int, kept: bool, doubtful: bool, grouped: bool) -> None:
    large, small = Duplicates(64, 90).judge([photo("a", 0), photo("b", ones(distance))])
    assert large.kept
    assert (small.kept, bool(small.doubts), small.group == large.group) == (kept, doubtful, grouped)


@pytest.mark.parametrize(("distance", "reason"), [(64, "mirrored copy: of a.jpg, distance 64"), (65, "")])
def test_photos_that_are_alike_when_mirrored_are_copies_or_nothing(distance: int, reason: str) -> None:
    large, small = Duplicates().judge([photo("a", FULL, 0), photo("b", ones(distance), ones(40, 200))])
    assert small.reason == reason
    assert small.doubts == ()
    assert (small.group == large.group) == (reason != "")


def test_a_copy_of_a_copy_says_how_it_came_to_be_one() -> None:
    photos = [photo("a", 0), photo("b", ones(60)), photo("c", ones(120))]
    reasons = [record.reason for record in Duplicates().judge(photos)]
    assert reasons[1] == "duplicate: of a.jpg, distance 60"
    assert reasons[2] == "duplicate: of a.jpg, distance 120, by way of copies between the two"


@given(
    st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(0, 2)] * 2), min_size=1, max_size=9),
    st.integers(0, 4),
    st.integers(0, 4),
)
def test_photos_are_judged_as_the_definition_says(
    drawn: list[tuple[int, int, int, int]], threshold: int, more: int
) -> None:
    """Hashes are places on a line, so that it is easily seen how far they are from each other."""
    review = threshold + more
    order = sorted(range(len(drawn)), key=lambda number: (-drawn[number][2], str(number)))
    photos = [
        photo(str(number), ones(place), ones(mirror), size, f"{place} {mirror} {twin}")
        for number, (place, mirror, size, twin) in enumerate(drawn)
    ]
    told = Duplicates(threshold, review).judge([photos[number] for number in order])

    def plain(one: int, other: int) -> int:
        return abs(drawn[order[one]][0] - drawn[order[other]][0])

    def distance(one: int, other: int) -> int:
        (place, mirror, *_), (place_2, mirror_2, *_) = drawn[order[one]], drawn[order[other]]
        return min(plain(one, other), abs(mirror - place_2), abs(place - mirror_2))

    def joined(those: list[int], far: Callable[[int, int], int], limit: int) -> dict[int, int]:
        first = {one: one for one in those}
        for _ in those:
            for one in those:
                first[one] = min(first[other] for other in those if far(one, other) <= limit or one == other)
        return first

    keeper = joined(list(range(len(told))), distance, threshold)
    kept = sorted(set(keeper.values()))
    groups = joined(kept, plain, review)
    for row, record in enumerate(told):
        assert record.kept == (row in kept)
        label = min(told[other].sha256 for other in kept if groups[other] == groups[keeper[row]])
        assert record.group == label
        near = [(plain(row, other), other) for other in kept if other < row and plain(row, other) <= review]
        if record.kept and near:
            assert len(record.doubts) == 1
            assert record.parameters["of"] == told[min(near)[1]].id
        else:
            assert record.doubts == ()
        if not record.kept:
            of = told[keeper[row]]
            assert f": of {of.source}" in record.reason
            assert record.reason.startswith("exact copy") == (record.digest == of.digest)
            assert (record.parameters["of"], record.parameters["distance"]) == (of.id, distance(row, keeper[row]))


@pytest.mark.photos
def test_copies_of_real_photos_are_found_and_nothing_else(photos: Path, tmp_path: Path) -> None:
    names = sorted((photos / "cats").glob("*.jpg"))[::200]
    files: dict[str, bytes] = {}
    for number, name in enumerate(names):
        files[f"{number}.jpg"] = name.read_bytes()
        image = simplejpeg.decode_jpeg(files[f"{number}.jpg"])
        height, width = image.shape[:2]
        files[f"{number}-small.jpg"] = jpeg(cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
        files[f"{number}-pressed.jpg"] = jpeg(image, 40)
        edge = round(0.015 * min(height, width))
        files[f"{number}-cropped.jpg"] = jpeg(image[edge : height - edge, edge : width - edge], 90)
        files[f"{number}-brighter.jpg"] = jpeg(np.clip(image * 1.1 + 12, 0, 255).astype(np.uint8), 90)
        files[f"{number}-mirrored.jpg"] = jpeg(image[:, ::-1], 90)
    done = run(files, tmp_path)
    assert len(done.kept) == len(names) == 9
    number = {record.id: record.source.replace(".", "-").split("-")[0] for record in done.records}
    for record in done.records:
        if not record.kept:  # in favour of the largest file, which need not be the original
            assert number[record.id] == number[record.parameters["of"]]
    assert not any(record.doubts for record in done.kept)
