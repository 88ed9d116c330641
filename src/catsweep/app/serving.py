"""Serve the demo's page on 127.0.0.1 to the browser of this machine alone.

Gradio would serve itself, but then it looks for its own address over HTTP and can be told by the environment to open
tunnels. Here `steady.local_server` serves what Gradio made, and the browser is told to fetch nothing from elsewhere.
"""

import json
import os
import re
import socket
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from catsweep.app.gradio_page import theme
from steady.local_server import SANDBOX, uvicorn_server

LARGEST_PHOTO = 64 << 20  # bytes, as `catsweep.data.decode` reads at most
LARGEST_UPLOAD = LARGEST_PHOTO + (1 << 16)  # with what multipart/form-data puts around it
LARGEST_CALL = 1 << 18  # bytes; the page sends numbers and names of uploads
KEPT = 1 << 30  # bytes of uploads and pictures; Gradio itself deletes those of yesterday
# Whatever a component would like to fetch: only this server is asked. Gradio's own script needs the two "unsafe".
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; media-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
FILE, UPLOAD = "/gradio_api/file=", "/gradio_api/upload"
# By method, what the page asks for. Gradio has some sixty more: proxies, other ways to call, sign-in, monitoring.
READ = r"/|/config|/theme\.css|/favicon\.ico|/(static|assets)/(?!.*\.\.)[\w./+-]+"
READ += r"|/gradio_api/(queue/data|upload_progress|app_id|heartbeat/\w+)"
CALL = r"/gradio_api/(queue/join|cancel)"
OPEN = {"GET": READ, "HEAD": READ, "POST": rf"{CALL}|{UPLOAD}"}


class OwnFiles:
    """ASGI filter: 404 for addresses that the page does not use, 403 for files that are not the demo's own.

    Gradio checks names of files too, but would take addresses from the web for names, and serve what lies in its cache
    below the working directory.
    """

    def __init__(self, app: ASGIApp, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        method, path = scope["method"], scope["path"]
        if path.startswith(FILE) and method in ("GET", "HEAD"):
            if not self._is_own(path.removeprefix(FILE)):
                return await PlainTextResponse("There is no such file.", 403)(scope, receive, send)
            return await self.app(scope, receive, _sandboxed(send))
        if re.fullmatch(OPEN.get(method, ""), path, re.ASCII) is None:
            return await PlainTextResponse("There is no such page.", 404)(scope, receive, send)
        try:
            if path == UPLOAD:
                receive = self._upload(scope, receive)
            elif method == "POST":
                receive = await self._call(scope, receive)
        except _Refused as refused:
            return await PlainTextResponse(str(refused), refused.status)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _upload(self, scope: Scope, receive: Receive) -> Receive:
        """Check the size of an upload: Gradio's own bound holds for each of a thousand files of one request."""
        length = _header(scope, b"content-length")
        if not length.isdigit() or int(length) > LARGEST_UPLOAD:
            raise _Refused(413, f"Expected one photo of at most {LARGEST_PHOTO >> 20} MiB.")
        if _size(self.folder) + int(length) > KEPT:
            raise _Refused(507, f"The demo keeps at most {KEPT >> 30} GiB of photos and pictures. Start it again.")
        return receive  # the server itself ends a request that is longer than it says

    async def _call(self, scope: Scope, receive: Receive) -> Receive:
        """Parse a call, and pass it on as it was parsed, so that Gradio cannot parse it otherwise."""
        if _header(scope, b"content-type").partition(b";")[0].strip().lower() != b"application/json":
            raise _Refused(415, "Expected application/json.")
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > LARGEST_CALL:
                raise _Refused(413, f"Expected at most {LARGEST_CALL >> 10} KiB.")
        try:
            call = json.loads(body)
            told = json.dumps(call, allow_nan=False).encode()
        except (ValueError, RecursionError):
            raise _Refused(400, "Expected JSON.") from None
        if not all(isinstance(name, str) and self._is_own(name) for name in _names(call)):
            raise _Refused(403, "Expected a file that was uploaded here.")
        headers = [(name, value) for name, value in scope["headers"] if name.lower() != b"content-length"]
        scope["headers"] = [*headers, (b"content-length", str(len(told)).encode())]
        return _replayed(told, receive)

    def _is_own(self, name: str) -> bool:
        """Whether a path, with its links resolved, is a file of the folder."""
        try:
            real = Path(os.path.realpath(name, strict=True))
        except (OSError, ValueError):
            return False
        return real.is_file() and real.is_relative_to(self.folder)


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body, and then what else comes: the end of the connection."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return first.pop() if first else await receive()

    return receiving


def _names(call: Any) -> list[Any]:
    """Values of the key `path`, at any depth."""
    names, left = [], [call]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            names += [value["path"]] if "path" in value else []
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return names


def _header(scope: Scope, name: bytes) -> bytes:
    return b",".join(value for key, value in scope["headers"] if key.lower() == name)


def _size(folder: Path) -> int:
    """Size of all files in a folder, in bytes; files that vanish meanwhile count 0."""
    total = 0
    for path in (Path(parent, name) for parent, _, names in os.walk(folder) for name in names):
        with suppress(OSError):
            total += path.lstat().st_size
    return total


def _sandboxed(send: Send) -> Send:
    """Add the header that keeps scripts of an upload from running."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).append(*SANDBOX)
        await send(message)

    return sending


def application(page: gr.Blocks, folder: Path) -> ASGIApp:
    """Make an ASGI application of a Gradio page; it serves files of `folder` alone, its uploads and pictures."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    css = files("catsweep.app").joinpath("page.css").read_text(encoding="utf-8")
    gr.mount_gradio_app(
        app, page, "/", theme=theme(), css=css, footer_links=[], run_history=False, ssr_mode=False, mcp_server=False,
        enable_monitoring=False, pwa=False, max_file_size=LARGEST_PHOTO,
    )  # fmt: skip
    # Else Gradio takes each file that a request names for one that the page's author put there, and checks none.
    page.has_launched = True
    return OwnFiles(app, folder)


def serve(page: gr.Blocks, folder: Path, listening: socket.socket) -> None:
    """Serve until a signal, which uvicorn raises again when it has stopped: a `KeyboardInterrupt`."""
    uvicorn_server(application(page, folder), POLICY, grace=1).run(sockets=[listening])
