"""No text of a stranger is a formula in a spreadsheet, and none is lost."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steady.printing import escaped, unescaped

pytestmark = pytest.mark.security
SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
pieces = st.sampled_from([*SIGNS, "'", '"', " ", "\t", "\r", "\n", ";", ",", "1", ".5", "e", "a", "]", "\u200b", "é"])
texts = st.lists(pieces, max_size=12).map("".join) | st.text()


def calculated(cell: str) -> bool:
    """Whether a spreadsheet would take it for a formula, and not for a number."""
    bare = cell.strip(' \t\r\n\u200b"')
    if not bare.startswith(tuple(SIGNS)):
        return cell.startswith(("\t", "\r"))
    try:
        float(bare.rstrip(")]}"))
    except ValueError:
        return any(part.replace(".", "").strip("+-0123456789eE") for part in bare.split(" "))
    return False


@given(texts)
def test_reading_gives_the_true_text(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert unescaped(escaped(escaped(text))) == escaped(text)


@given(texts, st.sampled_from(",;\t"))
def test_no_cell_is_a_formula_wherever_a_spreadsheet_divides_the_line(text: str, delimiter: str) -> None:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(["a", escaped(text), "b"])
    assert not calculated(escaped(text))
    for cell in re.split(rf"[{delimiter}\r\n]", line.getvalue()):
        # A blank that is left in front by such a division, with no sign behind it, calculates nothing.
        assert not calculated(cell.lstrip("\t\r")), repr(cell)


@pytest.mark.parametrize(
    "text",
    [
        "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "  -2+3", '"=1"', "'=1", "''=1", "\uff1d1",
        "\uff0bA1", "\uff0dA1", "\uff20A1", "\ufeff=1", "\u200b=1", "\xa0=1", "-1+cmd|' /C calc'!A0", "- 1", "-A1",
        "=", "-", "a;=1", "a,=1", "a\t=1", "a\n=1", "a;'=1", "1;-1+A1", "+1\t=", "-1;-1+A1", "\ta", "\ra",
    ],
)  # fmt: skip
def test_what_could_be_calculated_is_quoted(text: str) -> None:
    cell = escaped(text)
    assert cell != text
    assert cell.replace("'", "") == text.replace("'", "")
    assert unescaped(cell) == text


@pytest.mark.parametrize(
    "text",
    [
        "cat.jpg", "a=b.jpg", "a-b", "a+b@c.jpg", "-1", "-1.5", "+2", "-1e-5", "-0.50 -3.25 4.00", "[-1, -2.5]", "'a'",
        '{"a": -1}', "café.jpg", "猫.jpg", "it's", "'", "", "face: 0.3, -0.1", "x, 3 - 4",
    ],
)  # fmt: skip
def test_what_is_harmless_stays_as_it_is(text: str) -> None:
    assert escaped(text) == unescaped(text) == text


@pytest.mark.parametrize("value", [-1, -1.5, None, True, float("-inf")])
def test_numbers_stay_numbers(value: object) -> None:
    assert escaped(value) is value


@pytest.mark.parametrize(
    "text", ["\t" * 50_000, ";" * 50_000, "'" * 50_000 + "=", ",-1 " * 20_000, "-" + "1 " * 50_000]
)
def test_long_texts_take_no_time(text: str) -> None:
    """Quadratic ones would take minutes."""
    assert unescaped(escaped(text)) == text
