"""Build a study's workspace and report in Weights & Biases, as code: `make wandb-dashboard`.

With a key both are saved, and a later call brings the same ones up to date. Without one, what would be saved is
written to `sweeps/<study>/wandb_workspace.json`, and nothing is contacted.
"""

import argparse
import json
import shlex
import unicodedata
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution

from catsweep import study_record
from catsweep.errors import CatsweepError, ConfigError, StudyError
from catsweep.metrics.scores import SCORES
from catsweep.runs import CONFIG, RunDir
from catsweep.study_record import StudyRecord
from catsweep.tracking.loggers import STEP, resolve_mode
from steady.atomic import write_json
from steady.options import SWEEPS
from steady.printing import fenced, readable, say
from steady.storage.location import open_study, study_folder
from steady.study import meta
from steady.study.trial_folders import is_of

SPECIFICATION = "wandb_workspace.json"
PROJECT = "catsweep"  # where runs go unless their configuration says otherwise


def main(words: list[str] | None = None) -> None:
    """Build the workspace and the report of a study; errors end the process with a message."""
    parser = argparse.ArgumentParser(description="A study's workspace and report in Weights & Biases.")
    parser.add_argument("study", nargs="?", help="its name; the one written last if it is not given")
    parser.add_argument("--entity", help="user or team; the one that its runs name, else the account's default")
    parser.add_argument("--storage", help="URL of the study's storage, if sweeps/<study>/ does not say")
    given = parser.parse_args(words)
    try:
        folder = study_folder(SWEEPS, given.study, given.storage)
        say(build(folder, _read(folder), given.entity))
    except CatsweepError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None


def _read(folder: Path) -> StudyRecord:
    study = open_study(folder)
    runs = Path(meta.get(study, meta.SWEEP_DIR, usual := Path("outputs") / folder.name))
    if runs.absolute() != usual.absolute() and not is_of(runs, study.study_name):
        raise StudyError(
            f"The study {study.study_name} says that its runs are in {runs}, but no sweep of that name has left its "
            f"note there. If they are, give the command of the sweep again with hydra.sweep.dir={runs}: it leaves one."
        )
    return study_record.read(study, runs)


def build(folder: Path, found: StudyRecord, entity: str | None = None) -> str:
    """Save the workspace and the report of a study in its folder, or write what they would be, and say what was done.

    The entity (a user or team) is that of the runs if None, else the account's default.

    Raises:
        ConfigError: wandb-workspaces is missing, or W&B refuses.
    """
    libraries()  # before anything is asked of the server
    project, named = _place(found)
    entity = entity or named
    kept = _kept(folder / SPECIFICATION)
    if resolve_mode("auto") != "online":
        write_json(folder / SPECIFICATION, specification(found, entity or "", project) | {"saved": kept})
        return (
            f"{folder / SPECIFICATION} holds the workspace and the report of {found.name}. Weights & Biases has no key "
            "here, or is switched offline. With one (`wandb login`, or WANDB_API_KEY), and online:\n"
            "  make wandb-sync                   uploads the runs that they show\n"
            f"  make wandb-dashboard STUDY={found.name}   saves both, and prints where they are"
        )
    import wandb

    try:
        entity = entity or str(wandb.Api().default_entity)
        space = workspace(found, entity, project)
        if kept:
            space._internal_name, space._internal_id = kept["name"], kept["id"]
        space.save()
        text = report(found, entity, project)
        text.id = kept.get("report", "")
        text.save()
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise ConfigError(
            f"Weights & Biases did not take the workspace of {found.name}: {error} "
            "Its runs must be there first (`make wandb-sync`), and the key must be of a user who may write there."
        ) from error
    saved = {"name": space._internal_name, "id": space._internal_id, "report": text.id}
    write_json(folder / SPECIFICATION, specification(found, "", project) | {"saved": saved})
    return f"workspace  {space.url}\nreport     {text.url}"


def specification(found: StudyRecord, entity: str, project: str) -> dict[str, Any]:
    """Workspace and report as W&B's server takes them, plain values. Contacts nobody."""
    # A report with an entity would ask the server for the project.
    both = {"workspace": workspace(found, entity, project), "report": report(found, "", project)}
    return {key: one._to_model().model_dump(mode="json", by_alias=True, exclude_none=True) for key, one in both.items()}


def workspace(found: StudyRecord, entity: str, project: str) -> Any:
    """Build the workspace: the study's runs at the left, five sections at the right."""
    spaces, _ = libraries()
    scores = [objective.name for objective in found.objectives]
    shown = [spaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections(found).items()]
    return spaces.Workspace(
        entity=entity, project=project, name=_title(found), sections=shown,
        settings=spaces.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=spaces.RunsetSettings(
            filters=runs_of(found),
            order=[spaces.Ordering(spaces.Summary(scores[0]), ascending=not found.objectives[0].maximise)],
            pinned_columns=["run:displayName", "run:jobType", "summary:outcome", *(f"summary:{n}" for n in scores)],
        ),
    )  # fmt: skip


def report(found: StudyRecord, entity: str, project: str) -> Any:
    """Build the report: the panels of the workspace, with text."""
    _, wr = libraries()
    runs = wr.Runset(entity=entity, project=project, name=found.name, filters=runs_of(found))
    counts = ", ".join(f"{len(found.named(role))} {role}" for role in dict.fromkeys(t.role for t in found.trials))
    blocks = [wr.P(f"{len(found.trials)} trials ({counts}). Objectives: {', '.join(found.labels)}.")]
    for name, panels in sections(found).items():
        blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    if found.command:
        blocks += [wr.H2("Reproduce"), wr.MarkdownBlock("\n".join(fenced(shlex.join(found.command))))]
    return wr.Report(
        project=project, entity=entity, title=_title(found)[:128], description="Made by make wandb-dashboard.",
        blocks=blocks, width="fluid",
    )  # fmt: skip


def _place(found: StudyRecord) -> tuple[str, str | None]:
    """Project and entity of the runs."""
    node = _logger(found)
    return str(node.get("project") or PROJECT), node.get("entity")


def _logger(found: StudyRecord) -> dict[str, Any]:
    """The logger of the runs, as the configuration of one says."""
    runs = (RunDir(trial.run) for trial in found.trials if trial.run and (trial.run / CONFIG).is_file())
    said = run.config().get("logger") if (run := next(runs, None)) else None
    return said if isinstance(said, dict) else {}


def _kept(path: Path) -> dict[str, str]:
    """Names and ids on the server of what was saved before."""
    found = None
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_text(encoding="utf-8"))["saved"]
    return found if isinstance(found, dict) and {"name", "id", "report"} <= found.keys() else {}


def libraries() -> tuple[Any, Any]:
    """Import `wandb_workspaces.workspaces` and `.reports.v2`; a `ConfigError` if they are not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it is written for Pydantic 1 and 2
            import wandb_workspaces.reports.v2 as reports
            import wandb_workspaces.workspaces as spaces
    except ImportError:
        raise ConfigError("wandb-workspaces is not installed: pip install 'catsweep[workspace]'.") from None
    return spaces, reports


def runs_of(found: StudyRecord) -> str:
    """W&B's filter of the runs of a study: of its trials, their confirmation, and its own."""
    # Not wandb-workspaces' own expressions, which forget to escape, and change = and < also within a text.
    group = str(_logger(found).get("group") or found.name)  # as `loggers.wandb_logger` names it
    name = "".join(c if c.isascii() and c.isalnum() else f"\\U{ord(c):08x}" for c in group)
    return f'Metric("Group") == "{name}"'


def sections(found: StudyRecord) -> dict[str, list[Any]]:
    """Panels by the name of their section."""
    _, wr = libraries()
    wide = wr.Layout(w=24, h=12)
    scores = [objective.name for objective in found.objectives]
    searched = [_axis(found, name) for name in found.distributions] + [
        wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(one.name), display_name=label, inverted=not one.maximise)
        for one, label in zip(found.objectives, found.labels, strict=True)
    ]
    best = wr.BarPlot(title=scores[0], metrics=[scores[0]])
    if len(scores) > 1:
        best = wr.ScatterPlot(title="Pareto", x=wr.SummaryMetric(scores[0]), y=wr.SummaryMetric(scores[1]))
    rungs = {f"{one.title} while training": one.key for one in SCORES.values() if one.at_rungs}
    return {
        "Objectives": [
            best,
            wr.ParallelCoordinatesPlot(title="Parameters and scores", columns=searched, layout=wr.Layout(w=16, h=8)),
            *(wr.ParameterImportancePlot(with_respect_to=name) for name in scores),
            # What the sweep's own run found, where W&B's importance is a random forest's.
            *(
                wr.CustomChart(
                    query={"summaryTable": {"tableKey": f"sweep/importance/{name}_table"}}, chart_name="wandb/bar/v0",
                    chart_fields={"label": "parameter", "value": "importance"},
                    chart_strings={"title": f"What {name} depends on (PED-ANOVA)"},
                )
                for name in scores
            ),
        ],
        "The sweep": [
            wr.MediaBrowser(title="Slots", media_keys=["sweep/timeline"], layout=wr.Layout(w=24, h=8)),
            *(wr.LinePlot(title=f"Best {name} so far", x="trials", y=[f"best/{name}"]) for name in scores),
            wr.WeavePanelSummaryTable(table_name="sweep/pareto", layout=wr.Layout(w=24, h=10)),
            wr.WeavePanelSummaryTable(table_name="sweep/trials", layout=wr.Layout(w=24, h=10)),
        ],
        "Samples": [  # the newest page of each run beside those of the others
            wr.MediaBrowser(title=n, media_keys=[n], mode="gallery", gallery_axis="run", num_columns=4, layout=wide)
            for n in ("samples", "reconstructions")
        ],
        "Training": [
            wr.LinePlot(title=title, x=STEP, y=[key], max_runs_to_show=100)
            for title, key in {**rungs, "Loss": "train/loss", "Epoch": "epoch"}.items()
        ],
        "Runs": [wr.RunComparer(diff_only=True, layout=wide)],
    }  # fmt: skip


def _axis(found: StudyRecord, parameter: str) -> Any:
    """Axis of a parameter. An option of a group is in the config as `choices.<group>`."""
    _, wr = libraries()
    distribution = found.distributions[parameter]
    option = isinstance(distribution, CategoricalDistribution) and "." not in parameter
    metric = wr.Config(f"choices.{parameter}" if option else parameter)
    log = getattr(distribution, "log", False) or None
    return wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=parameter, log=log)


def _title(found: StudyRecord) -> str:
    """The title without symbols, such as `+` or emojis, which W&B refuses in the name of a workspace."""
    return "catsweep " + "".join("_" if unicodedata.category(c).startswith("S") else c for c in found.name)


if __name__ == "__main__":
    main()
