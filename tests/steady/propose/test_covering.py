"""Each option is tried once; what no configuration can run with is said with its option, what one can is let be."""

from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig

from steady.propose.covering import CoveringArray, Examples
from steady.propose.space import Space

pytestmark = pytest.mark.security


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Composing examples sets Hydra's global configuration."""
    before = HydraConfig.instance().cfg
    yield
    HydraConfig.instance().cfg = before


class Judge:
    """Finds wrong what has all values of one of some combinations; counts."""

    def __init__(self, *wrong: dict[str, Any]) -> None:
        self.wrong, self.seen = wrong, list[dict]()

    def __call__(self, cfg: DictConfig) -> list[str]:
        self.seen.append(dict(cfg))
        return [f"never {bad}" for bad in self.wrong if all(cfg[name] == value for name, value in bad.items())]


def problems(app: tuple[HydraContext, DictConfig], judge: Judge, params: dict[str, str], **more: Any) -> list[str]:
    context, config = app
    space = Space.parse(params, [], more.get("conditions", {}))
    return Examples(space, config, context.config_loader).problems(judge)


SPACE = {"x": "interval(0.0, 1.0)", "y": "choice(a, b, c, d, e)", "steps": "choice(1, 2, 3)", "fault": "choice(p, q)"}


def test_each_option_is_tried_in_as_few_configurations_as_the_longest_list_has(
    app: tuple[HydraContext, DictConfig],
) -> None:
    judge = Judge()
    assert problems(app, judge, SPACE) == []
    assert len(judge.seen) == 5
    assert {one["y"] for one in judge.seen} == set("abcde")
    assert {one["steps"] for one in judge.seen} == {1, 2, 3}
    assert {one["x"] for one in judge.seen} == {0.0, 1.0}
    assert "hydra" not in judge.seen[0]


@pytest.mark.parametrize(
    ("wrong", "blamed"),
    [
        ([{"y": "c"}], ["y=c"]),
        ([{"y": "a"}, {"steps": 2}], ["y=a", "steps=2"]),
        ([{"x": 0.0}, {"fault": "q"}, {"y": "b"}], ["x=0.0", "fault=q", "y=b"]),
        ([{"y": "b", "steps": 2}], []),  # only beside each other: the search goes round it
    ],
)
def test_the_option_that_is_to_blame_is_named(
    app: tuple[HydraContext, DictConfig], wrong: list[dict[str, Any]], blamed: list[str]
) -> None:
    judge = Judge(*wrong)
    said = problems(app, judge, SPACE)
    assert sorted(line.partition(":")[0] for line in said) == sorted(blamed)
    assert len(judge.seen) < 5 * 5 * 3 * 2


def test_what_is_always_wrong_is_said_once_and_without_an_option(app: tuple[HydraContext, DictConfig]) -> None:
    judge = Judge({}, {"y": "c"})
    assert problems(app, judge, SPACE) == ["never {}", "never {'y': 'c'}"]
    assert len(judge.seen) == 10


def test_a_parameter_with_a_condition_is_tried_where_it_holds(app: tuple[HydraContext, DictConfig]) -> None:
    judge = Judge({"steps": 3, "y": "e"})
    said = problems(app, judge, SPACE, conditions={"steps": "y=e"})
    assert [line.partition(":")[0] for line in said] == ["steps=3"]


def test_without_a_space_the_configuration_is_tried_as_it_stands(app: tuple[HydraContext, DictConfig]) -> None:
    judge = Judge()
    assert problems(app, judge, {}) == []
    assert [one["y"] for one in judge.seen] == ["a"]
    assert HydraConfig.get().job.num == 0


@given(st.sets(st.sampled_from("abcde"), max_size=4), st.sets(st.sampled_from([1, 2, 3]), max_size=2))
def test_every_bad_option_is_found_and_no_good_one(bad: set[str], few: set[int]) -> None:
    space = Space.parse({"y": "choice(a, b, c, d, e)", "steps": "choice(1, 2, 3)"}, [])

    def judge(params: Any) -> list[str]:
        return [f"never {one}" for one in params.values() if one in bad or one in few]

    said = CoveringArray(space, {}).problems(judge)  # the composing of Hydra would take a second for each example
    assert {line.partition(":")[0] for line in said} == {f"y={one}" for one in bad} | {f"steps={one}" for one in few}
