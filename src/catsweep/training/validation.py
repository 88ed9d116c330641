"""Schedule the evaluations of a training: every so many epochs, or as often as its budget allows.

An evaluation takes the rung score, a sample grid, perhaps the best checkpoint, and in a sweep the pruner's verdict. It
costs the same for 200 photos, of which an epoch takes a second, as for 9,000, of which one takes more than a minute, so
a number of epochs that suits the one scores the other all the time, or never.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from catsweep import usage
from catsweep.devices import on_rank_zero

# Photos that a run bound by epochs or samples trains on between two evaluations. On one thread at 64 x 64 that is a
# minute of a projected GAN, half a minute of a VAE, beside the 3 to 5 seconds that an evaluation takes.
IMAGES = 8000
# Of a run with a budget, without evaluations at rungs:
SHARE = 0.1  # of its time that evaluations may take
MOST = 20  # evaluations: of more, the best would be the luckiest
NEVER = sys.maxsize  # batches between two validations
TOGETHER = 16  # steps after which several processes agree, which takes a message: a step may take a millisecond


def epochs_between(eval_every: int | str, epochs: int, limit: float | None, photos: int) -> int | None:
    """Number of epochs, 1 to `epochs`, between two evaluations; None if a budget beside the epochs (`limit`) decides.

    `eval_every` is a number of epochs, or `auto`: then by the number of photos in an epoch, at least 1.
    """
    if eval_every != "auto":
        return min(int(eval_every), epochs)
    # Not by time where nothing else is: the same seed is to end with the same checkpoint.
    return min(max(1, round(IMAGES / photos)), epochs) if limit is None else None


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
    """Compute the used share, 0 to about 1, of a run's epochs or of its budget, whichever is more, after `epochs`."""
    return max(epochs / trainer.max_epochs if trainer.max_epochs else 0.0, _share(trainer))


class TimedValidation(pl.Callback):
    """Let Lightning validate at each rung, and between them so often that it takes a tenth of the time at most.

    The next evaluation comes when nine times what the last one took has passed, and a twentieth of the budget. Of a
    budget of samples, of which it takes none, it comes after a twentieth and `IMAGES`: the same run is then evaluated
    at the same steps, however long they take. `rungs` are shares of the budget, ascending.
    """

    def __init__(self, rungs: Sequence[float] = ()) -> None:
        self.rungs = list(rungs)
        self.passed = 0  # rungs
        # Shares of the budget:
        self.apart = 0.0  # between two evaluations, at least
        self.rest_until = -math.inf
        self.began: float | None = None  # the evaluation after the last step
        self.limit: float | None = None  # the budget that they are shares of

    def state_dict(self) -> dict[str, Any]:
        """Save which evaluation was the last, so that a run that goes on is evaluated when an undisturbed one is."""
        return {"passed": self.passed, "rest_until": self.rest_until, "began": self.began, "limit": self.limit}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.passed, self.rest_until = state_dict["passed"], state_dict["rest_until"]
        self.began, self.limit = state_dict["began"], state_dict["limit"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Plan the first evaluation: after a tenth of the budget, or at a rung; again if the budget is another now."""
        counted = usage.of(trainer)
        limit = counted.limit if counted else None
        samples = limit if counted and counted.unit == "samples" else None
        least = IMAGES / samples if samples else 0.0
        self.apart = max(1 / MOST, least)
        if self.rest_until == -math.inf or limit != self.limit:  # else what was restored holds
            self.passed, self.began, self.limit = self._passed(trainer, trainer.current_epoch), None, limit
            self.rest_until = _share(trainer) + max(2 / MOST, least)

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
        now, passed = _share(trainer), self._passed(trainer, epochs)
        if self.began is not None:
            counted = usage.of(trainer)
            if counted and counted.unit == "samples":  # since the evaluation, there was a step
                self.rest_until = self.began + self.apart
            else:
                self.rest_until = now + max((now - self.began) * (1 / SHARE - 1), self.apart)
                self.passed = passed
            self.began = None
        if passed == self.passed and now < self.rest_until:
            return False
        self.began, self.passed = now, passed
        return True

    def _passed(self, trainer: pl.Trainer, epochs: float) -> int:
        used = budget_used(trainer, epochs)
        return sum(rung <= used for rung in self.rungs)


def _share(trainer: pl.Trainer) -> float:
    """The used share of the budget beside the epochs; 0 if there is none."""
    counted = usage.of(trainer)
    return (counted.share if counted else None) or 0.0
