"""From the config's optimizer and schedule factories to what Lightning drives."""

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

OptimizerFactory = Callable[..., Optimizer]
Schedule = Callable[[int, int], float]


def decayed_groups(module: nn.Module) -> list[dict[str, object]]:
    """Split parameters so that weight decay reaches matrices and kernels only.

    Decay on biases and normalisation scales pulls them from their meaningful origin
    and is left out by convention since He et al. 2018 (arXiv:1812.01187, section 3.1).
    """
    parameters: Iterable[Tensor] = [p for p in module.parameters() if p.requires_grad]
    kernels = [p for p in parameters if p.ndim > 1]
    others = [p for p in parameters if p.ndim <= 1]
    return [{"params": kernels}, {"params": others, "weight_decay": 0.0}]


def build(
    module: nn.Module, optimizer: OptimizerFactory, schedule: Schedule, total_steps: int, lr: float | None = None
) -> tuple[Optimizer, LambdaLR]:
    """Make an optimizer and its per-step learning-rate schedule.

    Args:
        module: whose parameters to optimize.
        optimizer: factory, called with parameter groups.
        schedule: (step, total_steps) to a multiplier of the learning rate, see `catsweep.models.schedules`.
        total_steps: optimizer steps of the whole run.
        lr: learning rate in place of the factory's own.
    """
    groups = decayed_groups(module)
    built = optimizer(groups) if lr is None else optimizer(groups, lr=lr)
    return built, LambdaLR(built, lambda step: schedule(min(step, total_steps), total_steps))
