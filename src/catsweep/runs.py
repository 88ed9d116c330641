"""From a run's folder back to its model: for generate, export, and the final scores of the run itself."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from catsweep.errors import DataError
from catsweep.loaded import read, rebuild
from catsweep.names import checked


def load_weights(model: pl.LightningModule, run: Path, checkpoint: str) -> int:
    """Load a checkpoint's weights into a model.

    Returns:
        The epoch it was written in, counted from 1.

    Raises:
        DataError: there is no such checkpoint.
    """
    file = run / "checkpoints" / f"{checked(checkpoint, 'checkpoint', DataError)}.ckpt"
    if not file.exists():
        raise DataError(f"Expected the checkpoint {file}; it is not there. Name the folder of a run that has trained.")
    state = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(state["state_dict"])
    # Not state["epoch"], which counts on when training has ended.
    return int(state["loops"]["fit_loop"]["epoch_progress"]["current"]["ready"])


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
    model: pl.LightningModule = rebuild(config, "model")
    load_weights(model, run, checkpoint)
    return model.eval(), config
