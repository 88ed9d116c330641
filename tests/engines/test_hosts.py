"""Controllers on two hosts, as `cluster/hosts.sh` starts them over a real ssh, on a study in PostgreSQL."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
from tests.engines.postgres import Postgres
from tests.engines.sshd import Hosts
from tests.engines.sweeps import ROOT, finished, wait_for

from steady.storage import open_storage

TRIALS = 24
STEPS = 5
APP = ROOT / "tests" / "steady" / "app" / "task.py"


def start(hosts: Hosts, place: Path, url: str) -> "subprocess.Popen[bytes]":
    """Start the script in a group of its own, as a terminal does."""
    line = [
        str(ROOT / "cluster" / "hosts.sh"), "first second", "study=cats", "hydra.sweeper.n_jobs=1", "seconds=0.3",
        f"hydra.sweeper.n_trials={TRIALS}", f"steps={STEPS}", f"hydra.sweeper.storage={url}", "hydra.sweeper.lease=8",
    ]  # fmt: skip
    environment = {**os.environ, "SSH": str(hosts.client), "PYTHON": sys.executable, "APP": str(APP)}
    with (place / "hosts.log").open("ab") as log:
        return subprocess.Popen(
            line, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # who runs the tests may ignore it
        )  # fmt: skip


def test_a_sweep_over_ssh_survives_lost_connections_dead_hosts_and_ctrl_c(
    hosts: Hosts, postgres: Postgres, tmp_path: Path
) -> None:
    url = postgres.database("hosts")
    first, second = hosts.all.values()

    def study() -> optuna.Study:
        return optuna.load_study(study_name="cats", storage=open_storage(url))

    def done(trials: int) -> bool:
        return "cats" in optuna.get_all_study_names(open_storage(url)) and finished(study()) >= trials

    def said() -> str:
        return (tmp_path / "hosts.log").read_text()

    script = start(hosts, tmp_path, url)
    wait_for(lambda: done(3) and bool(first.sessions() and second.sessions()), "trials on both hosts")
    for session in first.sessions():
        session.kill()
    wait_for(lambda: done(6), "trials on the other host")
    second.kill()
    assert script.wait() != 0, said()
    assert finished(study()) < TRIALS

    second.start()
    script = start(hosts, tmp_path, url)
    wait_for(lambda: done(12), "trials after the death of a host")
    os.killpg(script.pid, signal.SIGINT)
    assert script.wait() != 0, said()
    assert finished(study()) < TRIALS

    script = start(hosts, tmp_path, url)
    assert script.wait() == 0, said()
    assert len(study().trials) == finished(study()) == TRIALS
    for trial in study().trials:
        steps = (tmp_path / "out" / "cats" / str(trial.number) / "steps.txt").read_text().splitlines()
        assert [line.split()[0] for line in steps] == [str(step) for step in range(STEPS)], said()
    assert "second: ended with exit code 255" in said()
    assert "\x1b" not in said(), "a table that is drawn again and again, between lines of others"
