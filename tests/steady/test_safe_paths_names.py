"""What may become part of a path, and what may not, on any system."""

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.errors import ExportError
from steady.exceptions import ConfigError
from steady.safe_paths import LONGEST, checked_name, inside, plain_name, why_not

pytestmark = pytest.mark.security

NAMES = [
    "a",
    "cats",
    "vae-demo_cats",
    "2026",
    "1.5",
    "Zoë",
    "my sweep",
    "plus+plus",
    "[red]cats",
    "cat's",
    "½",
    "confirm",
]
NAMES += ["console", "com", "a" * LONGEST, "\U0001f468\u200d\U0001f469\u200d\U0001f467", "猫"]
NO_NAMES = [
    "",
    " ",
    ".",
    "..",
    "...",
    ".hidden",
    "../x",
    "x/..",
    "a/b",
    "/",
    "/etc",
    "a\\b",
    "..\\x",
    "\\\\host\\share",
    "C:",
]
NO_NAMES += [
    "c:x",
    "file:x",
    "x:stream",
    "a\0b",
    "a\nb",
    "a\x1b[2Jb",
    "\x7f",
    "a\u202eb",
    "a\u200bb",
    "\u200d",
    "a\u2028b",
]
NO_NAMES += [
    "\udcff",
    "a\u2215b",
    "a\uff0fb",
    "a\uff3cb",
    "\uff0e\uff0e",
    "\u2025",
    "a\u2044b",
    "a\u29f8b",
    "a*",
    "a?",
    "a|b",
]
NO_NAMES += [
    "<a>",
    '"a"',
    "con",
    "CON",
    "nul.txt",
    "Aux",
    "com1",
    "LPT9.tar.gz",
    "COM\xb9",
    "nul .x",
    "x.",
    "x ",
    " x",
    "\tx",
]
NO_NAMES += ["a" * (LONGEST + 1), "é" * (LONGEST // 2 + 1), "\ufdfa" * 50, "℀", "a\rb", "\ufeffa"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_as_it_is(name: str) -> None:
    assert checked_name(name, "study") == name


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_leads_elsewhere_or_means_another_thing_on_another_system_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="study must be a name that a folder may have") as caught:
        checked_name(name, "study", ExportError)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("given_", [None, True, 1.5, ["a"], {"a": 1}, b"a"])
def test_what_is_no_text_is_refused(given_: object) -> None:
    with pytest.raises(ConfigError, match="it is no text"):
        checked_name(given_, "study")


def test_a_whole_number_is_the_name_of_a_trial() -> None:
    assert checked_name(17, "trial") == "17"
    with pytest.raises(ConfigError, match="longer"):
        checked_name(10**LONGEST, "trial")


@given(st.one_of(st.text(max_size=40), st.text("./\\:aC\0\u2215\uff0e", max_size=12)))
def test_whatever_is_taken_is_one_part_of_a_path_on_every_system(name: str) -> None:
    if why_not(name):
        return
    assert PurePosixPath("folder", name).parts == ("folder", name)
    assert PureWindowsPath("folder", name).parts == ("folder", name)
    assert not PureWindowsPath(name).is_reserved()
    assert os.path.normpath(os.path.join("folder", name)) == f"folder/{name}"
    assert 0 < len(os.fsencode(name)) <= LONGEST


@given(st.text(max_size=300))
def test_a_name_in_plain_letters_is_always_one(text: str) -> None:
    assert not why_not(plain_name(text, "photo"))


@pytest.mark.parametrize(
    ("text", "name"),
    [("IMG 1", "IMG-1"), ("../x", "x"), ("", "photo"), ("CON", "photo"), ("a/b", "a-b"), ("Zoë", "Zoë")],
)
def test_a_name_in_plain_letters_keeps_what_it_can(text: str, name: str) -> None:
    assert plain_name(text, "photo") == name


def test_a_link_out_of_a_folder_is_not_inside(tmp_path: Path) -> None:
    (folder := tmp_path / "folder").mkdir()
    (tmp_path / "folder-2").mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "within").symlink_to("a")
    (folder / "loop").symlink_to("loop")
    assert inside(folder, folder)
    assert inside(folder, folder / "loop")  # there is nothing behind it
    assert inside(folder, folder / "a/b")
    assert inside(folder, folder / "within")
    for path in (folder / "link", folder / "link/x", folder / "..", folder / "../folder-2", Path("/")):
        assert not inside(folder, path)
