"""Storages open, in the way that survives kills; a torn journal is mended."""

import multiprocessing
import resource
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tests.steady import contenders

from steady.exceptions import ConfigError, NoStorageError, StorageError, StudyError
from steady.storage import open_storage, shown
from steady.storage.journal import AtomicJournalBackend


def test_sqlite_is_in_wal_mode_for_every_connection(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new/folder/study.db"
    storage = open_storage(url)
    engine = storage._backend.engine  # type: ignore[attr-defined]  # of Optuna's cached storage
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            assert connection.execute(sqlalchemy.text("PRAGMA journal_mode")).scalar() == "wal"
            assert connection.execute(sqlalchemy.text("PRAGMA synchronous")).scalar() == 1
            assert connection.execute(sqlalchemy.text("PRAGMA busy_timeout")).scalar() == 60_000


def test_two_processes_may_make_one_storage_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=contenders.make, args=(str(tmp_path), barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            barrier.abort()  # the other must not wait for it
    assert [process.exitcode for process in processes] == [0, 0]
    for path in tmp_path.glob("*/*/study"):
        study = optuna.load_study(study_name="s", storage=open_storage(f"{path.parent.parent.name}:///{path}"))
        assert [trial.number for trial in study.trials] == [0, 1]


# --- journals


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal with two finished trials."""
    study = optuna.create_study(study_name="s", storage=open_storage(f"journal:///{tmp_path}/study.log"))
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), 2.0)
    return tmp_path / "study.log"


def load(path: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=open_storage(f"journal:///{path}"))


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def test_a_torn_journal_is_mended_and_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = path.read_bytes()
    tear(path)
    study = load(path)
    assert "torn" in caplog.text
    last = whole.splitlines(keepends=True)[-1]
    assert path.read_bytes() == whole.removesuffix(last)
    assert path.with_name("study.log.torn").read_bytes() == last[:-9]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING"]
    study.tell(1, 3.0)
    assert [trial.value for trial in load(path).trials] == [1.0, 3.0]


def test_optuna_itself_loses_what_follows_a_torn_line(path: Path) -> None:
    """Should this fail one day, Optuna mends its journals, and we need not."""
    tear(path)
    study = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(path))))
    study.tell(1, 3.0)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "RUNNING"]
    with pytest.raises(ValueError, match="delimiter"):
        study.set_user_attr("one", "more")


def test_a_line_that_was_appended_to_a_torn_one_is_cut_off_with_it(path: Path) -> None:
    tear(path)
    JournalFileBackend(str(path)).append_logs([{"op_code": 6}])
    assert [trial.state.name for trial in load(path).trials] == ["COMPLETE", "RUNNING"]
    assert path.with_name("study.log.torn").read_bytes().endswith(b'{"op_code":6}\n')


def test_what_another_process_tears_meanwhile_is_mended_before_the_next_line(path: Path) -> None:
    study = load(path)
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    study.tell(study.ask(), 3.0)
    assert [trial.value for trial in load(path).trials] == [1.0, 2.0, 3.0]
    assert path.with_name("study.log.torn").read_bytes() == b'{"op_code":4,"wor'


def test_a_full_disk_costs_the_line_that_did_not_fit_and_no_more(path: Path) -> None:
    study, before = load(path), path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 20, hard))
    try:
        with pytest.raises(StorageError, match="no space is left"):
            study.ask()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    study.tell(study.ask(), 3.0)
    assert [trial.value for trial in load(path).trials] == [1.0, 2.0, 3.0]


def test_a_whole_journal_is_left_alone(path: Path) -> None:
    before = path.read_bytes()
    load(path)
    assert path.read_bytes() == before
    assert not path.with_name("study.log.torn").exists()


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("buy\nmilk")
    with pytest.raises(ConfigError, match="no journal"):
        open_storage(f"journal:///{tmp_path}/notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "buy\nmilk"


def test_a_journal_broken_in_its_midst_is_said_to_be(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{}}\n", *lines[2:]]))
    with pytest.raises(StudyError, match="in its midst"):
        load(path)


def test_the_lock_that_a_killed_process_left_is_freed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent.parent)  # with a relative path, Optuna's own lock would spin for ever
    backend = AtomicJournalBackend(Path(path.parent.name) / path.name)
    backend.lock.grace_period = 0.05  # type: ignore[assignment]  # instead of 30 s
    AtomicJournalBackend(backend.path).lock.acquire()
    backend.mend()


# --- forms


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_reading_makes_nothing(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(NoStorageError, match="There is no study at"):
        open_storage(f"{scheme}:///{tmp_path}/new/folder/study", make=False)
    assert not list(tmp_path.iterdir())


def test_the_old_name_of_postgresql_is_refused_with_the_new_one() -> None:
    with pytest.raises(ConfigError, match=r"got postgres://me@host/db\. Write postgresql:// for postgres://"):
        open_storage("postgres://me:secret@host/db")


@pytest.mark.parametrize(
    "url",
    ["study.db", "ftp://host/x", None, 3, "sqlite://", "sqlite:///:memory:", "journal://x", "grpc://", "grpc://host:x"],
)
def test_other_forms_are_refused_with_those_there_are(url: object) -> None:
    with pytest.raises(ConfigError, match="sqlite:///FILE, journal:///FILE, postgresql"):
        open_storage(url)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("postgresql+psycopg2://me:secret@host/db", "psycopg2", "psycopg2-binary"),
        ("postgresql+psycopg://me:secret@host/db", "psycopg", "hydra-steady-sweeper[postgres]"),
        ("mysql+pymysql://me:secret@host/db", "pymysql", "pymysql"),
        ("mysql+mysqldb://me:secret@host/db", "MySQLdb", "mysqlclient"),
        ("grpc://host:13000", "grpc", "hydra-steady-sweeper[grpc]"),
    ],
)
def test_a_missing_driver_is_named(url: str, module: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("optuna.storages._grpc.auto")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(ConfigError) as told:
        open_storage(url)
    assert f"pip install '{package}'" in str(told.value)
    assert "secret" not in str(told.value)


def test_an_unknown_driver_is_a_fault_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match="nosuchdriver"):
        open_storage("postgresql+nosuchdriver://me:secret@host/db")


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://me:se@cr/et@host/db", "postgresql://me@host/db"),
        ("postgresql://host:5432/db", "postgresql://host:5432/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=…&x=1"),
        ("sqlite:///C:/a@b/study.db", "sqlite:///C:/a@b/study.db"),
        (None, "None"),
    ],
)
def test_a_password_is_never_shown(url: object, seen: str) -> None:
    assert shown(url) == seen
