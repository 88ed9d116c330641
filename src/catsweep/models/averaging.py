"""Averaged weights (Yazıcı et al. 2018, arXiv:1806.04498): what is drawn from, while another network learns.

`DCGAN` keeps one of its generator, `VAE` of its encoder and its decoder; what is drawn and scored comes from them.
"""  # noqa: RUF002  # a name with dotless i's

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Pairs = tuple[list[Tensor], list[Tensor]]  # averages and what they are of


def rising(decay: float, updates: int) -> float:
    """The decay after so many updates: from 0.1 up to `decay`, so that the first, useless values are soon forgotten."""
    return min(decay, (1 + updates) / (10 + updates))


class MovingAverage(AveragedModel):
    """Exponential moving average of a module's weights and buffers.

    Its decay rises, which short runs need, see `rising`. Whole numbers (counters of batch normalisation) are copied.

    torch's own update reads its count in every step, and for every tensor if the weight depends on it; on a GPU each
    of these waits until all the work that was handed to it is done. Here the processor counts too, and all tensors are
    changed by few kernels.

    Args:
        model: starts as its copy.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self._updates = 0  # `n_averaged`, where it can be read without waiting
        self._found: tuple[nn.Module, dict[torch.dtype, Pairs]] | None = None

    @property
    def updates(self) -> int:
        """How often it has taken in the model."""
        return self._updates

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in what the model is now; the first time, become it."""
        # To look for the tensors of two networks takes longer than to hand a GPU the work on them.
        if self._found is None or self._found[0] is not model:
            self._found = model, self._pairs(model)
        for dtype, (mine, theirs) in self._found[1].items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(mine, theirs, self._weight())
            else:
                torch._foreach_copy_(mine, theirs)
        self._updates += 1
        self.n_averaged += 1

    def _pairs(self, model: nn.Module) -> dict[torch.dtype, Pairs]:
        found: dict[torch.dtype, Pairs] = {}
        averages = chain(self.module.parameters(), self.module.buffers())
        for average, current in zip(averages, chain(model.parameters(), model.buffers()), strict=True):
            mine, theirs = found.setdefault(average.dtype, ([], []))
            mine.append(average)
            theirs.append(current)
        return found

    def _weight(self) -> float:
        """Of what the model is now: 1 at first, at last 1 - decay."""
        return 1 - rising(self.decay, self._updates) if self._updates else 1.0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moving a network replaces its buffers."""
        self._found = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        self._updates = int(self.n_averaged)
