"""What every command line in `src/*.py` shares: how it ends at an expected error, how threads wait, what is printed.

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

# Threads that wait for work sleep. By default they spin, and torch's backward pass has threads of its own: they take
# the cores from each other. Measured on 2 cores, DCGAN of width 32: 318 images/s against 101 with a neighbour that
# wants a core too. OpenMP reads it once, when torch is imported, hence here and not in `training`.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A letter that the terminal's encoding lacks, such as an arrow in ISO-8859-9 or ASCII, is shown as ?; it ends nothing.
if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="replace")

printing.make_logs_readable()


def guard(task: Callable[[DictConfig], R]) -> Callable[[DictConfig], R]:
    """Print a `CatsweepError` as one message and exit with code 1, without a traceback.

    An error about a place, such as a full disk, becomes one (`steady.places`). Any other exception is a bug and
    passes through with its traceback. So does a `CatsweepError`

    - in a multirun, where the sweeper has to see it: it fails that trial, and the sweep goes on, whereas an exit
      would end the whole sweep;
    - with `HYDRA_FULL_ERROR=1`, Hydra's own way to ask for tracebacks.

    Ctrl-C, SIGTERM and SIGHUP end it in one line too, with 128 + signal, see `steady.signals`.

    What Hydra could not look at when it composed, since it came by interpolation, is looked at first, see
    `catsweep.schema`. While the task runs, configurations may also name targets of the packages in the `trust` list of
    the composed one, beyond those of `catsweep.instantiation` and `catsweep.untrusted_config`. A list in a file that is loaded
    counts for nothing.

    Args:
        task: the function that `hydra.main` decorates.

    Returns:
        The same function, guarded.
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
            if _is_multirun() or os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
                raise
            if COMMAND.number is not None or isinstance(error, KeyboardInterrupt):  # Lightning makes another of it
                raise COMMAND.end() from None
            if not isinstance(error, CatsweepError):
                raise
            places.exit_with_message(error)

    return guarded


@contextmanager
def _explained() -> Iterator[None]:
    """Let a key that the configuration has not, or that leads nowhere, be an error of the configuration."""
    try:
        yield
    except (ConfigAttributeError, ConfigKeyError, InterpolationResolutionError) as error:
        told, _, rest = str(error).partition("\n")
        key = next((line.split()[-1] for line in rest.splitlines() if "full_key: " in line), "")
        raise ConfigError(f"{told}{f' ({key})' if key else ''}; --cfg job shows every key with its value.") from error


def _is_multirun() -> bool:
    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
