import html

import pytest
from hypothesis import given
from tests.examples import failed
from tests.markup import Seen, names, on_one_line, rendered

from catsweep import templates
from catsweep.templates import with_commands, without_markup


@pytest.mark.security
@given(names())
def test_no_text_is_a_link_or_bold_in_a_plot(name: str) -> None:
    made = without_markup({"layout": {"title": {"text": name}}, "data": [{"x": [name, 1.5, None, True]}]})
    title, (x, *others) = made["layout"]["title"]["text"], made["data"][0]["x"]
    assert title == x
    assert others == [1.5, None, True]
    assert set(Seen(title).tags) <= {"br", "extra"}  # a line, and the box beside a label: Optuna's own words have them
    assert html.unescape(title) == name


@pytest.mark.security
@given(names(), names())
def test_a_command_in_a_sentence_is_code_whatever_stands_around_it(name: str, value: str) -> None:
    seen = rendered(f"Of {with_commands(f'study {name} (`make sweep`) make judge. To: python src/train.py x={value}')}")
    assert set(seen.tags) <= {"p", "code"}
    assert "make sweep" in seen.texts["code"]
    assert on_one_line(seen.texts[""][0]) == on_one_line(
        f"Of study {name} (make sweep) make judge. To: python src/train.py x={value}"
    )


def test_the_examples_do_what_they_show() -> None:
    assert failed(templates.__name__) == 0
