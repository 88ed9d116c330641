"""The judge's scores beside FID, and confirmed trials seed beside seed, in both reports."""

import html
import re
from pathlib import Path

import pytest
from tests.markup import Seen
from tests.report.studies import HOSTILE, Lab, add, params_of

from catsweep.report.render import Report
from catsweep.report.report_data import ReportData, collect
from steady.confirm import confirmation
from steady.study import select

NAMED = ("val/fid", "val/ssim")
FOUND = [(100.0, 0.5), (90.0, 0.4), (120.0, 0.6), (130.0, 0.1)]  # the last is dominated


@pytest.fixture
def judged(lab: Lab) -> Lab:
    """A study of four trials, the first two confirmed; all but trial 2 judged, once under each other seed too."""
    study = lab.study("s")
    for number, values in enumerate(FOUND):
        add(study, values, params_of(number), "complete", start=60.0 * number)
        lab.run("s", number, values, NAMED)
    ranked = select.candidates(study, 2)
    assert ranked == [1, 0]
    runs = [(number, seed, (95.0 + 10 * number + seed, 0.5)) for number in ranked for seed in (1, 2)]
    again = lab.study("s.confirm")
    for i, (number, seed, values) in enumerate(runs):
        add(again, values, {}, "complete", start=300 + 60 * i, confirms=number, seed=seed)
        lab.run("s", f"confirm/{i}", values, NAMED)
        lab.judge("s", f"confirm/{i}", 200.0 + number + seed)
    confirmation.compare(study, runs, NAMED, ("minimize", "maximize")).write(lab.sweeps / "s")
    for number, fid in ((0, 210.0), (1, 220.0), (3, 260.0)):
        lab.judge("s", number, fid, recall=0.125 * (number + 1), coverage=0.5)
    return lab


def story(lab: Lab, name: str = "s") -> ReportData:
    return collect(lab.sweeps / name, lab.outputs / name, lab.ready, plotly=False)


def test_every_judged_run_is_in_the_chart_and_the_winner_is_marked(judged: Lab) -> None:
    told = story(judged)
    assert told.second is not None
    [plot] = told.charts.judged()
    assert plot is not None
    marks = {m.text.partition(":")[0]: (m.role, m.winner) for m in plot.marks}
    assert marks == {
        "trial 0": ("front", True), "trial 1": ("front", False), "trial 3": ("finished", False),
        **{f"trial {n} under seed {s}": ("confirmation", False) for n in (0, 1) for s in (1, 2)},
    }  # fmt: skip
    own = {m.trial: (m.x, m.y) for m in plot.marks if m.role != "confirmation"}
    assert own[1][0] < own[0][0] < own[3][0]  # by FID
    assert own[3][1] < own[1][1] < own[0][1]  # by the judge, who is better below
    assert plot.y_title == "judge/fid (dinov2) ↓ better"


def test_the_table_has_both_scores_of_the_pareto_set_and_of_what_was_confirmed_and_of_photos(judged: Lab) -> None:
    told = story(judged).second
    assert told is not None
    assert told.columns == (
        "val/fid (efficientnet_lite0) ↓", "val/recall ↑", "val/coverage ↑", "judge/fid (dinov2) ↓",
        "judge/copied (dinov2)",
    )  # fmt: skip
    rows = {row.trial: (row.role, row.cells[0], row.cells[1], row.cells[3]) for row in told.rows}
    assert rows == {
        0: ("winner", ("100", "96.5 ± 0.71"), ("0.125", ""), ("210", "201.5 ± 0.71")),
        1: ("Pareto-optimal", ("90", "106.5 ± 0.71"), ("0.25", ""), ("220", "202.5 ± 0.71")),
        2: ("Pareto-optimal", ("120", ""), ("", ""), ("", "")),
    }
    assert told.photos == ("5.5", "", "", "42.5", "")


def test_confirmed_trials_are_shown_under_every_seed(judged: Lab) -> None:
    told = story(judged).second
    assert told is not None
    assert {trial: [one.seed for one in runs] for trial, runs in told.seeds.items()} == {
        0: [None, 1, 2],
        1: [None, 1, 2],
    }
    assert all(one.images.shape == (16, 32, 32, 3) for runs in told.seeds.values() for one in runs)
    assert told.seeds[1][2].words == "val/fid (efficientnet_lite0) 107, judge/fid (dinov2) 203"


def test_both_reports_tell_it(judged: Lab) -> None:
    told, folder = story(judged), judged.sweeps / "s"
    page = html.unescape(re.sub(r"<[^>]*>", "", Report(told, folder).html()))
    text = Report(told, folder).write_markdown().read_text()
    wanted = (
        "The judge (dinov2) likes it best: judge/fid (dinov2) 201.5 ± 0.71 over 2 seeds, the lowest of 2 judged trials"
    )
    for words in (wanted, "Over 7 judged runs", "Kendall's tau"):
        assert words in page
        assert words in text
    assert "real photos" in page
    assert "| real photos in their place | 5.5 |  |  | 42.5 |  |" in text
    assert {"second_opinion.svg", "seeds_0.png", "seeds_1.png"} < {one.name for one in (folder / "report").iterdir()}
    assert "![Trial 0, from left to right: the search, seed 1, seed 2](report/seeds_0.png)" in text


def test_recall_coverage_and_the_judge_are_columns_of_all_tables(judged: Lab) -> None:
    told, folder = story(judged), judged.sweeps / "s"
    page = Report(told, folder).html()
    [row] = re.findall(r'<tr id="trial-3".*?</tr>', page, re.DOTALL)
    assert re.findall(r'class="score" data-k="(.*?)" data-v="(.*?)"', row)[2:] == [
        ("val/recall", "0.5"), ("val/coverage", "0.5"), ("judge/fid (dinov2)", "260.0"),
    ]  # fmt: skip
    text = Report(told, folder).write_markdown().read_text()
    assert "| trial | val/fid (efficientnet\\_lite0) | val/ssim | judge/fid (dinov2) ↓ | seeds |" in text
    assert "| val/recall | val/coverage | judge/fid (dinov2) | time | parameters |" in text


def test_without_a_judge_one_line_says_how_to_ask_it_and_nothing_else_changes(lab: Lab) -> None:
    add(lab.study("s"), FOUND[0], params_of(0), "complete")
    lab.run("s", 0, FOUND[0], NAMED)
    told, folder = story(lab), lab.sweeps / "s"
    assert told.second is not None
    assert (told.charts.judged(), told.second.rows, told.second.seeds) == ([], (), {})
    page, text = Report(told, folder).html(), Report(told, folder).write_markdown().read_text()
    for said in (page, text):
        assert said.count("make judge") == 1
        assert "judge/" not in said
        assert "recall" not in said


def test_runs_that_another_judge_has_seen_are_not_compared(judged: Lab) -> None:
    judged.judge("s", 3, 1.0, judge="clip")
    told = story(judged)
    assert 3 not in {m.trial for m in told.charts.judged()[0].marks}
    assert "clip" not in Report(told, judged.sweeps / "s").html()


@pytest.mark.security
def test_a_strangers_judge_adds_nothing_to_the_page_but_its_words(lab: Lab) -> None:
    def page(name: str, judge: str) -> tuple[Seen, Path]:
        add(lab.study(name), FOUND[0], params_of(0), "complete")
        lab.run(name, 0, FOUND[0], NAMED)
        lab.judge(name, 0, 99.0, judge=judge)
        told, folder = story(lab, name), lab.sweeps / name
        return Seen(Report(told, folder).html()), Report(told, folder).write_markdown()

    (wanted, _), (seen, text) = page("harmless", "word"), page("hostile", HOSTILE.replace("\ud800", ""))
    assert [tag for tag in seen.tags if tag != "wbr"] == [tag for tag in wanted.tags if tag != "wbr"]
    assert "<b" not in text.read_text()
