from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from torch import nn
from torch.utils.data import DataLoader

from catsweep.grids import grid, rows
from catsweep.models.generator import draw_latents, generate
from catsweep.training.callbacks import SampleGrid


class Painter(pl.LightningModule):
    """The smallest generator that trains: one linear layer."""

    latent_size = 3
    image_size = 4

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 48)
        self.dropout = nn.Dropout()

    def decode(self, latents):
        return self.dropout(self.layer(latents)).sigmoid().view(-1, 3, 4, 4)

    def training_step(self, batch, _):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, _):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Copier(Painter):
    def reconstruct(self, images):
        return 1 - images


def loader():
    return DataLoader(torch.ones(4, 3), batch_size=2)  # type: ignore[arg-type]  # any sequence will do


def fitted(model, callback, epochs=2):
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=[callback], num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, loader(), loader())
    return trainer


def pages(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def lightning_fits(test):
    """Let through what Lightning 2.6 warns of: loaders of four numbers without workers, and its own use of torch."""
    test = pytest.mark.filterwarnings("ignore:The '(train|val)_dataloader' does not have many workers")(test)
    return pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning")(test)


@lightning_fits
def test_each_evaluation_shows_the_same_latents_as_the_model_is_then(tmp_path):
    model = Painter()
    fitted(model, SampleGrid(tmp_path, n=9))
    assert pages(tmp_path) == ["samples/epoch_0001.png", "samples/epoch_0002.png"]
    now = grid(generate(model, draw_latents(9, 3, 0)).numpy())
    assert np.array_equal(pixels(tmp_path / "samples" / "epoch_0002.png"), now)
    assert not np.array_equal(pixels(tmp_path / "samples" / "epoch_0001.png"), now)


@lightning_fits
def test_a_run_that_ends_after_its_last_evaluation_shows_what_it_ended_with(tmp_path):
    model, trainer = Painter(), pl.Trainer(
        max_steps=5, accelerator="cpu", logger=False, callbacks=[SampleGrid(tmp_path, n=4)], num_sanity_val_steps=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, loader(), loader())  # two steps an epoch: the run ends within the third
    assert pages(tmp_path / "samples") == ["epoch_0001.png", "epoch_0002.png", "epoch_0003.png"]
    expected = grid(generate(model, draw_latents(4, 3, 0)).numpy())
    assert np.array_equal(np.asarray(Image.open(tmp_path / "samples/epoch_0003.png")), expected)


def test_validating_a_trained_model_counts_the_epochs_it_has_had(tmp_path):
    callback = SampleGrid(tmp_path, n=4)
    trainer, other = fitted(Painter(), callback, epochs=2), Painter()
    trainer.validate(other, loader(), verbose=False)
    assert pages(tmp_path) == ["samples/epoch_0001.png", "samples/epoch_0002.png"]
    drawn = grid(generate(other, draw_latents(4, 3, 0)).numpy())
    assert np.array_equal(pixels(tmp_path / "samples/epoch_0002.png"), drawn)


def datamodule(images, first=0):
    """Photos, of which those from `first` on are for validation."""
    ready = SimpleNamespace(images=images, indices=lambda split: {"val": np.arange(first, len(images))}[split])
    return SimpleNamespace(ready=ready)


def trainer_stub(**changes):
    stub = SimpleNamespace(
        is_global_zero=True, current_epoch=0, global_step=2, loggers=[],
        state=SimpleNamespace(fn="fit"), datamodule=datamodule(np.zeros((2, 4, 4, 3), np.uint8)),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(_batches_that_stepped=70)),
    )  # fmt: skip
    return SimpleNamespace(**{**vars(stub), **changes})


def test_the_first_validation_photos_are_above_their_reconstructions(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), np.uint8)
    SampleGrid(tmp_path).on_validation_end(trainer_stub(datamodule=datamodule(images, first=5)), Copier())
    page = pixels(tmp_path / "reconstructions" / "epoch_0001.png")
    assert np.array_equal(page, rows(images[5:13], 255 - images[5:13]))


class ShownImages(WandbLogger):
    def __init__(self):
        self.shown = []

    def log_image(self, key, images, step=None, **_):
        self.shown.append((key, len(images), images[0].shape, step))


def test_wandb_shows_each_page_by_batches_as_lightning_logs_and_csv_is_passed_over(tmp_path):
    logger = ShownImages()
    trainer = trainer_stub(loggers=[CSVLogger(tmp_path), logger], global_step=140)  # two optimizers
    SampleGrid(tmp_path, n=4).on_validation_end(trainer, Copier())
    assert logger.shown == [("samples", 1, (14, 14, 3), 70), ("reconstructions", 1, (14, 14, 3), 70)]


def test_only_rank_zero_writes(tmp_path):
    SampleGrid(tmp_path).on_validation_end(trainer_stub(is_global_zero=False), Painter())
    assert pages(tmp_path) == []


def test_drawing_leaves_random_state_and_training_mode_alone(tmp_path):
    model, before = Copier().train(), torch.get_rng_state()
    SampleGrid(tmp_path).on_validation_end(trainer_stub(), model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.dropout.training
