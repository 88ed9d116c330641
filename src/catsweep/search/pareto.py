"""A pruner for several rung scores at once: what counts is how many trials are better in every one of them.

Optuna's pruners know one value. This one is asked with all of them, by `catsweep.search.pruning`.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catsweep.errors import ConfigError


def ranks(losses: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """Non-domination rank of each point (Deb et al. 2002, "NSGA-II"): 0 for those that no point dominates.

    A point dominates another if it is nowhere worse and somewhere better.

    Args:
        losses: shape (points, scores), lower is better.

    Returns:
        Shape (points,), from 0.
    """
    points = np.asarray(losses, dtype=float)
    result = np.zeros(len(points), dtype=int)
    no_worse = (points[:, None] <= points[None]).all(-1)
    better = (points[:, None] < points[None]).any(-1)
    dominates = no_worse & better
    left = np.ones(len(points), dtype=bool)
    rank = 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(0)
        result[front] = rank
        left &= ~front
        rank += 1
    return result


class ParetoPruner:
    """Ends a trial when too many of those that came as far stand before it.

    Trials of the same rank never end each other: neither is better in everything.

    Args:
        keep: share of the trials at a rung that may go on, 0 to 1.
        n_startup_trials: how many trials must have finished before any is ended.
        n_warmup_steps: none is ended at steps below it, as in Optuna's pruners.

    Raises:
        ConfigError: `keep` is no share.
    """

    def __init__(self, keep: float = 0.5, n_startup_trials: int = 5, n_warmup_steps: int = 0) -> None:
        if not 0 < keep <= 1:
            raise ConfigError(f"ParetoPruner.keep is a share above 0 and at most 1; got {keep}.")
        self.keep, self.n_startup_trials, self.n_warmup_steps = keep, n_startup_trials, n_warmup_steps

    def prune(self, own: Sequence[float], others: Sequence[Sequence[float]], finished: int, step: int) -> bool:
        """Whether to end a trial.

        Args:
            own: its scores at this rung, lower is better.
            others: those of the other trials that came to it.
            finished: how many trials have finished.
            step: the rung.
        """
        if finished < self.n_startup_trials or step < self.n_warmup_steps or not others:
            return False
        ranked = ranks([own, *others])
        before = int((ranked < ranked[0]).sum())
        return before >= self.keep * len(ranked)
