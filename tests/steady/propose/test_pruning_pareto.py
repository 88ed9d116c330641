"""A trial ends when too many have a lower Pareto rank."""

import pytest

from steady.exceptions import ConfigError
from steady.propose.pruning import ParetoPruner


def test_keep_is_a_share() -> None:
    with pytest.raises(ConfigError, match="share"):
        ParetoPruner(keep=0)


LADDER = [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]  # each point dominates the next


@pytest.mark.parametrize(
    ("own", "ends"), [([0.0, 9.0], False), ([1.5, 1.5], False), ([2.5, 2.5], True), ([4, 4], True)]
)
def test_of_four_trials_the_better_half_goes_on(own: list[float], ends: bool) -> None:
    assert ParetoPruner(0.5, n_startup_trials=0).prune(own, LADDER, finished=0, step=1) is ends


def test_a_trial_of_the_same_rank_stands_before_nobody() -> None:
    front = [[x, 10.0 - x] for x in range(10)]
    assert not ParetoPruner(0.1, n_startup_trials=0).prune([4.5, 5.5], front, finished=0, step=1)


def test_whoever_keeps_all_ends_none() -> None:
    assert not ParetoPruner(1.0, n_startup_trials=0).prune([9.0, 9.0], LADDER, finished=0, step=1)


def test_the_first_trials_at_a_rung_and_the_first_of_the_study_go_on() -> None:
    pruner = ParetoPruner(0.5, n_startup_trials=2)
    assert not pruner.prune([9.0, 9.0], [], finished=9, step=1)
    assert not pruner.prune([9.0, 9.0], LADDER, finished=1, step=1)
    assert pruner.prune([9.0, 9.0], LADDER, finished=2, step=1)


def test_steps_below_the_warm_up_end_none_and_without_one_the_step_0_counts() -> None:
    warm, cold = ParetoPruner(n_startup_trials=0, n_warmup_steps=2), ParetoPruner(n_startup_trials=0)
    assert [warm.prune([9.0, 9.0], LADDER, finished=9, step=step) for step in (0, 1, 2)] == [False, False, True]
    assert cold.prune([9.0, 9.0], LADDER, finished=9, step=0)
