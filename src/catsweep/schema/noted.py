"""Names of the values that trials note, which a sweep may bound: `hydra.sweeper.constraints`.

`catsweep.training.model_size` measures them. Here, without torch, so that a misspelled one is refused at the start.
"""

import difflib

from omegaconf import DictConfig, OmegaConf

WEIGHTS, MILLISECONDS, ONNX_MB = "model/weights", "generate/ms", "model/onnx_mb"
NAMES = (WEIGHTS, MILLISECONDS, ONNX_MB)


def unknown_constraints(config: DictConfig) -> list[str]:
    """List the constraints of a sweep on values that no trial notes, a sentence each.

    >>> sweeper = {"constraints": {"model/weigths": "<= 1"}}
    >>> unknown_constraints(OmegaConf.create({"hydra": {"sweeper": sweeper}}))[0][-27:]
    'Did you mean model/weights?'
    """
    asked = OmegaConf.select(config, "hydra.sweeper.constraints") or {}
    said = []
    for name in (str(name) for name in asked if name not in NAMES):
        close = difflib.get_close_matches(name, NAMES, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        said.append(f"hydra.sweeper.constraints: no trial notes {name}; trials note {', '.join(NAMES)}.{meant}")
    return said
