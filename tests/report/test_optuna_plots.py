import base64
import json
import zlib

import optuna
import pytest
from tests.report.studies import SPACE, Lab, add, params_of

from catsweep.report.optuna_plots import optuna_plots, plotly_library

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
