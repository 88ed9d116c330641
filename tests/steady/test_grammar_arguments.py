"""What params and the command line say of each key."""

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution

from steady.exceptions import ConfigError
from steady.grammar import Arguments, as_override, check_deletions


def read(*lines: str) -> Arguments:
    return Arguments.read(lines, "the command line")


def choices(text: str) -> tuple[object, ...]:
    distribution = read(f"x={text}").searched["x"]
    assert isinstance(distribution, CategoricalDistribution)
    return distribution.choices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("choice('null','1','true','0.50','a,b','k=v','Zoë')", ("null", "1", "true", "0.50", "a,b", "k=v", "Zoë")),
        ("'null',null,1,'1'", ("null", None, 1, "1")),
        ("choice('[x]',[x],['1',y])", ("'[x]'", "[x]", "['1',y]")),
        ("choice('', ' a ', \"it's\", 'a\\\\')", ("", " a ", "it's", "a\\")),
        ("str(choice(1,true))", ("1", "true")),
        ("float(range(1,3))", (1.0, 2.0)),
        ("shuffle(b,a)", ("b", "a")),
    ],
)
def test_choices_are_what_was_written(text: str, expected: tuple[object, ...]) -> None:
    assert repr(choices(text)) == repr(expected)


@pytest.mark.parametrize(
    "lines", [("x=interval(0,1)", "++x=0"), ("++x=0", "x=interval(0,1)"), ("+x=0", "++x=choice(1,2)")]
)
def test_what_is_fixed_is_not_searched_however_it_is_spelled(lines: tuple[str, ...]) -> None:
    given = read(*lines)
    assert (given.searched, given.fixed, given.unsearched) == ({}, {"x": "0"}, ("x",))


def test_the_command_line_wins_under_any_spelling() -> None:
    params = Arguments.read(["+a=1", "b=choice(1,2)", "++c=interval(0,1)"], "params")
    given = params.under(read("a=choice(3,4)", "+b=5", "d=6"))
    assert list(given.searched) == ["c", "a"]
    assert given.fixed == {"b": "5", "d": "6"}
    assert given.prefixes == {"b": "+", "c": "++"}
    assert given.unsearched == ("b",)


def test_the_prefix_is_the_one_that_makes_the_key() -> None:
    assert read("+x=1", "x=2").prefixes == {"x": "+"}
    assert read("x=1", "+y=interval(0,1)", "++x=2").prefixes == {"x": "++", "y": "+"}


@pytest.mark.parametrize(
    ("written", "fixed"),
    [("x='null'", "'null'"), ("x=null", "null"), ("x=['1',a]", "['1',a]"), ("x=str(1)", "str(1)"), ("x=", ""),
     ("x=True", "True"), ("x={a: '1'}", "{a:'1'}")],
)  # fmt: skip
def test_a_fixed_value_says_the_same_to_a_job(written: str, fixed: str) -> None:
    assert read(written).fixed == {"x": fixed}


def test_values_of_params_are_put_into_the_grammar_text_is_in_it() -> None:
    lines = [as_override("x", value) for value in ("choice('a', 1)", None, True, 0.5, ["null", 1, None])]
    assert lines == ["x=choice('a', 1)", "x=null", "x=true", "x=0.5", "x=['null',1,null]"]


def test_every_line_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ConfigError, match=r"(?s)'x=choice\(' of the command line.*'y=glob\(\*\)' of the.*Expected"):
        read("x=choice(", "good=1", "y=glob(*)")


@pytest.mark.parametrize("deletion", ["~a", "~a.b", "~a.b=1", "~a={}"])
def test_to_delete_what_is_searched_is_refused(deletion: str) -> None:
    with pytest.raises(ConfigError, match="which is searched"):
        check_deletions(read("+a.b=range(1,3)", deletion))


@pytest.mark.parametrize("deletion", ["~group", "~group=one", "~group@here"])
def test_so_is_a_group(deletion: str) -> None:
    key = "group@here" if "@" in deletion else "group"
    with pytest.raises(ConfigError, match=f"deletes {key}, which is searched"):
        check_deletions(read(f"{key}=choice(one,two)", deletion))


def test_others_may_be_deleted() -> None:
    given = read("a.b=range(1,3)", "~a.c", "~ab", "fixed=1", "~fixed")
    check_deletions(given)
    assert given.deletions == ("~a.c", "~ab", "~fixed")
    assert given.searched == {"a.b": IntDistribution(1, 2)}
