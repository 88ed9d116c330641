"""What watches over training besides Lightning's own callbacks: divergence, exact resumption, readable progress."""

import logging
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from catsweep import checkpoints
from catsweep.errors import CatsweepError, DataError, DivergedError, TrainingError
from catsweep.hardware import cuda_in_use
from catsweep.metrics.scorer import Scorer
from catsweep.runs import BEST_CHECKPOINT

log = logging.getLogger(__name__)

T = TypeVar("T")


def on_rank_zero(trainer: pl.Trainer, act: Callable[[], T]) -> T:
    """Do something in the first process only, and give what it returns to all.

    Args:
        trainer: whose processes they are.
        act: what to do.

    Raises:
        Exception: what `act` raised, on every rank, so that none waits for another forever.
    """
    result: T | None = None
    raised: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = act()
        except Exception as error:
            raised = error
    # Other people's exceptions may not survive the way; ours are a message.
    told = raised if raised is None or isinstance(raised, CatsweepError) else TrainingError(f"On rank 0: {raised!r}")
    result, told = trainer.strategy.broadcast((result, told), src=0)
    if failure := raised or told:
        raise failure
    return result  # type: ignore[return-value]  # None only if `act` returned it


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

    An untrained network draws almost one image too (its variety is about 1 % of the photos'), and one without
    normalisation takes many epochs to leave that. So little variety alone is no collapse: it must also not be growing,
    between evaluations that are far enough apart for the averaged weights to have moved.

    Args:
        scorer: draws the images and has the real ones.
        images: how many of each are compared.
        bound: variety, as a share of the real images', below which there is too little.
        batches: trained on between two evaluations that are compared, at least.
    """

    def __init__(self, scorer: Scorer, images: int = 64, bound: float = 0.02, batches: int = 100) -> None:
        self.scorer, self.images, self.bound, self.batches = scorer, images, bound, batches
        rows = np.unique(np.linspace(0, len(scorer.ready.images) - 1, images).astype(int))
        self.real = variety(torch.from_numpy(np.array(scorer.ready.images[rows])))
        self.before: float | None = None  # variety at the last evaluation that counted
        self.at = 0  # batches trained on by then

    def state_dict(self) -> dict[str, Any]:
        """The variety at the last evaluation that counted, and when that was."""
        return {"before": self.before, "at": self.at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with it."""
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
        return variety(drawn) / self.real if self.real else math.inf


def variety(images: Tensor) -> float:
    """How much images differ from each other: the standard deviation of each pixel over them, averaged.

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
    """`last.ckpt`: what a run that was killed goes on from, written at the end of an epoch.

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
        """Write it, if it is time to."""
        asked = any(getattr(callback, "asked_to_stop", False) for callback in trainer.callbacks)  # type: ignore[attr-defined]  # Lightning sets it
        ends = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if on_rank_zero(trainer, lambda: asked or ends or self.clock() >= self.rest_until):
            began = self.clock()
            super().on_train_epoch_end(trainer, pl_module)
            now = self.clock()
            self.rest_until = now + (now - began) * (1 / self.share - 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """There is nothing to remember; Lightning would warn of a run's folder that was moved."""


class BestCheckpoint(ModelCheckpoint):
    """`best.ckpt`: of the evaluation with the lowest value, which a resumed run has to beat.

    Args:
        folder: where it is written.
        monitor: the name of the value.
    """

    def __init__(self, folder: Path, monitor: str) -> None:
        super().__init__(folder, "best", monitor=monitor, enable_version_counter=False)

    @property
    def state_key(self) -> str:
        """As of Lightning's own, under which earlier versions kept it."""
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
        every = trainer.check_val_every_n_epoch
        if every and (trainer.current_epoch + 1) % every == 0:
            self._write(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write it at once where evaluations come after any step; the training values are those of the last epoch."""
        if not trainer.check_val_every_n_epoch and not trainer.sanity_checking:
            self._write(trainer)

    @staticmethod
    def _write(trainer: pl.Trainer) -> None:
        if trainer.is_global_zero:
            logged = {key: float(value) for key, value in sorted(trainer.callback_metrics.items())}
            metrics = [f"{key} {value:.4g}" for key, value in logged.items() if key.startswith(("train/", "val/"))]
            log.info("epoch %d/%s  %s", trainer.current_epoch + 1, trainer.max_epochs, "  ".join(metrics))
