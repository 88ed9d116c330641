"""From the config's optimizer and schedule factories to what Lightning drives."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from catsweep.instantiation import checked_once

OptimizerFactory = Callable[..., Optimizer]
Schedule = Callable[[int, int], float]
R = TypeVar("R")


def decayed_groups(module: nn.Module) -> list[dict[str, object]]:
    """Split parameters so that weight decay reaches matrices and kernels only.

    Decay on biases and normalisation scales pulls them from their meaningful origin
    and is left out by convention since He et al. 2018 (arXiv:1812.01187, section 3.1).
    """
    parameters: Iterable[Tensor] = [p for p in module.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    return [{"params": kernels}, {"params": others, "weight_decay": 0.0}]


def expected_steps(trainer: pl.Trainer, step: int) -> int:
    """How many batches the whole run will train on, as it looks after `step` of them.

    A run ends by its epochs or by its time (`minutes`), whichever comes first. What is spread over a run, a warm-up
    or a decay, must follow the one that binds: counted in epochs alone, a run of minutes would end within its warm-up.

    Args:
        trainer: with a `Timer` callback if time bounds the run.
        step: batches trained on so far.

    Returns:
        At least `step`, and at least 1.
    """
    total = float(trainer.estimated_stepping_batches)
    for timer in trainer.callbacks:  # type: ignore[attr-defined]  # Lightning adds it at construction
        if isinstance(timer, Timer) and (remaining := timer.time_remaining()) is not None:
            elapsed = timer.time_elapsed()
            if step and elapsed:
                total = min(total, step * (elapsed + max(remaining, 0.0)) / elapsed)
    return max(1, step, round(total))


def once_a_step(function: Callable[[int], R]) -> Callable[[int], R]:
    """The same function of the step, which is not asked again for the step that it was asked for last."""
    last: tuple[int, R] | None = None

    def remembered(step: int) -> R:
        nonlocal last
        if last is None or last[0] != step:
            last = step, function(step)
        return last[1]

    return remembered


def take_step(module: pl.LightningModule, side: int, loss: Tensor) -> None:
    """One step of one of the optimizers of a module that optimizes by hand.

    Args:
        module: with several optimizers.
        side: which of them.
        loss: a scalar, whose gradient is taken.
    """
    optimizer = module.optimizers()[side]  # type: ignore[index]  # Lightning gives a list where there are several
    optimizer.zero_grad()
    module.manual_backward(loss)
    optimizer.step()


def of_first_process(trainer: pl.Trainer, images: Tensor) -> Tensor:
    """The images of the first process, in each, so that all of them measure the same."""
    if trainer.world_size == 1:
        return images
    told: Tensor = trainer.strategy.broadcast(images.cpu())
    return told.to(images.device)


def build(
    module: nn.Module,
    optimizer: OptimizerFactory,
    schedule: Schedule,
    total_steps: Callable[[int], int],
    lr: float | None = None,
) -> tuple[Optimizer, LambdaLR]:
    """Make an optimizer and its per-step learning-rate schedule.

    Args:
        module: whose parameters to optimize.
        optimizer: factory, called with parameter groups.
        schedule: (step, total_steps) to a multiplier of the learning rate, see `catsweep.models.schedules`.
        total_steps: optimizer steps of the whole run, as expected after so many, see `expected_steps`.
        lr: learning rate in place of the factory's own.
    """
    groups = decayed_groups(module)
    factor = checked_once(schedule)
    built = optimizer(groups) if lr is None else optimizer(groups, lr=lr)

    def multiplier(step: int) -> float:
        total = total_steps(step)
        return factor(min(step, total), total)

    return built, LambdaLR(built, once_a_step(multiplier))  # torch asks for each group of parameters


def follow(other: LambdaLR) -> Schedule:
    """The schedule that gives what another optimizer's rate is multiplied by now, whatever its own step is."""
    return lambda step, total: float(other.lr_lambdas[0](other.last_epoch))
