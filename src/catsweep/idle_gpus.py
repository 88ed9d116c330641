"""Trainers that use no GPU: their sweeps have a slot for each core, and whoever has a GPU that is left idle is told.

Imported at each start, so it may import nothing heavy.
"""

import platform
import re
import warnings
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from steady.printing import say
from steady.resources import visible_gpus

CHOICE = re.compile(r"\+*(?:trainer|trainer\.accelerator)=(.*)")  # an override

# Hydra warns of each callback that it makes without a list of trusted names; this one is ours.
warnings.filterwarnings("ignore", r"hydra\.utils\.instantiate\(\) resolved _target_='catsweep\.idle_gpus\.Hint'")


def sweep_gpus(accelerator: str, _root_: DictConfig) -> int | str:
    """Resolve `${sweep_gpus:ACCELERATOR}`: what `hydra.sweeper.gpus` is with a `trainer.accelerator`.

    That is 0 on the processor, and `auto` on GPUs or where trials differ in their trainer.

    >>> sweep_gpus("cpu", OmegaConf.create({})), sweep_gpus("gpu", OmegaConf.create({}))
    (0, 'auto')
    """
    return 0 if accelerator == "cpu" and not _is_searched(_root_) else "auto"


def _is_searched(config: DictConfig) -> bool:
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    several = any("," in value or "(" in value for value in _chosen(config))
    return several or "trainer" in params or "trainer.accelerator" in params


def _chosen(config: DictConfig) -> list[str]:
    words = OmegaConf.select(config, "hydra.overrides.task") or []
    return [found[1] for word in words if (found := CHOICE.match(word))]


class Hint(Callback):
    """A Hydra callback that tells of a GPU that nobody uses, unless the command line has chosen a trainer."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        _tell(config, "")

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """See `hydra.experimental.callback`."""
        from steady.run.job_factory import ENGINES  # imported for the sweep anyway

        elsewhere = config.hydra.launcher._target_ in ENGINES
        slots = any(word.startswith("hydra.sweeper.gpus=") for word in config.hydra.overrides.hydra)
        if not (elsewhere or slots or _is_searched(config)):
            _tell(config, " (for a new study; hydra.sweeper.gpus_per_slot=0.25 trains four trials on each)")


def _tell(config: DictConfig, more: str) -> None:
    if config.trainer.accelerator != "cpu" or _chosen(config):
        return
    if gpus := len(visible_gpus("auto")) or (platform.system(), platform.machine()) == ("Darwin", "arm64"):
        there = f"{gpus} GPUs are there" if gpus > 1 else "A GPU is there"
        say(f"{there}, and this trains on the processor. Choose trainer=gpu{more} or trainer=cpu.")
