"""What watches over training besides Lightning's own callbacks: divergence, exact resumption, readable progress."""

import logging
import math
import sys
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import TQDMProgressBar

from catsweep.errors import TrainingError

log = logging.getLogger(__name__)


class FiniteLoss(pl.Callback):
    """End a run whose losses are no longer numbers, at the end of the epoch in which it happens.

    Once an epoch and not once a step, because reading a loss waits for the GPU.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check every logged training value.

        Raises:
            TrainingError: one of them is infinite or not a number.
        """
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        if bad := {key: value for key, value in values.items() if not math.isfinite(value)}:
            raise TrainingError(
                f"Training diverged in epoch {trainer.current_epoch + 1}: {bad}. "
                "Lower the learning rate, or try another loss, optimizer or trainer.precision=32-true."
            )


class RandomState(pl.Callback):
    """Keep torch's random state in every checkpoint, so that a resumed run draws what the undisturbed one would have.

    Data order and flips need no state: they are functions of (seed, epoch, step), see `catsweep.data.datamodule`.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the CPU's generator and of each GPU's."""
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state; building the loaders may still draw numbers before the first step."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the remembered state in force."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["cpu"].cpu())
            if len(self._restored["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["cuda"]])
            self._restored = None


class Progress(TQDMProgressBar):
    """Lightning's bar, with the numbers that matter; silent where no one watches, see `EvaluationLine`."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if sys.stderr.isatty() else 0)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The logged values without the version number of the log."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {key.removeprefix("train/"): value for key, value in metrics.items()}


class EvaluationLine(pl.Callback):
    """One line in the log at each evaluation: what a run leaves to read when no bar was watched."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the line after the epochs that were evaluated, when training values are there too."""
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and trainer.check_val_every_n_epoch and epoch % trainer.check_val_every_n_epoch == 0:
            logged = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
            metrics = [f"{key} {value:.4g}" for key, value in logged.items() if key.startswith(("train/", "val/"))]
            log.info("epoch %d/%s  %s", epoch, trainer.max_epochs, "  ".join(metrics))
