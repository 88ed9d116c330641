"""Open Optuna's storages from a URL, so that a kill, a full disk or a busy neighbour loses nothing.

The controller opens one, and each trial opens its own to report rung scores.
"""

import functools
import logging
import os
import re
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.storages import BaseStorage, RDBStorage

from steady.atomic import replacing
from steady.exceptions import ConfigError, NoStorageError, StorageError, causes
from steady.storage.attributes import Database, use_single_statements
from steady.storage.journal import AtomicJournalBackend, MarkedJournalStorage
from steady.storage.patience import Patience, wait_for_server
from steady.storage.reported_trials import add_reported_trials
from steady.storage.servers import open_database, open_proxy
from steady.storage.storage_errors import (
    LOGS,
    SQLITE_TIMEOUT,
    ErrorTranslator,
    check_database,
    identity,
    inspect,
    translate_errors,
)
from steady.storage.trial_marks import add_trial_marks

log = logging.getLogger(__name__)
# It warns of a query that fails, with all of its SQL, before it tries a slower one, whose error counts.
logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)

FORMS = "sqlite:///FILE, journal:///FILE, postgresql://…, mysql://… or grpc://HOST:PORT"
SERVERS = ("postgresql", "mysql", "grpc")
LOGIN = {
    "postgresql": ", and user, database and password (~/.pgpass, or the variable PGPASSWORD)",
    "mysql": ", and user, database and password",
    "grpc": " (python -m steady.storage.proxy)",
}
REMEDY = {
    scheme: f"Check that the server runs, that this host reaches it (host, port, firewall){login}."
    for scheme, login in LOGIN.items()
}
VARIABLE = "STEADY_STORAGE"  # of the environment: the URL of a storage with its password
# Modules whose packages have another name.
PACKAGES = {
    "psycopg": "hydra-steady-sweeper[postgres]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient",
    "grpc": "hydra-steady-sweeper[grpc]",
}  # fmt: skip
# Behind a study's name, the names of studies beside it: of the runs that confirm its trials; of what versions up to 0.1
# kept where leases are now.
CONFIRMATION, LEASES = ".confirm", ".leases"


def open_storage(url: str, make: bool = True, check: bool = True, patience: Patience | None = None) -> BaseStorage:
    """Open a storage, and make it if it is not there. What goes wrong then and later is a `StorageError`.

    Args:
        url: `sqlite:///FILE`, `journal:///FILE` (one slash more for absolute paths), `postgresql://…`, `mysql://…`, or
            `grpc://HOST:PORT` of Optuna's storage proxy.
        make: False to read what must be there.
        check: whether all of a database is looked through for damage.
        patience: how long calls wait for a server that is away; None: not at all. It is not waited for here.

    Raises:
        ConfigError: another form, or a package that the storage needs is not installed.
        NoStorageError: it is not there, and `make` is False.
        StorageError: it cannot be opened: a full disk, a damaged file, another program's.

    >>> storage = open_storage("sqlite:///sweeps/cats/study.db")
    >>> optuna.create_study(study_name="cats", storage=storage).study_name
    'cats'
    """
    url = with_password(url)
    scheme = _scheme(url)
    try:
        if scheme in ("sqlite", "journal"):
            path = _path(url)
            if not (inspect(path, _beside(path)) or make):
                raise NoStorageError(f"There is no study at {path}.")
            return _sqlite(path, url, make, check) if scheme == "sqlite" else _journal(path, make)
        if scheme in SERVERS:
            context = ErrorTranslator(shown(url), remedy=REMEDY[scheme])
            with context:
                storage = open_proxy(url) if scheme == "grpc" else open_database(url, make)
            patience = patience or Patience(0.0)
            patience.place = f"The storage {shown(url)}"
            return translate_errors(wait_for_server(storage, patience), context)
    except ImportError as error:
        # Optuna and SQLAlchemy wrap the error that names the module.
        names = [str(name) for cause in causes(error, suppressed=True) if (name := getattr(cause, "name", None))]
        module = names[0].partition(".")[0] if names else ""
        remedy = f"pip install '{PACKAGES.get(module, module)}'." if module else "install its driver."
        raise ConfigError(f"The storage {shown(url)} needs a package that is not installed: {remedy}") from error
    except sqlalchemy.exc.ArgumentError as error:  # an unknown driver too
        raise ConfigError(f"The storage {shown(url)} cannot be opened: {error}") from error
    except ValueError as error:  # a port that is no number
        raise _refusal(url) from error
    raise _refusal(url)


def find_study(storage: BaseStorage, name: str) -> int | None:
    """Find the id of a study; None if there is none of this name.

    >>> find_study(optuna.storages.InMemoryStorage(), "cats")
    """
    try:
        return storage.get_study_id_from_name(name)
    except KeyError:
        return None


def shown(url: object) -> str:
    """Take the password out of a URL, for messages.

    >>> shown("postgresql://me:secret@host/studies")
    'postgresql://me@host/studies'
    """
    if not isinstance(url, str):
        return repr(url)
    if _scheme(url) in ("sqlite", "journal"):
        return url  # a path; it may well hold an @
    # Up to the last @, for not everybody writes the @ and / of a password as %40 and %2F.
    url = re.sub(r"(://[^:@/]*):.*@", r"\1@", url)
    return re.sub(r"([?&]password=)[^&]*", r"\1…", url)


def with_password(url: str) -> str:
    """Give a URL that was shown without its password the one that the environment has for it.

    >>> os.environ[VARIABLE] = "postgresql://me:secret@host/studies"
    >>> with_password("postgresql://me@host/studies")
    'postgresql://me:secret@host/studies'
    >>> del os.environ[VARIABLE]
    """
    whole = os.environ.get(VARIABLE)
    return whole if whole and url in (whole, shown(whole)) else url


def _scheme(url: object) -> str:
    return url.partition("://")[0].partition("+")[0] if isinstance(url, str) and "://" in url else ""


def _refusal(url: object) -> ConfigError:
    hint = " Write postgresql:// for postgres://." if _scheme(url) == "postgres" else ""
    return ConfigError(f"The storage of a study must be a URL: {FORMS}; got {shown(url)}.{hint}")


def _path(url: str) -> Path:
    path = url.partition(":///")[2].partition("?")[0]
    if path in ("", ":memory:"):  # each process would have a study of its own
        raise _refusal(url)
    return Path(path)


def _beside(path: Path) -> tuple[str, ...]:
    """Name the files that are only beside a storage with content."""
    return f"{path.name}-wal", "leaderboard.csv"


def _sqlite(path: Path, url: str, make: bool, check: bool) -> BaseStorage:
    with ErrorTranslator(path):
        if not make:
            storage = _database(path, url, check, wal=False)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Two processes that make the tables at once would each find half of them there; and the change to WAL does
            # not wait for others, it fails.
            with FileLock(path.with_name(path.name + ".lock"), timeout=SQLITE_TIMEOUT):
                if not inspect(path, _beside(path)):
                    # Atomically: in one with half of the tables Optuna would accept two studies of one name.
                    with replacing(path.resolve()) as unfinished:
                        RDBStorage(f"sqlite:///{unfinished}").engine.dispose()
                storage = _database(path, url, check, wal=True)
    # Only with a transaction behind it has the connection of the pool the file at hand, should somebody delete it.
    fast = add_trial_marks(use_single_statements(optuna.storages.get_storage(storage), storage), storage)
    fast = add_reported_trials(fast, storage)
    return translate_errors(fast, ErrorTranslator(path, identity(path), lambda: _rescued(path, storage)))


def _database(path: Path, url: str, check: bool, wal: bool) -> RDBStorage:
    """Open a database in a file that is there."""
    from optuna.storages._rdb.models import BaseModel

    known = frozenset(BaseModel.metadata.tables) | {"alembic_version"}
    if inspect(path, (f"{path.name}-wal",)):
        check_database(path, known, thorough=check)
    # Never makes the file: one that is deleted while we run is not to be replaced by an empty one.
    uri = f"{path.absolute().as_uri()}?mode=rw"
    connect = functools.partial(sqlite3.connect, uri, uri=True, timeout=SQLITE_TIMEOUT, check_same_thread=False)
    try:
        storage = Database(url, engine_kwargs={"creator": connect})
    except (RuntimeError, AssertionError) as error:  # Optuna's, for another version's tables
        if isinstance(error.__context__, OSError):
            raise
        raise StorageError(
            f"The study {path} was written by another version of Optuna: {' '.join(str(error).split())} "
            "It was left as it is."
        ) from error

    def set_up(connection: Any, _: Any) -> None:
        if wal:  # so that readers never wait; else whoever only reads changes nothing
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # no commit flushes a disk: a power cut loses the last ones

    sqlalchemy.event.listen(storage.engine, "connect", set_up)
    storage.engine.dispose()  # the connection that made the tables came before
    storage.engine.connect().close()
    return storage


def _rescued(path: Path, storage: RDBStorage) -> Path | None:
    """Write what a deleted database held, as far as a connection to it is still open."""
    saved = path.with_name(f"{path.name}.rescued")
    with suppress(Exception):  # whatever a file that is no more makes of it
        saved.parent.mkdir(parents=True, exist_ok=True)  # its folder may have gone with it
        saved.unlink(missing_ok=True)
        with closing(storage.engine.raw_connection()) as connection:
            connection.cursor().execute("VACUUM INTO ?", (str(saved),))
        if not path.exists():  # else they may be of what took its place
            for end in LOGS:  # SQLite would take them for those of the file that was saved
                path.with_name(path.name + end).unlink(missing_ok=True)
        return saved
    return None


def _journal(path: Path, make: bool) -> BaseStorage:
    context = ErrorTranslator(path)
    with context:
        path.parent.mkdir(parents=True, exist_ok=True)
        backend = AtomicJournalBackend(path)
        if make:
            backend.mend()
        try:
            storage = MarkedJournalStorage(backend)
        except (ValueError, LookupError, AssertionError, NotImplementedError, TypeError) as error:
            raise context.unreadable(error) from error
    return translate_errors(storage, ErrorTranslator(path, identity(path)))
