import asyncio
import gc
import http.client
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import pytest
import uvicorn
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from tests.foreign import attack

from catsweep.prepare import verify_page
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stages.verify import TABLE, Decisions, Verify

BOUND = 120  # seconds for something to happen


@dataclass
class Served:
    """A stage `verify` that waits for a person."""

    root: Path
    before: StageOutput
    stage: Verify = field(default_factory=lambda: Verify("serve", port=0))
    port: int = 0
    told: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        ready = threading.Event()

        class Heard(logging.Handler):
            def emit(_, record: logging.LogRecord) -> None:
                self.port = int(re.findall(r"http://127\.0\.0\.1:(\d+) ", record.getMessage())[0])
                ready.set()

        handler = Heard()
        verify_page.log.addHandler(handler)
        verify_page.log.setLevel(logging.INFO)
        self.thread = threading.Thread(target=lambda: self.told.append(self.stage.begin(self.root, self.before)))
        self.thread.start()
        assert ready.wait(BOUND)
        verify_page.log.removeHandler(handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def token(self) -> str:
        return re.findall(r'name="token" content="([\w-]{30,})"', self.ask("GET", "/")[1].decode())[0]

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=BOUND)
        headers = {"Origin": self.url[:-1]} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def decide(self, place: int, decision: str, token: str) -> tuple[int, bytes]:
        return self.ask("POST", "/decide", {"choices": [[place, decision]], "since": 0}, X_Token=token)

    def decisions(self, *numbers: int) -> list[str]:
        table = Decisions(self.root / TABLE)
        return [table.of(f"{number:064x}") for number in numbers]

    def end(self) -> None:
        if self.thread.is_alive():
            self.ask("POST", "/done", X_Token=self.token)
        self.thread.join(BOUND)
        assert not self.thread.is_alive()


@pytest.fixture
def serve(zoomed: Callable[..., StageOutput], tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves made-up photos: 1 and 3 of four are in doubt, so that the page has the order 1, 3, 0, 2."""
    running: list[Served] = []

    def serve(*args: Any, tolerate: Sequence[str] = (), **kwargs: Any) -> Served:
        stage = Verify("serve", port=0, tolerate=tolerate)
        running.append(Served(tmp_path, zoomed(*args, **kwargs), stage))
        return running[-1]

    yield serve
    for served in running:
        served.end()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page; any error or complaint of the browser fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_page(served: Served, **options: Any) -> Page:
        contexts.append(browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options)))
        page = contexts[-1].new_page()
        page.set_default_timeout(1000 * BOUND)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on(
            "request",
            lambda request: None if request.url.startswith((served.url, "data:")) else complaints.append(request.url),
        )
        page.goto(served.url)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def saved(page: Page) -> None:
    expect(page.locator("#status")).to_have_text("Saved")


def shown(page: Page) -> str:
    return page.locator("#source").inner_text()


# In the browser.


def test_with_the_keyboard(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    served = serve()
    page = open_page(served)
    assert (shown(page), page.locator("#decided").inner_text()) == ("cats/1.jpg", "0 of 2 in doubt decided")
    assert page.locator("#doubts").inner_text() == "no face none was found"
    page.keyboard.press("k")
    assert shown(page) == "cats/3.jpg"  # moves on by itself
    page.keyboard.press("d")
    saved(page)
    assert served.decisions(0, 1, 2, 3) == ["", "keep", "", "drop"]
    assert page.locator("#decided").inner_text() == "2 of 2 in doubt decided"
    page.keyboard.press("f")
    page.keyboard.press("ArrowRight")
    assert shown(page) == "cats/0.jpg"
    page.keyboard.press("d")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert (shown(page), page.locator("#verdict").inner_text()) == ("cats/1.jpg", "kept")
    page.keyboard.press("ArrowLeft")
    assert shown(page) == "cats/1.jpg"  # the first
    for source in ("cats/0.jpg", "cats/3.jpg"):  # several steps back
        page.keyboard.press("z")
        assert shown(page) == source
    saved(page)
    assert served.decisions(0, 1, 2, 3) == ["", "keep", "", ""]
    page.keyboard.press("Control+d")
    page.keyboard.press("Alt+k")
    assert page.locator("#decided").inner_text() == "1 of 2 in doubt decided"


def test_a_reload_keeps_place_filter_and_decisions(
    serve: Callable[..., Served], open_page: Callable[..., Page]
) -> None:
    page = open_page(serve())
    page.keyboard.press("f")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.keyboard.press("ArrowRight")
    saved(page)
    page.reload()
    page.wait_for_selector("body[data-ready]")
    assert (shown(page), page.locator("#place").inner_text()) == ("cats/2.jpg", "4 of 4")
    assert page.locator("#counts").inner_text() == "0 kept, 1 dropped"
    assert page.locator("#film button").nth(1).get_attribute("class").split() == ["drop"]


def test_the_image_and_the_source_photo_are_shown(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    page = open_page(serve())
    expect(page.locator("#stage img:not(.loading), #photo img:not(.loading)")).to_have_count(2)
    both = "[document.images.image, document.images.original]"
    sizes = page.evaluate(f"{both}.map((image) => [image.naturalWidth, image.naturalHeight])")
    assert sizes == [[24, 24], [64, 48]]
    box = page.locator("#image").bounding_box()
    assert box is not None
    assert box["width"] == box["height"] > 400


def test_done_goes_on_with_what_was_decided(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    served = serve()
    page = open_page(served)
    page.wait_for_load_state("networkidle")  # photos that are asked for of a server that has ended are complaints
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("3 of 4 images go on. 1 in doubt is undecided and will be left out.")
    page.keyboard.press("d")  # means nothing while it asks
    page.keyboard.press("Escape")
    assert served.thread.is_alive()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#end")).to_contain_text("You can close this page.")
    served.thread.join(BOUND)
    assert served.told == [None]
    assert served.decisions(1, 3) == ["keep", ""]
    done = build(served.stage, served.root / "4.verified", served.before.folder, served.before.kept)
    assert [record.kept for record in done.records] == [True, True, True, False]


def test_a_doubt_that_is_tolerated_leaves_nothing_out(
    serve: Callable[..., Served], open_page: Callable[..., Page]
) -> None:
    served = serve([("near-duplicate: of 2.jpg",), ("no face: none",), (), ()], tolerate=["near-duplicate"])
    page = open_page(served)
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Enter")
    expect(page.locator("#summary")).to_have_text("3 of 4 images go on. 1 in doubt is undecided and will be left out.")
    page.keyboard.press("Enter")
    served.thread.join(BOUND)
    done = build(served.stage, served.root / "4.verified", served.before.folder, served.before.kept)
    assert [record.kept for record in done.records] == [True, False, True, True]


def test_a_server_that_is_told_to_stop_is_asked_nothing_more(
    serve: Callable[..., Served], open_page: Callable[..., Page]
) -> None:
    served = serve()
    page = open_page(served)
    page.wait_for_load_state("networkidle")  # photos that are asked for of a server that has ended are complaints
    # While the answer is on its way the page looks for news, as at each tick of its clock.
    page.evaluate("""() => {
        const send = window.fetch;
        window.asked = [];
        window.fetch = (address, request) => {
            window.asked.push(address);
            if (address === "done") dispatchEvent(new Event("focus"));
            return send(address, request);
        };
    }""")
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(page.locator("#end")).to_contain_text("You can close this page.")
    assert page.evaluate("asked.at(-1)") == "done"
    served.thread.join(BOUND)


def test_two_tabs_lose_nothing_and_see_each_other(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    served = serve()
    one, two = open_page(served), open_page(served)
    one.keyboard.press("k")
    saved(one)
    two.keyboard.press("ArrowRight")
    two.keyboard.press("d")
    saved(two)
    expect(two.locator("#counts")).to_have_text("1 kept, 1 dropped")
    assert served.decisions(1, 3) == ["keep", "drop"]
    one.evaluate("dispatchEvent(new Event('focus'))")
    expect(one.locator("#counts")).to_have_text("1 kept, 1 dropped")


def test_on_a_phone_with_a_finger(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    served = serve()
    page = open_page(served, viewport={"width": 360, "height": 640}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    for button in ("back", "drop", "undo", "keep", "next", "finish", "doubtful", "all"):
        box = page.locator(f"#{button}").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
        assert box["y"] + box["height"] <= 640
        assert min(box["width"], box["height"]) >= 34
    page.tap("#drop")
    page.tap("#all")
    page.tap("#next")
    page.tap("#keep")
    page.locator("#film button").nth(3).tap()
    assert shown(page) == "cats/2.jpg"
    saved(page)
    assert served.decisions(0, 1, 2, 3) == ["keep", "drop", "", ""]


def test_names_are_text_and_nothing_else(serve: Callable[..., Served], open_page: Callable[..., Page]) -> None:
    name = "<img src=x onerror=\"document.title='hit'\"><b>\udcff\"'&.jpg"
    page = open_page(serve([(f"<i>{name}: <script>",)], names=[name]))
    assert shown(page) == name.replace("\udcff", "�")
    assert page.locator("#doubts i, #source b, #doubts img, #doubts script").count() == 0
    assert page.title() == "Verify"


def test_thousands_of_photos(
    browser: Browser, open_page: Callable[..., Page], zoomed: Callable[..., StageOutput], tmp_path: Path
) -> None:
    before = zoomed()
    many = tuple(
        replace(before.records[number % 4], sha256=f"{number:064x}", source=f"{number:05}.jpg")
        for number in range(3_000)
    )
    served = Served(tmp_path, StageOutput(before.folder, many, {}))
    try:
        page = open_page(served)
        assert page.locator("#place").inner_text() == "1 of 1,500"
        page.keyboard.press("f")
        page.keyboard.press("End")
        assert (shown(page), page.locator("#place").inner_text()) == ("02998.jpg", "3,000 of 3,000")
        page.wait_for_selector("#film button.here img")
        assert page.locator("#film button").count() < 60
        page.keyboard.press("d")
        saved(page)
        assert served.decisions(2998) == ["drop"]
        page.close()  # before the server: it looks for the decisions of other tabs now and then
    finally:
        served.end()


def test_when_the_command_has_ended_it_says_so(serve: Callable[..., Served], browser: Browser) -> None:
    served = serve()
    page = browser.new_page()
    page.goto(served.url)
    page.wait_for_selector("body[data-ready]")
    served.end()
    page.keyboard.press("k")
    expect(page.locator("#banner")).to_have_text("The command has ended or gone on: nothing more is saved here.")
    assert page.locator("#decided").inner_text() == "0 of 2 in doubt decided"
    page.close()


# Without one.


@pytest.mark.security
def test_only_our_own_page_is_answered(serve: Callable[..., Served]) -> None:
    served = serve()
    token = served.token
    for host in ("evil.example", f"evil.example:{served.port}", "127.0.0.1.evil.example", "0.0.0.0", ""):
        for path in ("/", "/photos", "/image/0"):
            assert served.ask("GET", path, Host=host, Origin=f"http://{host}")[0] == 403
        assert served.ask("POST", "/done", Host=host, Origin=f"http://{host}", X_Token=token)[0] == 403
    for origin in ("null", "http://evil.example", f"http://localhost:{served.port}", "http://127.0.0.1:1"):
        assert served.ask("GET", "/photos", Origin=origin)[0] == 403
        assert served.ask("POST", "/done", Origin=origin, X_Token=token)[0] == 403
    tunnel = {"Host": "localhost:1234", "Origin": "http://localhost:1234"}
    assert served.ask("GET", "/photos", **tunnel)[0] == 200
    assert served.ask("POST", "/decide", {"choices": [], "since": 0}, X_Token=token, **tunnel)[0] == 200
    assert served.thread.is_alive()


@pytest.mark.security
def test_a_page_of_a_stranger_learns_nothing_and_decides_nothing(
    serve: Callable[..., Served], open_page: Callable[..., Page], browser: Browser
) -> None:
    served = serve()
    page = open_page(served)
    for host in ("evil.test", "127.0.0.1"):
        told = attack(browser, host, f"{served.url}done", "POST", "{}")
        assert told.keys() >= {"fetch", "blind", "form", "image", "socket"}
        assert not set(told.values()) & {"loaded", "open"}, told
        assert told["fetch"] == told["json"] == told["simple"] == "refused"
    assert served.thread.is_alive()
    page.keyboard.press("k")
    saved(page)


def test_nothing_is_decided_without_the_token(serve: Callable[..., Served]) -> None:
    served = serve()
    for headers in ({}, {"X_Token": ""}, {"X_Token": "ä"}, {"X_Token": served.token[:-1]}):
        choice = {"choices": [[0, "drop"]], "since": 0}
        assert served.ask("POST", "/decide", choice, **headers)[0] == 403
        assert served.ask("POST", "/done", **headers)[0] == 403
    assert served.ask("GET", "/decide")[0] == served.ask("GET", "/done")[0] == 405
    assert served.decisions(0, 1) == ["", ""]
    assert served.decide(0, "drop", served.token)[0] == 200
    assert served.decisions(0, 1) == ["", "drop"]


def test_senseless_choices_are_refused(serve: Callable[..., Served]) -> None:
    served = serve()
    token = served.token
    wrong = [
        [4, "keep"],
        [-1, "keep"],
        [1.0, "keep"],
        [True, "keep"],
        ["1", "keep"],
        [1, "maybe"],
        [1, []],
        [1],
        1,
        "no",
    ]
    senseless = [{"choices": [[0, "keep"], choice], "since": 0} for choice in wrong]
    for since in (-1, "0", None):
        senseless.append({"choices": [[0, "keep"]], "since": since})
    choice: Any
    for choice in (None, [], {}, "keep", {"choices": []}, {"choices": 1, "since": 0}, *senseless):
        assert served.ask("POST", "/decide", choice, X_Token=token)[0] == 400, choice
    assert json.loads(served.ask("GET", "/changes?since=0")[1]) == {"version": 0, "changes": []}


def test_only_the_files_of_the_photos_are_served(serve: Callable[..., Served]) -> None:
    served = serve()
    for path in (
        "/image/4", "/image/-1", "/original/4", "/thumbnail/4", "/image/", "/image/0/", "/image/../verify.csv",
        "/image/..%2f..%2fverify.csv", "/verify.csv", "/3.zoomed/manifest.csv", "//etc/passwd",
        "/image/%2Fetc%2Fpasswd", "/image/00x", "/image/99999999999999999999",
    ):  # fmt: skip
        assert served.ask("GET", path)[0] in (307, 404), path
    status, image = served.ask("GET", "/image/0")
    assert (status, image) == (200, (served.before.folder / "cat-1.png").read_bytes())
    status, small = served.ask("GET", "/thumbnail/0")
    assert Image.open(BytesIO(small)).format == "JPEG"
    (served.root / "0.original" / "cat-1.png").unlink()
    assert served.ask("GET", "/original/0")[0] == 404
    assert served.ask("GET", "/changes?since=x")[0] == 400


@pytest.mark.parametrize(
    "sent",
    [
        "",  # a browser opens some connections in advance
        "GET /photos HTTP/1.1\r\nHost: localhost\r\n\r\n",  # keep-alive
        "POST /decide HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nX-Token: {token}\r\n"
        "Content-Length: 99\r\n\r\n{{",  # its end never comes
    ],
)
def test_connections_held_open_over_the_end_are_closed(serve: Callable[..., Served], sent: str) -> None:
    served = serve()
    with (
        socket.create_connection(("127.0.0.1", served.port), timeout=BOUND) as client,
        catch_warnings(record=True) as said,
    ):
        simplefilter("always")
        client.sendall(sent.format(token=served.token).encode())
        if sent.startswith("GET"):
            assert client.recv(8) == b"HTTP/1.1"
        served.end()
        with suppress(ConnectionResetError):
            while client.recv(1 << 16):
                pass
        gc.collect()
    assert [warning.message for warning in said] == []


@pytest.mark.parametrize("steps", range(5))
def test_a_connection_accepted_at_the_very_end_is_closed(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    main_loop, clients = uvicorn.Server.main_loop, list[socket.socket]()

    async def late(server: uvicorn.Server) -> None:
        await main_loop(server)
        clients.append(socket.create_connection(("127.0.0.1", served.port), timeout=BOUND))
        for _ in range(steps):  # of the loop: it is in the queue, accepted, gets a transport, is known to the server
            await asyncio.sleep(0)

    monkeypatch.setattr(uvicorn.Server, "main_loop", late)
    served = serve()
    with catch_warnings(record=True) as said:
        simplefilter("always")
        served.end()
        [client] = clients
        with client, suppress(ConnectionResetError):
            assert client.recv(1) == b""
        gc.collect()
    assert [warning.message for warning in said] == []


def test_many_at_once_lose_nothing(serve: Callable[..., Served]) -> None:
    served = serve([("x: y",)] * 24)
    token = served.token
    threads = [
        threading.Thread(
            target=lambda start=start: [served.decide(place, "keep", token) for place in range(start, 24, 4)]
        )
        for start in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served.decisions(*range(24)) == ["keep"] * 24
    changes = json.loads(served.ask("GET", "/changes?since=20")[1])
    assert (changes["version"], len(changes["changes"])) == (24, 4)


def test_a_table_spoilt_meanwhile_is_told_and_kept(serve: Callable[..., Served]) -> None:
    served = serve()
    path, token = served.root / TABLE, served.token
    good = path.read_text()
    path.write_text("not a table")
    status, answer = served.decide(0, "keep", token)
    assert (status, "line 1: expected names of columns" in json.loads(answer)["error"]) == (409, True)
    assert path.read_text() == "not a table"
    path.write_text(good)
    assert served.decide(1, "drop", token)[0] == 200
    assert served.decisions(1, 3) == ["", "drop"]  # what was not saved is not decided


PROGRAM = """
import logging, signal, sys
from pathlib import Path
from catsweep.prepare.stage_cache import build
from catsweep.prepare.stage import StageOutput
from catsweep.prepare.stages.verify import Verify
signal.signal(signal.SIGINT, signal.default_int_handler)  # which those who start the tests may have set to be ignored
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
root = Path(sys.argv[1])
print("went on:", Verify("serve", port=0).begin(root, StageOutput.open(root / "3.zoomed")), flush=True)
"""


def test_ctrl_c_goes_on(zoomed: Callable[..., StageOutput], tmp_path: Path, root: Path) -> None:
    zoomed()
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "http://127.0.0.1:" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert process.returncode == 0
    assert "went on: None" in said
