import itertools
import math

import pytest
from tests.report.studies import SPACE, params_of

from catsweep.report.charts import HEIGHT, WIDTH, Plot, brief, history, pareto, slices
from catsweep.report.record import Entry, Record
from catsweep.selection import Objective

FID, SSIM, GAP = Objective("val/fid", False), Objective("val/ssim", True), Objective("gap", False)


def record(values: list[tuple[float, ...] | None], objectives: tuple[Objective, ...] = (FID, SSIM)) -> Record:
    trials = tuple(
        Entry(i, "finished" if v else "pruned", "finished" if v else "pruned", v, params_of(i), (), None)
        for i, v in enumerate(values)
    )
    return Record("cats", objectives, trials, tuple(range(len(values))), distributions=SPACE)


def inside(plot: Plot) -> bool:
    marks = [*plot.marks, *plot.rug]
    return all(plot.left <= m.x <= plot.right and plot.top <= m.y <= plot.bottom for m in marks)


def test_the_pareto_front_is_a_staircase_on_the_side_of_the_dominated() -> None:
    found = record([(10.0, 0.1), (20.0, 0.5), (30.0, 0.9), (30.0, 0.2), None])
    [plot] = pareto(found, front=[0, 1, 2], winner=0)
    assert [(m.trial, m.role, m.winner) for m in plot.marks] == [
        (0, "front", True), (1, "front", False), (2, "front", False), (3, "finished", False),
    ]  # fmt: skip
    assert inside(plot)
    [line] = plot.lines
    at = {m.trial: (m.x, m.y) for m in plot.marks}
    # From the lowest FID to the right along its SSIM, then up: nothing lies beyond the stairs.
    corners = [(at[1][0], at[0][1]), (at[2][0], at[1][1])]
    assert line.points == (at[0], corners[0], at[1], corners[1], at[2])
    assert at[3][1] > at[1][1]  # worse is lower


def test_three_objectives_are_drawn_in_pairs_and_one_not_at_all() -> None:
    three = record([(1.0, 0.1, 3.0), (2.0, 0.2, 1.0)], (FID, SSIM, GAP))
    assert len(pareto(three, [0, 1], 0)) == 3
    assert not any(plot.lines for plot in pareto(three, [0, 1], 0))
    assert pareto(record([(1.0,)], (FID,)), [0], 0) == []
    assert pareto(record([None, None]), [], None) == []


@pytest.mark.parametrize(("place", "best"), [(0, [30.0, 20.0]), (1, [0.1, 0.4])])
def test_history_shows_the_best_so_far_in_its_direction(place: int, best: list[float]) -> None:
    plot = history(record([(30.0, 0.1), None, (20.0, 0.1), (25.0, 0.4)]), place, [], None)
    assert plot is not None
    assert inside(plot)
    assert [(m.trial, m.role) for m in plot.rug] == [(1, "pruned")]
    heights = [y for _, y in plot.lines[0].points]
    of_value = {m.y for m in plot.marks}
    assert len(set(heights)) == len(best)
    assert set(heights) <= of_value
    assert (heights == sorted(heights)) == (place == 0)  # lower is further down the page
    assert all(label.isdecimal() for _, label in plot.x_ticks)


def test_history_without_a_finished_trial_is_none() -> None:
    assert history(record([None]), 0, [], None) is None
    assert history(record([(math.inf, 0.1)]), 0, [], None) is None


def test_slices_leave_out_trials_without_the_parameter() -> None:
    found = record([(float(i), 0.1 * i) for i in range(6)])
    plots = slices(found, 0, list(SPACE), [0], 0)
    assert [plot.title for plot in plots] == list(SPACE)
    by_name = {plot.title: plot for plot in plots}
    assert [m.trial for m in by_name["optimizer.momentum"].marks] == [1, 3, 5]
    assert all(map(inside, plots))
    assert [label for _, label in by_name["optimizer"].y_ticks] == ["adam", "sgd"]


def test_equal_choices_do_not_hide_each_other() -> None:
    plots = slices(record([(1.0, 0.1)] * 8), 0, ["model.aggregate_prior"], [], None)
    places = [(m.x, m.y) for m in plots[0].marks]
    assert all(a != b for a, b in itertools.combinations(places, 2))


def test_long_choices_are_cut_and_short_ones_are_not() -> None:
    assert brief("charbonnier") == "charbonnier"
    assert len(brief("x" * 40)) == 16


def test_labels_name_the_extractor() -> None:
    plain = record([(1.0, 0.2)])
    named = Record(plain.name, plain.objectives, plain.trials, (0,), cards={"val/fid": {"extractor": "inception"}})
    [plot] = pareto(named, [0], 0)
    assert plot.x_title == "val/fid (inception) ← better"
    assert plot.y_title == "val/ssim ↑ better"
    assert (plot.width, plot.height) == (WIDTH, HEIGHT)
