"""Record a sweep as a run of its own in Weights & Biases, beside the runs of its trials.

A sweep that goes on later continues the same run: new trials are added to its history, its tables are written anew.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from catsweep import study_record
from catsweep.instantiation import instantiate
from catsweep.metrics.judge import BESIDE, RunScores, of_confirmation
from catsweep.runs import RunDir
from catsweep.study_record import Entry, StudyRecord, importances
from catsweep.templates import without_markup
from steady.confirm import confirmation
from steady.confirm.confirmation import Confirmation
from steady.study import meta, select

if TYPE_CHECKING:
    import wandb

    from catsweep.tracking.loggers import RunLogger

TARGET = "catsweep.tracking.loggers.wandb_logger"
RECORDED = "catsweep:recorded"  # attribute of the study: how many finished trials the history of its run has

Rows = list[list[Any]]


def record(study: optuna.Study, folder: Path, study_folder: Path, config: DictConfig) -> None:
    """Write the run of a sweep, if the node `logger` of its configuration is that of Weights & Biases.

    The folder is that of its runs; that of the study has what its confirmation found.
    """
    node = OmegaConf.select(config, "logger")
    if node is None or node.get("_target_") != TARGET:
        return
    from catsweep import devices  # imports torch, and each sweep looks this module up as it starts

    own = {"study": study.study_name, "trial": None, "job_type": "sweep", "name": None, "watch": None}
    devices.stand_alone()
    logger: RunLogger = instantiate(node, run_dir=folder, **own)
    found = study_record.read(study, folder)
    run = logger.experiment
    try:
        about = {
            "study": study.study_name,
            "sampler_seed": meta.get(study, meta.SWEEP_SEED),
            "objectives": {one.name: "maximize" if one.maximise else "minimize" for one in found.objectives},
            **{key: found.contract.get(key) for key in ("space", "facts")},
        }
        run.config.update(about, allow_val_change=True)
        finished = _write_history(run, study, [objective.name for objective in found.objectives])
        media, confirmed = _media(study, found), None
        with suppress(ValueError):  # another version's, or damaged: `make best-model` says so
            confirmed = confirmation.read(study_folder)
        if confirmed is not None:
            media["sweep/confirmation"] = _confirmed(confirmed, found)
        run.log(media, step=max(finished, run.starting_step))
        run.summary.update(_summary(study, found, confirmed))
    finally:
        run.finish()


def _write_history(run: "wandb.Run", study: optuna.Study, names: Sequence[str]) -> int:
    """Log a row per finished trial, in the order of their ends: values, and the best so far. Returns their number."""
    maximize = [direction == optuna.study.StudyDirection.MAXIMIZE for direction in study.directions]
    run.define_metric("trials")
    for name, up in zip(names, maximize, strict=True):
        run.define_metric(f"trial/{name}", step_metric="trials", summary="none")
        run.define_metric(f"best/{name}", step_metric="trials", summary="max" if up else "min")
    finished = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
    finished.sort(key=lambda t: (t.datetime_complete, t.number))
    known = int(study.user_attrs.get(RECORDED, 0))
    best: dict[str, float] = {}
    for count, trial in enumerate(finished, start=1):
        values = dict(zip(names, trial.values, strict=True))
        for (name, value), up in zip(values.items(), maximize, strict=True):
            best[name] = (max if up else min)(best.get(name, value), value)
        if count > known:
            row = {f"trial/{name}": value for name, value in values.items()}
            row |= {f"best/{name}": value for name, value in best.items()}
            run.log({"trials": count, "trial": trial.number, **row}, step=count)
    if not run.disabled:
        study.set_user_attr(RECORDED, len(finished))
    return len(finished)


def _media(study: optuna.Study, found: StudyRecord) -> dict[str, Any]:
    import wandb

    parameters = list(found.distributions)
    by_number = {trial.number: trial for trial in found.trials}
    ranked = [by_number[number] for number in found.ranked]
    front = [by_number[trial.number] for trial in select.best_trials(study)]
    scores = [objective.name for objective in found.objectives]
    columns: list[str | int] = ["trial", "state", *scores, *found.beside, "seconds", *found.amounts, *parameters]
    media: dict[str, Any] = {
        "sweep/trials": wandb.Table(columns, [_row(trial, found, parameters) for trial in ranked]),
        "sweep/pareto": wandb.Table(
            [*columns, "samples"], [[*_row(trial, found, parameters), _samples(trial)] for trial in front]
        ),
    }
    for one in importances(study):
        if one.shares:
            table = wandb.Table(["parameter", "importance"], [list(item) for item in one.shares.items()])
            title = f"What {scores[one.objective]} depends on (PED-ANOVA)"
            chart = wandb.plot.bar(table, "parameter", "importance", title=title)
            media[f"sweep/importance/{scores[one.objective]}"] = chart
    if front and (page := _samples(front[0])):
        media["samples"] = page
    if stays := _stays(found):
        media["sweep/slots"] = wandb.Table(["trial", "slot", "start", "end", "state"], stays)
        media["sweep/timeline"] = wandb.Plotly(timeline(stays))
    return media


def _row(trial: Entry, found: StudyRecord, parameters: Sequence[str]) -> list[Any]:
    own = found.opinion.own.get(trial.number, RunScores()).values
    values: list[float | None] = [None] * len(found.objectives) if trial.values is None else list(trial.values)
    values += [own.get(name) for name in found.beside]
    seconds = None if trial.seconds is None else round(trial.seconds, 1)
    used = [trial.usage.get(name) for name in found.amounts]
    return [
        trial.number,
        trial.state,
        *values,
        seconds,
        *used,
        *(_plain(trial.params.get(name)) for name in parameters),
    ]


def _plain(value: Any) -> float | str | None:
    """Format a parameter as text if it is drawn from a list: a column of a table has one type."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if value is None else float(value) if isinstance(value, int | float) else str(value)


def _samples(trial: Entry) -> "wandb.Image | None":
    import wandb

    page = RunDir(trial.run).grid("samples") if trial.run else None
    return wandb.Image(str(page)) if page else None


def _stays(found: StudyRecord) -> Rows:
    """Rows of trial, slot, start and end in seconds since the first start, and how the trial ended."""
    stays = [(trial, attempt) for trial in found.trials for attempt in trial.attempts if attempt.slot is not None]
    begin = min((attempt.start for _, attempt in stays), default=0.0)
    rows: Rows = [
        [trial.number, one.slot, round(one.start - begin, 1), round(one.end - begin, 1), trial.state]
        for trial, one in stays
    ]
    return sorted(rows, key=lambda row: (row[2], row[1]))


def timeline(stays: Rows) -> Any:
    """Plot with Plotly a line for each slot, with a bar for each attempt of a trial."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for state in dict.fromkeys(row[4] for row in stays):
        rows = [row for row in stays if row[4] == state]
        figure.add_bar(
            name=state, orientation="h", hovertemplate="trial %{text}, from %{base} s for %{x} s",
            y=[without_markup(f"slot {row[1]}") for row in rows], text=[str(row[0]) for row in rows],
            base=[row[2] for row in rows], x=[row[3] - row[2] for row in rows],
        )  # fmt: skip
    figure.update_layout(barmode="overlay", xaxis_title="seconds", title="Slots")
    figure.update_yaxes(categoryorder="category descending")
    return figure


def _confirmed(confirmed: Confirmation, found: StudyRecord) -> "wandb.Table":
    """Table of the runs under other seeds."""
    import wandb

    names = [name for name in BESIDE if name in of_confirmation(confirmed, found.opinion.again)]
    again = {one.trial: found.opinion.again.get(one.trial, {}) for one in confirmed.candidates}
    roles = {**dict.fromkeys(confirmed.tied, "not significantly different"), confirmed.winner.trial: "winner"}
    rows = [
        [one.trial, roles.get(one.trial, ""), seed, *values,
         *(again[one.trial].get(seed, RunScores()).values.get(name) for name in names)]
        for one in confirmed.candidates for seed, values in one.values.items()
    ]  # fmt: skip
    return wandb.Table(["trial", "role", "seed", *confirmed.objectives, *names], rows)


def _summary(study: optuna.Study, found: StudyRecord, confirmed: Confirmation | None) -> Mapping[str, Any]:
    states = [trial.state for trial in found.trials]
    summary: dict[str, Any] = {f"count/{state}": states.count(state) for state in dict.fromkeys(states)}
    if front := select.best_trials(study):
        summary |= {"objective": front[0].values[0], "winner": front[0].number, "pareto": [t.number for t in front]}
    if confirmed is not None:
        summary |= {"winner": confirmed.winner.trial, "objective": confirmed.compared.mean()}
    if "winner" in summary:
        summary |= found.opinion.own.get(summary["winner"], RunScores()).beside
    if found.opinion.judged and front:
        summary["judge"] = found.opinion.to_dict(summary["winner"])
    return summary | {"reused": sum(meta.has(trial, meta.DUPLICATE_OF) for trial in study.get_trials(deepcopy=False))}
