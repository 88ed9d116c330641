"""Slots as actors of a real Ray, while controllers, workers, nodes and the head die."""

import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import optuna
import psutil
import pytest
from tests.engines import sweeps
from tests.engines.ray_nodes import Ray
from tests.engines.sweeps import ROOT, finished, sweep, wait_for

from steady.exceptions import ConfigError, StudyError
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.ray_engine import RayEngine
from steady.storage import open_storage
from steady.study.failures import Kind

APP = ROOT / "tests" / "steady" / "app" / "task.py"
TRIALS = 40
CONTROLLERS, NODES = 5, 2  # that die
SLEEP = ("sleep", "1000")


@pytest.fixture
def ray(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    cluster = Ray(Path(tempfile.mkdtemp(prefix="", dir=short_folder)) / "ray")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    cluster.start()
    yield cluster
    cluster.stop()


def engine(ray: Ray, **remote: object) -> RayEngine:
    made = RayEngine.from_launcher({"ray": {"init": {"address": ray.address}, "remote": remote}})
    made.check()
    return made


Started = dict[str, Path]  # an allocation: its id, and its folder


def begin(engine: RayEngine, folder: Path, *command: str) -> Started:
    """Start a command, and wait until it runs."""
    folder.mkdir()
    one = {engine.start(command or SLEEP, folder, "test"): folder}
    wait_for(lambda: status(engine, one).state != State.WAITING, "an actor that runs")
    return one


def status(engine: RayEngine, one: Started) -> Status:
    [told] = engine.statuses(one).values()
    return told


def ended(engine: RayEngine, one: Started) -> Status:
    wait_for(lambda: status(engine, one).state == State.ENDED, "the end of an actor")
    return status(engine, one)


def ask_until_another_error(engine: RayEngine) -> None:
    while True:
        with suppress(EngineAway):
            engine.statuses({})


def process(one: Started) -> psutil.Process:
    """The process of the command of an allocation."""
    found = [process for process in psutil.process_iter() if job_id(process) in one]
    assert len(found) == 1
    return found[0]


def is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; the tests may be the first process of a namespace, which reaps none."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def job_id(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("STEADY_JOB_ID")
    except psutil.Error:
        return None


def test_what_ends_an_allocation_is_told(ray: Ray, tmp_path: Path) -> None:
    ray.add("second", cpus=2, resources={"second": 4})
    with closing(engine(ray, num_cpus=0.5)) as own, closing(engine(ray, num_cpus=0.5, resources={"second": 1})) as far:
        one = begin(own, tmp_path / "exit", "sh", "-c", "echo said; exit 7")
        assert ended(own, one) == Status(
            State.ENDED, status(own, one).host, Kind.LOST, "Its job ended with exit code 7."
        )
        assert (tmp_path / "exit" / "engine.log").read_text() == "said\n"

        one = begin(own, tmp_path / "killed")
        command = process(one)
        psutil.Process(command.ppid()).kill()
        assert "worker process has died" in ended(own, one).message
        wait_for(lambda: is_gone(command), "the end of the command", 10)

        one = begin(own, tmp_path / "cancelled")
        command = process(one)
        own.cancel(one)
        assert is_gone(command)
        assert ended(own, one).cancelled

        one = begin(far, tmp_path / "of a node")
        command = process(one)
        ray.kill("second")
        told = ended(far, one)
        assert (told.kind, "node" in told.message) == (Kind.LOST, True)
        assert is_gone(command)
        (tmp_path / "waits").mkdir()
        one = {far.start(SLEEP, tmp_path / "waits", "test"): tmp_path / "waits"}
        assert status(far, one).state == State.WAITING
        far.cancel(one)
        assert ended(far, one).cancelled
    assert ray.actors() == []


def test_a_node_without_memory_is_told(ray: Ray, tmp_path: Path) -> None:
    ray.add("small", resources={"small": 1}, RAY_memory_usage_threshold="0.001", RAY_memory_monitor_refresh_ms="100")
    with closing(engine(ray, num_cpus=0, resources={"small": 1})) as own:
        assert ended(own, begin(own, tmp_path / "large")).kind == Kind.OUT_OF_MEMORY


def test_a_head_may_be_away_for_a_while(ray: Ray, tmp_path: Path) -> None:
    with closing(engine(ray)) as own:
        own.patience = 4.0
        one = begin(own, tmp_path / "lost")
        ray.kill("head")
        with pytest.raises(EngineAway, match="head does not answer"):
            own.statuses(one)
        with pytest.raises(StudyError, match="the same command goes on"):
            ask_until_another_error(own)
    with pytest.raises(ConfigError, match=r"Ray cannot be reached: .*init\.address"):
        engine(ray)


@pytest.mark.trains
def test_kills_of_controllers_and_nodes_cost_no_trial(ray: Ray, tmp_path: Path) -> None:
    ray.add("second")
    folder = tmp_path / "place"
    storage = f"sqlite:///{folder}/study.db"
    launcher = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={ray.address}", "hydra.sweeper.n_jobs=2")
    words = launcher + sweeps.PROMOTION

    def done() -> int:
        return sweeps.settled(optuna.load_study(study_name="cats", storage=open_storage(storage)).trials)

    controller = sweep(storage, folder, *words, trials=TRIALS)
    wait_for((folder / "study.db").exists, "the study")
    faults = ["controller"] * CONTROLLERS + ["node"] * NODES
    random.Random(0).shuffle(faults)
    for number, fault in enumerate(faults):
        wait_for(lambda: done() >= (number + 1) * TRIALS // (len(faults) + 2), f"trials before a dead {fault}", 900)  # noqa: B023
        assert controller.poll() is None, (folder / "controllers.log").read_text()
        if fault == "node":
            ray.kill("second")
            ray.add("second")
        else:
            controller.kill()
            controller.wait()
            controller = sweep(storage, folder, *words, trials=TRIALS)
    assert controller.wait() == 0, (folder / "controllers.log").read_text()
    study = optuna.load_study(study_name="cats", storage=open_storage(storage))
    assert len(study.trials) == finished(study) == TRIALS
    sweeps.require_single_attempts(folder)
    # Controllers found what their dead ones had left: only trials on dead nodes began again.
    assert "goes on in the job" in (folder / "controllers.log").read_text()
    begun = "".join(log.read_text() for log in folder.rglob("attempts.log")).count("begin")
    expected = TRIALS + sweeps.promoted(study.trials)
    assert TRIALS < expected <= begun <= expected + NODES
    assert ray.actors() == []
    assert sweeps.left_of_jobs(folder) == []


def start(place: Path, *words: str) -> "subprocess.Popen[bytes]":
    """Start a sweep of trials that count slowly."""
    command = [sys.executable, str(APP), "-m", "hydra/launcher=ray", "hydra.sweeper.n_jobs=2", "steps=5", *words]
    with (place / "said").open("wb") as out:
        return subprocess.Popen(command, cwd=place, env=sweeps.environment(), stdout=out, stderr=out)


def counted(place: Path) -> list[list[str]]:
    """The steps that each trial has made."""
    return [path.read_text().splitlines() for path in place.rglob("steps.txt")]


def test_an_interruption_leaves_no_actor_and_the_same_command_goes_on(ray: Ray, tmp_path: Path) -> None:
    ray.add("second")
    words = (f"hydra.launcher.ray.init.address={ray.address}", "hydra.sweeper.n_trials=4", "seconds=0.5")
    controller = start(tmp_path, *words)
    wait_for(lambda: any(map(len, counted(tmp_path))), "a trial that counts")
    controller.send_signal(signal.SIGINT)
    assert controller.wait() == 130, (tmp_path / "said").read_text()
    assert ray.actors() == []
    assert start(tmp_path, *words).wait() == 0, (tmp_path / "said").read_text()
    assert sorted(map(len, counted(tmp_path))) == [5] * 4
    assert ray.actors() == []


def test_a_sweep_without_an_address_starts_one_ray_and_ends_it(short_folder: Path, tmp_path: Path) -> None:
    variables = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(short_folder)}
    words = ("hydra.launcher.ray.init.address=local", "+hydra.launcher.ray.init.num_cpus=2", "hydra.sweeper.n_trials=6")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        assert start(tmp_path, *words).wait() == 0, (tmp_path / "said").read_text()
    assert sorted(map(len, counted(tmp_path))) == [5] * 6
    assert len(list((short_folder / "ray").glob("session_2*"))) == 1

    def serves(process: psutil.Process) -> bool:  # for us: there are other Rays here
        own = str(short_folder) in " ".join(process.info["cmdline"] or [])
        return own and process.info["name"] == "raylet" and not is_gone(process)

    wait_for(lambda: not any(map(serves, psutil.process_iter(["name", "cmdline"]))), "the end of it")
