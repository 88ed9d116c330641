"""Build a model on PyTorch's meta device: names and shapes of what a stranger's configuration describes, no memory.

A configuration of a few bytes may describe a model of a terabyte. `catsweep.runs` and `catsweep.export.weights` compare
it with the file of weights, whose size somebody has paid for, before the model itself is built.
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


def build_on_meta(config: Mapping[str, Any], tensors: int) -> LightningModule:
    """Build the model of a configuration of `catsweep.untrusted_config.read` without memory for its numbers.

    >>> build_on_meta({}, tensors=1)  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    ConfigError: Expected a configuration that says what its model is; it has None there.

    The more tensors are in the file of weights, the more parts it may have. Code that the command line trusts need not
    be buildable so: of it comes the model itself.

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


def count_numbers(model: nn.Module) -> int:
    """Count the numbers in a model's state.

    >>> count_numbers(nn.Linear(2, 3))
    9
    """
    return sum(tensor.numel() for tensor in model.state_dict().values())
