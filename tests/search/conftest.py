"""The fake app of `app/`, composed as Hydra composes it for a multirun."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import DictConfig

APP = Path(__file__).parent / "app"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[HydraContext, DictConfig]]:
    """Hydra's context and the configuration; the working directory is the test's own."""
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(APP)):
        config = compose("config", overrides=["hydra.sweep.dir=out"], return_hydra_config=True)
        yield HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks()), config
