"""Web page of stage `verify`: look through the images in the browser, one key each: keep or drop.

Every decision is in verify.csv before it is answered. Only the page may decide: `steady.local_server` admits only this
machine's own pages, decisions need a token that stands in the page, and photos are addressed by their places.
"""

import asyncio
import logging
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from catsweep.errors import DataError
from catsweep.prepare.image_files import encode, read_image, thumbnail
from catsweep.prepare.manifest import DROP, KEEP, UNDECIDED, Record
from steady.local_server import HOST, listen, uvicorn_server

if TYPE_CHECKING:
    from catsweep.prepare.stages.verify import Decisions

log = logging.getLogger(__name__)

_DECISIONS = {decision: decision for decision in (KEEP, DROP, UNDECIDED)}
_FOR_GOOD = {"Cache-Control": "private, max-age=31536000, immutable"}  # addresses change with the content
_NEVER = {"Cache-Control": "no-store"}


@dataclass
class Page:
    """State of the page, and its application."""

    decisions: "Decisions"  # of the person
    photos: Sequence[Record]  # to decide about, in the order of the page
    folder: Path  # of their files
    originals: Mapping[str, Path] = field(default_factory=dict)  # files of the source photos, by the photos' ids
    # Which doubts leave out a photo about which nobody has decided.
    serious: Callable[[Record], Sequence[str]] = lambda record: record.doubts
    token: str = field(default_factory=secrets.token_urlsafe)  # required for decisions
    changes: list[tuple[int, str]] = field(default_factory=list)  # place in `photos`, decision; tabs catch up by it
    end: Callable[[], None] = lambda: None  # called when the person is done
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def application(self, nonce: str) -> Starlette:
        """Build the application; `nonce` marks the page's own script and style. What is not `async` runs in threads."""
        reading: dict[str, Callable[..., Any]] = {
            "/": partial(self._html, nonce),
            "/photos": self._photos,
            "/changes": self._changes,
            "/image/{place:int}": self._image,
            "/thumbnail/{place:int}": self._thumbnail,
            "/original/{place:int}": self._original,
        }
        changing = {"/decide": self._decide, "/done": self._done}
        routes = [Route(path, view) for path, view in reading.items()]
        return Starlette(routes=[*routes, *(Route(path, view, methods=["POST"]) for path, view in changing.items())])

    def save(self, choices: Sequence[tuple[int, str]] = ()) -> None:
        """Write all decisions, also those that somebody else has overwritten, and new ones, by place in `photos`.

        Raises DataError (the table is malformed) or OSError (it cannot be written); then nothing is decided.
        """
        with self._lock:
            decided = {self.photos[place].sha256: decision for place, decision in choices}
            self.decisions.write(self.photos, self.folder.name, decided)
            self.changes.extend(choices)

    def _html(self, nonce: str, request: Request) -> Response:
        html = files("catsweep.prepare").joinpath("verify.html").read_text(encoding="utf-8")
        return HTMLResponse(html.replace("@NONCE@", nonce).replace("@TOKEN@", self.token), headers=_NEVER)

    def _photos(self, request: Request) -> Response:
        version = len(self.changes)  # first, or a change might be missed
        photos = [
            {
                "source": _legible(photo.source),
                "doubts": [_legible(doubt) for doubt in photo.doubts],
                "open": bool(self.serious(photo)),
                "decision": self.decisions.of(photo.sha256),
                "digest": photo.digest[:16],
                "original": photo.sha256[:16] if photo.id in self.originals else "",
            }
            for photo in self.photos
        ]
        return JSONResponse({"version": version, "photos": photos}, headers=_NEVER)

    def _changes(self, request: Request) -> Response:
        since = request.query_params.get("since", "")
        if not (since.isascii() and since.isdigit()):
            raise HTTPException(400, "since must be a number")
        return self._since(int(since))

    def _since(self, version: int) -> Response:
        return JSONResponse({"version": len(self.changes), "changes": self.changes[version:]}, headers=_NEVER)

    def _image(self, request: Request) -> Response:
        return _file(self.folder / self._photo(request).file)

    def _thumbnail(self, request: Request) -> Response:
        try:
            small = thumbnail(read_image(self.folder / self._photo(request).file))
        except (OSError, ValueError, DataError):
            raise HTTPException(404) from None
        return Response(encode(small, ".jpg"), media_type="image/jpeg", headers=_FOR_GOOD)

    def _original(self, request: Request) -> Response:
        return _file(self.originals.get(self._photo(request).id))

    async def _decide(self, request: Request) -> Response:
        self._check(request)
        try:
            wanted = await request.json()
            since = _number(wanted["since"], sys.maxsize)
            choices = [(_number(place, len(self.photos)), _DECISIONS[word]) for place, word in wanted["choices"]]
        except (ValueError, KeyError, TypeError):
            raise HTTPException(400, "expected since, and choices of a place and a decision") from None
        try:
            await run_in_threadpool(self.save, choices)
        except (DataError, OSError) as error:
            return JSONResponse({"error": str(error)}, 409, headers=_NEVER)
        return self._since(since)

    def _done(self, request: Request) -> Response:
        self._check(request)
        self.end()
        return Response(status_code=204)

    def _photo(self, request: Request) -> Record:
        place: int = request.path_params["place"]
        if place >= len(self.photos):
            raise HTTPException(404)
        return self.photos[place]

    def _check(self, request: Request) -> None:
        """Check the token: another site can make the browser send a request, but cannot read the page."""
        if not secrets.compare_digest(request.headers.get("X-Token", "").encode(), self.token.encode()):
            raise HTTPException(403, "This page is of an earlier run. Reload it.")


def serve(page: Page, port: int) -> None:
    """Serve the page on a port (see `listen`) until the person is done, or presses Ctrl-C in the terminal.

    Raises:
        ConfigError: no port is free.
        DataError: the table is malformed.
    """
    page.save()
    listening = listen(port, "verification.port")
    nonce = secrets.token_urlsafe()
    policy = (
        "default-src 'none'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
    )
    server = uvicorn_server(page.application(nonce), policy, grace=2, lifespan=False)
    page.end = lambda: setattr(server, "should_exit", True)
    with listening, suppress(KeyboardInterrupt):
        address = f"http://{HOST}:{listening.getsockname()[1]}"
        log.info("Look through the images at %s and press Enter there (or Ctrl-C here) to go on", address)
        asyncio.run(server.serve([listening]))
    page.save()


def _file(path: Path | None) -> Response:
    if path is None or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, headers=_FOR_GOOD)


def _number(value: object, limit: int) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(value)
    return value


def _legible(text: str) -> str:
    """Replace the bytes that are not UTF-8, which JSON cannot carry."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
