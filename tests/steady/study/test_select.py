"""Who won: order, Pareto ranks and candidates for a confirmation."""

import math

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tests.steady.searches import add, study

from steady.study.select import best_trials, candidates, pareto_ranks, ranked


@given(arrays(float, st.tuples(st.integers(1, 8), st.integers(1, 3)), elements=st.integers(0, 4).map(float)))
def test_ranks_are_those_of_the_definition(points: npt.NDArray[np.float64]) -> None:
    found = pareto_ranks(points)

    def dominates(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> bool:
        return bool((a <= b).all() and (a < b).any())

    for i, point in enumerate(points):
        above = [found[j] for j, other in enumerate(points) if dominates(other, point)]
        assert found[i] == (max(above) + 1 if above else 0)


def test_nothing_has_no_ranks() -> None:
    assert pareto_ranks(np.empty((0, 2))).tolist() == []


def test_the_best_of_several_objectives_are_the_feasible_pareto_set_by_the_first() -> None:
    made = study((5.0, 0.5), (9.0, 0.9), (9.5, 0.1), (4.0, 0.6), directions=["minimize", "maximize"])
    add(made, (1.0, 0.2), 0.5, constraints={"memory": 1.0})
    assert [trial.number for trial in best_trials(made)] == [3, 1]
    assert best_trials(study(None)) == []


class TestCandidates:
    def test_of_one_objective_are_the_best(self) -> None:
        assert candidates(study([3.0], [1.0], None, [2.0], [0.5]), 3) == [4, 1, 3]
        assert candidates(study([3.0], [1.0], [2.0], directions=["maximize"]), 2) == [0, 2]
        assert candidates(study(None), 3) == []
        assert candidates(study([2.0], [1.0])) == [1, 0]

    def test_of_several_come_by_rank_and_within_it_by_the_first(self) -> None:
        # fid is to be low, ssim high: 1 and 3 are optimal, 0 and 4 behind them, 2 last.
        made = study((5.0, 0.5), (9.0, 0.9), (9.5, 0.1), (4.0, 0.6), (4.5, 0.2), directions=["minimize", "maximize"])
        assert candidates(made, 5) == [3, 1, 4, 0, 2]

    def test_the_infeasible_and_the_infinite_are_none(self) -> None:
        made = study([3.0], [-math.inf])
        add(made, [1.0], 0.9, constraints={"memory": 1.0})
        add(made, [2.0], 0.8, constraints={"memory": -1.0})
        add(made, None, 0.7, constraints={"out of memory": 1.0})
        assert candidates(made, 9) == [3, 0]

    def test_each_configuration_is_one_by_its_best(self) -> None:
        made = study([3.0], [2.0])
        add(made, [1.0], 0.0)
        add(made, [2.0], 0.01)
        assert candidates(made, 9) == [2, 1]


def test_equals_in_the_first_objective_are_ordered_by_the_next_as_they_are_chosen() -> None:
    made = study((1.0, 3.0, 0.0), (1.0, 2.0, 1.0), (0.5, 9.0, 9.0), directions=["minimize"] * 3)
    assert [trial.number for trial in ranked(made)] == [2, 1, 0]
    assert [trial.number for trial in best_trials(made)] == [2, 1, 0]
