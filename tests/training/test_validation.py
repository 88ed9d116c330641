"""When evaluations come: a bounded share of the time whatever the number of photos, and at each rung."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from catsweep.instantiation import instantiate
from catsweep.training import fit, trainer
from catsweep.training.validation import IMAGES, TimedValidation, budget_used, epochs_between, lightning_keys
from catsweep.usage import Unit, Usage
from steady.reporting import TrialReporter


@pytest.mark.parametrize(
    ("eval_every", "epochs", "limit", "photos", "every"),
    [
        (5, 20, None, 180, 5), (5, 3, None, 180, 3), (5, 20, 2.0, 180, 5),
        ("auto", 100, None, 180, 44), ("auto", 20, None, 180, 20), ("auto", 20, None, 1350, 6),
        ("auto", 20, None, 8373, 1), ("auto", 20, None, 90_000, 1), ("auto", 20, 2.0, 180, None),
    ],
)  # fmt: skip
def test_epochs_between_two_evaluations(
    eval_every: int | str, epochs: int, limit: float | None, photos: int, every: int | None
) -> None:
    assert epochs_between(eval_every, epochs, limit, photos) == every


class Run:
    """A run by a clock of its own: steps of some seconds, evaluations that cost some, both as Lightning has them."""

    def __init__(
        self, step: float, cost: float, minutes: float, batches: int, rungs: tuple[float, ...] = (),
        unit: Unit = "seconds", limit: float | None = None,
    ) -> None:  # fmt: skip
        self.now, self.step, self.cost, self.total = 0.0, step, cost, 60 * minutes
        self.usage = Usage(unit, limit or self.total, lambda: self.now, lambda: self.now / 2)
        self.trainer: Any = SimpleNamespace(
            max_epochs=10**6, current_epoch=0, num_training_batches=batches, world_size=1, is_global_zero=True,
            callbacks=[self.usage], val_check_batch=None, should_stop=False,
            strategy=SimpleNamespace(broadcast=lambda value, src: value, root_device=torch.device("cpu")),
        )  # fmt: skip
        self.usage.on_train_start(self.trainer, None)  # type: ignore[arg-type]  # unread
        self.schedule = TimedValidation(rungs)

    def evaluations(self) -> Iterator[float]:
        """When each begins."""
        self.schedule.on_train_start(self.trainer, None)  # type: ignore[arg-type]  # unread
        while self.now < self.total:
            for batch in range(self.trainer.num_training_batches):
                self.usage.on_train_batch_start(self.trainer, None, range(16), batch)  # type: ignore[arg-type]
                self.now += self.step
                self.schedule.on_train_batch_end(self.trainer, None, None, None, batch)  # type: ignore[arg-type]
                if self.trainer.val_check_batch == 1:
                    yield self.now
                    self.now += self.cost
                if self.now >= self.total:
                    break
            self.trainer.current_epoch += 1


# Steps of 16 photos at 120 a second: 200 photos (11 batches) and 9,303 (523) are evaluated at the same times.
@pytest.mark.parametrize("batches", [11, 523])
def test_few_and_many_photos_are_evaluated_alike(batches: int) -> None:
    at = list(Run(step=0.133, cost=4.0, minutes=10, batches=batches).evaluations())
    assert len(at) == pytest.approx(14, abs=1)
    assert at[0] == pytest.approx(60, abs=1)
    assert all(b - a > 36 for a, b in pairwise(at))


@given(st.floats(0.01, 5), st.floats(0.1, 60), st.floats(1, 600), st.integers(1, 1000))
def test_evaluations_take_a_tenth_of_the_time_at_most(step: float, cost: float, minutes: float, batches: int) -> None:
    run = Run(step=max(step, minutes / 50), cost=cost, minutes=minutes, batches=batches)
    number = len(list(run.evaluations()))
    # Whatever the last one took cannot be known before it.
    assert (number - 1) * cost <= 0.1 * run.total + 1e-6
    assert number <= 20


def test_there_is_one_at_each_rung_once() -> None:
    run = Run(step=0.1, cost=20.0, minutes=10, batches=700, rungs=(0.05, 0.25, 0.5))
    at = list(run.evaluations())
    for rung in (30, 150, 300):
        assert [t for t in at if rung <= t < rung + 0.2]
    assert len(at) <= 6


def test_a_resumed_run_is_not_evaluated_at_rungs_that_it_has_passed() -> None:
    run = Run(step=0.1, cost=1.0, minutes=10, batches=700, rungs=(0.1, 0.5))
    run.now = 200.0
    assert next(run.evaluations()) == pytest.approx(260, abs=1)


def test_a_run_that_goes_on_with_a_larger_budget_is_evaluated_by_the_shares_of_that() -> None:
    run = Run(step=0.1, cost=1.0, minutes=4, batches=700, rungs=(0.1, 0.5))
    assert max(run.evaluations()) > 200
    longer = Run(step=0.1, cost=1.0, minutes=8, batches=700, rungs=(0.1, 0.5))
    longer.now = run.now
    longer.schedule.load_state_dict(run.schedule.state_dict())
    assert next(longer.evaluations()) == pytest.approx(240 + 48, abs=1)


@pytest.mark.parametrize(("step", "cost"), [(0.1, 1.0), (5.0, 90.0)])
def test_a_budget_of_samples_is_evaluated_at_the_same_steps_however_long_they_take(step: float, cost: float) -> None:
    run = Run(step, cost, 10**6, batches=50, rungs=(0.1, 0.5), unit="samples", limit=20 * IMAGES)
    evaluations = run.evaluations()
    at = [(next(evaluations), run.usage.used()["samples"])[1] / IMAGES for _ in range(18)]
    assert at == pytest.approx(range(2, 20), abs=0.05)  # the rungs are among them: 2 and 10


def test_a_rung_right_after_an_evaluation_is_not_missed() -> None:
    run = Run(0.1, 1.0, 10**6, batches=50, rungs=(0.1001,), unit="samples", limit=20 * IMAGES)
    evaluations = run.evaluations()
    at = [(next(evaluations), run.usage.used()["samples"])[1] for _ in range(2)]
    assert at == [2 * IMAGES, 2 * IMAGES + 16 * 1]


def test_a_budget_of_few_samples_is_evaluated_at_its_rungs() -> None:
    run = Run(0.1, 1.0, 1, batches=50, rungs=(0.1, 0.5), unit="samples", limit=9600)
    assert [now / 0.1 for now in run.evaluations()] == pytest.approx([60, 310], abs=15)


def test_a_budget_of_processor_seconds_leaves_out_what_others_took() -> None:
    run = Run(step=0.1, cost=0.0, minutes=20, batches=700, rungs=(0.25,), unit="cpu_seconds", limit=600)
    assert [at for at in run.evaluations() if 300 <= at < 300.2]  # half of the seconds are those of the processor


def test_several_processes_agree_now_and_then() -> None:
    run = Run(step=100.0, cost=1.0, minutes=10**4, batches=40, rungs=(0.0001,))
    run.trainer.world_size = 2
    assert next(run.evaluations()) == 1600  # the sixteenth step
    run.trainer.is_global_zero, run.trainer.strategy.broadcast = False, lambda value, src: (True, None)
    run.schedule.on_train_batch_end(run.trainer, None, None, None, 15)  # type: ignore[arg-type]
    assert run.trainer.val_check_batch == 1


def test_a_budget_is_of_epochs_or_of_time_whichever_is_more() -> None:
    run = Run(step=1.0, cost=1.0, minutes=1, batches=4)
    run.now, run.trainer.max_epochs = 15.0, 10
    assert budget_used(run.trainer, 1.0) == 0.25
    assert budget_used(run.trainer, 5.0) == 0.5
    run.trainer.callbacks = []
    assert budget_used(run.trainer, 1.0) == 0.1


class Steps(pl.Callback):
    """The steps after which there was an evaluation."""

    def __init__(self) -> None:
        self.at: list[int] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.at.append(trainer.fit_loop.epoch_loop.total_batch_idx + 1)


@pytest.mark.trains
def test_lightning_validates_within_an_epoch_and_once_more_at_the_end(
    compose: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TimedValidation, "is_due", lambda self, trainer, epochs: round(epochs * 5) in (2, 7))
    plain, steps = trainer.build_callbacks, Steps()
    monkeypatch.setattr(trainer, "build_callbacks", lambda *args: [*plain(*args), steps])
    cfg = compose("eval_every=auto", "minutes=60", "epochs=3")
    fit.run(cfg, tmp_path)
    assert steps.at == [2, 7]
    assert (tmp_path / "checkpoints/best.ckpt").exists()
    assert lightning_keys(3) == {"check_val_every_n_epoch": 3}


def test_a_run_and_a_trial_are_evaluated_at_the_same_times(compose: Callable[..., DictConfig], tmp_path: Path) -> None:
    cfg = compose("eval_every=auto", "minutes=60", "rungs=[0.2,0.7]")
    scorer = instantiate(cfg.metrics)(ready=instantiate(cfg.data).ready)
    for reporter in (None, TrialReporter(optuna.create_study(), 0)):
        made = trainer.build_callbacks(cfg, tmp_path, scorer, False, reporter)
        assert [one.rungs for one in made if isinstance(one, TimedValidation)] == [[0.2, 0.7]]
