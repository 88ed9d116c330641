"""Lightning callbacks of a run: divergence, checkpoints, progress, sample grids, and the study of a trial.

Lightning saves checkpoints after all other callbacks of an epoch's end; so `SweepCallback` stops a trial at the start
of an epoch, when the checkpoint of the last one is on disk.
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

from catsweep import checkpoints
from catsweep.devices import cuda_in_use, on_rank_zero
from catsweep.errors import DataError, DivergedError, InterruptedTrial
from catsweep.grids import Images, grid, rows, save_png
from catsweep.images import to_float, to_uint8
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate
from catsweep.runs import BEST_CHECKPOINT
from catsweep.training.validation import budget_used, epochs_done, is_timed
from steady.reporting import TrialReporter

log = logging.getLogger(__name__)

SHOW = 10.0  # seconds between two signs that a training goes on


class FiniteLoss(pl.Callback):
    """End a run whose losses are no longer numbers, at the end of the epoch in which it happens.

    Once an epoch and not once a step, because reading a loss waits for the GPU.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check every logged training value.

        Raises:
            DivergedError: one of them is infinite or not a number.
        """
        values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("train/")}
        if bad := {key: value for key, value in values.items() if not math.isfinite(value)}:
            raise DivergedError(
                f"Training diverged in epoch {trainer.current_epoch + 1}: {bad}. "
                "Lower the learning rate, or try another loss, optimizer or trainer.precision=32-true."
            )


class Collapse(pl.Callback):
    """End a run whose generator draws the same image whatever the latent is.

    An untrained network draws almost one image too (its diversity is about 1 % of the photos'), and one without
    normalisation takes many epochs to leave that. So little diversity alone is no collapse: it must also not be
    growing, between evaluations that are far enough apart for the averaged weights to have moved.

    Args:
        scorer: draws the images and has the real ones.
        images: how many of each are compared.
        bound: diversity, as a share of the real images', below which there is too little.
        batches: trained on between two evaluations that are compared, at least.
    """

    def __init__(self, scorer: Scorer, images: int = 64, bound: float = 0.02, batches: int = 100) -> None:
        self.scorer, self.images, self.bound, self.batches = scorer, images, bound, batches
        rows = np.unique(np.linspace(0, len(scorer.ready.images) - 1, images).astype(int))
        self.real = diversity(torch.from_numpy(np.array(scorer.ready.images[rows])))
        self.before: float | None = None  # diversity at the last evaluation that counted
        self.at = 0  # batches trained on by then

    def state_dict(self) -> dict[str, Any]:
        """The diversity at the last evaluation that counted, and the batches trained on by then."""
        return {"before": self.before, "at": self.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.before, self.at = state_dict["before"], state_dict.get("at", 0)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw images and compare.

        Raises:
            DivergedError: two evaluations in a row are below the bound, and the second not above the first.
        """
        trained_on = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        if trainer.sanity_checking or (self.before is not None and trained_on < self.at + self.batches):
            return
        self.at = trained_on
        before, self.before = self.before, on_rank_zero(trainer, lambda: self._share(pl_module))
        if before is not None and before < self.bound and self.before <= before:
            raise DivergedError(
                f"The generator collapsed: in epoch {trainer.current_epoch + 1} its images differ by "
                f"{self.before:.2%} of what the photos do, and no more than before. "
                "Lower the learning rates, or try another loss."
            )

    def _share(self, pl_module: Any) -> float:
        with isolate_rng(include_cuda=cuda_in_use()):
            drawn = self.scorer.draw(pl_module, self.images)
        return diversity(drawn) / self.real if self.real else math.inf


def diversity(images: Tensor) -> float:
    """Mean over the pixels of the standard deviation of each over the images.

    Args:
        images: shape (n, ...), at least 2, any type.
    """
    return float(images.double().std(0).mean())


class RandomState(pl.Callback):
    """Keep torch's random state in every checkpoint, so that a resumed run draws what the undisturbed one would have.

    Data order and flips need no state: they are functions of (seed, epoch, step), see `catsweep.data.datamodule`.
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The state of the CPU's generator, and of each GPU's if this process uses any.

        To ask the others would start CUDA in a process that trains on the processor, for some 500 MB of each GPU.
        """
        used = cuda_in_use()
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if used else []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the state; building the loaders may still draw numbers before the first step."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the remembered state in force."""
        if self._restored is not None:
            torch.set_rng_state(self._restored["cpu"].cpu())
            if self._restored["cuda"] and len(self._restored["cuda"]) == torch.cuda.device_count():
                torch.cuda.set_rng_state_all([state.cpu() for state in self._restored["cuda"]])
            self._restored = None


class LastCheckpoint(ModelCheckpoint):
    """Save `last.ckpt`, which a killed run goes on from, at the end of an epoch.

    Not of every epoch: to write the weights and two moments of each takes as long as an epoch of a small network on a
    GPU. It takes a twentieth of the time at most; a run that is killed loses at most twenty times what it takes to
    write one, besides the epoch that was begun. The first epoch and the last are written whatever that took, and so is
    one in which a trial was asked to stop.

    Args:
        folder: where it is written.
        share: of the time that writing may take.
        clock: seconds that only go forward.
    """

    def __init__(self, folder: Path, share: float = 0.05, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(folder, "last", save_on_train_epoch_end=True, every_n_epochs=1, enable_version_counter=False)
        self.share, self.clock = share, clock
        self.rest_until = -math.inf

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint, if it is due."""
        asked = any(getattr(callback, "asked_to_stop", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if on_rank_zero(trainer, lambda: asked or ends or self.clock() >= self.rest_until):
            began = self.clock()
            super().on_train_epoch_end(trainer, pl_module)
            now = self.clock()
            self.rest_until = now + (now - began) * (1 / self.share - 1)

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
        """Go on from the best so far, also if the folder was moved; not from a torn one, whose score no file has."""
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
    """Progress bar on a terminal with the values of training; elsewhere `EvaluationLine` alone."""

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
    """Log one line with the values of training and of scores at each evaluation."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log after an epoch that was evaluated, when its training values are there too."""
        every = trainer.check_val_every_n_epoch
        if every and (trainer.current_epoch + 1) % every == 0:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log where evaluations come after any step; the training values are those of the last epoch."""
        if not trainer.check_val_every_n_epoch and not trainer.sanity_checking:
            self._write(trainer)

    @staticmethod
    def _write(trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            logged = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
            metrics = [f"{key} {value:.4g}" for key, value in logged.items() if key.startswith(("train/", "val/"))]
            log.info("epoch %d/%s  %s", trainer.current_epoch + 1, trainer.max_epochs, "  ".join(metrics))


class SweepCallback(pl.Callback):
    """Report a trial's rung scores to its study, and end the trial when it is pruned or asked to stop.

    A rung is a share of the trial's budget, epochs or minutes, whichever is used up sooner; so a wide network and a
    narrow one are compared after the same share.

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
        """The number of rungs that were reported."""
        return {"reported": self.reported}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.reported = state_dict["reported"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Handle SIGTERM as a request to stop at a checkpoint.

        Lightning would stop between two steps, without one, and it put its own handler in force after `setup` and
        `on_fit_start`: this is the first hook in which ours replaces it. What reached Lightning's meanwhile counts.
        """
        if threading.current_thread() is threading.main_thread():  # Python takes handlers from no other
            self._before = signal.signal(signal.SIGTERM, self._ask_to_stop) or signal.SIG_DFL
        self.asked_to_stop = self.asked_to_stop or trainer.received_sigterm
        self.begun = budget_used(trainer, trainer.current_epoch), self.clock()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the handler of SIGTERM."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Restore the handler of SIGTERM."""
        self._restore()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop, if somebody asked for it, or if the trial was given to another process.

        Raises:
            InterruptedTrial: so that the trial goes on from its checkpoint later.
        """
        if on_rank_zero(trainer, lambda: self.asked_to_stop or not self.reporter.is_current()):
            raise InterruptedTrial(f"Stopped after {trainer.current_epoch} epochs, at a checkpoint.")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_the_batch: Any) -> None:
        """Touch the sign of life every 10 s: an epoch may take longer than a trial may be silent."""
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
        """Whether there are photos to validate on; without any, Lightning skips evaluations."""
        return trainer.enable_validation and bool(sum(trainer.num_val_batches))

    def _hear(self, trainer: pl.Trainer, pl_module: pl.LightningModule, share: float) -> None:
        """Report, and end the trial if the study prunes it."""
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
    """Estimate the time until a budget is used up, of which `seconds` have used the share from `before` to `now`.

    Returns:
        Seconds, 0 when it is used up; None as long as there is nothing to judge by.
    """
    if now >= 1:
        return 0.0
    return seconds * (1 - now) / (now - before) if now > before else None


def log_images(loggers: Sequence[Logger], key: str, image: Images, step: int) -> None:
    """Log an image, uint8 (H, W, 3), with every logger that can show one (wandb); others have the PNG in the folder."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=step)


class SampleGrid(pl.Callback):
    """Write `samples/epoch_0005.png` after five epochs, and `reconstructions/…` of a model that reconstructs.

    The latents and the photos are the same at every epoch, so that two pages of one run, or of two runs, differ only
    by the models that drew them.

    Args:
        run_dir: the run folder.
        seed: of the latents.
        every_n_evals: draw at each n-th validation; the first one is drawn.
        n: number of samples on the page.
        photos: number of validation photos that are reconstructed.
        images: those photos, uint8 (N, H, W, 3); the first ones of the datamodule's validation split if None.
    """

    def __init__(
        self,
        run_dir: Path | str,
        seed: int = 0,
        every_n_evals: int = 1,
        n: int = 64,
        photos: int = 8,
        images: Images | None = None,
    ) -> None:
        if every_n_evals < 1 or n < 1:
            raise ValueError(f"SampleGrid needs every_n_evals >= 1 and n >= 1; got {every_n_evals} and {n}.")
        self.run_dir, self.seed, self.every_n_evals = Path(run_dir), seed, every_n_evals
        self.n, self.photos, self.images = n, photos, images
        self._evals = 0
        self._drawn_at: int | None = None  # the trainer's global step

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the pages on rank 0, but for Lightning's sanity check."""
        if trainer.sanity_checking:
            return
        due = self._evals % self.every_n_evals == 0
        self._evals += 1
        if due:
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
            latents = draw_latents(self.n, pl_module.latent_size, self.seed)
            self._show(trainer, "samples", epochs, grid(generate(pl_module, latents).numpy()))
        if isinstance(pl_module, Reconstructor):
            if self.images is None:
                ready = trainer.datamodule.ready  # type: ignore[attr-defined]  # Lightning adds `datamodule` at fit
                self.images = np.asarray(ready.images[ready.indices("val")[: self.photos]])
            if len(originals := self.images[: self.photos]):
                photos = to_float(torch.from_numpy(originals).to(pl_module.device))
                with evaluating(pl_module), torch.autocast(pl_module.device.type, enabled=False):
                    again = to_uint8(pl_module.reconstruct(photos)).cpu().numpy()
                self._show(trainer, "reconstructions", epochs, rows(originals, again))

    def _show(self, trainer: pl.Trainer, kind: str, epochs: int, page: Images) -> None:
        save_png(self.run_dir / kind / f"epoch_{epochs:04d}.png", page)
        # Not global_step, which counts the steps of two optimizers: Lightning logs by batches.
        log_images(trainer.loggers, kind, page, trainer.fit_loop.epoch_loop._batches_that_stepped)
