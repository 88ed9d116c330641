import json
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from catsweep.errors import ConfigError
from catsweep.tracking.loggers import build, finish, log_config, resolve_mode, run_id, summarise
from catsweep.tracking.media import log_images

CARD = {"extractor": "efficientnet_lite0", "samples": 512}
KEY = "0123456789abcdef" * 2 + "01234567"  # 40 characters, as a key has; belongs to nobody


@pytest.fixture
def signed_out(monkeypatch, tmp_path):
    """A user without a key, and a wandb that has not yet looked."""
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)
    wandb.teardown()
    yield
    wandb.teardown()
    # Set by an offline run; monkeypatch, which saw it last without a value, removes only what it has set itself.
    os.environ.pop("WANDB_ERROR_REPORTING", None)


@pytest.fixture
def logger_node(root, tmp_path):
    """The configuration of a logger by its name, recording into the test's folder."""

    def load(name):
        cfg = OmegaConf.load(root / "conf" / "logger" / f"{name}.yaml")
        if name == "wandb":
            cfg.save_dir = str(tmp_path / "outputs")
        return cfg

    return load


@pytest.fixture
def node(logger_node):
    return logger_node("wandb")


def records(folder):
    """Read an offline run with wandb's own reader, as a dictionary from record type to records."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    found = {}
    for line in done.stdout.splitlines():
        record = json.loads(line)
        found.setdefault(record["type"], []).append(record[record["type"]])
    return found


def merged(updates):
    return {name: value for update in updates for name, value in update.get("update", {}).items()}


def recorded(node, run_dir, study=None, trial=None, fid=7.0):
    """A whole run's worth of logging."""
    loggers = build(node, run_dir, study, trial)
    log_config(loggers, OmegaConf.create({"seed": 1, "model": {"latent_size": 16}, "twice": "${seed}"}))
    for step in (10, 20):
        for logger in loggers:
            logger.log_metrics({"val/fid": 100.0 - step}, step=step)
    log_images(loggers, "samples", np.arange(192, dtype=np.uint8).reshape(8, 8, 3), step=20)
    summarise(loggers, {"val/fid": fid}, {"val/fid": CARD})
    finish(loggers)


@pytest.mark.usefixtures("signed_out")
def test_wandb_reads_back_what_an_offline_run_recorded(node, tmp_path, capfd):
    recorded(node, tmp_path / "outputs" / "cats" / "3", study="cats", trial=3)
    assert capfd.readouterr() == ("", "")  # silent

    [folder] = (tmp_path / "outputs" / "wandb").glob("offline-run-*")
    assert folder.name.endswith("-cats-3-" + run_id("cats/3")[-8:])
    found = records(folder)

    [run] = found["run"]
    assert (run["project"], run["run_group"], run["job_type"]) == ("catsweep", "cats", "trial")
    assert (run["run_id"], run["display_name"]) == (run_id("cats/3"), "cats 3")

    config = merged(found["config"])
    assert (config["seed"], config["twice"], config["model"]) == (1, 1, {"latent_size": 16})
    assert config["cards"] == {"val/fid": CARD}

    history = [item["item"] for item in found["history"]]
    assert [(row["trainer/global_step"], row["val/fid"]) for row in history if "val/fid" in row] == [(10, 90), (20, 80)]
    assert merged(found["summary"])["val/fid"] == 7.0  # the checkpoint that counts, not the last value

    [picture] = [row for row in history if "samples._type" in row]
    assert picture["trainer/global_step"] == 20
    with Image.open(folder / "files" / picture["samples.filenames"][0]) as image:
        assert np.array_equal(np.asarray(image), np.arange(192).reshape(8, 8, 3))
    assert [end["exit_code"] for end in found["exit"]] == [0]


@pytest.mark.usefixtures("signed_out")
def test_a_resumed_run_continues_its_id_and_each_job_of_a_process_gets_its_own_run(node, tmp_path):
    outputs = tmp_path / "outputs"
    for trial in (0, 1, 0):
        recorded(node, outputs / "cats" / str(trial), study="cats", trial=trial)
    folders = sorted((outputs / "wandb").glob("offline-run-*"), key=lambda folder: folder.stat().st_mtime_ns)
    assert len(folders) == 3
    ids = [records(folder)["run"][0]["run_id"] for folder in folders]
    assert sorted(ids) == sorted([run_id("cats/0"), run_id("cats/0"), run_id("cats/1")])
    assert wandb.run is None

    # `wandb sync` finds all of them, and knows that they are not online yet.
    sync = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", "--dry-run", str(outputs / "wandb")],
        capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Would sync 3 run(s)" in sync.stderr


OFFLINE_JOBS = """
import random, sys, time
import numpy, torch
from pathlib import Path
from omegaconf import OmegaConf
from catsweep.tracking.loggers import build, finish, log_config, summarise
from catsweep.tracking.media import log_images

def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

before = states()
for trial in range(2):
    loggers = build(OmegaConf.load(sys.argv[1]), Path("outputs/cats") / str(trial), "cats", trial)
    log_config(loggers, OmegaConf.create({"seed": 1}))
    log_images(loggers, "samples", numpy.zeros((8, 8, 3), numpy.uint8), step=1)
    summarise(loggers, {"val/fid": 1.0}, {})
    finish(loggers)
assert states() == before, "logging drew a random number"
"""


def test_an_offline_process_is_silent_reads_no_input_draws_no_number_and_opens_no_connection(root, tmp_path):
    """In a process of its own: wandb's service inherits the environment, and talks at exit if at all."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", OFFLINE_JOBS, str(root / "conf" / "logger" / "wandb.yaml")],
            cwd=tmp_path,
            stdin=subprocess.PIPE,  # a prompt would wait for ever
            capture_output=True,
            text=True,
            env={
                "PATH": "/usr/bin:/bin", "PYTHONPATH": str(root / "src"), "HOME": str(tmp_path),
                "WANDB_BASE_URL": here, "HTTP_PROXY": here, "HTTPS_PROXY": here, "ALL_PROXY": here,
            },
        )  # fmt: skip
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody waits at the door
            server.accept()
    assert len(list((tmp_path / "outputs" / "wandb").glob("offline-run-*"))) == 2


@pytest.mark.usefixtures("signed_out")
@pytest.mark.parametrize("name", ["wandb", "csv", "none"])
def test_no_logger_touches_the_random_state(logger_node, tmp_path, name):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    recorded(logger_node(name), tmp_path / "outputs" / "run")
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())


class Dropper(pl.LightningModule):
    """One layer and a dropout, so that every step of training draws from the random state."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(4, 1))

    def training_step(self, batch, _):
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.usefixtures("signed_out")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_training_comes_out_the_same_with_any_logger(logger_node, tmp_path):
    weights = []
    for name in ("none", "csv", "wandb"):
        loggers = build(logger_node(name), tmp_path / "outputs" / "run")
        pl.seed_everything(3, verbose=False)
        model = Dropper()
        trainer = pl.Trainer(
            max_epochs=3, accelerator="cpu", logger=loggers or False, log_every_n_steps=1, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, DataLoader(torch.arange(32.0).view(8, 4) / 32, batch_size=2, shuffle=True))
        finish(loggers)
        weights.append(model.layer[1].weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])
    assert len(list(tmp_path.glob("outputs/wandb/offline-run-*"))) == 1


@pytest.mark.usefixtures("signed_out")
def test_auto_is_online_when_wandb_has_a_key(monkeypatch, tmp_path, capfd):
    assert resolve_mode("auto") == "offline"
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert resolve_mode("auto") == "online"
    assert resolve_mode("offline") == "offline"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("signed_out")
@pytest.mark.parametrize(("value", "mode"), [("offline", "offline"), ("dryrun", "offline"), ("disabled", "disabled")])
def test_auto_follows_the_users_own_setting(monkeypatch, value, mode):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_MODE", value)
    assert resolve_mode("auto") == mode


@pytest.mark.usefixtures("signed_out")
def test_a_malformed_key_and_an_unknown_mode_are_refused(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ConfigError, match=r"logger\.mode=offline"):
        resolve_mode("auto")
    with pytest.raises(ConfigError, match="got 'sometimes'"):
        resolve_mode("sometimes")


@pytest.mark.usefixtures("signed_out")
def test_a_server_that_cannot_be_reached_makes_an_auto_run_offline(node, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    start, modes = wandb.init, []

    def unreachable(**arguments):
        modes.append(arguments["mode"])
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no route")
        return start(**arguments)

    monkeypatch.setattr(wandb, "init", unreachable)
    recorded(node, tmp_path / "outputs" / "run")
    assert modes == ["online", "offline"]
    assert "recorded offline: no route" in caplog.text

    node.mode = "online"
    with pytest.raises(wandb.errors.CommError):
        recorded(node, tmp_path / "outputs" / "run")


@pytest.mark.usefixtures("signed_out")
def test_disabled_writes_nothing(node, tmp_path):
    node.mode = "disabled"
    recorded(node, tmp_path / "outputs" / "run")
    assert not list(tmp_path.rglob("*.wandb"))


def test_outside_a_study_the_run_folder_names_the_run(node, tmp_path):
    node.mode = "disabled"
    run_dir = tmp_path / "outputs" / "runs" / "2026-11-22" / "10-00-00"
    [logger] = build(node, run_dir)
    init = logger._wandb_init
    assert init["id"] == run_id("runs/2026-11-22/10-00-00")
    assert (init["name"], init["group"], init["job_type"]) == ("10-00-00", None, "train")
    [elsewhere] = build(node, Path("/other/place"))
    assert re.fullmatch(r"other-place-[0-9a-f]{8}", elsewhere._wandb_init["id"])


@given(st.text(min_size=1, max_size=200))
def test_an_id_is_plain_and_short(name):
    assert re.fullmatch(r"[a-z0-9](-?[a-z0-9]+)*", run_id(name))
    assert len(run_id(name)) <= 64


@given(st.text("aA-_/1", max_size=5), st.text("aA-_/1", max_size=5))
def test_different_names_have_different_ids(one, other):
    assert (run_id(one) == run_id(other)) == (one == other)


def test_none_is_no_logger(logger_node, tmp_path):
    assert build(logger_node("none"), tmp_path) == []


def test_csv_keeps_the_table_of_each_session(logger_node, tmp_path):
    for _ in range(2):
        loggers = build(logger_node("csv"), tmp_path)
        assert isinstance(loggers[0], CSVLogger)
        loggers[0].log_metrics({"val/fid": 3.0}, step=1)
        log_images(loggers, "samples", np.zeros((8, 8, 3), np.uint8), step=1)
        summarise(loggers, {"val/fid": 3.0}, {})
        finish(loggers)
    tables = sorted(tmp_path.glob("csv/version_*/metrics.csv"))
    assert [table.read_text().splitlines() for table in tables] == [["step,val/fid", "1,3.0"]] * 2
