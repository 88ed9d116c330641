"""What the demo's server gives and takes: files of its own folder, at the addresses that its page uses."""

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.security
SECRET = "a secret of the user"
UPLOAD, LARGEST, KEPT, CALL = "/gradio_api/upload", 200_000, 1_000_000, 1 << 18
# A process of its own, for Gradio leaves loops and sockets behind in the one that imports it.
PROGRAM = f"""
import asyncio, sys
from pathlib import Path
from catsweep.app import serving
from catsweep.app.gradio_page import build
from catsweep.app.session import Session
from catsweep.generate.model_source import Source
from steady.local_server import listen
from gradio.context import LocalContext
from gradio.exceptions import InvalidPathError
from gradio.processing_utils import async_move_files_to_cache

folder, bundle, secret = map(Path, sys.argv[1:])
serving.LARGEST_UPLOAD, serving.KEPT = {LARGEST}, {KEPT}
page = build(Session(Source(bundle), folder))

async def gradio_looks():
    LocalContext.blocks.set(page)
    block = next(block for block in page.blocks.values() if block.elem_id == "photo")
    data = {{"path": str(secret), "meta": {{"_type": "gradio.FileData"}}}}
    try:
        await async_move_files_to_cache(data, block, check_in_upload_folder=True)
    except InvalidPathError:
        return "refused"
    return "taken"

with listen(0, "port") as listening:
    serving.application(page, folder)
    print(listening.getsockname()[1], asyncio.run(gradio_looks()), flush=True)
    serving.serve(page, folder, listening)
"""


@dataclass
class Served:
    """A demo in this process, asked without a browser.

    Attributes:
        port: of it.
        folder: its own.
        gradio: what Gradio itself made of a file of the user, `refused` or `taken`.
    """

    port: int
    folder: Path
    gradio: str
    sessions: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes, dict[str, str]]:
        place = f"127.0.0.1:{self.port}"
        connection = HTTPConnection(place)
        own = {"Host": place, "Origin": f"http://{place}", "Content-Type": "application/json"}
        given = {**own, **{name.replace("_", "-"): value for name, value in headers.items()}}
        try:
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, answer.read(), {key.lower(): value for key, value in answer.getheaders()}
        finally:
            connection.close()

    def post(self, path: str, call: Any) -> int:
        return self.ask("POST", path, json.dumps(call).encode())[0]

    def upload(self, name: str, content: bytes) -> tuple[int, str]:
        """Status, and what it is called on the machine."""
        head = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
        body = head + content + b"\r\n--b--\r\n"
        status, said, _ = self.ask("POST", UPLOAD, body, Content_Type="multipart/form-data; boundary=b")
        return status, json.loads(said)[0] if status == 200 else said.decode()

    def events(self, session: str) -> list[dict[str, Any]]:
        """What the queue has to say of a session, until its calls are done."""
        _, said, _ = self.ask("GET", f"/gradio_api/queue/data?session_hash={session}")
        return [json.loads(line.removeprefix("data: ")) for line in said.decode().splitlines() if line]

    def drawn(self, function: "Function", **values: Any) -> dict[str, Any]:
        """Call a function with values by `elem_id`, 0 for the others, and wait for its end."""
        self.sessions.append(session := f"session{len(self.sessions)}")
        data = [values.get(name.replace("-", "_"), 0) for name in function.inputs]
        call = {"data": data, "fn_index": function.index, "session_hash": session}
        assert self.post("/gradio_api/queue/join", call) == 200
        return next(event for event in self.events(session) if event["msg"] == "process_completed")

    def function(self, name: str) -> "Function":
        """The function that a component with this `elem_id` is given to."""
        config = json.loads(self.ask("GET", "/config")[1])
        names = {one["id"]: one["props"].get("elem_id") or str(one["id"]) for one in config["components"]}
        found = [Function(one["id"], [names[k] for k in one["inputs"]]) for one in config["dependencies"]]
        return next(one for one in found if name in one.inputs)

    @cached_property
    def photo(self) -> "Function":
        return self.function("photo")

    @cached_property
    def cats(self) -> "Function":
        return self.function("n")

    def holds(self, secret: str) -> bool:
        return any(secret in path.read_text(errors="replace") for path in self.folder.rglob("*") if path.is_file())


@dataclass
class Function:
    """One of those that the page calls.

    Attributes:
        index: by which it is called.
        inputs: `elem_id` of each, or its number.
    """

    index: int
    inputs: list[str]


@pytest.fixture(scope="module")
def served(root: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("served")
    folder, work, secret = place / "own", place / "work", place / "passwd"
    folder.mkdir()
    work.mkdir()
    secret.write_text(SECRET)
    own = {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(root / "src")}
    argv = [sys.executable, "-c", PROGRAM, folder, bundle, secret]
    with subprocess.Popen(argv, cwd=work, text=True, stdout=subprocess.PIPE, env={**os.environ, **own}) as process:
        assert process.stdout is not None
        try:
            port, gradio = process.stdout.readline().split()
            yield Served(int(port), folder, gradio)
        finally:
            process.terminate()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passwd"
    path.write_text(SECRET)
    return path


def png(side: int = 40) -> bytes:
    file = BytesIO()
    Image.fromarray(np.full((side, side, 3), (200, 100, 50), np.uint8)).save(file, "PNG")
    return file.getvalue()


def file_data(path: object, **more: object) -> dict[str, Any]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


SHAPES = {
    "as it is": lambda path: file_data(path),
    "in a list": lambda path: [[file_data(path)]],
    "in a dict": lambda path: {"image": {"inner": file_data(path)}},
    "a stream": lambda path: file_data(path, is_stream=True),
    "with an address": lambda path: file_data(path, url="http://127.0.0.1:1/x.png"),
    "with a name": lambda path: file_data(path, orig_name="x.svg", mime_type="image/svg+xml"),
    "around another": lambda path: file_data(None, inner=file_data(path)),
    "as data": lambda path: file_data(path, url="data:image/png;base64,AAAA"),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("place", [0, 1])
def test_a_file_of_the_user_is_not_taken_for_an_upload(served: Served, secret: Path, shape: str, place: int) -> None:
    data: list[Any] = [None, *[0] * (len(served.photo.inputs) - 1)]
    data[place] = SHAPES[shape](str(secret))
    for call in (
        {"data": data, "fn_index": served.photo.index, "session_hash": "s"},
        {"data": [], "fn_index": 0, "session_hash": "s", "event_data": data[place]},
        {"data": [data], "fn_index": served.photo.index, "session_hash": "s", "batched": True},
    ):
        assert served.post("/gradio_api/queue/join", call) == 403
    assert not served.holds(SECRET)


def test_gradio_looks_too(served: Served) -> None:
    assert served.gradio == "refused"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/hostname", "/proc/self/environ", "pyproject.toml", ".", "", "\x00", "a" * 5000, 1, None, ["x"], {},
        "http://127.0.0.1:1/x", "https://example.com/x.png", "file:///etc/hostname", "//etc/hostname", "~/.bashrc",
        "/gradio_api/file=/etc/hostname", "data:text/plain,x", "{folder}", "{folder}/../work/notes",
        "{folder}/nothing", "{folder}/%2e%2e/work/notes",
    ],
)  # fmt: skip
def test_what_is_no_upload(served: Served, path: Any) -> None:
    (served.folder.parent / "work" / "notes").write_text(SECRET)
    path = path.replace("{folder}", str(served.folder)) if isinstance(path, str) else path
    call = {"data": [file_data(path)], "fn_index": served.photo.index, "session_hash": "s"}
    assert served.post("/gradio_api/queue/join", call) == 403
    assert not served.holds(SECRET)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/run/predict", "/gradio_api/api/predict", "/gradio_api/call/draw", "/gradio_api/call/v2/draw",
        "/gradio_api/component_server", "/gradio_api/component_server/", "/gradio_api/process_recording", "/login",
        "/gradio_api/stream/1", "/gradio_api/reset", "/gradio_api/vibe-edit", "/gradio_api/vibe-code",
        "/gradio_api/profiling/clear", "/gradio_api/run-history/connect", "/run/predict", "/api/predict",
        "/gradio_api/queue/join/", "/gradio_api/queue/join/x", "/gradio_api//queue/join", "/gradio_api/upload/",
        "/GRADIO_API/queue/join", "/gradio_api/./queue/join", "/gradio_api/mcp", "/",
    ],
)  # fmt: skip
def test_other_ways_to_call_are_closed(served: Served, secret: Path, path: str) -> None:
    call = {"data": [file_data(str(secret))], "fn_index": served.photo.index, "session_hash": "s"}
    assert served.post(path, {**call, "component_id": 1, "fn_name": "ls"}) == 404
    assert not served.holds(SECRET)


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://127.0.0.1:1/x", "/llms.txt", "/gradio_api/llms.txt", "/docs", "/openapi.json",
        "/gradio_api/openapi.json", "/gradio_api/info", "/monitoring", "/monitoring/summary", "/gradio_api/deep_link",
        "/gradio_api/token", "/gradio_api/runs", "/logout", "/pwa_icon", "/svelte/x", "/gradio_api/vibe-code",
        "/gradio_api/file/etc/hostname", "/gradio_api/stream/a/b/1/playlist.m3u8", "/gradio_api/queue/status",
        "/gradio_api/custom_component/1/client/component/../../../x", "/static/../../app.py", "/assets/%2e%2e/x",
        "/static//etc/hostname", "/gradio_api/dev/reload", "/gradio_api/mcp/sse",
    ],
)  # fmt: skip
def test_addresses_that_the_page_does_not_use_are_closed(served: Served, path: str) -> None:
    assert served.ask("GET", path)[0] in (403, 404)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_closed(served: Served, method: str) -> None:
    assert served.ask(method, "/config")[0] == 404


def test_no_file_but_its_own_is_served(served: Served, secret: Path) -> None:
    work = served.folder.parent / "work"
    cached = work / ".gradio" / "cached_examples" / "x"  # which Gradio would serve
    cached.parent.mkdir(parents=True)
    for hidden in (work / ".env", cached, work / "notes"):
        hidden.write_text(SECRET)
    link, linked = served.folder / "link", served.folder / "linked"
    link.symlink_to(secret)
    linked.symlink_to(secret.parent)
    strange = [secret, work / ".env", cached, ".gradio/cached_examples/x", ".env", "notes", link, linked / "passwd"]
    strange += [f"{served.folder}/../work/notes", "/etc/hostname", served.folder, "", "http://127.0.0.1:1/x", "a\x00b"]
    try:
        for path in map(str, strange):
            for spelled in (path, quote(path), quote(path, safe=""), f"{path}?x", quote(quote(path, safe=""))):
                target = f"/gradio_api/file={spelled}".replace("\x00", "%00")
                status, said, _ = served.ask("GET", target)
                assert status in (403, 404), target
                assert SECRET.encode() not in said
            call = {"data": [file_data(path)], "fn_index": served.photo.index, "session_hash": "s"}
            assert served.post("/gradio_api/queue/join", call) == 403, path
    finally:
        link.unlink()
        linked.unlink()


def test_a_photo_that_was_uploaded_is_drawn_and_served(served: Served) -> None:
    status, path = served.upload("mine.png", png())
    assert status == 200
    done = served.drawn(served.photo, photo=file_data(path, orig_name="mine.png"))
    assert done["success"], done
    drawn = done["output"]["data"][0]["value"]["path"]
    status, picture, headers = served.ask("GET", f"/gradio_api/file={drawn}")
    assert (status, Image.open(BytesIO(picture)).format) == (200, "PNG")
    assert "sandbox" in headers["content-security-policy"]


def test_a_page_that_was_uploaded_runs_no_script(served: Served) -> None:
    for name in ("x.html", "x.svg", "x.js"):
        _, path = served.upload(name, b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
        status, _, headers = served.ask("GET", f"/gradio_api/file={path}")
        assert status == 200
        assert "sandbox" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize("name", ["../../../work/up.png", "/tmp/up.png", "..", ".", "a\\b.png", ".env", "a\x7f.png"])
def test_an_upload_stays_in_the_folder_whatever_it_is_called(served: Served, name: str) -> None:
    before = set(served.folder.parent.rglob("*"))
    status, path = served.upload(name, png())
    if status == 200:
        assert Path(path).resolve().is_relative_to(served.folder)
    assert all(new.is_relative_to(served.folder) for new in set(served.folder.parent.rglob("*")) - before)


def test_uploads_have_bounds(served: Served) -> None:
    assert served.upload("large.png", bytes(LARGEST))[0] == 413
    for length in ("", "x", "-1", "1" * 30):
        assert served.ask("POST", UPLOAD, b"", Content_Length=length)[0] in (400, 413)
    chunked = {"Transfer_Encoding": "chunked", "Content_Type": "multipart/form-data; boundary=b"}
    assert served.ask("POST", UPLOAD, b"0\r\n\r\n", **chunked)[0] == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"{", 400), (b"[" * 100_000, 400), (b'{"data": [NaN]}', 400), (b'{"data": [Infinity]}', 400),
        (b"\xff", 400), (b'{"data": ["' + b"a" * CALL + b'"]}', 413),
        (b'{"data": [{"path": "x", "path": "/etc/hostname"}]}', 403),
    ],
)  # fmt: skip
def test_calls_have_bounds(served: Served, body: bytes, status: int) -> None:
    assert served.ask("POST", "/gradio_api/queue/join", body)[0] == status


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_calls_without_preflight_are_refused(served: Served, kind: str) -> None:
    assert served.ask("POST", "/gradio_api/queue/join", b"{}", Content_Type=kind)[0] == 415


@pytest.mark.parametrize("content", ["bomb", "text", "empty", "cut"])
def test_an_upload_that_is_no_photo_is_said_and_ends_nothing(served: Served, content: str) -> None:
    bodies = {"bomb": bomb(), "text": b"no photo", "empty": b"", "cut": png(200)[:200]}
    status, path = served.upload("mine.png", bodies[content])
    assert status == 200
    done = served.drawn(served.photo, photo=file_data(path, orig_name="mine.png"))
    assert not done["success"]
    assert "mine.png cannot be used: " in done["output"]["error"]


def bomb() -> bytes:
    """A PNG of a few hundred bytes that asks for 30,000 x 30,000 pixels."""
    image = bytearray(png(1))
    image[16:24] = (30_000).to_bytes(4, "big") * 2
    image[29:33] = zlib.crc32(bytes(image[12:29])).to_bytes(4, "big")
    return bytes(image)


@pytest.mark.parametrize("n", [10**9, -1, 65, 1e308, "9", None, [], {}])
def test_a_number_that_no_slider_has_draws_nothing(served: Served, n: Any) -> None:
    before = len(os.listdir(served.folder))
    assert not served.drawn(served.cats, n=n, cats_seed=1, truncation=0.5)["success"]
    assert len(os.listdir(served.folder)) == before


@pytest.mark.parametrize("seed", [-1, 10**300, 1e300, "x", None, []])
def test_a_seed_that_is_none_is_said(served: Served, seed: Any) -> None:
    assert not served.drawn(served.cats, n=4, cats_seed=seed, truncation=0.5)["success"]


def test_the_folder_has_a_bound(served: Served) -> None:
    """The last test, for the demo takes no more after it."""
    told = [served.upload(f"{number}.png", os.urandom(LARGEST // 2)) for number in range(2 * KEPT // LARGEST + 1)]
    assert told[-1][0] == 507
    assert "Start it again" in told[-1][1]
    assert served.drawn(served.cats, n=4, cats_seed=7, truncation=0.5)["success"]  # it goes on drawing
