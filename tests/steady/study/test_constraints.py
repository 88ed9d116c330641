"""Bounds on what trials note: how they are written, and how far a trial is beyond them."""

import math

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from steady.exceptions import ConfigError, StudyError
from steady.study import meta
from steady.study.constraints import Constraint, excesses, nearest, noted, of, parse_all, violated

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.sampled_from(["<=", ">="]), FINITE, FINITE)
def test_what_is_within_the_bound_has_no_excess(sign: str, bound: float, value: float) -> None:
    one = Constraint.parse("a", f" {sign}{bound!r} ")
    assert one == Constraint("a", sign, bound)
    assert (one.excess(value) <= 0) == (value <= bound if sign == "<=" else value >= bound)


@pytest.mark.parametrize("text", ["2e6", "< 3", "<= ", "<= nan", "<= inf", "<= a", "== 3", "<= 3 4", 3, None, ["<= 3"]])
def test_anything_else_is_refused_with_what_is_expected(text: object) -> None:
    with pytest.raises(ConfigError, match=r'constraints\.size must be "<= NUMBER" or ">= NUMBER"'):
        Constraint.parse("size", text)


@pytest.mark.parametrize("written", [["a <= 1"], "a <= 1", {1: "<= 1"}, {"": "<= 1"}])
def test_constraints_have_names(written: object) -> None:
    with pytest.raises(ConfigError, match="name of a value"):
        parse_all(written)


def test_one_written_is_the_same_when_it_is_read_again() -> None:
    for one in parse_all({"a": "<=2e6", "b": ">= -0.1"}):
        assert Constraint.parse(one.name, one.limit) == one


def test_excesses_of_different_units_can_be_added_up() -> None:
    both = parse_all({"weights": "<= 2e6", "ms": "<= 20"})
    assert excesses(both, {"weights": 3e6, "ms": 30.0}, finished=True) == {"weights": 0.5, "ms": 0.5}


def test_what_is_not_known_yet_of_a_pruned_trial_is_no_violation() -> None:
    both = parse_all({"weights": "<= 2", "ms": "<= 20"})
    assert excesses(both, {"weights": 1.0}, finished=False) == {"weights": -0.5}


@pytest.mark.security
def test_what_a_stranger_noted_or_bounded_is_read_with_care() -> None:
    values = {"a": 1, "b": "x", "c": True, "d": [1], "e": 2.5, "f": math.inf}
    assert noted(create_trial(value=1.0, user_attrs={meta.NOTED: values})) == {"a": 1.0, "e": 2.5}
    assert noted(create_trial(value=1.0, user_attrs={meta.NOTED: [1]})) == {}
    study = optuna.create_study()
    for kept in ([1], "x", None):
        study.set_user_attr(meta.CONTRACT, kept)
        assert of(study) == ()
    study.set_user_attr(meta.CONTRACT, {"constraints": {"a": "<= rm -rf"}})
    with pytest.raises(StudyError, match="cannot be read"):
        of(study)


def test_the_nearest_is_a_finished_one_if_there_is_any_and_says_what_it_has() -> None:
    study = optuna.create_study()
    study.set_user_attr(meta.CONTRACT, {"constraints": {"size": "<= 10"}})
    for size, state in ((30, TrialState.COMPLETE), (20, TrialState.COMPLETE), (11, TrialState.PRUNED)):
        value = 1.0 if state == TrialState.COMPLETE else None
        attributes = {meta.NOTED: {"size": size}}
        study.add_trial(
            create_trial(value=value, state=state, user_attrs=attributes, constraints={"size": size / 10 - 1})
        )
    study.add_trial(create_trial(state=TrialState.PRUNED, constraints={"out of memory": 0.001}))
    near = nearest(study)
    assert near is not None
    assert near.number == 1
    assert violated(of(study), near) == ["size <= 10 (it has 20)"]
