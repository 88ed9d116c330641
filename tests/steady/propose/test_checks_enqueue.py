"""Configurations that a person names."""

from typing import Any

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf

from steady.propose.checks import Enqueued, read_all
from steady.propose.space import Space

CONFIG = OmegaConf.create(
    {"hydra": {"runtime": {"choices": {"data": "photos"}}}, "epochs": 5, "x": 0.0, "policy": ["flip"]}
)


def extend(config: DictConfig, trial: optuna.trial.Trial) -> None:
    trial.suggest_float("+z", 0, 1)


def space(*arguments: str, extender: str | None = None) -> Space:
    params = {
        "x": "interval(0.0, 2.0)",
        "model": "choice(small, big)",
        "+name": "choice('null', '1', '[a]', [a])",
        "model.depth": "range(1, 4)",
    }
    return Space.parse(params, list(arguments), {"model.depth": "model=big"}, extender)


def read(given: Any, *arguments: str) -> Enqueued:
    return Enqueued.read(given, space(*arguments), CONFIG)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"x": 1, "model": "big"}, {"x": 1.0, "model": "big"}),
        ({"+x": 0.5, "name": "null"}, {"x": 0.5, "name": "null"}),
        ({"++name": "1"}, {"name": "1"}),
        ({"name": "[a]"}, {"name": "'[a]'"}),
        ({"name": ["a"]}, {"name": "[a]"}),
        ({"model": "big", "model.depth": 2.0}, {"model": "big", "model.depth": 2}),
        ({"epochs": 5, "data": "photos", "policy": ["flip"], "x": 1}, {"x": 1.0}),  # as it is in every trial
        ({}, {}),
    ],
)
def test_a_configuration_is_put_as_the_study_keeps_it(given: Any, kept: dict[str, Any]) -> None:
    found = read(given)
    assert (found.problems, found.absent, found.remarks) == ([], [], [])
    assert repr(found.params) == repr(kept)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "bgi"}, ["model must be one of small, big (did you mean big?); got 'bgi'"]),
        ({"modle": 1}, ["there is no parameter modle (did you mean model?); searched are x, model, name, model.depth"]),
        ({"x": 100, "zz": 1}, [
            "x must be a number from 0.0 to 2.0; got 100",
            "there is no parameter zz; searched are x, model, name, model.depth",
        ]),
        ({"x": "0.5"}, ["x must be a number from 0.0 to 2.0; got '0.5'"]),
        ({"name": 1}, ["name must be one of 'null', '1', '[a]', [a]; got 1"]),
        ({"name": None}, ["name must be one of 'null', '1', '[a]', [a]; got null"]),
        ({"x": 1, "+x": 0.5}, ["x is given twice"]),
        ({"epochs": 6}, ["epochs is not searched, and is 5 in every trial; got 6"]),
        ({"hydra.job.num": 6}, ["there is no parameter hydra.job.num; searched are x, model, name, model.depth"]),
        (["x", 1], ["a configuration is written {parameter: value, …}; got ['x', 1]"]),
        (None, ["a configuration is written {parameter: value, …}; got None"]),
    ],
)  # fmt: skip
def test_all_that_is_wrong_is_told(given: Any, said: list[str]) -> None:
    assert read(given).problems == said


@pytest.mark.parametrize("given", [{"model": "small", "model.depth": 2}, {"model.depth": 2}])
def test_what_is_not_there_beside_the_rest_is_told_apart(given: dict[str, Any]) -> None:
    found = read(given)
    assert (found.problems, found.absent) == ([], ["model.depth is there only when model=big"])


def test_what_is_fixed_otherwise_is_of_no_use_and_no_fault() -> None:
    found = read({"model": "big", "x": 1.0}, "++x=0.5", "model=big")
    assert (found.params, found.problems) == ({}, [])
    assert found.remarks == ["x=1 is of no use, since x=0.5 is fixed"]


def test_one_of_which_more_depends_on_what_is_fixed_otherwise_is_left_out() -> None:
    given = [{"model": "big", "model.depth": 2, "x": 1.0}, {"model": "small", "x": 0.5}]
    params, problems, remarks = read_all(given, space("model=small"), CONFIG)
    assert (params, problems) == ([{"x": 0.5}], [])
    assert remarks == ["enqueue[0] is left out: it has model='big', and model=small is fixed."]
    assert read_all([{**given[0], "z": 1}], space("model=small"), CONFIG)[1]  # what is wrong with it is told


def test_an_extender_may_know_other_names() -> None:
    found = Enqueued.read({"+z": 0.5, "x": 3}, space(extender=f"{__name__}.extend"), CONFIG)
    assert found.params == {"+z": 0.5}
    assert len(found.problems) == 1


def test_each_of_several_is_told_by_its_place() -> None:
    params, problems, remarks = read_all([{"x": 1}, {"z": 1}, 5, {"model": "big"}], space("model=small"), CONFIG)
    assert params[0] == {"x": 1.0}
    assert [line.partition(":")[0] for line in problems] == ["enqueue[1]", "enqueue[2]"]
    assert remarks == ["enqueue[3]: model='big' is of no use, since model=small is fixed."]
