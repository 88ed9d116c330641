"""What keeps the demo from starting is said before anything is loaded."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from catsweep.app import launch
from catsweep.errors import ConfigError, ExportError
from steady.local_server import listen


@pytest.fixture
def config(root: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launch, "Session", pytest.fail)
    monkeypatch.setattr(launch, "QUIET", {})
    keys = OmegaConf.load(root / "conf" / "demo.yaml")

    def changed(**changes: object) -> DictConfig:
        cfg = {key: keys[key] for key in keys if key not in ("defaults", "hydra")}
        return OmegaConf.create(cfg | {"bundle": str(bundle)} | changes)

    return changed


def test_without_gradio_it_says_what_to_install(config, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(launch, "find_spec", lambda name: None if name == "gradio" else find(name))
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[demo\]'"):
        launch.run(config())


def test_a_folder_that_is_no_bundle(config) -> None:
    with pytest.raises(ExportError, match="Expected an exported bundle in nowhere"):
        launch.run(config(bundle="nowhere"))


def test_a_port_that_is_taken(config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steady.local_server.TRIES", 1)
    with listen(0, "port") as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port from {port} to \d+ to be free.* port=NUMBER, 0 for any"):
            launch.run(config(port=port))


LATE = """
import sys, tempfile, threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from omegaconf import OmegaConf
from catsweep.app import launch

def serve(page, folder, listening):
    def draw():
        threading.main_thread().join()  # goes on when all of the command is done
        (folder / "of a photo").mkdir(parents=True)
        print("drawn", folder, flush=True)
    threading.Thread(target=draw).start()
    raise KeyboardInterrupt

for name, function in (("gradio_page", "build"), ("serving", "serve")):
    module = sys.modules[f"catsweep.app.{name}"] = ModuleType(name)
    setattr(module, function, serve if function == "serve" else lambda session: None)
launch.find_spec = lambda name: True
launch.choose = lambda bundle, run: SimpleNamespace(folder="toy")
launch.Session = lambda source, folder: SimpleNamespace(folder=folder)
launch.run(OmegaConf.create({"bundle": None, "run": None, "port": 0}))
"""


@pytest.mark.security
def test_a_drawing_that_ends_after_the_server_leaves_nothing(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", LATE], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True
    )
    assert f"drawn {tmp_path}/catsweep-demo-" in ended.stdout, ended.stderr
    assert list(tmp_path.glob("catsweep-demo-*")) == []
