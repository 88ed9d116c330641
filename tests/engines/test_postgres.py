"""A study in PostgreSQL that several controllers share, while they and the server die."""

import multiprocessing
import random
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from tests.engines import sweeps
from tests.engines.postgres import Postgres
from tests.engines.sweeps import finished, sweep, wait_for

from steady.storage import open_storage
from steady.storage.servers import Patience
from steady.study.leases import Leases

ROUNDS = 20
TRIALS = 40
KILLS = 5


def make_study(url: str, together: Any) -> None:
    together.wait()
    optuna.create_study(study_name="cats", storage=open_storage(url), load_if_exists=True)


def test_controllers_that_start_at_once_make_one_set_of_tables(postgres: Postgres) -> None:
    context = multiprocessing.get_context("fork")
    for number in range(ROUNDS):
        url = postgres.database(f"cold_{number}")
        together = context.Barrier(2)
        both = [context.Process(target=make_study, args=(url, together)) for _ in range(2)]
        for one in both:
            one.start()
        for one in both:
            one.join()
        assert [one.exitcode for one in both] == [0, 0]
        assert optuna.get_all_study_names(open_storage(url)) == ["cats"]


@pytest.fixture
def controllers() -> Iterator[list["subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        one.kill()
        one.wait()


@pytest.mark.trains
def test_kills_of_controllers_and_server_cost_no_trial(
    postgres: Postgres, tmp_path: Path, controllers: list["subprocess.Popen[bytes]"]
) -> None:
    url = postgres.database("kills")
    folder = tmp_path / "place"
    storage = open_storage(url, patience=Patience(120.0))

    def start(number: int) -> None:
        controllers[number : number + 1] = [sweep(url, folder, "hydra.sweeper.n_jobs=1", trials=TRIALS)]

    def study() -> optuna.Study:
        return optuna.load_study(study_name="cats", storage=storage)

    def all_at_work() -> bool:
        living = Leases(storage, "cats", grace=60.0).controllers()
        return {one.pid for one in controllers} <= {one.pid for one in living}

    start(0)
    wait_for(lambda: "cats" in optuna.get_all_study_names(storage), "the study")
    start(1)
    faults = ["kill"] * KILLS + ["restart", "away"]
    random.Random(0).shuffle(faults)
    for number, fault in enumerate(faults):
        wait_for(lambda: finished(study()) >= (number + 1) * TRIALS // (len(faults) + 2), f"trials before {fault}")  # noqa: B023
        if fault == "kill":
            controllers[number % 2].send_signal(signal.SIGKILL)
            controllers[number % 2].wait()
            start(number % 2)
        else:
            wait_for(all_at_work, "all controllers")  # one that starts while the server is away ends
            postgres.stop()
            time.sleep(20.0 if fault == "away" else 0.0)
            postgres.start()
            assert all(one.poll() is None for one in controllers), "a controller did not wait for its server"
    assert [one.wait() for one in controllers] == [0, 0], (folder / "controllers.log").read_text()
    assert len(study().trials) == finished(study()) == TRIALS
    sweeps.require_single_attempts(folder)
    assert "is away" in (folder / "controllers.log").read_text()

    # Every command finds the study where the sweep noted that it is, and from another folder by its URL.
    assert "Copied to outputs/best_model" in sweeps.run(folder, "best_model.py", "study=cats")
    sweeps.run(folder, "export.py")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    said = sweeps.run(elsewhere, "report.py", "study=cats", f"storage={url}", f"outputs={folder / 'outputs'}")
    assert f"{TRIALS} trials of study cats" in said
    sweeps.run(elsewhere, "best_model.py", f"outputs={folder / 'outputs'}")  # noted by the command before
    with served(elsewhere) as page:
        assert "Optuna Dashboard" in page


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The first page of `make dashboard`."""
    server = subprocess.Popen(
        [sys.executable, "-m", "steady.watch.dashboard", "cats", "--port=0"],
        cwd=folder, env=sweeps.environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        address = re.search(r"http://\S+", server.stdout.readline())
        assert address
        with urllib.request.urlopen(address[0]) as answer:
            yield answer.read().decode()
    finally:
        server.terminate()
        server.communicate()
