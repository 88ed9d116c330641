"""A study as the report tells of it: plain values of its trials, its attempts and what it was begun with.

First step of `catsweep.report.writing`. Reads the study and, where they are still there, the run folders; everything
after it (charts, page, Markdown) knows neither Optuna's storage nor this machine's folders.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from catsweep.errors import DataError, ExportError
from catsweep.metrics.judge import BESIDE, CARDS, RunScores, run_scores
from catsweep.names import inside
from catsweep.opinion import Opinion
from catsweep.printing import readable
from catsweep.records import NUMBER, TEXT, misshapen, read_json
from catsweep.runs import CONFIG, PROVENANCE, SCORES
from catsweep.search import attributes, grammar, results
from catsweep.search.storage import find_study
from catsweep.selection import Candidate, Objective, find_run
from catsweep.studies import CONFIRM

ROLES = {  # what a chart draws alike
    TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip

SHAPES: dict[str, Any] = {  # what is read of the documents of a run
    str(SCORES): {"cards": CARDS},
    str(PROVENANCE): {"command": [TEXT], "git": {"commit": TEXT}, "started": TEXT},
    "progress.json": {"updated": NUMBER},
}


@dataclass(frozen=True)
class Attempt:
    """One stay of a trial in a slot.

    Attributes:
        slot: which; None if nobody knows.
        start: Unix time.
        end: Unix time; of one that goes on, the last sign of life.
        open: whether it goes on.
    """

    slot: int | None
    start: float
    end: float
    open: bool = False


@dataclass(frozen=True)
class Entry:
    """One trial, or one confirmation run.

    Attributes:
        number: of the trial in its study.
        state: in a word, as `catsweep.search.results.state` has it, with `finished` for complete ones.
        role: `finished`, `pruned`, `failed` (also for infeasible ones), `running` or `waiting`.
        values: one per objective, if it finished; may be infinite.
        params: what was drawn for it.
        attempts: its stays in slots, in their order.
        seconds: over all attempts, None if unknown.
        message: how it ended, in a line; empty if nothing was said.
        traceback: of its failure; empty if there is none.
        run: its folder, None if it is not there.
        confirms: of a confirmation run, the trial it repeats.
        seed: of a confirmation run.
    """

    number: int
    state: str
    role: str
    values: tuple[float, ...] | None
    params: Mapping[str, Any]
    attempts: tuple[Attempt, ...]
    seconds: float | None
    message: str = ""
    traceback: str = ""
    run: Path | None = None
    confirms: int | None = None
    seed: int | None = None

    @property
    def scored(self) -> bool:
        """Whether it has values that a chart can show."""
        return self.values is not None and all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Record:
    """A study.

    Attributes:
        name: of the study.
        objectives: what it optimises.
        trials: by number.
        ranked: numbers of all trials, best first, as the leaderboard has them.
        confirmations: the runs under other seeds, by number.
        distributions: of each parameter, in the order of the space.
        contract: what the study was begun with; empty for a study of another tool.
        cards: metric card of each score, plain values.
        total: trials that were asked for, None if unknown.
        command: the line that started it, None if no run folder keeps it.
        commit: of the code, None if unknown.
        pruning: what the study prunes by, if it does.
        exact: whether strings among the parameters are told from other values.
        opinion: what run folders say beside the objectives, above all what the judge says.
    """

    name: str
    objectives: tuple[Objective, ...]
    trials: tuple[Entry, ...]
    ranked: tuple[int, ...]
    confirmations: tuple[Entry, ...] = ()
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    contract: Mapping[str, Any] = field(default_factory=dict)
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    total: int | None = None
    command: tuple[str, ...] | None = None
    commit: str | None = None
    pruning: Mapping[str, Any] | None = None
    exact: bool = False
    opinion: Opinion = field(default_factory=lambda: Opinion({}, {}))

    @property
    def beside(self) -> list[str]:
        """Names of the scores that any trial has beside the objectives, in the order of their columns."""
        known = {name for one in self.opinion.own.values() for name in one.beside}
        return [name for name in BESIDE if name in known - {objective.name for objective in self.objectives}]

    @property
    def labels(self) -> list[str]:
        """Names of the objectives, each with its extractor: `val/fid (efficientnet_lite0)`."""
        return [self.label(objective.name) for objective in self.objectives]

    def label(self, score: str) -> str:
        """A score's name with the extractor it was measured with."""
        extractor = str(self.cards.get(score, {}).get("extractor", "pixels"))
        return readable(score if extractor == "pixels" else f"{score} ({extractor})")

    def named(self, role: str) -> list[Entry]:
        """The trials of a role."""
        return [trial for trial in self.trials if trial.role == role]


def read(study: optuna.Study, runs: Path, objectives: tuple[Objective, ...] | None = None) -> Record:
    """Read a study.

    Args:
        study: of any tool; may be running, empty, or without a finished trial.
        runs: folder of its run folders; need not be there.
        objectives: of the study, if somebody knows better than it.

    Returns:
        What there is to tell.
    """
    objectives = objectives or _objectives(study)
    trials = tuple(_entry(trial, _run_folder(trial, runs, objectives)) for trial in study.get_trials(deepcopy=False))
    contract = study.user_attrs.get("contract") or {}
    documents = [_json(trial.run / SCORES) for trial in trials if trial.run]
    origins = [_json(trial.run / PROVENANCE) for trial in trials if trial.run]
    kept = [cards for document in documents if (cards := document.get("cards"))]
    confirmations = _confirmations(study, runs)
    opinion = _opinion(trials, confirmations, runs)
    return Record(
        name=study.study_name,
        objectives=objectives,
        trials=trials,
        ranked=tuple(trial.number for trial in results.ranked(study)),
        confirmations=confirmations,
        distributions=_distributions(study, contract.get("space") or {}),
        contract=contract,
        cards={
            **((contract.get("facts") or {}).get("cards") or {}),
            **(kept[0] if kept else {}),
            **({name: card.to_dict() for name, card in opinion.judged[0].cards.items()} if opinion.judged else {}),
        },
        total=_total(study, trials),
        command=next((tuple(map(str, words)) for o in origins if (words := o.get("command"))), None),
        commit=next((str(c) for o in origins if (c := (o.get("git") or {}).get("commit"))), None),
        pruning=study.user_attrs.get("pruning"),
        exact=grammar.SPELLED in study.user_attrs,
        opinion=opinion,
    )


def _opinion(trials: Sequence[Entry], confirmations: Sequence[Entry], runs: Path) -> Opinion:
    again: dict[int, dict[int, RunScores]] = {}
    for run in confirmations:
        if run.role == "finished" and isinstance(run.confirms, int) and isinstance(run.seed, int):
            again.setdefault(run.confirms, {})[run.seed] = run_scores(run.run, runs)
    return Opinion.of(
        {trial.number: run_scores(trial.run, runs) for trial in trials if trial.role == "finished"}, again
    )


def _objectives(study: optuna.Study) -> tuple[Objective, ...]:
    names = study.metric_names or study.user_attrs.get("objective")
    if not names or len(names) != len(study.directions):
        n = len(study.directions)
        names = ["value"] if n == 1 else [f"value {i}" for i in range(n)]
    return tuple(
        Objective(str(name), direction == optuna.study.StudyDirection.MAXIMIZE)
        for name, direction in zip(names, study.directions, strict=True)
    )


def _entry(trial: FrozenTrial, run: Path | None) -> Entry:
    noted = trial.user_attrs
    state, role = results.state(trial), ROLES[trial.state]
    if role == "pruned" and state != "pruned":  # infeasible: out of memory, diverged
        role = "failed"
    return Entry(
        number=trial.number,
        state=results.WORDS.get(state, state),
        role=role,
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        params=dict(trial.params),
        attempts=_attempts(trial, run),
        seconds=results.seconds(trial),
        message=readable(str(noted.get(attributes.MESSAGE, ""))).strip(),
        traceback=readable(str(noted.get(attributes.TRACEBACK, ""))).strip(),
        run=run,
        confirms=noted.get(attributes.CONFIRMS),
        seed=noted.get(attributes.SEED),
    )


def _attempts(trial: FrozenTrial, run: Path | None) -> tuple[Attempt, ...]:
    told = trial.user_attrs.get(attributes.RUNS, [])
    ended = tuple(Attempt(one.get("slot"), float(one["start"]), float(one["end"])) for one in told)
    if trial.state == TrialState.RUNNING and run is not None:
        return (*ended, *_going_on(run))
    if not ended and trial.datetime_start and trial.datetime_complete:  # another sweeper's
        return (Attempt(None, trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()),)
    return ended


def _going_on(run: Path) -> list[Attempt]:
    """What a run's own files say of the attempt that goes on: since when, and until when it was heard of."""
    try:
        start = datetime.fromisoformat(str(_json(run / PROVENANCE)["started"])).timestamp()
    except (KeyError, ValueError):
        return []  # drawn ahead, and not begun
    heard = _json(run / "progress.json").get("updated")
    return [Attempt(None, start, max(start, float(heard or 0.0)), open=True)]


def _confirmations(study: optuna.Study, runs: Path) -> tuple[Entry, ...]:
    name = study.study_name + CONFIRM
    if find_study(study._storage, name) is None:
        return ()
    found = optuna.load_study(study_name=name, storage=study._storage).get_trials(deepcopy=False)
    return tuple(_entry(run, _existing(_own_folder(run, runs, f"{CONFIRM[1:]}/{run.number}"), runs)) for run in found)


def _run_folder(trial: FrozenTrial, runs: Path, objectives: Sequence[Objective]) -> Path | None:
    if trial.state == TrialState.COMPLETE:
        try:
            known = trial.user_attrs.get(attributes.FOLDER)
            return find_run(runs, Candidate(trial.number, tuple(trial.values)), objectives, known)
        except ExportError:
            return None
    return _existing(_own_folder(trial, runs, str(trial.number)), runs)


def _own_folder(trial: FrozenTrial, runs: Path, usual: str) -> Path:
    return runs / str(trial.user_attrs.get(attributes.FOLDER, usual))


def _existing(folder: Path, runs: Path) -> Path | None:
    """A run folder, if it is there; one elsewhere, which the study of a stranger may name, is not looked at."""
    return folder if folder.is_dir() and inside(runs, folder) else None


def _distributions(study: optuna.Study, space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        found.update(trial.distributions)
    order = list(space)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def _total(study: optuna.Study, trials: Sequence[Entry]) -> int | None:
    """How many trials were asked for: on the command line, which each trial keeps, or by the configuration."""
    told = [trial.user_attrs.get("trials") for trial in reversed(study.get_trials(deepcopy=False))]
    configured = (_configured(trial.run) for trial in reversed(trials) if trial.run)
    return next((int(str(n)) for n in (*told, *configured) if str(n).isdecimal()), None)


def _configured(run: Path) -> str:
    try:
        found = re.search(r"^trials: (\d+)$", (run / CONFIG).read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, ValueError):
        return ""
    return found[1] if found else ""


def _json(path: Path) -> dict[str, Any]:
    """A document of a run; empty if it is missing or damaged."""
    try:
        found = read_json(path)
    except DataError:
        return {}
    return {} if misshapen(found, SHAPES[path.name]) else found
