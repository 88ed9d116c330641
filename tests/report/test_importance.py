import math

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from catsweep.report.importance import LEAST, importances


def study(n: int, score: str = "x") -> optuna.Study:
    """`x` decides, `y` does not; the second objective is the first turned round."""
    made = optuna.create_study(directions=["minimize", "maximize"])
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    for i in range(n):
        params = {"x": i / n, "y": (i * 7 % n) / n}
        value = {"x": params["x"], "same": 1.0, "inf": math.inf}[score]
        made.add_trial(create_trial(values=[value, -value], params=params, distributions=space))
    return made


def test_the_parameter_that_decides_comes_first_for_either_direction() -> None:
    for place, one in enumerate(importances(study(60))):
        assert one.objective == place
        assert next(iter(one.shares)) == "x"
        assert one.shares["x"] > 0.7
        assert sum(one.shares.values()) == pytest.approx(1)
        assert one.note == "Where the best 6 of 60 finished trials lie, against all of them."


def test_few_trials_give_a_hint_and_say_so() -> None:
    [first, _] = importances(study(8))
    assert first.shares
    assert first.note.startswith("Where the best 4 of 8 finished trials lie")
    assert "hint" in first.note


@pytest.mark.parametrize("n", range(LEAST))
def test_too_few_trials_give_nothing_and_say_so(n: int) -> None:
    [first, _] = importances(study(n))
    assert first.shares == {}
    assert first.note == f"It takes at least {LEAST} finished trials to compare; there are {n}."


def test_equal_scores_tell_nothing() -> None:
    assert importances(study(20, "same"))[0].note == "All finished trials have the same score."


def test_infinite_and_pruned_ones_do_not_count() -> None:
    made = study(20, "inf")
    made.add_trial(create_trial(state=TrialState.PRUNED))
    assert "there are 0" in importances(made)[0].note
