"""The Lightning callback that docs/steady.md shows: it reports after each validation, and ends a trial."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from tests.docs.pages import PAGES, blocks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

(SHOWN,) = (block.text for block in blocks(PAGES["docs/steady.md"]) if block.title == "report_to_study.py")


class Fit(pl.LightningModule):
    """One weight that falls towards 0; what is validated is its square."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def training_step(self, batch: list[Tensor]) -> Tensor:
        return self.weight**2

    def validation_step(self, batch: list[Tensor]) -> None:
        self.log("val_loss", self.weight**2)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(reporter: Any, folder: Path) -> None:
    shown: dict[str, Any] = {}
    exec(SHOWN, shown)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, callbacks=[shown["ReportToStudy"](reporter)], default_root_dir=folder,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    batches = DataLoader(TensorDataset(torch.zeros(1, 1)))
    trainer.fit(Fit(), batches, batches)


@pytest.mark.trains
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_the_callback_reports_and_ends_a_trial(tmp_path: Path) -> None:
    said: list[tuple[int, dict[str, float]]] = []
    answers = iter([False, True])

    def report(step: int, scores: dict[str, float]) -> bool:
        said.append((step, scores))
        return next(answers)

    with pytest.raises(optuna.TrialPruned):
        fit(SimpleNamespace(report=report), tmp_path)
    assert [step for step, _ in said] == [0, 1]
    assert said[0][1] == pytest.approx({"val_loss": 0.8**2})
