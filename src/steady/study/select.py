"""Selection of the best trials of a study: feasibility, order, Pareto ranks, and candidates for a confirmation.

Results, confirmation, dashboard, export, report and tracking read it here. Which of several seeds' means wins is
decided by `steady.confirm.confirmation`; an app may choose among the Pareto set by a rule of its own.
"""

import math

import numpy as np
import numpy.typing as npt
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


def is_feasible(trial: FrozenTrial) -> bool:
    """Tell whether a trial finished and violates no constraint.

    Example:
        >>> is_feasible(optuna.trial.create_trial(value=1.0, constraints={"memory": 0.5}))
        False
    """
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Select the Pareto-optimal feasible trials, by the first objective; at most one if there is one objective.

    Example:
        >>> study = optuna.create_study(directions=["minimize", "maximize"])
        >>> for values in ([2.0, 0.9], [1.0, 0.5], [3.0, 0.5]):
        ...     study.add_trial(optuna.trial.create_trial(values=values))
        >>> [trial.number for trial in best_trials(study)]
        [1, 0]
    """
    if len(study.directions) == 1:
        return [trial for trial in ranked(study)[:1] if is_feasible(trial)]
    return sorted(filter(is_feasible, study.best_trials), key=lambda trial: _order(study, trial))


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Sort all trials: finished ones by the first objective, best first; infeasible ones; unfinished ones.

    Example:
        >>> study = optuna.create_study(direction="maximize")
        >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (0.2, 0.7)])
        >>> [trial.number for trial in ranked(study)]
        [1, 0]
    """
    return sorted(study.get_trials(deepcopy=False), key=lambda trial: _order(study, trial))


def pareto_ranks(losses: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """Compute the non-domination rank of points (Deb et al. 2002, "NSGA-II"): 0 for those that no point dominates.

    A point dominates another if it is nowhere worse and somewhere better.

    Args:
        losses: shape (points, scores), lower is better.

    Returns:
        Shape (points,), from 0.

    Example:
        >>> pareto_ranks([[1, 2], [2, 1], [2, 2], [3, 3]]).tolist()
        [0, 0, 1, 2]
    """
    points = np.asarray(losses, dtype=float)
    result = np.zeros(len(points), dtype=int)
    dominates = (points[:, None] <= points[None]).all(-1) & (points[:, None] < points[None]).any(-1)
    left = np.ones(len(points), dtype=bool)
    rank = 0
    while left.any():
        front = left & ~(dominates & left[:, None]).any(0)
        result[front] = rank
        left &= ~front
        rank += 1
    return result


def candidates(study: optuna.Study, k: int | None = None, by: int = 0) -> list[int]:
    """Select the trials to confirm: the best finished, feasible ones, each configuration once.

    With several objectives they are sorted by Pareto rank, because a winner should be Pareto-optimal whatever it is
    chosen by; within a rank the objective decides by which the winner will be chosen.

    Args:
        study: the search.
        k: how many; None for all.
        by: index of the objective.

    Returns:
        Numbers of trials, the best first.

    Example:
        >>> study = optuna.create_study()
        >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (3.0, 1.0, 2.0)])
        >>> candidates(study, 2)  # all have the same configuration, without parameters
        [1]
    """
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in study.directions]
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [t for t in finished if is_feasible(t) and all(map(math.isfinite, t.values))]
    losses = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in trials]
    # Of one objective, the rank would be its order.
    rank = pareto_ranks(losses).tolist() if losses and len(signs) > 1 else [0] * len(losses)
    best: dict[str, int] = {}
    for i in sorted(range(len(trials)), key=lambda i: (rank[i], losses[i][by], losses[i], trials[i].number)):
        best.setdefault(repr(sorted(trials[i].params.items())), trials[i].number)
    return list(best.values())[:k]


def _order(study: optuna.Study, trial: FrozenTrial) -> tuple[int, float, int]:
    # By state, for a pruned trial has a value too: the last that it reported.
    if trial.state != TrialState.COMPLETE:
        return (2, 0.0, trial.number)
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    return (0 if is_feasible(trial) else 1, sign * trial.values[0], trial.number)
