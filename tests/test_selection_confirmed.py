"""The winner under other seeds as the best model, and when a confirmation counts no more."""

import json
from dataclasses import replace

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution

from catsweep.export import choice
from steady.confirm import confirmation
from steady.printing import plain

VALUES = [(50.0, 0.9), (40.0, 0.2), (42.0, 0.8), (60.0, 0.7)]  # trial 3 is dominated
DIRECTIONS = ("minimize", "maximize")
NAMES = ("val/fid", "val/ssim")
RUNS = [  # the search's best, trial 1, was lucky; trial 2 is a little before trial 0
    *((1, seed, (fid, 0.2)) for seed, fid in ((1, 70.0), (2, 72.0), (3, 71.0))),
    *((2, seed, (fid, 0.8)) for seed, fid in ((1, 44.0), (2, 46.0), (3, 45.0))),
    *((0, seed, (fid, 0.9)) for seed, fid in ((1, 47.0), (2, 45.0), (3, 46.0))),
]


@pytest.fixture
def cfg(sweep):
    return OmegaConf.create(
        {
            "study": "s",
            "select": "fid",
            "sweeps": str(sweep.sweeps),
            "outputs": str(sweep.outputs),
            "out": str(sweep.outputs / "best_model"),
        }
    )


@pytest.fixture
def study(sweep):
    sweep.with_runs("s", VALUES)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{sweep.sweeps / 's' / 'study.db'}")
    confirmation.compare(study, RUNS, NAMES, DIRECTIONS).write(sweep.sweeps / "s")
    return study


def add(sweep, study, values, number, **more) -> None:
    space: dict[str, BaseDistribution] = {"optimizer.lr": optuna.distributions.FloatDistribution(0, 1)}
    params = {"optimizer.lr": 1 / (number + 3)}
    study.add_trial(optuna.trial.create_trial(values=values, params=params, distributions=space, **more))
    sweep.run("s", number, values)


def chosen(cfg) -> dict:
    return json.loads((choice.run(cfg) / "choice.json").read_text())


@pytest.mark.parametrize("select", ["fid", "val/fid", "fi"])
def test_the_confirmed_winner_is_copied_and_explained(sweep, study, cfg, capsys, select) -> None:
    cfg.select = select
    choice = chosen(cfg)
    target = sweep.outputs / "best_model"
    assert choice["trial"] == 2
    copied, own = (place / "checkpoints" / "best.ckpt" for place in (target, sweep.outputs / "s" / "2"))
    assert copied.read_bytes() == own.read_bytes()
    assert choice["values"] == {"val/fid": 42.0, "val/ssim": 0.8}  # its own, of the search
    reason = (
        "the lowest mean val/fid under other seeds, 45 ± 1 over 3 other seeds (1, 2, 3), 42 in the search; "
        "it is not significantly different from trial 0"
    )
    assert choice["selected_by"] == reason
    assert choice["confirmation"] == json.loads((sweep.sweeps / "s" / "confirmation.json").read_text())
    assert "remark" not in choice
    assert choice["seeds"]["spread"] == {"val/fid": 1.0, "val/ssim": 0.0}
    printed = capsys.readouterr().out
    for text in (printed, (target / "choice.md").read_text()):
        assert f"Trial 2 of study s: {reason}. Of 4 finished trials, 3 are Pareto-optimal." in text
    assert "45 ± 1" in printed.replace(reason, "")  # in the table


@pytest.mark.parametrize(("select", "trial"), [("ssim", 0), ("knee", 2), (1, 1)])
def test_other_rules_do_not_follow_it_but_tell_of_it(sweep, study, cfg, capsys, select, trial) -> None:
    cfg.select = select
    choice = chosen(cfg)
    assert choice["trial"] == trial
    assert not {"confirmation", "remark"} & choice.keys()  # it rests on none
    assert choice["seeds"]["known"]
    assert (choice["seeds"]["seeds"], choice["seeds"]["winner"]) == ([1, 2, 3], 2)
    printed, page = capsys.readouterr().out, (sweep.outputs / "best_model" / "choice.md").read_text()
    assert "val/fid under other seeds" in printed  # the table
    assert choice["seeds"]["sentence"] in printed
    assert choice["seeds"]["sentence"] in page
    assert "| 2 | 45 ± 1 | 42 |" in page.replace("**", "")


def test_without_one_it_is_the_best_of_the_search(sweep, study, cfg) -> None:
    (sweep.sweeps / "s" / "confirmation.json").unlink()
    choice = chosen(cfg)
    assert (choice["trial"], choice["selected_by"]) == (1, "the lowest val/fid")
    assert not {"confirmation", "remark"} & choice.keys()


def ignored(sweep, cfg, capsys, why: str, trial: int = 1) -> None:
    choice = chosen(cfg)
    assert choice["trial"] == trial
    assert "confirmation" not in choice
    assert choice["remark"].startswith("Its confirmation is ignored: ")
    assert why in choice["remark"]
    assert "hydra.sweeper.confirm" in choice["remark"]
    assert plain(choice["remark"]) in (sweep.outputs / "best_model" / "choice.md").read_text()
    assert why in capsys.readouterr().out


def test_better_trials_since_then_make_it_stale(sweep, study, cfg, capsys) -> None:
    add(sweep, study, (39.0, 0.3), 4)
    ignored(sweep, cfg, capsys, "trial 4 came later, and is better than some it compares", trial=4)


def test_a_trial_between_the_candidates_makes_it_stale(sweep, study, cfg, capsys) -> None:
    add(sweep, study, (45.0, 0.85), 4)
    ignored(sweep, cfg, capsys, "trial 4 came later")


def test_worse_infeasible_and_repeated_trials_since_then_do_not(sweep, study, cfg) -> None:
    add(sweep, study, (70.0, 0.1), 4)
    add(sweep, study, (1.0, 0.99), 5, constraints={"memory": 1.0})
    study.add_trial(study.trials[1])  # the values of a repeated configuration, reused
    assert chosen(cfg)["trial"] == 2


def test_a_candidate_whose_runs_all_failed_does_not(sweep, study, cfg) -> None:
    runs = [run for run in RUNS if run[0] != 2]
    confirmation.compare(study, runs, NAMES, DIRECTIONS).write(sweep.sweeps / "s")
    assert chosen(cfg)["trial"] == 0


def test_other_values_make_it_stale(sweep, study, cfg, capsys) -> None:
    found = confirmation.read(sweep.sweeps / "s")
    assert found is not None
    changed = [replace(one, searched=(one.searched[0] + 1, one.searched[1])) for one in found.candidates[1:]]
    replace(found, candidates=(found.candidates[0], *changed)).write(sweep.sweeps / "s")
    ignored(sweep, cfg, capsys, "the study has other values for trials 0 and 1")


def test_a_trial_that_is_not_there_makes_it_stale(sweep, study, cfg, capsys) -> None:
    found = confirmation.read(sweep.sweeps / "s")
    assert found is not None
    replace(found, candidates=(replace(found.winner, trial=9), *found.candidates[1:])).write(sweep.sweeps / "s")
    ignored(sweep, cfg, capsys, "the study has other values for trial 9")


def test_other_objectives_make_it_stale(sweep, study, cfg, capsys) -> None:
    found = confirmation.read(sweep.sweeps / "s")
    assert found is not None
    replace(found, directions=("maximize", "maximize")).write(sweep.sweeps / "s")
    ignored(sweep, cfg, capsys, "the study has other objectives")


def test_an_infeasible_candidate_makes_it_stale(sweep, study, cfg, capsys) -> None:
    add(sweep, study, (43.0, 0.1), 4, constraints={"memory": 1.0})
    found = confirmation.read(sweep.sweeps / "s")
    assert found is not None
    extra = replace(found.winner, trial=4, searched=(43.0, 0.1))
    replace(found, candidates=(extra, *found.candidates)).write(sweep.sweeps / "s")
    ignored(sweep, cfg, capsys, "no candidates any more")


def test_an_ignored_one_is_remarked_on_whatever_is_asked_for(sweep, study, cfg, capsys) -> None:
    add(sweep, study, (39.0, 0.3), 4)
    cfg.select = "ssim"
    ignored(sweep, cfg, capsys, "trial 4 came later", trial=0)
    assert "not known" in chosen(cfg)["seeds"]["sentence"]


def test_a_damaged_file_is_ignored_with_a_remark(sweep, study, cfg, capsys) -> None:
    (sweep.sweeps / "s" / "confirmation.json").write_text('{"winner": 2')
    ignored(sweep, cfg, capsys, "cannot be read")


def test_of_an_objective_to_be_high_the_highest_mean_wins(sweep, cfg) -> None:
    study = sweep.study("s", [(0.9,), (0.8,)], directions=["maximize"], names=["val/ssim"])
    for number, value in enumerate((0.9, 0.8)):
        sweep.run("s", number, (value,), ["val/ssim"])
    runs = [(0, 1, (0.5,)), (1, 1, (0.7,))]
    confirmation.compare(study, runs, ["val/ssim"], ["maximize"]).write(sweep.sweeps / "s")
    cfg.select = "ssim"
    assert chosen(cfg)["selected_by"] == (
        "the highest mean val/ssim under other seeds, 0.7 over 1 other seed (1), 0.8 in the search; "
        "it is not significantly different from trial 0"
    )
