"""GPUs that are not there, and whether a sweep and a run speak of them."""

import platform
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from catsweep import runs
from catsweep.idle_gpus import Hint
from steady import resources
from steady.run.job_factory import ENGINES

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed(*words: str) -> DictConfig:
    """The configuration as Hydra hands it to its callbacks."""
    runs.register()  # as src/train.py does
    plain = [word for word in words if "," not in word and "(" not in word]
    with initialize_config_dir(str(CONF)):
        cfg = compose("train", ["hparams_search=vae_optuna", *plain], return_hydra_config=True)
    with open_dict(cfg.hydra):  # `compose` leaves them empty
        cfg.hydra.overrides.task = [word for word in words if not word.startswith("hydra.")]
        cfg.hydra.overrides.hydra = [word for word in words if word.startswith("hydra.")]
    return cfg


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.parametrize(
    ("words", "many"),
    [
        ([], 7), (["trainer=cpu"], 7), (["trainer=gpu"], 2), (["trainer.accelerator=cuda"], 2), (["trainer=ddp"], 2),
        (["hydra.sweeper.gpus=1"], 1), (["trainer=gpu", "hydra.sweeper.gpus=[1]"], 1),
        (["trainer=cpu,gpu"], 2), (["trainer.accelerator=choice(cpu,gpu)"], 2),
    ],
)  # fmt: skip
def test_a_sweep_has_slots_by_what_it_trains_on(words: list[str], many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 7)
    monkeypatch.setattr(resources, "MEMORY_PER_SLOT", 1.0)
    assert resources.slots("auto", composed(*words).hydra.sweeper.gpus, 1.0) == many


def test_a_trainer_that_the_space_searches_may_be_a_gpu() -> None:
    cfg = composed()
    with open_dict(cfg.hydra):
        cfg.hydra.sweeper.params.trainer = "choice(cpu, gpu)"
    assert cfg.hydra.sweeper.gpus == "auto"


@pytest.mark.parametrize(
    ("start", "more"),
    [
        ("on_run_start", ""),
        ("on_multirun_start", " (for a new study; hydra.sweeper.gpus_per_slot=0.25 trains four trials on each)"),
    ],
)
def test_a_gpu_that_nobody_has_asked_for_is_told_of(start: str, more: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(Hint(), start)(composed())
    told = f"2 GPUs are there, and this trains on the processor. Choose trainer=gpu{more} or trainer=cpu.\n"
    assert capsys.readouterr().out == told


@pytest.mark.parametrize(
    "word",
    ["trainer=cpu", "trainer=gpu", "trainer.accelerator=cpu", "trainer=ddp", "trainer.accelerator=auto",
     "hydra.sweeper.gpus=0", "trainer=cpu,gpu"],
)  # fmt: skip
def test_who_has_chosen_is_told_nothing(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    Hint().on_multirun_start(composed(word))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("launcher", ENGINES)
def test_where_trials_run_on_other_machines_this_one_has_no_say(
    launcher: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = composed()
    with open_dict(cfg.hydra):
        cfg.hydra.launcher._target_ = launcher
    Hint().on_multirun_start(cfg)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("machine", "told"), [("arm64", "A GPU is there"), ("x86_64", "")])
def test_a_mac_is_known_by_its_processor(
    machine: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    Hint().on_run_start(composed())
    said = capsys.readouterr().out
    assert told in said
    assert bool(told) == bool(said)
