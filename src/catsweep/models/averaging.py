"""Averaged weights (Yazıcı et al. 2018, arXiv:1806.04498): what is drawn from, while another network learns.

`DCGAN` keeps one of its generator; `Generator.decode` draws from it.
"""  # noqa: RUF002  # a name with dotless i's

from itertools import chain

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """Exponential moving average of a module's weights and buffers.

    Its decay rises from 0.1 to `decay` as (1 + n) / (10 + n) after n updates: the first, useless weights are forgotten
    at once, which short runs need. Whole numbers (counters of batch normalisation) are copied.

    torch's own update reads its count in every step, and for every tensor if the weight depends on it; on a GPU each
    of these waits until all the work that was handed to it is done. Here the count stays on its device, and all
    tensors are changed by few kernels.

    Args:
        model: starts as its copy.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take in what the model is now; the first time, become it."""
        averages = list(chain(self.module.parameters(), self.module.buffers()))
        pairs = list(zip(averages, chain(model.parameters(), model.buffers()), strict=True))
        for dtype in {average.dtype for average in averages}:
            mine, theirs = map(list, zip(*(pair for pair in pairs if pair[0].dtype == dtype), strict=True))
            if dtype.is_floating_point:
                steps = torch._foreach_sub(theirs, mine)
                torch._foreach_mul_(steps, self._weight().to(dtype))
                torch._foreach_add_(mine, steps)
            else:
                torch._foreach_copy_(mine, theirs)
        self.n_averaged += 1

    def _weight(self) -> Tensor:
        """Of what the model is now, a scalar on the count's device: 1 at first, at last 1 - decay."""
        count = self.n_averaged
        weight = 1 - ((1 + count) / (10 + count)).clamp(max=self.decay)
        return torch.where(count == 0, 1.0, weight)
