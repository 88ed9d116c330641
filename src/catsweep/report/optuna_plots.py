"""Draw Optuna's own contour, rank and EDF plots for report.html.

They are plotly's: the page carries plotly.js, compressed, and unpacks it on request.
"""

import base64
import json
import re
import warnings
import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial

from catsweep.study_record import finished
from catsweep.templates import without_markup

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEAST = 4  # finished trials; a contour of fewer means nothing
COLOUR = "#4a9089"  # on white and on black
COLOURS = [[0.0, "#1d4f4b"], [0.5, "#93b8b4"], [1.0, "#f1ede6"]]
TRIAL = re.compile(r"^Trial #(\d+)")


class OptunaPlot(NamedTuple):
    """A plot: title, description, and plotly's figure as JSON that is safe within a script element."""

    title: str
    about: str
    figure: str


def optuna_plots(study: optuna.Study, names: Sequence[str], label: str) -> tuple[OptunaPlot, ...]:
    """Draw contour, rank and EDF of a study's first objective, of that label; names of parameters come by importance.

    Empty with fewer than `LEAST` finished trials that share two parameters which vary.
    """
    trials = finished(study, 0)
    pair = _pair(trials, names)
    if pair is None:
        return ()
    from optuna.visualization import plot_contour, plot_edf, plot_rank  # plotly takes half a second to import

    def target(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    with warnings.catch_warnings():  # Optuna's plots are experimental
        warnings.simplefilter("ignore")
        contour = plot_contour(study, params=list(pair), target=target, target_name=label)
        rank = plot_rank(study, params=list(pair), target=target, target_name=label)
        edf = plot_edf(study, target=target, target_name=label)
    having = [trial for trial in trials if set(pair) <= set(trial.params)]
    x, y = sorted(pair)  # the order of Optuna's axes
    _number(contour, {(str(trial.params[x]), str(trial.params[y])): trial.number for trial in having})
    _number(rank, {})
    bar = {"title": None, "thickness": 10}  # its title is in the description
    contour.update_traces(colorscale=COLOURS, reversescale=False, colorbar=bar, selector={"type": "contour"})
    edf.update_traces(line={"color": COLOUR})
    over = f"{label} over {pair[0]} and {pair[1]}, interpolated between the trials (the dots)."
    ranked = f"The same two parameters; the colour is the rank of {label} among all trials."
    return (
        OptunaPlot("Contour", over, _json(contour)),
        OptunaPlot("Rank", ranked, _json(rank)),
        OptunaPlot("Distribution", f"The share of trials whose {label} is at most so much.", _json(edf)),
    )


def plotly_library() -> str:
    """Return plotly.js, deflated, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(zlib.compress(get_plotlyjs().encode())).decode()


def _pair(trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[str, str] | None:
    """Find the two most important parameters that enough trials share and that vary; numbers before choices."""
    choices = {name for t in trials for name, d in t.distributions.items() if isinstance(d, CategoricalDistribution)}
    for pair in sorted(combinations(names, 2), key=lambda pair: len(choices & set(pair))):
        having = [trial.params for trial in trials if set(pair) <= set(trial.params)]
        if len(having) >= LEAST and all(len({str(params[name]) for params in having}) > 1 for name in pair):
            return pair
    return None


def _number(figure: "Figure", known: Mapping[tuple[str, str], int]) -> None:
    """Give each point that is a trial its number, from its hover text or else from its place."""
    for trace in figure.data:
        if trace.type != "scatter":
            continue
        texts = trace.hovertext if isinstance(trace.hovertext, tuple | list) else [""] * len(trace.x)
        told = [TRIAL.match(str(text)) for text in texts]
        points = [(str(x), str(y)) for x, y in zip(trace.x, trace.y, strict=True)]
        trace.customdata = [int(m[1]) if m else known.get(point) for m, point in zip(told, points, strict=True)]


def _json(figure: "Figure") -> str:
    """Serialize a figure for a script element, which nothing in it ends."""
    figure.update_layout(
        template=None, title=None, autosize=True, dragmode=False, showlegend=False, width=None, height=None,
        margin={"l": 70, "r": 10, "t": 10, "b": 50}, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
    )  # fmt: skip
    content: Any = json.loads(figure.to_json(engine="json"))  # the other engine refuses lone surrogates
    content["layout"].pop("template", None)
    text = json.dumps(without_markup(content), sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
