"""Guard of every page that we serve: who may ask, and what each answer forbids the browser.

Our servers listen on 127.0.0.1, which keeps other machines out, but not other pages in this machine's browser: such a
page can send requests here, and with a name of its own that it points at 127.0.0.1 (DNS rebinding) read the answers.

Any port is taken in Host, for `ssh -L 9000:localhost:8080` makes it localhost:9000, and a browser sends the port that
it connects to: a page on another port of this machine has an Origin that differs from Host, and that is refused.
"""

import asyncio
import errno
import re
import socket
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from steady.exceptions import ConfigError

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"
TRIES = 20  # ports, from the wished-for one on
CONNECTIONS = 200  # at once; an open page takes up to six
PATIENCE = 60  # seconds for a request to come in
READING = ("GET", "HEAD")  # change nothing
HEADERS = (
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),  # "no-referrer" would make our own forms' Origin null
)
SANDBOX = ("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'")
_LOCAL = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
OTHER = "Choose another: {key}=NUMBER, 0 for any that is free."


def refusal(method: str, target: str, headers: Iterable[tuple[str, str]]) -> str | None:
    """Explain why a request is not from our own page or its user, without quoting it; None if it is.

    `target` and `headers` are as they came. Host guards against DNS rebinding, Origin and Fetch Metadata against other
    sites (https://web.dev/articles/fetch-metadata, OWASP's "Cross-Site Request Forgery Prevention").

    >>> refusal("GET", "/", [("Host", "localhost:8080")])
    >>> refusal("GET", "/", [("Host", "evil.example")])
    'Expected 127.0.0.1, localhost or [::1] in Host, once.'
    """
    given = defaultdict(list)
    for name, value in headers:
        given[name.lower()].append(value.strip(" \t"))
    if not target.startswith("/"):  # the absolute form names another host than Host may
        return "Expected a path in the request line."
    if len(given["host"]) != 1 or _LOCAL.fullmatch(given["host"][0]) is None:
        return "Expected 127.0.0.1, localhost or [::1] in Host, once."
    if any("websocket" in value.lower() for value in given["upgrade"]):
        return "There are no WebSockets here."
    if any(len(given[name]) > 1 for name in ("origin", "referer", "sec-fetch-site", "sec-fetch-mode")):
        return "Expected Origin, Referer and Sec-Fetch-* once at most."
    own = f"http://{given['host'][0].lower()}"
    origin, site, referer = ("".join(given[name]) for name in ("origin", "sec-fetch-site", "referer"))
    if given["origin"] and origin.lower() != own:
        return "This is asked by another site."
    reading = method in READING
    # A link or a typed address may lead here from anywhere; pictures, scripts and frames of others may not.
    followed = reading and given["sec-fetch-mode"] == ["navigate"] and given["sec-fetch-dest"] == ["document"]
    if given["sec-fetch-site"] and site not in ("same-origin", "none") and not followed:
        return "This is asked by another site."
    if reading or given["origin"] or site == "same-origin" or _origin(referer) == own:
        return None
    return "Expected Origin, Sec-Fetch-Site or Referer to say that our own page asks for a change."


def _origin(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc}".lower()


class Guarded:
    """An ASGI app that answers 403 to requests that `refusal` refuses, and passes others on."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """See the ASGI specification."""
        from starlette.responses import PlainTextResponse

        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        reason = refusal(scope["method"], scope.get("raw_path", scope["path"].encode()).decode("latin-1"), headers)
        app = self.app if reason is None else PlainTextResponse(reason, 403)
        return await app(scope, receive, send)


class LocalRequestHandler(WSGIRequestHandler):
    """A handler of wsgiref that answers 403 to requests that `refusal` refuses, and prints nothing."""

    timeout = PATIENCE

    def parse_request(self) -> bool:
        """See `http.server.BaseHTTPRequestHandler`."""
        if not super().parse_request():
            return False
        reason = refusal(self.command, self.path, self.headers.items())
        if reason is not None:
            self.send_error(403, explain=reason)
        return reason is None

    def end_headers(self) -> None:
        """Add `HEADERS` to an error; answers have them from `with_headers`."""
        for name, value in HEADERS:
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def with_headers(app: WSGIApplication, policy: str, untrusted: str) -> WSGIApplication:
    """Add `HEADERS` and a Content-Security-Policy to each answer; no script runs at paths that begin with `untrusted`.

    >>> def app(environ, start_response):
    ...     start_response("200 OK", [])
    ...     return []
    >>> answer = with_headers(app, "default-src 'self'", "/artifacts")
    >>> answer({"PATH_INFO": "/"}, lambda status, headers: print(status, len(headers)))
    200 OK 5
    []
    """

    def answered(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        extra = [*HEADERS, ("Content-Security-Policy", policy)]
        if environ["PATH_INFO"].startswith(untrusted):
            extra.append(SANDBOX)

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, *extra], *error)

        return app(environ, start)

    return answered


def uvicorn_server(app: "ASGIApp", policy: str, grace: int, lifespan: bool = True) -> "uvicorn.Server":
    """Make a guarded server of an ASGI app; open requests have `grace` seconds to end.

    It leaves no connection open at its end. Its parser is h11 whatever is installed: another hides the request line.

    >>> async def app(scope, receive, send): ...
    >>> uvicorn_server(app, "default-src 'self'", grace=3).config.http
    'h11'
    """
    import uvicorn

    class Server(uvicorn.Server):
        """Closes all connections; uvicorn leaves those open that are being accepted as it ends."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            loop = asyncio.get_running_loop()
            for listening in sockets or ():
                loop.remove_reader(listening)
            for _ in range(5):  # steps of the loop, in which what was accepted becomes a connection
                await asyncio.sleep(0)
            await super().shutdown(sockets)
            for connection in list(self.server_state.connections):  # those that outlasted the grace
                connection.transport.abort()

    config = uvicorn.Config(
        Guarded(app), headers=[*HEADERS, ("Content-Security-Policy", policy)], http="h11", ws="none",
        lifespan="on" if lifespan else "off", log_config=None, log_level="warning", access_log=False,
        proxy_headers=False, server_header=False, limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=grace,
    )  # fmt: skip
    return Server(config)


def listen(port: int, key: str) -> socket.socket:
    """Open a socket on this machine alone, on a port or one of the next `TRIES`; 0 takes any that is free.

    A ConfigError says that none is free, and names `key`, which sets the port.

    >>> with listen(0, "port") as server:
    ...     server.getsockname()[0]
    '127.0.0.1'
    """
    other = OTHER.format(key=key)
    tried = range(port, min(port + TRIES, 1 << 16)) if port else range(1)
    for candidate in tried:
        try:
            return socket.create_server((HOST, candidate))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(f"Expected to serve on port {candidate}, but: {error.strerror}. {other}") from error
    raise ConfigError(f"Expected a port from {port} to {tried[-1]} to be free, but all are taken. {other}")
