"""The sweeper as a user meets it, when something goes wrong: killed, interrupted, crashed, started twice."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.starting import OF_A_SWEEP, Running, Warm
from tests.steady.conftest import ENVIRONMENT
from tests.steady.jobs.test_executor import gone
from tests.steady.left import PROMOTION, halved, load, states, steps_done, whole

from steady.study import meta

Start = Callable[..., Running]
Sweep = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Each sweep has a fork server of its own here, which is to end with a controller that is killed."""
    with closing(Warm(OF_A_SWEEP, ENVIRONMENT)) as warm:
        yield warm


@pytest.mark.parametrize(
    ("more", "kills", "n", "check"), [((), 20, 40, whole), (PROMOTION, 10, 30, halved)], ids=["plain", "promotion"]
)
def test_kills_lose_nothing(
    more: tuple[str, ...], kills: int, n: int, check: Callable[[Path, int], None], start: Start, tmp_path: Path
) -> None:
    """SIGKILL of the controller at random moments of one sweep, each time started again."""
    line = (f"hydra.sweeper.n_trials={n}", "hydra.sweeper.n_jobs=3", "seconds=0.05", *more)
    moments = random.Random(3)
    for kill in range(kills):
        process = start(*line)
        if kill % 4:  # at work
            goal = steps_done(tmp_path) + moments.randint(1, 4)
            while steps_done(tmp_path) < goal and process.poll() is None:
                time.sleep(0.01)
            time.sleep(moments.uniform(0, 0.1))
        else:  # perhaps before there is any
            time.sleep(moments.uniform(0, 1.1))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
    process = start(*line)
    _, err = process.communicate()
    assert process.returncode == 0, err
    check(tmp_path, n)


@pytest.mark.parametrize(("more", "check"), [((), whole), (PROMOTION, halved)], ids=["plain", "promotion"])
def test_two_controllers_share_a_study_without_a_duplicate(
    more: tuple[str, ...], check: Callable[[Path, int], None], start: Start, tmp_path: Path
) -> None:
    line = ("hydra.sweeper.n_trials=16", "seconds=0.1", *more)
    both = [start(*line), start(*line)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0, err
    check(tmp_path, 16)
    assert len({json.dumps(trial.params) for trial in load(tmp_path).trials}) == 16


def test_a_trial_that_crashes_costs_that_trial(sweep: Sweep, tmp_path: Path) -> None:
    ways = ["segfault", "exit", "kill", "sys.exit", "raise", "interrupt"]
    done = sweep(f"fault=[{','.join(ways)}]", "faulty=[1,2,3,4,5,6]", "hydra.sweeper.n_trials=8")
    assert done.returncode == 0, done.stderr
    assert states(tmp_path) == ["COMPLETE", *["FAIL"] * 6, "COMPLETE"]
    said = []
    for trial in load(tmp_path).trials[1:7]:
        said.append(trial.user_attrs[meta.MESSAGE])
        assert (tmp_path / trial.user_attrs[meta.LOG]).exists()
    for message, word in zip(
        said, ["SIGSEGV", "exit code 3", "SIGKILL", "4", "a fault of the task", "nobody"], strict=True
    ):
        assert word in message


@pytest.mark.security
def test_a_task_that_interrupts_itself_each_time_ends_the_sweep(sweep: Sweep, tmp_path: Path) -> None:
    done = sweep("fault=interrupt", "faulty=[0,1,2,3,4,5,6,7]", "hydra.sweeper.n_jobs=1", "hydra.sweeper.retries=2")
    assert done.returncode == 1
    assert "KeyboardInterrupt" in done.stderr
    assert done.stderr.count("Traceback") == 1
    trials = [trial for trial in load(tmp_path).trials if trial.state.is_finished()]
    assert [trial.state.name for trial in trials] == ["FAIL"] * 3
    for trial in trials:
        assert trial.user_attrs[meta.ATTEMPT] == 2
        assert "in fail" in trial.user_attrs[meta.TRACEBACK]


@pytest.mark.security
def test_what_left_the_session_of_its_trial_ends_with_a_killed_controller_and_the_sweep_goes_on(
    start: Start, sweep: Sweep, tmp_path: Path
) -> None:
    line = ("fault=daemon", "faulty=[0,1]", "seconds=0.1", "hydra.sweeper.n_trials=4")
    process = start(*line)
    daemons = tmp_path / "daemon"
    while not (daemons.exists() and daemons.read_text().count("\n") == 2):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    pids = [int(pid) for pid in daemons.read_text().split()]
    while not all(map(gone, pids)):
        time.sleep(0.01)
    assert sweep(*line).returncode == 0
    whole(tmp_path, 4)


def test_a_lost_trial_is_retried_under_its_own_number(sweep: Sweep, tmp_path: Path) -> None:
    assert sweep("fault=once", "faulty=[1]", "hydra.sweeper.n_trials=4").returncode == 0
    whole(tmp_path, 4)
    assert load(tmp_path).trials[1].user_attrs[meta.ATTEMPT] == 1


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


def test_who_accepts_every_failure_gets_every_trial_and_a_quiet_standard_error(sweep: Sweep, tmp_path: Path) -> None:
    words = ("fault=raise", "faulty=[0,1,2,3,4]", "hydra.sweeper.max_failure_rate=1.0")
    assert sweep(*words, "hydra.sweeper.n_trials=6").returncode == 0
    assert states(tmp_path) == ["FAIL"] * 5 + ["COMPLETE"]
    failed = sweep(*words, "hydra.sweeper.n_trials=4", "study=none")
    assert failed.returncode == 1
    assert "a fault of the task" not in failed.stderr
    assert "trial 3 failed: RuntimeError: a fault of the task" in failed.stdout


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
