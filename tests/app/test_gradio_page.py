"""The demo as a person meets it: `python src/demo.py`, in Chromium, with a tiny bundle."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from io import BytesIO
from os import environ
from pathlib import Path
from socket import create_server

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from tests.foreign import attack

from catsweep.app.session import Session
from catsweep.generate.model_source import Source

WAIT = 60_000  # milliseconds; only a failure takes them


class Demo:
    """A running demo.

    Args:
        root: of the project.
        folder: it is started in, and keeps its temporary files in.
        words: of the command line.
    """

    def __init__(self, root: Path, folder: Path, *words: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.way_out = create_server(("127.0.0.1", 0))  # what it asks the world for would come by here
        proxy = f"http://127.0.0.1:{self.way_out.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy)
        self.process = subprocess.Popen(
            [sys.executable, str(root / "src" / "demo.py"), "port=0", *words], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**environ, **proxies, "TMPDIR": str(self.temporary), "GRADIO_SHARE": "True"},
        )  # fmt: skip
        self._url = ""

    @property
    def url(self) -> str:
        """Its address, once it is there."""
        assert self.process.stdout is not None
        said = ""
        while not self._url:
            line = self.process.stdout.readline()
            assert line, f"the demo ended: {said}"
            said += line
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                self._url = found[0]
        return self._url

    def ask(self, path: str, host: str | None = None) -> int:
        """The status that an address answers with."""
        place = self.url.removeprefix("http://")
        connection = HTTPConnection(place)
        try:
            connection.request("GET", path, headers={"Host": host or place})
            return connection.getresponse().status
        finally:
            connection.close()

    def end(self) -> str:
        """End it as `kill` does; returns what it has said since it started."""
        self.process.terminate()
        said, _ = self.process.communicate()
        return said

    def asked_the_world(self) -> bool:
        """Whether it has tried to reach anybody."""
        self.way_out.setblocking(False)
        try:
            self.way_out.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture(scope="module")
def demos(root: Path, bundle: Path, write, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Demo, Demo]]:
    """Of a bundle as of a VAE, which is named; and of one as of a DCGAN, which is the latest."""
    sees, blind = (tmp_path_factory.mktemp(name) for name in ("sees", "blind"))
    write(blind / "outputs" / "exports" / "blind-1", reconstructs=False)
    running = Demo(root, sees, f"bundle={bundle}"), Demo(root, blind)
    yield running
    for demo in running:
        if demo.process.poll() is None:
            demo.end()
        demo.way_out.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens a demo, and fails at the end if the page has asked anybody else for anything."""
    opened: list[Page] = []
    outside: list[str] = []
    origins: list[str] = []

    def opening(demo: Demo, **how: object) -> Page:
        page = browser.new_page(**how)  # type: ignore[arg-type]
        origins.append(f"{demo.url}/")
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((*origins, "data:", "blob:")) else outside.append(request.url)
            ),
        )
        opened.append(page)
        page.set_default_timeout(WAIT)
        page.goto(demo.url)
        page.wait_for_selector("#cats img")
        return page

    yield opening
    for page in opened:
        page.close()
    assert outside == []


def address(page: Page, name: str = "cats") -> str:
    return str(page.locator(f"#{name} img").first.get_attribute("src"))


def pixels(page: Page, name: str = "cats") -> np.ndarray:
    body = page.request.get(address(page, name)).body()
    return np.asarray(Image.open(BytesIO(body)).convert("RGB"))


def changed(page: Page, before: str, name: str = "cats") -> str:
    expect(page.locator(f"#{name} img").first).not_to_have_attribute("src", before, timeout=WAIT)
    return address(page, name)


def type_number(page: Page, name: str, value: str) -> None:
    box = page.locator(f"#{name} input[type=number]")
    box.fill(value)
    box.blur()


@pytest.fixture(scope="module")
def expected(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., np.ndarray]:
    """The page of cats that the same numbers give without a browser."""
    session = Session(Source(bundle), tmp_path_factory.mktemp("session"))

    def drawn(n: int = 16, seed: int = 0, truncation: float = 0.8, **strengths: float) -> np.ndarray:
        with Image.open(session.cats(n, seed, truncation, strengths)) as image:
            return np.asarray(image)

    return drawn


def test_sliders_change_the_picture_and_the_same_numbers_give_the_same(demos, open_page, expected) -> None:
    page = open_page(demos[0])
    first = address(page)
    assert np.array_equal(pixels(page), expected())
    expect(page.locator(".note code").first).to_contain_text("n=16 seed=0 truncation=0.8", timeout=WAIT)
    page.locator("#truncation input[type=range]").press("ArrowLeft")
    truncated = changed(page, first)
    assert np.array_equal(pixels(page), expected(truncation=0.75))
    type_number(page, "n", "9")
    fewer = changed(page, truncated)
    assert np.array_equal(pixels(page), expected(9, truncation=0.75))
    type_number(page, "cats-brightness", "2")
    brighter = changed(page, fewer)
    assert np.array_equal(pixels(page), expected(9, truncation=0.75, brightness=2.0))
    expect(page.locator(".note code:visible")).to_have_count(0, timeout=WAIT)  # none does that
    type_number(page, "cats-seed", "-5")
    expect(page.locator(".toast-body")).to_contain_text("A seed is a whole number from 0 up.", timeout=WAIT)
    type_number(page, "cats-seed", "5")
    other = changed(page, brighter)
    page.locator("#cats-seed-surprise").click()
    changed(page, other)
    seed = int(page.locator("#cats-seed input").input_value())
    assert np.array_equal(pixels(page), expected(9, seed, truncation=0.75, brightness=2.0))
    for name, value in (("cats-seed", "0"), ("n", "16"), ("cats-brightness", "0"), ("truncation", "0.8")):
        type_number(page, name, value)
    expect(page.locator("#cats img").first).to_have_attribute("src", first, timeout=WAIT)


def test_the_page_of_cats_is_downloaded(demos, open_page, expected) -> None:
    page = open_page(demos[0])
    before = address(page)
    type_number(page, "cats-seed", "3")
    changed(page, before)
    with page.expect_download() as download:
        page.locator("#download").click()
    assert download.value.suggested_filename == "cats_3.png"
    with Image.open(download.value.path()) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), expected(seed=3))


def test_a_walk_is_an_animation(demos, open_page) -> None:
    page = open_page(demos[0])
    page.get_by_role("tab", name="Walk").click()
    page.wait_for_selector("#walk img")
    before = address(page, "walk")
    type_number(page, "steps", "6")
    changed(page, before, "walk")
    with Image.open(BytesIO(page.request.get(address(page, "walk")).body())) as image:
        assert (image.format, image.n_frames) == ("WEBP", 12)
    expect(page.locator("#download-gif")).to_be_enabled(timeout=WAIT)
    with page.expect_download() as download:
        page.locator("#download-gif").click()
    assert download.value.suggested_filename == "walk_0_1.gif"
    with Image.open(download.value.path()) as image:
        assert (image.format, image.n_frames) == ("GIF", 12)


def test_an_own_photo_is_drawn_again(demos, open_page, tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), (200, 100, 50), np.uint8)).save(tmp_path / "mine.png")
    (tmp_path / "broken.jpg").write_bytes(b"no photo")
    page = open_page(demos[0])
    page.get_by_role("tab", name="Your photo").click()
    page.set_input_files("#photo input[type=file]", tmp_path / "mine.png")
    page.wait_for_selector("#pair img")
    assert pixels(page, "pair")[15, [15, 50]].tolist() == [[200, 100, 50], [100, 50, 25]]
    expect(page.locator("#download-photo")).to_be_enabled(timeout=WAIT)
    page.get_by_label("Remove Image").click()
    expect(page.locator("#pair")).to_be_hidden(timeout=WAIT)
    page.set_input_files("#photo input[type=file]", tmp_path / "broken.jpg")
    expect(page.locator(".toast-body")).to_contain_text("broken.jpg cannot be used: ", timeout=WAIT)


def test_on_a_phone(demos, open_page) -> None:
    page = open_page(demos[0], viewport={"width": 390, "height": 844}, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for name in ("cats", "cats-seed", "cats-seed-surprise", "n", "truncation", "cats-warmth", "download"):
        box = page.locator(f"#{name}").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    page.locator("#cats-warmth").scroll_into_view_if_needed()
    box = page.locator("#cats").bounding_box()
    assert box is not None
    assert box["y"] >= 0  # the picture stays in sight while sliders are moved
    assert box["width"] == pytest.approx(box["height"], abs=12)


def test_a_generator_without_encoder_has_no_tab_for_photos(demos, open_page) -> None:
    page = open_page(demos[1])
    expect(page.get_by_role("tab")).to_have_text(["Cats", "Walk"])
    expect(page.locator(".masthead")).to_contain_text("blind-1")


@pytest.mark.security
def test_only_our_own_page_is_answered(demos) -> None:
    demo = demos[0]
    assert demo.ask("/") == demo.ask("/", host="localhost:1") == 200
    assert demo.ask("/", host="evil.example") == demo.ask("/config", host="evil.example") == 403
    for path in ("/etc/hostname", str(Path(__file__)), "pyproject.toml", "..%2f..%2fetc%2fhostname"):
        assert demo.ask(f"/gradio_api/file={path}") in (403, 404), path


@pytest.mark.security
def test_a_page_of_a_stranger_draws_nothing_and_learns_nothing(demos, open_page, browser: Browser) -> None:
    page = open_page(demos[0])
    call = '{"data": [], "fn_index": 0, "session_hash": "s"}'
    for host in ("evil.test", "127.0.0.1"):
        told = attack(browser, host, f"{demos[0].url}/gradio_api/queue/join", "POST", call)
        told["picture"] = attack(browser, host, address(page), "GET", "")["image"]
        assert told.keys() >= {"fetch", "blind", "form", "image", "socket"}
        assert not set(told.values()) & {"loaded", "open"}, told
        assert told["fetch"] == told["json"] == told["simple"] == "refused"


def test_it_ends_when_told_and_leaves_nothing(demos) -> None:
    for demo in demos:
        assert demo.url
        assert not demo.asked_the_world()
        assert list(demo.temporary.glob("catsweep-demo-*"))
        said = demo.end()
        assert demo.process.returncode == 0, said
        assert "Traceback" not in said
        assert not list(demo.temporary.glob("catsweep-demo-*"))
