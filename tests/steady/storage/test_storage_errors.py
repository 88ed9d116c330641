"""A study that cannot be opened, read or written is one message with its path and the remedy, and is left as it is."""

import errno
import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from tests.starting import Running
from tests.steady.left import load, whole
from tests.steady.scripted import GOOD, Script, scheduler

from steady.exceptions import SteadyError, StorageError
from steady.run.ledger import Limits
from steady.storage import open_storage, storage_errors
from steady.storage.location import open_study
from steady.study.failures import Kind, classify

pytestmark = pytest.mark.security


def made(path: Path, scheme: str = "sqlite", trials: int = 20) -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=open_storage(f"{scheme}:///{path}"))
    for number in range(trials):
        study.add_trial(optuna.trial.create_trial(value=float(number), user_attrs={"note": "x" * 400}))
    return study


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A study of 20 trials, closed: all of it is in one file."""
    path = tmp_path / "s" / "study.db"
    study = made(path)
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    return path


def read_all(path: Path, scheme: str = "sqlite", make: bool = True) -> None:
    study = optuna.load_study(study_name="s", storage=open_storage(f"{scheme}:///{path}", make=make))
    assert len(study.trials) == 20


def flip(path: Path, at: int, n: int = 64) -> None:
    content = bytearray(path.read_bytes())
    for place in range(at, min(at + n, len(content))):
        content[place] ^= 0xFF
    path.write_bytes(content)


# --- what is not a study


def is_text(path: Path) -> None:
    path.write_text("buy milk\n" * 500)


def is_short(path: Path) -> None:
    path.write_bytes(b"SQLi")


def is_picture(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(5000))


def is_folder(path: Path) -> None:
    path.mkdir()


def is_loop(path: Path) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


def is_pipe(path: Path) -> None:
    os.mkfifo(path)


def is_others(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE moz_places (url TEXT)")


def has_another_studies(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE studies (patient TEXT)")


def is_newer(path: Path) -> None:
    made(path, trials=0)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0'")


def is_empty_with_a_log(path: Path) -> None:
    path.touch()
    path.with_name(path.name + "-wal").write_bytes(bytes(100))


def is_empty_with_results(path: Path) -> None:
    path.touch()
    path.with_name("leaderboard.csv").write_text("trial\n0\n")


WRONG = [is_text, is_short, is_picture, is_folder, is_loop, is_pipe, is_others, has_another_studies, is_newer,
         is_empty_with_a_log, is_empty_with_results]  # fmt: skip


@pytest.mark.parametrize("make", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_study_is_refused_with_its_path_and_left_alone(
    wrong: Callable[[Path], None], make: bool, tmp_path: Path
) -> None:
    path = tmp_path / "study.db"
    wrong(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StorageError) as told:
        open_storage(f"sqlite:///{path}", make=make)
    assert str(path) in str(told.value)
    assert "\n" not in str(told.value)
    if before is not None:
        assert path.read_bytes() == before


@pytest.mark.parametrize("wrong", [is_text, is_picture, is_folder, is_loop, is_pipe, is_empty_with_results])
def test_nor_is_such_a_file_taken_for_a_journal(wrong: Callable[[Path], None], tmp_path: Path) -> None:
    wrong(tmp_path / "study.log")
    with pytest.raises(SteadyError, match=r"study\.log"):
        open_storage(f"journal:///{tmp_path}/study.log")


def test_an_empty_file_is_where_a_start_was_killed(tmp_path: Path) -> None:
    (tmp_path / "study.db").touch()
    made(tmp_path / "study.db", trials=1)


# --- damage


@pytest.mark.parametrize("page", range(1, 20, 3))
def test_a_damaged_page_is_said_with_the_way_to_save_the_rest(page: int, database: Path) -> None:
    size = database.stat().st_size
    flip(database, min(4096 * page, size - 4096), 4096)
    before = database.read_bytes()
    for reading in (lambda: read_all(database), lambda: open_study(database.parent).trials):
        with pytest.raises(StorageError, match=r"study\.db"):
            reading()
    assert database.read_bytes() == before


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_database_is_damaged(share: float, database: Path) -> None:
    database.write_bytes(database.read_bytes()[: int(share * database.stat().st_size)])
    with pytest.raises(StorageError, match=r"damaged.*sqlite3 .*\.recover"):
        read_all(database)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trials SET state = 'COMPLETF'",
        "UPDATE trials SET datetime_start = 'x', datetime_complete = 'not a time'",
        "UPDATE trial_user_attributes SET value_json = '{\"'",
        "UPDATE trial_user_attributes SET value_json = CAST(X'ff00' AS TEXT)",
        "UPDATE study_directions SET direction = 'SIDEWAYS'",
        "DROP TABLE trial_user_attributes",
    ],
)
def test_a_value_that_is_none_is_damage_too(change: str, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(change)
    connection.close()
    with pytest.raises(StorageError, match=r"study\.db"):
        read_all(database, make=False)


@pytest.mark.parametrize("line", [b"{}}\n", b"\x00\xff\xfe\n", b"{}\n", b'{"op_code": 99}\n', b"[1]\n", b'"x"\n'])
def test_a_line_that_is_none_in_a_journal(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    study = made(path, "journal", 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line, *lines[2:]]))
    with pytest.raises(StorageError, match=r"study\.log is damaged.*Take that line out"):
        open_storage(f"journal:///{path}")
    path.write_bytes(b"".join(lines) + b"{}}\n" + lines[-1])  # while it is in use
    with pytest.raises(StorageError, match="damaged"):
        study.get_trials(deepcopy=False)


# --- the disk, other processes


@contextmanager
def no_room(path: Path, more: int = 0) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + more if path.exists() else more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("more", [0, 100, 3000, 20_000, 60_000, 90_000])
def test_no_room_for_a_new_study_leaves_none(more: int, tmp_path: Path) -> None:
    """Half of its tables would be there, without the index that keeps two studies of one name apart."""
    with no_room(tmp_path / "study.db", more), pytest.raises(StorageError, match="Make room") as told:
        made(tmp_path / "study.db")
    assert told.value.full
    assert {path.name for path in tmp_path.iterdir()} <= {"study.db.lock"}
    study = made(tmp_path / "study.db")
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(study_name="s", storage=study._storage)


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_no_room_for_a_trial_loses_that_call_alone(scheme: str, tmp_path: Path) -> None:
    path = tmp_path / "study"
    study = made(path, scheme)
    file = path.with_name("study-wal") if scheme == "sqlite" else path
    with no_room(file), pytest.raises(StorageError, match="Make room"):
        study.add_trial(optuna.trial.create_trial(value=0.0, user_attrs={"note": "x" * 9000}))
    read_all(path, scheme)
    study.add_trial(optuna.trial.create_trial(value=0.0))
    assert len(study.trials) == 21


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("SQLITE_FULL", "no space is left"),
        ("SQLITE_READONLY_DIRECTORY", "read-only"),
        ("SQLITE_CANTOPEN", "readable and writable"),
        ("SQLITE_BUSY", "locked for 60 s"),
        ("SQLITE_IOERR_WRITE", "Make room"),
        ("SQLITE_CORRUPT_INDEX", "Restore a backup"),
        ("SQLITE_NOTADB", "no SQLite database"),
        ("SQLITE_TOOBIG", "cannot be used"),
    ],
)
def test_each_code_of_sqlite_has_its_remedy(name: str, said: str, tmp_path: Path) -> None:
    cause = sqlite3.OperationalError("some words")
    cause.sqlite_errorname = name
    error = sqlalchemy.exc.OperationalError("SELECT 1", {}, cause)
    error.__cause__ = cause
    told = storage_errors.ErrorTranslator(tmp_path / "study.db").explain(error)
    assert told is not None
    assert said in str(told)
    assert str(tmp_path / "study.db") in str(told)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO, errno.ENAMETOOLONG])
def test_a_file_system_that_refuses(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = made(tmp_path / "study.log", "journal")

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StorageError, match=rf"study\.log cannot be opened or written: {os.strerror(number)}"):
        study.set_user_attr("a", 1)


def test_a_study_that_another_process_keeps_locked(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steady.storage.SQLITE_TIMEOUT", 0.01)
    monkeypatch.setattr("steady.storage.storage_errors.SQLITE_TIMEOUT", 0.01)
    study = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{database}"))
    other = sqlite3.connect(database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="Another process has kept"):
        study.set_user_attr("a", 1)
    other.execute("ROLLBACK")
    other.close()
    study.set_user_attr("a", 1)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_database_that_is_deleted_while_it_is_in_use_is_saved(replaced: bool, database: Path) -> None:
    study = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{database}"))
    study.set_user_attr("last", "word")
    database.unlink()
    if replaced:
        is_others(database)
    with pytest.raises(StorageError, match=r"is gone.*What it held is in .*study\.db\.rescued"):
        study.set_user_attr("a", 1)
    assert database.exists() is replaced
    for end in ("-wal", "-shm"):
        if (left := database.with_name(f"study.db{end}")).exists():
            assert replaced
            left.unlink()
    database.with_name("study.db.rescued").replace(database)
    read_all(database)
    assert optuna.load_study(study_name="s", storage=f"sqlite:///{database}").user_attrs["last"] == "word"


def test_a_trial_never_makes_a_study(tmp_path: Path) -> None:
    for scheme in ("sqlite", "journal"):
        with pytest.raises(StorageError, match="There is no study at"):
            open_storage(f"{scheme}:///{tmp_path}/study", make=False)
    assert list(tmp_path.iterdir()) == []


def test_questions_that_have_no_answer_are_no_damage(database: Path) -> None:
    storage = open_storage(f"sqlite:///{database}")
    with pytest.raises(KeyError):
        storage.get_study_id_from_name("none")
    with pytest.raises(ValueError, match="does not exist"):
        _ = optuna.create_study(study_name="other", storage=storage).best_trial
    with pytest.raises(optuna.exceptions.DuplicatedStudyError):
        optuna.create_study(study_name="s", storage=storage)
    study = optuna.load_study(study_name="s", storage=storage)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_user_attr(study.trials[0]._trial_id, "a", 1)


# --- in the middle of a sweep


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), Kind.DISK_FULL),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), Kind.DISK_FULL),
        (StorageError("x", full=True), Kind.DISK_FULL),
        (StorageError("x"), Kind.LOST),
        (OSError(errno.ENOENT, "No such file"), Kind.FAILED),
    ],
)
def test_what_a_trial_cannot_write_is_no_fault_of_its_own(error: Exception, kind: Kind) -> None:
    assert classify(error).kind == kind


def test_a_study_that_cannot_be_written_stops_the_sweep_at_checkpoints_and_loses_no_trial(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    study = optuna.create_study(study_name="s", storage=open_storage(f"journal:///{path}"))
    script = Script(2)
    loop = scheduler(script, Limits(4), study, record=lambda: full())

    def full() -> None:
        raise StorageError("The study cannot be written: no space.", full=True)

    with pytest.raises(StorageError, match="no space"):
        loop.run()
    assert script.stopped
    assert not script.busy
    loop.ledger.leases.close()
    again = Script(2)
    scheduler(again, Limits(4), study, "again").run()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4
    assert GOOD.value == study.trials[-1].value


def test_a_full_disk_in_the_middle_of_a_sweep_then_the_same_line(start: Callable[..., Running], tmp_path: Path) -> None:
    """The folder of the results turns into a file: from then on nothing can be recorded there."""
    line = ("hydra.sweeper.n_trials=6", "seconds=0.1")
    board = tmp_path / "sweeps/fake/leaderboard.csv"
    board.mkdir(parents=True)  # os.replace refuses, as a full disk does
    process = start(*line)
    out, err = process.communicate()
    assert process.returncode == 1, out
    assert "Traceback" not in err + out
    assert "leaderboard.csv cannot be" in err
    board.rmdir()
    done = start(*line).done()
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 6)


def test_a_database_that_is_deleted_in_the_middle_is_said_and_put_back(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    line = ("hydra.sweeper.n_trials=5", "seconds=0.1")
    process = start(*line)
    began = tmp_path / "out/fake/2/steps.txt"
    waiting = threading.Event()
    while not began.exists():
        assert process.poll() is None, process.communicate()
        waiting.wait(0.01)
    (tmp_path / "sweeps/fake/study.db").unlink()
    out, err = process.communicate()
    assert process.returncode == 1, out
    assert "Traceback" not in err + out
    assert "study.db.rescued" in err
    (tmp_path / "sweeps/fake/study.db.rescued").rename(tmp_path / "sweeps/fake/study.db")
    done = start(*line).done()
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 5)
    assert len(load(tmp_path).trials) == 5


@pytest.mark.security
def test_a_database_whose_folder_is_deleted_with_it_is_saved(database: Path) -> None:
    study = optuna.load_study(study_name="s", storage=open_storage(f"sqlite:///{database}"))
    study.set_user_attr("last", "word")
    shutil.rmtree(database.parent)
    with pytest.raises(StorageError, match=r"is gone.*What it held is in .*study\.db\.rescued"):
        study.set_user_attr("a", 1)
    saved = f"sqlite:///{database}.rescued"
    assert optuna.load_study(study_name="s", storage=saved).user_attrs["last"] == "word"


@pytest.mark.security
@pytest.mark.parametrize("table", ["trial_values", "trial_params", "trials", "studies"])
def test_a_table_that_is_lost_in_the_midst_is_told_as_at_the_next_start_and_once(
    table: str, database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{database}"
    study = optuna.load_study(study_name="s", storage=open_storage(url))
    other = sqlite3.connect(database)
    other.execute(f"DROP TABLE {table}")
    other.close()
    optuna.logging.enable_propagation()
    try:
        with pytest.raises(StorageError) as midst:
            study.get_trials()
    finally:
        optuna.logging.disable_propagation()
    with pytest.raises(StorageError, match=f"is damaged: it lacks the tables {table}") as later:
        open_storage(url)
    assert str(midst.value) == str(later.value)
    assert not caplog.records


def test_a_server_that_cannot_be_reached_is_told_with_what_to_check_and_other_faults_without() -> None:
    translator = storage_errors.ErrorTranslator("postgresql://me@host/studies", remedy="Check that it runs.")
    for kind, said in (
        (sqlalchemy.exc.OperationalError, "connection refused. Check that it runs."),
        (sqlalchemy.exc.ProgrammingError, "connection refused."),
    ):
        origin = Exception("connection refused")
        (error := kind("SELECT 1", {}, origin)).__cause__ = origin  # as SQLAlchemy raises it
        assert str(translator.explain(error)).endswith(f"cannot be used: {said}")
