"""The Lightning callback that takes the rung score while a model trains.

It stands before the checkpoints in the list of callbacks: `on_validation_epoch_end` comes before the
`on_validation_end` in which ModelCheckpoint and EarlyStopping read what was logged.
"""

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.seed import isolate_rng

from catsweep.devices import cuda_in_use
from catsweep.errors import MetricError
from catsweep.metrics.scorer import Scorer


class ScoreCallback(Callback):
    """Logs the rung score at the end of each validation.

    Training goes on as if it had not happened: random state, modes and gradients are what they were. Under DDP rank 0
    scores and tells the others.

    Args:
        scorer: takes the score.
        every: epochs between two scores; the last epoch is always scored. Only epochs with a validation count.
    """

    def __init__(self, scorer: Scorer, every: int = 1) -> None:
        if every < 1:
            raise MetricError(f"Scores are taken every n epochs, n at least 1; got {every}.")
        self.scorer = scorer
        self.every = every
        self.scored_at: int | None = None  # the trainer's global step

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Score and log.

        Raises:
            MetricError: the model draws nothing that can be scored; on every rank, so that none waits for another.
        """
        if trainer.sanity_checking or not self._due(trainer):
            return
        values, failure = self._score(trainer, pl_module)
        self.scored_at = trainer.global_step
        if failure is not None:
            raise failure
        pl_module.log_dict(values, on_step=False, on_epoch=True, batch_size=1, sync_dist=True)

    def _due(self, trainer: pl.Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        return epoch % self.every == 0 or epoch == trainer.max_epochs

    def _score(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> tuple[dict[str, float], MetricError | None]:
        outcome: tuple[dict[str, float], MetricError | None] = ({}, None)
        if trainer.is_global_zero:
            with isolate_rng(include_cuda=cuda_in_use()):
                try:
                    outcome = self.scorer.rung(_generator(pl_module)), None
                except MetricError as error:
                    outcome = {}, error
        return trainer.strategy.broadcast(outcome, src=0)


def _generator(pl_module: pl.LightningModule) -> Any:
    """The module as the generator it is: Lightning's type says nothing of latents."""
    return pl_module
