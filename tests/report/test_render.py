"""report.html as it is written, and as Chromium shows it on a phone and on a desktop."""

import html
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial
from playwright.sync_api import Browser, Page
from tests.markup import NAMES, Seen
from tests.report.studies import CARD_OF_FID, HOSTILE, Lab, add, params_of, populate, strangers

from catsweep.errors import StudyError, TakenError
from catsweep.report import render
from catsweep.report.exported import Exported
from catsweep.report.formatting import breakable
from catsweep.report.render import Report
from catsweep.report.report_data import collect
from steady.confirm import confirmation
from steady.printing import readable
from steady.study import meta, select

NAME = "cats <b>&'\" ü #1"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Lab:
    """A study with trials of all kinds, confirmed, and the set it was trained on."""
    lab = Lab(tmp_path_factory.mktemp("zoo"), empty_database)
    study = lab.study(NAME, facts={"data": lab.set(), "cards": {"val/fid": CARD_OF_FID}})
    populate(lab, study, 18)
    add(study, (float("inf"), 0.5), params_of(18), "complete", start=600)
    add(
        study,
        TrialState.PRUNED,
        params_of(19),
        "out of memory",
        start=50_000,
        message="MemoryError",
        traceback="no room",
    )
    ranked = select.candidates(study, 2)
    runs = [(number, seed, (200.0 + number * (-1) ** seed, 0.3)) for number in ranked for seed in (1, 2)]
    again = lab.study(f"{NAME}.confirm")
    for number, seed, values in runs:
        add(again, values, {}, "complete", start=50_060 + 60 * seed, slot=number % 2, confirms=number, seed=seed)
    found = confirmation.compare(study, runs, ("val/fid", "val/ssim"), ("minimize", "maximize"))
    found.write(lab.sweeps / NAME)
    return lab


@pytest.fixture(scope="module")
def text(zoo: Lab) -> str:
    return written(zoo, NAME)


def written(lab: Lab, name: str, plotly: bool = False) -> str:
    """The page of a study; it lies where the command would put it."""
    folder = lab.sweeps / name
    page = Report(collect(folder, lab.outputs / name, lab.ready, plotly=plotly), folder).html()
    (folder / "report.html").write_text(page, encoding="utf-8")
    return page


def sections(page: str) -> list[str]:
    return [re.sub(r"<.*", "", title).strip() for title in re.findall(r"<h2[^>]*>(.*?)</h2>", page, re.DOTALL)]


def test_everything_is_told_in_its_order(text: str) -> None:
    assert sections(text) == [
        "What was searched", "The winner", "The Pareto set", "A second opinion", "History", "All trials at once",
        "Which parameters mattered", "Slices", "Who ran when", "Failures", "All trials", "How it was measured",
        "Do it again",
    ]  # fmt: skip
    assert "is not significantly different from" in text
    assert "1.5 min or 1,000 epochs of training each, whichever ends first" in text
    assert "40 photos, digest" in text
    assert "6 finished" in text or "7 finished" in text
    assert "python src/train.py -m hparams_search=vae_optuna" in text
    assert text.count('class="dot"') > 20
    assert text.count("<tr id=") == 20


def test_the_winner_is_beside_real_cats_of_equal_size(zoo: Lab) -> None:
    data = collect(zoo.sweeps / NAME, zoo.outputs / NAME, zoo.ready, plotly=False)
    assert data.samples.shape == data.real.shape == (16, 32, 32, 3)


def test_no_text_of_a_study_becomes_markup(text: str) -> None:
    assert "</script><b" not in text.replace("<script>", "")
    assert "<b onerror" not in text
    assert (
        html.escape(HOSTILE.replace("\ud800", "\\ud800"), quote=True)
        .replace("&#x27;", "&#39;")
        .replace("&quot;", "&#34;")
        in text
    )
    assert "cats &lt;b&gt;" in text
    assert text.count("<script") == text.count("</script>")


@pytest.mark.security
def test_a_strangers_study_adds_nothing_to_the_page_but_its_words(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catsweep.report.report_data.is_plain", lambda words: False)  # as of hostile ones, so of both

    def page(name: str, words: list[str]) -> Seen:
        strangers(lab, name, words)
        return Seen(written(lab, name))

    hostile = [word for word in NAMES if word.strip() and word != "\ud800"]  # no database takes that
    seen = page("hostile <b>#*", hostile)
    harmless = page("harmless", [f"word {i}" for i, _ in enumerate(hostile)])
    lines = ("wbr", "option")  # where a long name may be broken
    assert [tag for tag in seen.tags if tag not in lines] == [tag for tag in harmless.tags if tag not in lines]
    assert {readable(word).strip() for word in hostile} <= {text.strip() for text in seen.texts["dd"]}
    assert not {"a onclick", "img onerror"} & set(seen.tags)


def test_equal_studies_give_equal_pages(zoo: Lab, text: str) -> None:
    assert written(zoo, NAME) == text


def test_fid_always_names_its_extractor(text: str) -> None:
    body = re.sub(r"<pre>.*?</pre>|<style>.*?</style>", "", text, flags=re.DOTALL)
    seen = html.unescape(re.sub(r"<[^>]*>", "", body))
    assert re.findall(r"val/fid(?! \(efficientnet_lite0\)).{20}", seen) == []


def test_a_lost_run_folder_and_lost_photos_are_no_error(zoo: Lab) -> None:
    folder = zoo.sweeps / NAME
    page = Report(collect(folder, zoo.folder / "gone", zoo.folder / "gone", plotly=False), folder).html()
    assert "no samples to show" in page
    assert "no real cats beside them" in page
    assert "Put together from what the study keeps" in page


def test_nothing_finished_says_so_and_still_lists_failures(lab: Lab) -> None:
    study = lab.study("bad")
    add(study, TrialState.FAIL, params_of(2), "failed", message=HOSTILE, traceback="the traceback")
    page = written(lab, "bad")
    assert "no finished trial" in page
    assert "the traceback" in page
    assert "The Pareto set" not in sections(page)
    assert {"Failures", "All trials", "Who ran when"} <= set(sections(page))


def test_one_finished_trial_is_enough(lab: Lab) -> None:
    add(lab.study("first"), (1.0, 0.5), params_of(1), "complete")
    page = written(lab, "first")
    assert "the lowest val/fid" in page
    assert "at least 4 finished trials" in page


def test_a_sweep_that_runs_says_what_is_to_come(lab: Lab) -> None:
    study = lab.study("now")
    add(study, (1.0, 0.5), params_of(1), "complete")
    lab.run("now", 0, (1.0, 0.5), ("val/fid", "val/ssim"))  # its config says trials: 9
    add(study, TrialState.RUNNING, params_of(3), slot=-1)
    page = written(lab, "now")
    assert "Not finished yet." in page
    assert "Of 9 trials, 1 have ended, and 1 is under way." in page


def test_a_search_whose_time_is_over_is_finished(lab: Lab) -> None:
    study = lab.study("short")
    add(study, (1.0, 0.5), params_of(1), "complete")
    lab.run("short", 0, (1.0, 0.5), ("val/fid", "val/ssim"))  # its config says trials: 9
    study.enqueue_trial(params_of(2))
    study.set_user_attr(meta.OUT_OF_TIME, 2)
    page = written(lab, "short")
    assert "Not finished yet." not in page
    assert "1 trial until its time was over, of 9 at most; 1.5 min" in page
    add(study, (2.0, 0.5), params_of(3), "complete")  # gone on with, and not yet out of time again
    assert "Not finished yet." in written(lab, "short")


def test_paused_trials_were_tried_and_the_page_says_what_promotes_them(lab: Lab) -> None:
    study = lab.study("halving")
    study.set_user_attr(
        meta.PROMOTION, {"eta": 3, "rungs": [1, 3, 9], "metrics": ["val/kid"], "directions": ["minimize"]}
    )
    add(study, (1.0, 0.5), params_of(1), "complete")
    lab.run("halving", 0, (1.0, 0.5), ("val/fid", "val/ssim"))  # its config says trials: 9
    add(study, TrialState.WAITING, params_of(3), "paused", start=100, attempt=0, paused={"rung": 1, "attempt": 0})
    page = written(lab, "halving")
    assert "Of 9 trials, 1 have ended, and 1 is under way." in page
    assert re.search(r"promoted by</dt><dd>val/kid[^;]*; one of 3 goes on from each of the rungs 1, 3 to 9<", page)
    assert "1 finished, 0 pruned, 1 paused, 0 failed" in page
    folder = lab.sweeps / "halving"
    short = (
        Report(collect(folder, lab.outputs / "halving", lab.ready, plotly=False), folder).write_markdown().read_text()
    )
    assert "(1 finished, 0 pruned, 1 paused, 0 failed) over" in short
    assert "- promoted by: val/kid" in short
    study.set_user_attr(meta.OUT_OF_TIME, 2)
    assert "2 trials until its time was over, of 9 at most; 1.5 min" in written(lab, "halving")
    study.set_user_attr(meta.PROMOTION, {"eta": "<b>", "rungs": 5})  # a stranger's
    assert "promoted by" not in written(lab, "halving")


def test_what_was_exported_comes_first_with_its_scores_its_samples_and_the_time_it_took(lab: Lab) -> None:
    study = lab.study("gone-on", facts={"data": lab.set()})
    add(study, (40.0, 0.5), params_of(1), "complete")
    run = lab.run("gone-on", 0, (40.0, 0.5), ("val/fid", "val/ssim"))
    longer = lab.outputs / "cats/gone-on/longer"
    longer.parent.mkdir(parents=True)
    run.rename(longer)  # so the trial itself has no samples to show
    before, after = {"val/fid": 40.0, "val/ssim": 0.5, "val/kid": 1.0}, {"val/fid": 30.25, "judge/fid": 99.0}
    spent = {"search": 61.0, "export": 21.0}
    Exported(0, str(longer), "outputs/exports/it", "Trained on.", before, after, 240.0, {"search": 90.0}, spent).write(
        lab.sweeps / "gone-on"
    )
    page = written(lab, "gone-on")
    assert sections(page)[0] == "What was exported"
    assert 'alt="samples of the exported model"' in page
    text = " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())
    for words in (
        "in outputs/exports/it . Trained on.", "↓ 40 30.25 ", "judge/fid ↓ 99 ", "of 4 min planned took",
        "search 1 min 30 s 1 min 1 s", "export 21 s",
    ):  # fmt: skip
        assert words in text.replace("judge/ fid", "judge/fid"), words
    assert "val/ kid" not in text  # no objective, and not beside them


def test_a_study_that_has_not_begun_has_a_page(lab: Lab) -> None:
    lab.study("empty")
    assert "None has begun." in written(lab, "empty")


@pytest.mark.parametrize("n", [1, 3])
def test_one_objective_or_three(lab: Lab, n: int) -> None:
    names = ("val/fid", "val/ssim", "val/gap")[:n]
    directions: list[Literal["minimize", "maximize"]] = ["minimize", "maximize", "minimize"]
    study = lab.study("other", names, directions[:n])
    populate(lab, study, 9, names)
    page = written(lab, "other")
    assert ("The Pareto set" in sections(page)) == (n == 3)
    assert page.count("against") >= (3 if n == 3 else 0)
    assert page.count("<h3>for val/") == n


def test_a_study_of_another_tool_has_a_page(lab: Lab) -> None:
    lab.study("stock")
    database = f"sqlite:///{lab.sweeps / 'stock/study.db'}"
    optuna.delete_study(study_name="stock", storage=database)
    study = optuna.create_study(study_name="stock", storage=database)
    space: dict[str, BaseDistribution] = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for x in (0.1, 0.7):
        study.add_trial(create_trial(value=x, params={"x": x}, distributions=space))
    lab.run("stock", 0, (0.1,), ("accuracy",))
    page = written(lab, "stock")
    assert "the lowest accuracy" in page
    assert "trial 0" in page


def test_the_budget_in_words(zoo: Lab) -> None:
    data = collect(zoo.sweeps / NAME, zoo.outputs / NAME, zoo.ready, plotly=False)
    bound = replace(data.record, contract={"config": {"minutes": None, "epochs": 50}})
    assert replace(data, record=bound).budget == "50 epochs of training each"
    assert replace(data, record=replace(data.record, contract={})).budget == ""
    for config, words in (
        ({"samples": 60000, "budget_unit": "samples"}, "60,000 images of training each"),
        ({"minutes": 5, "budget_unit": "cpu_seconds"}, "5 min of processor time of training each"),
    ):
        assert replace(data, record=replace(data.record, contract={"config": config})).budget == words


def test_what_trials_used_is_in_the_table_and_unequal_shares_at_the_top(lab: Lab) -> None:
    study = lab.study("busy")
    for number, share in enumerate([0.9, 0.9, 0.3, 0.9]):
        used = {"seconds": 100, "cpu_seconds": 100 * share, "samples": 40000 * share, "unit": "seconds"}
        add(study, [100.0 + number, 0.5], params_of(number), "complete", usage=used)
        lab.run("busy", number, [100.0 + number, 0.5], ["val/fid", "val/ssim"])
    data = collect(lab.sweeps / "busy", lab.outputs / "busy", lab.ready, plotly=False)
    report = Report(data, lab.sweeps / "busy")
    for text in (report.html(), report.write_markdown().read_text(encoding="utf-8")):
        assert "processor seconds a second, the worst 0.30" in text
        assert "12,000" in text
        assert "cpu seconds" in text


def test_long_names_may_break_and_stay_escaped() -> None:
    assert str(breakable("model.latent_size")) == "model.<wbr>latent_<wbr>size"
    assert str(breakable("<b>")) == "&lt;b&gt;"


# --- in the browser


@pytest.fixture(params=[390, 1280], ids=["phone", "desktop"])
def shown(request: pytest.FixtureRequest, browser: Browser, zoo: Lab, with_plots: Path) -> Iterator[Page]:
    phone = request.param == 390
    context = browser.new_context(viewport={"width": request.param, "height": 844}, has_touch=phone, is_mobile=phone)
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "request", lambda sent: complaints.append(sent.url) if not sent.url.startswith(("file:", "data:")) else None
    )
    page.goto(with_plots.as_uri())
    yield page
    assert complaints == []
    context.close()


@pytest.fixture(scope="module")
def with_plots(zoo: Lab, text: str) -> Path:
    written(zoo, NAME, plotly=True)
    return zoo.sweeps / NAME / "report.html"


def test_the_page_fits_shows_samples_sorts_and_asks_for_nothing(shown: Page) -> None:
    width = shown.viewport_size["width"] if shown.viewport_size else 0
    assert shown.evaluate("document.documentElement.scrollWidth") == width

    # Pointing at a trial of the front, or tapping it, shows its samples.
    tip, point = shown.locator("#tip"), shown.locator(".pareto .mark.front .hit").first
    assert tip.is_hidden()
    point.tap() if width == 390 else point.hover()
    picture = tip.locator("img")
    assert picture.is_visible()
    assert picture.evaluate("image => image.naturalWidth") > 100
    number = point.evaluate("point => point.parentNode.dataset.t")
    assert tip.locator("td.n").inner_text().split()[-1] == number
    assert shown.locator(f'svg .hot[data-t="{number}"]').count() > 3
    shown.keyboard.press("Escape")
    assert tip.is_hidden()

    # A bar of the timeline says what it is.
    bar = shown.locator(".bar").first
    bar.tap() if width == 390 else bar.click()
    assert "trial 0" in tip.locator(".note").inner_text()
    tip.locator(".close").click()

    # Long tables open; the order changes.
    if shown.locator("button.all").is_visible():
        shown.locator("button.all").click()
    assert shown.locator(".scroll .trials tbody tr:visible").count() == 20
    if width == 390:
        shown.locator(".sorting select").select_option(label="trial, high first")
    else:
        shown.locator(".trials th button", has_text="trial").click()
        shown.locator(".trials th button", has_text="trial").click()
    numbers = shown.locator(".scroll .trials td.n").evaluate_all("cells => cells.map(cell => Number(cell.dataset.v))")
    assert numbers == sorted(numbers, reverse=True)

    # What has no score comes last, in either order.
    shown.evaluate("document.querySelectorAll('.trials th button')[3].click()")
    scores = shown.locator(".scroll .trials td.score:nth-child(4)").evaluate_all("cells => cells.map(c => c.dataset.v)")
    known = [float(score) for score in scores if score]
    assert known == sorted(known)
    assert scores[len(known) :] == [""] * (len(scores) - len(known))

    shown.locator("details summary", has_text="Traceback").first.click()
    assert "ValueError" in shown.locator("details pre:visible").first.inner_text()
    assert shown.evaluate("document.documentElement.scrollWidth") == width

    # Optuna's own plots are unpacked when asked for, and their points show samples, too.
    if width == 390:
        shown.locator("details.optuna summary").click()
        shown.wait_for_selector("details.optuna[data-drawn=yes]")
        assert shown.locator(".plotly-place .main-svg:visible").count() >= 3
        shown.evaluate("showTrial(0, 10, 10, true)")
        assert tip.locator("img").is_visible()
        assert shown.evaluate("document.documentElement.scrollWidth") == width


def config(lab: Lab, **more: object) -> DictConfig:
    conf: Any = OmegaConf.load(Path(__file__).parents[2] / "conf/report.yaml")
    del conf["defaults"], conf["hydra"]
    places = {"sweeps": str(lab.sweeps), "outputs": str(lab.outputs), "ready": str(lab.ready)}
    merged = OmegaConf.merge(conf, places, more)
    assert isinstance(merged, DictConfig)
    return merged


def test_both_reports_lie_beside_the_study(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.study("2026")
    path = render.run(config(lab, study=2026))  # the command line reads a number
    assert path == lab.sweeps / "2026/report.html"
    assert sorted(p.name for p in path.parent.iterdir()) == ["report", "report.html", "report.md", "study.db"]
    assert f"0 trials of study 2026: {path} (0.0 MB), and {path.with_suffix('.md')}" in capsys.readouterr().out


def test_an_unknown_study_is_refused_with_those_that_there_are(lab: Lab) -> None:
    lab.study("cats")
    with pytest.raises(StudyError, match="There are: cats"):
        render.run(config(lab, study="dogs"))


def test_a_failure_leaves_the_earlier_page(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.study("cats")
    (lab.sweeps / "cats/report.html").write_text(earlier := "<title>cats: what the sweep found</title>")
    monkeypatch.setattr(render, "TEMPLATE", "gone.jinja")
    with pytest.raises(Exception, match="gone"):
        render.run(config(lab))
    assert (lab.sweeps / "cats/report.html").read_text() == earlier
    assert [p.name for p in (lab.sweeps / "cats").iterdir() if p.name.startswith(".")] == []


@pytest.mark.security
@pytest.mark.parametrize("name", ["report.html", "report.md", "report/thesis.png"])
def test_a_file_of_the_user_is_not_replaced(lab: Lab, name: str) -> None:
    lab.study("cats")
    (mine := lab.sweeps / "cats" / name).parent.mkdir(exist_ok=True)
    mine.write_text("mine")
    with pytest.raises(TakenError, match="Move it away, or choose another place: sweeps=DIR"):
        render.run(config(lab))
    assert mine.read_text() == "mine"
    mine.unlink()
    for _ in range(2):
        render.run(config(lab))
