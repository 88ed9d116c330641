"""From a study's name to its finished trials and their run folders: what `best_model` reads.

The study is the truth about which trial scored what; the run folders hold the weights. The two are matched by
their scores, never by number alone: the stock sweeper counts its jobs from 0 again when it resumes, so that folder 3
may belong to trial 11.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from catsweep.errors import DataError, ExportError
from catsweep.export.selection import Candidate, Objective
from catsweep.loaded import read
from catsweep.records import read_json
from steady import grammar
from steady.confirm import confirmation
from steady.links import inside
from steady.study import meta, select
from steady.study.storage import find_study as find_study_id
from steady.study.storage import open_storage

CONFIRM = ".confirm"  # behind the study's name: the study of its confirmation runs
BESIDES = (CONFIRM, ".leases")  # studies that a sweep of ours keeps beside its own, in the same database
TOLERANCE = 1e-9  # relative, and absolute near 0: both files keep all digits of a float


@dataclass(frozen=True)
class Trials:
    """The finished trials of a study.

    Attributes:
        study: the study's name, which is also the name of its folder under `sweeps/` and under `outputs/`.
        objectives: what it optimised.
        finished: the complete trials with finite values, by number.
        front: those of them that are Pareto-optimal (and feasible, where the study has constraints), best first by
            the first objective.
        params: the searched parameters of each finished trial, by trial number.
        overrides: the same, as overrides by key.
        ranked: numbers of the trials that a sweep would confirm, see `steady.study.select.candidates`.
        folders: by number, the run folders that the study knows by another name than the number.
        again: by number and seed, the folders of the finished runs that confirm a trial, in the study's.
    """

    study: str
    objectives: tuple[Objective, ...]
    finished: tuple[Candidate, ...]
    front: tuple[Candidate, ...]
    params: dict[int, dict[str, Any]]
    overrides: dict[int, dict[str, str]]
    ranked: tuple[int, ...]
    folders: dict[int, str] = field(default_factory=dict)
    again: dict[int, dict[int, str]] = field(default_factory=dict)


def read_trials(folder: Path, runs: Path) -> Trials:
    """Read the finished trials of a study.

    Args:
        folder: the study's, with `study.db` in it.
        runs: the folder that holds the study's run folders; read only for the names of the objectives, and only if
            the study does not know them.

    Returns:
        The trials; at least one of them is Pareto-optimal.

    Raises:
        StorageError: the database cannot be read.
        ExportError: no trial in it has finished.
    """
    study = open_study(folder)
    names = study.metric_names or _objective_names(runs, len(study.directions))
    objectives = tuple(
        Objective(name, direction == optuna.study.StudyDirection.MAXIMIZE)
        for name, direction in zip(names, study.directions, strict=True)
    )
    trials = study.get_trials(deepcopy=False)
    finished = {t.number: Candidate(t.number, tuple(t.values)) for t in trials if _is_finished(t)}
    front = [finished[t.number] for t in study.best_trials if t.number in finished] if finished else []
    if not front:
        states = Counter(t.state.name.lower() for t in trials)
        have = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no trial at all"
        raise ExportError(
            f"Study {folder.name!r} has no finished trial to choose from (it has {have}). "
            f"Run `make sweep` to the end, or look for the reason of a failure in {runs}/<trial>/."
        )
    return Trials(
        study=folder.name,
        objectives=objectives,
        finished=tuple(finished[number] for number in sorted(finished)),
        front=tuple(sorted(front, key=lambda c: (*c.losses(objectives), c.number))),
        params={t.number: dict(t.params) for t in trials if t.number in finished},
        overrides={t.number: _overrides(study, t) for t in trials if t.number in finished},
        ranked=tuple(select.candidates(study)),
        folders={t.number: meta.get(t, meta.FOLDER) for t in trials if meta.has(t, meta.FOLDER)},
        again=_again(study),
    )


def find_run(runs: Path, trial: Candidate, objectives: Sequence[Objective], known: str | None = None) -> Path:
    """The run folder whose recorded scores are the values of a trial.

    Args:
        runs: the folder that holds the study's run folders.
        trial: to look for.
        objectives: of the study.
        known: the trial's folder in that folder, if the study says so; else its number.

    Returns:
        The trial's own folder if the scores there are the trial's, else the first numbered one whose scores are.

    Raises:
        ExportError: no folder has these scores, or the study names one outside `runs`.
    """
    if known and not inside(runs, runs / known):
        raise ExportError(
            f"The study says that trial {trial.number} works in {known!r}, which is not in {runs}/, where the trials "
            f"of this study are. If they are elsewhere, name the folder that holds theirs: outputs=DIR."
        )
    for run in _run_folders(runs, first=known or str(trial.number)):
        if _has_scores(run, trial, objectives):
            return run
    wanted = ", ".join(f"{o.name}={v:.6g}" for o, v in zip(objectives, trial.values, strict=True))
    raise ExportError(
        f"No run folder in {runs}/ has the scores of trial {trial.number} ({wanted}) in its metrics.json. It was "
        f"removed, or overwritten when the sweep was started again. Choose another trial with select=NUMBER, or run "
        f"the sweep under a new name."
    )


def open_study(folder: Path) -> optuna.Study:
    """The study in a folder.

    Raises:
        StorageError: its database cannot be read.
        ExportError: it holds no study of that name.
    """
    database = folder / "study.db"
    storage = open_storage(f"sqlite:///{database}", make=False)
    every = optuna.get_all_study_names(storage)
    names = [name for name in every if not name.endswith(BESIDES)]
    name = names[0] if len(names) == 1 else folder.name
    if name not in every:
        raise ExportError(
            f"{database} holds the studies {', '.join(names) or '(none)'}, but none is called {folder.name!r}. "
            f"Run the sweep again, or give it another study name."
        )
    return optuna.load_study(study_name=name, storage=storage)


def _is_finished(trial: optuna.trial.FrozenTrial) -> bool:
    return trial.state == optuna.trial.TrialState.COMPLETE and all(math.isfinite(v) for v in trial.values)


def _overrides(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> dict[str, str]:
    space = (meta.get(study, meta.CONTRACT) or {}).get("space") or {}
    return grammar.as_overrides(trial.params, space, meta.has(study, meta.SPELLING))


def _again(study: optuna.Study) -> dict[int, dict[int, str]]:
    name = study.study_name + CONFIRM
    if find_study_id(study._storage, name) is None:
        return {}
    runs = optuna.load_study(study_name=name, storage=study._storage)
    return confirmation.folders(runs, lambda number: f"{CONFIRM[1:]}/{number}")


def _objective_names(runs: Path, count: int) -> list[str]:
    for run in _run_folders(runs):
        config = run / "config.yaml"
        if not config.is_file():
            continue
        objective = read(config).get("objective") or []
        names = [str(name) for name in (objective if isinstance(objective, list) else [objective])]
        if len(names) != count:
            raise ExportError(f"The study has {count} objectives, but `objective` in {config} names {names}.")
        return names
    raise ExportError(
        f"The study does not name its objectives, and there is no run folder in {runs}/ whose config.yaml does. "
        f"Run `make sweep` to its first finished trial."
    )


def _run_folders(runs: Path, first: str = "") -> Iterator[Path]:
    """The folder called `first`, then the numbered ones in numerical order."""
    if first:
        yield runs / first
    numbered = [path for path in runs.glob("*") if path.name.isdecimal() and path.is_dir()]
    yield from sorted((path for path in numbered if path.name != first), key=lambda path: int(path.name))


def _has_scores(run: Path, trial: Candidate, objectives: Sequence[Objective]) -> bool:
    try:
        scores = read_json(run / "metrics.json")["scores"]
        recorded = [float(scores[o.name]) for o in objectives]
    except (DataError, ValueError, KeyError, TypeError, OverflowError):
        return False  # still running, or failed before it was scored
    return all(
        math.isclose(score, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for score, value in zip(recorded, trial.values, strict=True)
    )
