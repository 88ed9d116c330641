"""Files and folders that are whole at any moment: what fails leaves the old one, and nothing beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catsweep import folders
from catsweep.errors import TakenError
from catsweep.folders import replacing_folder, tidy
from catsweep.ownership import MARKER, FolderKind
from steady.atomic import replacing, write_bytes, write_json, write_text

KIND = FolderKind("a test", "out=DIR", ("a", "b"))


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


def folder_of(target: Path, **files: str) -> None:
    with replacing_folder(target, KIND) as new:
        for name, text in files.items():
            (new / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.name != MARKER}


def test_a_new_folder_takes_its_place_and_parents_are_made(tmp_path: Path) -> None:
    target = tmp_path / "outputs" / "best"
    with replacing_folder(target, KIND) as new:
        assert not list(new.iterdir())
        (new / "a").write_text("1")
        assert not target.exists()
    assert content(target) == {"a": "1"}
    assert os.listdir(target.parent) == ["best"]


def test_an_old_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder_of(tmp_path / "best", a="0", b="0")
    with replacing_folder(tmp_path / "best", KIND) as new:
        (new / "a").write_text("1")
        assert content(tmp_path / "best") == {"a": "0", "b": "0"}
    assert content(tmp_path / "best") == {"a": "1"}
    assert os.listdir(tmp_path) == ["best"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_error_midway_leaves_the_old_folder_and_no_debris(tmp_path: Path, error: BaseException) -> None:
    folder_of(tmp_path / "best", a="0")

    def build() -> None:
        with replacing_folder(tmp_path / "best", KIND) as new:
            (new / "a").write_text("1")
            raise error

    with pytest.raises(type(error)):
        build()
    assert content(tmp_path / "best") == {"a": "0"}
    assert os.listdir(tmp_path) == ["best"]


@pytest.fixture
def without_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system, or a file system, that has only plain renames."""

    def refuse(*_: object) -> None:
        raise folders.Unsupported

    monkeypatch.setattr(folders, "exchange", refuse)
    monkeypatch.setattr(folders, "move", refuse)


@pytest.mark.usefixtures("without_exchange")
@pytest.mark.security
def test_without_an_exchange_a_folder_is_replaced_by_two_renames(tmp_path: Path) -> None:
    folder_of(tmp_path / "best", a="0")
    folder_of(tmp_path / "best", a="1")
    assert content(tmp_path / "best") == {"a": "1"}
    assert set(os.listdir(tmp_path)) == {"best", ".best.lock"}


@pytest.mark.usefixtures("without_exchange")
@pytest.mark.security
@pytest.mark.parametrize("failures", [1, 2])
def test_an_error_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Also when putting it back fails at first."""
    folder_of(tmp_path / "best", a="0")
    real, calls = os.replace, []

    def fails(source: Path, target: Path, **handles: int) -> None:
        if Path(target).name == "best":
            calls.append(target)
            if len(calls) <= failures:
                raise OSError("no")
        real(source, target, **handles)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="no"):
        folder_of(tmp_path / "best", a="1")
    assert content(tmp_path / "best") == {"a": "0"}
    assert set(os.listdir(tmp_path)) == {"best", ".best.lock"}


@pytest.mark.security
@pytest.mark.parametrize(
    ("scenario", "how"),
    # A file needs neither way of exchanging two folders.
    [("file", ""), *((one, how) for one in ("folder", "writers") for how in ("exchange", "fallback"))],
)
def test_a_kill_at_any_call_and_writers_beside_readers(tmp_path: Path, scenario: str, how: str) -> None:
    """A killed writer leaves old or new, and the next one tidies; two writers lose nothing; a reader sees no gap."""
    line = [sys.executable, str(Path(__file__).parents[1] / "kills.py"), scenario, how, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(line, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.security
def test_what_a_running_writer_has_begun_is_left_to_it(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "one", KIND) as new, replacing(tmp_path / "file") as unfinished:
        (new / "a").write_text("1")
        unfinished.write_text("2")
        folder_of(tmp_path / "one", a="of another")
        tidy(tmp_path)
        assert new.is_dir()
        assert unfinished.is_file()
    assert content(tmp_path / "one") == {"a": "1"}
    assert (tmp_path / "file").read_text() == "2"
    assert set(os.listdir(tmp_path)) == {"one", "file"}


@pytest.mark.security
def test_nothing_that_only_looks_like_debris_is_removed(tmp_path: Path) -> None:
    """Names and folders as ours and as those of earlier versions, which somebody else may have given."""
    hexadecimal = "0123456789abcdef"
    kept = [
        f".one.{hexadecimal}",
        f".one.{hexadecimal}.catsweep.old",
        ".one-backup",
        ".one-abcdefgh",
        ".report-1",
        "one.catsweep",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").touch()
        os.utime(tmp_path / name, (0, 0))
    (link := tmp_path / f".one.{hexadecimal}.catsweep").symlink_to(tmp_path / kept[0])
    (full := tmp_path / f".two.{hexadecimal}.catsweep").mkdir()
    (full / "thesis.tex").touch()
    folder_of(tmp_path / "one", a="1")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "one", link.name, full.name}
    assert all((tmp_path / name / "thesis.tex").exists() for name in kept)
    assert (full / "thesis.tex").exists()


@pytest.mark.security
@pytest.mark.parametrize("is_free", [True, False])
def test_what_came_aside_at_the_last_moment_and_is_not_ours_is_never_removed(tmp_path: Path, is_free: bool) -> None:
    """As when a kill hit between the exchange and the look at what came out of the place, in that moment."""
    left = tmp_path / ".one.0123456789abcdef.catsweep"
    (left / "old").mkdir(parents=True)
    (left / "writer").touch()
    (left / "old" / "thesis.tex").touch()
    if is_free:  # then it takes its place again
        with pytest.raises(TakenError):
            folder_of(tmp_path / "one", a="1")
        assert os.listdir(tmp_path / "one") == ["thesis.tex"]
        return
    (tmp_path / "one").mkdir()
    folder_of(tmp_path / "one", a="1")
    folder_of(tmp_path / "one", a="2")
    assert (left / "old" / "thesis.tex").exists()


@pytest.mark.security
@pytest.mark.parametrize("is_there", [True, False])
def test_debris_of_earlier_versions_goes_when_it_is_old(tmp_path: Path, is_there: bool) -> None:
    if is_there:
        folder_of(tmp_path / "one", a="1")
    for name, parts in ((".one-ab_cd123", ("old", "new")), (".one-abcdefgh", ("new",)), (".one-12345678", ("new",))):
        for part in parts:
            (tmp_path / name / part).mkdir(parents=True)
            (tmp_path / name / part / "a").write_text("0")
    for place in (".one-ab_cd123", ".one-abcdefgh"):
        for path in (tmp_path / place, *(tmp_path / place).iterdir()):
            os.utime(path, (0, 0))
    with pytest.raises(OSError, match="disk full"), replacing_folder(tmp_path / "one", KIND):
        raise OSError("disk full")
    assert content(tmp_path / "one") == {"a": "1" if is_there else "0"}
    assert set(os.listdir(tmp_path)) == {"one", ".one-12345678"}  # the last is of now, and may be at work


@pytest.mark.security
def test_a_folder_that_may_only_be_read_is_replaced_all_the_same(tmp_path: Path) -> None:
    folder_of(target := tmp_path / "one", a="0")
    (target / "a").chmod(0o444)
    target.chmod(0o555)
    folder_of(target, a="1")
    assert content(target) == {"a": "1"}
    for path in tmp_path.glob(".*/*"):
        path.chmod(0o755)
