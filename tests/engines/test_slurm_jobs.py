"""Trials as jobs of SLURM, `hydra/launcher=submitit_slurm`, while their controller, their nodes and they themselves die."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from tests.engines import sweeps
from tests.engines.slurm import Slurm
from tests.engines.sweeps import ROOT, finished, wait_for

from steady.storage import exists, open_storage
from steady.study import meta

TRIALS = 40
KILLS = 5
APP = ROOT / "tests" / "steady" / "app" / "task.py"
URL = "sqlite:///sweeps/cats/study.db"


def study(folder: Path) -> optuna.Study | None:
    url = f"sqlite:///{folder}/sweeps/cats/study.db"
    if not exists(url):
        return None
    storage = open_storage(url, make=False)
    return optuna.load_study(study_name="cats", storage=storage) if optuna.get_all_study_names(storage) else None


def done(folder: Path) -> int:
    found = study(folder)
    return 0 if found is None else finished(found)


def start(slurm: Slurm, folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a controller of trials that sleep."""
    command = [
        sys.executable, str(APP), "-m", "study=cats", "hydra/launcher=submitit_slurm", "hydra.sweeper.n_jobs=2",
        "hydra.sweeper.record=sweeps/cats", *words,
    ]  # fmt: skip
    environment = {**sweeps.environment(), **slurm.environment}
    with (folder / "controllers.log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def said(folder: Path) -> str:
    return (folder / "controllers.log").read_text()


def test_a_short_sweep(slurm: Slurm, tmp_path: Path) -> None:
    controller = start(slurm, tmp_path, "hydra.sweeper.n_trials=6", "hydra.sweeper.trials_per_job=2")
    assert controller.wait() == 0, said(tmp_path)
    assert done(tmp_path) == 6
    assert not slurm.jobs()
    print(said(tmp_path))
