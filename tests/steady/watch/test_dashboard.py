"""Optuna's dashboard on a study of ours, in a real browser."""

import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import optuna
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect
from tests.foreign import attack
from tests.markup import NAMES, Seen, on_one_line, rendered

from steady.storage import CONFIRMATION, LEASES, open_storage
from steady.study.artifacts import FOLDER, Artifacts
from steady.study.leases import Leases
from steady.watch import dashboard

NEW = '{"study_name": "theirs", "directions": ["minimize"]}'
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")  # names of the objectives

NEXT_STEP = "Take the best model home: make best-model export STUDY={study}"


def begin(folder: Path, *artifacts: str) -> optuna.Study:
    """A study with one trial that ended and one that runs, each with a picture of its own width."""
    folder.mkdir(parents=True)
    storage = open_storage(f"sqlite:///{folder}/study.db")
    study = optuna.create_study(study_name=folder.name, storage=storage, directions=["minimize", "maximize"])
    Leases(storage, folder.name, grace=60).register()
    optuna.create_study(study_name=folder.name + LEASES, storage=storage)  # as earlier versions left it
    study.set_metric_names(["val/fid", "val/ssim"])
    study.set_user_attr("command", "python src/train.py -m study=cats")
    study.set_user_attr("next_step", NEXT_STEP.format(study="cats"))
    study.set_user_attr("contract", {"space": {"depth": "choice(deep, shallow)"}})
    optuna.create_study(study_name=folder.name + CONFIRMATION, storage=storage)
    for number in range(2):
        trial = study.ask({"depth": optuna.distributions.CategoricalDistribution(["deep", "shallow"])})
        page = folder / f"run/{number}/samples/epoch_0001.png"
        page.parent.mkdir(parents=True)
        Image.fromarray(np.full((40, 60 + number, 3), 90, np.uint8)).save(page)
        Artifacts(study, folder, artifacts).attach(number, folder / f"run/{number}")
        if number == 0:
            study.tell(trial, [210.5, 0.4])
    return study


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "cats"
    begin(folder, "samples/*.png")
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[str]:
    """The address of the study's page."""
    with dashboard.serve(open_storage(f"sqlite:///{folder}/study.db"), folder, 0, NEXT_STEP) as server:
        (thread := threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})).start()
        yield dashboard.address(server)
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(browser: Browser, served: str) -> Iterator[Page]:
    """The study's page, loaded once. It may ask nobody but our server; any complaint of the browser fails the tests."""
    page = browser.new_page(viewport={"width": 1280, "height": 1200})
    page.set_default_timeout(120_000)
    complaints: list[str] = []
    ours = served.partition("/dashboard")[0]
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on(
        "request",
        lambda request: None if request.url.startswith((ours, "data:", "blob:")) else complaints.append(request.url),
    )
    page.goto(served)
    yield page
    page.close()
    assert not complaints


def listed(served: str) -> list[str]:
    """The names of the studies."""
    with urlopen(served.partition("/dashboard")[0] + "/api/studies") as answer:
        return [one["study_name"] for one in json.load(answer)["study_summaries"]]


def visit(page: Page, part: str) -> None:
    """Go to another part of the study's page by its menu."""
    page.get_by_role("link", name=part, exact=True).click()


def test_the_page_of_the_study_names_its_objectives_and_the_best(page: Page) -> None:
    visit(page, "History")
    expect(page.get_by_text("Pareto Front")).to_be_visible()
    expect(page.get_by_text("val/ssim").first).to_be_visible()
    expect(page.get_by_text("Objective Values = [210.5, 0.4]")).to_be_visible()


def test_the_page_of_a_trial_shows_its_picture_also_while_it_runs(page: Page) -> None:
    visit(page, "Trials (List)")
    expect(page.get_by_text("2 Trials")).to_be_visible()
    for number, status in enumerate(("Complete", "Running")):
        page.get_by_text(f"Trial {number}", exact=True).click()
        expect(page.get_by_text(f"Trial {number} (trial_id=")).to_be_visible()
        expect(page.get_by_text(status).first).to_be_visible()
        expect(page.get_by_text("samples-epoch_0001.png")).to_be_visible()
        page.wait_for_function(f"[...document.images].some(image => image.naturalWidth === {60 + number})")


def test_the_note_says_what_the_study_is_and_a_persons_own_takes_its_place(
    page: Page, served: str, folder: Path
) -> None:
    def written() -> list[bytes]:
        return [(folder / f"study.db{end}").read_bytes() for end in ("", "-wal")]

    before = written()
    visit(page, "Note")
    expect(page.get_by_text("minimize val/fid and maximize val/ssim, over depth.")).to_be_visible()
    expect(page.get_by_text("2 trials: 1 finished, 1 running; best val/fid 210.5")).to_be_visible()
    expect(page.get_by_text("python src/train.py -m study=cats")).to_be_visible()
    expect(page.get_by_text("make best-model export STUDY=cats")).to_be_visible()
    assert written() == before  # to look at it writes nothing
    # As the page saves it; optuna-dashboard 0.21 itself then stumbles, and shows it when it is loaded again.
    note = served.replace("/dashboard/", "/api/") + "/note"
    saved = page.evaluate(
        """async (note) => (await fetch(note, {
          method: "PUT", headers: {"Content-Type": "application/json"},
          body: JSON.stringify({version: 1, body: "The *third* is mine."}),
        })).status""",
        note,
    )
    assert saved == 204
    page.reload()
    expect(page.locator("em", has_text="third")).to_be_visible()
    expect(page.get_by_text("make best-model")).not_to_be_attached()


@pytest.mark.security
@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1", "localhost"])
def test_a_page_of_a_stranger_deletes_nothing_and_learns_nothing(
    page: Page, browser: Browser, served: str, host: str
) -> None:
    ours = served.partition("/dashboard")[0]
    told = attack(browser, host, f"{ours}/api/studies/1", "DELETE", "{}")
    told |= {f"post {way}": word for way, word in attack(browser, host, f"{ours}/api/studies", "POST", NEW).items()}
    told["picture"] = attack(browser, host, f"{ours}/favicon.ico", "GET", "")["image"]
    assert {"fetch", "blind", "form", "image", "opaque", "socket", "post simple"} <= told.keys()
    assert not set(told.values()) & {"loaded", "open"}, told
    assert told["fetch"] == told["json"] == told["simple"] == told["post simple"] == "refused"
    assert listed(served) == ["cats", f"cats{CONFIRMATION}"]


@pytest.mark.security
def test_a_name_of_a_stranger_for_this_machine_shows_nothing(browser: Browser, served: str) -> None:
    port = served.split(":")[2].partition("/")[0]
    page = browser.new_page()
    try:
        answer = page.goto(f"http://evil.test:{port}/api/studies")
        assert answer is not None
        assert answer.status == 403
        deleted = page.evaluate("async () => (await fetch('/api/studies/1', {method: 'DELETE'})).status")
        assert deleted == 403
    finally:
        page.close()
    assert listed(served) == ["cats", f"cats{CONFIRMATION}"]


# Without the browser


@pytest.mark.security
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "http://evil.example"},
        {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Sec-Fetch-Site": "cross-site"},
        {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, {},
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path", "body"), [("DELETE", "/api/studies/1", None), ("POST", "/api/studies", NEW)]
)
def test_what_is_not_asked_by_our_own_page_changes_nothing(
    served: str, method: str, path: str, body: str | None, headers: dict[str, str]
) -> None:
    place = served.removeprefix("http://").partition("/")[0]
    connection = HTTPConnection(place)
    connection.request(method, path, body, {"Host": place, "Content-Type": "application/json", **headers})
    assert connection.getresponse().status == 403
    connection.close()
    assert listed(served) == ["cats", f"cats{CONFIRMATION}"]


def test_the_list_of_leases_is_not_for_people(served: str) -> None:
    assert listed(served) == ["cats", f"cats{CONFIRMATION}"]


def test_a_study_of_the_time_before_pictures_opens(tmp_path: Path) -> None:
    begin(tmp_path / "old")
    assert not (tmp_path / "old" / FOLDER).exists()
    with dashboard.serve(open_storage(f"sqlite:///{tmp_path}/old/study.db"), tmp_path / "old", 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert dashboard.address(server).endswith("/studies/1")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none"], "No study 'none' in sweeps/. There are: cats."),
        (["--storage", "sqlite:///other.db"], "Say which study in .* There are: one, two."),
        (["cats", "--storage", "journal:///log"], "There is no study at log"),
        (["cats", "--storage", "mongo:///"], "must be a URL"),
        (["cats", "--storage", "sqlite:///other.db"], "No study 'cats' in sqlite:///other.db. There are: one, two."),
        (["cats", "--port", "{taken}"], r"Port \d+ cannot be used .* PORT=NUMBER, 0 for any"),
        (["cats", "--port", "99999"], r"^ConfigError: --port must be a whole number from 0 to 65535; got '99999'\.$"),
        (["cats", "--port", "http"], "--port must be a whole number"),
    ],
)
def test_what_cannot_be_shown_is_said(
    words: list[str], said: str, served: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sweeps").symlink_to(folder.parent)
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        optuna.create_study(study_name=name, storage="sqlite:///other.db")
    port = served.split(":")[2].partition("/")[0]
    with pytest.raises(SystemExit, match=said):
        dashboard.main([word.format(taken=port) for word in words])


def test_the_command_prints_the_address_and_ends_quietly(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweeps").symlink_to(folder.parent)
    monkeypatch.chdir(tmp_path)

    def interrupted(server: dashboard.Server) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dashboard.Server, "serve_forever", interrupted)
    dashboard.main(["--port", "0"])
    assert "cats at http://127.0.0.1:" in capsys.readouterr().out


@pytest.mark.security
def test_the_note_on_a_strangers_study_is_its_words_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Optuna logs the name, and half a surrogate pair in what was logged cannot travel from a worker of the tests.
    caplog.set_level("WARNING", logger="optuna")

    def read(word: str) -> Seen:
        study = optuna.create_study(study_name=word, storage=(opened := optuna.storages.InMemoryStorage()))
        study.set_metric_names([word])
        study.set_user_attr("contract", {"space": {word: word}})
        study.set_user_attr("command", word)
        study.set_user_attr("next_step", word)
        study.add_trial(optuna.trial.create_trial(value=1.0))
        return rendered(dashboard.note(opened, word, tmp_path))

    for word in NAMES:
        if word.strip():
            seen = read(word)
            assert seen.tags == ["p", "strong", "code", "ul", "li", "li"], word
            assert on_one_line(seen.texts["strong"][0]) == on_one_line(word)
            assert [on_one_line(code) for code in seen.texts["code"]] == [on_one_line(word)]
