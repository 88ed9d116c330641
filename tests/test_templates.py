import html

import pytest
from hypothesis import given
from tests.markup import Seen, names

from catsweep.templates import without_markup


@pytest.mark.security
@given(names())
def test_no_text_is_a_link_or_bold_in_a_plot(name: str) -> None:
    made = without_markup({"layout": {"title": {"text": name}}, "data": [{"x": [name, 1.5, None, True]}]})
    title, (x, *others) = made["layout"]["title"]["text"], made["data"][0]["x"]
    assert title == x
    assert others == [1.5, None, True]
    assert set(Seen(title).tags) <= {"br", "extra"}  # a line, and the box beside a label: Optuna's own words have them
    assert html.unescape(title) == name
