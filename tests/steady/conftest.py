"""The fake app of `app/`: composed as Hydra composes it for a multirun, and started as from the command line."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import DictConfig
from tests.starting import OF_A_SWEEP, Running, Warm

APP = Path(__file__).parent / "app"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}  # of sweeps


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HydraContext, DictConfig]]:
    """Hydra's context and the configuration; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(APP)):
        config = compose("config", overrides=["hydra.sweep.dir=out"], return_hydra_config=True)
        yield HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks()), config


@pytest.fixture(scope="session")
def warm() -> Iterator[Warm]:
    with closing(Warm(OF_A_SWEEP, ENVIRONMENT, share=True)) as warm:
        yield warm


@pytest.fixture
def start(warm: Warm, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a sweep of the app in the test's folder; what still runs when the test ends is killed."""
    running: list[Running] = []
    logs = tmp_path.with_name(f"{tmp_path.name}.logs")  # not in the folder, whose content tests compare

    def started(*words: str) -> Running:
        running.append(Running(warm, APP / "task.py", tmp_path, ["-m", *words], logs))
        return running[-1]

    yield started
    for process in running:
        process.send_signal(signal.SIGKILL)


@pytest.fixture
def sweep(start: Callable[..., Running]) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run a sweep to its end."""
    return lambda *words: start(*words).done()
