"""Controllers in a job array of SLURM, as `cluster/slurm_array.sh` starts them, on a study in PostgreSQL."""

import os
import sys
from pathlib import Path

import optuna
import pytest
from tests.engines.postgres import Postgres
from tests.engines.slurm import Slurm
from tests.engines.sweeps import ROOT, finished, processes_of, wait_for

from steady.storage import open_storage

TRIALS = 24
STEPS = 5
SCRIPT = ROOT / "cluster" / "slurm_array.sh"
APP = ROOT / "tests" / "steady" / "app" / "task.py"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "outputs").mkdir()
    return tmp_path


def submit(slurm: Slurm, place: Path, url: str, *options: str) -> str:
    """Submit the array; returns its number."""
    environment = {"PYTHON": sys.executable, "APP": str(APP), "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}
    said = slurm.run(
        "sbatch", "--parsable", "--array=0-1", "--cpus-per-task=1", *options, str(SCRIPT),
        "study=cats", f"hydra.sweeper.n_trials={TRIALS}", f"steps={STEPS}", "seconds=0.4",
        f"hydra.sweeper.storage={url}", "hydra.sweeper.lease=8", folder=place, environment=environment,
    )  # fmt: skip
    return said.stdout.strip()


def require_whole(url: str, place: Path) -> None:
    """Assert that each trial has ended, and made each step once: it was never in two places, nor begun again."""
    study = optuna.load_study(study_name="cats", storage=open_storage(url))
    logs = "\n".join(path.read_text() for path in (place / "outputs").glob("slurm-*.log"))
    assert len(study.trials) == finished(study) == TRIALS, logs
    for trial in study.trials:
        steps = (place / "out" / "cats" / str(trial.number) / "steps.txt").read_text().splitlines()
        assert [line.split()[0] for line in steps] == [str(step) for step in range(STEPS)], logs


def trials_done(url: str) -> int:
    storage = open_storage(url)
    if "cats" not in optuna.get_all_study_names(storage):
        return 0
    return finished(optuna.load_study(study_name="cats", storage=storage))


def test_an_array_of_controllers_survives_time_limits_and_dead_nodes(
    slurm: Slurm, postgres: Postgres, place: Path
) -> None:
    url = postgres.database(f"array_{os.getpid()}")
    array = submit(slurm, place, url)
    wait_for(lambda: trials_done(url) >= 3, "trials of the array")
    # As SLURM does before the time limit (--signal): the task is interrupted, and goes back into the queue.
    slurm.run("scancel", "--batch", "--signal=TERM", f"{array}_1")
    wait_for(lambda: slurm.show(f"{array}_1")["Restarts"] == "1", "the task in the queue again")
    assert slurm.show(f"{array}_0")["Restarts"] == "0"  # though the number of the last task is the array's
    wait_for(lambda: trials_done(url) >= 8, "trials after the interruption")
    slurm.kill_node(slurm.show(f"{array}_0")["NodeList"])
    wait_for(lambda: trials_done(url) >= 12, "trials without the node")
    slurm.start_nodes()
    wait_for(lambda: not slurm.jobs(), "the end of the array")
    require_whole(url, place)


def test_a_cancelled_array_stays_out_of_the_queue_and_the_same_line_goes_on(
    slurm: Slurm, postgres: Postgres, place: Path
) -> None:
    url = postgres.database(f"cancelled_{os.getpid()}")
    array = submit(slurm, place, url)
    wait_for(lambda: trials_done(url) >= 2, "trials of the array")
    slurm.run("scancel", array)
    wait_for(lambda: not slurm.jobs(), "the end of the cancelled array")
    assert [slurm.show(f"{array}_{task}")["Restarts"] for task in (0, 1)] == ["0", "0"]
    assert trials_done(url) < TRIALS
    submit(slurm, place, url)
    wait_for(lambda: not slurm.jobs(), "the end of the second array")
    require_whole(url, place)
    assert not processes_of(str(APP), place)
