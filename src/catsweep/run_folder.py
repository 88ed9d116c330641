"""Which folder a single run works in: a new one, or with `resume` the one it continues.

Registered as the OmegaConf resolver `run_folder` before Hydra composes, because Hydra makes the folder before our
code runs. Imported at each start: nothing heavy here. A folder is `outputs/runs/<date>/<time>`; a run is finished
when it has written `metrics.json`.
"""

import functools
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from omegaconf import OmegaConf

RUNS = Path("outputs/runs")
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
SCORES = Path("metrics.json")


def latest_unfinished(runs: Path = RUNS) -> Path | None:
    """The newest run that can be continued: it has a checkpoint and no final scores yet."""
    candidates = [file.parents[1] for file in runs.glob(f"*/*/{LAST_CHECKPOINT}")]
    return max((run for run in candidates if not (run / SCORES).exists()), default=None)


def run_folder(resume: bool | str | None, runs: Path = RUNS) -> str:
    """Where this run works.

    Args:
        resume: false for a new folder, true for the latest unfinished run, or the folder of the run to continue.
        runs: where new folders are made.

    Returns:
        The folder; a new one also if `resume` is true and nothing can be continued, which `training.run` refuses.
    """
    if isinstance(resume, str):
        return resume
    unfinished = latest_unfinished(runs) if resume else None
    return str(unfinished or _unused(runs / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"))


def _unused(folder: Path) -> Path:
    """The folder, with a number behind its name when another run started in the same second."""
    names = chain([folder.name], (f"{folder.name}-{n}" for n in count(2)))
    return next(path for name in names if not (path := folder.with_name(name)).exists())


def register() -> None:
    """Make `${run_folder:…}` known, such that one start never names two folders.

    OmegaConf's own cache belongs to one configuration object; Lightning asks another one when it starts the other
    processes of `trainer=ddp`, which must all work in the same folder.
    """
    _this_start.cache_clear()
    OmegaConf.register_resolver("run_folder", _this_start, replace=True)


@functools.cache
def _this_start(resume: bool | str | None, *runs: Path) -> str:
    # A function with a name of its own: resolvers travel to the processes of a sweep, pickled by name.
    return run_folder(resume, *runs)
