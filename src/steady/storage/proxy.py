"""Serve a study's storage to hosts that cannot reach its database: `python -m steady.storage.proxy URL --host HOST`.

They name it `grpc://HOST:PORT`. It is Optuna's storage proxy, and one thing more: while the database is away it says
so, and its clients wait as for the database itself (`steady.storage.patience`); trials train on meanwhile. Optuna's own
answers with an error that ends them. Whoever reaches the port can read and change the studies: there is no password.
"""

from steady.signals import COMMAND  # isort: skip  # first: from here on Ctrl-C is one line

import argparse
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from steady.exceptions import ConfigError, SteadyError, StorageError
from steady.printing import readable, say
from steady.storage import open_storage, shown
from steady.storage.patience import Patience, is_away, reason
from steady.storage.servers import GRPC_PORT

if TYPE_CHECKING:
    import grpc

THREADS = 10  # as Optuna has it
# Clients look now and then whether we live, see `CHANNEL`; a port that is taken is an error.
OPTIONS = {"grpc.http2.min_recv_ping_interval_without_data_ms": 10_000, "grpc.so_reuseport": 0}


def main(words: list[str] | None = None) -> None:
    """Serve until Ctrl-C or SIGTERM; a SystemExit says that the storage cannot be served."""
    parser = argparse.ArgumentParser(description="Serve a study's storage to hosts that cannot reach its database.")
    parser.add_argument("storage", help="its URL: postgresql://…, mysql://… or sqlite:///FILE")
    parser.add_argument("--host", default="localhost", help="where to listen; 0.0.0.0: on all addresses of this host")
    parser.add_argument("--port", type=int, default=GRPC_PORT)
    parser.add_argument("--patience", type=float, default=600.0, help="seconds to wait for a database, at the start")
    given = parser.parse_args(words)
    COMMAND.at_work = True
    try:
        server, port = serve(given.storage, given.host, given.port, given.patience)
    except SteadyError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None
    say(f"{shown(given.storage)} at grpc://{given.host}:{port} (Ctrl-C ends it)", flush=True)
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        server.stop(grace=1.0).wait()
        say()


def serve(url: str, host: str = "localhost", port: int = 0, patience: float = 0.0) -> "tuple[grpc.Server, int]":
    """Start the proxy of a storage; returns the server and its port (0 takes any that is free).

    Raises:
        ConfigError: a storage that cannot be behind a proxy, or grpcio is not installed.
        StorageError: the database does not come within `patience` seconds, or the port is taken.
    """
    if url.startswith(("journal", "grpc")):
        raise ConfigError(f"A proxy serves a database: postgresql://…, mysql://… or sqlite:///FILE; got {shown(url)}.")
    try:
        import grpc
        from optuna.storages._grpc.auto_generated.api_pb2_grpc import add_StorageServiceServicer_to_server
        from optuna.storages._grpc.servicer import OptunaStorageProxyService
    except ImportError as error:
        raise ConfigError("The proxy needs grpcio: pip install 'hydra-steady-sweeper[grpc]'.") from error
    at_start = Patience(patience, f"The storage {shown(url)}")
    storage = at_start.call(open_storage, url)  # later calls do not wait: the clients do
    server = grpc.server(ThreadPoolExecutor(THREADS), options=list(OPTIONS.items()))
    service = Service(OptunaStorageProxyService(storage))
    add_StorageServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]  # generated
    try:
        port = server.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        server.stop(None)
        raise StorageError(f"{host}:{port} cannot be listened at: {error}. Name another with --port.") from None
    server.start()
    return server, port


class Service:
    """Optuna's service, which answers `UNAVAILABLE` to a call while the database is away."""

    def __init__(self, service: Any) -> None:
        self.service = service

    def __getattr__(self, name: str) -> Callable[[Any, Any], Any]:
        method = getattr(self.service, name)

        def answer(request: Any, context: Any) -> Any:
            import grpc

            try:
                return method(request, context)
            except Exception as error:
                if is_away(error):
                    context.abort(grpc.StatusCode.UNAVAILABLE, reason(error))
                raise

        return answer


if __name__ == "__main__":
    main()
