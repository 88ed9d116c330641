import math

import pytest

from catsweep.report.formatting import counted, duration, listed, moment, parameter, shown
from steady.printing import readable


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (48.4, "48 s"), (59.7, "1 min"), (400, "6 min 40 s"), (11100, "3 h 5 min"), (3600, "1 h"),
     (187200, "2 d 4 h")],
)  # fmt: skip
def test_a_duration_has_at_most_two_parts(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "null"), (3, "3"), (0.000123456, "0.0001235"), (218.70568, "218.7"), ("adam", "adam"),
     (math.inf, "∞"), (-math.inf, "-∞"), (math.nan, "nan")],
)  # fmt: skip
def test_values_are_short(value: object, text: str) -> None:
    assert shown(value) == text


def test_what_no_utf8_file_takes_and_what_no_page_shows_is_spelled_out() -> None:
    assert readable("a\ud800b\x1b[31m\nc\td") == "a\\ud800b\\x1b[31m\nc\td"
    readable("\ud800\x00").encode("utf-8")


def test_moments_are_the_same_in_every_time_zone() -> None:
    assert moment(1_795_690_468.7) == "2026-11-26 10:54 UTC"


def test_counts_and_lists() -> None:
    assert [counted(1, "trial"), counted(1200, "trial")] == ["1 trial", "1,200 trials"]
    assert [listed([3]), listed([3, 1]), listed([3, 1, 2])] == ["3", "3 and 1", "3, 1 and 2"]
    assert listed(range(20), at_most=2) == "0, 1 and 18 more"
    assert listed([]) == ""


def test_a_parameter_that_is_a_string_is_told_from_other_values() -> None:
    values = [None, "null", 1, "1", True, "true", 0.00012345, "[a]", "'[a]'", "a b"]
    said = ["null", "'null'", "1", "'1'", "true", "'true'", "0.0001234", "[a]", "'[a]'", "a b"]
    assert [parameter(value) for value in values] == said
