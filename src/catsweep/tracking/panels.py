"""The panels of a study's workspace and report in Weights & Biases, by section.

What `catsweep.tracking.loggers` records of each run and `catsweep.tracking.sweep_run` of the whole is shown here;
`catsweep.tracking.workspace` puts it on a page. `wandb-workspaces` has the panels, and an optional extra brings it.
"""

import warnings
from typing import Any

from optuna.distributions import CategoricalDistribution

from catsweep.errors import ConfigError
from catsweep.metrics.scores import SCORES
from catsweep.study_record import Record

X = "trainer/global_step"


def libraries() -> tuple[Any, Any]:
    """`wandb_workspaces.workspaces` and `.reports.v2`.

    Raises:
        ConfigError: not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is written for Pydantic 1 and 2
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as spaces
    except ImportError:
        raise ConfigError("wandb-workspaces is not installed: pip install 'catsweep[workspace]'.") from None
    return spaces, reports


def runs_of(found: Record) -> str:
    """The filter of the runs of a study: of its trials, their confirmation, and its own."""
    # Not wandb-workspaces' own expressions, which forget to escape, and change = and < also within a text.
    name = "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in found.name)
    return f'Metric("Group") == "{name}"'


def sections(found: Record) -> dict[str, list[Any]]:
    """Panels by the name of their section."""
    _, wr = libraries()
    scores = [objective.name for objective in found.objectives]
    searched = [
        *(_column(found, name) for name in found.distributions),
        *(_score(found, i) for i in range(len(scores))),
    ]
    pareto = (
        [wr.ScatterPlot(title="Pareto", x=wr.SummaryMetric(scores[0]), y=wr.SummaryMetric(scores[1]))]
        if len(scores) > 1
        else [wr.BarPlot(title=scores[0], metrics=[scores[0]])]
    )
    rungs = {f"{one.title} while training": [one.key] for one in SCORES.values() if one.at_rungs}
    return {
        "Objectives": [
            *pareto,
            wr.ParallelCoordinatesPlot(title="Parameters and scores", columns=searched, layout=wr.Layout(w=16, h=8)),
            *(wr.ParameterImportancePlot(with_respect_to=name) for name in scores),
            *(_ped_anova(name) for name in scores),
        ],
        "The sweep": [
            wr.MediaBrowser(title="Slots", media_keys=["sweep/timeline"], layout=wr.Layout(w=24, h=8)),
            *(wr.LinePlot(title=f"Best {name} so far", x="trials", y=[f"best/{name}"]) for name in scores),
            wr.WeavePanelSummaryTable(table_name="sweep/pareto", layout=wr.Layout(w=24, h=10)),
            wr.WeavePanelSummaryTable(table_name="sweep/trials", layout=wr.Layout(w=24, h=10)),
        ],
        "Samples": [_browser(kind) for kind in ("samples", "reconstructions")],
        "Training": [
            wr.LinePlot(title=title, x=X, y=list(keys), max_runs_to_show=100)
            for title, keys in {**rungs, "Loss": ["train/loss"], "Epoch": ["epoch"]}.items()
        ],
        "Runs": [wr.RunComparer(diff_only=True, layout=wr.Layout(w=24, h=12))],
    }


def _browser(kind: str) -> Any:
    """The newest page of each run beside those of the others."""
    _, wr = libraries()
    return wr.MediaBrowser(
        title=kind, media_keys=[kind], mode="gallery", gallery_axis="run", num_columns=4, layout=wr.Layout(w=24, h=12)
    )


def _ped_anova(name: str) -> Any:
    """What the sweep's own run found, where W&B's importance is a random forest's."""
    _, wr = libraries()
    return wr.CustomChart(
        query={"summaryTable": {"tableKey": f"sweep/importance/{name}_table"}},
        chart_name="wandb/bar/v0",
        chart_fields={"label": "parameter", "value": "importance"},
        chart_strings={"title": f"What {name} depends on (PED-ANOVA)"},
    )


def _column(found: Record, parameter: str) -> Any:
    """A parameter's axis. An option of a group is in the config as `choices.<group>`."""
    _, wr = libraries()
    distribution = found.distributions[parameter]
    option = isinstance(distribution, CategoricalDistribution) and "." not in parameter
    return wr.ParallelCoordinatesPlotColumn(
        metric=wr.Config(f"choices.{parameter}" if option else parameter),
        display_name=parameter,
        log=bool(getattr(distribution, "log", False)) or None,
    )


def _score(found: Record, i: int) -> Any:
    _, wr = libraries()
    objective = found.objectives[i]
    return wr.ParallelCoordinatesPlotColumn(
        metric=wr.SummaryMetric(objective.name), display_name=found.labels[i], inverted=not objective.maximise
    )
