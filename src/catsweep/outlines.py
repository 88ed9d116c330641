"""The outline of a model that a stranger's configuration describes: names and shapes, and no memory for the numbers.

A configuration of a few bytes may describe a model of a terabyte. `catsweep.runs` and `catsweep.export.weights` compare
its outline with the file of weights, whose size somebody has paid for, before the model itself is built.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.modules import module as registration

from catsweep.errors import ConfigError
from catsweep.instantiation import is_trusted
from catsweep.untrusted_config import rebuild

# Modules and parameters of a model for each tensor of its file, at most, beside the first `FEW`: many are activations
# and containers, and a file of a DCGAN's drawing half has a third of its tensors.
EACH, FEW = 30, 3000


def outline(config: Mapping[str, Any], tensors: int) -> LightningModule:
    """Build what a loaded configuration says is its model, without memory for its numbers.

    Args:
        config: what `catsweep.untrusted_config.read` returned.
        tensors: in the file of weights; the more there are, the more parts the model may have.

    Returns:
        The model, on the device `meta`. Of code that the command line trusts, which need not be buildable so, the model
        itself.

    Raises:
        ConfigError: see `catsweep.untrusted_config.rebuild`; or it has far more parts than the file has weights for.
    """
    node = config.get("model")
    name = node.get("_target_") if isinstance(node, Mapping) else None
    model: LightningModule
    if isinstance(name, str) and is_trusted(name):
        model = rebuild(config, "model")
    else:
        with torch.device("meta"), _parts_at_most(EACH * tensors + FEW):
            model = rebuild(config, "model")
    return model


@contextmanager
def _parts_at_most(most: int) -> Iterator[None]:
    """End the building of a module that goes on and on: each part takes some kB, on whatever device."""
    left = most

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ConfigError(
                f"Its config.yaml describes a model of more than {most:,} parts, and its weights are of a much smaller "
                "one. Was one of the two files changed?"
            )

    handles = [
        registration.register_module_module_registration_hook(count),
        registration.register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def numbers(model: nn.Module) -> int:
    """How many there are in a model's state."""
    return sum(tensor.numel() for tensor in model.state_dict().values())
