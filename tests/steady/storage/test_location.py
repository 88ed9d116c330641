"""Where a study is found: in SQLite beside its results, or where the note there says, which may be a stranger's."""

import json
import os
from pathlib import Path

import optuna
import pytest

from steady.exceptions import ConfigError, StudyError
from steady.storage import VARIABLE, location, open_storage, with_password
from steady.storage.location import NOTE, open_study, remember, storage_url, study_folder

SERVER = "postgresql://me@host/studies"


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """A storage that is not in `sweeps`, with the studies cats (and its confirmation) and dogs."""
    url = f"journal:///{tmp_path / 'shared.log'}"
    storage = open_storage(url)
    for name in ("cats", "cats.confirm", "dogs"):
        optuna.create_study(study_name=name, storage=storage)
    return url


def test_a_noted_study_is_opened_where_it_is(tmp_path: Path, elsewhere: str) -> None:
    remember(tmp_path / "sweeps" / "cats", "cats", elsewhere)
    folder = study_folder(tmp_path / "sweeps", None)
    assert folder.name == "cats"
    assert open_study(folder).study_name == "cats"


def test_a_url_is_noted_for_the_next_command(tmp_path: Path, elsewhere: str) -> None:
    sweeps = tmp_path / "sweeps"
    with pytest.raises(StudyError, match=r"Say which study in .*There are: cats, dogs"):
        study_folder(sweeps, None, elsewhere)
    with pytest.raises(StudyError, match=r"No study 'cows' in .*There are: cats, dogs"):
        study_folder(sweeps, "cows", elsewhere)
    assert not sweeps.exists()
    assert study_folder(sweeps, "dogs", elsewhere) == sweeps / "dogs"
    assert open_study(study_folder(sweeps, "dogs")).study_name == "dogs"


def test_a_password_is_never_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = "postgresql://me:secret@host/studies"
    remember(tmp_path, "cats", whole)
    assert "secret" not in (tmp_path / NOTE).read_text()
    assert storage_url(tmp_path) == SERVER
    assert with_password(SERVER) == SERVER
    monkeypatch.setenv(VARIABLE, whole)
    assert with_password(SERVER) == with_password(whole) == whole
    assert with_password("postgresql://me@other/studies") == "postgresql://me@other/studies"
    monkeypatch.delenv(VARIABLE)
    assert VARIABLE not in os.environ


def test_without_a_note_the_study_is_beside_its_results(tmp_path: Path) -> None:
    assert storage_url(tmp_path) == f"sqlite:///{tmp_path / 'study.db'}"


@pytest.mark.security
@pytest.mark.parametrize(
    "storage",
    [
        None,
        7,
        "",
        "study.db",
        "postgresql+other://host/studies",
        "oracle://host/studies",
        "postgresql://me@host/studies?passfile=/etc/shadow",
        "postgresql://me@host/studies?host=elsewhere",
        "postgresql://me@host/studies?sslkey=/root/key",
        "mysql://host/studies?read_default_file=/root/.my.cnf",
    ],
)
def test_a_note_says_where_and_nothing_else(tmp_path: Path, storage: object) -> None:
    (tmp_path / NOTE).write_text(json.dumps({"by": "steady", "study": "cats", "storage": storage}))
    with pytest.raises(ConfigError, match=r"study\.json should say where the study is kept.*storage=URL"):
        storage_url(tmp_path)


@pytest.mark.security
@pytest.mark.parametrize("text", ["", "{", "[]", '"text"', "[" * 100_000, "\x00"])
def test_a_damaged_note_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / NOTE).write_text(text)
    with pytest.raises(ConfigError, match=r"study\.json should say"):
        storage_url(tmp_path)


@pytest.mark.security
def test_a_study_s_name_is_no_path(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path / 'shared.log'}"
    optuna.create_study(study_name="../escaped", storage=open_storage(url))
    with pytest.raises(ConfigError, match="name of a study"):
        study_folder(tmp_path / "sweeps", None, url)
    assert not (tmp_path / "escaped").exists()


@pytest.mark.security
def test_a_server_of_a_note_gets_no_password_that_it_asks_for_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(url: str, make: bool) -> None:
        asked.append(url)
        raise StudyError("there is no server")

    monkeypatch.setattr(location, "open_storage", refuse)
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(location, "libpq", lambda driver: 170_000)
    remember(tmp_path, "cats", SERVER)
    with pytest.raises(StudyError):
        open_study(tmp_path)
    assert asked == [f"{SERVER}?require_auth=%21password%2C%21md5"]
    monkeypatch.setattr(location, "libpq", lambda driver: 150_018)  # Debian 12's
    with pytest.raises(ConfigError, match=r"libpq \(before 16\).*say storage=URL yourself"):
        open_study(tmp_path)
    for said in (SERVER, "postgresql://me:secret@host/studies"):  # by the user
        monkeypatch.setenv(VARIABLE, said)
        with pytest.raises(StudyError):
            open_study(tmp_path)
    assert asked[1:] == [SERVER, SERVER]
