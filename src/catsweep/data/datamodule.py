"""The data of a run, as Lightning wants it: build the ready set, or open one that was prepared; then hand out batches.

The classes of this package that know Lightning; conf/data/*.yaml instantiate them. Batches are torch.uint8 of
shape (B, H, W, 3); the model turns them into floats on its own device.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from catsweep.data.batches import OrderedBatches, TrainBatches
from catsweep.data.building import open_or_build
from catsweep.data.operations import Operation, usable
from catsweep.data.ready import MANIFEST, ReadySet, Source
from catsweep.data.splits import TRAIN, VAL
from catsweep.errors import ConfigError, DataError

log = logging.getLogger(__name__)

FEW = 100  # photos to train on, of which a generator learns little more than to copy them
IN_MEMORY = 1 << 30  # ready sets up to this many bytes are read into memory; larger ones stay memory-mapped
ON_GPU = 1 << 28  # and up to this many, into that of the GPU that trains: 20,000 images of 64 x 64


class CatDataModule(pl.LightningDataModule):
    """Ready set and batches of one source.

    Args:
        reader: where the images come from, see `catsweep.data.sources`.
        size: side of the images, pixels.
        root: folder of ready sets.
        batch_size: images per batch and process.
        val_fraction: share of held-out photos.
        flip: mirror training images with probability ½.
        augment: what else is done to training images by chance, in memory, by name; see
            `catsweep.data.operations`.
        seed: of the run; decides order and mirroring, never the content of the ready set or its splits.
        source: the folder as the user typed it (`data.source=DIR`), which the reader already has.
        download: whether the reader fetches the photos, as the user typed it, too.

    Attributes:
        ready: the ready set, once `prepare_data` or `setup` ran.
    """

    def __init__(
        self,
        reader: Source | None,
        size: int = 64,
        root: str | Path = "data/ready",
        batch_size: int = 64,
        val_fraction: float = 0.1,
        flip: bool = True,
        seed: int = 0,
        source: str | None = None,
        augment: Mapping[str, Operation] | None = None,
        download: bool = False,
    ) -> None:
        super().__init__()
        # A process with fewer held-out images than there are processes has none to show, and that is fine.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.reader, self.size, self.root, self.source = reader, size, root, source
        self.download = download
        self.batch_size, self.val_fraction, self.flip, self.seed = batch_size, val_fraction, flip, seed
        self.augment = usable(augment)
        self._ready: ReadySet | None = None
        self._images: NDArray[np.uint8] | None = None

    @property
    def ready(self) -> ReadySet:
        """The ready set, built if it has to be."""
        if self._ready is None:
            self._ready = self._open()
        return self._ready

    def _open(self) -> ReadySet:
        assert self.reader is not None
        return open_or_build(self.reader, self.size, self.root, self.val_fraction)

    def prepare_data(self) -> None:
        """Build the ready set, and say once if there is little in it; the other processes find it built."""
        if self._ready is None:
            photos = {row.source for row in self.ready.rows if row.kept and row.split == TRAIN}
            if len(photos) < FEW:
                log.warning(
                    "Training on only %d photos: expect copies of them; %d are the least. Add photos; "
                    "%s says what was left out.", len(photos), FEW, self.ready.path / MANIFEST,
                )  # fmt: skip

    def setup(self, stage: str | None = None) -> None:
        """Open the ready set and check that there is something to train and to score on."""
        train, val = self.ready.indices(TRAIN), self.ready.indices(VAL)
        if self.val_fraction > 0 and len(val) == 0:
            # One photo alone can be trained on, but not scored against.
            found, other = (
                ("1 is", "") if len(train) == 1 else (f"{len(train)} alike are", ", or set data.val_fraction=0")
            )
            raise DataError(
                f"Expected at least 2 different photos, one to train on and one to hold out, but {found} left in "
                f"{self.reader}; add photos{other}."
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
        return TrainBatches(self._near(), rows, batch_size, self.seed, self.flip, rank, world, self.augment)

    def val_dataloader(self) -> OrderedBatches:
        """Held-out images, in order, as they are."""
        rank, world = self._place()
        return OrderedBatches(self._pixels(), self.ready.indices(VAL), self.batch_size, rank, world)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """To a GPU, by way of memory that it reads by itself: from any other, the copy waits for the step before."""
        if batch.device == device:
            return batch
        if device.type == "cuda":
            batch = batch.pin_memory()
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _near(self) -> NDArray[np.uint8] | Tensor:
        """The pixels to train on, on the GPU if they fit there easily: it then takes batches from them by itself.

        Images that are augmented stay with the processor, which does it.
        """
        pixels = self._pixels()
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type == "cpu" or self.augment or pixels.nbytes > ON_GPU:
            return pixels
        return torch.from_numpy(pixels).to(device)

    def _place(self) -> tuple[int, int]:
        """This process among those that train together: (rank, number)."""
        trainer = self.trainer
        return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)

    def _pixels(self) -> NDArray[np.uint8]:
        if self._images is None:
            stored = self.ready.images
            self._images = np.array(stored) if stored.nbytes <= IN_MEMORY else stored
        return self._images


class PreparedCats(CatDataModule):
    """A ready set that `python src/prepare.py` made; it is opened as it is.

    Args:
        source: its folder, data/ready/NAME-SIZE.
        size: side of its images, pixels, which the model must know before the set is opened.
        batch_size: see `CatDataModule`, as the rest.
        flip: also of images that the preparation mirrored: one by chance of two is again one by chance of two.
        seed: of the run.
        augment: in memory; besides the copies that were prepared, if there are any.
    """

    def __init__(
        self,
        source: str | None,
        size: int = 64,
        batch_size: int = 64,
        flip: bool = True,
        seed: int = 0,
        augment: Mapping[str, Operation] | None = None,
    ) -> None:
        super().__init__(
            None, size, batch_size=batch_size, val_fraction=0.0, flip=flip, seed=seed, source=source, augment=augment
        )

    def _open(self) -> ReadySet:
        """Open the set.

        Raises:
            ConfigError: no folder was given, or its images have another size.
            DataError: it is no ready set.
        """
        prepare = "python src/prepare.py data=photos data.source=DIR makes one of your photos."
        if self.source is None:
            raise ConfigError(f"data=ready needs a ready set: add data.source=data/ready/NAME-{self.size}. {prepare}")
        folder = Path(self.source).expanduser()
        ready = ReadySet.open(folder, f"Check data.source; {prepare}")
        if ready.size != self.size:
            raise ConfigError(
                f"Expected images of data.size={self.size} pixels, but those in {self.source} have {ready.size}: "
                f"set data.size={ready.size}, or prepare them again with size={self.size}."
            )
        return ready
