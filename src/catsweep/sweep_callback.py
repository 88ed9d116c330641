"""The Lightning callback of a trial: reports rung scores, ends what the study gives up, stops when asked.

A rung is a share of the trial's budget, epochs or minutes, whichever is used up sooner; so a wide network and a
narrow one are compared after the same share. Lightning saves checkpoints after all other callbacks of an epoch's end;
so this one stops at the start of an epoch, when the checkpoint of the last one is on disk.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import optuna
import pytorch_lightning as pl
from pytorch_lightning.utilities.seed import isolate_rng

from catsweep.callbacks import on_rank_zero
from catsweep.errors import InterruptedTrial
from catsweep.hardware import cuda_in_use
from catsweep.metrics.scorer import Scorer
from catsweep.validation_schedule import budget_used, epochs_done, is_timed
from steady.reporting import TrialReporter

SHOW = 10.0  # seconds between two signs that a training goes on


class SweepCallback(pl.Callback):
    """Connects a training with its study.

    Args:
        reporter: of the trial.
        scorer: takes rung scores.
        rungs: shares of the budget, above 0 and below 1, ascending.
        folder: of the run.
        clock: seconds that only go forward, for the time left.
    """

    def __init__(
        self,
        reporter: TrialReporter,
        scorer: Scorer,
        rungs: Sequence[float],
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reporter, self.scorer, self.rungs, self.folder, self.clock = reporter, scorer, list(rungs), folder, clock
        self.reported = 0  # rungs
        self.asked_to_stop = False
        self.begun = (0.0, 0.0)  # share of the budget that was used before this attempt, and when it started
        self.scores: dict[str, float] = {}
        self.shown = -math.inf  # when the training last showed that it goes on
        self._before: Any = None

    def state_dict(self) -> dict[str, Any]:
        """How many rungs were reported."""
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.reported = state_dict["reported"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take SIGTERM for a request to stop at a checkpoint.

        Lightning would stop between two steps, without one, and it put its own handler in force after `setup` and
        `on_fit_start`: this is the first hook in which ours replaces it. What reached Lightning's meanwhile counts.
        """
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other
            self._before = signal.signal(signal.SIGTERM, self._ask_to_stop) or signal.SIG_DFL
        self.asked_to_stop = self.asked_to_stop or trainer.received_sigterm
        self.begun = budget_used(trainer, trainer.current_epoch), self.clock()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave SIGTERM as it was."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave SIGTERM as it was."""
        self._restore()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, if somebody asked for it, or if the trial was given to another process.

        Raises:
            InterruptedTrial: so that the trial goes on from its checkpoint later.
        """
        if on_rank_zero(trainer, lambda: self.asked_to_stop or not self.reporter.is_current()):
            raise InterruptedTrial(f"Stopped after {trainer.current_epoch} epochs, at a checkpoint.")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_the_batch: Any) -> None:
        """Show now and then that the training goes on: an epoch may take longer than a trial may be silent."""
        if trainer.is_global_zero and self.clock() - self.shown >= SHOW:
            self.reporter.alive(self.folder)
            self.shown = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the rungs that were reached in this epoch, unless an evaluation has, or will.

        Raises: see `on_validation_end`.
        """
        if not (is_timed(trainer) and self._validates(trainer)):
            self._hear(trainer, pl_module, budget_used(trainer, trainer.current_epoch + 1))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the rungs that were reached, of a training that is evaluated after any step.

        Raises:
            optuna.TrialPruned: on every rank, when the study gives the trial up.
            CatsweepError: scores that cannot be taken or reported; on every rank too.
        """
        if is_timed(trainer) and not trainer.sanity_checking:
            self._hear(trainer, pl_module, budget_used(trainer, epochs_done(trainer)))

    @staticmethod
    def _validates(trainer: pl.Trainer) -> bool:
        """Whether there are photos to validate on; without any, Lightning passes over evaluations."""
        return trainer.enable_validation and bool(sum(trainer.num_val_batches))

    def _hear(self, trainer: pl.Trainer, pl_module: pl.LightningModule, share: float) -> None:
        """Report, and end if that is the verdict."""
        reached = sum(rung <= share for rung in self.rungs)
        ended = on_rank_zero(trainer, lambda: self._report(trainer, pl_module, reached, share))
        self.reported = max(self.reported, reached)
        if ended:
            raise optuna.TrialPruned(f"given up after {share:.0%} of its budget")

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, reached: int, share: float) -> bool:
        """Report each rung up to the one that was reached; the verdict at the last of them counts."""
        ended = False
        if reached > self.reported:
            self.scores = self._scores(trainer, pl_module)
            for step in range(self.reported + 1, reached + 1):
                ended = self.reporter.report(step, self.scores)
        self._tell(trainer, share)
        return ended

    def _scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """The scores of this epoch's evaluation if there was one, else taken now."""
        every = trainer.check_val_every_n_epoch
        evaluated = (trainer.current_epoch + 1) % every == 0 if every else self._validates(trainer)
        names = self.scorer.rung_names()
        if evaluated and all(name in trainer.callback_metrics for name in names):
            return {name: float(trainer.callback_metrics[name]) for name in names}
        with isolate_rng(include_cuda=cuda_in_use()):
            generator: Any = pl_module
            return self.scorer.rung(generator)

    def _tell(self, trainer: pl.Trainer, share: float) -> None:
        name = self.scorer.rung_names()[0]
        score = trainer.callback_metrics.get(name, self.scores.get(name))
        epochs = trainer.max_epochs if trainer.max_epochs and trainer.max_epochs < 1000 else None
        before, since = self.begun
        self.reporter.progress(
            self.folder,
            epoch=trainer.current_epoch + 1,
            epochs=epochs,
            metric=name,
            score=None if score is None else float(score),
            seconds_left=seconds_left(before, share, self.clock() - since),
        )

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        self.asked_to_stop = True

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
            self._before = None


def seconds_left(before: float, now: float, seconds: float) -> float | None:
    """How long it will take to use up a budget.

    Args:
        before: share that had been used at the start.
        now: share that is used.
        seconds: between the two.

    Returns:
        Seconds, 0 when it is used up; None as long as there is nothing to judge by.
    """
    if now >= 1:
        return 0.0
    return seconds * (1 - now) / (now - before) if now > before else None
