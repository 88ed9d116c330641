"""What a run draws while it trains: sample grids and reconstructions, as PNGs in its folder and as logged media.

`SampleGrid` is one of the Trainer's callbacks. The latents and the photos are the same at every epoch, so that
two pages of one run, or of two runs, differ only by the models that drew them.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import Logger, WandbLogger
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor

from catsweep.grids import Images, grid, rows, save_png
from catsweep.images import to_float, to_uint8
from catsweep.models.generator import Generator, Reconstructor, draw_latents, evaluating, generate


def log_images(loggers: Sequence[Logger], key: str, image: Images, step: int) -> None:
    """Show an image in every logger that can show one (wandb); the others have the PNG in the run folder.

    Args:
        loggers: the loggers of the run.
        key: name of the panel, for example `samples`.
        image: uint8, shape (H, W, 3).
        step: batches trained on, the x axis of all other values.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [image], step=step)


class SampleGrid(Callback):
    """Write `samples/epoch_0005.png` after five epochs, and `reconstructions/…` of a model that reconstructs.

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
        self.run_dir = Path(run_dir)
        self.seed = seed
        self.every_n_evals = every_n_evals
        self.n = n
        self.photos = photos
        self.images = images
        self._evals = 0
        self._drawn_at: int | None = None  # the trainer's global step

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the pages, on rank 0, and not for Lightning's sanity check."""
        if trainer.sanity_checking:
            return
        due = self._evals % self.every_n_evals == 0
        self._evals += 1
        if due:
            # While fitting, Lightning counts the epoch that is being validated only afterwards.
            self._draw(trainer, pl_module, trainer.current_epoch + (trainer.state.fn == TrainerFn.FITTING))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw a last time when training ended after the last page, as a run bound by minutes does."""
        if trainer.global_step != self._drawn_at:
            # Not current_epoch, which leaves out an epoch that was begun and not ended.
            self._draw(trainer, pl_module, trainer.fit_loop.epoch_progress.current.ready)

    def _draw(self, trainer: Trainer, pl_module: LightningModule, epochs: int) -> None:
        self._drawn_at = trainer.global_step
        if not trainer.is_global_zero:
            return
        if isinstance(pl_module, Generator):
            latents = draw_latents(self.n, pl_module.latent_size, self.seed)
            self._show(trainer, "samples", epochs, grid(generate(pl_module, latents).numpy()))
        if isinstance(pl_module, Reconstructor):
            originals = self._originals(trainer)
            if len(originals):
                page = rows(originals, _reconstructions(pl_module, originals))
                self._show(trainer, "reconstructions", epochs, page)

    def _show(self, trainer: Trainer, kind: str, epochs: int, page: Images) -> None:
        save_png(self.run_dir / kind / f"epoch_{epochs:04d}.png", page)
        # Not global_step, which counts the steps of two optimizers: Lightning logs by batches.
        log_images(trainer.loggers, kind, page, trainer.fit_loop.epoch_loop._batches_that_stepped)

    def _originals(self, trainer: Trainer) -> Images:
        if self.images is None:
            ready = trainer.datamodule.ready  # type: ignore[attr-defined]  # Lightning adds `datamodule` at fit
            self.images = np.asarray(ready.images[ready.indices("val")[: self.photos]])
        return self.images[: self.photos]


def _reconstructions(model: Reconstructor, originals: Images) -> Images:
    """Reconstruct stored images: uint8 (N, H, W, 3) to the same."""
    assert isinstance(model, LightningModule)
    images: Tensor = to_float(torch.from_numpy(originals).to(model.device))
    with evaluating(model), torch.autocast(model.device.type, enabled=False):
        return to_uint8(model.reconstruct(images)).cpu().numpy()
