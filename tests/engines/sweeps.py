"""Sweeps of tiny VAEs in processes of their own, for the tests with real servers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import optuna
import psutil
from optuna.trial import FrozenTrial

from steady.study import meta

ROOT = Path(__file__).parents[2]
TINY = (
    "data.reader.n=96", "data.size=32", "data.batch_size=16", "depth=shallow", "width=narrow", "width.channels=4",
    "activation=gelu", "optimizer=adamw", "schedule=constant", "loss=mse", "model.latent_size=8",
    "model.adversarial.weight=0", "metrics.samples=48", "metrics.rung_samples=32", "metrics/judge=none", "logger=none",
    "minutes=null", "epochs=2", "trainer.threads=1", "trainer.precision=32-true",
    "hydra.sweeper.confirm=null", "hydra.sweeper.preflight=null",
)  # fmt: skip

# Half of the trials, the better ones, go on from their first epoch.
PROMOTION = ("hydra/sweeper/pruner=none", "hydra.sweeper.promotion={eta: 2, rungs: [1, 2]}")


def sweep(
    storage: str,
    folder: Path,
    *words: str,
    study: str = "cats",
    trials: int = 40,
    variables: Mapping[str, str] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start a controller of the study, with more variables of the environment."""
    folder.mkdir(exist_ok=True)
    command = [
        sys.executable, str(ROOT / "tests" / "engines" / "train.py"), "-m", "hparams_search=vae_optuna", *TINY,
        f"trials={trials}", f"study={study}", "seed=0", f"hydra.sweeper.storage={storage}", *words,
    ]  # fmt: skip
    with (folder / "controllers.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env={**environment(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def environment() -> dict[str, str]:
    """Variables of the commands."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}


def run(folder: Path, command: str, *words: str) -> str:
    """Run a command of the project in a folder; returns what it says."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "src" / command), *words],
        cwd=folder, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not seen: {what}"
        time.sleep(0.1)


def finished(study: optuna.Study) -> int:
    """Count the trials that have ended."""
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


def settled(trials: Iterable[FrozenTrial]) -> int:
    """Count the trials that have ended or are paused."""
    return sum(trial.state.is_finished() or meta.paused_at(trial) is not None for trial in trials)


def promoted(trials: Iterable[FrozenTrial]) -> int:
    """Count the trials that went on after a pause."""
    return sum(meta.has(trial, meta.PROMOTED) for trial in trials)


def processes_of(word: str, place: Path) -> list[psutil.Process]:
    """Processes whose command has this word, and a place, or work there."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            words = process.cmdline()
            if word in words and (process.cwd() == str(place) or any(str(place) in one for one in words)):
                found.append(process)
    return found


def left_of_jobs(folder: Path) -> list[Path]:
    """Files of jobs that are left in the records of sweeps, but for logs of those that did not begin."""
    return [path for path in folder.glob("sweeps/*/jobs/**/*") if path.is_file() and path.name != "engine.log"]


def require_single_attempts(folder: Path) -> None:
    """Assert that no trial ever ran in two places at once, and that each ran."""
    logs = list(folder.rglob("attempts.log"))
    assert logs
    for log in logs:
        assert "overlap" not in log.read_text(), f"{log}: {log.read_text()}"
