"""Files that are whole at any moment: what fails leaves the old one, and nothing beside it."""

import json
from pathlib import Path

import pytest

from catsweep.atomic import replacing, write_bytes, write_json, write_text


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_bytes(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_keeps_its_file_while_it_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")
    with path.open("rb") as reader:
        write_bytes(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_the_old_file_is_there_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "page.png"
    write_text(path, "old")
    with replacing(path) as one, replacing(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert path.read_text() == "old"
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_text_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "page"
    write_text(path, "old\r\n")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_bytes() == b"old\r\n"
    assert list(tmp_path.iterdir()) == [path]


def test_json_keeps_its_letters_if_it_is_asked_to(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"who": "Mäusel"})
    write_json(tmp_path / "b", {"who": "Mäusel"}, ascii_only=False)
    a, b = ((tmp_path / name).read_text(encoding="utf-8") for name in "ab")
    assert json.loads(a) == json.loads(b) == {"who": "Mäusel"}
    assert "Mäusel" in b
    assert a.isascii()
