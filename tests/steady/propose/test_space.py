"""What is searched: read, described, conditioned, counted."""

import re
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Transformer
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from steady.exceptions import ConfigError
from steady.propose.space import Space, is_finite, values_of, word

PARAMS = {
    "model": "choice(vae, dcgan)",
    "lr": "tag(log, interval(1e-4, 1e-2))",
    "optimizer": "choice(adam, sgd)",
    "optimizer.momentum": "interval(0.5, 0.9)",
    "layers": "range(1, 4)",
}


def extend(config: DictConfig, trial: optuna.trial.Trial) -> None:
    trial.suggest_float("z", 0, config.bound)


def suggest(space: Space, seed: int = 0, **params: Any) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    study.enqueue_trial(params)
    return space.suggest(study.ask(), OmegaConf.create({"bound": 1.0}))


def test_the_command_line_wins_and_fixes() -> None:
    space = Space.parse(PARAMS, ["lr=0.1", "layers=choice(5,6)", "~dropped", "seed=3"])
    assert set(space.parameters) == {"model", "optimizer", "optimizer.momentum", "layers"}
    assert space.describe()["layers"] == "choice(5, 6)"
    chosen: dict[str, Any] = {"layers": 5, "model": "vae", "optimizer": "sgd", "optimizer.momentum": 0.5}
    params = suggest(space, **chosen)
    overrides = space.overrides(params)
    assert overrides == (
        "model=vae", "optimizer=sgd", "optimizer.momentum=0.5", "layers=5", "lr=0.1", "seed=3", "~dropped",
    )  # fmt: skip


@given(st.integers(0, 1000))
def test_a_conditional_parameter_is_there_exactly_when_its_condition_holds(seed: int) -> None:
    space = Space.parse(PARAMS, [], {"optimizer.momentum": "optimizer=sgd"})
    params = suggest(space, seed)
    assert ("optimizer.momentum" in params) == (params["optimizer"] == "sgd")
    assert "when optimizer=sgd" in space.describe()["optimizer.momentum"]


def test_a_parameter_comes_after_what_it_depends_on_and_chains_hold() -> None:
    space = Space.parse({"c": "choice(1, 2)", "b": "choice(x, y)", "a": "choice(p, q)"}, [], {"c": "b=y", "b": "a=[q]"})
    assert list(space.parameters) == ["a", "b", "c"]
    assert space.size() == len(space.configurations() or []) == 1 + 1 + 2
    assert suggest(space, a="p") == {"a": "p"}


def test_a_condition_may_name_what_is_fixed() -> None:
    space = Space.parse(PARAMS, ["optimizer=sgd"], {"optimizer.momentum": "optimizer=sgd"})
    assert "optimizer.momentum" in suggest(space)
    space = Space.parse(PARAMS, ["optimizer=adam"], {"optimizer.momentum": "optimizer=sgd"})
    assert "optimizer.momentum" not in suggest(space)


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"lr": "optimizer"}, "other=value"),
        ({"lr": "nothing=1"}, "nothing, which is not one of"),
        ({"lr": "optimizer=lion"}, "never lion"),
        ({"model": "layers=1", "layers": "model=vae"}, "circle"),
        ({"momentum": "optimizer=sgd"}, "conditions.momentum: there is no such parameter; there are model, lr,"),
        ({"model": "layers=9"}, "never 9; it goes from 1 to 3"),
        ({"model": "lr=0.001"}, "never 0.001; it is continuous"),
        ({"lr": "optimizer=[]"}, "other=value"),
    ],
)
def test_a_condition_that_cannot_hold_is_refused(conditions: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Space.parse(PARAMS, [], conditions)


@pytest.mark.parametrize("line", ["x=choice(", "x=choice()", "x=interval(3, 1)", "x=glob(*)", "x=range(1, 1)"])
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    name, _, value = line.partition("=")
    with pytest.raises(ConfigError, match=f"^{re.escape(repr(line))} of params cannot be read"):
        Space.parse({"good": "choice(1, 2)", name: value}, [])
    with pytest.raises(ConfigError, match=f"^{re.escape(repr(line))} of the command line cannot be read"):
        Space.parse({"good": "choice(1, 2)"}, ["other=1", line])


def test_the_command_line_may_search_what_params_fix() -> None:
    space = Space.parse({"a": "1", "b": "2"}, ["a=choice(1, 2)"])
    assert (list(space.parameters), space.fixed) == (["a"], {"b": "2"})


@pytest.mark.parametrize(
    ("choices", "condition", "described"),
    [
        ("choice(true, false)", "a=true", "a=true"),
        ("choice(True, False)", "a=[True,false]", "a=[true,false]"),
        ("choice([], [translation])", "a=[translation]", "a=[translation]"),
        ("choice([], [translation])", "a=[]", "a=[]"),
        ("choice(1.0, 2.5)", "a=1", "a=1"),
        ("range(0, 1, 0.1)", "a=[0.3]", "a=0.3"),
        ("range(1, 4)", "a=[ 1, 3 ]", "a=[1,3]"),
        ("null,1", "a=null", "a=null"),
        ("choice('a b', c)", "a=a b", "a=a b"),
    ],
)
def test_a_condition_is_written_as_the_value_is(choices: str, condition: str, described: str) -> None:
    space = Space.parse({"b": "choice(x, y)", "a": choices}, [], {"b": condition})
    assert space.describe()["b"].endswith(f"when {described}")
    found = space.configurations() or []
    assert 0 < sum("b" in params for params in found) < len(found) or condition == "a=[True,false]"


@pytest.mark.parametrize(("fixed", "there"), [("a=True", True), ("a='a b'", False), ("a=false", False)])
def test_a_condition_on_a_fixed_value_reads_it_as_hydra_does(fixed: str, there: bool) -> None:
    space = Space.parse({"a": "choice(true, false)", "b": "choice(x, y)"}, [fixed], {"b": "a=true"})
    assert ("b" in suggest(space)) == there
    assert space.size() == (2 if there else 1)


def test_a_condition_of_what_was_fixed_is_dropped() -> None:
    space = Space.parse(PARAMS, ["optimizer.momentum=0.7"], {"optimizer.momentum": "optimizer=sgd"})
    assert space.conditions == {}


@pytest.mark.parametrize("spelling", ["x", "+x", "++x"])
def test_a_key_is_one_however_it_is_spelled(spelling: str) -> None:
    space = Space.parse(
        {spelling: "choice(1, 2)", "y": "choice(a, b)", "+z": "choice(3, 4)"}, ["w=1"], {"+y": "++x=1", "++z": "y=b"}
    )
    assert list(space.parameters) == ["x", "y", "z"]
    params = suggest(space, x=1, y="b", z=4)
    assert params == {"x": 1, "y": "b", "z": 4}
    assert space.overrides(params) == (f"{spelling}=1", "y=b", "+z=4", "w=1")
    assert space.describe() == {
        spelling: "choice(1, 2)", "y": "choice(a, b) when x=1", "+z": "choice(3, 4) when y=b"
    }  # fmt: skip


@pytest.mark.parametrize("fixed", ["x=0.5", "+x=0.5", "++x=0.5"])
def test_what_the_command_line_fixes_leaves_the_space(fixed: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        space = Space.parse({"x": "interval(0.0, 1.0)"}, [fixed])
    assert (space.parameters, space.overrides({})) == ({}, (fixed,))
    assert "x=0.5 is fixed, so x is not searched" in caplog.text
    assert space.describe_fixed() == {fixed.partition("=")[0]: "0.5"}


def test_deleting_what_is_searched_is_refused() -> None:
    with pytest.raises(ConfigError, match="~lr deletes lr, which is searched"):
        Space.parse(PARAMS, ["~lr"])
    with pytest.raises(ConfigError, match=r"~optimizer deletes optimizer, .*\n~optimizer deletes optimizer.momentum"):
        Space.parse(PARAMS, ["~optimizer"])


def test_a_space_goes_on_under_the_names_and_choices_on_record() -> None:
    space = Space.parse({"+x": "null,1", "y": "choice(a, b)", "z": "choice(1, 2)"}, [], {"y": "x=null", "z": "+x=1"})
    old = {"+x": optuna.distributions.CategoricalDistribution([1, "null"])}  # as an earlier version kept it
    again = space.as_recorded(old)
    assert list(again.parameters) == ["+x", "y", "z"]
    assert again.parameters["+x"] == old["+x"]
    assert again.describe()["y"] == "choice(a, b) when x=null"
    assert again.describe()["+x"] == "choice(1, null)"
    chosen: dict[str, Any] = {"+x": "null", "y": "b"}
    params = suggest(again, **chosen)
    assert params == {"+x": "null", "y": "b"}
    assert again.overrides(params) == ("+x=null", "y=b")
    assert again.accepted("+x", None) == "null"
    assert again.overrides(suggest(again, **{"+x": 1, "z": 2})) == ("+x=1", "z=2")
    assert space.as_recorded({}) == space


@pytest.mark.parametrize(
    "choices", ["choice('null','1','true','0.50','a,b','k=v','Zoë','[x]','plain')", "null,'null',1,'1',[a],'[a]'"]
)
def test_choices_that_look_alike_are_told_apart_everywhere(choices: str) -> None:
    space = Space.parse({"name": choices}, [])
    found = space.configurations() or []
    lines = [space.overrides(params)[0] for params in found]
    assert (
        len(set(lines)) == len({space.key(params) for params in found}) == choices.count(",") + 1 - ("a,b" in choices)
    )
    assert space.describe()["name"].count(",") == choices.count(",")
    for params in found:
        described = Space.parse({"name": choices, "y": "choice(1, 2)"}, [], {"y": lines[found.index(params)]})
        assert [("y" in one) for one in described.configurations() or []].count(True) == 2


def test_an_extender_is_given_by_its_path_and_described_by_it() -> None:
    space = Space.parse({"x": "choice(1, 2)"}, [], None, f"{__name__}.extend")
    assert space.describe() == {"x": "choice(1, 2)", "custom_search_space": f"{__name__}.extend"}
    assert set(suggest(space)) == {"x", "z"}
    for path in ("no.such.thing", "os.system"):
        with pytest.raises(ConfigError, match=f"custom_search_space must be the dotted path.*{path}"):
            Space.parse({}, [], None, path)


def test_an_extender_adds_parameters() -> None:
    space = Space.parse({"x": "choice(1, 2)"}, [], None, None)
    space = Space(space.parameters, {"y": 1}, extender=extend)
    assert set(suggest(space)) == {"x", "z"}
    assert space.size() is None
    with pytest.raises(ValueError, match="Overlapping"):
        suggest(Space(space.parameters, {"z": 1}, extender=extend))


def test_a_grid_needs_finite_parameters() -> None:
    assert Space.parse({"x": "choice(1, 2)", "n": "range(0, 3)"}, []).grid() == {"x": [1, 2], "n": [0, 1, 2]}
    with pytest.raises(ConfigError, match="lr"):
        Space.parse(PARAMS, []).grid()


WORDS = st.sampled_from(["a", "b2", "some_word", "true", "1", "-3", "0.5", "1e-3", "[]", "[x,y]", "x.y/z", "null"])


@st.composite
def lines(draw: st.DrawFn, finite: bool = False) -> str:
    """A parameter as a user would write it."""
    kinds = ["choice", "range", "floats", "log ints"] + ([] if finite else ["interval", "log"])
    kind = draw(st.sampled_from(kinds))
    if kind == "choice":
        words = draw(st.lists(WORDS.filter(lambda w: w != "null"), min_size=1, max_size=4))
        return f"choice({', '.join(words)})"
    low, width = draw(st.integers(-3, 3)), draw(st.integers(1, 5))
    tenth = draw(st.sampled_from(["0.1", "0.3", "0.7"]))
    return {
        "range": f"range({low}, {low + width})",
        "floats": f"range({low}, {low + 1}, {tenth})",
        "log ints": f"int(tag(log, interval(1, {1 + width})))",
        "interval": f"interval({low}.0, {low + width}.0)",
        "log": f"tag(log, interval(1e-{width}, 1.0))",
    }[kind]


@st.composite
def spaces(draw: st.DrawFn, finite: bool = False) -> Space:
    """Up to three parameters, each perhaps with a condition on one before or after it."""
    params = {f"p{index}": draw(lines(finite)) for index in range(draw(st.integers(1, 3)))}
    searched = Space.parse(params, []).parameters
    order = draw(st.permutations(list(params)))
    conditions = {}
    for index, name in enumerate(order[1:], start=1):
        other = searched[draw(st.sampled_from(order[:index]))]
        name_of_other = next(key for key, distribution in searched.items() if distribution is other)
        if is_finite(other) and draw(st.booleans()):
            value = draw(st.sampled_from(values_of(other)))
            conditions[name] = f"{name_of_other}={word(value)}"
    return Space.parse(params, [], conditions)


@given(spaces(), st.integers(0, 99))
def test_hydra_reads_back_what_was_drawn(space: Space, seed: int) -> None:
    params = suggest(space, seed)
    parsed = OverridesParser.create().parse_overrides(list(space.overrides(params)))
    assert [override.get_key_element() for override in parsed] == list(params)
    assert [word(Transformer.encode(o.value())) for o in parsed] == [  # type: ignore[arg-type]
        word(value) for value in params.values()
    ]


@given(spaces(), st.integers(0, 99))
def test_conditions_hold_for_what_was_drawn_and_for_nothing_else(space: Space, seed: int) -> None:
    params = suggest(space, seed)
    for name in space.parameters:
        condition = space.conditions.get(name)
        holds = condition is None or (condition.other in params and word(params[condition.other]) in condition.values)
        assert (name in params) == holds
    assert space.whole(params) == params
    assert space.whole({**{name: "?" for name in space.parameters if name not in params}, **params}) == params


@given(spaces(finite=True), st.integers(0, 99))
def test_the_size_is_the_number_of_distinct_configurations(space: Space, seed: int) -> None:
    found = space.configurations() or []
    keys = {space.key(params) for params in found}
    assert space.size() == len(found) == len(keys)
    assert space.key(suggest(space, seed)) in keys


def test_a_large_space_is_counted_without_listing_it() -> None:
    space = Space.parse(
        {"a": "range(0, 1000000000)", "b": "choice(x, y)", "c": "range(0, 1000)"}, [], {"c": "b=y", "b": "a=7"}
    )
    space = Space({name: space.parameters[name] for name in "bc"}, conditions={"c": space.conditions["c"]})
    assert space.size() == 1001
    assert Space.parse({"a": "range(0, 1000000000)", "b": "range(0, 1, 1e-6)"}, []).size() == 10**15
    assert Space.parse({"a": "range(0, 1000000000)"}, []).configurations() is None


def test_what_can_never_be_there_does_not_count() -> None:
    space = Space.parse({"a": "choice(1, 2)", "lr": "interval(0.0, 1.0)"}, ["opt=adam"], {"lr": "opt=sgd"})
    assert space.size() == 2
    assert space.configurations() == [{"a": 1}, {"a": 2}]


def test_a_configuration_is_whole_only_with_possible_values_and_without_an_extender() -> None:
    space = Space.parse({"x": "interval(0.0, 1.0)", "y": "choice(a, b)"}, [])
    assert space.whole({"x": 1, "y": "a", "other": 3}) == {"x": 1.0, "y": "a"}
    assert space.whole({"x": 1.0}) is None
    assert space.whole({"x": 2.0, "y": "a"}) is None
    assert space.whole({"x": 1.0, "y": "c"}) is None
    assert Space(space.parameters, extender=extend).whole({"x": 1.0, "y": "a"}) is None


def test_the_baseline_is_the_configuration_as_it_stands_groups_and_lists_included() -> None:
    params = {
        "optimizer": "choice(adam, sgd)",
        "optimizer.lr": "interval(0.0, 1.0)",
        "+policy": "choice([], [flip])",
        "optimizer.momentum": "interval(0.5, 0.9)",
    }
    config = OmegaConf.create(
        {
            "hydra": {"runtime": {"choices": {"optimizer": "adam"}}},
            "optimizer": {"lr": 0.25, "momentum": 0.0},
            "policy": ["flip"],
        }
    )
    space = Space.parse(params, [], {"optimizer.momentum": "optimizer=sgd"})
    assert space.baseline(config) == {"optimizer": "adam", "optimizer.lr": 0.25, "policy": "[flip]"}
    config.hydra.runtime.choices.optimizer = "sgd"  # a momentum of 0 is none of the space
    assert space.baseline(config) is None
