import hashlib
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.decoded import decode_bytes

from catsweep.data import files, sources
from catsweep.data.decode import Unreadable
from catsweep.data.files import GROUPS, Folder, digest, digests, reading, say_passed_over
from catsweep.data.landmarks import read as read_landmarks
from catsweep.data.sources import SUFFIXES, DemoCats, photographed
from catsweep.data.threads import ByteSemaphore
from catsweep.ownership import FolderKind, mark
from catsweep.synthetic.layers import landmarks_of
from catsweep.synthetic.renderer import draw


def test_a_folder_is_walked_in_the_order_of_names_and_read(folder: Path) -> None:
    (folder / "0.jpg.cat").write_text("9")
    photos = Folder(folder, SUFFIXES)
    assert list(photos) == [
        "0.jpg", "3.jpg", "6.jpg", "more/1.jpg", "more/4.jpg", "more/7.jpg", "more/deep/2.jpg", "more/deep/5.jpg"
    ]  # fmt: skip
    assert photos.read("more/1.jpg") == (folder / "more" / "1.jpg").read_bytes()
    assert photos.size("more/1.jpg") == (folder / "more" / "1.jpg").stat().st_size
    assert ("0.jpg.cat" in photos, "1.jpg" in photos, "notes.txt" in photos) == (True, False, True)
    assert (photos.read("0.jpg.cat", 1), photos.size("nothing.jpg")) == (b"9", 0)
    with pytest.raises(Unreadable, match="file too large"):
        photos.read("0.jpg", 10)


def test_digests_are_those_of_the_content_or_say_why_there_is_none(folder: Path) -> None:
    (folder / "link.jpg").symlink_to("0.jpg")
    (folder / "empty.jpg").touch()
    photos = Folder(folder, SUFFIXES)
    found = list(digests(photos, ["0.jpg", "link.jpg", "empty.jpg", "missing.jpg"]))
    known = hashlib.sha256((folder / "0.jpg").read_bytes()).hexdigest()
    assert found == [known, "not a regular file", "empty file", "cannot be opened"]
    assert photos.digest("0.jpg") == known


def test_the_digest_of_all_covers_names_content_and_what_is_beside(folder: Path) -> None:
    seen = {digest(Folder(folder, SUFFIXES))}
    (folder / "0.jpg.cat").write_text("9")
    assert {digest(Folder(folder, SUFFIXES))} == seen
    for change in (
        lambda: (folder / "0.jpg").rename(folder / "00.jpg"),
        lambda: (folder / "3.jpg").write_bytes(b"cat"),
        lambda: (folder / "6.jpg").unlink(),
    ):
        change()
        seen.add(digest(Folder(folder, SUFFIXES)))
    assert len(seen) == 4
    beside = {digest(Folder(folder, SUFFIXES), ".cat")}
    (folder / "00.jpg.cat").write_text("8")
    beside.add(digest(Folder(folder, SUFFIXES), ".cat"))
    assert len(beside | seen) == 6


def test_large_files_are_held_one_at_a_time_and_small_ones_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MEMORY", ByteSemaphore(1000))
    inside, most, lock = [0], [0], threading.Lock()

    def hold(name: str) -> None:
        with reading(Folder(tmp_path, SUFFIXES), name):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
            met.wait(120)
            time.sleep(0.03)  # would one too many come in, it would be seen
            with lock:
                inside[0] -= 1

    for size, together in ((900, 1), (300, 3)):
        (tmp_path / "x.jpg").write_bytes(bytes(size))
        most[0], met = 0, threading.Barrier(together)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(hold, ["x.jpg"] * 6))
        assert most[0] == together


def test_a_name_that_leads_nowhere_is_no_error_but_a_reason(tmp_path: Path) -> None:
    photos = Folder(tmp_path, SUFFIXES)
    for name in ("a\0b.jpg", "x" * 999 + ".jpg", os.fsdecode(b"\xff.jpg")):
        assert photos.size(name) == 0
        with pytest.raises(Unreadable, match="cannot be opened"):
            photos.read(name)


def test_what_is_passed_over_is_one_line_however_much_it_is() -> None:
    assert say_passed_over({}) == ""
    assert say_passed_over({"a\nb": "hidden"}) == "1 other file passed over: 1 hidden (a\\nb)"
    few = {"b.txt": "not an image: .txt", "a.txt": "not an image: .txt", ".x": "hidden"}
    said = "3 other files passed over: 2 not an image: .txt (a.txt, b.txt); 1 hidden (.x)"
    assert say_passed_over(few) == said
    many = {f"{number:04d}.{number % 20}": f"not an image: .{number % 20}" for number in range(2000)}
    assert say_passed_over(many).startswith(
        "2,000 other files passed over: 100 not an image: .0 (0000.0, 0020.0, 0040.0, …); "
    )
    assert say_passed_over(many).endswith("; 1,200 for other reasons")
    kinds = {f"{number}.{number}": f"not an image: .{number}" for number in range(GROUPS + 1)}
    assert say_passed_over(kinds).endswith(f"; 1 not an image: .{GROUPS} ({GROUPS}.{GROUPS})")


# --- drawn cats ----------------------------------------------------------------------------------------------------


def test_drawn_cats_are_files_of_photos_with_landmarks_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "DEMO_SIDE", 64)
    cats = DemoCats(3, seed=2).files
    assert list(cats) == ["cat-000000.png", "cat-000001.png", "cat-000002.png"]
    for number, name in enumerate(cats):
        cat = photographed(2, number)
        np.testing.assert_array_equal(decode_bytes(cats.read(name)), draw(cat, 64)[0])
        np.testing.assert_allclose(read_landmarks(cats, name) + 0.5, landmarks_of(cat) * 64, atol=0.0051)
        assert cats.size(name) >= len(cats.read(name))
        assert cats.read(name) == DemoCats(3, seed=2).files.read(name)
    there = [name in cats for name in ("cat-000002.png.cat", "cat-000003.png", "cat-000003.png.cat")]
    assert there == [True, False, False]
    with pytest.raises(Unreadable, match="there is no such cat"):
        cats.read("cat-000003.png")


def test_their_faces_are_whole_and_large_enough_to_be_zoomed() -> None:
    """The frame of stage `zoom` is 3.6 distances between the eyes wide, with the eyes at 0.417 of its height."""
    poses = [landmarks_of(photographed(0, number)) for number in range(200)]
    eyes = np.array([np.hypot(*(points[1] - points[0])) for points in poses])
    assert 100 / (eyes.min() * sources.DEMO_SIDE) < 2  # never enlarged to more than twice
    assert (np.array(poses) > 0).all()
    assert (np.array(poses) < 1).all()
    middle = np.array([points[:2].mean(axis=0) for points in poses])
    sides = np.stack([middle[:, 0] - 1.8 * eyes, middle[:, 0] + 1.8 * eyes - 1, middle[:, 1] - 1.5 * eyes,
                      middle[:, 1] + 2.1 * eyes - 1])  # fmt: skip
    assert np.mean((sides[::2] > -0.1).all(axis=0) & (sides[1::2] < 0.1).all(axis=0)) > 0.95
    assert np.std(middle, axis=0).min() > 0.03


def test_their_digests_need_no_drawing_and_differ_where_the_cats_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "draw", lambda *_: pytest.fail("was drawn"))
    known = list(digests(DemoCats(50).files, list(DemoCats(50).files)))
    assert len(set(known)) == 50
    assert known == [DemoCats(60).files.digest(name) for name in DemoCats(50).files]
    assert not set(known) & {DemoCats(50, seed=1).files.digest(name) for name in DemoCats(50).files}


def test_what_catsweep_made_within_a_folder_is_no_photo_of_it(tmp_path: Path) -> None:
    stage = tmp_path / "stages" / "cats" / "0.original"
    stage.mkdir(parents=True)
    for place in (tmp_path, stage):
        (place / "a.jpg").write_bytes(b"a photo")
    mark(stage, FolderKind("a stage", "root=DIR", ("*",)))
    found = Folder(tmp_path, {".jpg"})
    assert list(found) == ["a.jpg"]
    assert found.passed_over() == {"stages/cats/0.original/": "made by catsweep"}
    assert list(Folder(stage, {".jpg"})) == ["a.jpg"]  # whoever names it means it


@pytest.mark.security
def test_what_was_passed_over_is_no_formula(tmp_path: Path) -> None:
    files.write_passed_over(path := tmp_path / "passed_over.csv", {"=1+1": "not an image: -A1", "-1": "@x"})
    assert path.read_text().splitlines() == ["source,reason", "-1,'@x", "'=1+1,not an image: -A1"]
