"""Compute parameter importances, and draw Optuna's own contour, rank and EDF plots for report.html.

Importances are PED-ANOVA's (Watanabe et al. 2023, arXiv 2304.10255), which compares the distribution of the best trials
with that of all trials. The plots are plotly's: the page carries plotly.js, compressed, and unpacks it on request.
Points that are trials carry their number, by which report_plots.js shows their samples.
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
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEAST = 4  # finished trials; importances and contours of fewer mean nothing
BEST, SHARE = 5, 0.1  # the best are a tenth of the trials, but at least so many where there are (Optuna's advice)
SURE = 50  # finished trials from which on a tenth of them are enough
COLOUR = "#4a9089"  # on white and on black
COLOURS = [[0.0, "#1d4f4b"], [0.5, "#93b8b4"], [1.0, "#f1ede6"]]
TRIAL = re.compile(r"^Trial #(\d+)")
OWN = re.compile(r"&lt;(br|/?extra)&gt;")  # Optuna's line breaks and plotly's boxes: harmless in a stranger's text


@dataclass(frozen=True)
class Importance:
    """Importances of all parameters for one objective."""

    objective: int  # its index among the study's
    shares: dict[str, float]  # by parameter, 0 to 1, their sum is 1; the largest first. Empty if not computed
    note: str  # basis of the computation, or why there is none


@dataclass(frozen=True)
class OptunaPlot:
    """A plot: title, description, and plotly's figure as JSON that is safe within a script element."""

    title: str
    about: str
    figure: str


def importances(study: optuna.Study) -> list[Importance]:
    """Compute the importances of the parameters for each objective of a study."""
    return [_importance(study, objective) for objective in range(len(study.directions))]


def optuna_plots(study: optuna.Study, names: Sequence[str], label: str) -> tuple[OptunaPlot, ...]:
    """Draw contour, rank and EDF of a study's first objective.

    Args:
        study: of any number of objectives.
        names: of the parameters, the most important first.
        label: of the objective.

    Returns:
        Empty with fewer than `LEAST` finished trials that share two parameters which vary.
    """
    trials = _finished(study, 0)
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
    _number(contour, {_point(t, pair): t.number for t in trials if set(pair) <= set(t.params)}.get)
    _number(rank, lambda point: None)
    bar = {"title": None, "thickness": 10}  # its title is in the description
    contour.update_traces(colorscale=COLOURS, reversescale=False, colorbar=bar, selector={"type": "contour"})
    edf.update_traces(line={"color": COLOUR})
    x, y = pair
    return (
        OptunaPlot("Contour", f"{label} over {x} and {y}, interpolated between the trials (the dots).", _json(contour)),
        OptunaPlot(
            "Rank", f"The same two parameters; the colour is the rank of {label} among all trials.", _json(rank)
        ),
        OptunaPlot("Distribution", f"The share of trials whose {label} is at most so much.", _json(edf)),
    )


def plotly_library() -> str:
    """Return plotly.js, deflated, in base64."""
    from plotly.offline import get_plotlyjs

    return base64.b64encode(zlib.compress(get_plotlyjs().encode())).decode()


def without_markup(content: Any) -> Any:
    """Escape all HTML in plotly's description of a figure, except Optuna's and our own.

    Plotly renders some HTML in any text, so that the option `<a href="https://…">l1</a>` would be a link.
    """
    if isinstance(content, dict):
        return {key: without_markup(value) for key, value in content.items()}
    if isinstance(content, list):
        return [without_markup(value) for value in content]
    return OWN.sub(r"<\1>", html.escape(content, quote=False)) if isinstance(content, str) else content


def _finished(study: optuna.Study, objective: int) -> list[FrozenTrial]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if math.isfinite(trial.values[objective])]


def _importance(study: optuna.Study, objective: int) -> Importance:
    usable = _finished(study, objective)
    n = len(usable)
    if n < LEAST:
        return Importance(objective, {}, f"It takes at least {LEAST} finished trials to compare; there are {n}.")
    if len({trial.values[objective] for trial in usable}) == 1:
        return Importance(objective, {}, "All finished trials have the same score.")
    best = max(math.ceil(SHARE * n), min(BEST, n // 2))
    sign = -1 if study.directions[objective] == StudyDirection.MAXIMIZE else 1
    with warnings.catch_warnings():  # Optuna warns that a target's direction counts as minimised, as it does here
        warnings.simplefilter("ignore")
        evaluator = PedAnovaImportanceEvaluator(target_quantile=min(0.999, best / n))
        found = get_param_importances(study, evaluator=evaluator, target=lambda t: sign * t.values[objective])
    shares = dict(sorted(found.items(), key=lambda item: (-round(item[1], 9), item[0])))
    if not shares or not math.isfinite(sum(shares.values())) or not sum(shares.values()):
        return Importance(objective, {}, "No parameter tells the best trials from the others.")
    hint = "" if n >= SURE else " With so few trials this is a hint, not a finding."
    return Importance(
        objective, shares, f"Where the best {best} of {n} finished trials lie, against all of them.{hint}"
    )


def _pair(trials: Sequence[FrozenTrial], names: Sequence[str]) -> tuple[str, str] | None:
    """Find the two most important parameters that enough trials share and that vary; numbers before choices."""
    choices = {name for t in trials for name, d in t.distributions.items() if isinstance(d, CategoricalDistribution)}
    for pair in sorted(combinations(names, 2), key=lambda pair: len(choices & set(pair))):
        having = [trial.params for trial in trials if set(pair) <= set(trial.params)]
        if len(having) >= LEAST and all(len({str(params[name]) for params in having}) > 1 for name in pair):
            return pair
    return None


def _point(trial: FrozenTrial, pair: tuple[str, str]) -> tuple[str, str]:
    x, y = (str(trial.params[name]) for name in sorted(pair))  # the order of Optuna's axes
    return x, y


def _number(figure: "Figure", find: Callable[[tuple[str, str]], int | None]) -> None:
    """Give each point that is a trial its number, from its hover text or else from its place."""
    for trace in figure.data:
        if trace.type != "scatter":
            continue
        texts = trace.hovertext if isinstance(trace.hovertext, tuple | list) else [""] * len(trace.x)
        told = [TRIAL.match(str(text)) for text in texts]
        points = [(str(x), str(y)) for x, y in zip(trace.x, trace.y, strict=True)]
        trace.customdata = [int(m[1]) if m else find(point) for m, point in zip(told, points, strict=True)]


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
