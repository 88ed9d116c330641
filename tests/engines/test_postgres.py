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
import sqlalchemy
from tests.engines import sweeps
from tests.engines.postgres import Postgres
from tests.engines.sweeps import finished, sweep, wait_for

from steady.exceptions import StorageError
from steady.storage import open_storage
from steady.storage.patience import Patience, is_away
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
        controllers[number : number + 1] = [
            sweep(url, folder, "hydra.sweeper.n_jobs=1", *sweeps.PROMOTION, trials=TRIALS)
        ]

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
        enough = (number + 1) * TRIALS // (len(faults) + 2)
        wait_for(lambda: sweeps.settled(study().trials) >= enough, f"trials before {fault}")  # noqa: B023
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
    assert sweeps.promoted(study().trials)
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


def test_a_password_on_the_line_is_in_no_file(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database("hidden").replace("cats@", "cats:swordfish@")  # the server asks for none
    words = ["-m", "study=cats", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1", f"hydra.sweeper.storage={url}"]
    app = str(sweeps.ROOT / "tests" / "steady" / "app" / "task.py")
    said = subprocess.run(
        [sys.executable, app, *words],
        cwd=tmp_path, env=sweeps.environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "swordfish" not in said.stdout + said.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if path.name == "hydra.yaml"]
    assert [path for path in files if b"swordfish" in path.read_bytes()] == []


# What a role or database is asked for, and whether its refusal passes.
REFUSED = {
    "postgresql://cats@{at}/nothing": False,
    "postgresql://nobody@{at}/errors": False,
    "postgresql://locked@{at}/errors": False,  # a role that may not log in
    "postgresql://full@{at}/errors": True,  # has no connection left
    "postgresql://secret@{at}/errors": False,  # no password
    "postgresql://secret:wrong@{at}/errors": False,
    "postgresql://outside@{at}/errors": False,  # not in pg_hba.conf
    "postgresql://cats@{at}/errors?sslmode=require": False,
    "postgresql://cats@127.0.0.1:1/errors": True,
    "postgresql://cats@nowhere.invalid/errors": True,
}
# Statements that fail, each in a session of its own, while another holds the lock of the table `held`.
FAILED = {
    "SET statement_timeout = 50 | SELECT pg_sleep(9)": True,
    "SET lock_timeout = 50 | LOCK TABLE held": True,
    "SELECT pg_terminate_backend(pg_backend_pid())": True,
    "SET default_transaction_read_only = on | COMMIT | CREATE TABLE other (a int)": True,
    "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40P01'; END $$": True,
    "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$": True,
    "SET ROLE locked | SELECT * FROM pg_authid": False,
    "SELECT * FROM nothing": False,
    "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '53100'; END $$": False,  # the disk is full
}


def test_what_passes_is_told_from_what_stays(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGPASSWORD", raising=False)
    url = postgres.database("errors")
    postgres.allow(
        "all secret scram-sha-256", "all cats trust", "all full trust", "all nobody trust", "all locked trust"
    )
    with connected(url) as holder:
        for statement in (
            "CREATE ROLE locked NOLOGIN", "CREATE ROLE full LOGIN CONNECTION LIMIT 0", "CREATE ROLE outside LOGIN",
            "CREATE ROLE secret LOGIN PASSWORD 'swordfish'", "CREATE TABLE held (a int)", "SELECT pg_reload_conf()",
            "COMMIT", "LOCK TABLE held",
        ):  # fmt: skip
            holder.exec_driver_sql(statement)
        time.sleep(1.0)  # the server reads its files again
        for asked, passes in REFUSED.items():
            error = error_of(asked.format(at=f"127.0.0.1:{postgres.port}"))
            assert is_away(error) == passes, f"{asked}: {error}"
        for statement, passes in FAILED.items():
            error = error_of(url, *statement.split(" | "))
            assert is_away(error) == passes, f"{statement}: {error}"


def error_of(url: str, *statements: str) -> Exception:
    """What comes of statements in a session of their own."""
    try:
        with connected(url) as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
    except sqlalchemy.exc.DBAPIError as error:
        return error
    pytest.fail(f"{url} {statements}: no error")


@contextmanager
def connected(url: str) -> Iterator[sqlalchemy.Connection]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 5})
    with engine.connect() as connection:
        yield connection


def test_a_standby_is_refused_before_anything_waits_for_it(postgres: Postgres) -> None:
    url = postgres.database("standby")
    open_storage(url)
    with connected(url) as connection:
        connection.exec_driver_sql("ALTER DATABASE standby SET default_transaction_read_only = on")
        connection.commit()
    with pytest.raises(StorageError, match=r"can only be read.*Name the primary server"):
        open_storage(url)
    assert optuna.get_all_study_names(open_storage(url, make=False)) == []


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


def test_choices_and_intervals_are_changed_in_a_study_of_a_server(postgres: Postgres, tmp_path: Path) -> None:
    url = postgres.database("wider")
    line = [sys.executable, str(sweeps.ROOT / "tests/steady/app/task.py"), "-m", f"hydra.sweeper.storage={url}"]

    def run(trials: int, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*line, f"hydra.sweeper.n_trials={trials}", *words],
            cwd=tmp_path, env=sweeps.environment(), capture_output=True, text=True, check=False,
        )  # fmt: skip

    first = run(3, "hydra.sweeper.params.y='choice(a,b)'")
    assert first.returncode == 0, first.stderr
    wide = ("hydra.sweeper.params.y='choice(c,a,b)'", "hydra.sweeper.params.x='interval(-2,2)'")
    refused = run(5, *wide)
    assert refused.returncode == 1
    assert "Accept the change with 'hydra.sweeper.allow_change=[x,y]'" in refused.stderr
    for trials, words in ((5, (*wide, "hydra.sweeper.enqueue=[{y: c, x: 1.5}]")), (6, wide[1:])):
        changed = run(trials, *words, "hydra.sweeper.allow_change=[x,y]")  # the last has the file's own choices
        assert changed.returncode == 0, changed.stderr
        assert "Traceback" not in changed.stderr
    [name] = optuna.get_all_study_names(open_storage(url))
    study = optuna.load_study(study_name=name, storage=open_storage(url))
    assert finished(study) == len(study.trials) == 6
    assert (study.trials[3].params["y"], study.trials[3].params["x"]) == ("c", 1.5)
