"""Where trials work: each in a folder of its own, and an attempt that goes on in that of the first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, create_trial

from steady.exceptions import StudyError
from steady.study import meta
from steady.study.trial_folders import NOTE, Folders, is_of, mark, used


def trial(number: int, attempt: int = 0, folder: str | None = None) -> FrozenTrial:
    attrs = {meta.ATTEMPT: attempt, **({} if folder is None else {meta.FOLDER: folder})}
    made = create_trial(value=0.0, user_attrs=attrs)
    made.number = number
    return made


@given(st.lists(st.sampled_from(["fixed", "fixed_1", "1", "0", "3", "a/b", "a//b", "a/./b/", ".", "", "/x", "a/../1"])))
def test_no_two_trials_have_one_folder_whatever_they_compose(composed: list[str]) -> None:
    folders = Folders(Path("out"), compose=lambda trial: composed[trial.number])
    trials: list[FrozenTrial] = []
    for number in range(len(composed)):
        new = trial(number)
        chosen = folders.choose(new, [*trials, new])
        trials.append(trial(number, folder=chosen))
    places = {folders.of(one).resolve() for one in trials}
    assert len(places) == len(trials)
    assert Path("out").resolve() not in places


def test_the_first_that_composes_a_name_has_it() -> None:
    folders = Folders(Path("out"), compose=lambda trial: "fixed")
    assert folders.choose(trial(0), []) == "fixed"
    assert folders.choose(trial(3), [trial(0, folder="fixed"), trial(1), trial(2)]) == "fixed_3"


def test_the_number_alone_is_not_written_when_nothing_is_composed() -> None:
    folders = Folders(Path("out"))
    assert folders.choose(trial(3), [trial(1), trial(2)]) is None
    assert folders.of(trial(3)) == Path("out/3")
    assert folders.choose(trial(3), [trial(1, folder="3")]) == "3_3"  # of an earlier start with another template


def test_an_attempt_that_goes_on_stays_where_the_first_was() -> None:
    """Also when the template was the bare number then, and another now."""
    folders = Folders(Path("out"), compose=lambda trial: "another")
    assert folders.name(trial(2, attempt=1, folder="x0.5")) == "x0.5"
    assert folders.choose(trial(2, attempt=1), []) == "2"


def test_confirmation_runs_keep_clear_of_the_trials() -> None:
    folders = Folders(Path("out"), usual=lambda number: f"confirm/{number}", others=(Path("out/confirm/1"),))
    assert folders.choose(trial(0), []) is None
    assert folders.of(trial(0)) == Path("out/confirm/0")
    assert folders.choose(trial(1), []) == "confirm/1_1"


@pytest.mark.security
@pytest.mark.parametrize("named", ["../../victim", "/etc", "..", "a/../../x", "link", "link/deeper"])
def test_a_folder_that_a_study_names_elsewhere_is_refused(tmp_path: Path, named: str) -> None:
    (base := tmp_path / "out").mkdir()
    (base / "link").symlink_to(tmp_path)
    for compose in (None, lambda trial: "x", lambda trial: None):
        folders = Folders(base, compose=compose)
        with pytest.raises(StudyError, match=r"trial 2 works in .*, which is not in .*out") as caught:
            folders.of(trial(2, folder=named))
        assert repr(named) in str(caught.value)
        assert folders.choose(trial(3), [trial(2, folder=named)]) in (None, "x")  # whose trial has ended


def test_a_folder_elsewhere_that_this_start_names_itself_is_meant(tmp_path: Path) -> None:
    disk = str(tmp_path / "disk" / "x1")
    folders = Folders(tmp_path / "out", compose=lambda trial: disk)
    assert folders.name(trial(2, folder=disk)) == disk
    assert folders.name(trial(2, folder=f"{disk}_2")) == f"{disk}_2"
    with pytest.raises(StudyError):
        folders.name(trial(2, folder=f"{disk}_2/../../victim"))


def test_the_folder_of_a_sweep_is_known_by_its_note(tmp_path: Path) -> None:
    assert not is_of(tmp_path, "cats")
    for study in ("cats", "dogs", "cats"):
        mark(tmp_path, study)
    assert is_of(tmp_path, "cats")
    assert is_of(tmp_path, "dogs")
    assert not is_of(tmp_path, "cat")
    for text in ("", "[]", '{"studies": "cats"}', '{"studies": null}', "\x00"):
        (tmp_path / NOTE).write_text(text)
        assert not is_of(tmp_path, "cats")


@pytest.mark.security
def test_a_trial_begins_in_no_folder_that_holds_something_and_goes_on_in_its_own(tmp_path: Path) -> None:
    """As when a backup of a study is older than its trials."""
    for name in ("3", "fixed", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "3/output.log").touch()
    (tmp_path / "fixed/output.log").touch()
    (tmp_path / "file").touch()
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    assert Folders(tmp_path).choose(trial(3), []) == "3_3"
    assert Folders(tmp_path).choose(trial(3, attempt=1), []) is None

    def named(name: str) -> Callable[[Any], str]:
        return lambda _: name

    for name, wanted in {"fixed": "fixed_4", "file": "file_4", "dead": "dead_4", "empty": "empty"}.items():
        assert Folders(tmp_path, compose=named(name)).choose(trial(4), []) == wanted


@pytest.mark.security
def test_only_folders_that_trials_would_have_and_that_hold_something_are_used(tmp_path: Path) -> None:
    for name in ("0", "1", "01", "7", "2026-11-27", "a", "²", "12345678901"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    (tmp_path / "2").mkdir()
    assert used(tmp_path, 5) == [tmp_path / "0", tmp_path / "1"]
    assert used(tmp_path / "none", 5) == []
