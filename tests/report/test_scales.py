import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from catsweep.report.scales import Axis, of_parameter, over


def test_a_linear_axis_spans_its_values_with_a_margin() -> None:
    axis = over([210.0, 250.0, math.inf])
    assert 0 < (axis.place(210.0) or 0) < 0.1
    assert 0.9 < (axis.place(250.0) or 0) < 1
    assert [label for _, label in axis.ticks()] == ["210", "220", "230", "240", "250"]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    axis = of_parameter(FloatDistribution(1e-4, 1e-2, log=True))
    assert axis.place(1e-3) == pytest.approx(0.5)
    assert [label for _, label in axis.ticks()] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]


def test_choices_have_places_of_their_own_whatever_their_type() -> None:
    axis = of_parameter(CategoricalDistribution([True, False, None, 64, "a"]))
    assert [axis.place(choice) for choice in (True, False, None, 64, "a")] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert axis.place("gone") is None


def test_what_has_no_place_gets_none() -> None:
    assert over([1.0]).place(math.nan) is None
    assert over([1.0]).place("x") is None
    assert Axis(1, 10, log=True).place(0) is None


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [math.inf]])
def test_an_axis_needs_no_two_different_values(values: list[float]) -> None:
    axis = over(values)
    assert axis.high > axis.low
    assert axis.ticks()


def test_a_parameter_that_could_have_been_only_one_thing_has_an_axis() -> None:
    assert of_parameter(IntDistribution(4, 4)).place(4) == 0.5


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_on_the_axis(low: float, span: float) -> None:
    ticks = over([low, low + span]).ticks()
    assert 1 <= len(ticks) <= 9
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in ticks)
