"""Read an Optuna study and its run folders into plain values: trials, attempts, failures, importances.

Missing or damaged files are no error: run folders are removed while their study stays.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from catsweep.errors import DataError, ExportError
from catsweep.metrics.judge import BESIDE, CARDS, RunScores, StudyScores, run_scores
from catsweep.records import NUMBER, TEXT, misshapen, read_json
from catsweep.selection import find_run
from steady.confirm import confirmation
from steady.printing import readable
from steady.safe_paths import inside
from steady.study import meta, results, select
from steady.study.select import Objective, ScoredTrial

ROLES = {  # what a chart draws alike
    TrialState.COMPLETE: "finished", TrialState.RUNNING: "running", TrialState.WAITING: "waiting",
    TrialState.PRUNED: "pruned", TrialState.FAIL: "failed",
}  # fmt: skip

LEAST = 4  # finished trials; importances of fewer mean nothing
BEST, SHARE = 5, 0.1  # the best are a tenth of the trials, but at least so many where there are (Optuna's advice)
SURE = 50  # finished trials from which on a tenth of them are enough

SHAPES: dict[str, Any] = {  # what is read of the documents of a run
    "metrics.json": {"cards": CARDS},
    "provenance.json": {"command": [TEXT], "git": {"commit": TEXT}, "started": TEXT},
    "progress.json": {"updated": NUMBER},
}


@dataclass(frozen=True)
class Attempt:
    """An attempt of a trial in a slot."""

    slot: int | None  # number of the slot; None if unknown
    start: float  # Unix time
    end: float  # Unix time; of an open attempt, that of the last progress
    open: bool = False  # whether the attempt is still running


@dataclass(frozen=True)
class Entry:
    """A trial, or a confirmation run."""

    number: int  # of the trial in its study
    state: str  # as in `steady.study.results.state`, with `finished` for complete trials
    role: str  # `finished`, `pruned`, `paused`, `failed` (also for infeasible ones), `running` or `waiting`
    values: tuple[float, ...] | None  # one per objective, if the trial finished; may be infinite
    params: Mapping[str, Any]  # sampled parameters
    attempts: tuple[Attempt, ...]  # in their order
    seconds: float | None  # over all attempts, None if unknown
    message: str = ""  # error or reason of the end; may be empty
    traceback: str = ""  # may be empty
    run: Path | None = None  # run folder, None if it does not exist
    confirms: int | None = None  # of a confirmation run, the number of the repeated trial
    seed: int | None = None  # of a confirmation run
    usage: Mapping[str, float] = field(default_factory=dict)  # what its training has used, see `results.usage`

    @property
    def scored(self) -> bool:
        """Whether all values exist and are finite."""
        return self.values is not None and all(map(math.isfinite, self.values))


@dataclass(frozen=True)
class Failure:
    """Trials that ended in the same way."""

    kind: str  # outcome, such as `out of memory`
    message: str  # first line of the error
    trials: tuple[str, ...]  # numbers, in words
    traceback: str  # the first that exists; may be empty


@dataclass(frozen=True)
class Importance:
    """Importances of all parameters for one objective."""

    objective: int  # its index among the study's
    shares: dict[str, float]  # by parameter, 0 to 1, their sum is 1; the largest first. Empty if not computed
    note: str  # basis of the computation, or why there is none


@dataclass(frozen=True)
class StudyRecord:
    """A study as plain values."""

    name: str  # of the study
    objectives: tuple[Objective, ...]  # names and directions
    trials: tuple[Entry, ...]  # by number
    ranked: tuple[int, ...]  # numbers of all trials in the order of the leaderboard
    confirmations: tuple[Entry, ...] = ()  # runs under other seeds, by number
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)  # by parameter, in the space's order
    contract: Mapping[str, Any] = field(default_factory=dict)  # what the study was started with; empty if not by us
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # metric card of each score, plain values
    total: int | None = None  # number of trials requested, None if unknown
    out_of_time: bool = False  # whether the time of its search is over, and not the number of trials
    command: tuple[str, ...] | None = None  # command line of the sweep, None if no run folder keeps it
    commit: str | None = None  # of the code, None if unknown
    pruning: Mapping[str, Any] | None = None  # pruner and rung metrics, None without pruning
    promotion: Mapping[str, Any] | None = None  # rungs, their metrics and eta, None without promotion
    uneven: str = ""  # that trials had unequal shares of the processor, in words; empty if they had not
    exact: bool = False  # whether parameters distinguish strings from other values
    opinion: StudyScores = field(default_factory=lambda: StudyScores({}, {}))  # scores beside the objectives

    @property
    def beside(self) -> list[str]:
        """Names of the scores that any trial has beside the objectives, in the order of their columns."""
        known = {name for one in self.opinion.own.values() for name in one.beside}
        return [name for name in BESIDE if name in known - {objective.name for objective in self.objectives}]

    @property
    def amounts(self) -> list[str]:
        """Names of the amounts used, beside the time, that the table has columns of."""
        return [name for name in results.SHOWN if any(name in trial.usage for trial in self.trials)]

    @property
    def labels(self) -> list[str]:
        """Names of the objectives, each with its extractor: `val/fid (efficientnet_lite0)`."""
        return [self.label(objective.name) for objective in self.objectives]

    def label(self, score: str) -> str:
        """Name a score with its extractor."""
        extractor = str(self.cards.get(score, {}).get("extractor", "pixels"))
        return readable(score if extractor == "pixels" else f"{score} ({extractor})")

    def named(self, role: str) -> list[Entry]:
        """Select the trials of a role."""
        return [trial for trial in self.trials if trial.role == role]


def read(study: optuna.Study, runs: Path, objectives: tuple[Objective, ...] | None = None) -> StudyRecord:
    """Read a study of any tool, which may be running or empty, and its run folders in `runs`, which need not exist.

    `objectives` are those of the study, where known better than from the study itself.
    """
    objectives = objectives or _objectives(study)
    trials = tuple(_entry(trial, _run_folder(trial, runs, objectives)) for trial in study.get_trials(deepcopy=False))
    contract = meta.get(study, meta.CONTRACT) or {}
    documents = [_json(trial.run / "metrics.json") for trial in trials if trial.run]
    origins = [_json(trial.run / "provenance.json") for trial in trials if trial.run]
    kept = [cards for document in documents if (cards := document.get("cards"))]
    confirmations = _confirmations(study, runs)
    own = {trial.number: run_scores(trial.run, runs) for trial in trials if trial.role == "finished"}
    again: dict[int, dict[int, RunScores]] = {}
    for run in confirmations:
        if run.role == "finished" and isinstance(run.confirms, int) and isinstance(run.seed, int):
            again.setdefault(run.confirms, {})[run.seed] = run_scores(run.run, runs)
    opinion = StudyScores.of(own, again)
    return StudyRecord(
        name=study.study_name,
        objectives=objectives,
        trials=trials,
        ranked=tuple(trial.number for trial in select.ranked(study)),
        confirmations=confirmations,
        distributions=_distributions(study, contract.get("space") or {}),
        contract=contract,
        cards={
            **((contract.get("facts") or {}).get("cards") or {}),
            **(kept[0] if kept else {}),
            **({name: card.to_dict() for name, card in opinion.judged[0].cards.items()} if opinion.judged else {}),
        },
        total=_total(study, trials),
        out_of_time=meta.get(study, meta.OUT_OF_TIME) == len(trials),
        command=next((tuple(map(str, words)) for o in origins if (words := o.get("command"))), None),
        commit=next((str(c) for o in origins if (c := (o.get("git") or {}).get("commit"))), None),
        pruning=meta.get(study, meta.PRUNING),
        promotion=meta.get(study, meta.PROMOTION),
        uneven=results.uneven(study),
        exact=meta.has(study, meta.SPELLING),
        opinion=opinion,
    )


def finished(study: optuna.Study, objective: int) -> list[FrozenTrial]:
    """Return the finished trials whose value of an objective is finite."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in trials if math.isfinite(trial.values[objective])]


def importances(study: optuna.Study) -> list[Importance]:
    """Compute the importances of the parameters for each objective of a study.

    PED-ANOVA (Watanabe et al. 2023, arXiv 2304.10255) compares the distribution of the best trials with that of all.
    """
    return [_importance(study, objective) for objective in range(len(study.directions))]


def failures(record: StudyRecord) -> list[Failure]:
    """Group failed trials and confirmation runs by outcome and first line of the message, the most frequent first."""
    found: dict[tuple[str, str], list[Entry]] = {}
    for entry in (*record.trials, *record.confirmations):
        if entry.role == "failed":
            found.setdefault((entry.state, first_line(entry.message) or "no message"), []).append(entry)
    return [
        Failure(
            kind,
            message,
            tuple(str(e.number) if e.confirms is None else f"{e.confirms} under seed {e.seed}" for e in failed),
            next((e.traceback for e in failed if e.traceback), ""),
        )
        for (kind, message), failed in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def first_line(text: str) -> str:
    """Return the first line of a text that may be empty."""
    return next(iter(text.splitlines()), "")


def _objectives(study: optuna.Study) -> tuple[Objective, ...]:
    names = study.metric_names or meta.get(study, meta.OBJECTIVE) or []
    return Objective.of(study, select.objective_names(study, names if len(names) == len(study.directions) else ()))


def _entry(trial: FrozenTrial, run: Path | None) -> Entry:
    state, role = results.state(trial), ROLES[trial.state]
    if role == "pruned" and state != "pruned":  # infeasible: out of memory, diverged
        role = "failed"
    if meta.paused_at(trial) is not None:
        role = "paused"
    return Entry(
        number=trial.number,
        state=results.WORDS.get(state, state),
        role=role,
        values=tuple(trial.values) if trial.state == TrialState.COMPLETE else None,
        params=dict(trial.params),
        attempts=_attempts(trial, run),
        seconds=results.seconds(trial),
        usage=results.usage(trial),
        message=readable(str(meta.get(trial, meta.MESSAGE, ""))).strip(),
        traceback=readable(str(meta.get(trial, meta.TRACEBACK, ""))).strip(),
        run=run,
        confirms=meta.get(trial, meta.CONFIRMS),
        seed=meta.get(trial, meta.SEED),
    )


def _attempts(trial: FrozenTrial, run: Path | None) -> tuple[Attempt, ...]:
    told = meta.get(trial, meta.RUNS, [])
    ended = tuple(Attempt(one.get("slot"), float(one["start"]), float(one["end"])) for one in told)
    if trial.state == TrialState.RUNNING and run is not None:
        # A trial that waits in a queue to go on has in its folder what the attempt before it wrote, in whole seconds.
        return (*ended, *(one for one in _open_attempt(run) if not ended or one.start + 1 > ended[-1].end))
    if not ended and trial.datetime_start and trial.datetime_complete:  # another sweeper's
        return (Attempt(None, trial.datetime_start.timestamp(), trial.datetime_complete.timestamp()),)
    return ended


def _open_attempt(run: Path) -> list[Attempt]:
    """Read start and last progress of a running attempt from its run folder."""
    try:
        start = datetime.fromisoformat(str(_json(run / "provenance.json").get("started"))).timestamp()
    except ValueError:
        return []  # proposed ahead, not started
    updated = _json(run / "progress.json").get("updated")
    return [Attempt(None, start, max(start, float(updated or 0.0)), open=True)]


def _confirmations(study: optuna.Study, runs: Path) -> tuple[Entry, ...]:
    return tuple(
        _entry(run, _own_folder(run, runs, confirmation.RUN_FOLDER.format(run.number)))
        for run in confirmation.runs_of(study)
        if confirmation.is_of_now(run, study)
    )


def _run_folder(trial: FrozenTrial, runs: Path, objectives: Sequence[Objective]) -> Path | None:
    if trial.state == TrialState.COMPLETE:
        with suppress(ExportError):
            known = meta.get(trial, meta.FOLDER)
            return find_run(runs, ScoredTrial(trial.number, tuple(trial.values)), objectives, known)
        return None
    return _own_folder(trial, runs, str(trial.number))


def _own_folder(trial: FrozenTrial, runs: Path, usual: str) -> Path | None:
    """Return a trial's folder if it exists within `runs`: the study of a stranger may name any other."""
    folder = runs / str(meta.get(trial, meta.FOLDER, usual))
    return folder if folder.is_dir() and inside(runs, folder) else None


def _distributions(study: optuna.Study, space: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    found: dict[str, BaseDistribution] = {}
    for trial in study.get_trials(deepcopy=False):
        for name, new in trial.distributions.items():
            found[name] = new if found.get(name, new) == new else _both(found[name], new)
    return {name: found[name] for name in [*space, *found] if name in found}


def _both(old: BaseDistribution, new: BaseDistribution) -> BaseDistribution:
    """Unite what a parameter was drawn from before a sweep changed that, and since; the new one if they differ in kind.

    >>> _both(FloatDistribution(0, 1), FloatDistribution(0.5, 2))
    FloatDistribution(high=2.0, log=False, low=0.0, step=None)
    """
    if isinstance(old, CategoricalDistribution) and isinstance(new, CategoricalDistribution):
        known = [(type(one), one) for one in new.choices]  # 1 is not True
        return CategoricalDistribution([*new.choices, *(one for one in old.choices if (type(one), one) not in known)])
    if isinstance(old, FloatDistribution) and isinstance(new, FloatDistribution) and old.log == new.log:
        return FloatDistribution(min(old.low, new.low), max(old.high, new.high), new.log)
    if isinstance(old, IntDistribution) and isinstance(new, IntDistribution) and old.log == new.log:
        return IntDistribution(min(old.low, new.low), max(old.high, new.high), new.log)
    return new


def _total(study: optuna.Study, trials: Sequence[Entry]) -> int | None:
    """Find the number of requested trials: from the command line, which each trial keeps, or the configuration."""
    told = [trial.user_attrs.get("trials") for trial in reversed(study.get_trials(deepcopy=False))]
    if known := [int(str(n)) for n in told if str(n).isdecimal()]:
        return known[0]
    for run in (trial.run for trial in reversed(trials) if trial.run):
        with suppress(OSError, ValueError):
            text = (run / "config.yaml").read_text(encoding="utf-8")
            if found := re.search(r"^trials: (\d+)$", text, re.MULTILINE):
                return int(found[1])
    return None


def _json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run; empty if it is missing or damaged."""
    with suppress(DataError):
        found = read_json(path)
        return {} if misshapen(found, SHAPES[path.name]) else found
    return {}


def _importance(study: optuna.Study, objective: int) -> Importance:
    usable = finished(study, objective)
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
    note = f"Where the best {best} of {n} finished trials lie, against all of them.{hint}"
    return Importance(objective, shares, note)
