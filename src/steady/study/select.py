"""Select the best trials of a study: order, Pareto set and ranks, rules of choice, candidates to confirm.

The one place that decides which trial won, but for the means under other seeds, which `steady.confirm.confirmation`
compares. A finished trial that violates a constraint is infeasible, and never wins.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import optuna
from optuna.study import StudyDirection
from optuna.study._multi_objective import _get_pareto_front_trials_by_trials
from optuna.trial import FrozenTrial, TrialState

from steady.exceptions import ConfigError, StudyError


@dataclass(frozen=True)
class Objective:
    """A score that a study optimises."""

    name: str  # for example `val/fid`
    maximise: bool  # whether higher is better

    @classmethod
    def of(cls, study: optuna.Study, names: Sequence[str]) -> tuple["Objective", ...]:
        """List the objectives of a study, one for each name."""
        directions = zip(names, study.directions, strict=True)
        return tuple(cls(str(name), direction == StudyDirection.MAXIMIZE) for name, direction in directions)

    @property
    def direction(self) -> str:
        """`minimize` or `maximize`."""
        return "maximize" if self.maximise else "minimize"

    def loss(self, value: float) -> float:
        """Turn the sign of a value so that lower is better."""
        return -value if self.maximise else value


@dataclass(frozen=True)
class ScoredTrial:
    """A finished trial."""

    number: int
    values: tuple[float, ...]  # finite, one per objective
    violated: tuple[str, ...] = ()  # constraints of the study, in words

    def losses(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Turn the signs of the values so that lower is better in each."""
        return tuple(o.loss(v) for o, v in zip(objectives, self.values, strict=True))


@dataclass(frozen=True)
class TrialChoice:
    """A trial that a rule has chosen."""

    candidate: ScoredTrial
    reason: str  # half a sentence for people
    objective: int | None = None  # index of the objective that was asked for, if one was


def objective_names(study: optuna.Study, given: Sequence[str] = ()) -> list[str]:
    """Get the given names of a study's objectives, or without any `value`, or `value 0`, `value 1`, ….

    >>> objective_names(optuna.create_study()), objective_names(optuna.create_study(), ["loss"])
    (['value'], ['loss'])
    """
    n = len(study.directions)
    return list(given) or (["value"] if n == 1 else [f"value {i}" for i in range(n)])


def pareto_set(study: optuna.Study, among: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Select the Pareto-optimal feasible trials of a study, or `among` some; the best by the first objective first.

    >>> study = optuna.create_study()
    >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (0.2, 0.2, 0.7)])
    >>> [trial.number for trial in pareto_set(study)]
    [0, 1]
    """
    trials = study.get_trials(deepcopy=False) if among is None else among
    # As `Study.best_trials`, which copies all trials.
    found = _get_pareto_front_trials_by_trials(trials, study.directions, consider_constraint=True)
    return _sorted(study, filter(_is_feasible, found))


def best_trials(study: optuna.Study, among: Sequence[FrozenTrial] | None = None) -> list[FrozenTrial]:
    """Select the Pareto set, or, of one objective, the best trial; of a study, or `among` some of its trials.

    >>> study = optuna.create_study(directions=["minimize", "maximize"])
    >>> for values in ([2.0, 0.9], [1.0, 0.5], [3.0, 0.5]):
    ...     study.add_trial(optuna.trial.create_trial(values=values))
    >>> [trial.number for trial in best_trials(study)]
    [1, 0]
    """
    found = pareto_set(study, among)
    return found[:1] if len(study.directions) == 1 else found


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Sort all trials: finished ones by their objectives, the best first; infeasible ones; unfinished ones.

    >>> study = optuna.create_study(direction="maximize")
    >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (0.2, 0.7)])
    >>> [trial.number for trial in ranked(study)]
    [1, 0]
    """
    return _sorted(study, study.get_trials(deepcopy=False))


def pareto_ranks(losses: npt.ArrayLike) -> npt.NDArray[np.int_]:
    """Compute the non-domination rank of points (Deb et al. 2002, "NSGA-II"): 0 for those that no point dominates.

    A point dominates another if it is nowhere worse and somewhere better. `losses` has the shape (points, scores),
    lower is better; the ranks have the shape (points,).

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


def candidates(study: optuna.Study, k: int | None = None) -> list[int]:
    """Select the numbers of the `k` trials to confirm, or all: the best feasible ones, each configuration once.

    Several objectives are sorted by Pareto rank, because a winner should be Pareto-optimal whatever it is chosen by;
    within a rank the first objective decides, as among the confirmed.

    >>> study = optuna.create_study()
    >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (3.0, 1.0, 2.0)])
    >>> candidates(study, 2)  # all have the same configuration, without parameters
    [1]
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [t for t in finished if _is_feasible(t) and all(map(math.isfinite, t.values))]
    losses = [_losses(study.directions, trial) for trial in trials]
    # Of one objective, the rank would be its order.
    rank = pareto_ranks(losses).tolist() if losses and len(study.directions) > 1 else [0] * len(losses)
    best: dict[str, int] = {}
    for i in sorted(range(len(trials)), key=lambda i: (rank[i], losses[i], trials[i].number)):
        best.setdefault(repr(sorted(trials[i].params.items())), trials[i].number)
    return list(best.values())[:k]


def choose(
    rule: str | int,
    front: Sequence[ScoredTrial],
    finished: Sequence[ScoredTrial],
    objectives: Sequence[Objective],
    others: Sequence[str] = (),
) -> TrialChoice:
    """Choose a trial by a rule, whatever the order in which the trials come.

    Rules are an objective, by its full name, its last part (`fid` for `val/fid`), or a piece that occurs in one name
    only: the point of the Pareto set that is best in it, of equals the best in the others in their order; `knee`, see
    there; or the number of a finished trial, Pareto-optimal or not. `others` are further rules, for the message.

    Raises:
        StudyError: no finished trial has that number.
        ConfigError: the rule is none of these, or fits several objectives.

    >>> trials = [ScoredTrial(0, (3.0,)), ScoredTrial(1, (2.0,))]
    >>> choose("loss", trials, trials, [Objective("loss", maximise=False)]).reason
    'the lowest loss'
    """
    rule = str(rule).strip()
    if rule.isdecimal():
        chosen = next((trial for trial in finished if trial.number == int(rule)), None)
        if chosen is None:
            numbers = ", ".join(map(str, sorted(trial.number for trial in finished)))
            raise StudyError(
                f"select={int(rule)}: the study has no finished trial of that number. Finished are: {numbers}."
            )
        remark = "" if chosen in front else ", although it is not Pareto-optimal"
        if chosen.violated:
            remark = f", although it violates {' and '.join(chosen.violated)}"
        return TrialChoice(chosen, f"asked for by its number{remark}")
    if rule == "knee":
        return TrialChoice(knee(front, objectives), "the knee of the Pareto set")
    axis = _axis(rule, [objective.name for objective in objectives], ("knee", *others))
    best = min(front, key=lambda c: (c.losses(objectives)[axis], *c.losses(objectives), c.number))
    extreme = "highest" if objectives[axis].maximise else "lowest"
    return TrialChoice(best, f"the {extreme} {objectives[axis].name}", axis)


def knee(front: Sequence[ScoredTrial], objectives: Sequence[Objective]) -> ScoredTrial:
    """Find the point of a Pareto set beyond which a little more of one objective costs much of another.

    Each objective is rescaled over the Pareto set, best to 0 and worst to 1. The extremes of two objectives are then
    (0, 1) and (1, 0), and the knee is the point farthest from the line through them towards the ideal (0, 0) (Das 1999,
    "On characterizing the 'knee' of the Pareto curve"): the smallest sum of coordinates, which also serves one
    objective, or more than two. Equal sums are decided by the objectives in their order, then by the lower number.

    >>> front = [ScoredTrial(i, values) for i, values in enumerate([(0.0, 9.0), (1.0, 1.0), (9.0, 0.0)])]
    >>> knee(front, [Objective("loss", maximise=False), Objective("time", maximise=False)]).number
    1
    """
    axes = list(zip(*(c.losses(objectives) for c in front), strict=True))

    def distance_to_ideal(candidate: ScoredTrial) -> float:
        scaled = (
            (loss - min(axis)) / (max(axis) - min(axis)) if max(axis) > min(axis) else 0.0
            for loss, axis in zip(candidate.losses(objectives), axes, strict=True)
        )
        # Rounded, so that points on one line tie in spite of the last bit of the division.
        return round(math.fsum(scaled), 12)

    return min(front, key=lambda c: (distance_to_ideal(c), *c.losses(objectives), c.number))


def equal_values(a: Sequence[float], b: Sequence[float]) -> bool:
    """Tell whether two trials have the same values, up to rounding.

    >>> equal_values([1 / 3], [0.3333333333]), equal_values([1.0], [1.0, 2.0])
    (True, False)
    """
    return len(a) == len(b) and all(math.isclose(x, y, abs_tol=1e-9) for x, y in zip(a, b, strict=True))


def _axis(word: str, names: Sequence[str], rules: Sequence[str]) -> int:
    """Find the index of the objective that a word names."""
    exact = [i for i, name in enumerate(names) if word in (name, name.rpartition("/")[2])]
    fitting = exact or [i for i, name in enumerate(names) if word and word in name]
    if len(fitting) != 1:
        problem = "fits several objectives" if fitting else "is no objective of this study"
        known = ", ".join(map(repr, rules))
        raise ConfigError(
            f"select={word} {problem}. Choose an objective ({', '.join(names)}), {known}, or the number of a trial."
        )
    return fitting[0]


def _sorted(study: optuna.Study, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    directions = study.directions

    def order(trial: FrozenTrial) -> tuple[int, list[float], int]:
        # By state, for a pruned trial has a value too: the last that it reported.
        if trial.state != TrialState.COMPLETE:
            return 2, [], trial.number
        return int(not _is_feasible(trial)), _losses(directions, trial), trial.number

    return sorted(trials, key=order)


def _losses(directions: Sequence[StudyDirection], trial: FrozenTrial) -> list[float]:
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in directions]
    return [sign * value for sign, value in zip(signs, trial.values, strict=True)]


def _is_feasible(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE and all(value <= 0 for value in trial.constraints.values())
