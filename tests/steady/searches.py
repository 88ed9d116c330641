"""Studies of searches that have ended, in memory."""

from collections.abc import Sequence
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

Direction = Literal["minimize", "maximize"]


def study(*values: Sequence[float] | None, directions: Sequence[Direction] = ("minimize",)) -> optuna.Study:
    """A search with a finished trial per entry, and a pruned one where there is none."""
    made = optuna.create_study(directions=list(directions))
    for number, value in enumerate(values):
        add(made, value, number / 100)
    return made


def add(made: optuna.Study, value: Sequence[float] | None, x: float, **more: Any) -> None:
    state = TrialState.PRUNED if value is None else TrialState.COMPLETE
    space: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}
    made.add_trial(create_trial(state=state, values=value, params={"x": x}, distributions=space, **more))
