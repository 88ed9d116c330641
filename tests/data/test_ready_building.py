import errno
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from catsweep import folders as replacement
from catsweep.data.ready import CARD, IMAGES, SHEET, Item, ReadySet, open_or_build
from catsweep.errors import ConfigError, DataError, PlaceError, TakenError
from catsweep.ownership import MARKER
from steady.places import translated_errors


def folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def test_it_is_built_once_and_then_only_opened(fake: Callable, tmp_path: Path) -> None:
    source = fake()
    first = open_or_build(source, 16, tmp_path, 0.1)
    again = open_or_build(source, 16, tmp_path, 0.1)
    assert source.built == 1
    assert first.path == again.path
    assert first.path.name.startswith("fake-16-")
    assert folders(tmp_path) == [first.path.name]


def test_it_is_built_anew_when_anything_that_decides_it_changes(fake: Callable, tmp_path: Path) -> None:
    sets = [
        open_or_build(fake(), 16, tmp_path, 0.1),
        open_or_build(fake(seed=1), 16, tmp_path, 0.1),
        open_or_build(fake(), 24, tmp_path, 0.1),
        open_or_build(fake(), 16, tmp_path, 0.3),
    ]
    assert len({ready.path for ready in sets}) == 4
    assert len({ready.digest for ready in sets}) == 4


def test_the_folder_holds_a_card_a_sheet_and_nothing_half_made(fake: Callable, tmp_path: Path) -> None:
    ready = open_or_build(fake(120, refused=2), 16, tmp_path, 0.1)
    assert {path.name for path in ready.path.iterdir()} == {
        "images.npy",
        "manifest.csv",
        "contact_sheet.png",
        "card.json",
        MARKER,
    }
    card = json.loads((ready.path / CARD).read_text())
    assert card["n"] == 120
    assert card["splits"] == {"train": 108, "val": 12}
    assert card["refused"] == {"empty file": 2}
    assert card["parameters"]["source"] == fake(120, refused=2).key(16)
    assert ready.path.name.endswith(card["key"][:8])
    assert set(card["versions"]) == {"PIL", "cv2", "numpy", "simplejpeg"}
    with Image.open(ready.path / SHEET) as sheet:
        assert sheet.size == (10 * 18 + 2, 10 * 18 + 2)
    ready.verify()


def test_what_was_handed_over_is_what_is_stored(fake: Callable, tmp_path: Path) -> None:
    ready = open_or_build(fake(9, refused=1), 16, tmp_path, 0.1)
    handed = [item.image for item in fake(9, refused=1).items(16) if item.image is not None]
    np.testing.assert_array_equal(ready.images, handed)
    assert [float(row.landmarks.split()[0]) for row in ready.rows if row.kept] == list(range(9))


def test_a_damaged_set_is_built_again(fake: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = fake()
    ready = open_or_build(source, 16, tmp_path, 0.1)
    (ready.path / IMAGES).write_bytes(b"\x93NUMPY")
    again = open_or_build(source, 16, tmp_path, 0.1)
    assert source.built == 2
    assert again.digest == ready.digest
    assert "Building a damaged ready set again" in caplog.text
    again.verify()


def test_the_summary_counts_what_was_left_out_by_reason(
    fake: Callable, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    open_or_build(fake(1000, refused=2), 4, tmp_path, 0.1)
    assert "fake: 1,002 photos found, 1,000 ready, 2 left out (2 empty file)" in caplog.text
    open_or_build(fake(5), 4, tmp_path, 0.1)
    assert "fake: 5 photos found, 5 ready, none left out" in caplog.text


def test_nothing_left_is_an_error_that_says_what_was_looked_for(fake: Callable, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Expected fake photos, .* 3 found, all left out: 3 empty file"):
        open_or_build(fake(0, refused=3), 16, tmp_path, 0.1)
    with pytest.raises(DataError, match="none found"):
        open_or_build(fake(0), 16, tmp_path, 0.1)
    assert folders(tmp_path) == []


@pytest.mark.security
def test_a_place_one_cannot_write_to_is_told_with_its_key(fake: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cfg = OmegaConf.create({"data": {"root": str(tmp_path / "file")}})
    with pytest.raises(PlaceError, match=r"file cannot be used: .* data\.root=DIR"), translated_errors(cfg):
        open_or_build(fake(), 16, tmp_path / "file", 0.1)


@pytest.mark.security
def test_a_set_that_may_not_be_read_now_is_not_taken_for_a_damaged_one(
    fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = open_or_build(fake(), 16, tmp_path, 0.1)
    before = {file.name: file.read_bytes() for file in ready.path.iterdir()}

    def read(path: Path, *_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as denied:
        denied.setattr(Path, "read_text", read)
        with pytest.raises(PermissionError):
            open_or_build(fake(), 16, tmp_path, 0.1)
    assert {file.name: file.read_bytes() for file in ready.path.iterdir()} == before


def test_a_finished_set_can_be_read_where_nothing_can_be_written(
    fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = open_or_build(fake(), 16, tmp_path, 0.1)
    monkeypatch.setattr("catsweep.data.ready.FileLock", lambda *_: pytest.fail("asked for the lock"))
    assert open_or_build(fake(), 16, tmp_path, 0.1).digest == ready.digest


def test_a_build_that_fails_leaves_nothing(fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fake()
    whole = source.items

    def breaks(size: int) -> Iterator[Item]:
        yield from list(whole(size))[:5]
        raise RuntimeError("the cat sat on the keyboard")

    with monkeypatch.context() as patched:
        patched.setattr(source, "items", breaks)
        with pytest.raises(RuntimeError, match="keyboard"):
            open_or_build(source, 16, tmp_path, 0.1)
    assert folders(tmp_path) == []
    assert len(open_or_build(source, 16, tmp_path, 0.1)) == 20


def test_the_set_appears_by_one_rename_of_a_complete_folder(
    fake: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, renamed = replacement.move, []

    def watched(here: Path, there: Path) -> None:
        assert not there.exists()
        ReadySet.open(here).verify()
        renamed.append(there)
        move(here, there)

    monkeypatch.setattr(replacement, "move", watched)
    assert renamed == [open_or_build(fake(), 16, tmp_path, 0.1).path]


# A source that writes a line for each build and hands out images slowly, in a process of its own.
CHILD = """
import os, sys, time
import numpy as np
from catsweep.data.ready import open_or_build
from catsweep.data.ready import Item

class Slow:
    name = "slow"

    def key(self, size):
        return {}

    def items(self, size):
        with open(sys.argv[2], "a") as file:
            file.write(f"{os.getpid()}\\n")
        for number in range(20):
            time.sleep(float(sys.argv[3]))
            yield Item(f"{number}", f"{number}", image=np.full((size, size, 3), number, dtype=np.uint8))

print(open_or_build(Slow(), 8, sys.argv[1], 0.1).digest)
"""


@pytest.fixture
def start(root: Path, tmp_path: Path) -> Callable[[float], subprocess.Popen[str]]:
    def start(pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", CHILD, str(tmp_path / "ready"), str(tmp_path / "log"), str(pause)]
        environment = {**os.environ, "PYTHONPATH": str(root / "src")}
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    return start


def test_processes_that_come_at_once_build_once_and_agree(start: Callable, tmp_path: Path) -> None:
    answers = [process.communicate()[0].strip() for process in [start(0.05) for _ in range(4)]]
    assert len((tmp_path / "log").read_text().split()) == 1
    assert len(set(answers)) == 1
    assert len(answers[0]) == 64


def test_a_build_that_is_killed_leaves_nothing_that_looks_finished_and_the_next_one_clears_up(
    start: Callable, tmp_path: Path
) -> None:
    with start(60) as process:
        while not (tmp_path / "log").exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    half_made = folders(tmp_path / "ready")
    assert [name[0] for name in half_made] == ["."]
    digest = start(0).communicate()[0].strip()
    (finished,) = folders(tmp_path / "ready")
    ready = ReadySet.open(tmp_path / "ready" / finished)
    ready.verify()
    assert ready.digest == digest


def test_a_set_with_another_key_in_its_place_is_replaced(tmp_path: Path, fake: Callable) -> None:
    ready = open_or_build(fake(), 16, tmp_path, 0.1)
    card = json.loads((ready.path / CARD).read_text())
    (ready.path / CARD).write_text(json.dumps({**card, "key": "of other photos"}))
    source = fake()
    assert open_or_build(source, 16, tmp_path, 0.1).card["key"] == card["key"]
    assert source.built == 1


@pytest.mark.security
@pytest.mark.parametrize("name", ["../../esc", "/tmp/esc", "a/b", "..\\esc", "a\0b", "C:esc"])
def test_a_source_is_called_by_a_name(fake: Callable, tmp_path: Path, name: str) -> None:
    source = fake()
    source.name = name
    with pytest.raises(ConfigError, match="A ready set must be a name"):
        open_or_build(source, 16, tmp_path / "ready", 0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.security
def test_a_folder_of_the_user_is_not_replaced(fake: Callable, tmp_path: Path) -> None:
    ready = open_or_build(fake(), 16, tmp_path, 0.1)
    (ready.path / CARD).write_text("{")  # so it has to be built again
    (ready.path / "notes.txt").write_text("mine")
    with pytest.raises(TakenError, match=r"catsweep did not make notes\.txt in it"):
        open_or_build(fake(), 16, tmp_path, 0.1)
    assert (ready.path / "notes.txt").read_text() == "mine"
    (hidden := tmp_path / f".{ready.path.name}.backup").mkdir()  # a copy of somebody, not the debris of a build
    (ready.path / "notes.txt").unlink()
    open_or_build(fake(), 16, tmp_path, 0.1)
    assert hidden.is_dir()


def test_a_set_of_a_version_without_markers_is_replaced(fake: Callable, tmp_path: Path) -> None:
    ready = open_or_build(fake(), 16, tmp_path, 0.1)
    (ready.path / MARKER).unlink()
    (ready.path / CARD).write_text("{")
    assert open_or_build(fake(), 16, tmp_path, 0.1).path == ready.path
