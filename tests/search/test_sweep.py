"""The sweeper as a user meets it: an app in processes of its own, killed, crashed and started again."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf

from catsweep.search import attributes

APP = Path(__file__).parent / "app" / "task.py"

Start = Callable[..., "subprocess.Popen[str]"]
Sweep = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    environment: Mapping[str, str] = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}

    def started(*words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(APP), "-m", *words], cwd=tmp_path, env=environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return started


@pytest.fixture
def sweep(start: Start) -> Sweep:
    def done(*words: str) -> "subprocess.CompletedProcess[str]":
        process = start(*words)
        out, err = process.communicate()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return done


def load(place: Path, name: str = "fake") -> optuna.Study:
    return optuna.load_study(study_name=name, storage=f"sqlite:///{place}/sweeps/{name}/study.db")


def states(place: Path) -> list[str]:
    return [trial.state.name for trial in load(place).trials]


def steps(place: Path, number: int) -> list[list[str]]:
    return [line.split() for line in (place / f"out/fake/{number}/steps.txt").read_text().splitlines()]


def steps_done(place: Path) -> int:
    return sum(len(file.read_text().splitlines()) for file in place.glob("out/fake/*/steps.txt"))


def snapshot(place: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in place.rglob("*") if path.is_file() and not path.name.startswith("study.db"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def whole(place: Path, n: int) -> None:
    """Every number once, every folder its own trial's, every step done once."""
    study = load(place)
    assert [trial.number for trial in study.trials] == list(range(n))
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}
    folders = {path.name for path in (place / "out/fake").iterdir() if path.is_dir() and path.name != ".submitit"}
    assert folders == {str(number) for number in range(n)}
    for trial in study.trials:
        lines = steps(place, trial.number)
        assert [line[0] for line in lines] == ["0", "1", "2", "3"]
        assert {(float(line[1]), line[2]) for line in lines} == {(trial.params["x"], trial.params["y"])}
        assert trial.values == [trial.params["x"] ** 2 + "abc".index(trial.params["y"])]


def test_a_sweep_runs_to_its_end_and_the_same_line_again_says_so(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep()
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 8)
    before = snapshot(tmp_path / "out")
    again = sweep()
    assert again.returncode == 0
    assert "finished" in again.stdout
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


def test_a_resumed_sweep_draws_what_the_undisturbed_one_draws(sweep: Sweep, tmp_path: Path) -> None:
    one_by_one = ("hydra.sweeper.n_jobs=1",)
    assert sweep(*one_by_one, "hydra.sweeper.n_trials=2").returncode == 0
    assert sweep(*one_by_one, "hydra.sweeper.n_trials=4").returncode == 0
    assert sweep(*one_by_one, "study=other", "hydra.sweeper.n_trials=4").returncode == 0
    drawn = [[trial.params for trial in load(tmp_path, name).trials] for name in ("fake", "other")]
    assert drawn[0] == drawn[1]
    assert len({json.dumps(params) for params in drawn[0]}) == 4


def test_twenty_kills_lose_nothing(start: Start, tmp_path: Path) -> None:
    """SIGKILL of the controller at random moments of one sweep, each time started again."""
    line = ("hydra.sweeper.n_trials=40", "hydra.sweeper.n_jobs=3", "seconds=0.1")
    moments = random.Random(3)
    for kill in range(20):
        process = start(*line)
        if kill % 4:  # at work
            goal = steps_done(tmp_path) + moments.randint(1, 4)
            while steps_done(tmp_path) < goal and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.1))
        else:  # perhaps before there is any
            time.sleep(moments.uniform(0.5, 4))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
    process = start(*line)
    _, err = process.communicate()
    assert process.returncode == 0, err
    whole(tmp_path, 40)


def test_two_controllers_share_a_study_without_a_duplicate(start: Start, tmp_path: Path) -> None:
    line = ("hydra.sweeper.n_trials=16", "seconds=0.1")
    both = [start(*line), start(*line)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    whole(tmp_path, 16)
    assert len({json.dumps(trial.params) for trial in load(tmp_path).trials}) == 16


@pytest.mark.parametrize("fault", ["segfault", "exit", "kill", "sys.exit", "raise"])
def test_a_trial_that_crashes_costs_that_trial(sweep: Sweep, tmp_path: Path, fault: str) -> None:
    done = sweep(f"fault={fault}", "faulty=[1]", "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    trial = load(tmp_path).trials[1]
    assert trial.user_attrs[attributes.MESSAGE]
    assert (tmp_path / trial.user_attrs[attributes.LOG]).exists()


def test_a_lost_trial_is_retried_under_its_own_number(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("fault=once", "faulty=[1]", "hydra.sweeper.n_trials=4").returncode == 0
    whole(tmp_path, 4)
    assert load(tmp_path).trials[1].user_attrs[attributes.ATTEMPT] == 1


def test_pruned_is_not_failed_and_memory_is_a_constraint(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("fault=prune", "faulty=[1]", "hydra.sweeper.n_trials=3", "study=fake").returncode == 0
    assert states(tmp_path) == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert not load(tmp_path).trials[1].constraints
    assert sweep("fault=memory", "faulty=[1]", "hydra.sweeper.n_trials=3", "study=wide").returncode == 0
    trial = load(tmp_path, "wide").trials[1]
    assert trial.state.name == "PRUNED"
    assert trial.constraints == {"out of memory": 1.0}


def test_the_same_failure_again_and_again_ends_the_sweep_and_is_shown_once(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("fault=raise", "faulty=[0,1,2,3,4,5,6,7]", "hydra.sweeper.n_jobs=1", "hydra.sweeper.draw_ahead=false")
    assert done.returncode == 1
    assert states(tmp_path) == ["FAIL"] * 3
    assert done.stderr.count("Traceback") == 1
    assert "a fault of the task" in done.stderr
    assert (tmp_path / "out/fake/optimization_results.yaml").exists()


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


def test_interrupted_once_a_sweep_stops_and_the_printed_line_goes_on(
    start: Start, sweep: Sweep, tmp_path: Path
) -> None:
    process = start("seconds=0.3", "hydra.sweeper.n_trials=6")
    while not (tmp_path / "out/fake/1/steps.txt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert "The same line goes on" in out
    assert "-m seconds=0.3 hydra.sweeper.n_trials=6" in out
    assert "RUNNING" not in states(tmp_path)
    assert sweep("seconds=0.3", "hydra.sweeper.n_trials=6").returncode == 0
    whole(tmp_path, 6)


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


def test_a_parameter_with_a_condition_is_only_there_when_it_holds(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("+hydra.sweeper.conditions.x='y=b'", "hydra.sweeper.n_trials=9")
    assert done.returncode == 0, done.stderr
    for trial in load(tmp_path).trials:
        assert ("x" in trial.params) == (trial.params["y"] == "b")


def test_the_best_are_confirmed_under_other_seeds(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("+seed=0", "+hydra.sweeper.confirm={top: 2, seeds: 2}", "hydra.sweeper.n_trials=4")
    assert done.returncode == 0, done.stderr
    confirmed = json.loads((tmp_path / "sweeps/fake/confirmation.json").read_text())
    assert confirmed["winner"] == load(tmp_path).best_trial.number
    assert {path.name for path in (tmp_path / "out/fake/confirm").iterdir()} == {"0", "1", "2", "3"}


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
    done = sweep(f"hydra/launcher={launcher}", "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    whole(tmp_path, 3)
    for number in range(3):
        assert said in (tmp_path / f"out/fake/{number}/output.log").read_text()
