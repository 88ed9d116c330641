"""The data of a run, as Lightning wants it: build the ready set, then hand out batches.

The one class of this package that knows Lightning; conf/data/*.yaml instantiate it. Batches are torch.uint8 of
shape (B, H, W, 3); the model turns them into floats on its own device.
"""

import logging
from pathlib import Path

import numpy as np
import pytorch_lightning as pl
from numpy.typing import NDArray

from catsweep.data.batches import OrderedBatches, TrainBatches
from catsweep.data.building import open_or_build
from catsweep.data.ready import ReadySet, Source
from catsweep.data.splits import TRAIN, VAL
from catsweep.errors import ConfigError, DataError

log = logging.getLogger(__name__)

IN_MEMORY = 1 << 30  # ready sets up to this many bytes are read into memory; larger ones stay memory-mapped


class CatDataModule(pl.LightningDataModule):
    """Ready set and batches of one source.

    Args:
        reader: where the images come from, see `catsweep.data.sources`.
        size: side of the images, pixels.
        root: folder of ready sets.
        batch_size: images per batch and process.
        val_fraction: share of held-out photos.
        flip: mirror training images with probability ½.
        seed: of the run; decides order and mirroring, never the content of the ready set or its splits.
        source: the folder as the user typed it (`data.source=DIR`), which the reader already has.

    Attributes:
        ready: the ready set, once `prepare_data` or `setup` ran.
    """

    def __init__(
        self,
        reader: Source,
        size: int = 64,
        root: str | Path = "data/ready",
        batch_size: int = 64,
        val_fraction: float = 0.1,
        flip: bool = True,
        seed: int = 0,
        source: str | None = None,
    ) -> None:
        super().__init__()
        if size < 1 or batch_size < 1 or seed < 0 or not 0 <= val_fraction < 1:
            raise ConfigError(
                "Expected data.size ≥ 1, data.batch_size ≥ 1, data.seed ≥ 0 and 0 ≤ data.val_fraction < 1, got "
                f"size={size}, batch_size={batch_size}, seed={seed}, val_fraction={val_fraction}."
            )
        # A process with fewer held-out images than there are processes has none to show, and that is fine.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.reader, self.size, self.root, self.source = reader, size, root, source
        self.batch_size, self.val_fraction, self.flip, self.seed = batch_size, val_fraction, flip, seed
        self._ready: ReadySet | None = None
        self._images: NDArray[np.uint8] | None = None

    @property
    def ready(self) -> ReadySet:
        """The ready set, built if it has to be."""
        if self._ready is None:
            self._ready = open_or_build(self.reader, self.size, self.root, self.val_fraction)
        return self._ready

    def prepare_data(self) -> None:
        """Build the ready set; the other processes find it built."""
        _ = self.ready

    def setup(self, stage: str | None = None) -> None:
        """Open the ready set and check that there is something to train and to score on."""
        train, val = self.ready.indices(TRAIN), self.ready.indices(VAL)
        if self.val_fraction > 0 and len(val) == 0:
            raise DataError(
                f"Expected at least 2 different photos, one to train on and one to hold out, but {len(train)} alike "
                f"are left in {self.reader}; add photos, or set data.val_fraction=0."
            )

    def train_dataloader(self) -> TrainBatches:
        """Shuffled batches, a function of (seed, epoch)."""
        rows = self.ready.indices(TRAIN)
        rank, world = self._place()
        batch_size = min(self.batch_size, len(rows) // world)
        if batch_size < 1:
            raise DataError(f"Expected at least one training image per process, got {len(rows)} for {world}.")
        if batch_size < self.batch_size:
            log.warning(
                "Batches of %d instead of data.batch_size=%d: there are %d training images for %d process(es).",
                batch_size, self.batch_size, len(rows), world,
            )  # fmt: skip
        return TrainBatches(self._pixels(), rows, batch_size, self.seed, self.flip, rank, world)

    def val_dataloader(self) -> OrderedBatches:
        """Held-out images, in order, as they are."""
        rank, world = self._place()
        return OrderedBatches(self._pixels(), self.ready.indices(VAL), self.batch_size, rank, world)

    def _place(self) -> tuple[int, int]:
        """This process among those that train together: (rank, number)."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _pixels(self) -> NDArray[np.uint8]:
        if self._images is None:
            stored = self.ready.images
            self._images = np.array(stored) if stored.nbytes <= IN_MEMORY else stored
        return self._images
