"""Which parameters mattered: PED-ANOVA, once for each objective, and how far it can be trusted.

Optuna's own evaluator (Watanabe et al. 2023, arXiv 2304.10255) does the arithmetic: it compares where the best trials
lie with where all of them lie. That needs no model of the scores, but enough trials among the best.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

LEAST = 4  # finished trials; of fewer nothing is said
BEST, SHARE = 5, 0.1  # the best are a tenth of the trials, but so many of them where there are (as Optuna advises)
SURE = 50  # finished trials from which on a tenth of them are enough


@dataclass(frozen=True)
class Importance:
    """How much each parameter mattered for one objective.

    Attributes:
        objective: its place among the study's.
        shares: by parameter, 0 to 1, their sum is 1; the largest first. Empty if it cannot be said.
        note: of what it was computed, or why it was not.
    """

    objective: int
    shares: dict[str, float]
    note: str


def importances(study: optuna.Study) -> list[Importance]:
    """The importance of each parameter for each objective of a study."""
    return [_importance(study, place) for place in range(len(study.directions))]


def _importance(study: optuna.Study, place: int) -> Importance:
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    usable = [trial for trial in finished if math.isfinite(trial.values[place])]
    n = len(usable)
    if n < LEAST:
        return Importance(place, {}, f"It takes at least {LEAST} finished trials to compare; there are {n}.")
    if len({trial.values[place] for trial in usable}) == 1:
        return Importance(place, {}, "All finished trials have the same score.")
    best = max(math.ceil(SHARE * n), min(BEST, n // 2))
    shares = _shares(study, _loss(study, place), min(0.999, best / n))
    if not shares or not math.isfinite(sum(shares.values())) or not sum(shares.values()):
        return Importance(place, {}, "No parameter tells the best trials from the others.")
    hint = "" if n >= SURE else " With so few trials this is a hint, not a finding."
    return Importance(place, shares, f"Where the best {best} of {n} finished trials lie, against all of them.{hint}")


def _shares(study: optuna.Study, loss: Callable[[FrozenTrial], float], quantile: float) -> dict[str, float]:
    with warnings.catch_warnings():  # of what we know: the target is turned so that lower is better
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
        found = get_param_importances(study, evaluator=evaluator, target=loss)
    return dict(sorted(found.items(), key=lambda item: (-round(item[1], 9), item[0])))


def _loss(study: optuna.Study, place: int) -> Callable[[FrozenTrial], float]:
    sign = -1 if study.directions[place] == StudyDirection.MAXIMIZE else 1
    return lambda trial: sign * trial.values[place]
