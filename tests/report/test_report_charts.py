import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from tests.report.studies import SPACE, params_of

from catsweep.report.formatting import short
from catsweep.report.report_charts import Area, Axis, ParallelCoordinates, Plot, StudyCharts, brief
from catsweep.study_record import Entry, StudyRecord
from steady.study.select import Objective


def test_a_linear_axis_spans_its_values_with_a_margin() -> None:
    axis = Axis.over([210.0, 250.0, math.inf])
    assert 0 < (axis.place(210.0) or 0) < 0.1
    assert 0.9 < (axis.place(250.0) or 0) < 1
    assert [label for _, label in axis.ticks()] == ["210", "220", "230", "240", "250"]


def test_a_logarithmic_axis_has_equal_steps_for_equal_factors() -> None:
    axis = Axis.of_parameter(FloatDistribution(1e-4, 1e-2, log=True))
    assert axis.place(1e-3) == pytest.approx(0.5)
    assert [label for _, label in axis.ticks()] == ["0.0001", "0.0003", "0.001", "0.003", "0.01"]


def test_choices_have_places_of_their_own_whatever_their_type() -> None:
    axis = Axis.of_parameter(CategoricalDistribution([True, False, None, 64, "a"]))
    assert [axis.place(choice) for choice in (True, False, None, 64, "a")] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert axis.place("gone") is None


def test_what_has_no_place_gets_none() -> None:
    assert Axis.over([1.0]).place(math.nan) is None
    assert Axis.over([1.0]).place("x") is None
    assert Axis(1, 10, log=True).place(0) is None


@pytest.mark.parametrize("values", [[], [3.0], [0.0, 0.0], [math.inf]])
def test_an_axis_needs_no_two_different_values(values: list[float]) -> None:
    axis = Axis.over(values)
    assert axis.high > axis.low
    assert axis.ticks()


def test_a_parameter_that_could_have_been_only_one_thing_has_an_axis() -> None:
    assert Axis.of_parameter(IntDistribution(4, 4)).place(4) == 0.5


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_on_the_axis(low: float, span: float) -> None:
    ticks = Axis.over([low, low + span]).ticks()
    assert 1 <= len(ticks) <= 9
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in ticks)


FID, SSIM, GAP = Objective("val/fid", False), Objective("val/ssim", True), Objective("gap", False)


def record(values: list[tuple[float, ...] | None], objectives: tuple[Objective, ...] = (FID, SSIM)) -> StudyRecord:
    trials = tuple(
        Entry(i, "finished" if v else "pruned", "finished" if v else "pruned", v, params_of(i), (), None)
        for i, v in enumerate(values)
    )
    return StudyRecord("cats", objectives, trials, tuple(range(len(values))), distributions=SPACE)


def inside(plot: Plot) -> bool:
    marks = [*plot.marks, *plot.rug]
    return all(plot.area.left <= m.x <= plot.area.right and plot.area.top <= m.y <= plot.area.bottom for m in marks)


def test_the_pareto_front_is_a_staircase_on_the_side_of_the_dominated() -> None:
    found = record([(10.0, 0.1), (20.0, 0.5), (30.0, 0.9), (30.0, 0.2), None])
    [plot] = StudyCharts(found, front=[0, 1, 2], winner=0).pareto()
    assert [(m.trial, m.role, m.winner) for m in plot.marks] == [
        (0, "front", True), (1, "front", False), (2, "front", False), (3, "finished", False),
    ]  # fmt: skip
    assert inside(plot)
    at = {m.trial: (m.x, m.y) for m in plot.marks}
    # From the lowest FID to the right along its SSIM, then up: nothing lies beyond the stairs.
    corners = [(at[1][0], at[0][1]), (at[2][0], at[1][1])]
    assert plot.line == (at[0], corners[0], at[1], corners[1], at[2])
    assert at[3][1] > at[1][1]  # worse is lower


def test_three_objectives_are_drawn_in_pairs_and_one_not_at_all() -> None:
    three = record([(1.0, 0.1, 3.0), (2.0, 0.2, 1.0)], (FID, SSIM, GAP))
    assert len(StudyCharts(three, [0, 1], 0).pareto()) == 3
    assert not any(plot.line for plot in StudyCharts(three, [0, 1], 0).pareto())
    assert StudyCharts(record([(1.0,)], (FID,)), [0], 0).pareto() == []
    assert StudyCharts(record([None, None]), [], None).pareto() == []


@pytest.mark.parametrize(("place", "best"), [(0, [30.0, 20.0]), (1, [0.1, 0.4])])
def test_history_shows_the_best_so_far_in_its_direction(place: int, best: list[float]) -> None:
    plot = StudyCharts(record([(30.0, 0.1), None, (20.0, 0.1), (25.0, 0.4)]), [], None).history()[place]
    assert plot is not None
    assert inside(plot)
    assert [(m.trial, m.role) for m in plot.rug] == [(1, "pruned")]
    heights = [y for _, y in plot.line]
    of_value = {m.y for m in plot.marks}
    assert len(set(heights)) == len(best)
    assert set(heights) <= of_value
    assert (heights == sorted(heights)) == (place == 0)  # lower is further down the page
    assert all(label.isdecimal() for _, label in plot.x_ticks)


def test_history_without_a_finished_trial_is_none() -> None:
    assert StudyCharts(record([None]), [], None).history() == []
    assert StudyCharts(record([(math.inf, 0.1)]), [], None).history() == []


def test_slices_leave_out_trials_without_the_parameter() -> None:
    found = record([(float(i), 0.1 * i) for i in range(6)])
    plots = StudyCharts(found, [0], 0).slices(list(SPACE))[0]
    assert [plot.title for plot in plots] == list(SPACE)
    by_name = {plot.title: plot for plot in plots}
    assert [m.trial for m in by_name["optimizer.momentum"].marks] == [1, 3, 5]
    assert all(map(inside, plots))
    assert [label for _, label in by_name["optimizer"].y_ticks] == ["adam", "sgd"]


def test_equal_choices_do_not_hide_each_other() -> None:
    plots = StudyCharts(record([(1.0, 0.1)] * 8), [], None).slices(["model.aggregate_prior"])[0]
    places = [(m.x, m.y) for m in plots[0].marks]
    assert all(a != b for a, b in itertools.combinations(places, 2))


def test_long_choices_are_cut_and_short_ones_are_not() -> None:
    assert brief("charbonnier") == "charbonnier"
    assert len(brief("x" * 40)) == 16


def test_labels_name_the_extractor() -> None:
    plain = record([(1.0, 0.2)])
    named = StudyRecord(plain.name, plain.objectives, plain.trials, (0,), cards={"val/fid": {"extractor": "inception"}})
    [plot] = StudyCharts(named, [0], 0).pareto()
    assert plot.x_title == "val/fid (inception) ← better"
    assert plot.y_title == "val/ssim ↑ better"
    assert plot.area == Area()


NAMES = list(SPACE)


def parallel(
    found: StudyRecord, names: Sequence[str], front: Sequence[int], winner: int | None
) -> ParallelCoordinates | None:
    return StudyCharts(found, front, winner).parallel(names)


def of_trials(*trials: Entry) -> StudyRecord:
    objectives = (Objective("val/fid", False), Objective("val/ssim", True))
    cards = {"val/fid": {"extractor": "efficientnet_lite0"}}
    return StudyRecord("cats", objectives, trials, (), distributions=SPACE, cards=cards)


def trial(number: int, values: tuple[float, ...] | None, role: str = "finished") -> Entry:
    return Entry(number, role, role, values, params_of(number), (), None)


def test_pruned_trials_are_there_and_end_before_the_scores() -> None:
    chart = parallel(of_trials(trial(0, (2.0, 0.1)), trial(1, None, "pruned"), trial(2, (1.0, 0.2))), NAMES, [2], 2)
    assert chart is not None
    scores = [(axis.name, axis.detail, axis.way) for axis in chart.axes if axis.score]
    assert scores == [("val/fid", "efficientnet_lite0", "↓"), ("val/ssim", "", "↑")]
    by_number = {line.trial: line for line in chart.lines}
    assert by_number[1].role == "pruned"
    assert by_number[1].places[-2:] == (None, None)
    assert None not in by_number[0].places[-2:]
    assert [by_number[n].shade for n in (2, 0)] == [0.0, 1.0]
    assert chart.lines[-1].trial == 2  # the winner lies on top


def test_a_parameter_that_a_trial_did_not_have_leaves_a_gap() -> None:
    chart = parallel(of_trials(trial(0, (2.0, 0.1)), trial(1, (1.0, 0.1))), NAMES, [], None)
    assert chart is not None
    adam = next(line for line in chart.lines if line.trial == 0)
    assert adam.places[NAMES.index("optimizer.momentum")] is None
    assert adam.path(100, 300, lying=False).count("M") == 2


def test_before_the_first_score_only_parameters_are_drawn() -> None:
    chart = parallel(of_trials(trial(1, None, "pruned")), NAMES, [], None)
    assert chart is not None
    assert [axis.score for axis in chart.axes] == [False] * len(NAMES)


def test_nothing_to_see_is_none() -> None:
    assert parallel(of_trials(), NAMES, [], None) is None
    assert parallel(of_trials(trial(0, None, "waiting")), NAMES, [], None) is None
    assert parallel(of_trials(trial(0, None, "pruned")), NAMES[:1], [], None) is None


def test_a_name_is_short_where_that_is_clear() -> None:
    assert short("optimizer.lr", ["optimizer.lr", "model.beta"]) == "lr"
    assert short("a.lr", ["a.lr", "b.lr"]) == "a.lr"


def test_rails_stand_or_lie() -> None:
    chart = parallel(of_trials(trial(1, (1.0, 0.1))), ["optimizer", "model.aggregate_prior"], [], None)
    assert chart is not None
    [line] = chart.lines
    # sgd is the second of two choices, true the first of two; single scores lie in the middle.
    assert line.path(10, 100, lying=False) == "M0.0 25.0L10.0 75.0L20.0 50.0L30.0 50.0"
    assert line.path(10, 100, lying=True) == "M75.0 0.0L25.0 10.0L50.0 20.0L50.0 30.0"
