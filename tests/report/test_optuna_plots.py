import base64
import html
import json
import math
import zlib

import optuna
import pytest
from hypothesis import given
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial
from tests.markup import Seen, names
from tests.report.studies import SPACE, Lab, add, params_of

from catsweep.report.optuna_plots import LEAST, importances, optuna_plots, plotly_library, without_markup


def scored(n: int, score: str = "x") -> optuna.Study:
    """`x` decides, `y` does not; the second objective is the first turned round."""
    made = optuna.create_study(directions=["minimize", "maximize"])
    space = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}
    for i in range(n):
        params = {"x": i / n, "y": (i * 7 % n) / n}
        value = {"x": params["x"], "same": 1.0, "inf": math.inf}[score]
        made.add_trial(create_trial(values=[value, -value], params=params, distributions=space))
    return made


def test_the_parameter_that_decides_comes_first_for_either_direction() -> None:
    for place, one in enumerate(importances(scored(60))):
        assert one.objective == place
        assert next(iter(one.shares)) == "x"
        assert one.shares["x"] > 0.7
        assert sum(one.shares.values()) == pytest.approx(1)
        assert one.note == "Where the best 6 of 60 finished trials lie, against all of them."


def test_few_trials_give_a_hint_and_say_so() -> None:
    [first, _] = importances(scored(8))
    assert first.shares
    assert first.note.startswith("Where the best 4 of 8 finished trials lie")
    assert "hint" in first.note


@pytest.mark.parametrize("n", range(LEAST))
def test_too_few_trials_give_nothing_and_say_so(n: int) -> None:
    [first, _] = importances(scored(n))
    assert first.shares == {}
    assert first.note == f"It takes at least {LEAST} finished trials to compare; there are {n}."


def test_equal_scores_tell_nothing() -> None:
    assert importances(scored(20, "same"))[0].note == "All finished trials have the same score."


def test_infinite_and_pruned_ones_do_not_count() -> None:
    made = scored(20, "inf")
    made.add_trial(create_trial(state=TrialState.PRUNED))
    assert "there are 0" in importances(made)[0].note


NAMES = list(SPACE)


@pytest.fixture
def study(lab: Lab) -> optuna.Study:
    made = lab.study("cats")
    for number in range(7):
        add(made, (100.0 - number, 0.1 * number), params_of(number), "complete")
    add(made, (float("inf"), 0.0), params_of(9), "complete")
    return made


def test_points_carry_their_trials_and_names_cannot_end_their_script(study: optuna.Study) -> None:
    contour, rank, edf = optuna_plots(study, NAMES, "</script><b>")
    assert "optimizer.lr and model.latent_size" in contour.about  # numbers, and only three have a momentum
    for one in (contour, rank):
        figure = json.loads(one.figure)
        numbers = [n for trace in figure["data"] for n in trace.get("customdata") or [] if n is not None]
        assert set(range(7)) <= set(numbers) <= set(range(8))  # Rank also shows an infinite score
    assert json.loads(edf.figure)["data"]
    assert not any("<" in one.figure for one in (contour, rank, edf))
    assert "&lt;/script&gt;&lt;b&gt;" in json.dumps(json.loads(edf.figure))  # what plotly shows as it was given
    assert optuna_plots(study, NAMES, "</script><b>") == (contour, rank, edf)


@pytest.mark.security
@given(names())
def test_no_text_is_a_link_or_bold_in_a_plot(name: str) -> None:
    made = without_markup({"layout": {"title": {"text": name}}, "data": [{"x": [name, 1.5, None, True]}]})
    title, (x, *others) = made["layout"]["title"]["text"], made["data"][0]["x"]
    assert title == x
    assert others == [1.5, None, True]
    assert set(Seen(title).tags) <= {"br", "extra"}  # a line, and the box beside a label: Optuna's own words have them
    assert html.unescape(title) == name


def test_too_few_trials_or_parameters_give_none(study: optuna.Study, lab: Lab) -> None:
    assert optuna_plots(study, NAMES[:1], "fid") == ()
    few = lab.study("few")
    for number in range(3):
        add(few, (1.0, 1.0), params_of(number), "complete")
    assert optuna_plots(few, NAMES, "fid") == ()


def test_the_library_is_packed() -> None:
    packed = plotly_library()
    assert len(packed) < 2.2e6
    assert b"Plotly" in zlib.decompress(base64.b64decode(packed))
