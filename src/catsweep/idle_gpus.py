"""Trainers that use no GPU: their sweeps have a slot for each core, and a machine whose GPU is left idle says so.

Imported at each start, so it may import nothing heavy.
"""

import platform
import warnings
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from steady.printing import say
from steady.resources import visible_gpus

# Hydra warns of each callback that it makes without a list of trusted names; this one is ours.
warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved _target_='catsweep\.idle_gpus\.Hint'")


def sweep_gpus(accelerator: str) -> int | str:
    """Resolve `${sweep_gpus:ACCELERATOR}`: what `hydra.sweeper.gpus` is with a `trainer.accelerator`.

    >>> sweep_gpus("cpu")
    0
    """
    return 0 if accelerator == "cpu" else "auto"


class Hint(Callback):
    """A Hydra callback that tells of a GPU that `trainer=cpu` leaves idle, unless the command line has chosen that."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        chosen = any(word.lstrip("+").startswith(("trainer=", "trainer.accelerator=")) for word in _words(config))
        if config.trainer.accelerator == "cpu" and not chosen and (gpus := _there()):
            say(f"This trains on the processor, and leaves {gpus} idle. To train there: trainer=gpu.")

    on_multirun_start = on_run_start


def _words(config: DictConfig) -> list[str]:
    return list(config.hydra.overrides.task)


def _there() -> str:
    """Name what could be trained on; empty if there is nothing."""
    if gpus := len(visible_gpus("auto")):
        return "a GPU" if gpus == 1 else f"{gpus} GPUs"
    return "its GPU" if (platform.system(), platform.machine()) == ("Darwin", "arm64") else ""
