"""Only what catsweep made is replaced: a folder of the user, and a file of his in one of ours, stay as they are."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from catsweep.errors import TakenError
from catsweep.folders import replacing_folder
from catsweep.ownership import MARKER, FolderKind

pytestmark = pytest.mark.security

KIND = FolderKind("a test", "out=DIR", ("a", "b-*", "in/*"), sign="a")


def made(folder: Path) -> Path:
    with replacing_folder(folder, KIND) as new:
        (new / "a").write_text("1")
        (new / "in").mkdir()
        (new / "in" / "c").write_text("2")
    return folder


def everything(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_what_was_made_is_replaced(tmp_path: Path) -> None:
    made(tmp_path / "x")
    made(tmp_path / "x")
    assert {path.name for path in (tmp_path / "x").iterdir()} == {"a", "in", MARKER}


def test_a_folder_may_be_there_if_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert (made(tmp_path / "x") / "a").is_file()


def test_one_of_a_version_without_markers_is_known_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("a", "b-1"):
        (tmp_path / "x" / name).touch()
    made(tmp_path / "x")
    assert not (tmp_path / "x" / "b-1").exists()


def _file(folder: Path) -> None:
    (folder / "thesis.tex").write_text("years of work")


def _deep(folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "deep" / "thesis.tex").write_text("years of work")


def _hidden(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()


def _empty_folder(folder: Path) -> None:
    (folder / "to be filled").mkdir()


def _link(folder: Path) -> None:
    (folder / "link").symlink_to("/etc")


def _name_of_a_marker(folder: Path) -> None:
    (folder / f"{MARKER}x").touch()


STRANGE: list[Callable[[Path], None]] = [_file, _deep, _hidden, _empty_folder, _link, _name_of_a_marker]


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("is_ours", [True, False])
def test_what_was_not_made_is_never_replaced(tmp_path: Path, strange: Callable[[Path], None], is_ours: bool) -> None:
    (folder := tmp_path / "x").mkdir()
    if is_ours:
        made(folder)
    strange(folder)
    before = everything(tmp_path)
    with pytest.raises(TakenError, match=r"catsweep did not make .* choose another place: out=DIR") as caught:
        made(folder)
    assert str(folder) in str(caught.value)
    assert everything(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("strange", STRANGE)
def test_what_comes_while_it_is_built_is_not_replaced(tmp_path: Path, strange: Callable[[Path], None]) -> None:
    folder = made(tmp_path / "x")

    def build() -> None:
        with replacing_folder(folder, KIND) as new:
            (new / "a").write_text("new")
            strange(folder)

    with pytest.raises(TakenError):
        build()
    assert (folder / "a").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_files_that_happen_to_be_called_as_ours_are_not_without_the_one_that_none_lacks(tmp_path: Path) -> None:
    (folder := tmp_path / "x").mkdir()
    (folder / "b-mine").touch()
    with pytest.raises(TakenError, match="b-mine"):
        made(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "",
        "{}",
        "[]",
        '{"by": "catsweep"}',
        '{"by": "you", "files": ["thesis.tex"], "later": []}',
        "\udcff",
    ],
)
def test_a_damaged_marker_marks_nothing(tmp_path: Path, text: str) -> None:
    (folder := tmp_path / "x").mkdir()
    _file(folder)
    (folder / MARKER).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(TakenError, match=r"thesis\.tex"):
        made(folder)


def test_a_file_in_the_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(TakenError, match="a file of that name is there"):
        made(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "mine"


def test_a_link_stays_and_what_it_leads_to_is_looked_at(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").mkdir()
    _file(mine)
    (link := tmp_path / "x").symlink_to(mine)
    with pytest.raises(TakenError, match=r"thesis\.tex"):
        made(link)
    disk = made(tmp_path / "disk")
    link.unlink()
    link.symlink_to(disk)
    made(link)
    assert link.is_symlink()
    assert (disk / "a").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "disk", "x"}


def test_what_systems_leave_everywhere_does_not_count(tmp_path: Path) -> None:
    folder = made(tmp_path / "x")
    (folder / ".DS_Store").touch()
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "generate.cpython-311.pyc").touch()
    made(folder)
    assert not (folder / ".DS_Store").exists()


def test_what_catsweep_writes_into_it_later_is_its_own_too(tmp_path: Path) -> None:
    kind = FolderKind("a test", "out=DIR", ("a",), later=("later_*.png",))
    for _ in range(2):
        with replacing_folder(tmp_path / "x", kind) as new:
            (new / "a").touch()
        (tmp_path / "x" / "later_0.png").touch()
        (tmp_path / "x" / f".later_0.png.{16 * 'a'}.catsweep").touch()  # its writer was killed
    (tmp_path / "x" / "late.png").touch()
    with (
        pytest.raises(TakenError, match=r"catsweep did not make late\.png in it"),
        replacing_folder(tmp_path / "x", kind),
    ):
        pass


def test_names_that_are_no_text_are_kept_and_shown(tmp_path: Path) -> None:
    odd = "caf\udce9"
    kind = FolderKind("a test", "out=DIR", ())
    for _ in range(2):
        with replacing_folder(tmp_path / "x", kind) as new:
            (new / odd).touch()
    (tmp_path / "x" / "line\nbreak").touch()
    with pytest.raises(TakenError, match=r"'line\\nbreak'"), replacing_folder(tmp_path / "x", kind):
        pass


def test_a_marker_of_a_stranger_does_not_say_what_may_come_later(tmp_path: Path) -> None:
    """It came with a bundle of his; what the user then puts into it is his own all the same."""
    folder = made(tmp_path / "x")
    marker = json.loads((folder / MARKER).read_text())
    (folder / MARKER).write_text(json.dumps({**marker, "later": ["*"]}))
    (folder / "thesis.tex").touch()
    with pytest.raises(TakenError, match=r"thesis\.tex"):
        made(folder)


def test_another_kind_of_folder_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "x")
    with (
        pytest.raises(TakenError, match="but a test is there"),
        replacing_folder(folder, FolderKind("a bundle", "", ())),
    ):
        pass


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").symlink_to("x")
    with pytest.raises(TakenError, match="a file of that name is there"):
        made(tmp_path / "x")
