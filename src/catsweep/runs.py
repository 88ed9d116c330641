"""From a run's folder back to its model: for generate, export, and the final scores of the run itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from catsweep import checkpoints, outlines
from catsweep.errors import DataError
from catsweep.loaded import read, rebuild
from catsweep.run_folder import BEST_CHECKPOINT, LAST_CHECKPOINT


def load_weights(model: pl.LightningModule, run: Path, checkpoint: str) -> int:
    """Load a checkpoint's weights into a model.

    Args:
        model: changed only if the checkpoint is whole and its own.
        run: the run's folder.
        checkpoint: `best` or `last`; of a torn `last` the one before it is taken, which is said.

    Returns:
        The epoch it was written in, counted from 1.

    Raises:
        DataError: there is no such checkpoint, it is torn, or another model's.
    """
    state, epoch = _read(run, checkpoint, lambda found, file: checkpoints.refuse_others(model, found, file))
    model.load_state_dict(state)
    return epoch


def _read(run: Path, checkpoint: str, accept: Callable[[dict[str, Tensor], Path], None]) -> tuple[dict[str, Any], int]:
    """The weights of a checkpoint that is accepted, and its epoch; see `load_weights`."""
    file = run / (LAST_CHECKPOINT if checkpoint == "last" else BEST_CHECKPOINT)

    def accept_weights(found: dict[str, Any], file: Path) -> None:
        accept(found["state_dict"], file)

    try:
        if checkpoint not in ("best", "last"):
            raise DataError(f"Expected the checkpoint best or last, got {checkpoint!r}.")
        if checkpoint == "last" and (there := checkpoints.newest(run, accept_weights)):
            file, found = there
        else:
            found = checkpoints.read(file)
            accept_weights(found, file)
        return found["state_dict"], checkpoints.epoch_of(found)
    except DataError as error:
        raise DataError(f"{error} {_remedy(run, checkpoint)}") from error


def _remedy(run: Path, checkpoint: str) -> str:
    there = [file.stem for file in sorted((run / "checkpoints").glob("[!.]*.ckpt"))]
    if not there:
        return "Name the folder of a run that has trained."
    other = "last" if checkpoint == "best" else "best"
    drawn = f" To draw with the other one: checkpoint={other}." if other in there else ""
    return (
        f"Put it back from a copy, or train again under the same options; of a study, choose another trial: "
        f"src/best_model.py select=NUMBER.{drawn}"
    )


def load_run(run: Path, checkpoint: str = "best") -> tuple[pl.LightningModule, dict[str, Any]]:
    """Rebuild the model of a run from its `config.yaml` and one of its checkpoints, whoever made them.

    Args:
        run: the run's folder.
        checkpoint: `best` or `last`.

    Returns:
        The model, on the CPU, in evaluation mode; and the run's configuration, plain and a stranger's.

    Raises:
        ConfigError: its configuration names what a loaded one may not, or cannot be read.
        DataError: the folder is not that of a run, or lacks the checkpoint.
    """
    file = run / "config.yaml"
    if not file.exists():
        raise DataError(
            f"Expected the folder of a run, with a config.yaml; {run} has none. Try one of outputs/runs/*/*."
        )
    config = read(file)

    def accept(state: dict[str, Tensor], file: Path) -> None:
        checkpoints.refuse_others(outlines.outline(config, len(state)), state, file)

    state, _ = _read(run, checkpoint, accept)
    model: pl.LightningModule = rebuild(config, "model")
    model.load_state_dict(state)
    return model.eval(), config
