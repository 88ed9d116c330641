"""The sweeper as a user meets it: an app in processes of its own, run to its end, changed and started again."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.artifacts import get_all_artifact_meta
from optuna.distributions import CategoricalDistribution
from tests.steady.conftest import APP
from tests.steady.left import PROMOTION, load, snapshot, states, whole

from steady import resources
from steady.run.study_opener import BEGUN
from steady.study import meta
from steady.study.leases import Leases

Sweep = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_sweep_runs_to_its_end_and_the_same_line_again_says_so(sweep: Sweep, tmp_path: Path) -> None:
    line = [sys.executable, str(APP / "task.py"), "-m"]  # the other tests fork a process that has its imports
    done = subprocess.run(
        line, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 8)
    before = snapshot(tmp_path / "out")
    again = sweep("hydra.sweeper.on_end=builtins.print")
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert "builtins.print failed; the study is complete without it" in again.stdout  # for a judge that came later
    assert {path for path, was in snapshot(tmp_path / "out").items() if before.get(path) != was} <= {
        tmp_path / "out/fake/optimization_results.yaml"
    }


def test_n_trials_is_the_total_and_more_of_them_continue_the_numbers(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=3").returncode == 0
    whole(tmp_path, 3)
    before = snapshot(tmp_path / "out/fake/0")
    assert sweep("hydra.sweeper.n_trials=6").returncode == 0
    whole(tmp_path, 6)
    assert snapshot(tmp_path / "out/fake/0") == before


def test_a_space_that_is_used_up_has_ended_until_it_grows(sweep: Sweep, tmp_path: Path) -> None:
    words = ("x=choice(0.0,0.5)", "hydra.sweeper.preflight=omegaconf.OmegaConf.to_container")
    looked = "Running omegaconf.OmegaConf.to_container before the first trial"
    first, again = sweep("y=choice(a)", *words), sweep("y=choice(a)", *words)
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert looked in first.stdout
    assert looked not in again.stdout
    assert "It has tried every configuration of its space, so there are no more trials." in again.stdout
    more = sweep("y=choice(a,b)", *words, "hydra.sweeper.allow_change=[y]")
    assert more.returncode == 0, more.stderr
    assert looked in more.stdout
    whole(tmp_path, 4)


def test_a_resumed_sweep_draws_what_the_undisturbed_one_draws(sweep: Sweep, tmp_path: Path) -> None:
    one_by_one = ("hydra.sweeper.n_jobs=1",)
    assert sweep(*one_by_one, "hydra.sweeper.n_trials=2").returncode == 0
    assert sweep(*one_by_one, "hydra.sweeper.n_trials=4").returncode == 0
    assert sweep(*one_by_one, "study=other", "hydra.sweeper.n_trials=4").returncode == 0
    drawn = [[trial.params for trial in load(tmp_path, name).trials] for name in ("fake", "other")]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) == 4


def test_optuna_finds_one_study_and_what_an_earlier_version_kept_beside_it_goes(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=2").returncode == 0
    storage = load(tmp_path)._storage
    assert optuna.load_study(study_name=None, storage=storage).study_name == "fake"
    dead = {"name": "controller", "beat": 1, "machine": "elsewhere", "pid": 1, "started": 0.0}
    side = optuna.create_study(study_name="fake.leases", storage=storage)
    side.add_trial(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs=dead))
    assert sweep("hydra.sweeper.n_trials=3").returncode == 0
    whole(tmp_path, 3)
    assert optuna.get_all_study_names(storage) == ["fake"]


def test_another_folder_gets_the_results_too_and_the_runs_stay_in_the_first(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=2").returncode == 0
    for n, total in (("one", 2), ("two", 3)):
        again = sweep(f"hydra.sweeper.n_trials={total}", f"hydra.sweep.dir={n}")
        assert again.returncode == 0, again.stderr
        assert "The study fake (kept in sweeps/fake, its runs in out/fake) goes on there" in again.stdout
        written = (tmp_path / n / "optimization_results.yaml").read_text()
        assert written == (tmp_path / "out/fake/optimization_results.yaml").read_text()
        assert OmegaConf.create(written).best_value == load(tmp_path).best_value
        assert [path.name for path in (tmp_path / n).iterdir()] == ["optimization_results.yaml"]
    whole(tmp_path, 3)
    refused = sweep("hydra.sweep.dir=three", "steps=5")
    assert "its runs in out/fake; this start names three) was begun otherwise" in refused.stderr
    assert "another study with study=NEWNAME" in refused.stderr
    assert not (tmp_path / "three").exists()


def test_a_study_that_goes_on_on_another_machine_says_so_once(sweep: Sweep, tmp_path: Path) -> None:
    line = ("hydra.sweeper.n_trials=1", "hydra.sweeper.storage=sqlite:///s.db", "hydra.sweeper.study_name=s")
    assert "another machine" not in sweep(*line).stdout
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 's.db'}")
    contract = study.user_attrs["contract"]
    assert contract["machines"] == [resources.machine()]
    study.set_user_attr("contract", {**contract, "machines": ["an abacus, 1 core"]})
    again = sweep(*line, "hydra.sweeper.n_trials=2")
    assert again.returncode == 0, again.stderr
    said = f"s was begun on another machine (an abacus, 1 core), and goes on on {resources.machine()}: a trial bound by"
    assert said in again.stdout
    assert study.user_attrs["contract"]["machines"] == ["an abacus, 1 core", resources.machine()]
    assert "another machine" not in sweep(*line, "hydra.sweeper.n_trials=3").stdout


def test_nothing_of_our_own_project_is_said_in_another_app(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=plain")
    assert done.returncode == 0, done.stderr
    assert "optuna-dashboard sqlite:///sweeps/plain/study.db" in done.stdout
    finished = sweep("hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=plain")
    assert "Start another with hydra.sweeper.study_name=NEWNAME." in finished.stdout
    refused = sweep("hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=plain", "steps=5")
    assert "hydra.sweeper.study_name=NEWNAME" in refused.stderr
    for said in (done, finished, refused):
        assert not {"make", "export", "model", "cats", "STUDY=", " study="} & {*(said.stdout + said.stderr).split()}
    hinted = sweep("hydra.sweeper.n_trials=2", "hydra.sweeper.study_name=plain", "hydra.sweeper.next_step='Now rest.'")
    assert hinted.stdout.endswith("Study: sweeps/plain. Now rest.\n")


def test_a_sampler_that_cannot_be_made_is_refused_before_anything_is_written(sweep: Sweep, tmp_path: Path) -> None:
    refused = sweep("hydra.sweeper.sampler._target_=optuna.samplers.NoSampler")
    assert refused.returncode == 1
    assert "The sampler optuna.samplers.NoSampler cannot be made" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_changed_contract_is_refused_with_a_diff_and_touches_nothing(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=3").returncode == 0
    before = snapshot(tmp_path)
    for change, shown in {
        "hydra.sweeper.direction=maximize": "minimize",
        "hydra.sweeper.params.y='choice(a,b)'": "choice(a, b, c)",
        "steps=5": "steps",
    }.items():
        refused = sweep("hydra.sweeper.n_trials=6", change)
        assert refused.returncode == 1, change
        assert shown in refused.stderr
        assert "Traceback" not in refused.stderr
    assert snapshot(tmp_path) == before
    assert states(tmp_path) == ["COMPLETE"] * 3
    allowed = sweep("hydra.sweeper.n_trials=4", "seconds=0.03", "hydra.sweeper.allow_change=[seconds]")
    assert allowed.returncode == 0, allowed.stderr
    whole(tmp_path, 4)


def test_trials_beyond_a_bound_end_early_are_told_and_never_win(sweep: Sweep, tmp_path: Path) -> None:
    line = ("notes=true", 'hydra.sweeper.constraints={size: "<= 0.5"}', "hydra.sweeper.n_trials=8")
    done = sweep(*line)
    assert done.returncode == 0, done.stderr
    study = load(tmp_path)
    for trial in study.trials:
        beyond = abs(trial.params["x"]) > 0.5
        assert trial.state.name == ("PRUNED" if beyond else "COMPLETE")
        assert (tmp_path / f"out/fake/{trial.number}/steps.txt").exists() != beyond
    assert {trial.state.name for trial in study.trials} == {"PRUNED", "COMPLETE"}
    assert abs(study.best_trial.params["x"]) <= 0.5
    assert "infeasible" in done.stdout
    assert "It violates size <= 0.5" in done.stdout
    header, first, *_ = (tmp_path / "sweeps/fake/leaderboard.csv").read_text().splitlines()
    assert header.startswith("trial,state,value,size,seconds")
    assert first.split(",")[1] == "complete"
    refused = sweep(*line[:1], "hydra.sweeper.n_trials=9")
    assert refused.returncode == 1
    assert "constraints.size: <= 0.5 → null  (cannot be accepted" in refused.stderr


def test_a_study_in_which_nothing_is_feasible_says_so(sweep: Sweep, tmp_path: Path) -> None:
    refused = sweep("notes=true", 'hydra.sweeper.constraints={size: ">= 5"}', "hydra.sweeper.n_trials=2")
    assert refused.returncode == 1
    assert "No trial satisfies size >= 5. The nearest is trial " in refused.stderr
    assert "none satisfies size >= 5" in refused.stdout


def test_a_constraint_that_says_nothing_is_refused_before_anything_is_written(sweep: Sweep, tmp_path: Path) -> None:
    refused = sweep("hydra.sweeper.constraints={size: 3}")
    assert refused.returncode == 1
    assert "hydra.sweeper.constraints.size must be" in refused.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_dry_run_prints_and_writes_nothing(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("hydra.sweeper.dry_run=true")
    assert done.returncode == 0, done.stderr
    assert "choice(a, b, c)" in done.stdout
    assert "  4: " in done.stdout
    assert not (tmp_path / "sweeps").exists()


def test_known_good_ones_come_first_and_nothing_is_tried_twice(sweep: Sweep, tmp_path: Path) -> None:
    enqueue = "hydra.sweeper.enqueue=[{x: 0.5, y: c}]"
    done = sweep("hydra.sweeper.baseline=true", enqueue, "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    assert [trial.params for trial in load(tmp_path).trials[:2]] == [{"x": 0.0, "y": "a"}, {"x": 0.5, "y": "c"}]
    small = sweep("study=small", "~hydra.sweeper.params.x")
    assert small.returncode == 0, small.stderr
    assert sorted(trial.params["y"] for trial in load(tmp_path, "small").trials) == ["a", "b", "c"]


def test_more_known_good_ones_than_trials_wait_for_more_trials(sweep: Sweep, tmp_path: Path) -> None:
    enqueue = "hydra.sweeper.enqueue=[{x: 0.5, y: a}, {x: 0.25, y: b}, {x: 0.75, y: c}]"
    for total in (1, 2):
        done = sweep(enqueue, f"hydra.sweeper.n_trials={total}")
        assert done.returncode == 0, done.stderr
        assert [trial.params["x"] for trial in load(tmp_path).trials] == [0.5, 0.25][:total]
        assert states(tmp_path) == ["COMPLETE"] * total
        assert f"{3 - total} of the configurations to try first wait" in done.stdout + done.stderr


def test_what_is_given_wrong_is_told_at_once_before_anything_is_written(sweep: Sweep, tmp_path: Path) -> None:
    wrong = ("hydra.sweeper.enqueue=[{y: bb, zz: 1}, {x: 7}]", "+hydra.sweeper.params.seconsd='choice(1,2)'")
    for more in ((), ("hydra.sweeper.dry_run=true",)):
        refused = sweep(*wrong, *more)
        assert refused.returncode == 1
        assert refused.stderr.splitlines()[-4:] == [
            "ConfigError: enqueue[0]: y must be one of a, b, c (did you mean b?); got 'bb'.",
            "enqueue[0]: there is no parameter zz; searched are x, y, seconsd.",
            "enqueue[1]: x must be a number from -1.0 to 1.0; got 7.",
            "seconsd is searched, and no job can be composed with it: Could not override 'seconsd'. To append to your "
            "config use +seconsd=1 Did you mean seconds?",
        ]
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweeps").exists()


def test_a_bad_trial_that_another_tool_stored_fails_alone(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=1").returncode == 0
    load(tmp_path).enqueue_trial({"y": "bb"})
    load(tmp_path).enqueue_trial({"x": 7, "zz": 1})
    assert sweep("hydra.sweeper.n_trials=4", "hydra.sweeper.enqueue=[{+y: b}]").returncode == 0
    assert states(tmp_path) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    trials = load(tmp_path).trials
    assert trials[1].user_attrs[meta.MESSAGE].startswith("y must be one of a, b, c (did you mean b?)")
    assert "there is no parameter zz" in trials[2].user_attrs[meta.MESSAGE]
    assert trials[3].params["y"] == "b"


def test_a_key_that_is_fixed_in_any_spelling_is_what_jobs_have(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("++x=0.5", "y='c','a'", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    assert "x=0.5 is fixed, so x is not searched" in done.stdout + done.stderr
    study = load(tmp_path)
    assert [sorted(trial.params) for trial in study.trials] == [["y"], ["y"]]
    assert study.user_attrs["contract"]["fixed"]["++x"] == "0.5"
    for trial in study.trials:
        config = OmegaConf.load(tmp_path / f"out/fake/{trial.number}/.hydra/config.yaml")
        assert (config.x, config.y) == (0.5, trial.params["y"])


def test_a_parameter_with_a_condition_is_only_there_when_it_holds(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("+hydra.sweeper.conditions.x='y=b'", "hydra.sweeper.n_trials=9")
    assert done.returncode == 0, done.stderr
    for trial in load(tmp_path).trials:
        assert ("x" in trial.params) == (trial.params["y"] == "b")


def test_the_best_are_confirmed_under_other_seeds_and_show_what_they_made(sweep: Sweep, tmp_path: Path) -> None:
    more = ("+seed=0", "+hydra.sweeper.confirm={top: 2, seeds: 2}", "hydra.sweeper.artifacts=['*.txt']")
    done = sweep(*more, "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    confirmed = json.loads((tmp_path / "sweeps/fake/confirmation.json").read_text())
    study = load(tmp_path)
    assert confirmed["winner"] == study.best_trial.number
    assert f"trial {confirmed['winner']} under seed 2 started\n" in done.stderr + done.stdout
    told = f"Confirmed: trial {confirmed['winner']}, "
    assert done.stdout.index("finished; best ") < done.stdout.index(told)  # the last word on who won
    assert told in sweep(*more, "hydra.sweeper.n_trials=4").stdout
    assert {path.name for path in (tmp_path / "out/fake/confirm").iterdir()} == {"0", "1", "2", "3"}
    runs = optuna.load_study(study_name="fake.confirm", storage=study._storage)
    for trial in (*study.trials, *runs.trials):
        [artifact] = get_all_artifact_meta(trial, storage=study._storage)
        assert artifact.filename == "steps.txt"
        folder = tmp_path / "out/fake" / ("confirm" if trial in runs.trials else "") / str(trial.number)
        kept = tmp_path / "sweeps/fake/artifacts" / artifact.artifact_id
        assert kept.read_text() == (folder / "steps.txt").read_text()
    assert study.user_attrs["command"].endswith("task.py -m " + shlex.join([*more, "hydra.sweeper.n_trials=4"]))


def test_each_trial_works_in_the_folder_that_its_job_composes(sweep: Sweep, tmp_path: Path) -> None:
    """Also the one whose process is lost once, and those whose jobs compose the same."""
    more = ("hydra.sweep.subdir='of_${y}'", "hydra.sweeper.n_trials=5", "fault=once", "faulty=[1]")
    done = sweep(*more, "+seed=0", "+hydra.sweeper.confirm={top: 1, seeds: 1}")
    assert done.returncode == 0, done.stderr
    trials = load(tmp_path).trials
    folders = [trial.user_attrs[meta.FOLDER] for trial in trials]
    assert len(set(folders)) == 5
    assert trials[1].user_attrs[meta.ATTEMPT] == 1
    for trial, folder in zip(trials, folders, strict=True):
        assert folder in (f"of_{trial.params['y']}", f"of_{trial.params['y']}_{trial.number}")
        inside = tmp_path / "out/fake" / folder
        assert {float(line.split()[1]) for line in (inside / "steps.txt").read_text().splitlines()} == {
            trial.params["x"]
        }
        overrides = OmegaConf.load(inside / ".hydra/overrides.yaml")
        assert f"trial.number={trial.number}" in overrides
        assert (inside / "output.log").is_file()
    there = {path.parent for path in (tmp_path / "out/fake").rglob("output.log")}
    assert there == {tmp_path / "out/fake" / name for name in (*folders, "confirm/0")}


def test_results_are_as_upstream_writes_them(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=3").returncode == 0
    best = load(tmp_path).best_trial
    written = OmegaConf.load(tmp_path / "out/fake/optimization_results.yaml")
    assert written == {"name": "optuna", "best_params": best.params, "best_value": best.value}
    assert sweep("hydra.sweeper.n_trials=3", "study=two", "objectives=2",
                 "hydra.sweeper.direction=[minimize,maximize]").returncode == 0  # fmt: skip
    written = OmegaConf.load(tmp_path / "out/two/optimization_results.yaml")
    assert written.solutions == [{"params": t.params, "values": t.values} for t in load(tmp_path, "two").best_trials]


@pytest.mark.parametrize(("launcher", "said"), [("joblib", "launching 1 jobs"), ("submitit_local", "Submitit 'local'")])
def test_other_launchers_run_one_job_per_slot(sweep: Sweep, tmp_path: Path, launcher: str, said: str) -> None:
    done = sweep(f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 2)
    for number in range(2):
        assert said in (tmp_path / f"out/fake/{number}/output.log").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hydra.sweeper.preflight=no.such",), "hydra.sweeper.preflight must be the dotted path of a function; got"),
        (("hydra.sweeper.on_end=os.path",), "hydra.sweeper.on_end must be the dotted path of a function; got"),
        (("hydra.sweeper.confirm={top: 1, seeds: 1}",), "confirm trains under other seeds, so the configuration needs"),
        (("hydra/launcher=slurm", "++hydra.launcher.nodes=2"), "hydra.launcher.nodes must be 1; got 2."),
        (("hydra/launcher=slurm", "hydra.launcher.timeout_min=x"), "hydra.launcher.timeout_min must be a whole number"),
        (("hydra.sweeper.enqueue=x",), "hydra.sweeper.enqueue must be a list of configurations"),
        (("hydra.sweeper.enqueue={x: 1}",), "hydra.sweeper.enqueue must be a list of configurations"),
        (("hydra.sweeper.enqueue=[{x: nan}]",), "enqueue[0]: x must be a number from -1.0 to 1.0; got nan."),
        (("hydra.sweep.subdir='${nosuch}'",), "No trial could have a folder, since hydra.sweep.subdir cannot be"),
        (("hydra.sweep.dir='${nosuch}'",), "Interpolation key 'nosuch' not found"),
        (
            ("hydra.sweeper.pruner={_target_: optuna.pruners.NoSuch}", "hydra.sweeper.prune_metric=x"),
            "hydra.sweeper.pruner: optuna.pruners.NoSuch is not on the whitelist: expected optuna.pruners.",
        ),
        (
            ("hydra.sweeper.pruner={_target_: optuna.pruners.NopPruner, no: 1}", "hydra.sweeper.prune_metric=x"),
            "hydra.sweeper.pruner: optuna.pruners.NopPruner takes no no, which the pruner chosen before it may have.",
        ),
        (
            ("hydra.sweeper.pruner={_target_: optuna.pruners.PercentilePruner}", "hydra.sweeper.prune_metric=x"),
            "hydra.sweeper.pruner cannot be made, or cannot prune with its arguments:",
        ),
    ],
)  # fmt: skip
def test_what_would_fail_later_is_refused_on_one_line_before_anything_is_written(
    sweep: Sweep, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    refused = sweep(*words)
    assert refused.returncode == 1
    told = [line for line in refused.stderr.splitlines() if "Error" in line]
    assert len(told) == 1, refused.stderr
    assert told[0] == refused.stderr.splitlines()[-1]
    assert told[0].startswith(f"ConfigError: {said}")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweeps").exists()


SBATCH = """#!/bin/sh
echo "$@" > asked
echo "sbatch: error: invalid partition specified: gpu" >&2
exit 1
"""


def test_what_slurm_refuses_is_told_before_the_preflight_and_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    words = ("-m", "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "hydra.sweeper.preflight=builtins.print")
    refused = subprocess.run(
        [sys.executable, str(APP / "task.py"), *words], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert refused.returncode == 1
    assert "invalid partition specified: gpu. That came of hydra.launcher.partition=gpu; " in refused.stderr
    assert "Running builtins.print" not in refused.stdout
    assert (tmp_path / "asked").read_text().startswith("--test-only --time=240")
    assert not (tmp_path / "sweeps").exists()


def test_null_enqueues_nothing(sweep: Sweep) -> None:
    done = sweep("hydra.sweeper.enqueue=null", "hydra.sweeper.dry_run=true")
    assert done.returncode == 0, done.stderr


def test_a_task_that_cannot_be_sent_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import threading, hydra\nlock = threading.Lock()\n"
        "@hydra.main(version_base='1.3', config_path=None)\ndef main(cfg):\n    with lock:\n        return 1.0\n"
        "if __name__ == '__main__':\n    main()\n"
    )
    line = [sys.executable, "app.py", "-m", "hydra/sweeper=steady", "hydra.sweep.dir=out", "+x=choice(1,2)"]
    refused = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert refused.returncode == 1
    assert "the task must be such that it can be sent to one" in refused.stderr
    assert not (tmp_path / "out").exists()


def _begun_otherwise(tmp_path: Path, **given: object) -> optuna.Study:
    """A study that a start left behind before its first trial."""
    (tmp_path / "sweeps/fake").mkdir(parents=True)
    url = f"sqlite:///{tmp_path}/sweeps/fake/study.db"
    study = optuna.create_study(study_name="fake", storage=url, **given)  # type: ignore[arg-type]
    frozen = {"directions": [direction.name.lower() for direction in study.directions], "config": {"steps": 9}}
    study.set_user_attr("contract", {**frozen, "objective": None, "space": {"x": "float 0 to 1"}, "fixed": {}})
    study.set_user_attr("sweep_dir", "elsewhere")
    return study


@pytest.mark.parametrize("given", [{}, {"direction": "maximize"}, {"directions": ["minimize", "minimize"]}])
def test_a_study_without_trials_is_begun_anew(sweep: Sweep, tmp_path: Path, given: dict[str, object]) -> None:
    _begun_otherwise(tmp_path, **given)
    done = sweep("hydra.sweeper.n_trials=2")
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 2)
    study = load(tmp_path)
    assert study.direction.name == "MINIMIZE"
    assert study.user_attrs["contract"]["config"]["steps"] == 4
    assert study.user_attrs["sweep_dir"] == "out/fake"


def test_one_that_another_tool_made_is_never_deleted(sweep: Sweep, tmp_path: Path) -> None:
    study = _begun_otherwise(tmp_path, direction="maximize")
    study._storage.delete_study(study._study_id)
    study = optuna.create_study(study_name="fake", storage=study._storage, direction="maximize")
    study.set_user_attr("note", "mine")
    refused = sweep("hydra.sweeper.n_trials=2")
    assert refused.returncode == 1
    assert "was made by another tool, with the directions maximize" in refused.stderr
    assert load(tmp_path).user_attrs == {"note": "mine"}


@pytest.mark.parametrize("given", [{}, {"direction": "maximize"}])
def test_one_whose_first_trial_another_controller_is_about_to_draw_is_not(
    sweep: Sweep, tmp_path: Path, given: dict[str, object]
) -> None:
    study = _begun_otherwise(tmp_path, **given)
    other = Leases(study._storage, "fake")
    other.register()
    assert other.claim(BEGUN)
    refused = sweep("hydra.sweeper.n_trials=2")
    assert refused.returncode == 1
    assert "was begun otherwise" in refused.stderr
    assert load(tmp_path).user_attrs == study.user_attrs
    other.close()
    assert sweep("hydra.sweeper.n_trials=2").returncode == 0


@pytest.mark.security
def test_a_study_of_a_stranger_does_not_choose_where_trials_work(sweep: Sweep, tmp_path: Path) -> None:
    """Its database names a folder of the runs, and folders of trials; both may be any."""
    assert sweep("hydra.sweeper.n_trials=1").returncode == 0
    victim = tmp_path / "victim"
    victim.mkdir()
    study = load(tmp_path)
    study.set_user_attr("sweep_dir", str(victim))
    refused = sweep("hydra.sweeper.n_trials=2")
    assert refused.returncode == 1
    assert f"no sweep of that name has left its note in {victim}" in refused.stderr
    assert f"say so: hydra.sweep.dir={victim}" in refused.stderr
    study.set_user_attr("sweep_dir", "out/fake")
    study.enqueue_trial({}, user_attrs={meta.FOLDER: "../../victim"})
    refused = sweep("hydra.sweeper.n_trials=2")
    assert refused.returncode == 1
    assert "trial 1 works in '../../victim', which is not in out/fake" in refused.stderr
    assert not list(victim.iterdir())


@pytest.mark.security
@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ((), "study=new"),
        (("hydra.sweep.dir=out/fake", "hydra.sweeper.study_name=other"), "hydra.sweep.dir=new"),
        (("hydra.sweep.subdir='x${hydra.job.num}'",), "study=new"),
    ],
)
def test_a_study_without_trials_takes_no_folder_that_another_has_left(
    sweep: Sweep, tmp_path: Path, words: tuple[str, ...], remedy: str
) -> None:
    """Its record is lost, or kept elsewhere: refused once, before anything is written, and the remedies work."""
    left = tmp_path / "out/fake" / ("x0" if "subdir" in str(words) else "0")
    left.mkdir(parents=True)
    (left / "steps.txt").write_text("of another\n")
    line = ("hydra.sweeper.n_trials=1", "steps=1", *words)
    refused = sweep(*line)
    assert refused.returncode == 1
    [said] = [one for one in refused.stderr.splitlines() if "Error" in one]
    assert f"left files: {left.relative_to(tmp_path)}. Begin elsewhere with {remedy.partition('=')[0]}=NEW" in said
    assert not (tmp_path / "sweeps").exists()
    assert (left / "steps.txt").read_text() == "of another\n"
    elsewhere = sweep(*line, remedy, *(["hydra.sweeper.study_name=second"] if "dir=" in remedy else []))
    assert elsewhere.returncode == 0, elsewhere.stderr
    (tmp_path / "out/fake").rename(tmp_path / "away")
    assert sweep(*line).returncode == 0


@pytest.mark.security
@pytest.mark.parametrize("words", [("hydra.sweeper.allow_change=[stpes]",), ("hydra.sweeper.preload=[nope,os]",)])
def test_names_that_name_nothing_are_refused(sweep: Sweep, tmp_path: Path, words: tuple[str, ...]) -> None:
    refused = sweep(*words)
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert said.startswith(f"ConfigError: {words[0].partition('=')[0]}")
    assert "Did you mean steps?" in said or "'nope'" in said
    assert not (tmp_path / "sweeps").exists()


def test_a_study_learns_from_another_tries_its_best_first_and_counts_none_of_it(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("study=old", "hydra.sweeper.n_trials=12").returncode == 0
    assert sweep("study=longer", "hydra.sweeper.n_trials=2", "steps=5").returncode == 0
    line = ("study=new", "hydra.sweeper.n_trials=4", "hydra.sweeper.warm_start=auto", "hydra.sweeper.sampler.seed=2")
    dry = sweep(*line, "hydra.sweeper.dry_run=true")
    assert dry.returncode == 0, dry.stderr
    assert not (tmp_path / "sweeps/new").exists()
    done = sweep(*line)
    assert done.returncode == 0, done.stderr
    assert "Warm start: the sampler begins with 12 trials of old." in done.stdout
    assert (
        "The study longer is no warm start: its trials ran otherwise (there → here): config.steps: 5 → 4" in done.stdout
    )
    old, new = load(tmp_path, "old"), load(tmp_path, "new")
    best = sorted(old.trials, key=lambda trial: trial.value or 0.0)[:3]
    assert len(new.trials) == 4
    assert [trial.params for trial in new.trials[:3]] == [trial.params for trial in best]
    assert new.user_attrs[meta.PRIOR][0]["numbers"] == "0-11"
    # What was read then is read again, though the other study has gone on.
    assert sweep("study=old", "hydra.sweeper.n_trials=14").returncode == 0
    assert sweep(*line, "hydra.sweeper.n_trials=5").returncode == 0
    assert [trial.number for trial in load(tmp_path, "new").trials] == [0, 1, 2, 3, 4]
    assert load(tmp_path, "new").user_attrs[meta.PRIOR] == new.user_attrs[meta.PRIOR]
    refused = sweep(*line[:1], "hydra.sweeper.n_trials=6")
    assert refused.returncode == 1
    assert "warm_start: auto → null" in refused.stderr
    # What others found best has the room that is left beside what stands.
    few = ("study=few", "hydra.sweeper.n_trials=2", "hydra.sweeper.warm_start=old", "hydra.sweeper.baseline=true")
    assert sweep(*few).returncode == 0
    tried = [trial.params for trial in load(tmp_path, "few").trials]
    assert {"x": 0.0, "y": "a"} in tried
    assert load(tmp_path, "old").best_params in tried


def test_a_warm_start_that_cannot_be_had_is_refused_before_anything_is_written(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("study=old", "hydra.sweeper.n_trials=2").returncode == 0
    for word, more, told in (
        ("hydra.sweeper.warm_start=[older]", "seconds=0.02", "No study 'older' in sweeps/. There are: old."),
        ("hydra.sweeper.warm_start=old", "steps=5", "its trials ran otherwise (there → here): config.steps: 4 → 5"),
        ("hydra.sweeper.warm_start=[new]", "seconds=0.02", "names of other studies than new"),
        ("hydra.sweeper.warm_start=old", "hydra.sweeper.params.x='interval(5,6)'", "no finished trial with a config"),
    ):
        refused = sweep("study=new", word, more)
        assert refused.returncode == 1, word
        assert told in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not (tmp_path / "sweeps/new").exists()
    allowed = sweep(
        "study=new",
        "hydra.sweeper.warm_start=old",
        "steps=5",
        "hydra.sweeper.allow_change=[steps]",
        "hydra.sweeper.n_trials=1",
    )
    assert allowed.returncode == 0, allowed.stderr


def test_choices_and_intervals_can_be_changed_by_name_and_what_still_fits_is_learned_from(
    sweep: Sweep, tmp_path: Path
) -> None:
    assert sweep("hydra.sweeper.n_trials=4", "hydra.sweeper.params.y='choice(a,b)'").returncode == 0
    wide = ("hydra.sweeper.params.y='choice(c,a,b)'", "hydra.sweeper.params.x='interval(-2,2)'")
    refused = sweep("hydra.sweeper.n_trials=6", *wide)
    assert refused.returncode == 1
    assert "Accept the change with 'hydra.sweeper.allow_change=[x,y]'" in refused.stderr
    first = ("hydra.sweeper.allow_change=[x,y]", "hydra.sweeper.enqueue=[{y: c, x: 1.5}, {y: c}]")
    done = sweep("hydra.sweeper.n_trials=8", *wide, *first)
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 8)
    trials = load(tmp_path).trials
    kept = [trial.distributions["y"] for trial in trials]
    assert kept == [CategoricalDistribution(["a", "b"])] * 4 + [CategoricalDistribution(["c", "a", "b"])] * 4
    assert [trial.params["y"] for trial in trials[4:6]] == ["c", "c"]
    narrow = sweep("hydra.sweeper.n_trials=10", "hydra.sweeper.params.y='choice(a,b)'", *first[:1])
    assert narrow.returncode == 0, narrow.stderr
    whole(tmp_path, 10)
    assert {trial.params["y"] for trial in load(tmp_path).trials[8:]} <= {"a", "b"}


def test_a_journal_that_keeps_the_choices_says_so(sweep: Sweep, tmp_path: Path) -> None:
    line = ("hydra.sweeper.storage=journal:///sweeps/fake/study.log", "hydra.sweeper.allow_change=[y]")
    assert sweep("hydra.sweeper.n_trials=2", *line).returncode == 0
    refused = sweep("hydra.sweeper.n_trials=3", *line, "hydra.sweeper.params.y='choice(a,b)'")
    assert refused.returncode == 1
    assert "takes no other choices of a parameter: space.y: choice(a, b, c) → choice(a, b)" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_search_that_its_time_has_ended_says_at_which_trial(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("hydra.sweeper.n_trials=1").returncode == 0
    assert not meta.has(load(tmp_path), meta.OUT_OF_TIME)
    done = sweep("hydra.sweeper.n_trials=100000", "hydra.sweeper.timeout=0.5")  # less than its start takes
    assert "Its time is over" in done.stdout
    study = load(tmp_path)
    assert meta.get(study, meta.OUT_OF_TIME) == len(study.trials)
    assert sweep(f"hydra.sweeper.n_trials={len(study.trials) + 1}").returncode == 0
    assert meta.get(load(tmp_path), meta.OUT_OF_TIME) is None


def test_another_promotion_in_a_study_that_exists_is_said(sweep: Sweep) -> None:
    first = sweep("hydra.sweeper.n_trials=1", *PROMOTION)
    assert first.returncode == 0, first.stderr
    assert "is another than before" not in first.stdout + first.stderr
    other = sweep("hydra.sweeper.n_trials=2", *PROMOTION[::2], "hydra.sweeper.promotion={eta: 4, rungs: [1, 2, 4]}")
    assert "hydra.sweeper.promotion is another than before ({'eta': " in other.stdout + other.stderr
    longer = (*PROMOTION[::2], "hydra.sweeper.promotion={eta: 4, rungs: [1, 2, 8]}")
    pruner = (*PROMOTION[::2], "hydra.sweeper.promotion=null", "hydra/sweeper/pruner=median")
    for changed in (longer, pruner):
        refused = sweep("hydra.sweeper.n_trials=2", *changed)
        assert refused.returncode == 1
        assert "was begun with hydra.sweeper.promotion.rungs=[1, 2, 4]" in refused.stderr
    neither = (*PROMOTION[::2], "hydra.sweeper.promotion=null", "hydra/sweeper/pruner=none")  # judges nothing at rungs
    assert sweep("hydra.sweeper.n_trials=2", *neither).returncode == 0
    assert sweep("hydra.sweeper.n_trials=2", *pruner).returncode == 1
    assert sweep("hydra.sweeper.n_trials=2", *longer, "hydra.sweeper.allow_change=[promotion]").returncode == 0


def test_promotion_in_a_study_that_was_scored_without_is_refused_until_it_is_accepted(
    sweep: Sweep, tmp_path: Path
) -> None:
    plain = sweep("hydra.sweeper.n_trials=1", PROMOTION[0], PROMOTION[2], "hydra/sweeper/pruner=median")
    assert plain.returncode == 0, plain.stderr
    refused = sweep("hydra.sweeper.n_trials=2", *PROMOTION)
    assert refused.returncode == 1
    assert "was begun without hydra.sweeper.promotion" in refused.stderr
    assert load(tmp_path).user_attrs[meta.PROMOTION] is None
    accepted = sweep("hydra.sweeper.n_trials=2", *PROMOTION, "hydra.sweeper.allow_change=[promotion]")
    assert accepted.returncode == 0, accepted.stderr
    assert sweep("hydra.sweeper.n_trials=3", *PROMOTION).returncode == 0
    assert len(load(tmp_path).trials) == 3


def test_under_promotion_no_trial_begins_that_has_no_time_to_end(sweep: Sweep, tmp_path: Path) -> None:
    line = ("hydra.sweeper.n_trials=2", "hydra.sweeper.timeout=60.001", "hydra.sweeper.trial_minutes=1")
    late = sweep(*line, *PROMOTION)
    assert "the time was over before one did" in late.stderr
    assert load(tmp_path).trials == []
    assert sweep(*line).returncode == 0
    whole(tmp_path, 2)
