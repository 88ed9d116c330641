import csv
import datetime as dt
import subprocess
import sys

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from catsweep.search.record import LEADERBOARD, StudyRecord, print_table, ranked, write_leaderboard

SPACE = {
    "width": CategoricalDistribution(["narrow", "wide"]),
    "optimizer.lr": FloatDistribution(1e-5, 1.0, log=True),
}
PARAMS = {"width": "wide", "optimizer.lr": 0.00123456}


def trial(values, state=TrialState.COMPLETE, params=PARAMS, seconds=90.4):
    result = create_trial(
        state=state, values=values, params=params, distributions={name: SPACE[name] for name in params}
    )
    result.datetime_start = dt.datetime(2026, 1, 1)
    result.datetime_complete = result.datetime_start + dt.timedelta(seconds=seconds) if state.is_finished() else None
    return result


def study_of(*trials, directions=("minimize", "maximize"), storage=None, name="cats"):
    study = optuna.create_study(directions=directions, storage=storage, study_name=name)
    study.add_trials(trials)
    return study


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return StudyRecord("cats", ["val/fid", "val/ssim"])


def numbers(trials):
    return [trial.number for trial in trials]


@pytest.mark.parametrize(("direction", "order"), [("minimize", [2, 0, 1]), ("maximize", [1, 0, 2])])
def test_finished_trials_are_ranked_by_the_first_objective(direction, order):
    study = study_of(trial([5.0]), trial([9.0]), trial([-1.0]), directions=[direction])
    assert numbers(ranked(study)) == order


def test_unfinished_trials_come_last_by_number_whatever_they_reported():
    pruned = create_trial(state=TrialState.PRUNED, intermediate_values={0: -100.0}, value=-100.0)
    study = study_of(
        trial(None, TrialState.FAIL), trial([float("inf")]), pruned, trial([3.0]), trial(None, TrialState.RUNNING),
        directions=["minimize"],
    )  # fmt: skip
    assert numbers(ranked(study)) == [3, 1, 0, 2, 4]


def test_equal_values_are_ranked_by_number():
    assert numbers(ranked(study_of(trial([1.0]), trial([0.0]), trial([1.0]), directions=["minimize"]))) == [1, 0, 2]


def test_the_leaderboard_has_a_row_per_trial_in_full_precision(tmp_path):
    conditional = {"width": "narrow"}
    study = study_of(trial([1 / 3, 0.5]), trial(None, TrialState.FAIL, conditional, seconds=3))
    write_leaderboard(tmp_path / "board.csv", ranked(study), ["val/fid", "val/ssim"])
    with (tmp_path / "board.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["trial", "state", "val/fid", "val/ssim", "seconds", "optimizer.lr", "width"],
            ["0", "COMPLETE", str(1 / 3), "0.5", "90", "0.00123456", "wide"],
            ["1", "FAIL", "", "", "3", "", "narrow"],
        ]


def test_the_table_stars_the_pareto_front_and_names_the_state_of_the_unfinished(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    study = study_of(trial([1.0, 0.5]), trial([2.0, 0.4]), trial([3.0, 0.6]), trial(None, TrialState.FAIL))
    print_table(study, ranked(study), ["val/fid", "val/ssim"])
    lines = capsys.readouterr().out.splitlines()
    assert "cats: 4 trials" in lines[0]
    rows = [line.split() for line in lines if "lr=0.00123" in line]
    assert [row[1] for row in rows] == ["*0", "1", "*2", "3"]
    assert rows[0][2:] == ["│", "1", "│", "0.5", "│", "90", "│", "width=wide", "lr=0.00123", "│"]
    assert "FAIL" in rows[3]


@pytest.mark.parametrize("objective", [["val/fid"], ["a", "b", "c"]])
def test_the_table_takes_any_number_of_objectives(capsys, monkeypatch, objective):
    monkeypatch.setenv("COLUMNS", "200")
    directions = ["minimize"] * len(objective)
    study = study_of(trial([1.0] * len(objective)), trial(None, TrialState.FAIL), directions=directions)
    print_table(study, ranked(study), objective)
    out = capsys.readouterr().out
    assert all(name in out for name in objective)
    assert "FAIL" in out


def database(record):
    record.folder.mkdir(parents=True)
    return f"sqlite:///{record.folder / 'study.db'}"


def test_a_sweep_begins_with_its_folder(record):
    record.on_multirun_start(OmegaConf.create())
    assert record.folder.is_dir()
    assert record.folder.as_posix() == "sweeps/cats"
    record.on_multirun_start(OmegaConf.create())


def test_an_empty_study_may_be_filled(record):
    study_of(storage=database(record))
    record.on_multirun_start(OmegaConf.create())


def test_a_study_with_trials_is_not_written_over(record, capsys):
    study_of(trial([1.0, 2.0]), storage=database(record))
    with pytest.raises(SystemExit) as exit_:
        record.on_multirun_start(OmegaConf.create())
    assert exit_.value.code == 1
    message = capsys.readouterr().err
    assert "study cats already holds 1 trials" in message
    assert "study=NAME" in message
    record.on_multirun_end(OmegaConf.create())  # Hydra calls it whatever happened
    assert not (record.folder / LEADERBOARD).exists()
    assert capsys.readouterr().out == ""


def test_the_end_of_a_sweep_leaves_leaderboard_names_and_table(record, capsys):
    study_of(trial([2.0, 0.4]), trial([1.0, 0.5]), storage=(storage := database(record)))
    record.on_multirun_end(OmegaConf.create())
    with (record.folder / LEADERBOARD).open(newline="") as file:
        assert [row[:4] for row in csv.reader(file)] == [
            ["trial", "state", "val/fid", "val/ssim"],
            ["1", "COMPLETE", "1.0", "0.5"],
            ["0", "COMPLETE", "2.0", "0.4"],
        ]
    assert optuna.load_study(study_name="cats", storage=storage).metric_names == ["val/fid", "val/ssim"]
    out = capsys.readouterr().out
    assert "cats: 2 trials" in out
    assert "make best-model export STUDY=cats" in out


def test_a_sweep_that_kept_its_study_elsewhere_ends_quietly(record, capsys):
    record.on_multirun_end(OmegaConf.create())
    assert capsys.readouterr().out == ""
    assert not record.folder.exists()


def test_to_import_it_takes_neither_optuna_nor_torch(root):
    code = "import sys; import catsweep.search.record; print({'optuna', 'torch', 'rich'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], cwd=root / "src", capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_a_list_of_choices_is_not_taken_for_markup(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    study = optuna.create_study(directions=["minimize"])
    choices = optuna.distributions.CategoricalDistribution(["[color,translation]"])
    study.add_trial(
        optuna.create_trial(params={"policy": choices.choices[0]}, distributions={"policy": choices}, value=1.0)
    )
    print_table(study, ranked(study), ["val/fid"])
    assert "policy=[color,translation]" in capsys.readouterr().out
