import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catsweep.prepare.preparation_report import BINS, HEIGHT, WIDTH, Histogram, histogram, shares

numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4))


def total(chart: Histogram) -> int:
    return sum(int(bar.title.rpartition(": ")[2].replace(",", "")) for bar in chart.bars)


@given(st.lists(numbers, min_size=1, max_size=200))
def test_every_value_is_counted_within_the_plot(values: list[float]) -> None:
    chart = histogram("x", values)
    assert total(chart) == len(values)
    assert 1 <= len(chart.bars) <= BINS
    assert max(bar.height for bar in chart.bars) == HEIGHT
    for bar in chart.bars:
        assert 0 <= bar.x < bar.x + bar.width <= WIDTH
        assert bar.y + bar.height == pytest.approx(HEIGHT, abs=0.02)
    assert 2 <= len(chart.ticks) <= 7
    assert all(0 <= x <= WIDTH for x, _ in chart.ticks)


def test_bins_have_round_edges_and_their_counts() -> None:
    chart = histogram("size", [310, 319, 320, 480], " px")
    assert [bar.title for bar in chart.bars] == ["310 to 320 px: 2", "320 to 330 px: 1", "470 to 480 px: 1"]
    assert (chart.title, chart.top) == ("size", 2)
    assert [bar.height for bar in chart.bars] == [HEIGHT, HEIGHT / 2, HEIGHT / 2]
    assert chart.note == "median 320 px; 5 % are below 311, 5 % above 456"


def test_values_far_out_are_counted_at_the_ends() -> None:
    values = [*np.linspace(100, 200, 500), 1e6]
    chart = histogram("x", values)
    assert total(chart) == 501
    assert float(chart.ticks[-1][1]) <= 300


def test_bounds_fix_the_axis() -> None:
    chart = histogram("light", [3, 250], bounds=(0, 255))
    assert chart.ticks[0] == (0, "0")
    assert chart.bars[0].x < WIDTH * 0.1
    assert chart.bars[-1].x > WIDTH * 0.9


@pytest.mark.parametrize("value", [0.0, 1.75, -3.0, 1e9])
def test_equal_values_make_one_bar(value: float) -> None:
    chart = histogram("x", [value] * 3)
    assert (len(chart.bars), chart.top) == (1, 3)


def test_parts_of_a_whole_the_largest_first() -> None:
    parts = shares({"b": 1, "c": 3, "a": 1}, 4)
    assert [(part.name, part.count, part.share) for part in parts] == [("c", 3, 0.75), ("a", 1, 0.25), ("b", 1, 0.25)]
    assert shares({}, 0) == ()
