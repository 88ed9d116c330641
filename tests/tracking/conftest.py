"""A user without a key, and wandb's own reader of what was recorded offline."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from wandb.util import get_core_path

KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, as a key has; belongs to nobody
SET_OFFLINE = ("WANDB_ERROR_REPORTING", "WANDB_DATA_DIR")  # by a run of ours


@pytest.fixture(autouse=True)
def outside_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """No job of Hydra's: another test of this process may have left its configuration, whose options would be tags."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.fixture
def signed_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A user without a key, and a wandb that has not yet looked."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    wandb.teardown()
    yield
    wandb.teardown()
    for name in SET_OFFLINE:  # monkeypatch, which saw them last without a value, removes only what it has set itself
        os.environ.pop(name, None)


@pytest.fixture
def signed_in(signed_out: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user with a key, of whom nothing is to be asked."""
    monkeypatch.setenv("WANDB_API_KEY", KEY)


@pytest.fixture
def logger_node(root: Path, tmp_path: Path) -> Callable[[str], DictConfig]:
    """The configuration of a logger by its name, recording into the test's folder."""

    def load(name: str) -> DictConfig:
        cfg: Any = OmegaConf.load(root / "conf" / "logger" / f"{name}.yaml")
        cfg.pop("defaults", None)  # which Hydra composes
        if name == "wandb":
            cfg.save_dir = str(tmp_path / "outputs")
        assert isinstance(cfg, DictConfig)
        return cfg

    return load


class Offline:
    """One offline record, as wandb's own reader gives it (`wandb leet inspect`, without starting Python for it)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [log] = folder.glob("*.wandb")
        command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
        command += ["--run-file", str(log), str(folder.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        self.records: dict[str, list[Any]] = {}
        for line in done.stdout.splitlines():
            record = json.loads(line)
            self.records.setdefault(record["type"], []).append(record[record["type"]])
        [self.run] = self.records["run"]

    def _merged(self, kind: str) -> dict[str, Any]:
        updates = self.records.get(kind, [])
        return {name: value for update in updates for name, value in update.get("update", {}).items()}

    @property
    def config(self) -> dict[str, Any]:
        return self._merged("config")

    @property
    def summary(self) -> dict[str, Any]:
        return self._merged("summary")

    @property
    def history(self) -> list[dict[str, Any]]:
        return [record["item"] for record in self.records.get("history", [])]

    @property
    def exit_code(self) -> int:
        [end] = self.records["exit"]
        return int(end.get("exit_code", 0))


def offline(outputs: Path) -> list[Offline]:
    """All records of a folder, in the order in which they were begun."""
    folders = sorted(
        (outputs / "wandb").glob("offline-run-*"), key=lambda folder: next(folder.glob("*.wandb")).stat().st_mtime_ns
    )
    return [Offline(folder) for folder in folders]


@pytest.fixture(scope="session")
def read_all() -> Callable[[Path], list[Offline]]:
    return offline
