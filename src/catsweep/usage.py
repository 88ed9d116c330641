"""What a training has used: seconds, processor seconds, images; and how much of its budget that is.

`catsweep.training.trainer` makes the callback, with the budget of the configuration. Rungs and evaluations
(`catsweep.training.validation`) and schedules (`catsweep.models.optimization`) follow the share of it that is used.
"""

import os
import time
from collections.abc import Callable
from typing import Any, Literal

import pytorch_lightning as pl
from omegaconf import DictConfig

from catsweep.devices import on_rank_zero

Unit = Literal["seconds", "cpu_seconds", "samples"]


def processor_seconds() -> float:
    """Seconds that the cores have worked for this process: all its threads, and child processes that have ended.

    >>> processor_seconds() > 0
    True
    """
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def unit(cfg: DictConfig) -> Unit:
    """The unit of a configuration's budget.

    >>> from omegaconf import OmegaConf
    >>> unit(OmegaConf.create({"budget_unit": None}))
    'seconds'
    """
    return cfg.budget_unit or "seconds"  # `catsweep.schema.keys` has checked it


def limit(cfg: DictConfig) -> float | None:
    """The budget of a configuration beside its epochs, in its unit; None if it has no other.

    >>> from omegaconf import OmegaConf
    >>> limit(OmegaConf.create({"budget_unit": "cpu_seconds", "minutes": 2, "samples": None}))
    120.0
    """
    if unit(cfg) == "samples":
        return None if cfg.samples is None else float(cfg.samples)
    return None if cfg.minutes is None else 60.0 * cfg.minutes


class Usage(pl.Callback):
    """Count what the training uses, over all attempts of a run, and end it when its budget is used up.

    Evaluations are in the seconds and not in the samples. Of several processes each image counts, and the seconds are
    those of the first. `gpu_wall_seconds` are those in which the run had a GPU, busy or not, times the number of GPUs:
    when a GPU has worked for one process is not to be known without slowing it down.

    Args:
        unit: of the budget.
        limit: the budget, above 0; None if there is none.
        clock: returns monotonic seconds.
        processor: returns those of the processor.
    """

    def __init__(
        self,
        unit: Unit = "seconds",
        limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        processor: Callable[[], float] = processor_seconds,
    ) -> None:
        self.unit, self.limit, self._clock, self._processor = unit, limit, clock, processor
        self._used = {"seconds": 0.0, "cpu_seconds": 0.0, "samples": 0.0}
        self._since: tuple[float, float] | None = None  # clock and processor, when they were added up last
        self._gpus = 0

    @property
    def state_key(self) -> str:
        """The key of Lightning's `Timer`, which counted the seconds in earlier versions."""
        return "Timer"

    @property
    def share(self) -> float | None:
        """The used share of the budget, from 0; the last step may go beyond 1. None if there is no budget."""
        return None if self.limit is None else self.used()[self.unit] / self.limit

    def used(self) -> dict[str, float]:
        """Amounts used so far: `seconds`, `cpu_seconds`, `samples`, and `gpu_wall_seconds` where there is a GPU."""
        if self._since is not None:
            self._add(self._clock(), self._processor())
        return dict(self._used)

    def _add(self, now: float, worked: float) -> None:
        assert self._since is not None
        seconds = now - self._since[0]
        self._used["seconds"] += seconds
        self._used["cpu_seconds"] += worked - self._since[1]
        if self._gpus:
            self._used["gpu_wall_seconds"] = self._used.get("gpu_wall_seconds", 0.0) + self._gpus * seconds
        self._since = now, worked

    def state_dict(self) -> dict[str, Any]:
        """Save the amounts."""
        return self.used()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them; of an earlier version the seconds."""
        seconds = state_dict.get("time_elapsed", {}).get("train", 0.0)
        self._used |= {"seconds": seconds} if "time_elapsed" in state_dict else state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin to count."""
        on_gpu = trainer.strategy.root_device.type == "cuda"
        self._gpus = trainer.num_devices * trainer.num_nodes if on_gpu else 0
        self._since = self._clock(), self._processor()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a run at once that goes on and has nothing left."""
        self._stop_if_over(trainer)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, index: int) -> None:
        """Count the images: before the step, in which schedules ask for the share."""
        self._used["samples"] += len(batch) * trainer.world_size

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *of_the_batch: Any) -> None:
        """End the run when the budget is used up."""
        self._stop_if_over(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count no more."""
        self.used()
        self._since = None

    def _stop_if_over(self, trainer: pl.Trainer) -> None:
        if self.limit is not None and on_rank_zero(trainer, lambda: (self.share or 0.0) >= 1):
            trainer.should_stop = True


def of(trainer: pl.Trainer) -> Usage | None:
    """Find the callback of a trainer."""
    return next((one for one in trainer.callbacks if isinstance(one, Usage)), None)  # type: ignore[attr-defined]  # Lightning sets it
