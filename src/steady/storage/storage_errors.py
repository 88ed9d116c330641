"""Translate the errors of a storage into one message with its path and the remedy.

`steady.storage` opens storages whose every call goes through `ErrorTranslator`, so that all who open a study say
the same of a full disk or a damaged file, without a traceback through SQLAlchemy and Optuna.
"""

import errno
import functools
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Set
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from filelock import Timeout
from optuna.storages import BaseStorage

from steady.exceptions import SteadyError, StorageError, causes
from steady.places import NO_SPACE

RECORD = b'{"op_code":'  # how each line of Optuna's journal begins
# Tables that every version of Optuna makes, and STAMP, which it makes last.
CORE = frozenset({
    "studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials", "trial_params",
    "trial_values", "trial_user_attributes", "trial_system_attributes",
})  # fmt: skip
LOGS = ("-wal", "-shm")  # suffixes of the files beside a database that hold what is not in it yet
STAMP = "alembic_version"
SQLITE_TIMEOUT = 60  # seconds to wait for another process's write
AGAIN = "give the same command again: nothing that was recorded is lost"
ELSEWHERE = (
    "or keep another study elsewhere, under another name: hydra.sweeper.storage=sqlite:///FILE study=NEWNAME "
    "(hydra.sweeper.study_name=NEWNAME in an app without `study`)"
)
WRONG = (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, sqlite3.Error, OSError, Timeout)
# Not translated: a fault of the URL; and two processes that make or end the same at once, which Optuna expects.
OTHERS = (
    SteadyError, sqlalchemy.exc.ArgumentError, sqlalchemy.exc.IntegrityError,
    optuna.exceptions.DuplicatedStudyError, optuna.exceptions.UpdateFinishedTrialError,
)  # fmt: skip
UNREADABLE = (json.JSONDecodeError, UnicodeDecodeError)
MARKS, REPORTED = "get_trial_marks", "get_reported_trials"  # methods that some have, see the modules of these names
CALLS = (*(name for name in vars(BaseStorage) if not name.startswith("_")), MARKS, REPORTED)  # the methods of storages


class ErrorTranslator:
    """A context manager that raises errors of a storage as a `StorageError`.

    `place` is its file, or its URL without a password; `known` device and number of the file when it was opened, or
    None to let it change. `rescue` is called when the file is gone; it writes what can still be read to a file and
    returns its path. `remedy` is what to do about a server that cannot be reached, or refuses.

    >>> with ErrorTranslator(Path("study.db")):  # doctest: +IGNORE_EXCEPTION_DETAIL
    ...     raise PermissionError(errno.EACCES, "Permission denied")
    Traceback (most recent call last):
    steady.exceptions.StorageError: The study study.db cannot be opened or written: Permission denied.
    """

    def __init__(
        self,
        place: Path | str,
        known: tuple[int, int] | None = None,
        rescue: Callable[[], Path | None] = lambda: None,
        remedy: str = "",
    ) -> None:
        self.place, self.known, self.rescue, self.remedy = place, known, functools.cache(rescue), remedy

    def __enter__(self) -> None:
        if self.known is not None and identity(self.place) != self.known:
            raise self._gone()

    def __exit__(self, kind: Any, error: BaseException | None, at: Any) -> None:
        if isinstance(error, Exception) and (told := self.explain(error)) is not None:
            raise told from error

    def explain(self, error: Exception) -> StorageError | None:
        """Translate an error; None if it is not the storage's."""
        if type(error).__module__.startswith("grpc"):
            detail = getattr(error, "details", lambda: str(error))()
            return self._unusable(str(detail), self.remedy)
        # Optuna's lock raises a RuntimeError from what it met.
        if isinstance(error, OTHERS) or not isinstance(error, (*WRONG, *UNREADABLE, RuntimeError)):
            return None
        chain = list(causes(error, suppressed=True))
        for cause in chain:
            if isinstance(cause, sqlite3.Error):
                return self._of_sqlite(cause)
            if isinstance(cause, UNREADABLE):
                return self.unreadable(cause)
            if isinstance(cause, Timeout):
                return self._locked()
            if isinstance(cause, OSError):
                if cause.errno == errno.ENOENT:
                    return self._gone()
                return self._full() if cause.errno in NO_SPACE else self._refused(cause.strerror or str(cause))
        if isinstance(error, WRONG):
            deepest = next((str(cause) for cause in reversed(chain) if str(cause)), repr(error))
            lost = any(isinstance(cause, sqlalchemy.exc.OperationalError) for cause in chain)
            return self._unusable(deepest, self.remedy if lost else "")
        return None

    def _unusable(self, why: str, remedy: str = "") -> StorageError:
        return StorageError(f"The study's storage {self.place} cannot be used: {_one_line(why)}. {remedy}".rstrip())

    def unreadable(self, error: Exception) -> StorageError:
        """Make the error for a damaged record, from what reading it raised."""
        return self.damaged(f"it has in its midst what is no record: {_one_line(str(error) or repr(error))}")

    def _of_sqlite(self, error: sqlite3.Error) -> StorageError:
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_FULL":
            return self._full()
        if name.startswith("SQLITE_READONLY"):
            return self._refused("it is read-only")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH")):
            return self._refused(str(error))
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return self._locked()
        if name.startswith("SQLITE_IOERR"):
            return self._full(f"the file system refused ({name}), as a full one or one with a quota does")
        if name == "SQLITE_NOTADB":
            return self.foreign("it is no SQLite database")
        if name.startswith("SQLITE_CORRUPT") or "decode to UTF-8" in str(error):
            return self.damaged(str(error))
        if lost := _lost(self.place):
            return self.damaged(f"it lacks the tables {_listed(lost)}")
        if "no such table" in str(error) or "no such column" in str(error):
            return self.foreign(f"it is not a database of Optuna {optuna.__version__} ({error})")
        return self._unusable(str(error))

    def _full(self, why: str = "no space is left for it") -> StorageError:
        with suppress(OSError):
            why += f" ({shutil.disk_usage(Path(self.place).parent).free / 1e6:.1f} MB are free there)"
        return StorageError(f"The study {self.place} cannot be written: {why}. Make room and {AGAIN}.", full=True)

    def _refused(self, why: str) -> StorageError:
        return StorageError(
            f"The study {self.place} cannot be opened or written: {why}. Make the file and its folder readable and "
            f"writable for you and {AGAIN}; {ELSEWHERE}."
        )

    def _locked(self) -> StorageError:
        return StorageError(
            f"Another process has kept the study {self.place} locked for {SQLITE_TIMEOUT} s. `fuser {self.place}` "
            f"names it; wait for it or end it, and {AGAIN}."
        )

    def damaged(self, why: str) -> StorageError:
        """Make the error for a study of which a part cannot be read."""
        mend = (
            "Restore a backup, or save what can be read: "
            f"sqlite3 {self.place} .recover | sqlite3 {self.place}.recovered, and put that in its place"
        )
        with suppress(OSError), open(self.place, "rb") as file:
            if file.read(len(RECORD)) == RECORD:
                mend = "Take that line out, or restore a backup"
        return StorageError(
            f"The study {self.place} is damaged: {why}. {mend}, and {AGAIN.partition(':')[0]}; or begin another study "
            "under another name. It was left as it is."
        )

    def foreign(self, why: str) -> StorageError:
        """Make the error for a file that is no study."""
        return StorageError(
            f"{self.place} holds no study: {why}. It was left alone. If it was one, restore a backup; {ELSEWHERE}."
        )

    def _gone(self) -> StorageError:
        saved = self.rescue()
        remedy = "Put it back"
        if saved:
            left = [one for end in LOGS if os.path.exists(one := f"{self.place}{end}")]
            first = f"delete {' and '.join(left)}, which are another's, and " if left else ""
            remedy = f"What it held is in {saved}: {first}move that to {self.place}"
        return StorageError(
            f"The study {self.place} is gone: it was moved, deleted or replaced. {remedy} and give the same command "
            "again."
        )


def translate_errors(storage: BaseStorage, context: ErrorTranslator) -> BaseStorage:
    """Make each call of a storage translate its errors, in place.

    >>> storage = translate_errors(optuna.storages.InMemoryStorage(), ErrorTranslator("memory"))
    >>> storage.get_all_studies()
    []
    """
    for name in CALLS:
        if method := getattr(storage, name, None):
            setattr(storage, name, _call(method, context, reads=name.startswith("get_")))
    return storage


def _call(method: Callable[..., Any], context: ErrorTranslator, reads: bool) -> Callable[..., Any]:
    # The best trial of an empty study is the caller's mistake, not damage.
    strict = reads and method.__name__ != "get_best_trial"

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with context:
            try:
                return method(*args, **kwargs)
            except (KeyError, IndexError, *WRONG, *UNREADABLE):
                raise
            except (ValueError, LookupError, AssertionError) as error:  # for example, of a state or time that is none
                if strict:
                    raise context.unreadable(error) from error
                raise

    return call


def inspect(path: Path, siblings: tuple[str, ...]) -> bool:
    """Tell whether a file that may hold a study has content; a StorageError if it is no file, or has become empty.

    `siblings` are names of files that are only beside one that has had content.

    >>> inspect(Path("nowhere.db"), ())
    False
    """
    context = ErrorTranslator(path)
    with context:
        try:
            found = path.stat()
        except FileNotFoundError:
            return False
    if not path.is_file():
        raise context.foreign("it is no file")
    if found.st_size:
        return True
    if left := [one for name in siblings if (one := path.with_name(name)).exists() and one.stat().st_size]:
        raise context.damaged(f"it is empty, though there is {left[0].name} beside it")
    return False


def check_database(path: Path, tables: frozenset[str], thorough: bool) -> None:
    """Raise a StorageError for an SQLite file, not empty, that is damaged or another program's.

    Optuna's are the `tables`. `thorough` reads all of it, some milliseconds for a hundred trials.

    >>> with closing(sqlite3.connect("notes.db")) as connection:
    ...     _ = connection.execute("CREATE TABLE notes (text)")
    >>> check_database(Path("notes.db"), CORE, thorough=False)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    steady.exceptions.StorageError: notes.db holds no study: it is another program's database.
    """
    context = ErrorTranslator(path)
    with context, closing(_connection(path, "rw", SQLITE_TIMEOUT)) as connection:
        there = _tables(connection)
        columns = {row[1] for row in connection.execute("PRAGMA table_info(studies)")}
        if (there - tables and "studies" not in there) or (columns and "study_name" not in columns):
            raise context.foreign(f"it is another program's database, with the tables {_listed(there)}")
        if STAMP in there and (lost := CORE - there):
            raise context.damaged(f"it lacks the tables {_listed(lost)}")
        if thorough and (said := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise context.damaged(_one_line(said))


def _connection(place: Path | str, mode: str, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(place).absolute().as_uri()}?mode={mode}", uri=True, timeout=timeout)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _lost(place: Path | str) -> set[str]:
    """List the tables that a study's file has lost while it was in use, as far as that can be told."""
    with suppress(sqlite3.Error, OSError, ValueError), closing(_connection(place, "ro", 0)) as connection:
        there = _tables(connection)
        return set(CORE - there) if STAMP in there else set()
    return set()


def identity(path: Path | str) -> tuple[int, int] | None:
    """Get device and number of a file; None if there is none.

    >>> identity("nowhere.db")
    """
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None


def _listed(names: Set[str]) -> str:
    first = ", ".join(sorted(names)[:3])
    return f"{first}, …" if len(names) > 3 else first


def _one_line(text: str) -> str:
    return " ".join(text.split()).removesuffix(".")
