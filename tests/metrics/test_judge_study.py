"""Whether the judge would have chosen the same trial, in words and as data."""

from collections.abc import Mapping

import pytest
from optuna.trial import TrialState, create_trial
from tests.fake_sweeps import judged_as

from catsweep import selection
from catsweep.metrics.judge import Judged, RunScores, StudyScores
from catsweep.metrics.scores import MetricCard
from catsweep.selection import read_trials
from steady.study import meta

CARD = MetricCard("fid", "dinov2", "ab", "none", "float32", "cd", 32, 24, 0)


def seen(fid: float, by_judge: float, photos: float | None = None) -> RunScores:
    own = {"val/fid": fid}
    reference = {} if photos is None else {"judge/fid": photos}
    return RunScores(own, Judged({"judge/fid": by_judge}, {"judge/fid": CARD}, reference, own))


def of(own: Mapping[int, RunScores], again: Mapping[int, Mapping[int, RunScores]] | None = None) -> StudyScores:
    return StudyScores.of(own, again or {})


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ({}, "What an independent judge says of it is not known: make judge, and the line of the sweep again."),
        (
            {3: RunScores({"val/fid": 1.0})},
            "What an independent judge says of it is not known: make judge, and the line of the sweep again.",
        ),
        ({3: seen(40, 95.25)}, "The judge (dinov2) says judge/fid 95.25, and has seen no other trial."),
        ({3: seen(40, 95.25, 42.5)}, "judge/fid 95.25 (real photos get 42.5), and has seen no other trial."),
        (
            {3: seen(40, 95), 7: seen(41, 99)},
            "The judge (dinov2) likes it best: judge/fid 95, the lowest of 2 judged trials.",
        ),
        ({3: seen(40, 99), 7: seen(41, 95)}, "The judge (dinov2) prefers trial 7: judge/fid 95 against 99."),
        (
            {7: seen(41, 95)},
            "seen trial 7 alone, judge/fid 95. To have trial 3 judged: make judge, and the line of the sweep again.",
        ),
        (
            {3: RunScores(), 7: seen(41, 95), 8: seen(42, 94)},
            "has not seen trial 3; of the 2 trials that it has seen it prefers trial 8, judge/fid 94. "
            "To have trial 3 judged: make judge, and the line of the sweep again.",
        ),
    ],
)
def test_the_judge_agrees_prefers_another_or_was_not_asked(own: Mapping[int, RunScores], wanted: str) -> None:
    assert wanted in of(own).sentence(3)


def test_ranks_are_compared_over_all_judged_runs() -> None:
    found = of({3: seen(40, 95), 7: seen(41, 99)}, {3: {1: seen(42, 101)}})
    assert "Over 3 judged runs, judge/fid and val/fid order them alike to Kendall's tau 1.00" in found.sentence(3)
    assert found.to_dict(3)["rank_agreement"]["tau"] == pytest.approx(1)


def test_confirmed_trials_are_compared_by_their_mean_over_the_same_seeds() -> None:
    own = {3: seen(40, 50), 7: seen(41, 99)}
    again = {3: {1: seen(44, 90), 2: seen(45, 94), 3: seen(46, 0)}, 7: {1: seen(50, 80), 2: seen(52, 84)}}
    found = of(own, again)
    assert found.by_judge() == {7: (80, 84), 3: (90, 94)}
    assert "prefers trial 7: judge/fid 82 ± 2.8 over 2 seeds against 92 ± 2.8 over 2 seeds" in found.sentence(3)
    assert of(own, {3: again[3]}).by_judge() == {3: (50,), 7: (99,)}  # one alone has none to be compared with


def test_it_is_kept_as_data() -> None:
    found = of({3: seen(40, 99, 42.5), 7: seen(41, 95, 42.5)})
    assert found.to_dict(3) == {
        "judge": "dinov2", "prefers": 7, "agrees": False, "judge/fid": {"7": 95, "3": 99},
        "reals": {"judge/fid": 42.5}, "rank_agreement": None, "sentence": found.sentence(3),
    }  # fmt: skip
    assert of({}).to_dict(3) == {}


def test_it_is_read_from_the_folders_of_the_trials_and_of_the_runs_that_confirm(sweep) -> None:
    sweep.with_runs("s", [(50.0, 0.9), (40.0, 0.2), (60.0, 0.1)])
    confirm = sweep.study("s", [], study_name="s.confirm")
    for number, seed in enumerate((1, 2, "x")):  # what a stranger calls a seed is none
        values = (45.0 + number, 0.3)
        noted = {meta.CONFIRMS: 1, meta.SEED: seed}
        confirm.add_trial(create_trial(values=values, user_attrs=noted))
        judged_as(sweep.run("s", f"confirm/{number}", values), 90.0 + number)
    confirm.add_trial(create_trial(state=TrialState.FAIL, user_attrs={meta.CONFIRMS: 1, meta.SEED: 3}))
    judged_as(sweep.outputs / "s/1", 95.0)
    judged_as(sweep.outputs / "s/2", 99.0)  # dominated, and judged all the same
    runs = sweep.outputs / "s"
    found = selection.read_study_scores(read_trials(sweep.sweeps / "s", runs), runs)
    assert {trial: one.values.get("judge/fid") for trial, one in found.own.items()} == {0: None, 1: 95.0, 2: 99.0}
    assert {t: {s: one.values["judge/fid"] for s, one in runs.items()} for t, runs in found.again.items()} == {
        1: {1: 90.0, 2: 91.0}
    }
