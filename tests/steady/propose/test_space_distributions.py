"""One parameter: its values, and how they are put in words."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from steady.propose.space import accepted, canonical, count_values, described, is_finite, values_of, word


@pytest.mark.parametrize(
    ("distribution", "expected", "said"),
    [
        (CategoricalDistribution(["a", None, True, 2.5]), ["a", None, True, 2.5], "choice(a, null, true, 2.5)"),
        (CategoricalDistribution([1, 1.0, True]), [1], "choice(1, 1, true)"),
        (IntDistribution(1, 4), [1, 2, 3, 4], "int 1..4"),
        (IntDistribution(0, 6, step=3), [0, 3, 6], "int 0..6 step 3"),
        (FloatDistribution(0, 0.5, step=0.25), [0.0, 0.25, 0.5], "float 0.0..0.5 step 0.25"),
        (FloatDistribution(2, 2), [2.0], "float 2.0..2.0"),
    ],
)
def test_finite_ones_are_listed_and_counted(distribution: BaseDistribution, expected: list[Any], said: str) -> None:
    assert is_finite(distribution)
    assert values_of(distribution) == expected
    assert count_values(distribution) == len(expected)
    assert described(distribution) == said


def test_an_interval_of_floats_is_infinite() -> None:
    assert not is_finite(FloatDistribution(0, 1))
    assert described(FloatDistribution(1e-4, 1e-2, log=True)) == "float 0.0001..0.01 log"


@given(st.integers(0, 50))
def test_a_step_is_the_same_however_it_was_rounded(n: int) -> None:
    steps = FloatDistribution(0.1, 5.1, step=0.1)
    assert canonical(0.1 + 0.1 * n, steps) == canonical(round(0.1 + 0.1 * n, 3), steps) == n


def test_equal_choices_are_the_first_of_them() -> None:
    assert canonical(True, CategoricalDistribution([1, True])) == 1
    assert canonical("b", CategoricalDistribution(["a", "b"])) == "b"


def test_words_are_one_spelling() -> None:
    assert [word(value) for value in (None, True, 2.0, 0.1 + 0.2, "x")] == ["null", "true", "2", "0.3", "x"]
    assert [word(value) for value in ("null", "true", "2", "a,b", "a b")] == ["'null'", "'true'", "'2'", "'a,b'", "a b"]


@pytest.mark.parametrize(
    ("value", "choices", "expected"),
    [
        ("a", ["a", "b"], "a"),
        (64, [32, 64], 64),
        (64.0, [32, 64], 64),
        (OmegaConf.create([]), ["[]", "[color]"], "[]"),
        (OmegaConf.create(["color", "cutout"]), ["[]", "[color,cutout]"], "[color,cutout]"),
        ("[color]", ["[]", "[color]"], "[color]"),  # as the study keeps it
        ("[color]", ["[color]", "'[color]'"], "'[color]'"),  # the string
        (["a b", "1"], ["['a b','1']", "[a b,1]"], "['a b','1']"),
        ({"a": 1}, ["{a:1}"], "{a:1}"),
        (None, ["null", None], None),
        ("null", ["null", None], "null"),
        ("1", [1, "1"], "1"),
    ],
)
def test_a_value_is_found_among_the_choices(value: Any, choices: list[Any], expected: Any) -> None:
    assert repr(accepted(value, CategoricalDistribution(choices))) == repr(expected)


@pytest.mark.parametrize(
    ("value", "distribution", "said"),
    [
        ("bgi", CategoricalDistribution(["small", "big"]), "must be one of small, big (did you mean big?)"),
        ("1", CategoricalDistribution([1, 2]), "must be one of 1, 2 (did you mean 1?)"),
        (None, CategoricalDistribution(["null"]), "must be 'null'"),
        (100, FloatDistribution(0, 2), "must be a number from 0.0 to 2.0"),
        ("0.5", FloatDistribution(0, 2), "must be a number from 0.0 to 2.0"),
        (True, FloatDistribution(0, 2), "must be a number from 0.0 to 2.0"),
        ([1], FloatDistribution(0, 2), "must be a number from 0.0 to 2.0"),
        (float("nan"), FloatDistribution(0, 2), "must be a number from 0.0 to 2.0"),
        (0.3, FloatDistribution(0, 1, step=0.25), "must be a number from 0.0 to 1.0 in steps of 0.25"),
        (2.5, IntDistribution(1, 4), "must be a whole number from 1 to 4"),
        (2, IntDistribution(1, 5, step=2), "must be a whole number from 1 to 5 in steps of 2"),
    ],
)
def test_what_a_parameter_cannot_be_is_refused_with_what_it_can(
    value: Any, distribution: BaseDistribution, said: str
) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        accepted(value, distribution)


def test_a_number_is_kept_as_its_distribution_keeps_it() -> None:
    assert repr(accepted(1, FloatDistribution(0, 2))) == "1.0"
    assert repr(accepted(2.0, IntDistribution(1, 4))) == "2"
