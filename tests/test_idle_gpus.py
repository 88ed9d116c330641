"""GPUs that are not there, and whether a sweep and a run speak of them."""

import platform
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, open_dict

from catsweep import runs
from catsweep.idle_gpus import Hint
from steady import resources

CONF = Path(__file__).resolve().parents[1] / "conf"


def composed(*words: str) -> DictConfig:
    """The configuration as Hydra hands it to its callbacks."""
    runs.register()  # as src/train.py does
    with initialize_config_dir(str(CONF)):
        cfg = compose("train", ["hparams_search=vae_optuna", *words], return_hydra_config=True)
    with open_dict(cfg.hydra):
        cfg.hydra.overrides.task = list(words)  # `compose` leaves it empty
    return cfg


@pytest.fixture(autouse=True)
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")


@pytest.mark.parametrize(
    ("words", "many"),
    [
        ([], 7), (["trainer=cpu"], 7), (["trainer=gpu"], 2), (["trainer.accelerator=cuda"], 2), (["trainer=ddp"], 2),
        (["hydra.sweeper.gpus=1"], 1), (["trainer=gpu", "hydra.sweeper.gpus=[1]"], 1),
    ],
)  # fmt: skip
def test_a_sweep_has_slots_by_what_it_trains_on(words: list[str], many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "cores", lambda: 7)
    monkeypatch.setattr(resources, "MEMORY_PER_SLOT", 1.0)
    assert resources.slots("auto", composed(*words).hydra.sweeper.gpus, 1.0) == many


@pytest.mark.parametrize("start", ["on_run_start", "on_multirun_start"])
def test_a_gpu_that_nobody_has_asked_for_is_told_of(start: str, capsys: pytest.CaptureFixture[str]) -> None:
    getattr(Hint(), start)(composed())
    assert capsys.readouterr().out == (
        "This trains on the processor, and leaves 2 GPUs idle. To train there: trainer=gpu.\n"
    )


@pytest.mark.parametrize(
    "words",
    [["trainer=cpu"], ["trainer=gpu"], ["trainer.accelerator=cpu"], ["trainer=ddp"], ["trainer.accelerator=auto"]],
)
def test_who_has_chosen_is_told_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Hint().on_run_start(composed(*words))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("machine", "told"), [("arm64", "leaves its GPU idle"), ("x86_64", "")])
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
