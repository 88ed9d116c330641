"""How `src/cats.py` divides a budget."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.cats.plan import AROUND, SHORT, SHORTEST, Plan
from catsweep.errors import ConfigError

BUDGETS = st.floats(1, 60 * 60 * 24)
SLOTS = st.integers(1, 256)
PHOTOS = st.integers(0, 100_000)


@given(BUDGETS, SLOTS, PHOTOS, st.booleans())
def test_the_parts_are_the_budget_and_none_is_negative(budget: float, slots: int, photos: int, judge: bool) -> None:
    try:
        plan = Plan.of(budget, slots, photos, judge)
    except ConfigError as error:
        least = float(str(error).split("report take ")[1].split()[0])
        assert 60 * least > budget
        Plan.of(60 * least, slots, photos, judge)  # what it says is enough is enough
        return
    parts = (plan.prepare, plan.search, plan.confirm, plan.train, plan.finish)
    assert min(parts) >= 0
    assert math.isclose(sum(parts), budget, abs_tol=1e-6)
    assert sum(seconds for _, seconds, _ in plan.rows()) == pytest.approx(budget)


@given(st.floats(200, 60 * 60 * 24), SLOTS)
def test_trials_fit_into_the_search_and_the_sweeper_takes_its_timeout(budget: float, slots: int) -> None:
    plan = Plan.of(budget, slots)
    assert 60 * plan.minutes >= SHORTEST - 1
    assert plan.run <= plan.search
    assert plan.timeout <= plan.search + plan.confirm + 1  # minutes are rounded
    assert plan.timeout > plan.least_timeout
    assert plan.trials >= 1


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_of_an_hour_the_best_is_trained_for_the_longest_part(slots: int) -> None:
    plan = Plan.of(3600, slots, photos=200)
    assert plan.search > 0.35 * 3600
    assert plan.train > plan.search
    assert plan.trials >= 10
    assert 1.5 <= plan.minutes <= 15
    assert plan.confirm_word == f"{{top: 2, seeds: {min(2, slots)}}}"


def test_a_longer_budget_makes_trials_longer_and_a_short_one_confirms_nothing() -> None:
    lengths = [Plan.of(60 * minutes, 2).minutes for minutes in (3, 5, 15, 30, 60, 120, 480)]
    assert lengths == sorted(lengths)
    assert Plan.of(SHORT - 1, 2).confirm_word == "null"
    assert Plan.of(SHORT - 1, 2).confirm == 0
    assert Plan.of(SHORT, 2).confirm >= 2 * AROUND


def test_a_judge_is_given_time_where_there_is_some() -> None:
    assert Plan.of(3600, 2, judge=True).confirm > Plan.of(3600, 2).confirm
    short = Plan.of(300, 2, judge=True)  # only what is exported is judged
    assert (short.judged, short.confirm) == (False, 0.0)
    assert short.finish > Plan.of(300, 2).finish


def test_as_many_of_the_best_are_trained_on_as_there_are_slots_up_to_four() -> None:
    told = {slots: next(what for row, _, what in Plan.of(3600, slots).rows() if row == "train the best on")
            for slots in (1, 2, 8)}  # fmt: skip
    assert told[1].startswith("the best one, ")
    assert told[2].startswith("the best 2 side by side, ")
    assert told[8].startswith("the best 4 side by side, ")


def test_a_budget_that_is_too_small_is_refused_with_the_least() -> None:
    with pytest.raises(ConfigError, match=r"A budget of 1 minutes is too small.* take 2 minutes"):
        Plan.of(60, 2)
