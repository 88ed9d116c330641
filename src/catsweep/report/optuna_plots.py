"""Optuna's own plots in report.html, where they show what ours do not: two parameters at a time, all scores at once.

They are plotly's, so the page carries plotly.js, packed, and unpacks it when somebody asks for them. A point that is a
trial carries its number, by which report_plots.js shows its samples.
"""

import base64
import html
import json
import math
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEAST = 4  # finished trials with both parameters; a plane through fewer would be made up
COLOUR = "#4a9089"  # on white and on black
COLOURS = [[0.0, "#1d4f4b"], [0.5, "#93b8b4"], [1.0, "#f1ede6"]]
TRIAL = re.compile(r"^Trial #(\d+)")
OWN = re.compile(r"&lt;(br|/?extra)&gt;")  # ends a line, and what is beside a label: harmless in a stranger's text


@dataclass(frozen=True)
class Drawing:
    """A plot: its title, what it shows, and plotly's description of it as JSON."""

    title: str
    about: str
    figure: str


def drawings(study: optuna.Study, names: Sequence[str], label: str) -> tuple[Drawing, ...]:
    """The plots of a study's first objective.

    Args:
        study: of any number of objectives.
        names: of the parameters, the most important first.
        label: of the objective.

    Returns:
        None with fewer than `LEAST` finished trials that share two parameters which vary.
    """
    trials = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if math.isfinite(t.values[0])]
    pair = _pair(trials, names)
    if pair is None:
        return ()
    from optuna.visualization import plot_contour, plot_edf, plot_rank  # plotly takes half a second to import

    def target(trial: FrozenTrial) -> float:
        return float(trial.values[0])

    with warnings.catch_warnings():  # plots of Optuna are experimental, and say so
        warnings.simplefilter("ignore")
        contour = plot_contour(study, params=list(pair), target=target, target_name=label)
        rank = plot_rank(study, params=list(pair), target=target, target_name=label)
        edf = plot_edf(study, target=target, target_name=label)
    _number(contour, {_point(t, pair): t.number for t in trials if set(pair) <= set(t.params)}.get)
    _number(rank, lambda point: None)
    bar = {"title": None, "thickness": 10}  # what it measures is said above the plot
    contour.update_traces(colorscale=COLOURS, reversescale=False, colorbar=bar, selector={"type": "contour"})
    edf.update_traces(line={"color": COLOUR})
    x, y = pair
    return (
        Drawing("Contour", f"{label} over {x} and {y}, interpolated between the trials (the dots).", _json(contour)),
        Drawing("Rank", f"The same two parameters; the colour is the rank of {label} among all trials.", _json(rank)),
        Drawing("Distribution", f"The share of trials whose {label} is at most so much.", _json(edf)),
    )


def library() -> str:
    """plotly.js, deflated, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(zlib.compress(get_plotlyjs().encode())).decode()


def _pair(trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[str, str] | None:
    """The two most important parameters that enough trials share, and that vary among them; numbers before choices."""
    choices = {name for t in trials for name, d in t.distributions.items() if isinstance(d, CategoricalDistribution)}
    pairs = sorted(combinations(names, 2), key=lambda pair: len(choices & set(pair)))
    for pair in pairs:
        having = [trial.params for trial in trials if set(pair) <= set(trial.params)]
        if len(having) >= LEAST and all(len({str(params[name]) for params in having}) > 1 for name in pair):
            return pair
    return None


def _point(trial: FrozenTrial, pair: tuple[str, str]) -> tuple[str, str]:
    x, y = (str(trial.params[name]) for name in sorted(pair))  # as Optuna puts them on the axes
    return x, y


def _number(figure: "Figure", find: Callable[[tuple[str, str]], int | None]) -> None:
    """Give each point that is a trial its number, from its text or else from where it is."""
    for trace in figure.data:
        if trace.type != "scatter":
            continue
        texts = trace.hovertext if isinstance(trace.hovertext, tuple | list) else [""] * len(trace.x)
        told = [TRIAL.match(str(text)) for text in texts]
        points = [(str(x), str(y)) for x, y in zip(trace.x, trace.y, strict=True)]
        trace.customdata = [int(m[1]) if m else find(point) for m, point in zip(told, points, strict=True)]


def unlinked(content: Any) -> Any:
    """Plotly's description of a figure, as plain values, in which no text is markup but Optuna's and our own.

    Plotly takes some HTML in whatever it shows, so that the option `<a href="https://…">l1</a>` would be a link.
    """
    if isinstance(content, dict):
        return {key: unlinked(value) for key, value in content.items()}
    if isinstance(content, list):
        return [unlinked(value) for value in content]
    return OWN.sub(r"<\1>", html.escape(content, quote=False)) if isinstance(content, str) else content


def _json(figure: "Figure") -> str:
    """For a script element: nothing in it ends one."""
    figure.update_layout(template=None, title=None, autosize=True, dragmode=False, showlegend=False, margin=_margin())
    figure.update_layout(width=None, height=None, paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
    content: Any = json.loads(figure.to_json(engine="json"))  # the other engine refuses lone surrogates
    content["layout"].pop("template", None)
    text = json.dumps(unlinked(content), sort_keys=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _margin() -> dict[str, int]:
    return {"l": 70, "r": 10, "t": 10, "b": 50}
