"""Storages that a server keeps: PostgreSQL, MySQL and Optuna's gRPC proxy, opened for `steady.storage`.

A server may be away for a while: a restart, a failover, a network that is down. Calls then wait with backoff
(`Patience`). Two controllers that start on an empty database would make its tables at once, and Optuna does not expect
that (each table is looked for, then made), so a lock of the database itself lets one do so after the other.
"""

import functools
import logging
import random
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import optuna
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage

from steady.exceptions import StorageError, causes
from steady.storage.attributes import Database, use_single_statements
from steady.storage.storage_errors import CALLS

log = logging.getLogger(__name__)

FIRST, LONGEST = 0.1, 3.0  # seconds between two tries: doubled each time, up to the longest
# SQLSTATE of errors that pass: connection lost, server shut down or starting, too many connections, failed over.
PASSING = ("08", "57P01", "57P02", "57P03", "53300", "25006")
PASSING_MYSQL = (1040, 1053, 1077, 1079, 2002, 2003, 2006, 2013)
# libpq gives no code to what it meets while it connects, and these do not pass.
REFUSED = (
    "authentication failed",
    "does not exist",
    "no password supplied",
    "pg_hba.conf",
    "no encryption",
    "does not support SSL",
)
GRPC_PORT = 13000  # Optuna's own default
# What drivers take to give up a server that does not answer, by their names: seconds to wait for a connection, and
# milliseconds without an acknowledgement.
POSTGRES, MYSQL = {"connect_timeout": 10, "tcp_user_timeout": 30_000}, {"connect_timeout": 10}
BOUNDS = {"psycopg": POSTGRES, "psycopg2": POSTGRES, "pymysql": MYSQL, "mysqldb": MYSQL}
LOCK = {  # until the end of the transaction, which poolers such as PgBouncer keep on one connection
    "postgresql": "SELECT pg_advisory_xact_lock(7368656)",
    "mysql": "SELECT GET_LOCK('optuna', 60)",
}


def open_database(url: str, make: bool = True) -> BaseStorage:
    """Open the storage of a database server, and make its tables if they are not there.

    Raises:
        ImportError: its driver is not installed.
        StorageError: there are no tables of Optuna's, and `make` is False.
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or refuses.
    """
    address = sqlalchemy.make_url(url)
    known = BOUNDS.get(address.get_driver_name(), {})
    options = {name: bound for name, bound in known.items() if name not in address.query}
    # A connection that the server closed meanwhile is noticed before it is used.
    engine = {"pool_pre_ping": True, "connect_args": options}
    first = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, connect_args=options)
    with first.connect() as connection:
        # The last table that Optuna makes, and stamps. Who finds it needs no lock.
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            if not make:
                raise StorageError(f"There are no studies in {address.render_as_string()}: expected Optuna's tables.")
            connection.execute(sqlalchemy.text(LOCK[address.get_backend_name()]))
        storage = Database(url, engine_kwargs=engine)
    weakref.finalize(storage, storage.engine.dispose)  # psycopg warns of connections that nobody closed
    return use_single_statements(optuna.storages.get_storage(storage), storage)


def open_proxy(url: str) -> BaseStorage:
    """Open the storage behind a proxy of Optuna's, `grpc://HOST:PORT`, which has made it.

    Raises:
        ImportError: grpcio is not installed.
        ValueError: there is no host in the URL, or the port is no number.
    """
    address = urlsplit(url)
    host, port = address.hostname, address.port or GRPC_PORT
    if not host:
        raise ValueError(f"no host in {url}")
    with warnings.catch_warnings():  # whoever writes grpc:// has chosen it
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.storages.GrpcStorageProxy(host=f"[{host}]" if ":" in host else host, port=port)


def is_away(error: BaseException) -> bool:
    """Tell whether an error of a storage means that its server cannot be reached now.

    Example:
        >>> is_away(ValueError("no such state"))
        False
        >>> is_away(sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused"), True))
        True
    """
    for cause in causes(error, suppressed=True):
        if type(cause).__module__.startswith("grpc"):
            code = getattr(cause, "code", lambda: None)()
            return getattr(code, "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
        if isinstance(cause, sqlalchemy.exc.TimeoutError):  # of the pool of connections
            return True
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            return cause.connection_invalidated or _passes(cause)
    return False


def _passes(error: sqlalchemy.exc.DBAPIError) -> bool:
    origin = error.orig
    if type(origin).__module__.startswith("sqlite3"):
        return False
    if code := getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None):
        return str(code).startswith(PASSING)
    first = origin.args[0] if origin is not None and origin.args else None
    if isinstance(first, int):  # MySQL's drivers
        return first in PASSING_MYSQL
    return isinstance(error, sqlalchemy.exc.OperationalError) and not any(word in str(origin) for word in REFUSED)


@dataclass
class Patience:
    """How long the calls of a storage wait for its server.

    Example:
        >>> patience = Patience(seconds=600)
        >>> patience.call(lambda: "answer")
        'answer'
    """

    seconds: float  # of one outage; 0: errors are raised at once
    place: str = "the study's storage"  # for messages, without a password
    hurry: Callable[[], bool] = lambda: False  # asked between two tries; True ends the wait
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _since: float | None = None  # when the server was found away; None if it is there
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of a storage, again and again while its server is away.

        Raises:
            Exception: what the method raised, at once if its server is there, else when the patience is over.
        """
        began, delay = None, FIRST
        while True:
            try:
                result = method(*args, **kwargs)
            except Exception as error:
                if not is_away(error):
                    self._told_back()
                    if began is not None and _done_before(method, args, error):
                        return True if method.__name__ == "set_trial_state_values" else None
                    raise
                began = self.clock() if began is None else began
                left = self.seconds - (self.clock() - began)
                if left <= 0 or self.hurry():
                    raise
                self._told_away(error)
            else:
                self._told_back()
                return result
            self.sleep(min(delay * random.uniform(0.5, 1), left))
            delay = min(2 * delay, LONGEST)

    @contextmanager
    def none(self) -> Iterator[None]:
        """Wait for nothing meanwhile."""
        kept, self.seconds = self.seconds, 0.0
        try:
            yield
        finally:
            self.seconds = kept

    def _told_away(self, error: Exception) -> None:
        with self._lock:
            if self._since is not None:
                return
            self._since = self.clock()
        log.warning(
            "%s is away (%s); trying again for %.0f s, and the trials go on training meanwhile",
            self.place, _reason(error), self.seconds,
        )  # fmt: skip

    def _told_back(self) -> None:
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            log.warning("%s is back after %.0f s", self.place, self.clock() - since)


def _reason(error: Exception) -> str:
    """Word an error in one line, without the SQL that met it."""
    for cause in causes(error, suppressed=True):
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.orig is not None:
            error = cause.orig
        elif hasattr(cause, "details"):  # grpc's
            return str(cause.details())[:200]
    return " ".join(str(error).split())[:200]


def _done_before(method: Callable[..., Any], args: tuple[Any, ...], error: Exception) -> bool:
    """Tell whether a write that is refused now was made by the try before, whose answer was lost."""
    storage = getattr(method, "__self__", None)
    if isinstance(error, UpdateFinishedTrialError) and method.__name__ == "set_trial_state_values" and storage:
        trial_id, state, *values = args
        trial = storage.get_trial(trial_id)
        return bool(trial.state == state and (not values or values[0] is None or list(values[0]) == trial.values))
    return isinstance(error, KeyError) and method.__name__ == "delete_study"


def wait_for_server(storage: BaseStorage, patience: Patience) -> BaseStorage:
    """Make each call of a storage wait for its server, in place.

    Example:
        >>> import optuna
        >>> wait_for_server(optuna.storages.InMemoryStorage(), Patience(1.0)).get_all_studies()
        []
    """
    for name in CALLS:
        method = getattr(storage, name)
        setattr(storage, name, functools.update_wrapper(functools.partial(patience.call, method), method))
    return storage
