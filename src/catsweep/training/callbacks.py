"""Lightning callbacks of a run: divergence, checkpoints, progress, sample grids, and the study of a trial.

Lightning saves checkpoints after all other callbacks of an epoch's end; so `SweepCallback` stops a trial at the start
of an epoch, when the checkpoint of the last one is on disk, and `LastCheckpoint` ends one that is paused at a rung.
"""

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import optuna
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from catsweep import checkpoints, usage
from catsweep.devices import cuda_in_use, on_rank_zero
from catsweep.errors import DataError, DivergedError, InterruptedTrial
from catsweep.grids import Images, grid, rows, save_png
from catsweep.images import to_float, to_uint8
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate
from catsweep.runs import BEST_CHECKPOINT, LAST_CHECKPOINT
from catsweep.tracking.trackio_logger import TrackioLogger
from catsweep.training.validation import budget_used, epochs_done, is_timed
from steady.reporting import TrialReporter

log = logging.getLogger(__name__)

SIGN_OF_LIFE_EVERY = 10.0  # seconds
COMPARED = 64  # images drawn, and photos, whose diversity is compared
LEAST_DIVERSITY = 0.02  # as a share of the photos'
BATCHES_APART = 100  # trained on between two evaluations that are compared, at least
RECONSTRUCTED = 8  # validation photos


class FiniteLoss(pl.Callback):
    """End a run whose losses are no longer numbers: once an epoch, since reading one in each step waits for the GPU."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise a `DivergedError` if a logged training value is infinite or not a number."""
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        if bad := {key: value for key, value in values.items() if not math.isfinite(value)}:
            raise DivergedError(
                f"Training diverged in epoch {trainer.current_epoch + 1}: {bad}. "
                "Lower the learning rate, or try another loss, optimizer or trainer.precision=32-true."
            )


class Collapse(pl.Callback):
    """End a run whose generator draws the same image whatever the latent is.

    An untrained network draws almost one image too (its diversity is about 1 % of the photos'), and one without
    normalization takes many epochs to leave that. So little diversity alone is no collapse: it must also not be
    growing, between evaluations that are far enough apart for the averaged weights to have moved.
    """

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer
        spread = np.unique(np.linspace(0, len(scorer.ready.images) - 1, COMPARED).astype(int))
        self.real = diversity(torch.from_numpy(np.array(scorer.ready.images[spread])))
        self.before: float | None = None  # diversity at the last evaluation that counted
        self.at = 0  # batches trained on by then

    def state_dict(self) -> dict[str, Any]:
        """Save the last diversity that counted, and the batches trained on by then."""
        return {"before": self.before, "at": self.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.before, self.at = state_dict["before"], state_dict.get("at", 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise a `DivergedError` if two evaluations in a row are below the bound, the second not above the first."""
        trained_on = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if self.before is not None and trained_on < self.at + BATCHES_APART:
            return
        self.at = trained_on
        before, self.before = self.before, on_rank_zero(trainer, lambda: self._relative_diversity(pl_module))
        if before is not None and before < LEAST_DIVERSITY and self.before <= before:
            raise DivergedError(
                f"The generator collapsed: in epoch {trainer.current_epoch + 1} its images differ by "
                f"{self.before:.2%} of what the photos do, and no more than before. "
                "Lower the learning rates, or try another loss."
            )

    def _relative_diversity(self, pl_module: Any) -> float:
        with isolate_rng(include_cuda=cuda_in_use()):
            drawn = self.scorer.draw(pl_module, COMPARED)
        return diversity(drawn) / self.real if self.real else math.inf


def diversity(images: Tensor) -> float:
    """Mean over the pixels of the standard deviation of each over images (n, ...), n at least 2, of any type."""
    return float(images.double().std(0).mean())


class RandomState(pl.Callback):
    """Keep torch's random state in every checkpoint, so that a resumed run draws what an undisturbed one draws.

    Data order and flips need no state: they are functions of (seed, epoch, step), see `catsweep.data.datamodule`.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Save the state of the CPU's generator, and of the GPUs' if this process uses any."""
        # To ask unused GPUs would start CUDA in a process that trains on the processor, for some 500 MB of each.
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if cuda_in_use() else []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state; building the loaders may still draw numbers before the first step."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the remembered state."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["cpu"].cpu())
            if self._restored["cuda"] and len(self._restored["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["cuda"]])
            self._restored = None


class LastCheckpoint(ModelCheckpoint):
    """Save `last.ckpt`, which a killed run goes on from, at the end of an epoch.

    Writing the weights and two moments of each takes as long as an epoch of a small network on a GPU, so not every
    epoch is saved: writing takes `share` of the time at most, and a killed run loses at most 1 / `share` times what
    it takes, besides the epoch that was begun. The first epoch, the last, and one in which a trial was asked to stop
    are always saved, and the moment within one at which a trial is paused. `clock` returns monotonic seconds.
    """

    def __init__(self, folder: Path, share: float = 0.05, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False)
        self.share, self.clock = share, clock
        self.rest_until = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint, if it is due; `optuna.TrialPruned` after that if the trial is paused."""
        asked = any(getattr(callback, "asked_to_stop", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        ends = self._pauses(trainer) or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if on_rank_zero(trainer, lambda: asked or ends or self.clock() >= self.rest_until):
            began = self.clock()
            super().on_train_epoch_end(trainer, pl_module)
            now = self.clock()
            self.rest_until = now + (now - began) * (1 / self.share - 1)
        self._pause(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint within an epoch, and `optuna.TrialPruned`, if the trial is paused."""
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._pauses(trainer):
            trainer.save_checkpoint(Path(str(self.dirpath)) / LAST_CHECKPOINT.name)
            self._pause(trainer)

    @staticmethod
    def _pauses(trainer: pl.Trainer) -> optuna.TrialPruned | None:
        """Why the trial is paused here, on each rank; None if it is not, as of a training that has ended by itself."""
        pauses = [one.pause for one in trainer.callbacks if isinstance(one, SweepCallback)]  # type: ignore[attr-defined]  # likewise
        return None if trainer.should_stop else next(iter(pauses), None)

    def _pause(self, trainer: pl.Trainer) -> None:
        if pause := self._pauses(trainer):
            raise pause

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore nothing; Lightning would warn of a run's folder that was moved."""


class BestCheckpoint(ModelCheckpoint):
    """Save `best.ckpt` at the evaluation with the lowest value, which a resumed run has to beat."""

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, "best", monitor=monitor, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        """The key of Lightning's own callback, under which earlier versions kept the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score, also if the folder was moved; not that of a torn checkpoint."""
        file, score = Path(str(self.dirpath)) / BEST_CHECKPOINT.name, state_dict["best_model_score"]
        if score is None:
            return
        try:
            checkpoints.read(file)
        except DataError as error:
            log.warning("%s The best of the epochs from here on counts.", error)
            return
        here = str(file)
        moved = {"dirpath": self.dirpath, "best_model_path": here, "kth_best_model_path": here}
        super().load_state_dict(state_dict | moved | {"best_k_models": {here: score}})


class Progress(TQDMProgressBar):
    """Show a progress bar with the values of training on a terminal; elsewhere nothing (`EvaluationLine` logs)."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10 if sys.stderr.isatty() else 0)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Select the logged values, without the version number of the log."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return {key.removeprefix("train/"): value for key, value in metrics.items()}


class EvaluationLine(pl.Callback):
    """Log one line with the values of training and of scores at each evaluation."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log after an epoch that was evaluated, when its training values are there too."""
        every = trainer.check_val_every_n_epoch
        if every and (trainer.current_epoch + 1) % every == 0:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log where evaluations come after any step; the training values are those of the last epoch."""
        if not trainer.check_val_every_n_epoch:
            self._write(trainer)

    @staticmethod
    def _write(trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            logged = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
            metrics = [f"{key} {value:.4g}" for key, value in logged.items() if key.startswith(("train/", "val/"))]
            log.info("epoch %d/%s  %s", trainer.current_epoch + 1, trainer.max_epochs, "  ".join(metrics))


class SweepCallback(pl.Callback):
    """Report a trial's rung scores to its study, and end the trial when it is pruned or asked to stop.

    A rung is a share of the trial's budget, in (0, 1), of epochs or of time or images, whichever is used up sooner;
    so a wide network and a narrow one are compared after the same share. `rungs` ascend; each is reported as the step
    of its place, from 1, or with promotion as the study's own rung there. `clock` returns monotonic seconds.
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
        promotion = reporter.promotion
        self.steps = promotion.pausing if promotion else range(1, 1 + len(self.rungs))
        self.reported = 0  # rungs
        self.pause: optuna.TrialPruned | None = None  # with which the trial ends when its checkpoint is on disk
        self.asked_to_stop = False
        self.has_begun = False
        self.begun = (0.0, 0.0)  # share of the budget that was used before this attempt, and when it started
        self.scores: dict[str, float] = {}
        self.sign_of_life = -math.inf  # when it was touched last
        self._handler: Any = None  # of SIGTERM, before ours

    def state_dict(self) -> dict[str, Any]:
        """Save the number of rungs that were reported, and the step of the last."""
        return {"reported": self.reported, "step": self.steps[self.reported - 1] if self.reported else 0}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it; of a study whose rungs were changed since, those up to that step count as reported."""
        step = state_dict.get("step")  # earlier versions knew only the number
        reported = state_dict["reported"] if step is None else sum(one <= step for one in self.steps)
        self.reported = min(reported, len(self.steps))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle SIGTERM as a request to stop at a checkpoint.

        Lightning would stop between two steps, without one, and it put its own handler in force after `setup` and
        `on_fit_start`: this is the first hook in which ours replaces it. What reached Lightning's meanwhile counts.
        """
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other
            self._handler = signal.signal(signal.SIGTERM, self._ask_to_stop) or signal.SIG_DFL
        self.asked_to_stop = self.asked_to_stop or trainer.received_sigterm
        self.has_begun, self.begun = True, (budget_used(trainer, trainer.current_epoch), self.clock())

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the first rung of a training that its patience has ended before: all others are judged there."""
        if not self.reported and self.steps and trainer.is_global_zero:
            with isolate_rng(include_cuda=cuda_in_use()):
                generator: Any = pl_module
                self.reporter.report(self.steps[0], self.scorer.rung(generator))
        self._end(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """See `_end`."""
        self._end(trainer)

    def _end(self, trainer: pl.Trainer) -> None:
        """Restore the handler of SIGTERM, and note what the training has used."""
        if self._handler is not None:
            signal.signal(signal.SIGTERM, self._handler)
            self._handler = None
        if self.has_begun:  # else what earlier attempts used has not been read
            self._note_usage(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise `InterruptedTrial` if the trial was asked to stop; it goes on later."""
        if on_rank_zero(trainer, lambda: self.asked_to_stop):
            raise InterruptedTrial(f"Stopped after {trainer.current_epoch} epochs, at a checkpoint.")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_the_batch: Any) -> None:
        """Touch the sign of life: an epoch may take longer than a trial may be silent."""
        if trainer.is_global_zero and self.clock() - self.sign_of_life >= SIGN_OF_LIFE_EVERY:
            self.reporter.alive(self.folder)
            self.sign_of_life = self.clock()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the rungs that were reached in this epoch, unless an evaluation has, or will.

        Here and after an evaluation, `InterruptedTrial` if the trial was given to another process: Lightning calls
        those that write checkpoints last.
        """
        if not (is_timed(trainer) and _validates(trainer)):
            self._report_rungs(trainer, pl_module, budget_used(trainer, trainer.current_epoch + 1))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the rungs that were reached, of a training that is evaluated after any step.

        On every rank: `optuna.TrialPruned` when the study prunes the trial, `CatsweepError` if it cannot be reported.
        """
        if is_timed(trainer):
            self._report_rungs(trainer, pl_module, budget_used(trainer, epochs_done(trainer)))
        else:
            on_rank_zero(trainer, self.reporter.require_current)

    def _report_rungs(self, trainer: pl.Trainer, pl_module: pl.LightningModule, share: float) -> None:
        reached = sum(rung <= share for rung in self.rungs)
        ended = on_rank_zero(trainer, lambda: self._report(trainer, pl_module, reached, share))
        self.reported = max(self.reported, reached)
        if ended and self.reporter.promotion is None:
            raise optuna.TrialPruned(f"given up after {share:.0%} of its budget")
        if ended and share < 1:  # else it has its scores sooner than it could be promoted
            self.pause = optuna.TrialPruned(f"paused after {share:.0%} of its budget")

    def _report(self, trainer: pl.Trainer, pl_module: pl.LightningModule, reached: int, share: float) -> bool:
        """Report each rung up to the one that was reached; return whether the trial ends at the last of them."""
        self.reporter.require_current()
        ended = False
        if reached > self.reported:
            self.scores = self._scores(trainer, pl_module)
            self._note_usage(trainer)
            for step in self.steps[self.reported : reached]:
                ended = self.reporter.report(step, self.scores)
        self._write_progress(trainer, share)
        return ended

    def _note_usage(self, trainer: pl.Trainer) -> None:
        if trainer.is_global_zero and (counted := usage.of(trainer)) is not None:
            self.reporter.note_usage(counted.unit if counted.limit else None, **counted.used())

    def _scores(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, float]:
        """The scores of this epoch's evaluation if there was one, else taken now."""
        every = trainer.check_val_every_n_epoch
        evaluated = (trainer.current_epoch + 1) % every == 0 if every else _validates(trainer)
        names = self.scorer.rung_names()
        if evaluated and all(name in trainer.callback_metrics for name in names):
            return {name: float(trainer.callback_metrics[name]) for name in names}
        with isolate_rng(include_cuda=cuda_in_use()):
            generator: Any = pl_module
            return self.scorer.rung(generator)

    def _write_progress(self, trainer: pl.Trainer, share: float) -> None:
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


def _validates(trainer: pl.Trainer) -> bool:
    """Whether there are photos to validate on; without any, Lightning skips evaluations."""
    return trainer.enable_validation and bool(sum(trainer.num_val_batches))


def seconds_left(before: float, now: float, seconds: float) -> float | None:
    """Estimate the time until a budget is used up, of which `seconds` have used the share from `before` to `now`.

    0 when it is used up; None as long as there is nothing to judge by.
    """
    if now >= 1:
        return 0.0
    return seconds * (1 - now) / (now - before) if now > before else None


def log_images(loggers: Sequence[Logger], key: str, image: Images, step: int) -> None:
    """Log an image, uint8 (H, W, 3), with every logger that can show one; others have the PNG in the folder."""
    for logger in loggers:
        if isinstance(logger, TrackioLogger):
            logger.log_image(key, image, step)
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=step)


class SampleGrid(pl.Callback):
    """Write `samples/epoch_0005.png` (`n` images) after five epochs, and `reconstructions/…` if the model has any.

    Latents and photos are the same at every epoch and in every run, so that pages differ only by the models.
    """

    def __init__(self, folder: Path, n: int = 64) -> None:
        self.folder, self.n = folder, n
        self._drawn_at: int | None = None  # the trainer's global step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the pages on rank 0."""
        # While fitting, Lightning counts the epoch that is being validated only afterwards.
        self._draw(trainer, pl_module, trainer.current_epoch + (trainer.state.fn == TrainerFn.FITTING))

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw a last time when training ended after the last page, as a run bound by minutes does."""
        if trainer.global_step != self._drawn_at:
            # Not current_epoch, which leaves out an epoch that was begun and not ended.
            self._draw(trainer, pl_module, trainer.fit_loop.epoch_progress.current.ready)

    def _draw(self, trainer: pl.Trainer, pl_module: pl.LightningModule, epochs: int) -> None:
        self._drawn_at = trainer.global_step
        if not trainer.is_global_zero:
            return
        if isinstance(pl_module, Generator):
            latents = draw_latents(self.n, pl_module.latent_size, seed=0)
            self._save(trainer, "samples", epochs, grid(generate(pl_module, latents).numpy()))
        if isinstance(pl_module, Reconstructor):
            ready = trainer.datamodule.ready  # type: ignore[attr-defined]  # Lightning adds `datamodule` at fit
            if len(originals := np.asarray(ready.images[ready.indices("val")[:RECONSTRUCTED]])):
                photos = to_float(torch.from_numpy(originals).to(pl_module.device))
                with evaluating(pl_module), torch.autocast(pl_module.device.type, enabled=False):
                    again = to_uint8(pl_module.reconstruct(photos)).cpu().numpy()
                self._save(trainer, "reconstructions", epochs, rows(originals, again))

    def _save(self, trainer: pl.Trainer, kind: str, epochs: int, page: Images) -> None:
        save_png(self.folder / kind / f"epoch_{epochs:04d}.png", page)
        # Not global_step, which counts the steps of two optimizers: Lightning logs by batches.
        log_images(trainer.loggers, kind, page, trainer.fit_loop.epoch_loop._batches_that_stepped)
