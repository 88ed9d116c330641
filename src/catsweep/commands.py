"""What every command line in `src/*.py` shares: its end at an expected error, waiting threads, readable output.

Each entry point is a Hydra decorator, `guard`, and one call into the package::

    @hydra.main(config_path="../conf", config_name="generate")
    @guard
    def main(cfg: DictConfig) -> None: ...

Imported at each start, so it may import nothing heavy.
"""

from steady.signals import COMMAND  # isort: skip  # first: from here on Ctrl-C is one line

import functools
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationResolutionError

from catsweep import schema
from catsweep.errors import CatsweepError, ConfigError
from catsweep.instantiation import trusting
from steady import places, printing

R = TypeVar("R")

# Threads that wait for work sleep instead of spinning: torch's backward pass has threads of its own, and they take the
# cores from each other. Measured on 2 cores, DCGAN of width 32: 318 images/s against 101 with a neighbour that wants a
# core too. OpenMP reads it once, when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A letter that the terminal's encoding lacks, such as an arrow in ASCII, is shown as ?, and raises nothing.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")

printing.make_logs_readable()


def guard(task: Callable[[DictConfig], R]) -> Callable[[DictConfig], R]:
    """Decorate the task of a command: a `CatsweepError` is one message and exit code 1, without a traceback.

    So is an error about a place, such as a full disk (`steady.places`). Ctrl-C, SIGTERM and SIGHUP end it in one line
    too, with 128 + signal (`steady.signals`). Any other exception is a bug and passes through with its traceback; so
    does every one in a multirun, where the sweeper has to see it, or with `HYDRA_FULL_ERROR=1`.

    Values by interpolation, which Hydra could not check, are checked first (`catsweep.schema`). While the task runs,
    configurations may also name targets of the `trust` list of the composed one.
    """

    @functools.wraps(task)
    def guarded(cfg: DictConfig) -> R:
        COMMAND.at_work = True
        try:
            with _explained(), places.translated_errors(cfg):
                if said := schema.faults(cfg, final=True):
                    raise ConfigError("\n".join(said))
                with trusting(list(cfg.get("trust") or [])):
                    return task(cfg)
        except BaseException as error:
            if _wants_traceback():
                raise
            if COMMAND.number is not None or isinstance(error, KeyboardInterrupt):  # Lightning makes another of it
                raise COMMAND.end() from None
            if not isinstance(error, CatsweepError):
                raise
            places.exit_with_message(error)

    return guarded


@contextmanager
def _explained() -> Iterator[None]:
    """Raise a ConfigError for a key that the configuration lacks, or that leads nowhere."""
    try:
        yield
    except (ConfigAttributeError, ConfigKeyError, InterpolationResolutionError) as error:
        told, _, rest = str(error).partition("\n")
        key = next((line.split()[-1] for line in rest.splitlines() if "full_key: " in line), "")
        raise ConfigError(f"{told}{f' ({key})' if key else ''}; --cfg job shows every key with its value.") from error


def _wants_traceback() -> bool:
    in_multirun = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return in_multirun or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
