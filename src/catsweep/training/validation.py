"""Schedule the evaluations of a training: every so many epochs, or as often as its time allows.

An evaluation takes the rung score, a sample grid, perhaps the best checkpoint, and in a sweep the pruner's verdict. It
costs the same for 200 photos, of which an epoch takes a second, as for 9,000, of which one takes more than a minute, so
a number of epochs that suits the one scores the other all the time, or never.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from catsweep.devices import on_rank_zero

# Photos that a run bound by epochs trains on between two evaluations. On one thread at 64 x 64 that is a minute of a
# projected GAN, half a minute of a VAE, beside the 3 to 5 seconds that an evaluation takes.
IMAGES = 8000
# Of a run bound by time, without evaluations at rungs:
SHARE = 0.1  # of the time that evaluations may take
MOST = 20  # evaluations: of more, the best would be the luckiest
NEVER = sys.maxsize  # batches between two validations
TOGETHER = 16  # steps after which several processes agree, which takes a message: a step may take a millisecond


def epochs_between(eval_every: int | str, epochs: int, minutes: float | None, photos: int) -> int | None:
    """Number of epochs, 1 to `epochs`, between two evaluations; None if the time decides.

    `eval_every` is a number of epochs, or `auto`: then by the number of photos in an epoch, at least 1.
    """
    if eval_every != "auto":
        return min(int(eval_every), epochs)
    # Not by time where nothing else is: the same seed is to end with the same checkpoint.
    return min(max(1, round(IMAGES / photos)), epochs) if minutes is None else None


def lightning_keys(every: int | None) -> dict[str, Any]:
    """Arguments of the Trainer for a schedule; None: `TimedValidation` is among the callbacks."""
    if every is not None:
        return {"check_val_every_n_epoch": every}
    return {"check_val_every_n_epoch": None, "val_check_interval": NEVER}


def is_timed(trainer: pl.Trainer) -> bool:
    """Whether evaluations come after any step, and not after epochs."""
    return trainer.check_val_every_n_epoch is None


def epochs_done(trainer: pl.Trainer) -> float:
    """Number of epochs trained on, with the share of the one that runs."""
    batches = trainer.fit_loop.epoch_loop.batch_progress.current.ready
    return trainer.current_epoch + batches / max(1, trainer.num_training_batches)


def budget_used(trainer: pl.Trainer, epochs: float) -> float:
    """Compute the used share, 0 to about 1, of a run's budget of epochs or time, whichever is more, after `epochs`.

    By time if there is a `Timer` among the trainer's callbacks.
    """
    by_epochs = epochs / trainer.max_epochs if trainer.max_epochs else 0.0
    timer = _timer(trainer)
    left = timer.time_remaining() if timer else None
    if timer is None or left is None:
        return by_epochs
    used = timer.time_elapsed()  # with that of earlier attempts
    return max(by_epochs, used / (used + left) if used + left > 0 else 1.0)


class TimedValidation(pl.Callback):
    """Let Lightning validate at each rung, and between them so often that it takes a tenth of the time at most.

    The next evaluation comes when nine times what the last one took has passed, and a twentieth of the budget. `rungs`
    are shares of the budget, ascending; `clock` returns monotonic seconds.
    """

    def __init__(self, rungs: Sequence[float] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self.rungs, self.clock = list(rungs), clock
        self.passed = 0  # rungs
        self.apart = 0.0  # seconds between two evaluations, at least
        self.rest_until = -math.inf
        self.began: float | None = None  # the evaluation after the last step

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plan the first evaluation: after a tenth of the time, or at a rung."""
        timer = _timer(trainer)
        total = timer.time_elapsed() + (timer.time_remaining() or 0.0) if timer else 0.0
        self.apart = total / MOST
        self.passed = self._passed(trainer, trainer.current_epoch)
        self.rest_until = self.clock() + 2 * self.apart

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set whether Lightning validates after this step."""
        batches = trainer.num_training_batches
        if trainer.world_size > 1 and (batch_idx + 1) % TOGETHER and batch_idx + 1 < batches:
            trainer.val_check_batch = NEVER
            return
        due = on_rank_zero(trainer, lambda: self.is_due(trainer, trainer.current_epoch + (batch_idx + 1) / batches))
        trainer.val_check_batch = 1 if due else NEVER

    def is_due(self, trainer: pl.Trainer, epochs: float) -> bool:
        """Whether to validate after this step, with so many epochs trained on; starts the time of an evaluation."""
        now, passed = self.clock(), self._passed(trainer, epochs)
        if self.began is not None:
            self.rest_until = now + max((now - self.began) * (1 / SHARE - 1), self.apart)
            self.began, self.passed = None, passed
        if passed == self.passed and now < self.rest_until:
            return False
        self.began, self.passed = now, passed
        return True

    def _passed(self, trainer: pl.Trainer, epochs: float) -> int:
        used = budget_used(trainer, epochs)
        return sum(rung <= used for rung in self.rungs)


def _timer(trainer: pl.Trainer) -> Timer | None:
    return next((c for c in trainer.callbacks if isinstance(c, Timer)), None)  # type: ignore[attr-defined]  # Lightning sets it
