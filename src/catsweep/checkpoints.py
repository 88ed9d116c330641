"""Write checkpoints whole or not at all, and read them whole or refuse them by name.

Lightning itself writes to the temporary folder and moves the file, which is a copy where that is another file system: a
kill or a full disk in it leaves a torn one.
"""

import io
import logging
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from catsweep.errors import DataError, TrainingError
from catsweep.records import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, in_short, require_whole, torn
from steady import atomic

log = logging.getLogger(__name__)

NAMED = 3  # keys that a message names
SHARED = 4  # names that one stored tensor may have, about, as tied weights do


class Checkpoints(TorchCheckpointIO):
    """Checkpoint IO for Lightning: each is written in one step, and `last` keeps the one before.

    The one before is kept only if this process has read the newest, or written it: a torn one must not take the place
    of the whole one that the run went on from.
    """

    def __init__(self) -> None:
        self.known: set[Path] = set()  # were whole when this process had to do with them

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint beside its place, to the disk itself, and rename it.

        A `TrainingError` if the disk is full or read-only; what was there before is then as it was.
        """
        path = Path(path)
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            with atomic.replacing(path) as unfinished:
                with unfinished.open("wb") as file:
                    file.write(content.getbuffer())
                    file.flush()
                    os.fsync(file.fileno())
                if path.name == LAST_CHECKPOINT.name:
                    self._keep(path)
        except OSError as error:
            raise TrainingError(
                f"{path} could not be written: {error.strerror or error}. It takes {len(content.getbuffer()):,} bytes; "
                f"the checkpoints before it are whole. Free some space and go on from them: the same line with "
                f"resume={path.parent.parent}, of a sweep the same line as it is."
            ) from error
        self.known.add(path.absolute())

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint, see `read`."""
        found = read(Path(path))
        self.known.add(Path(path).absolute())
        return found

    def _keep(self, last: Path) -> None:
        """Let the newest checkpoint, if it is whole, be the one before; at each moment one of the two is there."""
        previous = last.with_name(PREVIOUS_CHECKPOINT.name)
        if last.absolute() not in self.known:
            if previous.absolute() not in self.known:
                previous.unlink(missing_ok=True)  # of a run that nobody went on with
            return
        previous.unlink(missing_ok=True)
        try:
            previous.hardlink_to(last)
        except OSError:  # a file system without
            last.replace(previous)
        self.known.add(previous.absolute())


def read(file: Path) -> dict[str, Any]:
    """Read a checkpoint of Lightning on the CPU, after comparing each of its bytes with the checksums in it.

    Returns tensors and plain values only (nothing else is unpickled), with `state_dict` at the least; a `DataError`,
    whose message ends without a remedy, if it is missing or torn.
    """
    require_whole(file)
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        state = found["state_dict"]
        if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
            raise TypeError("its weights are no tensors")
        # A tensor may claim any shape over one stored number (stride 0), or over none (`meta`, sparse).
        if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > SHARED * file.stat().st_size:
            raise ValueError("its weights are more than it has bytes for")
    except pickle.UnpicklingError as error:  # torch's own words advise to run it
        raise DataError(torn(file, "it holds more than tensors and plain values, or is damaged")) from error
    except Exception as error:  # of a dozen classes: UnpicklingError, RuntimeError, KeyError, EOFError, …
        raise DataError(torn(file, in_short(error))) from error
    assert isinstance(found, dict)
    return found


def epoch_of(checkpoint: Mapping[str, Any]) -> int:
    """Read the epoch that a checkpoint was written in, counted from 1; a `DataError` if it does not tell."""
    try:
        # Not `epoch`, which counts on when training has ended.
        return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A checkpoint does not tell its epoch ({error!r}).") from error


def refuse_others(model: LightningModule, state: Mapping[str, Tensor], file: Path) -> None:
    """Raise a `DataError` that names what differs if a state, read from `file`, is another model's."""
    own = model.state_dict()
    missing, strange = [name for name in own if name not in state], [name for name in state if name not in own]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    found = {"it lacks": missing, "it has besides": strange, "other shapes:": shapes}
    if words := [f"{what} {', '.join(names[:NAMED])}" for what, names in found.items() if names]:
        name = type(model).__name__
        raise DataError(f"The checkpoint {file} is not of the {name} that config.yaml describes: {'; '.join(words)}.")


def newest(
    run: Path, accept: Callable[[dict[str, Any], Path], None] = lambda checkpoint, file: None
) -> tuple[Path, dict[str, Any]] | None:
    """Read the checkpoint that a run goes on from: the last, or the one before it if the last is torn, which is logged.

    `accept` raises a `DataError` at the content of one that will not do. Returns the file and its content; None if
    neither is there; a `DataError` if what is there is torn.
    """
    torn = []
    for file in (run / LAST_CHECKPOINT, run / PREVIOUS_CHECKPOINT):
        if not file.exists():
            continue
        try:
            found = read(file)
            accept(found, file)
            epoch = epoch_of(found)
        except DataError as error:
            torn.append(str(error))
            continue
        if file.name != LAST_CHECKPOINT.name:
            why = torn[0] if torn else f"{run / LAST_CHECKPOINT} is not there."
            log.warning("%s Going on from the one before it, of epoch %d.", why, epoch)
        return file, found
    if torn:
        raise DataError(" ".join(torn))
    return None
