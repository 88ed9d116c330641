"""Storages that a server keeps: PostgreSQL, MySQL and Optuna's gRPC proxy, opened for `steady.storage`.

Two controllers that start on an empty database would make its tables at once, and Optuna does not expect that (each
table is looked for, then made), so a lock of the database itself lets one do so after the other.
"""

import warnings
import weakref
from urllib.parse import urlsplit

import optuna
import sqlalchemy
from optuna.storages import BaseStorage
from sqlalchemy import Connection

from steady.exceptions import NoStorageError, StorageError
from steady.storage.attributes import Database, use_single_statements
from steady.storage.reported_trials import add_reported_trials
from steady.storage.trial_marks import add_trial_marks

GRPC_PORT = 13000  # Optuna's own default
# What drivers take to give up a server that does not answer, by their names: seconds to wait for a connection, and
# milliseconds without an acknowledgement.
POSTGRES, MYSQL = {"connect_timeout": 10, "tcp_user_timeout": 30_000}, {"connect_timeout": 10}
BOUNDS = {"psycopg": POSTGRES, "psycopg2": POSTGRES, "pymysql": MYSQL, "mysqldb": MYSQL}
# The same for a proxy; and it is looked for every few seconds, where gRPC itself would wait up to two minutes.
CHANNEL = {
    "grpc.keepalive_time_ms": 30_000, "grpc.keepalive_timeout_ms": 10_000, "grpc.max_reconnect_backoff_ms": 3_000,
    "grpc.max_receive_message_length": -1,
}  # fmt: skip
# Held until the end of the transaction, which poolers such as PgBouncer keep on one connection; of MySQL, of the
# connection. True when it is ours, and of MySQL 0 or null when another has had it for a minute.
LOCK = {
    "postgresql": "SELECT pg_advisory_xact_lock(7368656) IS NOT NULL",
    "mysql": "SELECT GET_LOCK('optuna', 60)",
}


def open_database(url: str, make: bool = True) -> BaseStorage:
    """Open the storage of a database server, and make its tables if they are not there.

    Raises:
        ImportError: its driver is not installed.
        NoStorageError: there are no tables of Optuna's, and `make` is False.
        StorageError: they cannot be made, or written.
        sqlalchemy.exc.SQLAlchemyError: it cannot be reached, or refuses.
    """
    address = sqlalchemy.make_url(url)
    known = BOUNDS.get(address.get_driver_name(), {})
    options = {name: bound for name, bound in known.items() if name not in address.query}
    # A connection that the server closed meanwhile is noticed before it is used.
    engine = {"pool_pre_ping": True, "connect_args": options}
    first = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, connect_args=options)
    with first.connect() as connection:
        if make:
            require_writable(connection)
        # The last table that Optuna makes, and stamps. Who finds it needs no lock.
        if not sqlalchemy.inspect(connection).has_table("alembic_version"):
            if not make:
                raise NoStorageError(f"There are no studies in {_place(connection)}: expected Optuna's tables.")
            lock_tables(connection)
        storage = Database(url, engine_kwargs=engine)
    weakref.finalize(storage, storage.engine.dispose)  # psycopg warns of connections that nobody closed
    fast = use_single_statements(optuna.storages.get_storage(storage), storage)
    return add_reported_trials(add_trial_marks(fast, storage), storage)


def _place(connection: Connection) -> str:
    return connection.engine.url.render_as_string()  # without the password


def require_writable(connection: Connection) -> None:
    """Refuse a standby now; one that the server becomes later, in a failover, is waited for."""
    if connection.dialect.name != "postgresql":
        return
    if connection.execute(sqlalchemy.text("SHOW transaction_read_only")).scalar() == "on":
        raise StorageError(
            f"{_place(connection)} can only be read: it is a standby, or default_transaction_read_only is set. Name "
            "the primary server."
        )


def lock_tables(connection: Connection) -> None:
    """Wait until no other controller makes the tables."""
    if not connection.execute(sqlalchemy.text(LOCK[connection.dialect.name])).scalar():
        raise StorageError(
            f"Another controller has been making Optuna's tables in {_place(connection)} for a minute. If it still "
            "does, wait for it; and give the same command again."
        )


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
        storage = optuna.storages.GrpcStorageProxy(host=f"[{host}]" if ":" in host else host, port=port)
    _bound(storage)
    return storage


def _bound(storage: optuna.storages.GrpcStorageProxy) -> None:
    """Give a proxy's client the channel of `CHANNEL`; Optuna's has no bounds."""
    import grpc
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.client import GrpcClientCache

    storage.close()
    storage._channel = grpc.insecure_channel(f"{storage._host}:{storage._port}", options=list(CHANNEL.items()))
    storage._stub = api_pb2_grpc.StorageServiceStub(storage._channel)  # type: ignore[no-untyped-call]  # generated
    storage._cache = GrpcClientCache(storage._stub)
