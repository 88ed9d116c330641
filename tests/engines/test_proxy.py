"""A study in PostgreSQL behind the proxy, while proxy, database and controllers die."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
from tests.engines.postgres import Postgres, free_port
from tests.engines.sweeps import ROOT, environment, finished, wait_for

from steady.storage import open_storage
from steady.storage.patience import Patience

TRIALS = 30
STEPS = 6
APP = ROOT / "tests" / "steady" / "app" / "task.py"
FAULTS = ("proxy", "controller", "restart", "away", "proxy")


def start(folder: Path, log: str, *command: str) -> "subprocess.Popen[bytes]":
    with (folder / log).open("ab") as out:
        return subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )


def test_a_proxy_and_its_database_come_and_go(postgres: Postgres, tmp_path: Path) -> None:
    url, port = postgres.database("proxied"), free_port()
    behind = f"grpc://localhost:{port}"

    def proxy() -> "subprocess.Popen[bytes]":
        process = start(tmp_path, "proxy.log", "-m", "steady.storage.proxy", url, f"--port={port}")
        wait_for(lambda: f"at {behind}" in (tmp_path / "proxy.log").read_text(), "the proxy")
        return process

    def controller() -> "subprocess.Popen[bytes]":
        return start(
            tmp_path, "controllers.log", str(APP), "-m", "study=cats", f"hydra.sweeper.n_trials={TRIALS}",
            f"steps={STEPS}", "seconds=0.3", f"hydra.sweeper.storage={behind}", "hydra.sweeper.n_jobs=2",
        )  # fmt: skip

    serving, controllers = proxy(), [controller(), controller()]
    storage = open_storage(url, patience=Patience(120.0))
    wait_for(lambda: "cats" in optuna.get_all_study_names(storage), "the study")
    study = optuna.load_study(study_name="cats", storage=storage)
    for number, fault in enumerate(FAULTS):
        wait_for(lambda: finished(study) >= (number + 1) * TRIALS // (len(FAULTS) + 2), f"trials before {fault}")  # noqa: B023
        if fault == "proxy":
            serving.send_signal(signal.SIGKILL)
            serving.wait()
            time.sleep(3.0)
            serving = proxy()
        elif fault == "controller":
            controllers[0].send_signal(signal.SIGKILL)
            controllers[0].wait()
            controllers[0] = controller()
        else:
            postgres.stop()
            time.sleep(20.0 if fault == "away" else 0.0)
            postgres.start()
        assert serving.poll() is None, (tmp_path / "proxy.log").read_text()
        log = (tmp_path / "controllers.log").read_text()
        assert [one.poll() for one in controllers] == [None, None], f"a controller ended after {fault}: {log}"
    assert [one.wait() for one in controllers] == [0, 0], (tmp_path / "controllers.log").read_text()
    assert len(study.trials) == finished(study) == TRIALS
    for trial in study.trials:  # each step once: no trial was in two places
        steps = (tmp_path / "out" / "cats" / str(trial.number) / "steps.txt").read_text().splitlines()
        assert [line.split()[0] for line in steps] == [str(step) for step in range(STEPS)]
    assert "is away or busy" in (tmp_path / "controllers.log").read_text()
    serving.terminate()
    assert serving.wait() == 0, (tmp_path / "proxy.log").read_text()
