"""What a training has used, and that each unit of the budget ends it; two tiny trainings under unequal load."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from catsweep import configuration, usage
from catsweep.errors import ConfigError
from catsweep.runs import LAST_CHECKPOINT, RunDir
from catsweep.training import fit, trainer
from catsweep.usage import Unit, Usage, limit, processor_seconds
from steady import reporting
from steady.storage import open_storage
from steady.study import results

pytestmark = pytest.mark.usefixtures("quick_scorers")
MODULE: Any = None  # the hooks do not read it


def a_trainer(device: str = "cpu", world_size: int = 1) -> Any:
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device(device), broadcast=lambda value, src: value),
        num_devices=world_size, num_nodes=1, world_size=world_size, is_global_zero=True, should_stop=False,
    )  # fmt: skip


class Machine:
    """A clock, and a processor that works half of the time."""

    def __init__(self) -> None:
        self.now = 100.0

    def usage(self, unit: Unit = "seconds", limit: float | None = None) -> Usage:
        return Usage(unit, limit, lambda: self.now, lambda: self.now / 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None), ({"minutes": 2}, 120), ({"minutes": 2, "budget_unit": "seconds"}, 120),
        ({"minutes": 0.5, "budget_unit": "cpu_seconds"}, 30),
        ({"samples": 640, "budget_unit": "samples"}, 640),
    ],
)  # fmt: skip
def test_a_budget_is_of_its_unit(given: dict[str, Any], expected: float | None) -> None:
    cfg = OmegaConf.create({"minutes": None, "samples": None, "budget_unit": None, **given})
    configuration.check_budget(cfg)
    assert limit(cfg) == expected


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget_unit": "samples"}, "got minutes=null samples=null"),
        ({"budget_unit": "samples", "samples": 640, "minutes": 2}, "got minutes=2 samples=640"),
        ({"samples": 640}, "samples=640 would bind nothing with budget_unit=null: add budget_unit=samples"),
        ({"budget_unit": "cpu_seconds"}, "add them, for example minutes=10"),
    ],
)
def test_a_budget_of_which_a_part_would_bind_nothing_is_refused(given: dict[str, Any], said: str) -> None:
    cfg = OmegaConf.create({"minutes": None, "samples": None, "budget_unit": None, **given})
    with pytest.raises(ConfigError, match=said):
        configuration.check_budget(cfg)


@pytest.mark.parametrize(("unit", "batches"), [("seconds", 4), ("cpu_seconds", 8), ("samples", 3)])
def test_the_run_ends_when_its_budget_is_used_up(unit: Unit, batches: int) -> None:
    machine, on = Machine(), a_trainer()
    counted = machine.usage(unit, 40)
    counted.on_train_start(on, MODULE)
    for batch in range(100):
        counted.on_train_batch_start(on, MODULE, range(16), batch)
        machine.now += 10
        counted.on_train_batch_end(on, MODULE)
        if on.should_stop:
            break
    assert batch + 1 == batches
    assert counted.used() == {"seconds": 10 * batches, "cpu_seconds": 5 * batches, "samples": 16 * batches}


def test_nothing_is_counted_after_the_end() -> None:
    machine, on = Machine(), a_trainer()
    counted = machine.usage()
    counted.on_train_start(on, MODULE)
    machine.now += 10
    counted.on_train_end(on, MODULE)
    machine.now += 10
    assert counted.used()["seconds"] == 10
    assert counted.share is None


def test_each_image_of_several_processes_counts_and_each_gpu() -> None:
    machine, on = Machine(), a_trainer("cuda", world_size=2)
    counted = machine.usage("samples", 100)
    counted.on_train_start(on, MODULE)
    counted.on_train_batch_start(on, MODULE, range(16), 0)
    machine.now += 3
    assert counted.used() == {"seconds": 3, "cpu_seconds": 1.5, "samples": 32, "gpu_wall_seconds": 6}
    assert counted.share == 0.32


def test_what_earlier_attempts_used_counts_also_that_of_an_earlier_version() -> None:
    machine, on = Machine(), a_trainer()
    before = machine.usage()
    before.on_train_start(on, MODULE)
    before.on_train_batch_start(on, MODULE, range(16), 0)
    machine.now += 30
    again = machine.usage("samples", 32)
    again.load_state_dict(before.state_dict())
    assert again.used() == {"seconds": 30, "cpu_seconds": 15, "samples": 16}
    old = machine.usage("seconds", 40)
    assert old.state_key == pl.callbacks.Timer().state_key
    old.load_state_dict({"time_elapsed": {"train": 50.0, "validate": 3.0}})
    old.on_fit_start(on, MODULE)  # nothing is left
    assert on.should_stop


def test_the_work_of_threads_and_of_children_that_have_ended_is_the_processors() -> None:
    before = processor_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.3: pass"], check=True)
    assert processor_seconds() - before >= 0.25


# With a real training


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Have every core wanted by others too."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


class Slow(pl.Callback):
    """Steps that wait, as if others had the processor, and the learning rates in them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rates: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_the_batch: Any) -> None:
        time.sleep(self.seconds)
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], Slow]:
    plain = trainer.build_callbacks

    def slow(seconds: float) -> Slow:
        made = Slow(seconds)
        monkeypatch.setattr(trainer, "build_callbacks", lambda *given: [*plain(*given), made])
        return made

    return slow


SAMPLES = ("budget_unit=samples", "samples=400", "minutes=null", "epochs=1000", "eval_every=auto", "schedule=linear")


@pytest.mark.trains
def test_a_budget_of_samples_is_the_same_on_a_busy_machine(
    compose: Callable[..., DictConfig], slowed: Callable[[float], Slow], tmp_path: Path
) -> None:
    quiet = slowed(0.0)
    values = fit.run(compose(*SAMPLES), tmp_path / "quiet")
    with busy(os.cpu_count() or 1):
        loaded = slowed(0.05)
        assert fit.run(compose(*SAMPLES), tmp_path / "busy") == values  # also the best checkpoint is
    found = [RunDir(tmp_path / name).metrics().content for name in ("quiet", "busy")]
    assert [one["samples"] for one in found] == [400, 400]
    assert found[1]["seconds"] >= 24 * 0.05
    assert quiet.rates == loaded.rates
    assert quiet.rates[-1] < 0.1 * max(quiet.rates)  # the schedule ends with the images, and not after 1000 epochs


@pytest.mark.trains
def test_a_budget_of_processor_seconds_does_not_count_what_others_took(
    compose: Callable[..., DictConfig], slowed: Callable[[float], Slow], tmp_path: Path
) -> None:
    slowed(0.1)
    fit.run(compose("budget_unit=cpu_seconds", "minutes=0.01", "epochs=1000", "eval_every=1000"), tmp_path)
    found = RunDir(tmp_path).metrics().content
    assert found["cpu_seconds"] >= 0.6
    assert found["seconds"] >= 0.1 * (found["samples"] // 16 - 1)
    assert found["seconds"] > found["cpu_seconds"]


@pytest.mark.trains
def test_a_trial_says_what_it_used_and_goes_on_counting(
    compose: Callable[..., DictConfig],
    slowed: Callable[[float], Slow],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(study_name="cats", storage=open_storage(url))
    study.ask()
    trial = ["trial.number=0", "trial.study=cats", f"trial.storage={url}", "rungs=[0.25,0.5]"]
    first = ["budget_unit=samples", "samples=160", "minutes=null", "epochs=1000", "eval_every=auto", *trial]
    cfg = compose(*first)
    fit.run(cfg, tmp_path / "0")
    reporting.flush()
    assert results.usage(study.trials[0])["samples"] == 160
    assert set(study.trials[0].user_attrs["steady:rungs"]) == {"1", "2"}
    # As a process that died before it was scored, and of which a larger budget is asked.
    (tmp_path / "0/metrics.json").unlink()
    state = torch.load(tmp_path / "0" / LAST_CHECKPOINT, weights_only=True)["callbacks"]["Timer"]
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, "steady:attempt", 1)
    fit.run(compose(*first, "samples=320", "trial.attempt=1"), tmp_path / "0")
    assert "starts afresh" not in caplog.text
    reporting.flush()
    used = results.usage(study.trials[0])
    assert used["samples"] == 320
    assert used["cpu_seconds"] > state["cpu_seconds"] > 0
    assert usage.limit(cfg) == 160
