import json
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial
from tests.report.studies import BEGIN, CARD_OF_FID, HOSTILE, SPACE, Lab, add, params_of

from catsweep.study_record import LEAST, Entry, StudyRecord, failures, first_line, importances, read
from steady.study import meta
from steady.study.select import Objective


@pytest.fixture
def lab(tmp_path: Path, empty_database: Path) -> Lab:
    return Lab(tmp_path, empty_database)


def test_a_record_holds_what_a_page_needs(lab: Lab) -> None:
    study = lab.study("cats")
    add(study, (200.0, 0.4), params_of(0), "complete", slot=1, seconds=90)
    run = lab.run("cats", 0, (200.0, 0.4), ("val/fid", "val/ssim"))
    record = read(study, run.parent)
    assert record.objectives == (Objective("val/fid", False), Objective("val/ssim", True))
    assert record.labels == ["val/fid (efficientnet_lite0)", "val/ssim"]
    [trial] = record.trials
    assert (trial.state, trial.role, trial.values, trial.seconds) == ("finished", "finished", (200.0, 0.4), 90.0)
    assert (trial.attempts[0].slot, trial.attempts[0].start) == (1, BEGIN)
    assert trial.run == run
    assert record.total == 9
    assert record.commit == "c0ffee" * 6 + "abcd"
    assert record.cards["val/kid"]["metric"] == "kid"
    assert record.cards["val/fid"] == CARD_OF_FID


@pytest.mark.parametrize(
    ("ended", "kind", "state", "role"),
    [
        (TrialState.PRUNED, "pruned", "pruned", "pruned"),
        (TrialState.PRUNED, "out of memory", "out of memory", "failed"),
        (TrialState.PRUNED, "diverged", "diverged", "failed"),
        (TrialState.FAIL, "failed", "failed", "failed"),
        (TrialState.FAIL, "lost", "lost", "failed"),
        (TrialState.WAITING, "interrupted", "interrupted", "waiting"),
        (TrialState.RUNNING, "", "running", "running"),
    ],
)
def test_each_end_has_its_word_and_its_role(lab: Lab, ended: TrialState, kind: str, state: str, role: str) -> None:
    study = lab.study("cats")
    add(study, ended, params_of(0), kind)
    [trial] = read(study, lab.outputs / "cats").trials
    assert (trial.state, trial.role, trial.values, trial.scored) == (state, role, None, False)


def test_infinite_scores_are_kept_and_not_drawn(lab: Lab) -> None:
    study = lab.study("cats")
    add(study, (float("inf"), 0.4), params_of(0), "complete")
    [trial] = read(study, lab.outputs / "cats").trials
    assert trial.values == (float("inf"), 0.4)
    assert not trial.scored


def test_a_running_trial_is_where_its_own_files_say(lab: Lab) -> None:
    study = lab.study("cats")
    for _ in range(2):
        add(study, TrialState.RUNNING, params_of(0), slot=-1)
    run = lab.outputs / "cats/0"
    run.mkdir(parents=True)
    (run / "provenance.json").write_text(json.dumps({"started": "2026-11-26T10:54:29+00:00"}))
    (run / "progress.json").write_text(json.dumps({"updated": 1795690562.5}))
    begun, drawn_ahead = read(study, run.parent).trials
    assert [(a.start, a.end, a.open) for a in begun.attempts] == [(1795690469.0, 1795690562.5, True)]
    assert drawn_ahead.attempts == ()
    ended = [{"slot": 0, "start": 1795690469.0, "end": 1795690600.0}]  # at a rung; promoted, it waits in a queue
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.RUNS, ended)
    waits = read(study, run.parent).trials[0]
    assert [(a.start, a.end, a.open) for a in waits.attempts] == [(1795690469.0, 1795690600.0, False)]


def test_a_run_is_where_the_study_says(lab: Lab) -> None:
    study = lab.study("cats")
    add(study, (200.0, 0.4), params_of(0), "complete", folder="lr=0.1")
    add(study, TrialState.FAIL, params_of(1), "failed", folder="lr=0.2")
    again = lab.study("cats.confirm")
    add(again, (2.0, 1.0), {}, "complete", confirms=0, seed=5, folder="confirm/0_0")
    run = lab.run("cats", 0, (200.0, 0.4), ("val/fid", "val/ssim"))
    moved = run.rename(run.with_name("lr=0.1"))
    for name in ("0", "1", "lr=0.2", "confirm/0_0"):
        (lab.outputs / "cats" / name).mkdir(parents=True)
    record = read(study, lab.outputs / "cats")
    assert [trial.run for trial in record.trials] == [moved, lab.outputs / "cats/lr=0.2"]
    assert [trial.run for trial in record.confirmations] == [lab.outputs / "cats/confirm/0_0"]


@pytest.mark.parametrize(
    "damage",
    [
        "{", "[]", '"x"', "", '{"started": 7}', '{"started": "yesterday"}', "[" * 100_000, '{"updated": "now"}',
        '{"cards": [1]}', '{"cards": "abc"}', '{"cards": {"val/fid": "abc"}}', '{"git": [1]}', '{"command": 3}',
        '{"cards": {"val/fid": {"reference_size": {"a": 1}}}}',
    ],
    ids=lambda damage: damage[:40],
)  # fmt: skip
def test_damaged_documents_are_as_good_as_none(lab: Lab, damage: str) -> None:
    study = lab.study("cats")
    add(study, TrialState.RUNNING, params_of(0), slot=-1)
    run = lab.outputs / "cats/0"
    run.mkdir(parents=True)
    for name in ("provenance.json", "progress.json", "metrics.json", "config.yaml"):
        (run / name).write_text(damage)
    record = read(study, run.parent)
    assert record.trials[0].attempts == ()
    assert record.command is None
    assert record.cards == record.contract["facts"]["cards"]


def test_texts_of_a_study_are_made_safe_for_files(lab: Lab) -> None:
    study = lab.study("cats")
    add(study, TrialState.FAIL, params_of(2), "failed", message=HOSTILE, traceback=HOSTILE)
    [trial] = read(study, lab.outputs / "cats").trials
    assert trial.message.endswith("\\ud800")
    assert trial.traceback == trial.message


def test_confirmation_runs_are_read_beside_the_search(lab: Lab) -> None:
    study, again = lab.study("cats"), lab.study("cats.confirm")
    add(study, (1.0, 1.0), params_of(0), "complete")
    add(again, (2.0, 1.0), {}, "complete", confirms=0, seed=5)
    record = read(study, lab.outputs / "cats")
    assert [(run.confirms, run.seed, run.values) for run in record.confirmations] == [(0, 5, (2.0, 1.0))]


def test_a_study_of_another_tool_has_names_lanes_and_no_contract() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
    record = read(study, Path("nowhere"))
    assert [objective.name for objective in record.objectives] == ["value 0", "value 1"]
    assert all(trial.attempts[0].slot is None for trial in record.trials)
    assert (record.total, record.command, record.commit, dict(record.contract)) == (None, None, None, {})


def test_parameters_come_in_the_order_of_the_space(lab: Lab) -> None:
    study = lab.study("cats")
    add(study, (1.0, 1.0), params_of(0), "complete")
    add(study, (1.0, 1.0), params_of(1), "complete")  # the conditional one comes last
    assert list(read(study, lab.outputs).distributions) == list(SPACE)


@pytest.mark.security
@pytest.mark.parametrize("ended", [TrialState.COMPLETE, TrialState.FAIL])
def test_a_run_that_a_study_names_elsewhere_is_not_looked_at(lab: Lab, ended: TrialState) -> None:
    """Its pictures and records would be in a report that is shown to others."""
    other = lab.run("other", 0, (200.0, 0.4), ("val/fid", "val/ssim"))
    (lab.outputs / "cats").mkdir(parents=True)
    study = lab.study("cats")
    values = (200.0, 0.4) if ended == TrialState.COMPLETE else None
    for folder in ("../other/0", str(other)):
        study.add_trial(create_trial(state=ended, values=values, user_attrs={meta.FOLDER: folder}))
    assert [trial.run for trial in read(study, lab.outputs / "cats").trials] == [None, None]


def failed(number: int, state: str, message: str, traceback: str = "", **more: Any) -> Entry:
    return Entry(number, state, "failed", None, {}, (), None, message, traceback, **more)


def test_failures_that_are_the_same_are_told_of_once_with_one_traceback() -> None:
    trials = (
        failed(1, "failed", "ValueError: no\nmore of it"),
        failed(2, "out of memory", "MemoryError"),
        failed(4, "failed", "ValueError: no", "first traceback"),
        failed(5, "failed", "ValueError: no", "second traceback"),
        Entry(6, "pruned", "pruned", None, {}, (), None, "given up"),
    )
    again = (failed(0, "failed", "", confirms=3, seed=8),)
    found = failures(StudyRecord("cats", (Objective("fid", False),), trials, (), again))
    assert [(f.kind, f.message, f.trials, f.traceback) for f in found] == [
        ("failed", "ValueError: no", ("1", "4", "5"), "first traceback"),
        ("failed", "no message", ("3 under seed 8",), ""),
        ("out of memory", "MemoryError", ("2",), ""),
    ]


def test_no_text_has_no_first_line() -> None:
    assert [first_line(""), first_line("a\nb")] == ["", "a"]


def scored(n: int, score: str = "x") -> optuna.Study:
    """`x` decides, `y` does not; the second objective is the first turned round."""
    made = optuna.create_study(directions=["minimize", "maximize"])
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    for i in range(n):
        params = {"x": i / n, "y": (i * 7 % n) / n}
        value = {"x": params["x"], "same": 1.0, "inf": math.inf}[score]
        made.add_trial(create_trial(values=[value, -value], params=params, distributions=space))
    return made


def test_the_parameter_that_decides_comes_first_for_either_direction() -> None:
    for place, one in enumerate(importances(scored(60))):
        assert one.objective == place
        assert next(iter(one.shares)) == "x"
        assert one.shares["x"] > 0.7
        assert sum(one.shares.values()) == pytest.approx(1)
        assert one.note == "Where the best 6 of 60 finished trials lie, against all of them."


def test_few_trials_give_a_hint_and_say_so() -> None:
    [first, _] = importances(scored(8))
    assert first.shares
    assert first.note.startswith("Where the best 4 of 8 finished trials lie")
    assert "hint" in first.note


@pytest.mark.parametrize("n", range(LEAST))
def test_too_few_trials_give_nothing_and_say_so(n: int) -> None:
    [first, _] = importances(scored(n))
    assert first.shares == {}
    assert first.note == f"It takes at least {LEAST} finished trials to compare; there are {n}."


def test_equal_scores_tell_nothing() -> None:
    assert importances(scored(20, "same"))[0].note == "All finished trials have the same score."


def test_infinite_and_pruned_ones_do_not_count() -> None:
    made = scored(20, "inf")
    made.add_trial(create_trial(state=TrialState.PRUNED))
    assert "there are 0" in importances(made)[0].note


def test_of_changed_choices_and_intervals_charts_have_all(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    study = lab.study("changed")
    for _ in range(2):
        study.add_trial(create_trial(values=[1.0, 0.5]))
    trials = study.trials  # Optuna itself adds no trial of other choices
    drawn: tuple[Any, Any] = (([1, "a", "b"], 1e-4, 0.1), (["c", "a", True], 1e-3, 1.0))
    for trial, (choices, low, high) in zip(trials, drawn, strict=True):
        trial.distributions = {"y": CategoricalDistribution(choices), "lr": FloatDistribution(low, high, log=True)}
        trial.params = {"y": "a", "lr": low}
    monkeypatch.setattr(study, "get_trials", lambda **_: trials)
    found = read(study, lab.outputs / "changed").distributions
    assert found["lr"] == FloatDistribution(1e-4, 1.0, log=True)
    assert isinstance(found["y"], CategoricalDistribution)
    assert list(map(repr, found["y"].choices)) == ["'c'", "'a'", "True", "1", "'b'"]
