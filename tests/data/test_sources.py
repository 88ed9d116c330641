import csv
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from catsweep.data import files, sources
from catsweep.data.ready import Item, ReadySet, open_or_build
from catsweep.data.sources import DemoCats, KaggleCats, Photos
from catsweep.errors import ConfigError, DataError

Picture = Callable[..., NDArray[np.uint8]]


def by_name(source: Photos, size: int = 32) -> dict[str, Item]:
    return {item.source: item for item in source.items(size)}


# --- photos --------------------------------------------------------------------------------------------------------


def test_every_photo_of_the_tree_is_found_in_the_order_of_names(folder: Path) -> None:
    items = list(Photos(folder).items(32))
    assert [item.source for item in items] == [
        "0.jpg", "3.jpg", "6.jpg", "more/1.jpg", "more/4.jpg", "more/7.jpg", "more/deep/2.jpg", "more/deep/5.jpg"
    ]  # fmt: skip
    assert {item.image.shape for item in items if item.image is not None} == {(32, 32, 3)}
    assert {(item.width, item.height) for item in items} == {(80, 60)}
    assert not any(item.reason for item in items)


def test_the_centre_is_kept_whole(tmp_path: Path) -> None:
    photo = np.zeros((60, 100, 3), dtype=np.uint8)
    photo[:, 20:80] = 200
    Image.fromarray(photo).save(tmp_path / "x.png")
    (item,) = Photos(tmp_path).items(32)
    assert item.image is not None
    assert (item.image == 200).all()


def test_odd_files_are_listed_with_the_reason_and_stop_nothing(folder: Path, picture: Picture, tmp_path: Path) -> None:
    good = (folder / "0.jpg").read_bytes()
    (folder / "empty.jpg").touch()
    (folder / "text.JPG").write_text("meow")
    (folder / "cut.jpeg").write_bytes(good[:300])
    (folder / "tiny.png").write_bytes(b"")
    Image.fromarray(picture(20, 40)).save(folder / "tiny.png")
    (folder / "link.jpg").symlink_to(folder / "0.jpg")
    (tmp_path / "outside").mkdir()
    shutil.copy(folder / "0.jpg", tmp_path / "outside" / "secret.jpg")
    (folder / "out").symlink_to(tmp_path / "outside", target_is_directory=True)
    (folder / "round").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "._0.jpg").write_bytes(b"resource fork")
    (folder / ".thumbnails").mkdir()
    shutil.copy(folder / "0.jpg", folder / ".thumbnails" / "0.jpg")
    refused = {name: item.reason for name, item in by_name(Photos(folder)).items() if item.image is None}
    assert {name: reason.split(":")[0] for name, reason in refused.items()} == {
        "empty.jpg": "empty file",
        "text.JPG": "not an image",
        "cut.jpeg": "damaged or truncated",
        "tiny.png": "photo too small",
        "link.jpg": "not a regular file",
        "out": "not a regular file",
        "round": "not a regular file",
        "pipe.jpg": "not a regular file",
    }
    assert len(by_name(Photos(folder))) == 8 + len(refused)
    assert refused["tiny.png"] == "photo too small: 40 x 20 pixels, at least 32 are needed"


def test_a_name_that_is_not_utf8_survives_to_the_manifest(folder: Path, tmp_path: Path) -> None:
    try:
        os.rename(folder / "0.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    ready = open_or_build(Photos(folder), 32, tmp_path / "ready", 0.2)
    assert b"caf\xe9.jpg" in [os.fsencode(row.source) for row in ready.rows]


def test_the_key_follows_content_names_and_parameters_but_not_times_or_place(folder: Path, tmp_path: Path) -> None:
    before = Photos(folder).key(32)
    os.utime(folder / "0.jpg", (1, 1))
    assert Photos(str(folder)).key(32) == before
    shutil.copytree(folder, tmp_path / "copy")
    assert Photos(tmp_path / "copy").key(32) == before
    (folder / "notes.txt").write_text("changed")
    assert Photos(folder).key(32) == before
    assert Photos(folder, min_side=10).key(32) != before
    (tmp_path / "copy" / "0.jpg").rename(tmp_path / "copy" / "00.jpg")
    assert Photos(tmp_path / "copy").key(32) != before
    data = (folder / "0.jpg").read_bytes()
    (folder / "0.jpg").write_bytes(data[:-1] + b"\0")
    assert Photos(folder).key(32) != before


def test_the_key_follows_the_code(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Photos(folder).key(32), DemoCats(3).key(32)
    copies = shutil.copytree(Path(sources.__file__).parents[1], tmp_path / "code")
    monkeypatch.setattr(files, "SOURCE", copies)
    assert (Photos(folder).key(32), DemoCats(3).key(32)) == before
    (copies / "data" / "decode.py").write_text("DIFFERENT = True")
    assert Photos(folder).key(32) != before[0]
    assert DemoCats(3).key(32) == before[1]


def test_of_copies_one_is_kept_and_renaming_moves_nothing(folder: Path, tmp_path: Path) -> None:
    alone = open_or_build(Photos(folder), 32, tmp_path / "alone", 0.25)
    for number in range(8):
        photo = next(folder.rglob(f"{number}.jpg"))
        shutil.copy(photo, folder / f"copy of {number}.jpg")
    ready = open_or_build(Photos(folder), 32, tmp_path / "ready", 0.25)
    left_out = {row.source: row.reason for row in ready.rows if not row.kept}
    assert ready.card["refused"] == {"exact copy": 8}
    assert left_out["more/1.jpg"] == "exact copy: of copy of 1.jpg"
    assert sorted(row.sha256 for row in ready.rows if row.kept) == sorted(row.sha256 for row in alone.rows)
    assert {row.sha256: row.split for row in ready.rows if row.kept} == {row.sha256: row.split for row in alone.rows}
    splits = {row.sha256: row.split for row in ready.rows if row.kept}
    for number, photo in enumerate(sorted(folder.rglob("*.jpg"), reverse=True)):
        photo.rename(photo.with_name(f"z{number}.jpg"))
    renamed = open_or_build(Photos(folder), 32, tmp_path / "ready", 0.25)
    assert renamed.path != ready.path
    assert {row.sha256: row.split for row in renamed.rows if row.kept} == splits


def test_of_equal_pixels_the_larger_file_is_kept_then_the_first_by_name(
    tmp_path: Path, picture: Picture, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (tmp_path / "in").mkdir()
    image, other = Image.fromarray(picture()), Image.fromarray(picture(seed=1))
    for name in ("a.png", "d.png"):
        image.save(tmp_path / "in" / name)
    image.save(tmp_path / "in" / "b.bmp")
    image.save(tmp_path / "in" / "c.png", compress_level=9)
    other.save(tmp_path / "in" / "f.png")
    shutil.copy(tmp_path / "in" / "f.png", tmp_path / "in" / "e.png")
    ready = open_or_build(Photos(tmp_path / "in"), 32, tmp_path / "ready", 0.5)
    assert {row.source: row.reason for row in ready.rows} == {
        "b.bmp": "", "e.png": "", "f.png": "exact copy: of e.png",
        **dict.fromkeys(("a.png", "c.png", "d.png"), "exact copy: of b.bmp"),
    }  # fmt: skip
    ready.verify()
    assert "photos: 6 photos found, 2 ready, 4 left out (4 exact copy)" in caplog.text


def test_of_one_training_image_the_photo_of_most_pixels_is_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for side in (40, 80, 60):
        Image.new("RGB", (side, side), (200, 40, 40)).save(tmp_path / "in" / f"{side}.png")
    ready = open_or_build(Photos(tmp_path / "in"), 32, tmp_path / "ready", 0.5)
    assert [row.source for row in ready.rows if row.kept] == ["80.png"]


def test_what_was_assumed_of_a_photo_stands_in_the_manifest(tmp_path: Path, picture: Picture) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.jpg", icc_profile=b"cat food")
    Image.fromarray(picture()[..., 0].astype(np.uint16) * 16).save(tmp_path / "in" / "b.tif")
    Image.fromarray(picture(seed=1)).save(tmp_path / "in" / "c.jpg")
    ready = open_or_build(Photos(tmp_path / "in"), 32, tmp_path / "ready", 0.5)
    broken, deep, plain = ReadySet.open(ready.path).rows
    assert broken.notes.startswith("colour profile ignored: ")
    assert deep.notes.startswith("levels by their range: ")
    assert plain.notes == ""


# --- photos under other names, and what is none ---------------------------------------------------------------------

NAMES = ["photo", "photo.jpg_large", "photo.jpg!d", "photo.jpeg?w=300", "photo.jpg.1", "photo.jpg~", "photo.pjpeg",
         "photo.tmp", "photo.jpg ", "photo.pjp", "photo.", "PHOTO.BIN", "notes.txt", "a.jfif", "b.JPE"]  # fmt: skip
KINDS = ["folder", "zip", "tar", "tgz"]


def packed(folder: Path, kind: str) -> Path:
    if kind == "folder":
        return folder
    return Path(shutil.make_archive(str(folder), "gztar" if kind == "tgz" else kind, folder))


@pytest.mark.parametrize("kind", KINDS)
def test_photos_under_any_name_are_read(tmp_path: Path, picture: Picture, kind: str) -> None:
    (tmp_path / "in").mkdir()
    for seed, name in enumerate(NAMES):
        Image.fromarray(picture(seed=seed)).save(tmp_path / "in" / name, ("JPEG", "PNG", "WEBP", "TIFF")[seed % 4])
    source = Photos(packed(tmp_path / "in", kind))
    ready = open_or_build(source, 32, tmp_path / "ready", 0.2)
    assert sorted(row.source for row in ready.rows if row.kept) == sorted(NAMES)
    assert source.passed_over() == {}
    assert not (ready.path / "passed_over.csv").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_passed_over_is_counted_and_named(
    folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    (folder / ".git" / "deep").mkdir(parents=True)
    (folder / "__MACOSX").mkdir()
    good = (folder / "0.jpg").read_bytes()
    others: dict[str, bytes] = {
        ".hidden.jpg": good, ".git/config": b"x", ".git/deep/0.jpg": good, "__MACOSX/._0.jpg": b"x", "._0.jpg": b"x",
        "more/Thumbs.db": b"\xd0\xcf\x11\xe0", "0.jpg.cat": b"9 1 2", "0.jpg.json": b"{}", "none": b"",
        "LICENSE": b"MIT", "bmw.doc": b"BMW and other cars, of which this is a list", "x.nef": b"MM\0*" + bytes(99),
    }  # fmt: skip
    for name, data in others.items():
        (folder / name).write_bytes(data)
    source = Photos(packed(folder, kind))
    expected = {
        ".hidden.jpg": "hidden", ".git/": "hidden", "__MACOSX/": "metadata of macOS", "._0.jpg": "metadata of macOS",
        "more/Thumbs.db": "not an image: .db", "0.jpg.json": "not an image: .json", "none": "empty file",
        "LICENSE": "not an image: without a suffix", "bmw.doc": "not an image: .doc",
        "x.nef": "camera raw: save it as JPEG first", "notes.txt": "not an image: .txt",
    }  # fmt: skip
    assert source.passed_over() == expected
    ready = open_or_build(source, 32, tmp_path / "ready", 0.2)
    assert len(ready) == 8
    with (ready.path / "passed_over.csv").open(newline="") as file:
        assert {row["source"]: row["reason"] for row in csv.DictReader(file)} == expected
    assert "photos: 11 other files passed over: " in caplog.text
    assert "2 metadata of macOS (._0.jpg, __MACOSX/)" in caplog.text


def test_what_cannot_be_opened_and_has_no_known_name_is_named_too(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to(folder / "0.jpg")
    assert Photos(folder).passed_over() == {
        "link": "not a regular file: a link (links are not followed)", "notes.txt": "not an image: .txt",
        "pipe": "not a regular file: a pipe",
    }  # fmt: skip


def test_no_folder_is_an_error_that_says_what_to_type(tmp_path: Path) -> None:
    for source, name in ((Photos(None), "photos"), (KaggleCats(None), "kaggle_cats")):
        with pytest.raises(ConfigError, match=f"data={name} needs .* add data.source=DIR"):
            source.key(32)
    with pytest.raises(DataError, match=r"data\.source=/nowhere is not there"):
        Photos("/nowhere").key(32)


def test_an_empty_folder_is_an_error_that_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"\.jpg .* in .*empty.* none found"):
        open_or_build(Photos(tmp_path / "empty"), 32, tmp_path, 0.1)
    with pytest.raises(DataError, match="data=photos needs none"):
        open_or_build(KaggleCats(tmp_path / "empty"), 32, tmp_path, 0.1)


def test_a_subfolder_one_may_not_list_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"Expected to list .*deep, but: Permission denied"):
        Photos(folder).key(32)


def test_a_tilde_is_ones_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(list(Photos("~/photos").items(32))) == 8


# --- Kaggle's layout -----------------------------------------------------------------------------------------------


def write_face(file: Path, picture: Picture, seed: int = 0, turn: float = 0.3, text: str | None = None) -> None:
    """A photo with a red, a green and a blue spot for the eyes and the mouth, and its landmarks."""
    photo = picture(240, 320, seed=seed) // 4
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.array([[-25, 0], [25, 0], [0, 39], *[[-30, -20]] * 3, *[[30, -20]] * 3]) @ rotation.T + [150, 110]
    points = points.round()
    rows, columns = np.mgrid[:240, :320]
    for channel, (x, y) in enumerate(points[:3]):
        photo[np.hypot(columns - x, rows - y) < 6] = np.eye(3, dtype=np.uint8)[channel] * 255
    Image.fromarray(photo).save(file, quality=97, subsampling=0)
    numbers = " ".join(str(int(value)) for value in points.ravel())
    file.with_name(file.name + ".cat").write_text(f"9 {numbers} " if text is None else text)


@pytest.mark.parametrize("turn", [0.0, 0.4, -2.0, 3.1])
@pytest.mark.parametrize("size", [64, 128, 400])
def test_eyes_and_mouth_come_to_their_place_however_the_head_is_turned(
    tmp_path: Path, picture: Picture, turn: float, size: int
) -> None:
    write_face(tmp_path / "x.jpg", picture, turn=turn)
    (item,) = KaggleCats(tmp_path).items(size)
    assert item.image is not None
    assert item.landmarks is not None
    wanted = np.array(list(sources.FACE.values())) * size
    found = []
    for channel in range(3):
        others = [c for c in range(3) if c != channel]
        spot = (item.image[..., channel] > 150) & (item.image[..., others] < 100).all(axis=-1)
        found.append(np.argwhere(spot).mean(axis=0)[::-1] + 0.5)
    np.testing.assert_allclose(found, wanted, atol=0.012 * size)
    np.testing.assert_allclose(item.landmarks[:3] + 0.5, wanted, atol=0.012 * size)
    # Their mean is exact, but for the pixels: half a pixel of the photo would show.
    np.testing.assert_allclose(np.mean(found, axis=0), wanted.mean(axis=0), atol=0.003 * size)


def test_the_face_can_be_put_elsewhere(tmp_path: Path, picture: Picture) -> None:
    write_face(tmp_path / "x.jpg", picture)
    face = {"mouth": [0.5, 0.76], "left_eye": [0.25, 0.37], "right_eye": [0.75, 0.37]}  # in any order
    (item,) = KaggleCats(tmp_path, face=face).items(64)
    assert item.landmarks is not None
    np.testing.assert_allclose(item.landmarks[0] + 0.5, [16, 64 * 0.37], atol=0.5)
    with pytest.raises(ConfigError, match="left_eye, right_eye, mouth"):
        KaggleCats(tmp_path, face={"nose": [0.5, 0.5]})


def test_photos_without_good_landmarks_are_listed_with_the_reason(tmp_path: Path, picture: Picture) -> None:
    write_face(tmp_path / "good.jpg", picture)
    write_face(tmp_path / "missing.jpg", picture)
    (tmp_path / "missing.jpg.cat").unlink()
    bad = {
        "empty": ("", "malformed landmarks"),
        "short": ("9 1 2 3", "malformed landmarks"),
        "words": ("9 left eye right eye", "malformed landmarks"),
        "nan": ("9" + " nan" * 18, "malformed landmarks"),
        "huge": ("9" + " 1e308" * 18, "malformed landmarks"),
        "point": ("9" + " 50" * 18, "face too small"),
        "line": ("9 100 100 150 100 125 101" + " 1" * 12, "implausible landmarks"),
        "flipped": ("9 150 100 100 100 125 140" + " 1" * 12, "implausible landmarks"),
        "outside": ("9 1000 1000 1050 1000 1025 1040" + " 1" * 12, "face cut off"),
    }
    for name, (text, _) in bad.items():
        write_face(tmp_path / f"{name}.jpg", picture, text=text)
    items = by_name(KaggleCats(tmp_path))
    expected = {f"{name}.jpg": kind for name, (_, kind) in bad.items()}
    expected |= {"good.jpg": "", "missing.jpg": "no landmarks"}
    assert {name: item.reason.split(":")[0] for name, item in items.items()} == expected
    assert (items["line.jpg"].width, items["line.jpg"].height) == (320, 240)


def test_landmarks_decide_the_key_too(tmp_path: Path, picture: Picture) -> None:
    write_face(tmp_path / "x.jpg", picture)
    before = KaggleCats(tmp_path).key(32)
    assert Photos(tmp_path).key(32)["content"] != before["content"]
    with (tmp_path / "x.jpg.cat").open("a") as file:
        file.write(" ")
    changed = KaggleCats(tmp_path).key(32)
    assert changed != before
    (tmp_path / "x.jpg.cat").unlink()
    assert KaggleCats(tmp_path).key(32) not in (before, changed)
    assert KaggleCats(tmp_path, min_inside=0.6).key(32) != KaggleCats(tmp_path).key(32)


@pytest.mark.photos
def test_real_faces_are_aligned(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    files = sorted((photos / "cats").glob("*.jpg"))
    chosen = {*files[::45], photos / "cats" / "00000003_015.jpg", photos / "cats" / "00000059_002.jpg"}
    for file in chosen:
        for name in (file.name, f"{file.name}.cat"):
            (tmp_path / "cats" / name).write_bytes((photos / "cats" / name).read_bytes())
    ready = open_or_build(KaggleCats(tmp_path / "cats"), 64, tmp_path, 0.1)
    refused = [(row.source, row.reason) for row in ready.rows if not row.kept]
    assert refused == [
        ("00000059_002.jpg", "implausible landmarks: the mouth is above the eyes, left and right are exchanged")
    ]
    # 00000003_015's landmarks are plausible, only beside the face: no rule on landmarks can tell.
    assert "00000003_015.jpg" in [row.source for row in ready.rows if row.kept]
    eyes = np.array([[float(word) for word in row.landmarks.split()[:4]] for row in ready.rows if row.kept])
    np.testing.assert_allclose(eyes.mean(axis=0) + 0.5, [20.5, 26.9, 43.5, 26.9], atol=0.5)
    # Around the face there is fur, and no black frame from outside the photo.
    corners = ready.images[:, [0, 0, -1, -1], [0, -1, 0, -1]].max(axis=-1)
    assert np.mean(corners == 0) < 0.05


# --- drawn cats ----------------------------------------------------------------------------------------------------


def test_demo_cats_are_drawn_with_landmarks_and_depend_on_their_own_seed(tmp_path: Path) -> None:
    items = list(DemoCats(4, seed=1).items(32))
    assert [item.source for item in items] == ["cat-000000", "cat-000001", "cat-000002", "cat-000003"]
    for item in items:
        assert item.image is not None
        assert item.image.shape == (32, 32, 3)
        assert item.landmarks is not None
        assert item.landmarks.shape == (9, 2)
    assert len({item.group for item in items}) == 4
    assert DemoCats(4, seed=1).key(32) == DemoCats(4, seed=1).key(32)
    assert DemoCats(4, seed=2).key(32) != DemoCats(4, seed=1).key(32) != DemoCats(5, seed=1).key(32)
    ready = open_or_build(DemoCats(4, seed=1), 32, tmp_path, 0.25)
    np.testing.assert_array_equal(ready.images[2], items[2].image)


def test_no_demo_cats_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 1 demo cat"):
        DemoCats(0)
