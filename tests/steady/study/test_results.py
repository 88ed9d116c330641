import csv
import datetime as dt
import io
import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial
from rich.console import Console
from rich.table import Table

from catsweep.metrics.judge import EXTRA, Judged
from catsweep.metrics.scores import MetricCard
from steady.study import meta, results
from steady.study.failures import Kind
from steady.study.results import print_table, summary, write_leaderboard, write_results
from steady.study.select import ranked

SPACE: dict[str, BaseDistribution] = {
    "width": CategoricalDistribution(["narrow", "wide"]),
    "optimizer.lr": FloatDistribution(1e-5, 1.0, log=True),
    "policy": CategoricalDistribution(["[color,translation]", "a, \"b\"\nc", None, True]),
}  # fmt: skip
PARAMS = {"width": "wide", "optimizer.lr": 0.00123456}
DONE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL
RUNNING, WAITING = TrialState.RUNNING, TrialState.WAITING
COLUMNS = ["seconds", "attempts", "duplicate_of", "log", "message"]


def trial(
    *values: float,
    state: TrialState = DONE,
    params: dict[str, Any] = PARAMS,
    seconds: float = 90.4,
    broken: float | None = None,
    **attributes: Any,
) -> FrozenTrial:
    made = create_trial(
        state=state, values=values or None, params=params, distributions={name: SPACE[name] for name in params},
        user_attrs={f"steady:{name}": value for name, value in attributes.items()},
        constraints=None if broken is None else {"memory": broken},
    )  # fmt: skip
    made.datetime_start = None if state == WAITING else dt.datetime(2026, 1, 1)
    made.datetime_complete = dt.datetime(2026, 1, 1) + dt.timedelta(seconds=seconds) if state.is_finished() else None
    return made


def study_of(*trials: FrozenTrial, directions: tuple[str, ...] = ("minimize",), name: str = "cats") -> optuna.Study:
    study = optuna.create_study(study_name=name, directions=list(directions))  # type: ignore[arg-type]
    study.add_trials(trials)
    return study


def two(*trials: FrozenTrial) -> optuna.Study:
    return study_of(*trials, directions=("minimize", "maximize"))


@pytest.fixture(autouse=True, scope="module")
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def written(study: optuna.Study, folder: Path) -> Any:
    write_results(study, folder)
    return OmegaConf.to_container(OmegaConf.load(folder / "optimization_results.yaml"))


def board(study: optuna.Study, folder: Path, *objective: str) -> list[list[str]]:
    write_leaderboard(study, folder / "board.csv", objective)
    with (folder / "board.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def printed(study: optuna.Study, *objective: str, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(study, objective, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# --- optimization_results.yaml


def test_the_results_of_one_objective_are_those_of_upstream(tmp_path: Path) -> None:
    study = study_of(trial(3.0), trial(1.5, params={"width": "narrow"}), trial(2.0))
    expected = {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
    assert written(study, tmp_path) == expected == {
        "name": "optuna", "best_params": {"width": "narrow"}, "best_value": 1.5
    }  # fmt: skip


def test_the_results_of_several_objectives_are_those_of_upstream_in_its_order(tmp_path: Path) -> None:
    study = two(trial(3.0, 0.9), trial(4.0, 0.1), trial(1.0, 0.5))
    front = [{"params": trial.params, "values": trial.values} for trial in study.best_trials]
    assert written(study, tmp_path) == {"name": "optuna", "solutions": front}
    assert [one["values"] for one in front] == [[3.0, 0.9], [1.0, 0.5]]


def test_the_files_are_byte_for_byte_what_upstream_saves(tmp_path: Path) -> None:
    study = study_of(trial(1e-7, params={**PARAMS, "policy": None}))
    best = {"name": "optuna", "best_params": study.best_params, "best_value": study.best_value}
    OmegaConf.save(OmegaConf.create(best), tmp_path / "upstream.yaml")
    write_results(study, tmp_path)
    assert (tmp_path / "optimization_results.yaml").read_bytes() == (tmp_path / "upstream.yaml").read_bytes()


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [trial(state=RUNNING), trial(state=WAITING)],
        [trial(state=FAIL), trial(-9.0, state=PRUNED)],
        [trial(1.0, broken=0.5)],
    ],
    ids=["no trial", "none ended", "none finished", "none feasible"],
)
def test_without_a_finished_feasible_trial_there_is_no_best(tmp_path: Path, trials: list[FrozenTrial]) -> None:
    study = study_of(*trials)
    assert written(study, tmp_path) == {"name": "optuna", "best_params": {}, "best_value": None}
    assert "best" not in summary(study, [])


def test_without_a_finished_trial_there_are_no_solutions(tmp_path: Path) -> None:
    for study in (two(), two(trial(state=FAIL)), two(trial(1.0, 1.0, broken=2.0))):
        assert written(study, tmp_path) == {"name": "optuna", "solutions": []}


def test_a_trial_that_violates_a_constraint_is_never_the_best(tmp_path: Path) -> None:
    study = study_of(trial(1.0, broken=0.1), trial(2.0, broken=0.0), trial(3.0))
    assert written(study, tmp_path)["best_value"] == study.best_value == 2.0
    several = two(trial(1.0, 9.0, broken=0.1), trial(2.0, 1.0), trial(3.0, 0.5))
    assert [one["values"] for one in written(several, tmp_path)["solutions"]] == [[2.0, 1.0]]
    assert "*0 " not in printed(several)


def test_the_folder_is_made_and_nothing_else_is_left_in_it(tmp_path: Path) -> None:
    write_results(study_of(trial(1.0)), tmp_path / "a/b")
    write_leaderboard(study_of(trial(1.0)), tmp_path / "a/b/board.csv", [])
    assert {path.name for path in (tmp_path / "a/b").iterdir()} == {"optimization_results.yaml", "board.csv"}


def test_a_reader_never_finds_half_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(study_of(trial(2.0)), tmp_path)

    def full(*_: Any, **__: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_results(study_of(trial(1.0)), tmp_path)
    assert OmegaConf.load(tmp_path / "optimization_results.yaml").best_value == 2.0


def test_of_two_controllers_that_write_at_once_the_newer_content_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = study_of(trial(2.0))
    replace = os.replace

    def while_another_is_faster(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "replace", replace)
        study.add_trial(trial(1.0))
        write_results(study, tmp_path)
        replace(source, target)

    monkeypatch.setattr(os, "replace", while_another_is_faster)
    assert written(study, tmp_path)["best_value"] == 1.0


# --- leaderboard.csv


@pytest.mark.parametrize(("direction", "order"), [("minimize", [2, 0, 1]), ("maximize", [1, 0, 2])])
def test_finished_trials_are_ranked_by_the_first_objective(direction: str, order: list[int]) -> None:
    study = study_of(trial(5.0), trial(9.0), trial(-1.0), directions=(direction,))
    assert [trial.number for trial in ranked(study)] == order


def test_then_come_those_that_violate_a_constraint_and_then_the_others_by_number() -> None:
    study = study_of(
        trial(state=FAIL), trial(float("inf")), trial(-9.0, state=PRUNED), trial(-5.0, broken=1.0), trial(3.0),
        trial(3.0), trial(state=RUNNING),
    )  # fmt: skip
    assert [trial.number for trial in ranked(study)] == [4, 5, 1, 3, 0, 2, 6]


def test_the_leaderboard_has_a_row_per_trial_in_full_precision(tmp_path: Path) -> None:
    study = two(
        trial(1 / 3, 0.5, attempt=1, outcome="complete", runs=[{"slot": 0, "start": 10.0, "end": 15.0},
                                                               {"slot": 1, "start": 20.0, "end": 40.4}]),
        trial(state=FAIL, params={"width": "narrow"}, seconds=3, attempt=0, outcome="failed", message="no: a, b\nc",
              log="out/1/train.log"),
        trial(1 / 3, 0.5, attempt=0, duplicate_of=0, seconds=0),
    )  # fmt: skip
    assert board(study, tmp_path, "val/fid", "val/ssim") == [
        ["trial", "state", "val/fid", "val/ssim", *COLUMNS, "optimizer.lr", "width"],
        ["0", "complete", str(1 / 3), "0.5", "25", "2", "", "", "", "0.00123456", "wide"],
        ["2", "complete", str(1 / 3), "0.5", "0", "1", "0", "", "", "0.00123456", "wide"],
        ["1", "failed", "", "", "3", "1", "", "out/1/train.log", "no: a, b\nc", "", "narrow"],
    ]


def test_the_leaderboard_names_folders_that_are_not_the_numbers(tmp_path: Path) -> None:
    head, *rows = board(study_of(trial(1.0, folder="x0.5"), trial(2.0)), tmp_path)
    assert [row[head.index("folder")] for row in rows] == ["x0.5", "1"]


def test_with_promotion_a_column_has_the_highest_rung_that_was_reached(tmp_path: Path) -> None:
    study = optuna.create_study()
    study.set_user_attr(meta.PROMOTION, {"rungs": [1, 3, 9]})
    for steps in ((), (1, 2, 3, 4)):
        scores = {str(step): {"loss": 0.5} for step in steps}
        study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={meta.RUNGS: scores}))
    study.add_trial(create_trial(value=1.0, user_attrs={meta.RUNGS: {"3": {"loss": 0.5}}}))  # whole
    study.add_trial(create_trial(value=1.0, user_attrs={meta.DUPLICATE_OF: 2}))  # it was never trained
    head, *rows = board(study, tmp_path)
    assert {row[0]: row[2] for row in rows} == {"0": "", "1": "3", "2": "9", "3": ""}
    assert head[2] == "rung"


def run_of(runs: Path, number: int | str, judge: str = "dinov2", **scores: float) -> None:
    """What a trial's folder says of it: scores by their names without what is before the stroke."""
    own = {f"val/{name}": value for name, value in scores.items() if name != "judge_fid"}
    (runs / str(number)).mkdir(parents=True)
    (runs / str(number) / "metrics.json").write_text(json.dumps({"scores": own}))
    if "judge_fid" in scores:
        card = MetricCard("fid", judge, "ab", "none", "float32", "cd", 32, 24, 0)
        Judged({"judge/fid": scores["judge_fid"]}, {"judge/fid": card}, {}, own).write(runs / str(number))


def used(seconds: float, cpu_seconds: float, samples: float = 640, unit: str | None = "seconds") -> dict[str, Any]:
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "samples": samples, "unit": unit}


def test_what_trials_used_has_columns(tmp_path: Path) -> None:
    study = study_of(trial(9.0, usage=used(60, 59.96, 31000)), trial(8.0, usage={"gpu_wall_seconds": 2}), trial(7.0))
    write_leaderboard(study, tmp_path / "board.csv", ["val/fid"])
    head, *rows = csv.reader(io.StringIO((tmp_path / "board.csv").read_text()))
    assert head[3:8] == ["seconds", "cpu_seconds", "gpu_wall_seconds", "samples", "attempts"]
    assert {row[0]: row[4:7] for row in rows} == {"0": ["60.0", "", "31000"], "1": ["", "2", ""], "2": ["", "", ""]}
    console = Console(file=io.StringIO(), width=200)
    print_table(study, ["val/fid"], console)
    said = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "cpu seconds" in said
    assert "31000" in said
    assert "gpu" not in said


@pytest.mark.parametrize(
    ("shares", "unit", "uneven"),
    [
        ([0.9, 0.6, 0.9, 0.9], "seconds", True),
        ([0.9, 0.75, 0.9, 0.9], "seconds", False),
        ([0.9, 0.6, 0.9, 0.9], "samples", False),  # all had as many
        ([0.9, 0.6, 0.9, 0.9], None, False),  # or as many epochs
        ([0.9, 0.3, 0.9], "seconds", False),  # too few to say
        ([0.9] * 7 + [0.3], "seconds", True),  # of a quarter, two here, the mean
        ([0.9] * 15 + [0.3], "seconds", False),  # one is no quarter of sixteen
    ],
)
def test_unequal_shares_of_the_processor_are_told_where_time_is_the_budget(
    shares: list[float], unit: str | None, uneven: bool
) -> None:
    study = study_of(*(trial(9.0, usage=used(100, 100 * share, unit=unit)) for share in shares))
    study.add_trial(trial(state=PRUNED, usage=used(100, 1)))  # as if it had begun beside others, and ended early
    said = results.uneven(study)
    assert bool(said) == uneven
    console = Console(file=io.StringIO(), width=400)
    print_table(study, ["val/fid"], console)
    assert ("0.90 processor seconds a second" in console.file.getvalue()) == uneven  # type: ignore[attr-defined]


@pytest.mark.security
@pytest.mark.parametrize(
    "noted",
    [5, "x", [1], {"cpu_seconds": "9"}, {"cpu_seconds": 10**400}, {"cpu_seconds": True}, {"cpu_seconds": {"a": 1}},
     {"seconds": 0, "cpu_seconds": 1, "unit": "seconds"}, {"seconds": -1, "unit": ["seconds"]}],
)  # fmt: skip
def test_amounts_of_a_strangers_study_are_numbers_or_nothing(noted: Any, tmp_path: Path) -> None:
    study = study_of(*(trial(float(n), usage=noted) for n in range(4)))
    used = results.usage(study.trials[0])
    assert set(used) <= {"seconds", "cpu_seconds"}
    assert all(type(amount) in (int, float) and 0 <= amount < results.MOST for amount in used.values())
    write_leaderboard(study, tmp_path / "board.csv", ["val/fid"])
    assert results.uneven(study) == ""


def test_what_run_folders_say_beside_the_objectives_has_columns(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    run_of(runs, 0, fid=9.0, recall=0.25)
    run_of(runs, "named", fid=8.0, recall=0.5, coverage=0.125, judge_fid=95.5)
    run_of(runs, 4, fid=1.0, judge_fid=40.0)  # of a trial that did not finish
    one = trial(8.0, folder="named")
    study = study_of(trial(9.0), one, trial(7.0), trial(8.0, duplicate_of=1), trial(state=RUNNING))
    write_leaderboard(study, tmp_path / "board.csv", ["val/fid"], runs, EXTRA)
    head, *rows = csv.reader(io.StringIO((tmp_path / "board.csv").read_text()))
    assert head[:7] == ["trial", "state", "val/fid", "val/recall", "val/coverage", "judge/fid", "seconds"]
    assert {row[0]: row[3:6] for row in rows} == {
        "0": ["0.25", "", ""], "1": ["0.5", "0.125", "95.5"], "2": ["", "", ""], "3": ["0.5", "0.125", "95.5"],
        "4": ["", "", ""],
    }  # fmt: skip
    console = Console(file=io.StringIO(), width=200)
    print_table(study, ["val/fid"], console, runs, EXTRA)
    assert "95.5" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "val\nfid" not in _headings(EXTRA.table({0: runs / "0"}, runs, {0}))  # an objective, without a judge
    assert "val\nfid" in _headings(EXTRA.table({1: runs / "named"}, runs, {1}))
    run_of(runs, 2, fid=7.0, judge_fid=12.5)  # judged since
    write_leaderboard(study, tmp_path / "board.csv", ["val/fid"], runs, EXTRA)
    assert "12.5" in (tmp_path / "board.csv").read_text()


def test_a_score_that_is_an_objective_has_one_column(tmp_path: Path) -> None:
    run_of(tmp_path / "runs", 0, recall=0.25)
    write_leaderboard(study_of(trial(0.25)), tmp_path / "board.csv", ["val/recall"], tmp_path / "runs", EXTRA)
    assert (tmp_path / "board.csv").read_text().startswith("trial,state,val/recall,seconds")


@pytest.mark.security
def test_a_strangers_folder_of_a_trial_is_not_looked_at(tmp_path: Path) -> None:
    run_of(tmp_path, "elsewhere", recall=0.25)
    strange: list[dict[str, Any]] = [
        {"folder": "../elsewhere"},
        {"folder": "\0"},
        {"duplicate_of": [1]},
        {"duplicate_of": {"a": 1}},
    ]
    study = study_of(*(trial(1.0, **told) for told in strange))
    write_leaderboard(study, tmp_path / "board.csv", ["val/fid"], tmp_path / "runs", EXTRA)
    assert "recall" not in (tmp_path / "board.csv").read_text()


def test_the_leaderboard_tells_null_and_strings_from_what_they_look_like(tmp_path: Path) -> None:
    values = [None, "null", True, "true", "1", "", "a b", "[a]", "'[a]'"]
    space: dict[str, BaseDistribution] = {"x": CategoricalDistribution([*values, 1])}
    study = study_of(*(create_trial(value=1.0, params={"x": v}, distributions=space) for v in values))
    assert [row[-1] for row in board(study, tmp_path)[1:]] == ["null", "null", "True", "true", *map(str, values[4:])]
    study.set_user_attr("spelling", "exact")  # which studies of earlier versions lack
    told = ["null", "'null'", "True", "'true'", "'1'", "''", "a b", "[a]", "'[a]'"]
    assert [row[-1] for row in board(study, tmp_path)[1:]] == told


def test_a_pruned_trial_has_no_objective_though_optuna_keeps_its_last_score(tmp_path: Path) -> None:
    [head, row] = board(study_of(trial(4.0, state=PRUNED)), tmp_path)
    assert head[:3] == ["trial", "state", "value"]
    assert row[:3] == ["0", "pruned", ""]


@pytest.mark.parametrize(("n", "names"), [(1, ["value"]), (2, ["value 0", "value 1"])])
def test_objectives_without_names_are_called_value(tmp_path: Path, n: int, names: list[str]) -> None:
    study = study_of(trial(*[1.0] * n), directions=("minimize",) * n)
    assert board(study, tmp_path)[0][2 : 2 + n] == names
    assert all(name in printed(study) for name in names)
    assert f"best {', '.join(f'{name} 1' for name in names)} (trial 0)" in summary(study, [])


@pytest.mark.parametrize(
    ("state", "outcome", "word"),
    [
        (DONE, None, "complete"),
        (DONE, "complete", "complete"),
        (PRUNED, "pruned", "pruned"),
        (PRUNED, "out of memory", "out of memory"),
        (PRUNED, "diverged", "diverged"),
        (FAIL, None, "fail"),  # of another tool
        (FAIL, "failed", "failed"),
        (FAIL, "lost", "lost"),
        (FAIL, "complete", "fail"),
        (FAIL, {"not": "ours"}, "fail"),
        (RUNNING, "lost", "running"),  # its second attempt
        (WAITING, None, "waiting"),
        (WAITING, "interrupted", "interrupted"),
        (WAITING, "lost", "lost"),
        (WAITING, "complete", "waiting"),  # the controller died before it could tell
    ],
)
def test_a_state_is_the_outcome_where_that_says_more(state: TrialState, outcome: Any, word: str) -> None:
    told = {} if outcome is None else {"outcome": outcome}
    one = trial(*([1.0] if state == DONE else []), state=state, **told)
    assert results.state(one) == word


def test_a_strange_message_does_not_end_the_sweep(tmp_path: Path) -> None:
    study = study_of(trial(state=FAIL, outcome="failed", message="no file \udcff\x00.png", log="out\udcff.log"))
    assert "no file \\udcff" in board(study, tmp_path)[1][7]
    assert "no file \\udcff" in printed(study)


# --- the table and the line


def test_the_table_marks_the_best_and_says_how_the_others_ended() -> None:
    out = printed(
        two(trial(3.0, 0.9), trial(4.0, 0.1), trial(1.0, 0.51239), trial(state=PRUNED, outcome="out of memory")),
        "val/fid", "val/ssim",
    )  # fmt: skip
    assert "cats: 4 trials, * Pareto-optimal" in out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if line.startswith("│")]
    assert [row[:4] for row in rows] == [
        ["*2", "1", "0.5124", "90"], ["*0", "3", "0.9", "90"], ["1", "4", "0.1", "90"], ["3", "out of memory", "", "90"]
    ]  # fmt: skip
    assert rows[0][4] == "width=wide  lr=0.00123"


def test_of_one_objective_one_trial_is_best() -> None:
    out = printed(study_of(trial(1.0), trial(1.0)))
    assert "* best" in out
    assert out.count("*") == 2


def test_each_distinct_failure_is_told_once_below_the_table() -> None:
    same: dict[str, Any] = {"state": FAIL, "outcome": "failed", "message": "ValueError: no cats\nin here"}
    out = printed(
        study_of(
            trial(state=PRUNED, outcome="pruned", message="at rung 3"),
            trial(**same, log="out/1/train.log"),
            trial(state=PRUNED, outcome="out of memory", message="too wide", log="out/2/train.log"),
            trial(**same, log="out/3/train.log"),
            trial(state=FAIL),
            trial(state=RUNNING, outcome="lost", message="killed by signal 9"),
            trial(1.0),
        )
    )
    assert out[out.rindex("┘") + 1 :].strip().splitlines() == [
        "failed, trials 1 and 3: ValueError: no cats (log: out/1/train.log)",
        "out of memory, trial 2: too wide (log: out/2/train.log)",
        "fail, trial 4: no message",
    ]


def test_nothing_is_taken_for_markup() -> None:
    study = study_of(
        trial(1.0, params={"policy": "[color,translation]"}),
        trial(state=FAIL, outcome="failed", message="[/red] is wrong", log="[bold]"),
        name="[red]cats",
    )
    out = printed(study, "val[0]")
    for words in ("policy=[color,translation]", "[/red] is wrong (log: [bold])", "[red]cats: 2", "val[0]"):
        assert words in out


def test_a_study_without_trials_has_a_table_too() -> None:
    assert "cats: 0 trials" in printed(study_of())


def test_the_summary_is_one_line_in_a_fixed_order() -> None:
    trials = [
        trial(state=FAIL, outcome="failed"), trial(state=RUNNING), trial(state=PRUNED, outcome="out of memory"),
        trial(300.0), trial(209.1891), trial(state=FAIL), trial(state=PRUNED, outcome="pruned"),
        trial(state=PRUNED), trial(1.0, broken=3.0), trial(state=WAITING, outcome="interrupted"),
    ]  # fmt: skip
    assert summary(study_of(*trials), ["val/fid"]) == (
        "10 trials: 3 finished, 2 pruned, 1 out of memory, 2 failed, 1 interrupted, 1 running; "
        "best val/fid 209.2 (trial 4)"
    )
    assert summary(study_of(), ["val/fid"]) == "0 trials"
    assert summary(study_of(trial(state=FAIL)), []) == "1 trial: 1 failed"


def test_the_summary_gives_all_values_of_the_first_of_the_front() -> None:
    study = two(trial(3.0, 0.9), trial(1.0, 0.5))
    assert summary(study, ["fid", "ssim"]) == "2 trials: 2 finished; best fid 1, ssim 0.5 (trial 1)"


def test_seconds_are_those_of_all_attempts_or_of_the_study() -> None:
    runs = [{"slot": 0, "start": 1.0, "end": 2.5}, {"slot": 0, "start": 10.0, "end": 12.0}]
    assert results.seconds(trial(1.0, runs=runs)) == 3.5
    assert results.seconds(trial(1.0, seconds=7.0)) == 7.0
    assert results.seconds(trial(state=RUNNING)) is None


# --- any study


def any_trial(n: int) -> st.SearchStrategy[FrozenTrial]:
    def build(state: TrialState, values: list[float], lr: float | None, policy: Any, told: dict[str, Any], broken: Any):
        params = {"policy": policy} if lr is None else {"policy": policy, "optimizer.lr": lr}
        scored = values if state == DONE else values[:1] if state == PRUNED and n == 1 else []
        return trial(*scored, state=state, params=params, broken=broken, **told)

    told = st.fixed_dictionaries(
        {},
        optional={
            "outcome": st.sampled_from([kind.value for kind in Kind]),
            "message": st.text(st.characters()),
            "log": st.text(),
            "attempt": st.integers(0, 5),
            "duplicate_of": st.integers(0, 5),
            "runs": st.just([{"slot": 0, "start": 1.0, "end": 2.5}]),
        },
    )
    numbers = st.lists(st.floats(allow_nan=False), min_size=n, max_size=n)
    return st.builds(
        build, st.sampled_from(list(TrialState)), numbers, st.none() | st.floats(1e-5, 1.0),
        st.sampled_from(["[color,translation]", "a, \"b\"\nc", None, True]), told,
        st.none() | st.floats(-1.0, 1.0),
    )  # fmt: skip


@given(st.integers(1, 3).flatmap(lambda n: st.tuples(st.just(n), st.lists(any_trial(n), max_size=6))))
@settings(max_examples=60, deadline=None)
def test_any_mix_of_trials_writes_files_that_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, mix: tuple[int, list[FrozenTrial]]
) -> None:
    n, trials = mix
    folder = tmp_path_factory.mktemp("any")
    study = study_of(*trials, directions=("minimize", "maximize", "minimize")[:n])
    feasible = [t for t in study.trials if t.state == DONE and not any(v > 0 for v in t.constraints.values())]

    found = written(study, folder)
    assert found["name"] == "optuna"
    if n == 1:
        best = min((t.value for t in feasible), default=None)  # type: ignore[type-var]
        assert found["best_value"] == best
        assert bool(found["best_params"]) == bool(feasible)
    else:
        assert bool(found["solutions"]) == bool(feasible)
        assert all(one["values"] in [t.values for t in feasible] for one in found["solutions"])

    head, *rows = board(study, folder)
    assert sorted(int(row[0]) for row in rows) == list(range(len(trials)))
    assert all(len(row) == len(head) for row in rows)
    for row in rows:
        one = study.trials[int(row[0])]
        assert [float(cell) for cell in row[2 : 2 + n] if cell] == (one.values if one.state == DONE else [])

    assert printed(study, width=40)
    line = summary(study, [])
    assert len(line.splitlines()) == 1
    assert ("; best " in line) == bool(feasible)


@pytest.mark.security
def test_the_leaderboard_holds_no_formula_but_negative_numbers(tmp_path: Path) -> None:
    one = trial(-1.5)
    one.user_attrs = {meta.MESSAGE: "=cmd|' /C calc'!A0"}
    first = dict(zip(*board(study_of(one), tmp_path, "@objective"), strict=True))
    assert first["'@objective"] == "-1.5"
    assert first["message"] == "'=cmd|' /C calc'!A0"


def _headings(table: Table | None) -> str:
    assert table is not None
    return " ".join(str(column.header) for column in table.columns)


def test_paused_trials_are_told_as_such_with_their_rungs(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="cats")
    study.set_user_attr(meta.PROMOTION, {"eta": 3, "rungs": [1, 3, 9], "metrics": ["loss"], "directions": ["minimize"]})
    scores = {"1": {"loss": 0.5}, "3": {"loss": 0.25}}
    noted = {meta.RUNGS: scores, meta.ATTEMPT: 0, meta.PAUSED: {"rung": 3, "attempt": 0}}
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=noted))
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs={**noted, meta.ATTEMPT: 1}))  # promoted, and lost
    write_leaderboard(study, tmp_path / "board.csv", ["loss"])
    rows = [line.split(",")[:3] for line in (tmp_path / "board.csv").read_text().splitlines()]
    assert rows == [["trial", "state", "rung"], ["0", "paused", "3"], ["1", "waiting", "3"]]
    assert summary(study, []) == "2 trials: 1 paused, 1 waiting"
