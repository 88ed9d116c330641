"""What `logger=trackio` records, without a network and without a word; skipped where trackio is not installed."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from catsweep.errors import ConfigError
from catsweep.tracking.trackio_logger import trackio_logger

# Killed after step 20 and taken up again at 15; then a single run.
PROCESS = """
import json, random, sys
def refuse(event, arguments):
    if event == "socket.connect":
        raise AssertionError(f"a connection to {arguments[1]}")
sys.addaudithook(refuse)
import numpy, torch
from pathlib import Path
from omegaconf import OmegaConf
from catsweep.tracking import loggers
from catsweep.training.callbacks import log_images

def node():
    written = OmegaConf.load(sys.argv[1])
    del written["defaults"]  # which Hydra composes
    return written

before = random.getstate(), torch.get_rng_state().tolist()
for attempt, steps in enumerate([(10, 20), (15, 30)]):
    log_to = loggers.build(node(), Path("outputs/cats/3"), "cats", 3)
    loggers.log_config(log_to, OmegaConf.create({"seed": 1, "model": {"latent_size": 16}}))
    for step in steps:
        log_to[0].log_metrics({"train/loss": step + attempt / 2}, step=step)
    log_images(log_to, "samples", numpy.zeros((8, 8, 3), numpy.uint8), steps[-1])
    if attempt:
        loggers.summarise(log_to, {"val/fid": 90.0, "val/kid": 0.5}, {"val/fid": {}}, ["val/fid"])
    loggers.finish(log_to, "complete" if attempt else "interrupted")
log_to = loggers.build(node(), Path("outputs/runs/2026-11-28/12-00-00"))
log_to[0].log_metrics({"train/loss": 1.0}, step=1)
loggers.finish(log_to)
loggers.finish(loggers.build(node(), Path("outputs/cats/4"), "cats", 4))  # one that recorded nothing
assert before == (random.getstate(), torch.get_rng_state().tolist())

from trackio.sqlite_storage import SQLiteStorage
names = SQLiteStorage.get_runs("catsweep")
Path("found.json").write_text(json.dumps({
    "logs": {name: SQLiteStorage.get_logs("catsweep", name) for name in names},
    "config": SQLiteStorage.get_run_config("catsweep", "cats 3"),
}))
"""


def test_a_run_is_recorded_once_and_silently_and_nobody_is_called(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio")
    words = [sys.executable, "-c", PROCESS, str(root / "conf/logger/trackio.yaml")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    found = json.loads((tmp_path / "found.json").read_text())
    assert sorted(found["logs"]) == ["2026-11-28 12-00-00", "cats 3"]
    rows = found["logs"]["cats 3"]
    assert [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row] == [(10, 10), (20, 20), (30, 30.5)]
    assert [row["step"] for row in rows if "samples" in row] == [20, 30]
    last = {key: rows[-1][key] for key in ("step", "val/fid", "val/kid", "objective")}
    assert last == {"step": 31, "val/fid": 90.0, "val/kid": 0.5, "objective": 90.0}
    assert found["config"]["model"] == {"latent_size": 16}
    assert (tmp_path / "outputs/trackio/catsweep.db").is_file()


def test_runs_of_different_folders_have_different_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("catsweep.tracking.trackio_logger.find_spec", lambda name: name)
    places = ("outputs/runs/2026-11-28/12-00-00", "outputs/cats/mine/longer", "outputs/cats/other/longer", "/x/test")
    made = [trackio_logger(Path(one), project="catsweep", save_dir="outputs", system=True) for one in places]
    assert [one.version for one in made] == ["2026-11-28 12-00-00", "cats mine longer", "cats other longer", "x test"]


def test_without_the_package_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain = importlib.util.find_spec
    monkeypatch.setattr(
        "catsweep.tracking.trackio_logger.find_spec", lambda name: None if name == "trackio" else plain(name)
    )
    with pytest.raises(ConfigError, match=r"pip install 'catsweep\[trackio\]'"):
        trackio_logger(tmp_path, project="catsweep", save_dir=str(tmp_path), system=True)
