"""Which folder a single run works in: a new one, or with `resume` the one it continues; and that it works there alone.

Registered as the OmegaConf resolver `run_folder` before Hydra composes, because Hydra makes the folder before our
code runs: what cannot be resumed is refused here, before anything is written. Imported at each start: nothing heavy
here. A folder is `outputs/runs/<date>/<time>`; a run is finished when it has written `metrics.json`.
"""

import difflib
import functools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from catsweep.errors import ConfigError
from steady import links
from steady.printing import say

RUNS = Path("outputs/runs")
CONFIG = Path("config.yaml")
BEST_CHECKPOINT = Path("checkpoints/best.ckpt")
LAST_CHECKPOINT = Path("checkpoints/last.ckpt")
PREVIOUS_CHECKPOINT = Path("checkpoints/last-previous.ckpt")
SCORES = Path("metrics.json")
LOCK = Path(".lock")
LISTED = 3  # runs that a message names


def resumable(runs: Path = RUNS) -> list[Path]:
    """The runs that have a checkpoint and no final scores yet, newest first, also those that are being run."""
    return sorted((run for run in _with_checkpoint(runs) if not (run / SCORES).exists()), reverse=True)


def latest_unfinished(runs: Path = RUNS) -> Path | None:
    """The newest run that can be continued: it has a checkpoint, no final scores yet, and nobody works in it."""
    return next((run for run in resumable(runs) if not is_taken(run)), None)


def run_folder(resume: bool | str | None, runs: Path = RUNS) -> str:
    """Where this run works.

    Args:
        resume: false for a new folder, true for the latest unfinished run, or the folder of the run to continue.
        runs: where new folders are made.

    Raises:
        ConfigError: there is nothing to continue, somebody works in it, or a link in it leads out of it.
            Nothing was written.
    """
    if isinstance(resume, str):
        return _own(_named(resume, runs))
    if not isinstance(resume, bool | None):
        raise ConfigError(
            f"resume must be true, false or the folder of a run; got {resume!r}.{_candidates(None, runs)}"
        )
    if not resume:
        return str(_unused(runs / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"))
    if unfinished := latest_unfinished(runs):
        return _own(unfinished)
    busy = f" {resumable(runs)[0]} is being run." if resumable(runs) else ""
    raise ConfigError(
        f"resume=true: expected an unfinished run with {LAST_CHECKPOINT} in {runs}, but found none.{busy} "
        "Start a new run without resume, or name the folder of a finished one and a larger budget: "
        "resume=DIR epochs=N."
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Work in a run's folder while nobody else does.

    Args:
        folder: of the run; made if it is missing.

    Raises:
        ConfigError: another process works in it.
    """
    from filelock import FileLock, Timeout  # --help must not wait for it

    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / LOCK, timeout=0).acquire()
    except Timeout:
        raise ConfigError(f"Another process works in {folder}. {_END_IT}") from None
    except OSError as error:  # a link or a folder of that name, or a disk that takes nothing
        raise ConfigError(
            f"{folder / LOCK} cannot be locked, which keeps others out of the run: {error.strerror or error}. Remove "
            f"what is there, or choose another place: hydra.run.dir=DIR."
        ) from error
    with lock:
        yield


def is_taken(folder: Path) -> bool:
    """Whether another process works in a run's folder, as far as can be told without writing there."""
    # A rank of its own, of processes that somebody else has started, shares the folder with the first.
    if not (folder / LOCK).is_file() or any(os.environ.get(name, "0") != "0" for name in ("RANK", "LOCAL_RANK")):
        return False
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # of somebody else, or on a disk that takes nothing: the start will tell
        return False


_END_IT = "Wait until it has ended, or end it: Ctrl-C once stops it at a checkpoint."


def _own(folder: Path) -> str:
    """A run's folder, once it is known that going on in it writes nothing elsewhere: Hydra, too, follows links."""
    links.refuse_within(folder, "run", ConfigError)
    return str(folder)


def _with_checkpoint(runs: Path) -> set[Path]:
    return {file.parents[1] for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT) for file in runs.glob(f"*/*/{name}")}


def _named(resume: str, runs: Path) -> Path:
    """The folder that a person named, if a run can be continued in it."""
    folder = Path(resume).expanduser()
    if reason := _not_a_run(resume, folder):
        raise ConfigError(f"resume={resume}: expected the folder of a run; {reason}{_candidates(resume, runs)}")
    if is_taken(folder):
        raise ConfigError(f"resume={resume}: another process works in it. {_END_IT}")
    return folder


def _not_a_run(resume: str, folder: Path) -> str:
    """Why nothing can be continued in a folder; empty if it can, as far as the names in it tell."""
    if not resume.strip():
        return "an empty name is none."
    try:
        if not folder.exists():
            return "there is nothing of that name."
        if not folder.is_dir():
            run = next((above for above in folder.parents[:2] if (above / CONFIG).is_file()), None)
            return "that is a file." + (f" The run it is of: resume={run}." if run else "")
        if (folder / "generator.onnx").is_file():
            return "that is an exported bundle, which holds no checkpoint. Name the run that it was exported from."
        if (folder / CONFIG).is_file():
            there = any((folder / name).is_file() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT))
            if not there and (folder / "choice.json").is_file():
                return f"that is the best model of a study, a copy without {LAST_CHECKPOINT}."
            return "" if there else f"that one has no {LAST_CHECKPOINT}: it ended before its first epoch did."
        if any(file.parent.name.isdecimal() for file in folder.glob(f"*/{CONFIG}")):
            return "that is the folder of a sweep. The line that began it resumes it: python src/train.py -m …"
        return f"that one has no {CONFIG}."
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero
        return f"that name cannot be looked up ({error})."


def _candidates(resume: str | None, runs: Path) -> str:
    """Runs that a person may have meant: those with like names, else the newest."""
    known = _with_checkpoint(runs) | (_beside(Path(resume)) if resume else set())
    near = difflib.get_close_matches(resume, map(str, known), LISTED) if resume else []
    if near:
        return f" Runs of like names: {', '.join(near)}"
    unfinished = [str(run) for run in resumable(runs)[:LISTED]]
    return f" Unfinished runs: {', '.join(unfinished)}" if unfinished else " No run is unfinished: leave resume out."


def _beside(folder: Path) -> set[Path]:
    """Runs in the folder where one was looked for, wherever that is."""
    with suppress(OSError, ValueError):  # a name that is none
        return {file.parents[1] for file in folder.parent.glob(f"*/{LAST_CHECKPOINT}")}
    return set()


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
    OmegaConf.register_resolver("run_folder", _resolve, replace=True)
    OmegaConf.register_resolver("begun_in", _begun_in, replace=True)


def _begun_in(resume: Any) -> str | None:
    """Where Hydra keeps what a run began with: none if it goes on, as Hydra writes before the run is looked at."""
    return None if resume else ".hydra"


def _resolve(resume: Any, *runs: Path) -> str:
    # A function with a name of its own: resolvers travel to the processes of a sweep, pickled by name.
    try:
        known = isinstance(resume, bool | str | None)
        return _this_start(resume, *runs) if known else run_folder(resume, *runs)
    except ConfigError as error:
        # OmegaConf would wrap it, and Hydra print a page around that; `commands.guard` is not reached yet.
        if os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0"):
            raise
        say(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@functools.cache
def _this_start(resume: bool | str | None, *runs: Path) -> str:
    return run_folder(resume, *runs)
