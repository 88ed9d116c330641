"""Slots as actors of a real Ray, while controllers, workers, nodes and the head die."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.engines.ray_nodes import Ray
from tests.engines.sweeps import wait_for

from steady.exceptions import ConfigError, StudyError
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.ray_engine import RayEngine
from steady.study.failures import Kind

SLEEP = ("sleep", "1000")


@pytest.fixture
def ray(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    cluster = Ray(Path(tempfile.mkdtemp(dir=short_folder)) / "ray")
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    cluster.start()
    yield cluster
    cluster.stop()


def engine(ray: Ray, **remote: object) -> RayEngine:
    return RayEngine.from_launcher({"ray": {"init": {"address": ray.address}, "remote": remote}})


def begin(engine: RayEngine, folder: Path, *command: str) -> str:
    """Start a command, and wait until it runs."""
    folder.mkdir()
    id = engine.start(command or SLEEP, folder, "test")
    wait_for(lambda: status(engine, id).state != State.WAITING, "an actor that runs")
    return id


def status(engine: RayEngine, id: str) -> Status:
    return engine.statuses([id])[id]


def ended(engine: RayEngine, id: str) -> Status:
    wait_for(lambda: status(engine, id).state == State.ENDED, "the end of an actor")
    return status(engine, id)


def process(id: str) -> psutil.Process:
    """The process of the command of an allocation."""
    found = [one for one in psutil.process_iter() if job_id(one) == id]
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
        id = begin(own, tmp_path / "exit", "sh", "-c", "echo said; exit 7")
        assert ended(own, id) == Status(State.ENDED, status(own, id).host, Kind.LOST, "Its job ended with exit code 7.")
        assert (tmp_path / "exit" / "engine.log").read_text() == "said\n"

        id = begin(own, tmp_path / "killed")
        command = process(id)
        psutil.Process(command.ppid()).kill()
        assert "worker process has died" in ended(own, id).message
        wait_for(lambda: is_gone(command), "the end of the command", 10)

        id = begin(own, tmp_path / "cancelled")
        command = process(id)
        own.cancel([id])
        assert is_gone(command)
        assert ended(own, id).cancelled

        id = begin(far, tmp_path / "of a node")
        command = process(id)
        ray.kill("second")
        told = ended(far, id)
        assert (told.kind, "node" in told.message) == (Kind.LOST, True)
        assert is_gone(command)
        (tmp_path / "waits").mkdir()
        id = far.start(SLEEP, tmp_path / "waits", "test")
        assert status(far, id).state == State.WAITING
        far.cancel([id])
        assert ended(far, id).cancelled
    assert ray.actors() == []
