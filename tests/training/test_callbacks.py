import copy
import io
import logging
import math
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from catsweep.devices import on_rank_zero
from catsweep.errors import ConfigError, DivergedError, TrainingError
from catsweep.metrics.scorer import Scorer
from catsweep.training.callbacks import (
    Collapse,
    EvaluationLine,
    FiniteLoss,
    LastCheckpoint,
    Progress,
    RandomState,
    diversity,
)


class Noisy(pl.LightningModule):
    """A weight that takes a random step each batch, and a loss that follows a script."""

    def __init__(self, losses=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.script = iter(losses)

    def training_step(self, batch, batch_index):
        loss = (self.weight * torch.randn(3)).sum() + batch.sum()
        self.log("train/loss", torch.tensor(next(self.script, 1.0)), on_epoch=True, on_step=False, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_index):
        self.log("val/loss", 2.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Loader:
    """Two batches; the first time it is gone through, it draws from the global random state."""

    def __init__(self):
        self.fresh = True

    def __len__(self):
        return 2

    def __iter__(self):
        if self.fresh:
            torch.rand(1)
        self.fresh = False
        return iter([torch.zeros(1), torch.zeros(1)])


@pytest.fixture
def fit(tmp_path):
    def run(callbacks, model=None, max_epochs=1, ckpt_path=None, **settings):
        model = model or Noisy()
        trainer = pl.Trainer(
            default_root_dir=tmp_path,
            max_epochs=max_epochs,
            accelerator="cpu",
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=any(isinstance(callback, LastCheckpoint) for callback in callbacks),
            enable_progress_bar=any(isinstance(callback, Progress) for callback in callbacks),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            **settings,
        )
        trainer.fit(model, Loader(), Loader(), ckpt_path=ckpt_path, weights_only=True)
        return model, trainer

    return run


# FiniteLoss


@pytest.mark.trains
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_run_in_its_epoch(fit, bad):
    model = Noisy([1.0, 1.0, 1.0, bad, 1.0, 1.0])
    with pytest.raises(
        TrainingError, match=r"diverged in epoch 2: \{'train/loss': -?(nan|inf)\}.*Lower the learning rate"
    ):
        fit([FiniteLoss()], model, max_epochs=3)
    assert len(list(model.script)) == 2


@pytest.mark.trains
def test_finite_losses_pass_and_other_values_are_not_its_business(fit):
    class Spoilt(Noisy):
        def validation_step(self, batch, batch_index):
            self.log("val/loss", math.nan)

    _, trainer = fit([FiniteLoss()], Spoilt(), max_epochs=2)
    assert trainer.current_epoch == 2


# Collapse


class Drawn(Scorer):
    """A scorer whose generator draws images of given varieties (standard deviations), one after another."""

    def __init__(self, *varieties):
        self.ready: Any = SimpleNamespace(images=self.images(200, 50.0).astype(np.uint8))
        self.script = iter(varieties)

    @staticmethod
    def images(n, deviation):
        return np.clip(128 + deviation * np.random.default_rng(0).standard_normal((n, 8, 8, 3)), 0, 255)

    def draw(self, model, n):
        torch.rand(1)
        return torch.from_numpy(self.images(n, next(self.script)))


def evaluate(callback, evaluations, rank=0, told=None, apart=100):
    progress = SimpleNamespace(total_batch_idx=callback.at - 1)
    trainer = SimpleNamespace(
        current_epoch=6, is_global_zero=rank == 0,
        strategy=SimpleNamespace(broadcast=lambda value, src: value if rank == src else told),
        fit_loop=SimpleNamespace(epoch_loop=progress),
    )  # fmt: skip
    for _ in range(evaluations):
        progress.total_batch_idx += apart
        callback.on_validation_epoch_end(trainer, None)


@pytest.mark.parametrize("end", [(0.1, 0.1), (0.0, 0.0), (0.5, 0.3)])
def test_a_generator_that_lost_its_variety_is_told_at_the_second_evaluation(end):
    callback = Collapse(Drawn(20.0, *end))
    evaluate(callback, 2)
    with pytest.raises(DivergedError, match=r"collapsed: in epoch 7 .* 0\.\d\d%"):
        evaluate(callback, 1)


@pytest.mark.parametrize(
    "varieties",
    [
        (1.5, 1.4, 1.3),  # little, but 3 % of the photos'
        (0.5, 0.51, 0.55, 0.7, 0.9, 1.5),  # as measured of a VAE without normalisation: it starts at 1 % and grows
        (20.0, 0.1, 5.0, 0.1, 5.0),  # one bad evaluation
        (20.0, 5.0, 2.0, 1.2),
    ],
)
def test_a_generator_with_weak_but_real_variety_goes_on(varieties):
    evaluate(Collapse(Drawn(*varieties)), len(varieties))


def test_evaluations_a_few_steps_apart_prove_no_collapse():
    # Trials of 0.1 minutes, whose averaged weights had hardly moved, were reported as collapsed.
    callback = Collapse(Drawn(0.2, 0.1, 0.1))
    evaluate(callback, 50, apart=2)
    with pytest.raises(DivergedError):
        evaluate(callback, 1, apart=100)


def test_a_resumed_run_remembers_the_last_variety():
    before = Collapse(Drawn(0.1))
    evaluate(before, 1)
    after = Collapse(Drawn(0.1))
    after.load_state_dict(before.state_dict())
    with pytest.raises(DivergedError):
        evaluate(after, 1)


def test_looking_for_a_collapse_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    callback = Collapse(Drawn(0.1, 0.1))
    assert callback.before is None
    evaluate(callback, 1)
    assert callback.before is not None
    assert torch.equal(torch.get_rng_state(), state)


def test_photos_that_are_all_the_same_prove_no_collapse():
    scorer = Drawn(0.0, 0.0)
    scorer.ready.images[:] = scorer.ready.images[0]
    evaluate(Collapse(scorer), 2)


def test_the_other_ranks_draw_nothing_and_end_too():
    callback = Collapse(Drawn())
    evaluate(callback, 1, rank=1, told=(0.001, None))
    with pytest.raises(DivergedError):
        evaluate(callback, 1, rank=1, told=(0.001, None))


def test_variety_is_that_of_each_pixel_over_the_images():
    images = torch.zeros(4, 2, 2, 1, dtype=torch.uint8)
    assert diversity(images + torch.tensor([[0], [255]], dtype=torch.uint8)) == 0  # a pattern, always the same
    images[::2] = 10
    assert diversity(images) == pytest.approx(torch.tensor([10.0, 0, 10, 0]).std().item())


# on_rank_zero


def ranks(act):
    """What rank 0 and rank 1 get, and how often it was done."""
    done, sent, got = list[None](), list[Any](), list[Any]()

    def once():
        done.append(None)
        return act()

    for rank in (0, 1):
        trainer: Any = SimpleNamespace(
            is_global_zero=rank == 0,
            strategy=SimpleNamespace(broadcast=lambda value, src: sent.append(value) or sent[0]),
        )
        try:
            got.append(on_rank_zero(trainer, once))
        except Exception as error:
            got.append(error)
    return got, len(done)


def test_what_rank_zero_finds_is_given_to_all():
    assert ranks(lambda: 3) == ([3, 3], 1)


def test_our_errors_reach_every_rank_as_they_are():
    (first, other), done = ranks(lambda: (_ for _ in ()).throw(ConfigError("no")))
    assert (type(first), type(other), str(other), done) == (ConfigError, ConfigError, "no", 1)


def test_errors_of_others_reach_the_other_ranks_as_a_message():
    (first, other), _ = ranks(lambda: 1 // 0)
    assert type(first) is ZeroDivisionError
    assert type(other) is TrainingError
    assert "ZeroDivisionError" in str(other)


# RandomState


class Save(pl.Callback):
    """A checkpoint at the end of the first epoch, like ModelCheckpoint's."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, model):
        if trainer.current_epoch == 0:
            trainer.save_checkpoint(self.path)


@pytest.mark.trains
def test_a_resumed_run_draws_what_the_undisturbed_one_drew(fit, tmp_path):
    checkpoint = tmp_path / "last.ckpt"
    torch.manual_seed(3)
    undisturbed, _ = fit([RandomState(), Save(checkpoint)], max_epochs=3)

    torch.manual_seed(4)
    resumed, _ = fit([RandomState()], max_epochs=3, ckpt_path=checkpoint)
    assert torch.equal(resumed.weight, undisturbed.weight)


class Written(LastCheckpoint):
    """Notes the epochs of which it is written; to write takes one second, and an epoch `seconds`."""

    def __init__(self, folder, seconds):
        super().__init__(folder, share=0.25, clock=lambda: self.now)
        self.seconds, self.now, self.epochs = seconds, 0.0, []

    def on_train_epoch_start(self, trainer, model):
        self.now += self.seconds

    def _save_checkpoint(self, trainer, filepath):
        super()._save_checkpoint(trainer, filepath)
        self.now += 1
        self.epochs.append(torch.load(filepath, weights_only=True)["epoch"])


class Ask(pl.Callback):
    """Asks a trial to stop in an epoch, or ends the run in it."""

    def __init__(self, name, epoch):
        self.name, self.epoch = name, epoch
        self.asked_to_stop = False

    def on_train_batch_end(self, trainer, *_):
        if trainer.current_epoch == self.epoch:
            self.asked_to_stop = self.name == "asked"
            trainer.should_stop = self.name == "ended"


@pytest.mark.trains
@pytest.mark.parametrize(
    ("seconds", "callbacks", "expected"),
    [
        (3.0, (), [0, 1, 2, 3, 4, 5, 6]),
        (1.0, (), [0, 3, 6]),
        (0.5, (), [0, 6]),
        (0.0, (Ask("asked", 2),), [0, 2, 3, 4, 5, 6]),
        (0.0, (Ask("ended", 2),), [0, 2]),
    ],
    ids=["long epochs", "short ones", "shorter ones", "asked to stop", "ended early"],
)
def test_the_last_checkpoint_takes_its_share_of_the_time(fit, tmp_path, seconds, callbacks, expected):
    written = Written(tmp_path, seconds)
    fit([written, *callbacks], max_epochs=7)
    assert written.epochs == expected
    assert [file.name for file in tmp_path.glob("*.ckpt")] == ["last.ckpt"]


def test_a_run_on_the_processor_starts_no_gpu(monkeypatch):
    def start():
        raise AssertionError("asked a GPU for its random state")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state_all", start)
    assert RandomState().state_dict()["cuda"] == []


@pytest.mark.trains
def test_a_new_run_keeps_the_random_state_that_its_seed_made(fit):
    torch.manual_seed(5)
    with_callback, _ = fit([RandomState()])
    torch.manual_seed(5)
    without, _ = fit([])
    assert torch.equal(with_callback.weight, without.weight)


@pytest.mark.trains
def test_the_remembered_state_is_put_in_force_once(fit):
    callback = RandomState()
    torch.manual_seed(6)
    callback.load_state_dict(copy.deepcopy(callback.state_dict()))
    torch.manual_seed(7)
    first, _ = fit([callback])
    second, _ = fit([callback])
    assert not torch.equal(first.weight, second.weight)


def test_the_state_of_another_number_of_gpus_is_left_out(monkeypatch):
    callback, restored = RandomState(), list[Any]()
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for states in ([], [torch.zeros(16, dtype=torch.uint8)] * 2):
        callback.load_state_dict({"cpu": torch.get_rng_state(), "cuda": states})
        callback.on_train_start(pl.Trainer.__new__(pl.Trainer), pl.LightningModule())
    assert restored == []
    callback.load_state_dict({"cpu": torch.get_rng_state(), "cuda": [torch.zeros(16, dtype=torch.uint8)]})
    callback.on_train_start(pl.Trainer.__new__(pl.Trainer), pl.LightningModule())
    assert len(restored) == 1


# Progress


class Terminal(io.StringIO):
    def __init__(self, watched):
        super().__init__()
        self.watched = watched

    def isatty(self):
        return self.watched


@pytest.mark.parametrize("watched", [True, False])
def test_the_bar_shows_only_where_someone_watches(monkeypatch, watched):
    monkeypatch.setattr(sys, "stderr", Terminal(watched))
    assert Progress().is_enabled == watched


@pytest.mark.trains
def test_the_bar_shows_values_by_their_short_names_and_no_version(fit, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal(False))
    model, trainer = fit([progress := Progress()])
    monkeypatch.setattr(
        pl.callbacks.ProgressBar, "get_metrics", lambda *_: {"v_num": 3, **trainer.progress_bar_metrics}
    )
    assert progress.get_metrics(trainer, model) == {"loss": 1.0}


# EvaluationLine


@pytest.mark.trains
def test_each_evaluation_leaves_a_line(fit, caplog):
    model = Noisy([3.0, 4.0, 0.12345, 0.12345, 6.0, 7.0, 8.0, 8.0])
    with caplog.at_level(logging.INFO, logger="catsweep.training.callbacks"):
        fit([EvaluationLine()], model, max_epochs=4, check_val_every_n_epoch=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "catsweep.training.callbacks"]
    assert lines == ["epoch 2/4  train/loss 0.1235  val/loss 2.5", "epoch 4/4  train/loss 8  val/loss 2.5"]
