import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from catsweep.data.files import Folder
from catsweep.data.ready import VAL, split
from catsweep.errors import ConfigError
from catsweep.instantiation import instantiate
from catsweep.prepare import image_matching
from catsweep.prepare.image_matching import Match
from catsweep.prepare.manifest import Record
from catsweep.prepare.stage import SHEET, StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.duplicates import Duplicates
from catsweep.prepare.stages.original import Original

Image = np.ndarray
FACES = 24
FULL = (1 << 256) - 1  # far from all that is used here


def scene(seed: int, height: int = 120, width: int = 150) -> Image:
    """A picture with as much in it as a photo."""
    random = np.random.default_rng(seed)
    layers = [cv2.resize(random.uniform(0, 1, (side, side, 3)), (width, height)) for side in (5, 12, 24)]
    return np.clip(np.rint(340 * sum(layers) / 3 - 42), 8, 247).astype(np.uint8)


def face(seed: int, side: int = 48) -> Image:
    """A picture that has most in common with the others of its kind, as aligned faces do."""
    common, own = scene(0, side, side) - 128.0, scene(1000 + seed, side, side) - 128.0
    return np.clip(128 + 0.8 * common + 0.7 * own, 0, 255).astype(np.uint8)


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


def run(files: Mapping[str, bytes], root: Path, stage: Duplicates | None = None, max_side: int = 2048) -> StageOutput:
    """Stages 0 and 1 of a folder with these files."""
    photos = root / "photos"
    shutil.rmtree(photos, ignore_errors=True)
    photos.mkdir(parents=True)
    for name, data in files.items():
        (photos / name).write_bytes(data)
    first = Original(Folder(photos, {".jpg", ".png"}), max_side=max_side)
    before = build(first, root / "0.original", root, first.inputs())
    return build(stage or Duplicates(), root / "1.no_duplicates", before.folder, before.kept)


def told(done: StageOutput) -> dict[str, Record]:
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
        assert details == f"of {seed}.jpg, {record.parameters['agreement']:.0%} the same"
        assert 0.75 <= record.parameters["agreement"] == record.confidence
        assert record.group == records[f"{seed}.jpg"].group
    kept = [record for record in records.values() if record.kept]
    assert [record.source for record in kept] == [f"{seed}.jpg" for seed in range(6)]
    assert {(record.doubts, record.confidence, record.operation) for record in kept} == {((), 1.0, "compare")}
    assert [record.group for record in kept] == [record.sha256 for record in kept]


def test_mirrored_copies_are_found_if_asked_for(tmp_path: Path) -> None:
    files = {"a.jpg": jpeg(scene(1)), "b.jpg": jpeg(scene(1)[:, ::-1], 85), "c.jpg": jpeg(scene(2))}
    record = told(run(files, tmp_path))["b.jpg"]
    assert record.reason == f"mirrored copy: of a.jpg, {record.parameters['agreement']:.0%} the same"
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


def test_the_most_pixels_are_kept_then_the_largest_file_then_the_first_name(tmp_path: Path) -> None:
    large, small = jpeg(scene(1, 240, 320), 60), jpeg(scene(1, 100, 133), 95)
    small += b"\0" * len(large)  # what follows the end of a JPEG is not looked at
    assert told(run({"a.jpg": small, "b.jpg": large}, tmp_path / "1"))["b.jpg"].kept
    fine, coarse = jpeg(scene(1), 95), jpeg(scene(1), 60)
    assert told(run({"a.jpg": coarse, "b.jpg": fine}, tmp_path / "2"))["b.jpg"].kept
    padded = coarse + b"\0" * (len(fine) - len(coarse))
    assert told(run({"a.jpg": padded, "b.jpg": fine}, tmp_path / "3"))["a.jpg"].kept


def test_the_pixels_are_those_of_the_photo_as_it_was_found(tmp_path: Path) -> None:
    """Both come out of stage `original` as large as it lets them be."""
    files = {"a.jpg": jpeg(scene(1, 240, 300), 95), "b.jpg": jpeg(scene(1, 480, 600), 30)}
    assert len(files["a.jpg"]) > len(files["b.jpg"])
    assert [record.source for record in run(files, tmp_path, max_side=200).kept] == ["b.jpg"]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3])
def test_crops_are_found_wherever_they_were_cut_out(share: float, tmp_path: Path) -> None:
    files = {f"{seed}.jpg": jpeg(scene(seed, 240, 320)) for seed in range(6)}
    height, width = round(240 * (1 - share)), round(320 * (1 - share))
    for seed in range(3):
        top, left = (240 - height) * seed // 2, (320 - width) * (2 - seed) // 2
        files[f"{seed}-crop.jpg"] = jpeg(scene(seed, 240, 320)[top : top + height, left : left + width], 80)
    records = told(run(files, tmp_path))
    assert [name for name, record in records.items() if record.kept] == [f"{seed}.jpg" for seed in range(6)]
    for seed in range(3):
        kind, details = records[f"{seed}-crop.jpg"].reason.split(": ")
        assert kind == ("duplicate" if (1 - share) ** 2 > 0.85 else "cropped copy")
        assert details.startswith(f"of {seed}.jpg, ")
        assert records[f"{seed}-crop.jpg"].group == records[f"{seed}.jpg"].group
    if share == 0.3:
        assert told(run(files, tmp_path, Duplicates(crops=False)))["0-crop.jpg"].kept


def test_photos_of_one_kind_are_neither_copies_nor_one_group(tmp_path: Path) -> None:
    """Aligned faces: all are alike, so their hashes are too. Copies among them are found all the same."""
    files = {f"{seed:03}.png": png(face(seed)) for seed in range(FACES)}
    files |= {f"{seed:03}-copy.jpg": jpeg(face(seed), 80) for seed in range(4)}
    done = run(files, tmp_path)
    hashes = image_matching.Hashes.read([record.parameters["hash"] for record in done.records], None)
    close = sum(len(pairs[0]) for pairs in image_matching.close_pairs(hashes, 64))
    assert close > 2  # by their hashes these would be copies
    assert [record.source for record in done.kept] == [f"{seed:03}.png" for seed in range(FACES)]
    groups = Counter(record.group for record in done.kept)
    assert max(groups.values()) <= 4


@pytest.mark.parametrize("names", ["abcdefgh", "hgfedcba", "dbhfagce"])
def test_what_is_kept_does_not_depend_on_names_or_order(names: str, tmp_path: Path) -> None:
    made = [jpeg(scene(seed)) for seed in range(4)] + [jpeg(scene(seed), 40) for seed in range(4)]
    done = run({f"{name}.jpg": data for name, data in zip(names, made, strict=True)}, tmp_path)
    assert {record.sha256 for record in done.kept} == {hashlib.sha256(data).hexdigest() for data in made[:4]}
    assert {record.group for record in done.records} == {record.sha256 for record in done.kept}


def test_files_are_linked_and_copies_take_no_space(mixed: dict[str, bytes], tmp_path: Path) -> None:
    done = run(mixed, tmp_path)
    for record in done.kept:
        assert (done.folder / record.file).samefile(tmp_path / "0.original" / record.file)
    assert len(list(done.folder.glob("*.jpg"))) == len(done.kept) == 6


def count_hashes(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    made: list[None] = []
    phash = image_matching.phash

    def counted(image: Image) -> tuple[str, str]:
        made.append(None)
        return phash(image)

    monkeypatch.setattr(image_matching, "phash", counted)
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_no_photo_is_hashed_twice_and_nothing_of_an_earlier_verdict_stays(
    mixed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = count_hashes(monkeypatch)
    run(mixed, tmp_path / "old")
    assert len(made) == 10
    strict = Duplicates(threshold=1, review=1, mirrored=False)
    run(mixed, tmp_path / "old", strict)
    assert len(made) == 10
    fewer = {name: data for name, data in mixed.items() if name != "0.jpg"} | {"new.jpg": jpeg(scene(9))}
    assert told(run(fewer, tmp_path / "old"))["0-small.jpg"].kept
    assert len(made) == 11
    run(mixed, tmp_path / "old", strict)
    run(mixed, tmp_path / "new", strict)
    assert content(tmp_path / "old" / "1.no_duplicates") == content(tmp_path / "new" / "1.no_duplicates")


def test_the_sheet_shows_copies_beside_what_they_are_copies_of(mixed: dict[str, bytes], tmp_path: Path) -> None:
    sheet = cv2.imread(str(run(mixed, tmp_path / "a").folder / SHEET))
    assert sheet is not None
    assert sheet.shape == (2 + 98, 2 + 8 * 98, 3)  # four pairs
    for left in range(2, 8 * 98, 2 * 98):
        one, other = (sheet[22:78, left + 98 * place : left + 98 * place + 96].astype(int) for place in (0, 1))
        assert np.abs(one - other).mean() < 40
    only = {name: data for name, data in mixed.items() if "-" not in name}
    assert cv2.imread(str(run(only, tmp_path / "b").folder / SHEET)).shape == (2 + 98, 2 + 6 * 98, 3)


@pytest.mark.parametrize("wrong", [{"threshold": 64, "review": 90}, {"threshold": 0.4}, {"review": 0}])
def test_shares_out_of_order_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"0 < duplicates\.review <= duplicates\.threshold <= 1"):
        Duplicates(**wrong)


def test_the_configuration_has_all_that_there_is_to_set(root: Path) -> None:
    node = OmegaConf.load(root / "conf" / "prepare.yaml").duplicates
    stage = instantiate(node)
    assert isinstance(stage, Duplicates)
    assert stage.parameters() == Duplicates().parameters()
    assert set(node) == {"_target_", *stage.parameters()}


# What becomes of photos that fit each other in a given way: no pixels are needed for it.


def photo(name: str, plain: int = 0, mirror: int = FULL, digest: str = "") -> Record:
    hashes = {"hash": f"{plain:064x}", "mirror": f"{mirror:064x}", "keypoints": ""}
    return Record("", name, f"{name}.jpg", name * 3, name * 3, digest=digest or name, parameters=hashes)


def judged(photos: list[Record], fits: Mapping[str, float | Match], stage: Duplicates | None = None) -> list[Record]:
    """Photos whose hashes are all candidates, where the two in a name such as "ab" fit so well."""

    def compare(larger: Record, smaller: Record, mirrored: bool) -> Match:
        found = fits.get(larger.id + smaller.id, 0.0)
        return found if isinstance(found, Match) else Match(found, 1.0, 1.0)

    return (stage or Duplicates()).judge(photos, compare)


def ones(count: int) -> int:
    return (1 << count) - 1


@pytest.mark.parametrize(
    ("agreement", "kept", "doubtful", "grouped"),
    [(0.76, False, False, True), (0.75, False, False, True), (0.74, True, True, True), (0.45, True, True, True),
     (0.44, True, False, False)],
)  # fmt: skip
def test_the_bounds_belong_to_what_they_bound(agreement: float, kept: bool, doubtful: bool, grouped: bool) -> None:
    large, small = judged([photo("a"), photo("b")], {"ab": agreement})
    assert large.kept
    assert large.doubts == ()
    assert (small.kept, bool(small.doubts), small.group == large.group) == (kept, doubtful, grouped)


def test_a_doubt_names_the_larger_photo_that_is_most_alike() -> None:
    told = judged([photo("a"), photo("b"), photo("c")], {"ac": 0.5, "bc": 0.6})
    assert told[2].doubts == ("near-duplicate: of b.jpg, 60% the same",)
    assert (told[2].parameters["of"], told[2].confidence) == ("b", 0.4)
    assert len({record.group for record in told}) == 1


@pytest.mark.parametrize(
    ("fits", "reason", "grouped"),
    [
        (Match(0.9, 1.0, 0.8), "duplicate: of a.jpg, 90% the same", True),  # b has a frame around it
        (Match(0.9, 0.5, 0.9), "cropped copy: of a.jpg, 50% of it", True),
        (Match(0.9, 0.3, 1.0), "", True),  # a detail of it is a photo of its own, but must not be held out
        (Match(0.9, 0.1, 1.0), "", False),
        (Match(0.9, 0.6, 0.6), "", True),
    ],
)
def test_what_they_have_in_common_decides_what_a_copy_is(fits: Match, reason: str, grouped: bool) -> None:
    large, small = judged([photo("a"), photo("b")], {"ab": fits})
    assert small.reason == reason
    assert (small.group == large.group) == grouped


def test_photos_are_compared_with_what_is_kept_so_that_copies_do_not_chain() -> None:
    """A cat that moves slowly: each picture is a copy of the one before, but the last is none of the first."""
    frames = "abcdefghij"
    places = {name: place for place, name in enumerate(frames)}
    fits = {one + other: 1 - 0.1 * (places[other] - places[one]) for one in frames for other in frames}
    told = judged([photo(name, ones(place)) for place, name in enumerate(frames)], fits)
    assert [record.id for record in told if record.kept] == ["a", "d", "g", "j"]
    for record in told:
        if not record.kept:
            assert fits[record.parameters["of"] + record.id] >= 0.75


def test_what_is_alike_does_not_chain_beyond_a_share_of_the_set() -> None:
    names = [chr(place) for place in range(0x100, 0x100 + 400)]
    fits = {one + other: 0.6 for one, other in pairwise(names)}
    told = judged([photo(name, place // 2) for place, name in enumerate(names)], fits)
    sizes = Counter(record.group for record in told)
    assert max(sizes.values()) == 8  # 2 % of 400
    assert max(Counter(record.group for record in judged([photo(n) for n in names[:30]], fits)).values()) == 4
    assert all(record.kept for record in told)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_held_out_looks_like_the_rest(seed: int) -> None:
    """Photos on a line, each like its neighbours: the distance is within the range of random splits of the groups."""
    random = np.random.default_rng(seed)
    looks = np.sort(random.normal(0, 1, 200))
    names = [f"{number:03}" for number in random.permutation(200)]
    fits = {one + other: 0.6 for one, other in [*pairwise(names), *pairwise(names[::-1])]}
    told = judged([photo(name, ones(names.index(name))) for name in sorted(names)], fits)
    group = {record.id: record.group for record in told}
    assert len(set(group.values())) < 100
    held = np.array([part == VAL for part in split([group[name] for name in names], 0.1)])
    assert held.sum() == 20
    features = np.stack([looks, looks**2], axis=1)

    def otherwise(salt: int) -> float:
        return apart(features, np.array([part == VAL for part in split([f"{salt} {group[n]}" for n in names], 0.1)]))

    assert apart(features, held) <= max(map(otherwise, range(100)))


def apart(features: np.ndarray, held: np.ndarray) -> float:
    """Fréchet distance of the features of held-out photos to those of the others."""
    one, other = features[held].astype(float), features[~held].astype(float)
    spread, spread_2 = np.cov(one.T), np.cov(other.T)
    root = np.sqrt(np.maximum(np.linalg.eigvals(spread @ spread_2).real, 0)).sum()
    return float(((one.mean(0) - other.mean(0)) ** 2).sum() + np.trace(spread + spread_2) - 2 * root)


def test_the_most_alike_are_put_into_one_group_first() -> None:
    names = "abcdef"
    fits = {"ab": 0.6, "bc": 0.5, "cd": 0.7, "de": 0.65, "ef": 0.69}
    told = judged([photo(name) for name in names], fits)
    assert [record.group[0] for record in told] == ["a", "a", "c", "c", "c", "c"]


@pytest.mark.parametrize(("mirrored", "reason"), [(True, "mirrored copy: of a.jpg, 90% the same"), (False, "")])
def test_mirror_images_are_candidates_if_asked_for(mirrored: bool, reason: str) -> None:
    photos = [photo("a", FULL, 0), photo("b", 15, FULL ^ 15 << 9)]
    assert judged(photos, {"ab": 0.9}, Duplicates(mirrored=mirrored))[1].reason == reason


def test_the_copy_of_a_mirrored_copy_is_mirrored_too() -> None:
    asked: list[tuple[str, bool]] = []

    def compare(larger: Record, smaller: Record, mirrored: bool) -> Match:
        asked.append((larger.id + smaller.id, mirrored))
        return Match(0.9, 1.0, 1.0)

    quarter = FULL >> 128
    photos = [photo("a", FULL, 0), photo("b", 1, FULL), photo("c", 0, quarter)]
    assert [record.reason[:8] for record in Duplicates().judge(photos, compare)] == ["", "mirrored", "mirrored"]
    assert asked == [("ab", True), ("ac", True)]


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from("xyz ")), min_size=1, max_size=7),
    st.dictionaries(st.tuples(*[st.sampled_from("0123456")] * 2), st.sampled_from([0.3, 0.5, 0.6, 0.8, 1.0])),
)
def test_every_photo_is_kept_or_a_copy_of_one_that_is(
    drawn: list[tuple[int, str]], agreement: dict[tuple[str, str], float]
) -> None:
    photos = [photo(str(n), ones(bits), digest=twin.strip() or str(n)) for n, (bits, twin) in enumerate(drawn)]
    fits = {one + other: share for (one, other), share in agreement.items()}
    told = judged(photos, fits)
    by_id, first = {record.id: record for record in told}, {record.digest: record.id for record in reversed(told)}
    kept = [record for record in told if record.kept]
    for record in told:
        if record.kept:
            assert not any(fits.get(other.id + record.id, 0) >= 0.75 for other in kept if other.id < record.id)
            assert first[record.digest] == record.id
        else:
            of = by_id[record.parameters["of"]]
            assert of.kept
            assert of.group == record.group
            assert record.digest == of.digest or fits[of.id + first[record.digest]] >= 0.75


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
    original = {record.id: record.source.replace(".", "-").split("-")[0] for record in done.records}
    for record in done.records:
        if not record.kept:  # in favour of the largest file, which need not be the original
            assert original[record.id] == original[record.parameters["of"]]
    assert not any(record.doubts for record in done.kept)
