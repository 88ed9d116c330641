"""Lightning data module: build or open the ready set, and loaders of whole batches out of memory.

Batches are torch.uint8 of shape (B, H, W, 3); the model turns them into floats on its own device. All that is left to
chance is a function of (seed, epoch) alone, so a resumed run sees what the undisturbed run would have seen. Plain
iterables rather than a DataLoader: worker processes and collation would cost more than they save.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from catsweep.data import operations as ops
from catsweep.data.ready import MANIFEST, TRAIN, VAL, ReadySet, Source, open_or_build, refuse_unread
from catsweep.errors import ConfigError, DataError

log = logging.getLogger(__name__)
FEW = 100  # photos to train on, of which a generator learns little more than to copy them
IN_MEMORY = 1 << 30  # ready sets up to this many bytes are read into memory; larger ones stay memory-mapped
ON_GPU = 1 << 28  # and up to this many, into that of the GPU that trains: 20,000 images of 64 x 64


def plan(rows: NDArray[np.int64], seed: int, epoch: int, flip: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw an epoch's order of `rows` (places of the training images), and with `flip` which half is mirrored; (n,)."""
    draws = np.random.default_rng([seed, epoch])
    order = draws.permutation(rows)
    mirrored = draws.random(len(rows)) < 0.5 if flip else np.zeros(len(rows), dtype=np.bool_)
    return order, mirrored


def gather(images: NDArray[np.uint8], rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
    """Gather images of shape (N, H, W, 3) into a batch (B, H, W, 3), some of them mirrored left to right."""
    batch = images[rows]
    if len(chosen := np.flatnonzero(mirrored)):
        # All rows of pixels of all chosen images are one tall picture: OpenCV mirrors it 7 times faster than NumPy.
        tall = batch[chosen].reshape(-1, *images.shape[2:])
        batch[chosen] = cv2.flip(tall, 1).reshape(-1, *images.shape[1:])
    return torch.from_numpy(batch)


def gather_on_device(images: Tensor, rows: Tensor, mirrored: Tensor) -> Tensor:
    """Gather a batch as `gather` does, with all three tensors on the model's device."""
    batch = images.index_select(0, rows)
    return torch.where(mirrored[:, None, None, None], batch.flip(2), batch)


def chances(n: int, seed: int, epoch: int, operations: int) -> NDArray[np.float32]:
    """Draw the random numbers of an epoch's augmentation of n images, float32, shape (n, operations, DRAWS)."""
    # Another stream than the order's, which augmentation must not change.
    return np.random.default_rng([seed, epoch, 1]).random((n, operations, ops.DRAWS), dtype=np.float32)


def augment(batch: Tensor, operations: Mapping[str, ops.Operation], numbers: NDArray[np.float32]) -> Tensor:
    """Augment a batch, uint8 (B, H, W, 3), by named operations and random numbers in [0, 1), (B, operations, DRAWS)."""
    images = batch.numpy()
    changed = np.empty_like(images)
    ops.apply_recipe(images, ops.draw(operations, ops.brightness(images), numbers), changed)
    return torch.from_numpy(changed)


class TrainBatches:
    """Loader of shuffled, mirrored batches of equal size; a smaller last one is left out.

    `images`, uint8 (N, H, W, 3), are an array, or a tensor on the device that trains, where the batches then are;
    `rows` the places of those to train on. Each of `world_size` processes, `rank`, takes its own `batch_size` images a
    step. `operations` augment images in an array only.
    """

    def __init__(
        self, images: NDArray[np.uint8] | Tensor, rows: NDArray[np.int64], batch_size: int, seed: int = 0,
        flip: bool = True, rank: int = 0, world_size: int = 1, operations: Mapping[str, ops.Operation] | None = None,
    ) -> None:  # fmt: skip
        if batch_size * world_size > len(rows):
            raise DataError(
                f"Expected at least {batch_size * world_size} training images for batches of {batch_size} in "
                f"{world_size} process(es), got {len(rows)}; set a smaller data.batch_size."
            )
        self.images, self.rows, self.batch_size = images, rows, batch_size
        self.seed, self.flip, self.rank, self.world_size = seed, flip, rank, world_size
        self.operations = ops.active_operations(operations)
        self.epoch = 0
        self._step = self._resume = 0  # batches of this epoch that were handed out: now, before the run was killed

    @property
    def sampler(self) -> "TrainBatches":
        """This loader: Lightning announces each epoch by `loader.sampler.set_epoch(epoch)`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next (or just begun) iteration."""
        if epoch != self.epoch:
            self.epoch, self._step, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Return epoch and step, for Lightning's checkpoints."""
        return {"epoch": self.epoch, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume inside an epoch: the next iteration begins after the batches that were already used."""
        self.epoch = int(state_dict["epoch"])
        self._step = self._resume = int(state_dict["step"])

    def __len__(self) -> int:
        return len(self.rows) // (self.batch_size * self.world_size)

    def __iter__(self) -> Iterator[Tensor]:
        # A generator: Lightning asks for the iterator before it announces the epoch, and this reads it afterwards.
        first, self._resume = self._resume, 0
        for step, batch in enumerate(self._batches(first), first):
            self._step = step + 1
            yield batch

    def _batches(self, first: int) -> Iterator[Tensor]:
        order, mirrored = plan(self.rows, self.seed, self.epoch, self.flip)
        starts = [(step * self.world_size + self.rank) * self.batch_size for step in range(first, len(self))]
        parts = [slice(start, start + self.batch_size) for start in starts]
        if isinstance(self.images, Tensor):
            rows, chosen = (torch.from_numpy(values).to(self.images.device) for values in (order, mirrored))
            yield from (gather_on_device(self.images, rows[part], chosen[part]) for part in parts)
            return
        numbers = chances(len(order), self.seed, self.epoch, len(self.operations))
        for part in parts:
            batch = gather(self.images, order[part], mirrored[part])
            yield augment(batch, self.operations, numbers[part]) if self.operations else batch


class OrderedBatches:
    """Loader of `images[rows]`, uint8 (N, H, W, 3), in order, as they are; the last batch may be smaller.

    Of `world_size` processes each, `rank`, takes every `world_size`-th image.
    """

    def __init__(
        self, images: NDArray[np.uint8], rows: NDArray[np.int64], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.images, self.batch_size = images, batch_size
        self.rows = rows[rank::world_size]

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.rows), self.batch_size):
            yield torch.from_numpy(self.images[self.rows[start : start + self.batch_size]])


class CatDataModule(pl.LightningDataModule):
    """Data module of one source: its ready set and batches.

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
    """

    def __init__(
        self, reader: Source | None, size: int = 64, root: str | Path = "data/ready", batch_size: int = 64,
        val_fraction: float = 0.1, flip: bool = True, seed: int = 0, source: str | None = None,
        augment: Mapping[str, ops.Operation] | None = None, download: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        # A process with fewer held-out images than there are processes has none to show, and that is fine.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.reader, self.size, self.root, self.source, self.download = reader, size, root, source, download
        self.batch_size, self.val_fraction, self.flip, self.seed = batch_size, val_fraction, flip, seed
        self.augment = ops.active_operations(augment)

    @cached_property
    def ready(self) -> ReadySet:
        """Ready set, built if it has to be."""
        return self._open()

    def _open(self) -> ReadySet:
        assert self.reader is not None
        refuse_unread(self.source, self.reader)
        return open_or_build(self.reader, self.size, self.root, self.val_fraction)

    def prepare_data(self) -> None:
        """Build the ready set in one process, and warn if there is little in it."""
        if "ready" not in vars(self):
            photos = {row.source for row in self.ready.rows if row.kept and row.split == TRAIN}
            if len(photos) < FEW:
                log.warning(
                    "Training on only %d photos: expect copies of them; at least %d are advisable. Add photos; "
                    "%s says what was left out.", len(photos), FEW, self.ready.path / MANIFEST,
                )  # fmt: skip

    def setup(self, stage: str | None = None) -> None:
        """Open the ready set and check that there is something to train and to score on."""
        train, val = self.ready.indices(TRAIN), self.ready.indices(VAL)
        if self.val_fraction > 0 and len(val) == 0:
            # One photo alone can be trained on, but not scored against.
            one = len(train) == 1
            found, other = ("1 is", "") if one else (f"{len(train)} alike are", ", or set data.val_fraction=0")
            raise DataError(
                f"Expected at least 2 different photos, one to train on and one to hold out, but {found} left in "
                f"{self.reader}; add photos{other}."
            )

    def train_dataloader(self) -> TrainBatches:
        """Return the loader of shuffled batches, a function of (seed, epoch)."""
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
        """Return the loader of held-out images, in order, as they are."""
        rank, world = self._place()
        return OrderedBatches(self._pixels, self.ready.indices(VAL), self.batch_size, rank, world)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch to a GPU by way of pinned memory: from any other, the copy waits for the step before."""
        if batch.device == device:
            return batch
        if device.type == "cuda":
            batch = batch.pin_memory()
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _near(self) -> NDArray[np.uint8] | Tensor:
        """Return the pixels to train on, on the GPU if they fit there and are not augmented (by the processor)."""
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        if device.type == "cpu" or self.augment or self._pixels.nbytes > ON_GPU:
            return self._pixels
        return torch.from_numpy(self._pixels).to(device)

    def _place(self) -> tuple[int, int]:
        # rank and number of the processes that train together
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @cached_property
    def _pixels(self) -> NDArray[np.uint8]:
        stored = self.ready.images
        return np.array(stored) if stored.nbytes <= IN_MEMORY else stored


class PreparedCats(CatDataModule):
    """Data module of a ready set that `python src/prepare.py` made.

    Args:
        source: its folder, data/ready/NAME-SIZE.
        size: side of its images, pixels, which the model must know before the set is opened.
        flip: as `CatDataModule`; images that the preparation mirrored by chance are again mirrored by chance.
        augment: in memory; besides the copies that were prepared, if there are any.
    """

    def __init__(
        self, source: str | None, size: int = 64, batch_size: int = 64, flip: bool = True, seed: int = 0,
        augment: Mapping[str, ops.Operation] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            None, size, batch_size=batch_size, val_fraction=0.0, flip=flip, seed=seed, source=source, augment=augment
        )

    def _open(self) -> ReadySet:
        """Open the set; ConfigError without a folder or for another size, DataError if it is no ready set."""
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
