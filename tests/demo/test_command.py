"""What keeps the demo from starting is said before anything is loaded."""

import importlib.util
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from catsweep.demo import command
from catsweep.errors import ConfigError, ExportError
from catsweep.local_server import listen


@pytest.fixture
def config(root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(command, "Studio", pytest.fail)
    monkeypatch.setattr(command, "QUIET", {})
    keys = OmegaConf.load(root / "conf" / "demo.yaml")

    def changed(**changes: object) -> DictConfig:
        cfg = {key: keys[key] for key in keys if key not in ("defaults", "hydra")}
        return OmegaConf.create(cfg | {"bundle": str(bundle)} | changes)

    return changed


def test_without_gradio_it_says_what_to_install(config, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "gradio" else find(name))
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[demo\]'"):
        command.run(config())


def test_a_folder_that_is_no_bundle(config) -> None:
    with pytest.raises(ExportError, match="Expected an exported bundle in nowhere"):
        command.run(config(bundle="nowhere"))


def test_a_port_that_is_taken(config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("catsweep.local_server.TRIES", 1)
    with listen(0, "port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port from {port} to \d+ to be free.* port=NUMBER, 0 for any"):
            command.run(config(port=port))
