import copy
import io
import logging
import math
import sys

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from catsweep.callbacks import EvaluationLine, FiniteLoss, Progress, RandomState
from catsweep.errors import TrainingError


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
            enable_checkpointing=False,
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
    callback, restored = RandomState(), []
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for states in ([], [torch.zeros(16, dtype=torch.uint8)] * 2):
        callback.load_state_dict({"cpu": torch.get_rng_state(), "cuda": states})
        callback.on_train_start(None, None)
    assert restored == []
    callback.load_state_dict({"cpu": torch.get_rng_state(), "cuda": [torch.zeros(16, dtype=torch.uint8)]})
    callback.on_train_start(None, None)
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
    with caplog.at_level(logging.INFO, logger="catsweep.callbacks"):
        fit([EvaluationLine()], model, max_epochs=4, check_val_every_n_epoch=2)
    lines = [record.getMessage() for record in caplog.records if record.name == "catsweep.callbacks"]
    assert lines == ["epoch 2/4  train/loss 0.1235  val/loss 2.5", "epoch 4/4  train/loss 8  val/loss 2.5"]
