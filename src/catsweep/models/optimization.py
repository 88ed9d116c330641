"""Parts of a training loop: optimizers and schedules of a run, averaged weights, means of logged values."""

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from itertools import chain
from typing import Any, Self

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel

from catsweep import usage
from catsweep.instantiation import checked_once

OptimizerFactory = Callable[..., Optimizer]  # of groups of parameters
Schedule = Callable[[int, int], float]  # step and steps of the run to a multiplier of the learning rate
Pairs = tuple[list[Tensor], list[Tensor]]  # averages and what they are of


def decayed_groups(module: nn.Module) -> list[dict[str, object]]:
    """Split parameters into two groups, so that weight decay reaches matrices and kernels only.

    Decay on biases and normalization scales pulls them from their meaningful origin, and is left out since He et al.
    2018 (arXiv:1812.01187, section 3.1).

    >>> [len(group["params"]) for group in decayed_groups(nn.Linear(2, 3))]
    [1, 1]
    """
    parameters: Iterable[Tensor] = [p for p in module.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    return [{"params": kernels}, {"params": others, "weight_decay": 0.0}]


def expected_steps(trainer: pl.Trainer, step: int) -> int:
    """Estimate how many batches the whole run will train on, after `step` of them: at least `step`, and at least 1.

    A run ends by its epochs or by its budget (`catsweep.usage`), whichever comes first, and a warm-up or a decay must
    follow the one that binds: by its epochs alone, a run of minutes would end in its warm-up.

    >>> from types import SimpleNamespace
    >>> expected_steps(SimpleNamespace(estimated_stepping_batches=80, callbacks=[]), step=5)
    80
    """
    total = float(trainer.estimated_stepping_batches)
    if (counted := usage.of(trainer)) is not None and step and (share := counted.share):
        total = min(total, step / min(share, 1.0))
    return max(1, step, round(total))


def take_step(module: pl.LightningModule, side: int, loss: Tensor) -> None:
    """Step the optimizer number `side` of a module that optimizes by hand, down the gradient of a scalar.

    >>> layer = nn.Linear(1, 1)
    >>> layer.optimizers = lambda: [torch.optim.SGD(layer.parameters(), lr=1.0)]
    >>> layer.manual_backward = Tensor.backward
    >>> before = layer.bias.item()
    >>> take_step(layer, 0, layer(torch.ones(1, 1)).sum())
    >>> round(layer.bias.item() - before, 3)
    -1.0
    """
    optimizer = module.optimizers()[side]  # type: ignore[index]  # Lightning gives a list where there are several
    optimizer.zero_grad()
    module.manual_backward(loss)
    optimizer.step()


def of_first_process(trainer: pl.Trainer, images: Tensor) -> Tensor:
    """Broadcast the images of the first process to all, so that all of them measure the same.

    >>> from types import SimpleNamespace
    >>> of_first_process(SimpleNamespace(world_size=1), torch.zeros(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """
    if trainer.world_size == 1:
        return images
    told: Tensor = trainer.strategy.broadcast(images.cpu())
    return told.to(images.device)


def build(
    module: nn.Module,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    total_steps: Callable[[int], int],  # of the whole run, as expected after so many, see `expected_steps`
    lr: float | None = None,  # in place of the factory's own
) -> tuple[Optimizer, LambdaLR]:
    """Build an optimizer of a module's parameters and its per-step learning-rate schedule.

    >>> made, schedule = build(nn.Linear(1, 1), torch.optim.SGD, lambda step, total: 0.5, lambda step: 9, lr=0.2)
    >>> schedule.get_last_lr()
    [0.1, 0.1]
    """
    groups = decayed_groups(module)
    factor = checked_once(schedule)
    built = optimizer(groups) if lr is None else optimizer(groups, lr=lr)

    @lru_cache(maxsize=1)  # torch asks for each group of parameters
    def multiplier(step: int) -> float:
        total = total_steps(step)
        return factor(min(step, total), total)

    # A function: of any other object torch would keep the attributes in checkpoints.
    return built, LambdaLR(built, lambda step: multiplier(step))


def rising(decay: float, updates: int) -> float:
    """The decay after so many updates: from 0.1 up to `decay`, so that the first, useless values are soon forgotten.

    >>> rising(0.998, 0), rising(0.998, 10**6)
    (0.1, 0.998)
    """
    return min(decay, (1 + updates) / (10 + updates))


class MovingAverage(AveragedModel):
    """Exponential moving average of a module's weights and buffers (Yazıcı et al. 2018, arXiv:1806.04498).

    Its decay, in [0, 1), rises (`rising`), which short runs need. Counters of batch normalization are copied.

    torch's own update reads its count on the GPU in every step, and for every tensor if the weight depends on it, which
    waits for all the work that was handed over. Here the processor counts too, and few kernels change all tensors.
    """  # noqa: RUF002  # a name with dotless i's

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.requires_grad_(False)
        self.updates = 0  # `n_averaged`, where it can be read without waiting
        self._found: tuple[nn.Module, dict[torch.dtype, Pairs]] | None = None

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average the model's present weights in; the first time, copy them."""
        # To look for the tensors of two networks takes longer than to hand a GPU the work on them.
        if self._found is None or self._found[0] is not model:
            self._found = model, self._pairs(model)
        weight = 1 - rising(self.decay, self.updates) if self.updates else 1.0
        for dtype, (mine, theirs) in self._found[1].items():
            if dtype.is_floating_point:
                torch._foreach_lerp_(mine, theirs, weight)
            else:
                torch._foreach_copy_(mine, theirs)
        self.updates += 1
        self.n_averaged += 1

    def _pairs(self, model: nn.Module) -> dict[torch.dtype, Pairs]:
        found: dict[torch.dtype, Pairs] = {}
        averages = chain(self.module.parameters(), self.module.buffers())
        for average, current in zip(averages, chain(model.parameters(), model.buffers()), strict=True):
            mine, theirs = found.setdefault(average.dtype, ([], []))
            mine.append(average)
            theirs.append(current)
        return found

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._found = None  # moving a network replaces its buffers
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *others: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *others)
        self.updates = int(self.n_averaged)


class EpochMeans(pl.LightningModule):
    """A Lightning module that logs the means, over an epoch, of the values that `note` is given in each step.

    Lightning's own `log(on_epoch=True)` gives the same means, but costs about a third of a millisecond per value and
    step (measured on one core), during which a GPU has nothing to do: a small network takes some three in all.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sums: dict[str, Tensor] = {}
        self._noted = 0  # steps of this epoch

    def __setattr__(self, name: str, value: Any) -> None:
        """Set as torch does, but at once the name of the hook that runs, which Lightning sets twice for each hook."""
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def note(self, values: Mapping[str, Tensor]) -> None:
        """Add the scalars of one training step, by names such as `train/loss`; the same names in every step."""
        # Copies, since they are added to.
        current = {name: value.detach().float() for name, value in values.items()}
        if self._noted:
            torch._foreach_add_(list(self._sums.values()), [current[name] for name in self._sums])
        else:
            self._sums = {name: value.clone() for name, value in current.items()}
        self._noted += 1

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the means after the last step of an epoch, which may be cut short by time."""
        trainer = self.trainer
        if self._noted and (
            trainer.is_last_batch or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step
        ):
            means = {name: total / self._noted for name, total in self._sums.items()}
            self.log_dict(means, on_step=False, on_epoch=True, prog_bar=True, batch_size=1, sync_dist=True)
            self._noted = 0
