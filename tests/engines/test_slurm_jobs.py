"""Trials as jobs of SLURM, `hydra/launcher=submitit_slurm`, while controllers, nodes and the jobs themselves die."""

import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.engines import sweeps
from tests.engines.slurm import Slurm
from tests.engines.sweeps import ROOT, finished, wait_for

from steady.storage import open_storage
from steady.study import meta

TRIALS = 40
KILLS = 5
SLURM_WORDS = ("hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2", "hydra.sweeper.retries=3")
APP = ROOT / "tests" / "steady" / "app" / "task.py"
RECORD = "sweeps/cats"


def start(slurm: Slurm, folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a controller of trials that sleep."""
    command = [sys.executable, str(APP), "-m", "study=cats", f"hydra.sweeper.record={RECORD}", *SLURM_WORDS, *words]
    environment = {**sweeps.environment(), **slurm.environment}
    with (folder / "controllers.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def trials(folder: Path) -> list[FrozenTrial]:
    """The trials of the study, if there is one by now."""
    if not (folder / RECORD / "study.db").exists():
        return []
    storage = open_storage(f"sqlite:///{folder}/{RECORD}/study.db", make=False, check=False)
    names = [name for name in optuna.get_all_study_names(storage) if name == "cats"]
    return optuna.load_study(study_name="cats", storage=storage).trials if names else []


def ended(folder: Path) -> int:
    return sum(trial.state.is_finished() for trial in trials(folder))


def running_job(folder: Path) -> tuple[int, str] | None:
    """A trial that trains or sleeps, and the number of its job."""
    for trial in trials(folder):
        job = trial.user_attrs.get(meta.JOB, {})
        if trial.state == TrialState.RUNNING and job.get("attempt") == trial.user_attrs[meta.ATTEMPT]:
            return trial.number, job["id"]
    return None


def wait_for_job(folder: Path) -> tuple[int, str]:
    wait_for(lambda: running_job(folder) is not None, "a running trial")
    found = running_job(folder)
    assert found is not None
    return found


def said(folder: Path) -> str:
    return (folder / "controllers.log").read_text()


def require_end(slurm: Slurm, controller: "subprocess.Popen[bytes]", folder: Path, total: int) -> None:
    """Assert that a sweep ended with its total, and left nothing in the queue and no process."""
    assert controller.wait() == 0, said(folder)
    assert len(trials(folder)) == ended(folder) == total
    assert not slurm.jobs()
    assert not sweeps.processes_of("steady.jobs.allocation", folder)
    assert sweeps.left_of_jobs(folder) == []


@pytest.mark.trains
def test_kills_of_controllers_and_nodes_cost_no_trial_and_jobs_outlive_their_controller(
    slurm: Slurm, tmp_path: Path
) -> None:
    def begin() -> "subprocess.Popen[bytes]":
        words = (*SLURM_WORDS, "hydra.sweeper.trials_per_job=10", *sweeps.PROMOTION)
        url = f"sqlite:///{RECORD}/study.db"
        return sweeps.sweep(url, tmp_path, *words, trials=TRIALS, variables=slurm.environment)

    controller = begin()
    faults = ["controller"] * KILLS + ["node"] * 2
    random.Random(0).shuffle(faults)
    for number, fault in enumerate(faults):
        enough = (number + 1) * TRIALS // (len(faults) + 2)
        wait_for(lambda: sweeps.settled(trials(tmp_path)) >= enough, f"trials before the {fault}")  # noqa: B023
        wait_for_job(tmp_path)
        if fault == "controller":
            controller.kill()
            controller.wait()
            controller = begin()
        else:
            slurm.kill_node("n1")
            slurm.start_nodes()
    require_end(slurm, controller, tmp_path, TRIALS)
    assert sweeps.promoted(trials(tmp_path))
    sweeps.require_single_attempts(tmp_path)
    adopted = {int(number) for number in re.findall(r"trial (\d+) goes on in the job", said(tmp_path))}
    assert any(trials(tmp_path)[number].user_attrs[meta.ATTEMPT] == 0 for number in adopted)


def test_what_ends_a_job_is_not_the_trials_fault(slurm: Slurm, tmp_path: Path) -> None:
    controller = start(slurm, tmp_path, "hydra.sweeper.n_trials=4", "steps=8", "seconds=0.5")
    cancelled, job = wait_for_job(tmp_path)
    slurm.run("scancel", job)
    wait_for(lambda: trials(tmp_path)[cancelled].user_attrs[meta.ATTEMPT] == 1, "the cancelled trial again")
    _, job = wait_for_job(tmp_path)
    slurm.run("scancel", "--batch", "--signal=TERM", job)  # as SLURM does before a time limit (--signal=B:TERM)
    require_end(slurm, controller, tmp_path, 4)
    assert trials(tmp_path)[cancelled].user_attrs[meta.LOST_COUNT] >= 1
    assert "CANCELLED" in said(tmp_path)
    for trial in trials(tmp_path):
        steps = (tmp_path / "out" / "cats" / str(trial.number) / "steps.txt").read_text().splitlines()
        assert [line.split()[0] for line in steps] == [str(step) for step in range(8)]


def test_a_time_limit_interrupts_and_the_trial_goes_on_in_another_job(slurm: Slurm, tmp_path: Path) -> None:
    # SLURM may send the signal a minute early: that is, at once.
    limit = ("hydra.launcher.timeout_min=1", "hydra.launcher.signal_delay_s=40")
    words = ("hydra.sweeper.n_trials=1", "fault=stop", "steps=80", "seconds=0.5")
    require_end(slurm, start(slurm, tmp_path, *words, *limit), tmp_path, 1)
    [trial] = trials(tmp_path)
    assert trial.user_attrs[meta.ATTEMPT] >= 1
    assert "trial 0 interrupted; it will go on from its checkpoint" in said(tmp_path)
    steps = (tmp_path / "out" / "cats" / "0" / "steps.txt").read_text().splitlines()
    assert [line.split()[0] for line in steps] == [str(step) for step in range(80)]


def test_ctrl_c_empties_the_queue_and_the_same_line_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    words = ("hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=4", "steps=4", "seconds=0.5")  # two wait in the queue
    controller = start(slurm, tmp_path, *words)
    wait_for(lambda: sorted(slurm.jobs().values()) == ["PENDING", "PENDING", "RUNNING", "RUNNING"], "a full queue")
    wait_for_job(tmp_path)
    controller.send_signal(signal.SIGINT)
    assert controller.wait() == 130, said(tmp_path)
    wait_for(lambda: not slurm.jobs(), "an empty queue", 10)
    assert {trial.state for trial in trials(tmp_path)} <= {TrialState.WAITING, TrialState.COMPLETE}
    assert said(tmp_path).count("was taken out of the queue, and begins when its turn comes") == 2
    require_end(slurm, start(slurm, tmp_path, *words), tmp_path, 6)


def test_jobs_in_the_queue_of_a_dead_controller_are_not_sent_again(slurm: Slurm, tmp_path: Path) -> None:
    words = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=4", "steps=4", "seconds=0.5")
    controller = start(slurm, tmp_path, *words)
    wait_for(lambda: len(slurm.jobs()) == 4, "a full queue")
    time.sleep(1.0)  # the numbers of all are known
    queue = set(slurm.jobs())
    controller.kill()
    controller.wait()
    controller = start(slurm, tmp_path, *words)
    require_end(slurm, controller, tmp_path, 4)
    assert {trial.user_attrs[meta.JOB]["id"] for trial in trials(tmp_path)} == queue
    assert {trial.user_attrs[meta.ATTEMPT] for trial in trials(tmp_path)} == {0}


def test_keys_that_no_node_can_satisfy_are_named_before_anything_is_written(slurm: Slurm, tmp_path: Path) -> None:
    controller = start(slurm, tmp_path, "hydra/launcher=slurm")  # by default a job has four cores, and a node has one
    assert controller.wait() == 1
    assert "configuration is not available. That came of hydra.launcher.cpus_per_task=4; sinfo" in said(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["controllers.log"]


@pytest.mark.security
def test_orders_that_name_another_job_of_ones_own_cancel_nothing(slurm: Slurm, tmp_path: Path) -> None:
    words = ("hydra.sweeper.n_trials=1", "hydra.sweeper.n_jobs=1", "steps=1000", "seconds=0.5")
    thesis = slurm.run("sbatch", "--parsable", "--wrap=sleep 1000", folder=tmp_path).stdout.strip()
    controller = start(slurm, tmp_path, *words)
    _, job = wait_for_job(tmp_path)
    controller.kill()
    controller.wait()
    [orders] = (tmp_path / RECORD / "jobs").glob("*/1/orders.json")
    orders.write_text(json.dumps({**json.loads(orders.read_text()), "id": thesis}))
    controller = start(slurm, tmp_path, *words)
    wait_for(lambda: "goes on in the job" in said(tmp_path), "the adoption")
    controller.send_signal(signal.SIGINT)
    assert controller.wait() == 130, said(tmp_path)
    wait_for(lambda: slurm.jobs() == {thesis: "RUNNING"}, "the end of the trial's job alone")
    assert job != thesis


def test_a_slurmctld_that_restarts_is_waited_for(slurm: Slurm, tmp_path: Path) -> None:
    controller = start(slurm, tmp_path, "hydra.sweeper.n_trials=6", "steps=4", "seconds=0.5")
    wait_for_job(tmp_path)
    daemon = slurm.processes.pop("slurmctld")
    daemon.terminate()  # killed, it may forget jobs that just began, and drain the nodes that still run them
    daemon.wait()
    time.sleep(3.0)
    slurm.start_controller()
    require_end(slurm, controller, tmp_path, 6)
    assert {trial.user_attrs[meta.ATTEMPT] for trial in trials(tmp_path)} == {0}
    assert finished(optuna.load_study(study_name="cats", storage=f"sqlite:///{tmp_path}/{RECORD}/study.db")) == 6
