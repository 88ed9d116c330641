"""Only our own pages may ask: what a browser, or a program, sends in another's name is refused."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from wsgiref.simple_server import WSGIServer, make_server

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from steady.exceptions import ConfigError
from steady.local_server import (
    HEADERS,
    SANDBOX,
    TRIES,
    Guarded,
    LocalRequestHandler,
    listen,
    refusal,
    uvicorn_server,
    with_headers,
)

pytestmark = pytest.mark.security
OURS = ("Host", "127.0.0.1:8080")


def origin(value: str) -> tuple[str, str]:
    return ("Origin", value)


def site(value: str) -> tuple[str, str]:
    return ("Sec-Fetch-Site", value)


OPENED = [("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")]


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", [OURS]),  # a program, or an old browser
        ("HEAD", [OURS]),
        ("GET", [("host", "localhost:8080")]),
        ("GET", [("HOST", "LOCALHOST")]),
        ("GET", [("Host", "[::1]:8080")]),
        ("GET", [OURS, site("none"), *OPENED]),  # its address was typed
        ("GET", [OURS, site("cross-site"), *OPENED]),  # a link on another site was followed
        ("GET", [OURS, site("same-origin")]),
        ("GET", [OURS, origin("http://127.0.0.1:8080")]),
        ("GET", [OURS, ("Upgrade", "h2c")]),
        ("POST", [OURS, origin("http://127.0.0.1:8080"), site("same-origin")]),
        ("DELETE", [OURS, site("same-origin")]),
        ("PUT", [OURS, ("Referer", "http://127.0.0.1:8080/dashboard")]),
        ("POST", [("Host", "LocalHost:8080"), origin("http://localhost:8080")]),
        ("POST", [("Host", "localhost:9000"), origin("http://localhost:9000")]),  # ssh -L 9000:localhost:8080
        ("POST", [("Host", "localhost"), origin("http://localhost")]),  # ssh -L 80:…
        ("POST", [("Host", "[::1]:9"), origin("http://[::1]:9")]),
    ],
)
def test_our_own_page_may_ask(method: str, headers: list[tuple[str, str]]) -> None:
    assert refusal(method, "/api/studies/1", headers) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:8080", "localhost.",
        "127.0.0.1.:8080", "evil.example@127.0.0.1:8080", "127.0.0.1:8080@evil.example", "127.0.0.1:8080#", "",
        "127.0.0.1:8080/", "127.0.0.1, evil.example", "127.0.0.1:", "127.0.0.1:8080:8080", "127.0.0.1:-1", "0.0.0.0",
        "127.1", "2130706433", "0x7f.0.0.1", "127.0.0.2", "::1", "[::1", "[::ffff:127.0.0.1]", "notlocalhost",
        "localhost:\uff11", "\uff4cocalhost", "127.0.0.1\x00", "127.0.0.1\n", "http://127.0.0.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_name_that_is_not_this_machines(method: str, host: str) -> None:
    assert refusal(method, "/", [("Host", host), origin(f"http://{host}"), site("same-origin")]) is not None


@pytest.mark.parametrize(
    "headers",
    [
        [], [OURS, OURS], [OURS, ("host", "evil.example")], [("host", "evil.example"), OURS],
        [OURS, origin("http://evil.example")], [OURS, origin("https://127.0.0.1:8080")],
        [OURS, origin("http://localhost:8080")], [OURS, origin("http://127.0.0.1:8081")],
        [OURS, origin("http://127.0.0.1")], [OURS, origin("null")], [OURS, origin("")],
        [OURS, origin("http://127.0.0.1:8080/")], [OURS, origin("http://a@127.0.0.1:8080")],
        [OURS, origin("http://127.0.0.1:8080"), origin("http://127.0.0.1:8080")],
        [OURS, origin("http://127.0.0.1:8080 http://evil.example")], [OURS, origin("file://")],
        [OURS, origin("chrome-extension://abc")], [OURS, site("cross-site")], [OURS, site("same-site")],
        [OURS, site("same-origin"), site("cross-site")], [OURS, site("SAME-ORIGIN")], [OURS, site("")],
        [OURS, site("cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")],
        [OURS, site("cross-site"), ("Sec-Fetch-Mode", "no-cors"), ("Sec-Fetch-Dest", "document")],
        [OURS, ("Upgrade", "WebSocket"), origin("http://127.0.0.1:8080")], [OURS, ("upgrade", "h2c, websocket")],
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_another_page_asks(method: str, headers: list[tuple[str, str]]) -> None:
    assert refusal(method, "/", headers) is not None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "BREW"])
@pytest.mark.parametrize(
    "headers",
    [
        [], [site("none")], [("Referer", "http://127.0.0.1:8081/")], [("Referer", "http://[")],
        [site("cross-site"), *OPENED],
        [("Referer", "http://evil.example/http://127.0.0.1:8080")], [("Referer", "http://127.0.0.1:8080@evil.example/")],
        [("Referer", "http://127.0.0.1:8080.evil.example/")], [("Referer", "https://127.0.0.1:8080/")],
        [("Referer", "http://127.0.0.1:8080/"), ("Referer", "http://127.0.0.1:8080/")],
        [("Sec_Fetch_Site", "same-origin")], [("X-Forwarded-Host", "127.0.0.1:8080")],
    ],
)  # fmt: skip
def test_a_change_that_no_page_of_ours_asks_for(method: str, headers: list[tuple[str, str]]) -> None:
    assert refusal(method, "/", [OURS, *headers]) is not None


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:8080/", "http://evil.example/", "*", "127.0.0.1:80", "", "HTTP://a"]
)
def test_a_target_that_is_no_path(target: str) -> None:
    assert refusal("GET", target, [OURS]) is not None


names = st.sampled_from(["Host", "host", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "Referer"])
pieces = st.sampled_from(
    ["127.0.0.1", "localhost", "[::1]", ":8080", ":1", "evil.example", ".", "@", "http://", "https://", "null", "/",
     ",", "same-origin", "cross-site", "none", "navigate", "document", " "]
)  # fmt: skip
values = st.lists(pieces, max_size=4).map("".join) | st.text(max_size=8)


@given(st.sampled_from(["GET", "POST", "DELETE"]), st.lists(st.tuples(names, values), max_size=6))
def test_whatever_is_let_in_was_asked_for_by_a_local_name_and_from_no_other_site(
    method: str, headers: list[tuple[str, str]]
) -> None:
    if refusal(method, "/", headers) is None:
        hosts = [value.strip(" \t").lower() for name, value in headers if name.lower() == "host"]
        assert len(hosts) == 1
        assert hosts[0].rsplit(":", 1)[0] in ("127.0.0.1", "localhost", "[::1]") or hosts[0] in ("[::1]",)
        origins = [value.strip(" \t").lower() for name, value in headers if name == "Origin"]
        assert origins in ([], [f"http://{hosts[0]}"])
        if method != "GET":
            assert {name for name, _ in headers} & {"Origin", "Sec-Fetch-Site", "Referer"}


# The two servers that ask it.


def _said(port: int, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(text.encode("latin-1"))
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode("latin-1")


@pytest.fixture(scope="module", params=["wsgiref", "uvicorn"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, list[str]]]:
    """Port, and the methods of the requests that came through."""
    came: list[str] = []

    def plain(environ, start_response):
        came.append(environ["REQUEST_METHOD"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"let in"]

    async def let_in(request):
        came.append(request.method)
        return PlainTextResponse("let in")

    if request.param == "wsgiref":
        guarded = with_headers(plain, "object-src 'none'", "/strange")
        with make_server("127.0.0.1", 0, guarded, WSGIServer, LocalRequestHandler) as ours:
            (thread := threading.Thread(target=ours.serve_forever, kwargs={"poll_interval": 0.02})).start()
            yield ours.server_port, came
            ours.shutdown()
            thread.join()
    else:
        app = Starlette(routes=[Route("/{rest:path}", let_in, methods=["GET", "POST", "DELETE", "OPTIONS"])])
        running = uvicorn_server(app, "object-src 'none'", grace=1, lifespan=False)
        with listen(0, "port") as listening:
            thread = threading.Thread(target=asyncio.run, args=(running.serve([listening]),))
            thread.start()
            yield listening.getsockname()[1], came
            running.should_exit = True
            thread.join()


@pytest.mark.parametrize(
    "request_",
    [
        "DELETE / HTTP/1.1\r\nHost: evil.example\r\n",
        "DELETE / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://evil.example\r\n",
        "DELETE / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: evil.example\r\n",
        "GET / HTTP/1.1\r\nHost: evil.example\r\nHost: 127.0.0.1:{port}\r\n",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: y\r\n Host: evil.example\r\nOrigin: null\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "OPTIONS / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: http://evil.test\r\n"
        "Access-Control-Request-Method: DELETE\r\nAccess-Control-Request-Private-Network: true\r\n",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: null\r\nContent-Length: 2\r\n",
        "POST / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n",
    ],
)
def test_servers_let_in_nothing_of_others(server: tuple[int, list[str]], request_: str) -> None:
    port, came = server
    said = _said(port, request_.format(port=port) + "Connection: close\r\n\r\n")
    assert said.split(" ", 2)[1] in ("400", "403"), said
    assert "let in" not in said
    assert "evil" not in said
    assert came == []


def test_servers_let_in_their_own_page_and_forbid_what_a_browser_need_not_do(server: tuple[int, list[str]]) -> None:
    port, came = server
    own = f"Host: localhost:{port}\r\nConnection: close\r\n"
    said = _said(port, f"DELETE / HTTP/1.1\r\n{own}Origin: http://localhost:{port}\r\n\r\n")
    assert said.endswith("let in")
    assert came.pop() == "DELETE"
    for header in (*HEADERS, ("Content-Security-Policy", "object-src 'none'")):
        assert ": ".join(header).lower() in said.lower()
    refused = _said(port, "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").lower()
    assert all(": ".join(header).lower() in refused for header in HEADERS)


def test_a_server_that_ends_closes_what_it_is_accepting() -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    async def end_while_one_connects() -> bytes:
        server = uvicorn_server(app, "object-src 'none'", grace=1, lifespan=False)
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        with listen(0, "port") as listening:
            await server.startup([listening])
            with socket.create_connection(listening.getsockname()) as client:
                for _ in range(2):  # steps of the loop: it is accepted, and no connection of the server's yet
                    await asyncio.sleep(0)
                await server.shutdown([listening])
                client.settimeout(60)
                return client.recv(1)

    assert asyncio.run(end_while_one_connects()) == b""


def test_a_websocket_that_a_server_hands_on_is_closed_unseen() -> None:
    """Ours hands on none; this door does not rely on that."""
    sent: list[dict[str, object]] = []

    async def app(scope, receive, send):
        raise AssertionError("let in")

    async def send(message):
        sent.append(message)

    asyncio.run(Guarded(app)({"type": "websocket", "path": "/", "headers": []}, None, send))  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_content_of_strangers_runs_no_script() -> None:
    told: list[tuple[str, str]] = []

    def app(environ, start_response):
        start_response("200 OK", [])
        return []

    def start(status, headers, error=None):
        told[:] = headers

    answered = with_headers(app, "object-src 'none'", "/artifacts/")
    answered({"PATH_INFO": "/artifacts/1/2/abc"}, start)
    assert SANDBOX in told
    answered({"PATH_INFO": "/dashboard"}, start)
    assert SANDBOX not in told


def test_a_port_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen(0, "port") as taken:
        port = taken.getsockname()[1]
        assert taken.getsockname()[0] == "127.0.0.1"
        with listen(port, "port") as other:
            assert port < other.getsockname()[1] < port + TRIES
        monkeypatch.setattr("steady.local_server.TRIES", 1)
        with pytest.raises(ConfigError, match=rf"from {port} to {port} to be free.*verification\.port=NUMBER"):
            listen(port, "verification.port")


def test_a_port_that_is_not_allowed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(address: tuple[str, int]) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(ConfigError, match="port 80, but: Permission denied"):
        listen(80, "port")
