"""`make wandb-dashboard`: a study's workspace and report in Weights & Biases, as code.

With a key both are saved, and a later call brings the same ones up to date. Without one, what would be saved is
written to `sweeps/<study>/wandb_workspace.json`, and nothing is contacted.
"""

import argparse
import json
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import optuna

from catsweep import study_record as study_record
from catsweep.errors import CatsweepError, ConfigError, StudyError
from catsweep.loaded import read as read_config
from catsweep.runs import CONFIG
from catsweep.study_record import Record
from catsweep.tracking.panels import X, libraries, runs_of, sections
from catsweep.tracking.run_logger import resolve_mode
from steady.atomic import write_json
from steady.options import SWEEPS
from steady.printing import fenced, readable, say
from steady.study.storage import SIDES, open_storage, study_folder
from steady.study.trial_folders import is_of

SPECIFICATION = "wandb_workspace.json"
PROJECT = "catsweep"  # where runs go unless their configuration says otherwise


def main(words: list[str] | None = None) -> None:
    """Build the workspace and the report of a study.

    Args:
        words: of the command line.

    Raises:
        SystemExit: there is no such study, a package is missing, or the key does not work; with a message.
    """
    parser = argparse.ArgumentParser(description="A study's workspace and report in Weights & Biases.")
    parser.add_argument("study", nargs="?", help="its name; the one written last if it is not given")
    parser.add_argument("--entity", help="user or team; the one that its runs name, else the account's default")
    given = parser.parse_args(words)
    try:
        folder = study_folder(SWEEPS, given.study)
        say(build(folder, _read(folder), given.entity))
    except CatsweepError as error:
        raise SystemExit(readable(f"{type(error).__name__}: {error}")) from None


def _read(folder: Path) -> Record:
    storage = open_storage(f"sqlite:///{folder / 'study.db'}", make=False)
    names = [name for name in optuna.get_all_study_names(storage) if not name.endswith(SIDES)]
    study = optuna.load_study(study_name=names[0] if len(names) == 1 else folder.name, storage=storage)
    runs = Path(study.user_attrs.get("sweep_dir", usual := Path("outputs") / folder.name))
    if runs.absolute() != usual.absolute() and not is_of(runs, study.study_name):
        raise StudyError(
            f"The study {study.study_name} says that its runs are in {runs}, but no sweep of that name has left its "
            f"note there. If they are, give the command of the sweep again with hydra.sweep.dir={runs}: it leaves one."
        )
    return study_record.read(study, runs)


def build(folder: Path, found: Record, entity: str | None = None) -> str:
    """Save the workspace and the report, or write down what they would be.

    Args:
        folder: of the study.
        found: what there is to show.
        entity: user or team; None for that of the runs, else the account's default.

    Returns:
        What was done, in words.

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


def specification(found: Record, entity: str, project: str) -> dict[str, Any]:
    """Both as W&B's server takes them, plain values. Contacts nobody.

    Args:
        found: the study.
        entity: user or team, may be empty.
        project: of W&B.
    """
    view = workspace(found, entity, project)._to_model()
    text = report(found, "", project)._to_model()  # with an entity it would ask the server for the project
    return {
        "workspace": view.model_dump(mode="json", by_alias=True, exclude_none=True),
        "report": text.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def workspace(found: Record, entity: str, project: str) -> Any:
    """The workspace: the study's runs at the left, five sections at the right."""
    spaces, _ = libraries()
    scores = [objective.name for objective in found.objectives]
    shown = [
        spaces.Section(name=name, panels=panels, is_open=True) for name, panels in sections(found).items() if panels
    ]
    return spaces.Workspace(
        entity=entity,
        project=project,
        name=_title(found),
        sections=shown,
        settings=spaces.WorkspaceSettings(x_axis=X, max_runs=100),
        runset_settings=spaces.RunsetSettings(
            filters=runs_of(found),
            order=[spaces.Ordering(spaces.Summary(scores[0]), ascending=not found.objectives[0].maximise)],
            pinned_columns=[
                "run:displayName",
                "run:jobType",
                "summary:outcome",
                *(f"summary:{name}" for name in scores),
            ],
        ),
    )


def report(found: Record, entity: str, project: str) -> Any:
    """The report: the same panels, with words."""
    _, wr = libraries()
    runs = wr.Runset(entity=entity, project=project, name=found.name, filters=runs_of(found))
    counts = ", ".join(f"{len(found.named(role))} {role}" for role in dict.fromkeys(t.role for t in found.trials))
    blocks = [wr.P(f"{len(found.trials)} trials ({counts}). Objectives: {', '.join(found.labels)}.")]
    for name, panels in sections(found).items():
        if panels:
            blocks += [wr.H2(name), wr.PanelGrid(runsets=[runs], panels=panels)]
    if found.command:
        blocks += [wr.H2("Reproduce"), wr.MarkdownBlock("\n".join(fenced(shlex.join(found.command))))]
    return wr.Report(
        project=project, entity=entity, title=_title(found)[:128], description="Made by make wandb-dashboard.",
        blocks=blocks, width="fluid",
    )  # fmt: skip


def _title(found: Record) -> str:
    """W&B takes no symbols in the name of a workspace: no `+`, no emojis."""
    return "catsweep " + "".join("_" if unicodedata.category(c).startswith("S") else c for c in found.name)


def _place(found: Record) -> tuple[str, str | None]:
    """Project and entity of the runs, as the configuration of one says."""
    for trial in found.trials:
        path = trial.run / CONFIG if trial.run else None
        if path is not None and path.is_file():
            said = read_config(path).get("logger")
            node = said if isinstance(said, dict) else {}
            return str(node.get("project") or PROJECT), node.get("entity")
    return PROJECT, None


def _kept(path: Path) -> dict[str, str]:
    """What was saved before: names and ids of the server."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["saved"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) and {"name", "id", "report"} <= found.keys() else {}


if __name__ == "__main__":
    main()
