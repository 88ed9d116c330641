"""What runs record, read back from the offline files of one process, which also has to be silent and alone."""

import json
import os
import random
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from torch.utils.data import DataLoader

from catsweep.errors import ConfigError
from catsweep.tracking.loggers import build, finish, log_config, run_id, summarise, watch
from catsweep.training.callbacks import log_images

CARD = {"extractor": "efficientnet_lite0", "samples": 512}
Node = Callable[[str], DictConfig]

# What a process records: trial 3, killed at step 20 and taken up again at 15; a confirmation; a single run. The number
# of runs is what makes it slow, so each shows several things.
PROCESS = """
import random, sys, time
import numpy, torch
from pathlib import Path
from omegaconf import OmegaConf
from catsweep.tracking import loggers
from catsweep.tracking.loggers import build, finish, log_config, summarise, watch
from catsweep.training.callbacks import log_images

def states():
    return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

def node(**changes):
    written = OmegaConf.load(sys.argv[1])
    del written["defaults"]  # which Hydra composes
    return OmegaConf.merge(written, changes)

def scored(log_to, fid):
    summarise(log_to, {"val/fid": fid, "val/kid": 0.5}, {"val/fid": {"extractor": "efficientnet_lite0"}}, ["val/fid"])

before = states()
loggers.choices = lambda: {"model": "vae", "data": "photos", "loss": "l1_ssim", "depth": "deep"}  # Hydra's, in a job
cfg = OmegaConf.create({"seed": 1, "model": {"latent_size": 16}, "twice": "${seed}"})
picture = numpy.arange(192, dtype=numpy.uint8).reshape(8, 8, 3)

for attempt, steps in enumerate([(10, 20), (15, 30)]):
    log_to = build(node(tags=["mine"]), Path("outputs/cats/3"), "cats", 3)
    log_config(log_to, cfg)
    for step in steps:
        log_to[0].log_metrics({"val/kid": 100.0 - step}, step=step)
    if attempt == 0:
        finish(log_to, "interrupted")
        time.sleep(1.0)  # wandb names the folder of a record by the second
    else:
        log_images(log_to, "samples", picture, step=30)
        scored(log_to, 7.0)
        finish(log_to)

log_to = build(node(system=False, watch="gradients"), Path("outputs/cats/confirm/0"), "cats.confirm", 0)
torch.manual_seed(0)
model = torch.nn.Linear(2, 1)
torch.set_rng_state(torch.tensor(before[2], dtype=torch.uint8))
loggers.WATCH_EVERY = 1
watch(log_to, model)
model(torch.ones(1, 2)).sum().backward()
log_to[0].log_metrics({"train/loss": 1.0}, step=1)
finish(log_to, "failed")

assert states() == before, "logging drew a random number"
"""


@dataclass(frozen=True)
class Recorded:
    done: subprocess.CompletedProcess[str]
    connected: bool
    outputs: Path
    records: list[Any]


@pytest.fixture(scope="module")
def recorded(root: Path, tmp_path_factory: pytest.TempPathFactory, read_all: Callable[[Path], list[Any]]) -> Recorded:
    """In a process of its own: wandb's service inherits the environment, and talks at exit if at all."""
    place = tmp_path_factory.mktemp("recorded")
    with socket.create_server(("127.0.0.1", 0)) as server:
        here = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, str(root / "conf" / "logger" / "wandb.yaml")],
            cwd=place,
            stdin=subprocess.PIPE,  # a prompt would wait for ever
            capture_output=True,
            text=True,
            env={
                "PATH": "/usr/bin:/bin", "PYTHONPATH": str(root / "src"), "HOME": str(place / "home"),
                "WANDB_BASE_URL": here, "HTTP_PROXY": here, "HTTPS_PROXY": here, "ALL_PROXY": here,
            },
        )  # fmt: skip
        server.settimeout(0)
        try:
            server.accept()
            connected = True
        except BlockingIOError:  # nobody waits at the door
            connected = False
    return Recorded(done, connected, place / "outputs", read_all(place / "outputs"))


def test_an_offline_process_is_silent_reads_no_input_draws_no_number_and_opens_no_connection(
    recorded: Recorded,
) -> None:
    assert (recorded.done.returncode, recorded.done.stdout, recorded.done.stderr) == (0, "", "")
    assert not recorded.connected
    assert not list(recorded.outputs.parent.glob("home/.local/**/*.json"))  # its files wait beside the runs


def test_a_trial_is_a_run_of_its_studys_group_with_its_options_as_tags(recorded: Recorded) -> None:
    first = recorded.records[0]
    assert (first.run["project"], first.run["run_group"], first.run["job_type"]) == ("catsweep", "cats", "trial")
    assert (first.run["run_id"], first.run["display_name"]) == (run_id("cats/3"), "cats 3")
    assert first.run["tags"] == ["vae", "photos", "l1_ssim", "mine"]
    assert first.config["choices"]["depth"] == "deep"
    assert (first.config["seed"], first.config["twice"], first.config["model"]) == (1, 1, {"latent_size": 16})
    assert (first.summary["outcome"], first.exit_code) == ("interrupted", 0)


def test_a_resumed_trial_continues_its_run_also_offline(recorded: Recorded) -> None:
    first, second = recorded.records[:2]
    assert first.run["run_id"] == second.run["run_id"]
    # What `wandb sync` appends by: without it the second part would replace the first.
    assert first.run["resume"]
    assert second.run["resume"]
    # wandb's own count would begin with 0 again, and the server would take the second part's rows for the first's.
    steps = [[row["_step"] for row in part.history] for part in (first, second)]
    assert steps == [[10, 20], [15, 30]]
    assert all(row["_step"] == row["trainer/global_step"] for row in first.history + second.history)


def test_the_summary_is_of_the_checkpoint_that_counts(recorded: Recorded) -> None:
    second = recorded.records[1]
    assert second.history[-1]["val/kid"] == 70.0  # the last value, in the row that was open
    assert {name: second.summary[name] for name in ("val/fid", "val/kid", "objective", "outcome")} == {
        "val/fid": 7.0, "val/kid": 0.5, "objective": 7.0, "outcome": "complete",
    }  # fmt: skip
    assert (second.history[-1]["val/fid"], second.history[-1]["objective"]) == (7.0, 7.0)  # for sweeps of W&B
    assert second.config["cards"] == {"val/fid": {"extractor": "efficientnet_lite0"}}


def test_a_grid_is_a_picture_at_its_step(recorded: Recorded) -> None:
    second = recorded.records[1]
    [row] = [row for row in second.history if "samples._type" in row]
    assert row["_step"] == 30
    with Image.open(second.folder / "files" / row["samples.filenames"][0]) as image:
        assert np.array_equal(np.asarray(image), np.arange(192).reshape(8, 8, 3))


def test_a_confirmation_is_in_the_searchs_group_and_gradients_come_on_request(recorded: Recorded) -> None:
    last = recorded.records[2]
    assert (last.run["run_group"], last.run["job_type"], last.run["display_name"]) == (
        "cats",
        "confirm",
        "cats confirm 0",
    )
    assert last.run["run_id"] == run_id("cats.confirm/0")
    gradients = [name for row in last.history for name in row if name.startswith("gradients/")]
    assert {name.removeprefix("gradients/").split(".")[0] for name in gradients} == {"weight", "bias"}
    assert (last.summary["outcome"], last.exit_code) == ("failed", 1)


def test_the_machine_is_recorded_unless_switched_off(recorded: Recorded) -> None:
    first, _, last = recorded.records
    assert any("proc.memory.rssMB" in row["item"] for row in first.records["stats"])
    assert "stats" not in last.records


@pytest.mark.usefixtures("signed_out")
def test_a_new_study_of_an_old_name_has_records_of_its_own(logger_node: Node, tmp_path: Path) -> None:
    node: Any = OmegaConf.merge(logger_node("wandb"), {"mode": "disabled"})
    ids = []
    for record in ({"record": "0f"}, {"record": "0f", "earlier": [{}]}, {"record": "1e"}, {"record": None}):
        (tmp_path / "provenance.json").write_text(json.dumps(record))
        logger: Any
        [logger] = build(node, tmp_path, "cats", 3)
        ids.append(logger._wandb_init["id"])
    assert ids == [run_id("cats/3/0f"), run_id("cats/3/0f"), run_id("cats/3/1e"), run_id("cats/3")]


@pytest.mark.usefixtures("signed_out")
def test_outside_a_study_the_run_folder_names_the_run(logger_node: Node, tmp_path: Path) -> None:
    node = logger_node("wandb")
    node.mode = "disabled"
    logger: Any
    [logger] = build(node, tmp_path / "outputs" / "runs" / "2026-11-22" / "10-00-00")
    init = logger._wandb_init
    assert init["id"] == run_id("runs/2026-11-22/10-00-00")
    assert (init["name"], init["group"], init["job_type"], init["tags"]) == ("10-00-00", None, "train", [])
    elsewhere: Any
    [elsewhere] = build(node, Path("/other/place"))
    assert re.fullmatch(r"other-place-[0-9a-f]{8}", elsewhere._wandb_init["id"])


@pytest.mark.usefixtures("signed_out")
def test_the_user_has_the_last_word_on_names(logger_node: Node, tmp_path: Path) -> None:
    node: Any = OmegaConf.merge(
        logger_node("wandb"), {"mode": "disabled", "name": "n", "group": "g", "job_type": "j", "tags": ["t", "t"]}
    )
    logger: Any
    [logger] = build(node, tmp_path, "cats", 3)
    init = logger._wandb_init
    assert (init["name"], init["group"], init["job_type"], init["tags"]) == ("n", "g", "j", ["t"])
    assert init["id"] == run_id("cats/3")


@pytest.mark.usefixtures("signed_out")
def test_what_cannot_be_watched_is_refused_with_what_can(logger_node: Node, tmp_path: Path) -> None:
    node = logger_node("wandb")
    node.watch = "losses"
    with pytest.raises(ConfigError, match="null, gradients, parameters or all; got 'losses'"):
        build(node, tmp_path)


@pytest.mark.usefixtures("signed_out")
def test_disabled_writes_nothing(logger_node: Node, tmp_path: Path) -> None:
    node = logger_node("wandb")
    node.mode, node.watch = "disabled", "all"
    loggers = build(node, tmp_path / "outputs" / "run")
    log_config(loggers, OmegaConf.create({"seed": 1}))
    watch(loggers, torch.nn.Linear(1, 1))
    log_images(loggers, "samples", np.zeros((8, 8, 3), np.uint8), step=1)
    summarise(loggers, {"val/fid": 1.0}, {"val/fid": CARD}, ["val/fid"])
    finish(loggers)
    assert not list(tmp_path.rglob("*.wandb"))
    assert wandb.run is None


def test_none_is_no_logger(logger_node: Node, tmp_path: Path) -> None:
    assert build(logger_node("none"), tmp_path) == []


def test_csv_keeps_the_table_of_each_session(logger_node: Node, tmp_path: Path) -> None:
    for _ in range(2):
        loggers = build(logger_node("csv"), tmp_path)
        assert isinstance(loggers[0], CSVLogger)
        loggers[0].log_metrics({"val/fid": 3.0}, step=1)
        log_images(loggers, "samples", np.zeros((8, 8, 3), np.uint8), step=1)
        watch(loggers, torch.nn.Linear(1, 1))
        summarise(loggers, {"val/fid": 3.0}, {}, ["val/fid"])
        finish(loggers)
    tables = sorted(tmp_path.glob("csv/version_*/metrics.csv"))
    assert [table.read_text().splitlines() for table in tables] == [["step,val/fid", "1,3.0"]] * 2


class Dropper(pl.LightningModule):
    """One layer and a dropout, so that every step of training draws from the random state."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Linear(4, 1))

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.usefixtures("signed_out")
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")
def test_training_comes_out_the_same_with_any_logger(logger_node: Node, tmp_path: Path) -> None:
    """Online stands for itself as `disabled`: the same calls, and a run that answers as one online does."""
    ends = []
    for name, changes in [
        ("none", {}), ("csv", {}), ("wandb", {"mode": "offline", "watch": "all"}), ("wandb", {"mode": "disabled"})
    ]:  # fmt: skip
        node: Any = OmegaConf.merge(logger_node(name), changes)
        loggers = build(node, tmp_path / "outputs" / "run")
        pl.seed_everything(3, verbose=False)
        model = Dropper()
        watch(loggers, model)
        trainer = pl.Trainer(
            max_epochs=3, accelerator="cpu", logger=loggers or False, log_every_n_steps=1, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        data: Any = torch.arange(32.0).view(8, 4) / 32
        trainer.fit(model, DataLoader(data, batch_size=2, shuffle=True))
        finish(loggers)
        ends.append(
            (
                model.layer.get_parameter("1.weight").tolist(),
                random.random(),
                float(np.random.rand()),
                float(torch.rand(1)),
            )
        )
    assert ends[1:] == ends[:1] * 3
    assert len(list(tmp_path.glob("outputs/wandb/offline-run-*"))) == 1
    assert "WANDB_MODE" not in os.environ
