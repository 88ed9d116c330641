"""Folders of runs and exported bundles: what they hold, and which one a run works in.

A folder is `outputs/runs/<date>/<time>`; a run is finished when it has written `metrics.json`. Imported at each start,
so nothing heavy is imported at the top.
"""

import difflib
import functools
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from catsweep.errors import ConfigError, DataError, ExportError
from catsweep.idle_gpus import sweep_gpus
from catsweep.records import ANY, NUMBER, is_score, misshapen, read_json
from catsweep.records import BEST_CHECKPOINT as BEST_CHECKPOINT
from catsweep.records import LAST_CHECKPOINT as LAST_CHECKPOINT
from catsweep.records import PREVIOUS_CHECKPOINT as PREVIOUS_CHECKPOINT
from steady import safe_paths
from steady.printing import say

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from torch import Tensor

RUNS = Path("outputs/runs")
CONFIG, SCORES, PROVENANCE = Path("config.yaml"), Path("metrics.json"), Path("provenance.json")
JUDGEMENT, CHOICE = Path("judge.json"), Path("choice.json")
DOCUMENTS = (str(CONFIG), str(SCORES), str(PROVENANCE))  # of each finished run
LOCK = Path(".lock")
SCORED = ("best", "last")  # the checkpoints that a run may be scored from
LISTED = 3  # runs that a message names
ANOTHER = "Choose another trial, select=NUMBER, or name another run; this one can be trained again."


@dataclass(frozen=True)
class Metrics:
    """Content of a `metrics.json`, perhaps a stranger's: each part is checked when it is asked for."""

    file: Path
    content: Mapping[str, Any]  # all of it, as it was read

    @property
    def scores(self) -> dict[str, float]:
        """Scores by name, of the checkpoint that counts; a `DataError` if there are none, or one is no number."""
        found = self.content.get("scores")
        if not isinstance(found, dict):
            raise DataError(f"{self.file} holds no scores.")
        try:
            return {str(name): float(score) for name, score in found.items()}
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.file} holds a score that is no number: {error}.") from error

    def score(self, name: str) -> float:
        """One score by its name; a `DataError` if it is not there, or no number."""
        try:
            return float(self.content["scores"][name])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{self.file} holds no score {name}: {error}.") from error

    @property
    def finite(self) -> dict[str, float]:
        """Scores that can be averaged and drawn; none if any is no number."""
        scores = self.content.get("scores") or {}
        if misshapen(scores, {ANY: NUMBER}):
            return {}
        return {name: float(value) for name, value in scores.items() if value is not None and is_score(value)}

    @property
    def cards(self) -> dict[str, Any]:
        """Cards of the scores; a `DataError` if they are no object."""
        return self._object("cards")

    @property
    def intervals(self) -> dict[str, Any]:
        """Intervals of the scores; none of a run. Errors as for `cards`."""
        return self._object("intervals")

    @property
    def checkpoint(self) -> str:
        """Name of the checkpoint that was scored, `best` or `last`; an `ExportError` if none is named."""
        if "checkpoint" not in self.content:
            raise ExportError(f"{self.file} is not the record of a finished run ('checkpoint'). {ANOTHER}")
        name = self.content["checkpoint"]
        if name not in SCORED:
            raise ExportError(
                f"{self.file} must name the checkpoint that was scored, {' or '.join(SCORED)}; got {name!r}. {ANOTHER}"
            )
        return str(name)

    @property
    def epoch(self) -> float:
        """Epoch of that checkpoint, counted from 1; infinite if nobody knows."""
        try:
            return float(self.content["epoch"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return math.inf

    def _object(self, key: str) -> dict[str, Any]:
        found = self.content.get(key, {})
        if not isinstance(found, dict):
            raise DataError(f"{self.file} holds {key} that are no object.")
        return found


@dataclass(frozen=True)
class RunDir:
    """Folder of a run, or of a best model, which has the same layout; perhaps a stranger's.

    A document that is missing, torn, or no object is a `DataError`.
    """

    path: Path

    def config(self) -> dict[str, Any]:
        """Read `config.yaml` as plain values; a `ConfigError` if it cannot be read, or refers to this machine."""
        from catsweep.untrusted_config import read

        return read(self.path / CONFIG)

    def metrics(self) -> Metrics:
        """Read `metrics.json`."""
        return Metrics(self.path / SCORES, read_json(self.path / SCORES))

    def provenance(self) -> dict[str, Any]:
        """Read `provenance.json`: code, packages, command, and digest of the data."""
        return read_json(self.path / PROVENANCE)

    def judgement(self) -> dict[str, Any]:
        """Read `judge.json`; `catsweep.metrics.judge` says what it means."""
        return read_json(self.path / JUDGEMENT)

    def choice(self) -> dict[str, Any] | None:
        """Read `choice.json` of a best model; None of any other run."""
        return read_json(self.path / CHOICE) if (self.path / CHOICE).is_file() else None

    def scored_checkpoint(self) -> str:
        """Name of the checkpoint that was scored, `best` or `last`; an `ExportError` if the run has no scores."""
        try:
            return self.metrics().checkpoint
        except DataError as error:
            raise ExportError(
                f"{self.path / SCORES} is not the record of a finished run ({error}). {ANOTHER}"
            ) from error

    def grid(self, kind: str, until: float = math.inf) -> Path | None:
        """Find the last page of `samples` or `reconstructions` up to an epoch, else the first one; None without any."""
        drawn = (self.path / kind).glob("epoch_*.png")
        pages = {int(page.stem[6:]): page for page in drawn if re.fullmatch(r"epoch_[0-9]{1,9}", page.stem)}
        before = [epoch for epoch in pages if epoch <= until]
        return pages[max(before) if before else min(pages)] if pages else None

    def write(self, name: Path, content: Mapping[str, Any], *, ascii_only: bool = True) -> None:
        """Write one of its JSON documents, whole or not at all; with `ascii_only=False` letters stay as they are."""
        from steady.atomic import write_json

        write_json(self.path / name, dict(content), ascii_only=ascii_only)


class Bundle(RunDir):
    """Folder of an exported model: the documents of a run, and files that draw without catsweep."""

    GENERATOR, RECONSTRUCTOR = "generator.onnx", "reconstructor.onnx"
    PROGRAM, WEIGHTS, SCRIPT, README = "generator.pt2", "model.safetensors", "generate.py", "README.md"
    PICTURES = ("samples.png", "interpolation.png", "nearest_neighbours.png")
    # Read by catsweep, or run by others.
    FILES = (*DOCUMENTS, str(JUDGEMENT), GENERATOR, RECONSTRUCTOR, PROGRAM, WEIGHTS, SCRIPT, *PICTURES)

    @classmethod
    def is_at(cls, folder: Path) -> bool:
        """Whether a folder is an exported bundle, and not that of a run; also one that lost a file."""
        return any((folder / name).is_file() for name in (cls.GENERATOR, cls.WEIGHTS))

    @classmethod
    def latest(cls, exports: Path) -> Path:
        """Find the bundle that was written last in the folder of all bundles; an `ExportError` if there is none."""
        files = [file for file in exports.glob(f"*/{cls.GENERATOR}") if file.parent.name[0] != "."]
        if not files:
            raise ExportError(
                f"No bundle in {exports}/. Write one with `make best-model export`, or name one: bundle=…."
            )
        return max(files, key=lambda file: file.stat().st_mtime).parent


def latest_unfinished(runs: Path = RUNS) -> Path | None:
    """Find the newest run that can be continued: it has a checkpoint, no final scores yet, and nobody works in it."""
    return next((run for run in _resumable(runs) if not is_taken(run)), None)


def _resumable(runs: Path) -> list[Path]:
    """List the runs that have a checkpoint and no final scores yet, newest first, also those that are being run."""
    return sorted((run for run in _with_checkpoint(runs) if not (run / SCORES).exists()), reverse=True)


def run_folder(resume: bool | str | None, runs: Path = RUNS) -> str:
    """Resolve the folder that a run works in, without writing anything.

    Args:
        resume: false for a new folder, true for the latest unfinished run, or the folder of the run to continue.
        runs: where new folders are made.

    Raises:
        ConfigError: there is nothing to continue, somebody works in it, or a link in it leads out of it.
    """
    if not isinstance(resume, str | bool | None):
        said = f"resume must be true, false or the folder of a run; got {resume!r}."
        raise ConfigError(said + _candidates(None, runs))
    if isinstance(resume, str):
        folder = _named(resume, runs)
    elif not resume:
        usual = runs / f"{datetime.now():%Y-%m-%d/%H-%M-%S}"
        numbered = (usual.with_name(f"{usual.name}-{n}") for n in count(2))  # another run began in the same second
        return str(next(path for path in chain([usual], numbered) if not path.exists()))
    elif unfinished := latest_unfinished(runs):
        folder = unfinished
    else:
        busy = f" {running[0]} is being run." if (running := _resumable(runs)) else ""
        raise ConfigError(
            f"resume=true: expected an unfinished run with {LAST_CHECKPOINT} in {runs}, but found none.{busy} Start a "
            "new run without resume, or name the folder of a finished one and a larger budget: resume=DIR epochs=N."
        )
    safe_paths.refuse_links_within(folder, "run", ConfigError)  # what leads elsewhere would be written to, by Hydra too
    return str(folder)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock a run's folder, made if it is missing, while one works in it; a `ConfigError` if another process does."""
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


def _with_checkpoint(runs: Path) -> set[Path]:
    return {file.parents[1] for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT) for file in runs.glob(f"*/*/{name}")}


def _named(resume: str, runs: Path) -> Path:
    """Check the folder that a person named: a run must be there that can be continued."""
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
        if (folder / Bundle.GENERATOR).is_file():
            return "that is an exported bundle, which holds no checkpoint. Name the run that it was exported from."
        if (folder / CONFIG).is_file():
            if any((folder / name).is_file() for name in (LAST_CHECKPOINT, PREVIOUS_CHECKPOINT)):
                return ""
            if (folder / CHOICE).is_file():
                return f"that is the best model of a study, a copy without {LAST_CHECKPOINT}."
            return f"that one has no {LAST_CHECKPOINT}: it ended before its first epoch did."
        if any(file.parent.name.isdecimal() for file in folder.glob(f"*/{CONFIG}")):
            return "that is the folder of a sweep. The line that began it resumes it: python src/train.py -m …"
        return f"that one has no {CONFIG}."
    except (OSError, ValueError) as error:  # a name that is too long, or holds a zero
        return f"that name cannot be looked up ({error})."


def _candidates(resume: str | None, runs: Path) -> str:
    """Runs that a person may have meant: those with like names, else the newest."""
    if resume:
        known = _with_checkpoint(runs)
        with suppress(OSError, ValueError):  # a name that is none
            known |= {file.parents[1] for file in Path(resume).parent.glob(f"*/{LAST_CHECKPOINT}")}
        if near := difflib.get_close_matches(resume, map(str, known), LISTED):
            return f" Runs of like names: {', '.join(near)}"
    unfinished = [str(run) for run in _resumable(runs)[:LISTED]]
    return f" Unfinished runs: {', '.join(unfinished)}" if unfinished else " No run is unfinished: leave resume out."


def register() -> None:
    """Register the resolvers of conf/train.yaml; `${run_folder:…}` such that one start never names two folders.

    Hydra makes the folder before our code runs, so what cannot be resumed is refused here. OmegaConf's own cache
    belongs to one configuration object; Lightning asks another one when it starts the other processes of
    `trainer=ddp`, which must all work in the same folder.
    """
    _this_start.cache_clear()
    OmegaConf.register_resolver("run_folder", _resolve, replace=True)
    OmegaConf.register_resolver("begun_in", _begun_in, replace=True)
    OmegaConf.register_resolver("sweep_gpus", sweep_gpus, replace=True)


def _begun_in(resume: Any) -> str | None:
    """Name the folder for Hydra's records: none if the run goes on, as Hydra writes before the run is looked at."""
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


def load_weights(model: "pl.LightningModule", run: Path, checkpoint: str) -> int:
    """Load the weights of a run's checkpoint, `best` or `last`, into a model, and return its epoch, counted from 1.

    Of a torn `last` the one before it is taken, which is said. A `DataError` leaves the model unchanged.
    """
    from catsweep import checkpoints

    state, epoch = _weights(run, checkpoint, lambda found, file: checkpoints.refuse_others(model, found, file))
    model.load_state_dict(state)
    return epoch


def load_run(run: Path, checkpoint: str = "best") -> "tuple[pl.LightningModule, dict[str, Any]]":
    """Rebuild the model of a run from its `config.yaml` and one of its checkpoints, whoever made them.

    Returns:
        The model, on the CPU, in evaluation mode; and the run's configuration, plain and a stranger's.

    Raises:
        ConfigError: its configuration names what a loaded one may not, or cannot be read.
        DataError: the folder is not that of a run, or lacks the checkpoint.
    """
    from catsweep import checkpoints
    from catsweep.models import meta_model
    from catsweep.untrusted_config import rebuild

    if not (run / CONFIG).exists():
        raise DataError(
            f"Expected the folder of a run, with a config.yaml; {run} has none. Try one of outputs/runs/*/*."
        )
    config = RunDir(run).config()

    def accept(state: "dict[str, Tensor]", file: Path) -> None:
        checkpoints.refuse_others(meta_model.build_on_meta(config, len(state)), state, file)

    state, _ = _weights(run, checkpoint, accept)
    model: pl.LightningModule = rebuild(config, "model")
    model.load_state_dict(state)
    return model.eval(), config


def _weights(
    run: Path, checkpoint: str, accept: "Callable[[dict[str, Tensor], Path], None]"
) -> tuple[dict[str, Any], int]:
    """Read the weights of a checkpoint that is accepted, and its epoch; see `load_weights`."""
    from catsweep import checkpoints

    def accept_weights(found: dict[str, Any], file: Path) -> None:
        accept(found["state_dict"], file)

    try:
        if checkpoint not in SCORED:
            raise DataError(f"Expected the checkpoint best or last, got {checkpoint!r}.")
        if checkpoint == "last" and (there := checkpoints.newest(run, accept_weights)):
            _, found = there
        else:
            file = run / BEST_CHECKPOINT.with_stem(checkpoint)
            found = checkpoints.read(file)
            accept_weights(found, file)
        return found["state_dict"], checkpoints.epoch_of(found)
    except DataError as error:
        raise DataError(f"{error} {_remedy(run, checkpoint)}") from error


def _remedy(run: Path, checkpoint: str) -> str:
    there = [file.stem for file in (run / BEST_CHECKPOINT.parent).glob("[!.]*.ckpt")]
    if not there:
        return "Name the folder of a run that has trained."
    other = "last" if checkpoint == "best" else "best"
    drawn = f" To draw with the other one: checkpoint={other}." if other in there else ""
    return (
        f"Put it back from a copy, or train again under the same options; of a study, choose another trial: "
        f"src/best_model.py select=NUMBER.{drawn}"
    )
