"""Training values as their means over an epoch."""

import copy
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch.utils.data import DataLoader

from catsweep.models.optimization import EpochMeans


class Model(EpochMeans):
    """Notes the numbers that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        loss = self.weight * 0 + batch
        self.note({"train/loss": loss, "train/twice": 2 * batch})
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Seen(Callback):
    """The logged values, where FiniteLoss reads them."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.epochs.append({key: float(value) for key, value in trainer.callback_metrics.items()})


class StopAt(Callback):
    """Ends the training within an epoch, as a run's minutes do."""

    def on_train_batch_end(self, trainer: pl.Trainer, *_: object) -> None:
        trainer.should_stop = trainer.fit_loop.epoch_loop.batch_idx == 1


def fit(*callbacks: Callback, **settings: Any) -> list[dict[str, float]]:
    seen = Seen()
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[seen, *callbacks], **settings,
    )  # fmt: skip
    trainer.fit(Model(), DataLoader(torch.tensor([1.0, 3.0, 5.0]), batch_size=None))  # type: ignore[arg-type]  # any sequence will do
    return seen.epochs


@pytest.mark.parametrize(
    ("callbacks", "settings", "expected"),
    [
        ((), {"max_epochs": 2}, [3.0, 3.0]),
        ((StopAt(),), {"max_epochs": 2}, [2.0]),
        ((), {"max_steps": 5}, [3.0, 2.0]),
    ],
    ids=["whole epochs", "cut short", "steps"],
)
@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_an_epoch_logs_the_means_of_its_steps(
    callbacks: tuple[Callback, ...], settings: dict[str, int], expected: list[float]
) -> None:
    epochs = fit(*callbacks, **settings)
    assert epochs == [{"train/loss": mean, "train/twice": 2 * mean} for mean in expected]


def test_noting_neither_changes_values_nor_keeps_their_graph() -> None:
    model = Model()
    loss = model.weight + 1
    for _ in range(3):
        model.note({"train/loss": loss})
    assert loss == 1
    copy.deepcopy(model)  # torch refuses to copy what has a graph
