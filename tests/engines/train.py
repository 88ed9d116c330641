"""`src/train.py`, which also writes down where each attempt of a trial begins and ends: `attempts.log` in its folder.

Each line is begin, end or overlap, then host and pid. A lock that dies with its process shows an overlap.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catsweep.commands import guard  # isort: skip  # first, as in `src/train.py`

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from catsweep import runs

runs.register()
LOG = "attempts.log"


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Write down the begin and end of an attempt, and whether another runs in the same folder."""

    def write(event: str) -> None:
        with (folder / LOG).open("a") as log:
            log.write(f"{event} {socket.gethostname()} {os.getpid()}\n")

    with (folder / f".{LOG}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            write("overlap")
        write("begin")
        try:
            yield
        finally:
            write("end")


@hydra.main(config_path="../../conf", config_name="train")
@guard
def main(cfg: DictConfig) -> float | tuple[float, ...]:
    """Train as `src/train.py` does."""
    from catsweep.training import fit

    with logged(Path(HydraConfig.get().runtime.output_dir)):
        return fit.run(cfg)


if __name__ == "__main__":
    main()
