"""Whole batches out of memory: the loaders that training and scoring read.

The last step before the device. A batch is one gather of rows and one mirroring of those it chose; if asked to, it is
then augmented (`catsweep.data.operations`). All that is left to chance is a function of (seed, epoch) alone, so
a run that is killed and resumed sees what the undisturbed run would have seen. Plain iterables rather than a
DataLoader: worker processes and collation would cost more than what they could do.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catsweep.data import operations as ops
from catsweep.errors import DataError


def plan(rows: NDArray[np.int64], seed: int, epoch: int, flip: bool) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The order of an epoch and which of its images are mirrored.

    Args:
        rows: places of the training images, shape (n,).
        seed: of the run, ≥ 0.
        epoch: ≥ 0.
        flip: whether to mirror half of them.

    Returns:
        The rows in a new order, shape (n,), and for each whether it is mirrored, shape (n,).
    """
    draws = np.random.default_rng([seed, epoch])
    order = draws.permutation(rows)
    mirrored = draws.random(len(rows)) < 0.5 if flip else np.zeros(len(rows), dtype=np.bool_)
    return order, mirrored


def gather(images: NDArray[np.uint8], rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> Tensor:
    """Copy images of shape (N, H, W, 3) into a batch (B, H, W, 3), some of them left-right mirrored."""
    batch = images[rows]
    chosen = np.flatnonzero(mirrored)
    if len(chosen):
        # All rows of pixels of all chosen images are one tall picture: OpenCV mirrors it 7 times faster than NumPy.
        tall = batch[chosen].reshape(-1, *images.shape[2:])
        batch[chosen] = cv2.flip(tall, 1).reshape(-1, *images.shape[1:])
    return torch.from_numpy(batch)


def gather_on_device(images: Tensor, rows: Tensor, mirrored: Tensor) -> Tensor:
    """As `gather`, of images that lie where the model does; rows and mirrored lie there too."""
    batch = images.index_select(0, rows)
    return torch.where(mirrored[:, None, None, None], batch.flip(2), batch)


def chances(n: int, seed: int, epoch: int, operations: int) -> NDArray[np.float32]:
    """The random numbers of an epoch's augmentation, shape (n, operations, DRAWS): one row for each place in its order.

    Args:
        n: number of training images.
        seed: of the run, ≥ 0.
        epoch: ≥ 0.
        operations: how many there are.
    """
    # A stream of its own: whether images are augmented does not change their order.
    return np.random.default_rng([seed, epoch, 1]).random((n, operations, ops.DRAWS), dtype=np.float32)


def augment(batch: Tensor, operations: Mapping[str, ops.Operation], numbers: NDArray[np.float32]) -> Tensor:
    """A new batch, each image of it changed by chance.

    Args:
        batch: uint8, shape (B, H, W, 3).
        operations: by name.
        numbers: even from 0 to 1, shape (B, operations, DRAWS).
    """
    images = batch.numpy()
    changed = np.empty_like(images)
    ops.develop(images, ops.draw(operations, ops.brightness(images), numbers), changed)
    return torch.from_numpy(changed)


class TrainBatches:
    """Shuffled, mirrored batches of equal size without end-of-epoch crumbs.

    Args:
        images: uint8, shape (N, H, W, 3): an array, or a tensor on the device that trains, where the batches then are.
        rows: places of the training images.
        batch_size: images per batch and process.
        seed: of the run.
        flip: mirror each image with probability ½.
        rank: which of the `world_size` processes this is; together they see each image at most once an epoch.
        world_size: number of processes.
        operations: what else is done to the images by chance, by name; to those of an array only.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | Tensor,
        rows: NDArray[np.int64],
        batch_size: int,
        seed: int = 0,
        flip: bool = True,
        rank: int = 0,
        world_size: int = 1,
        operations: Mapping[str, ops.Operation] | None = None,
    ) -> None:
        if batch_size * world_size > len(rows):
            raise DataError(
                f"Expected at least {batch_size * world_size} training images for batches of {batch_size} in "
                f"{world_size} process(es), got {len(rows)}; set a smaller data.batch_size."
            )
        self.images, self.rows, self.batch_size = images, rows, batch_size
        self.seed, self.flip, self.rank, self.world_size = seed, flip, rank, world_size
        self.operations = ops.usable(operations)
        self.epoch = 0
        self._step = 0  # batches of this epoch that were handed out
        self._resume = 0  # batches of this epoch that were handed out before the run was killed

    @property
    def sampler(self) -> "TrainBatches":
        """Itself: Lightning announces each epoch by `loader.sampler.set_epoch(epoch)`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next (or just begun) iteration goes through."""
        if epoch != self.epoch:
            self.epoch, self._step, self._resume = epoch, 0, 0

    def state_dict(self) -> dict[str, Any]:
        """Where we are, for Lightning's checkpoints."""
        return {"epoch": self.epoch, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue inside an epoch: the next iteration begins after the batches that were already used."""
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
        """Those of the epoch, from the `first` on."""
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
    """Every image once, in order, as it is; the last batch may be smaller.

    Args:
        images: uint8, shape (N, H, W, 3).
        rows: places of the images to show.
        batch_size: images per batch.
        rank: which of the `world_size` processes this is; each takes every `world_size`-th image.
        world_size: number of processes.
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
