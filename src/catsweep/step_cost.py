"""What Lightning does in every step for nothing, left out: hooks that nobody wrote, and timing that nobody reads.

`training.build_trainer` applies it. A small network takes a GPU a millisecond or two a step, in which the processor
must hand out the next one; what Python does besides is time in which the GPU has nothing to do. Lightning calls each
hook of the step of each callback, and times each call, whether or not there is anything to do.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import pytorch_lightning as pl
from pytorch_lightning.profilers import Profiler

STEP_HOOKS = (
    "on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step", "on_train_batch_end",
)  # fmt: skip

Hooked = TypeVar("Hooked", pl.Callback, pl.LightningModule)


def without_idle_hooks(objects: Iterable[Hooked]) -> list[Hooked]:
    """The same callbacks, or modules, whose hooks of the step are None where their class did not write any.

    Lightning passes over a hook that cannot be called.

    Args:
        objects: changed in place.
    """
    changed = list(objects)
    for one in changed:
        base = pl.Callback if isinstance(one, pl.Callback) else pl.LightningModule
        for hook in STEP_HOOKS:
            if getattr(type(one), hook) is getattr(base, hook):
                setattr(one, hook, None)
    return changed


class Untimed(Profiler):
    """Times nothing, at no cost: Lightning's own does so by way of a generator for each hook."""

    _nothing = nullcontext()

    def start(self, action_name: str) -> None:
        """Nothing."""

    def stop(self, action_name: str) -> None:
        """Nothing."""

    def profile(self, action_name: str) -> AbstractContextManager[Any]:  # type: ignore[override]  # a context manager
        """Nothing."""
        return self._nothing
