"""Promotion of trials: asynchronous successive halving that pauses and promotes (Li et al. 2020, arXiv:1810.05934).

A trial that reaches a rung goes on if it is among the best 1/eta of all that have reached it, which its own process
decides (`steady.reporting`); else it is paused. `steady.run.ledger` promotes it once enough others have reached the
rung, so a free slot never waits for a round to end, as it does in synchronous halving.
"""

import copy
import math
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from steady.options import Promotion
from steady.study import meta
from steady.study.select import pareto_ranks
from steady.study.trial_store import TrialCursor

ROUNDING = 1e-9  # of a quotient: 11 / 1.1 is a little less than 10

Losses = tuple[float, ...]  # one per metric; lower is better
Seen = tuple[tuple[int, Losses, int], FrozenTrial]  # a trial's place among the others, and what is shown of it


def quota(n: int, eta: float) -> int:
    """Compute how many of `n` trials at a rung go on: 1/eta of them, rounded down.

    >>> quota(8, 3), quota(11, 1.1)
    (2, 10)
    """
    return math.floor(n / eta + ROUNDING)


def best(losses: Mapping[int, Losses], eta: float, least: float = 0) -> list[int]:
    """Select the best 1/eta of trials, rounded down and at `least` so many, by number; the best first.

    Several losses are compared by Pareto rank; of equals the one that began first is better, so that a new trial has
    to be better than those that were promoted, not only different.

    >>> best({0: (0.3,), 1: (0.1,), 2: (0.2,)}, eta=3)
    [1]
    """
    most = int(min(len(losses), max(least, quota(len(losses), eta))))
    if not most:
        return []
    several = len(next(iter(losses.values()))) > 1
    ranks = pareto_ranks(list(losses.values())).tolist() if several else list(losses.values())
    order = sorted(zip(ranks, losses, strict=True))
    return [number for _, number in order[:most]]


def losses_at(trial: FrozenTrial, step: int, promotion: Promotion) -> Losses | None:
    """Get the losses of a trial at a rung; None if it has not reached it, or is no rival: it failed, or is infeasible.

    >>> import optuna
    >>> scored = {meta.RUNGS: {"3": {"accuracy": 0.75}}}
    >>> trial = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs=scored)
    >>> losses_at(trial, 3, Promotion(3, [3, 9], ["accuracy"], ["maximize"]))
    (-0.75,)
    """
    scores = _scores_at(trial, step)
    if trial.state == TrialState.FAIL or any(excess > 0 for excess in trial.constraints.values()):
        return None
    if not set(promotion.metrics) <= set(scores):  # an earlier start judged by others
        return None
    pairs = zip(promotion.metrics, promotion.directions, strict=True)
    return tuple(-scores[name] if way == "maximize" else scores[name] for name, way in pairs)


def _scores_at(trial: FrozenTrial, step: int) -> dict[str, float]:
    """Get the scores of a trial at a rung, by name, without what is no finite number: a study may be a stranger's."""
    rungs = meta.get(trial, meta.RUNGS)
    scores = rungs.get(str(step)) if isinstance(rungs, dict) else None
    found = scores.items() if isinstance(scores, dict) else ()
    return {name: score for name, score in found if type(score) in (int, float) and abs(score) <= sys.float_info.max}


def share_left(trial: FrozenTrial, promotion: Promotion) -> float:
    """Compute the share of a trial that is still to be done, by the last rung that it has reached.

    >>> import optuna
    >>> reached = optuna.trial.create_trial(state=TrialState.WAITING, user_attrs={meta.RUNGS: {"3": {}}})
    >>> share_left(reached, Promotion(3, [3, 12], ["loss"], ["minimize"]))
    0.75
    """
    reached = [step for step in promotion.pausing if str(step) in meta.get(trial, meta.RUNGS, {})]
    return 1 - max(reached, default=0) / promotion.rungs[-1]


def goes_on(trials: Iterable[FrozenTrial], number: int, step: int, promotion: Promotion) -> bool:
    """Tell whether a trial that has reached a rung is among the best there, of all `trials`.

    >>> import optuna
    >>> scores = [{meta.RUNGS: {"1": {"loss": loss}}} for loss in (0.5, 0.25, 0.75)]
    >>> study = optuna.create_study()
    >>> study.add_trials([optuna.trial.create_trial(value=1.0, user_attrs=attrs) for attrs in scores])
    >>> [goes_on(study.trials, n, 1, Promotion(3, [1, 9], ["loss"], ["minimize"])) for n in range(3)]
    [False, True, False]
    """
    there = {trial.number: at for trial in trials if (at := losses_at(trial, step, promotion)) is not None}
    return number in best(there, promotion.eta)


class RungTable:
    """The losses of a study's trials by rung, added up as the study changes; trials in `hidden` do not count."""

    def __init__(self, promotion: Promotion, hidden: Collection[int] = ()) -> None:
        self.promotion, self.hidden = promotion, hidden
        self._losses: dict[int, dict[int, Losses]] = {step: {} for step in promotion.pausing}
        self._cursor = TrialCursor()
        self._read: dict[int, FrozenTrial] = {}  # unfinished, as read
        self._best: dict[tuple[int, float], list[int]] = {}  # by rung and least number, until a loss comes

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Add what is new in all the study's trials, by number."""
        ended, unfinished = self._cursor.advance(trials)
        for trial in (*ended, *unfinished):
            if self._read.get(trial.number) is not trial and trial.number not in self.hidden:
                self._add(trial)
        self._read = {trial.number: trial for trial in unfinished}

    def _add(self, trial: FrozenTrial) -> None:
        for step, losses in self._losses.items():
            before, now = losses.get(trial.number), losses_at(trial, step, self.promotion)
            if now == before:
                continue
            if now is None:
                del losses[trial.number]
            else:
                losses[trial.number] = now
            self._best.clear()

    def is_paused(self, trial: FrozenTrial) -> bool:
        """Tell whether a trial waits for its promotion; not if an earlier start had other rungs, which it goes on from.

        One whose losses are no longer compared waits too, until the end.
        """
        return meta.paused_at(trial) in self._losses

    def promotable(self, paused: Iterable[FrozenTrial], least: float = 0) -> list[FrozenTrial]:
        """Select the paused trials that are among the best at their rung, the highest rung and the best there first.

        At `least` so many of a rung go on, however few are there: when no other trial will begin, one of all reaches
        the end, as in synchronous halving.
        """
        waiting = {(meta.paused_at(trial), trial.number): trial for trial in paused}
        places = [(step, number) for step in reversed(self._losses) for number in self._top(step, least)]
        return [waiting[place] for place in places if place in waiting]

    def _top(self, step: int, least: float) -> list[int]:
        if (step, least) not in self._best:
            self._best[step, least] = best(self._losses[step], self.promotion.eta, least)
        return self._best[step, least]


class RungView:
    """What samplers see of the trials that have reached a rung and not the end: never that they run.

    Of one objective they are pruned with the score at their last rung, from which TPE learns: it takes a higher rung
    for better, and of one rung the better score. Of several they are finished with these values if all objectives are
    among the scores; else they are pruned, the best first, since TPE orders those by nothing else then.

    `objective` are the names of the objectives, or none.
    """

    def __init__(self, promotion: Promotion, objective: Sequence[str], directions: Sequence[StudyDirection]) -> None:
        self.promotion, self.objective, self.directions = promotion, list(objective), list(directions)
        self._cursor = TrialCursor()
        self._ended: list[Seen] = []
        self._read: dict[int, tuple[FrozenTrial, Seen | None]] = {}  # unfinished: as read, and as shown

    def update(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Convert those of all the study's `trials`, by number, that are to be shown; the best first."""
        ended, unfinished = self._cursor.advance(trials)
        self._ended += [seen for trial in ended if (seen := self._seen(trial))]
        before, self._read = self._read, {}
        for trial in unfinished:
            known, seen = before.get(trial.number, (None, None))
            self._read[trial.number] = trial, seen if known is trial else self._seen(trial)
        shown = [*self._ended, *(seen for _, seen in self._read.values() if seen)]
        return [trial for _, trial in sorted(shown, key=lambda one: one[0])]

    def _seen(self, trial: FrozenTrial) -> Seen | None:
        if trial.state == TrialState.COMPLETE:
            return None
        reached = {step: at for step in self.promotion.pausing if (at := losses_at(trial, step, self.promotion))}
        if not reached:
            return None
        step = max(reached)
        scores, losses = _scores_at(trial, step), reached[step]
        named = bool(self.objective) and set(self.objective) <= set(scores)
        seen = copy.copy(trial)
        seen.state, seen.values, seen.intermediate_values = TrialState.PRUNED, None, {}
        if len(self.directions) == 1:
            sign = -1 if self.directions[0] == StudyDirection.MAXIMIZE else 1
            seen.intermediate_values = {step: scores[self.objective[0]] if named else sign * losses[0]}
        elif named:
            seen.state, seen.values = TrialState.COMPLETE, [scores[name] for name in self.objective]
        return (-step, losses, trial.number), seen
