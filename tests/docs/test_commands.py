"""Every command that README.md and docs/ show is run, scaled down (`tests/docs/scale.py`), in their order.

Later commands find what earlier ones made: a study, a best model, a bundle. So one failing may make others fail.
"""

import os
import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig
from playwright.sync_api import Browser
from tests.docs.pages import PAGES, blocks, commands
from tests.docs.scale import BECAUSE, ENDS, NOT_RUN, SERVES, added, filled
from tests.docs.shop import Done, Shop

from catsweep.data.sources import DemoFiles

TYPED: dict[str, str] = {}  # {command: page}, each once, where it is shown first
for _page, _text in PAGES.items():
    for _command in commands(_text):
        TYPED.setdefault(_command, _page)
NOT = {command for command in TYPED if any(command.startswith(start) for start in NOT_RUN)}
VAE = """
from diffusers import AutoencoderKL
down, up = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
options = dict(block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2)
AutoencoderKL(down_block_types=down, up_block_types=up, **options).save_pretrained("VAE")
"""
SECONDS = 600  # that a server may take to answer


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, compose: Callable[..., DictConfig]) -> Iterator[Shop]:
    """The project that the commands are run in, with a folder of photos; features of real images are the session's."""
    shop = Shop(tmp_path_factory.mktemp("project"))
    statistics = Path(compose().metrics.cache_root)
    statistics.mkdir(parents=True, exist_ok=True)
    (shop.folder / "data").mkdir()
    (shop.folder / "data" / "statistics").symlink_to(statistics)
    for seed, name in enumerate(("my_cats", "others")):
        write_photos(shop.folder / name, seed)
    yield shop
    shop.close()


def write_photos(folder: Path, seed: int) -> None:
    """24 photos of drawn cats, with landmarks beside them."""
    folder.mkdir()
    files = DemoFiles(24, seed, "")
    for name in files:
        image = cv2.imdecode(np.frombuffer(files.read(name), np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        small = cv2.resize(image, (96, 96), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / name.replace("png", "jpg")), small)
        points = np.array(files.read(f"{name}.cat").split()[1:], float) * 96 / image.shape[0]
        (folder / name.replace("png", "jpg.cat")).write_text(f"9 {' '.join(map(str, points))}")


@pytest.fixture(scope="module")
def written() -> set[str]:
    """The pages whose files have been written."""
    return set()


@pytest.mark.trains
@pytest.mark.parametrize(
    ("page", "command"),
    [pytest.param(page, command, id=f"{page}: {command}") for command, page in TYPED.items() if command not in NOT],
)
def test_every_command_does_what_it_says(shop: Shop, written: set[str], page: str, command: str) -> None:
    if page not in written:  # the files that the page tells to write
        for block in blocks(PAGES[page]):
            if block.title:
                (shop.folder / block.title).parent.mkdir(parents=True, exist_ok=True)
                (shop.folder / block.title).write_text(block.text)
        written.add(page)
    make_ready(shop, command)
    done = run(shop, command)
    print(f"{done.seconds:.1f} s of CPU", done.said, sep="\n")  # pytest -rP shows it
    code, said = next((end for words, end in ENDS.items() if words in command), (0, ""))
    assert done.code == code, done.said
    assert re.search(said, done.said), done.said
    assert "Traceback (most recent call last)" not in done.said


@pytest.fixture(scope="module")
def site(shop: Shop) -> Path:
    """What `make docs` built."""
    folder = shop.folder / "outputs" / "docs"
    if not folder.is_dir():
        assert run(shop, "make docs").code == 0
    return folder


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(r"<(?:script|img|iframe)[^>]* src=[\"']?(https?:|//)|<link[^>]* href=[\"']?(https?:|//)")
    assert [page.name for page in pages if loads.search(page.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_site_is_read_from_files_at_any_width(site: Path, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))
    page.on("request", lambda request: failed.append(request.url) if request.url.startswith("http") else None)
    pages = ("index", "tutorial", "steady", "architecture", "reference/commands", "reference/groups/model")
    for name in (*pages, "reference/sweeper"):
        page.goto((site / f"{name}.html").as_uri())
        assert page.locator("h1").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
    assert failed == []


def test_the_site_can_be_searched_without_a_server(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto((site / "how-to" / "resume.html").as_uri())
    page.keyboard.press("f")
    page.locator("input.md-search__input").press_sequentially("charbonnier")
    page.locator(".md-search-result__item").first.wait_for()
    assert "loss" in page.locator(".md-search-result__list").inner_text()
    page.close()


def run(shop: Shop, command: str) -> Done:
    """Run a line of a shell; of `make`, the lines that it would run."""
    command = filled(command)
    if "STUDY-TRIAL" in command:
        command = command.replace("STUDY-TRIAL", newest(shop.folder / "outputs" / "exports"))
    if "DATE/TIME" in command:
        command = command.replace("DATE/TIME", first_run(shop))
    serves = any(words in command for words in SERVES)
    lines = [command]
    if command.startswith("make"):
        _, (_, *words) = shop.argv(command)
        lines = shop.recipe([*words, "PORT=0"] if serves else words)
    said, seconds = "", 0.0
    for line in lines:
        env, argv = shop.argv(line)
        if not argv[0].endswith(".py") and argv[0] != "-m" and Path(argv[0]).name != "wandb":
            continue  # echo, grep: `make` alone
        done = shop.run([*argv, *added(argv)], env, ask if serves else None)
        said, seconds = said + done.said, seconds + done.seconds
        if done.code:
            return Done(done.code, said, seconds)
    return Done(0, said, seconds)


def make_ready(shop: Shop, command: str) -> None:
    """What has to be so for a command to make sense."""
    if "VAE" in command and not (shop.folder / "VAE").is_dir():
        (shop.folder / "home" / "vae.py").write_text(VAE)
        assert shop.run(["home/vae.py"], {}).code == 0
    if "resume=" in command:  # the run was stopped before it had written its scores
        (shop.folder / "outputs" / "runs" / first_run(shop) / "metrics.json").unlink()


def ask(pid: int, out: Path) -> None:
    """Wait for a server to say where it is, ask it for its page, and end it."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + SECONDS
    with suppress(ProcessLookupError):  # it has ended by itself, too early
        try:
            while time.monotonic() < end:
                os.kill(pid, 0)
                found = re.search(r"http://127\.0\.0\.1:\d+", out.read_text())
                with suppress(OSError):  # it does not listen yet
                    if found and opener.open(found[0]).status == 200:
                        return
                time.sleep(0.05)
        finally:
            os.kill(pid, signal.SIGINT)
    raise AssertionError(f"no page within {SECONDS} s: {out.read_text()}")


def first_run(shop: Shop) -> str:
    """The single run that was made first, which is that of `python src/train.py`."""
    return "/".join(min((shop.folder / "outputs" / "runs").glob("*/*")).parts[-2:])


def newest(folder: Path) -> str:
    """The name of the entry of a folder that was written last."""
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime).name


def test_there_is_no_block_of_which_nobody_knows_whether_it_is_typed() -> None:
    languages = {block.language for page in PAGES.values() for block in blocks(page)}
    assert languages <= {"bash", "text", "yaml", "python"}


@pytest.mark.parametrize("table", [NOT_RUN, ENDS, BECAUSE, SERVES], ids=["not run", "ends", "because", "serves"])
def test_no_exception_is_made_for_nothing(table: Iterable[str]) -> None:
    unquoted = [command.replace("'", "").replace('"', "") for command in TYPED]
    assert [words for words in table if not any(words in command for command in unquoted)] == []
