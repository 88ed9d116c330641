"""Values between Hydra's grammar and Optuna's record."""

from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from steady import grammar

SIGNS = st.sampled_from("'\"\\[]{},=:()$ ~+nul1.0e")
TEXTS = st.text(st.one_of(st.characters(exclude_categories=["Cs"]), SIGNS), max_size=10)
LISTS = st.lists(st.one_of(st.integers(), st.booleans(), TEXTS.map(lambda t: ("text", t))), max_size=3)


@given(TEXTS)
def test_a_string_is_itself_again_from_the_record_and_from_an_override(text: str) -> None:
    kept = grammar.encode(grammar.parsed(grammar.quoted(text)))
    assert isinstance(kept, str)
    assert kept == grammar.encode(text)
    assert grammar.decode(kept) == text
    read = OverridesParser.create().parse_override(f"x={grammar.as_text(kept)}").value()
    assert type(read) is str
    assert read == text


@given(LISTS)
def test_a_list_is_kept_as_its_text_and_no_string_is_taken_for_one(values: list[Any]) -> None:
    plain = [value[1] if isinstance(value, tuple) else value for value in values]
    words = [grammar.quoted(value[1]) if isinstance(value, tuple) else str(value) for value in values]
    kept = grammar.encode(grammar.parsed(f"[{','.join(words)}]"))
    assert grammar.decode(kept) == plain
    assert grammar.as_text(kept) == kept
    assert grammar.encode(str(kept)) != kept  # the string that looks like it


@pytest.mark.parametrize("value", [None, True, 1, 1.0, "null", "true", "1", "1.0", "None", "nan", "", " ", "a b", "a"])
def test_each_value_has_a_spelling_of_its_own(value: Any) -> None:
    read = OverridesParser.create().parse_override(f"x={grammar.as_text(value)}").value()
    assert repr(read) == repr(value)


def test_what_needs_no_quotes_has_none() -> None:
    plain = ["plain", "a b", "a:b", "x.y/z", "3x3", "${x}", "-", "leaky_relu"]
    assert [grammar.as_text(text) for text in plain] == plain


def test_a_key_is_one_with_any_prefix() -> None:
    assert {grammar.bare(key) for key in ("a/b@c", "+a/b@c", "++a/b@c")} == {"a/b@c"}
    assert [grammar.prefix(key) for key in ("x", "+x", "++x")] == ["", "+", "++"]
