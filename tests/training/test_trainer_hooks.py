"""What Lightning does in every step for nothing."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer
from torch.utils.data import DataLoader

from catsweep.training.trainer import STEP_HOOKS, Untimed, without_idle_hooks


class Counting(pl.Callback):
    """Has one hook of the step."""

    def __init__(self) -> None:
        self.steps = 0

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.steps += 1


class Model(pl.LightningModule):
    """Has another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps = 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return self.weight * batch

    def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
        self.steps += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0)


class Names(Untimed):
    """The hooks that Lightning called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def profile(self, action_name: str) -> Any:
        self.names.add(action_name.rpartition(".")[2])
        return super().profile(action_name)


@pytest.mark.filterwarnings("ignore:The 'train_dataloader' does not have many workers")
def test_only_hooks_that_somebody_wrote_are_called() -> None:
    counting, names = Counting(), Names()
    (model,) = without_idle_hooks([Model()])
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=without_idle_hooks([counting, Timer({"hours": 1})]), profiler=names,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.ones(3), batch_size=None))
    assert (counting.steps, model.steps) == (6, 6)
    assert model.weight == -6
    assert names.names & set(STEP_HOOKS) - {"on_train_batch_start"} == {
        "on_after_backward", "on_before_zero_grad", "on_train_batch_end"
    }  # fmt: skip


def test_the_names_are_those_of_hooks() -> None:
    assert all(callable(getattr(base, hook)) for hook in STEP_HOOKS for base in (pl.Callback, pl.LightningModule))
