"""Which point of a Pareto set is *the* winner: pure arithmetic, no files, no Optuna.

`best_model` turns the trials of a study into `Candidate` objects and asks `choose` here.
A rule is written as one word, so that it fits on a command line: the name of an objective, `knee`, or the
number of a trial.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from catsweep.errors import ConfigError, ExportError


@dataclass(frozen=True)
class Objective:
    """One thing the study optimised.

    Attributes:
        name: as in the run's config and `metrics.json`, for example `val/fid`.
        maximise: whether higher is better.
    """

    name: str
    maximise: bool

    def loss(self, value: float) -> float:
        """The value with its sign turned so that lower is better."""
        return -value if self.maximise else value


@dataclass(frozen=True)
class Candidate:
    """A finished trial.

    Attributes:
        number: the trial's number in its study.
        values: one finite number per objective, in the order of the objectives.
    """

    number: int
    values: tuple[float, ...]

    def losses(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """The values with their signs turned so that lower is better in each."""
        return tuple(o.loss(v) for o, v in zip(objectives, self.values, strict=True))


@dataclass(frozen=True)
class Choice:
    """A candidate, and why it was taken (half a sentence for people)."""

    candidate: Candidate
    reason: str


def choose(
    select: str | int, front: Sequence[Candidate], finished: Sequence[Candidate], objectives: Sequence[Objective]
) -> Choice:
    """Pick one candidate. The outcome does not depend on the order in which the candidates come.

    Args:
        select: one of

            - an objective, by its full name, its last part (`fid` for `val/fid`), or a piece that occurs in one
              name only (`ssim` for `val/ssim_gap`): the point of the Pareto set that is best in it. Equal values
              are decided by the other objectives in their order, then by the lower number;
            - `knee`: see `knee`;
            - the number of a finished trial, Pareto-optimal or not: the user knows why.
        front: the Pareto set; at least one candidate.
        finished: every candidate that may be asked for by number.
        objectives: of the study.

    Returns:
        The chosen candidate with the reason.

    Raises:
        ExportError: no finished candidate has that number.
        ConfigError: `select` is none of the above, or fits several objectives.
    """
    rule = str(select).strip()
    if rule.isdecimal():
        chosen = _by_number(int(rule), finished)
        remark = "" if chosen in front else ", although it is not Pareto-optimal"
        return Choice(chosen, f"asked for by its number{remark}")
    if rule == "knee":
        return Choice(knee(front, objectives), "the knee of the Pareto set")
    axis = objective_called(rule, objectives)
    chosen = min(front, key=lambda c: (c.losses(objectives)[axis], *c.losses(objectives), c.number))
    return Choice(chosen, f"the {'highest' if objectives[axis].maximise else 'lowest'} {objectives[axis].name}")


def objective_called(word: str, objectives: Sequence[Objective]) -> int:
    """Index of an objective.

    Args:
        word: its full name, the last part of it, or a piece that occurs in no other name.
        objectives: of the study.

    Raises:
        ConfigError: it fits none, or several.
    """
    names = [o.name for o in objectives]
    exact = [i for i, name in enumerate(names) if word in (name, name.rpartition("/")[2])]
    fitting = exact or [i for i, name in enumerate(names) if word and word in name]
    if len(fitting) != 1:
        problem = "fits several objectives" if fitting else "is no objective of this study"
        raise ConfigError(
            f"select={word} {problem}. Choose an objective ({', '.join(names)}), 'knee', or the number of a trial."
        )
    return fitting[0]


def knee(front: Sequence[Candidate], objectives: Sequence[Objective]) -> Candidate:
    """The point of a Pareto set beyond which a little more of one objective costs much of another.

    Each objective is rescaled over the Pareto set, best to 0 and worst to 1. The extremes of two objectives are then
    (0, 1) and (1, 0), and the knee is the point farthest from the line through them towards the ideal (0, 0)
    (Das 1999, "On characterizing the 'knee' of the Pareto curve"), which is the point with the smallest sum of
    coordinates; written so, it also serves one objective, or more than two. When no point lies on that side (the
    set has at most two points, or bulges away from the ideal) the extremes tie, and the first objective decides.

    Args:
        front: the Pareto set; at least one candidate.
        objectives: of the study.

    Returns:
        The knee. Equal distances are decided by the objectives in their order, then by the lower number.
    """
    axes = list(zip(*(c.losses(objectives) for c in front), strict=True))

    def distance_to_ideal(candidate: Candidate) -> float:
        scaled = (
            (loss - min(axis)) / (max(axis) - min(axis)) if max(axis) > min(axis) else 0.0
            for loss, axis in zip(candidate.losses(objectives), axes, strict=True)
        )
        # Rounded, so that points on one line tie in spite of the last bit of the division.
        return round(math.fsum(scaled), 12)

    return min(front, key=lambda c: (distance_to_ideal(c), *c.losses(objectives), c.number))


def _by_number(number: int, finished: Sequence[Candidate]) -> Candidate:
    for candidate in finished:
        if candidate.number == number:
            return candidate
    numbers = ", ".join(str(n) for n in sorted(c.number for c in finished))
    raise ExportError(f"select={number}: the study has no finished trial of that number. Finished are: {numbers}.")
