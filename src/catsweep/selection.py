"""Read the best trial of a study, why it won and how sure one can be: for export, report and trackers alike.

Which trial won is decided by `steady.study.select` in the search, and by `steady.confirm.confirmation` under other
seeds. The run folders hold the weights. A trial and its folder are matched by their scores, never by number alone: the
stock sweeper counts its jobs from 0 again when it resumes, so that folder 3 may belong to trial 11.
"""

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os.path import lexists
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from catsweep.errors import DataError, ExportError, StudyError
from catsweep.metrics.judge import StudyScores, run_scores
from catsweep.runs import CONFIG, JUDGEMENT, RunDir
from steady import grammar, printing
from steady.confirm import confirmation
from steady.confirm.confirmation import Confirmation, ConfirmedTrial
from steady.safe_paths import inside
from steady.storage.location import open_study
from steady.study import constraints, meta
from steady.study.results import paused_words, state
from steady.study.select import Objective, ScoredTrial, TrialChoice, candidates, choose, equal_values, pareto_set
from steady.study.untrusted import SWEPT, is_plain

KEY, JUDGE = "hydra.sweeper.confirm", "judge"
TOP, SEEDS = 3, 3  # trials and seeds of a confirmation that is advised


@dataclass(frozen=True)
class FinishedTrials:
    """The finished trials of a study."""

    study: str  # its name, also that of its folder under `sweeps/` and under `outputs/`
    objectives: tuple[Objective, ...]
    finished: tuple[ScoredTrial, ...]  # complete trials with finite values, by number
    front: tuple[ScoredTrial, ...]  # those that are Pareto-optimal and feasible, best first by the first objective
    params: dict[int, dict[str, Any]]  # searched parameters by trial
    overrides: dict[int, dict[str, str]]  # the same, as overrides by key
    ranked: tuple[int, ...]  # trials that a sweep would confirm, see `steady.study.select.candidates`
    folders: dict[int, str] = field(default_factory=dict)  # run folders whose name is not the trial's number, by trial
    again: dict[int, dict[int, str]] = field(default_factory=dict)  # folders of confirming runs, by trial and seed


def read_trials(folder: Path, runs: Path) -> FinishedTrials:
    """Read the finished trials of the study in a folder, of which at least one is Pareto-optimal.

    The run folders in `runs` name the objectives if the study does not.

    Raises:
        StorageError: the database cannot be read.
        ExportError: no trial in it has finished.
    """
    study = open_study(folder)
    names = study.metric_names or _objective_names(runs, len(study.directions))
    objectives = Objective.of(study, names)
    trials = study.get_trials(deepcopy=False)
    done = {t.number: t for t in trials if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))}
    bounds = constraints.of(study)
    finished = {
        number: ScoredTrial(number, tuple(t.values), tuple(constraints.violated(bounds, t)))
        for number, t in sorted(done.items())
    }
    front = [finished[t.number] for t in pareto_set(study) if t.number in finished]
    if not front and not paused_words(trials) and (near := constraints.nearest(study)):
        raise ExportError(
            f"No trial of study {folder.name!r} satisfies {' and '.join(map(str, bounds))}. "
            f"The nearest is trial {near.number}: {'; '.join(constraints.violated(bounds, near))}. Run more trials, or "
            "begin a study with other constraints."
        )
    if not front:
        states = Counter(state(t) for t in trials)
        have = ", ".join(f"{count} {name}" for name, count in sorted(states.items())) or "no trial at all"
        raise ExportError(
            f"Study {folder.name!r} has no finished trial to choose from (it has {have}). "
            "Give the sweep's line again, with more hydra.sweeper.timeout if that has ended it; or look for the reason "
            f"of a failure in {runs}/<trial>/."
        )
    space = (meta.get(study, meta.CONTRACT) or {}).get("space") or {}
    exact = meta.has(study, meta.SPELLING)
    return FinishedTrials(
        study=folder.name,
        objectives=objectives,
        finished=tuple(finished.values()),
        front=tuple(front),
        params={number: dict(t.params) for number, t in done.items()},
        overrides={number: grammar.as_overrides(t.params, space, exact) for number, t in done.items()},
        ranked=tuple(candidates(study)),
        folders={t.number: meta.get(t, meta.FOLDER) for t in trials if meta.has(t, meta.FOLDER)},
        again=confirmation.folders(study),
    )


def find_run(runs: Path, trial: ScoredTrial, objectives: Sequence[Objective], known: str | None = None) -> Path:
    """Find the run folder in `runs` whose scores are a trial's: its own, else the first numbered one.

    Its own is `known`, if the study says so, else its number.

    Raises:
        ExportError: no folder has these scores, or the study names one outside `runs`.
    """
    if known and not inside(runs, runs / known):
        raise ExportError(
            f"The study says that trial {trial.number} works in {known!r}, which is not in {runs}/, where the trials "
            f"of this study are. If they are elsewhere, name the folder that holds theirs: outputs=DIR."
        )
    own = known or str(trial.number)
    for run in (runs / own, *(path for path in _numbered(runs) if path.name != own)):
        try:
            metrics = RunDir(run).metrics()
            if equal_values([metrics.score(o.name) for o in objectives], trial.values):
                return run
        except DataError:  # still running, or failed before it was scored
            continue
    wanted = ", ".join(f"{o.name}={v:.6g}" for o, v in zip(objectives, trial.values, strict=True))
    raise ExportError(
        f"No run folder in {runs}/ has the scores of trial {trial.number} ({wanted}) in its metrics.json. It was "
        f"removed, or overwritten when the sweep was started again, or is on the machine where the trial ran: then "
        f"copy it here, or name its folder, outputs=DIR. Choose another trial with select=NUMBER, or run the sweep "
        f"under a new name."
    )


def _objective_names(runs: Path, count: int) -> list[str]:
    config = next((run / CONFIG for run in _numbered(runs) if (run / CONFIG).is_file()), None)
    if config is None:
        raise ExportError(
            f"The study does not name its objectives, and there is no run folder in {runs}/ whose config.yaml does. "
            f"Run `make sweep` to its first finished trial."
        )
    objective = RunDir(config.parent).config().get("objective") or []
    names = [str(name) for name in (objective if isinstance(objective, list) else [objective])]
    if len(names) != count:
        raise ExportError(f"The study has {count} objectives, but `objective` in {config} names {names}.")
    return names


def _numbered(runs: Path) -> list[Path]:
    """Run folders in numerical order."""
    found = [path for path in runs.glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


@dataclass(frozen=True)
class Decision:
    """The best trial of a study."""

    choice: TrialChoice
    seeds: "Seeds"  # the trial under other seeds, whatever it was chosen by
    remark: str  # why the study's confirmation is ignored; may be empty


def decide(select: str | int | None, trials: FinishedTrials, folder: Path, runs: Path) -> Decision:
    """Choose the best trial of a study: the confirmed winner if the rule asks for the best by the first objective.

    `select` is a rule, see `steady.study.select.choose`, or `judge`; None for the first objective. `folder` is the
    study's, perhaps with a `confirmation.json`; the run folders in `runs` know the command of the sweep.

    Raises:
        ExportError: no finished trial has the number that is asked for, or none was judged.
        ConfigError: `select` means nothing for this study.
    """
    rule = trials.objectives[0].name if select is None else select
    try:
        is_judge = str(rule).strip() == JUDGE
        choice = (
            by_judge(trials, runs)
            if is_judge
            else choose(rule, trials.front, trials.finished, trials.objectives, others=[JUDGE])
        )
    except StudyError as error:
        raise ExportError(str(error)) from error
    reason = ""
    try:
        confirmed = confirmation.read(folder)
        if confirmed:
            reason = confirmed.outdated([o.direction for o in trials.objectives], trials.finished, trials.ranked)
    except ValueError as error:
        reason = str(error)
    if reason:
        confirmed = None
        reason = f"Its confirmation is ignored: {reason}. Start the sweep again with hydra.sweeper.confirm to renew it."
    followed = confirmed is not None and choice.objective == 0
    if confirmed and followed:
        choice = confirmed.choice(trials.finished)
    chosen = choice.candidate
    try:
        run = find_run(runs, chosen, trials.objectives, trials.folders.get(chosen.number))
    except ExportError:
        run = runs  # where no command is kept either
    line = confirming_line(run, chosen.number, trials.ranked)
    return Decision(choice, Seeds(chosen.number, confirmed, followed, line), reason)


def read_study_scores(trials: FinishedTrials, runs: Path, also: Iterable[int] = ()) -> StudyScores:
    """Read the scores in the run folders of a study; `also` are trials that are shown beside the Pareto set."""
    shown = {candidate.number for candidate in trials.front} | set(also)
    own = {}
    for candidate in trials.finished:
        folder = trials.folders.get(candidate.number)
        # Of thousands of trials, a few were judged: the others are not looked for.
        if candidate.number in shown or (runs / (folder or str(candidate.number))).is_dir():
            try:
                own[candidate.number] = run_scores(find_run(runs, candidate, trials.objectives, folder), runs)
            except ExportError:
                continue
    again = {
        trial: {seed: run_scores(runs / name, runs) for seed, name in seeds.items()}
        for trial, seeds in trials.again.items()
    }
    return StudyScores.of(own, again)


def by_judge(trials: FinishedTrials, runs: Path) -> TrialChoice:
    """Choose the feasible trial that another network likes best, of those that it has judged; of equals the first.

    The judge then is no independent witness any more of what it has chosen. An ExportError if it has judged none.
    """
    feasible = {trial.number: trial for trial in trials.finished if not trial.violated}
    judged = [number for number in read_study_scores(trials, runs).by_judge() if number in feasible]
    if not judged:
        raise ExportError(
            f"select={JUDGE}: no finished trial of {trials.study} was judged. `make judge` fetches the network; the "
            "line of the sweep, given again, then judges its best."
        )
    of = f" of the {len(judged)} that were judged" if len(judged) > 1 else ", the only one that was judged"
    others = [n for n in feasible if n not in judged and lexists(runs / trials.folders.get(n, str(n)) / JUDGEMENT)]
    left = f" (left out is what it says of {printing.trials(others)}: damaged, or of other scores)" if others else ""
    return TrialChoice(feasible[judged[0]], f"the one that the judge likes best{of}{left}")


@dataclass(frozen=True)
class Seeds:
    """A trial under other seeds."""

    trial: int
    confirmation: Confirmation | None  # of its study, as the study is now
    followed: bool  # whether the trial was chosen by it, which then has said all of the first objective
    line: str  # command that confirms the trial; empty if it is no candidate

    @property
    def own(self) -> ConfirmedTrial | None:
        """Values of the trial under other seeds, if it was trained again."""
        compared = self.confirmation.candidates if self.confirmation else ()
        return next((one for one in compared if one.trial == self.trial), None)

    def not_different_from(self, objective: int) -> list[int]:
        """List the confirmed trials whose means of an objective do not differ significantly from this one's."""
        if self.own is None or self.confirmation is None:
            return []
        return self.confirmation.not_different_from(self.own, objective)

    def sentence(self) -> str:
        """Say what is known, and how to find out what is not; empty if the choice has said it all."""
        if self.confirmation is None:
            return f"No trial was trained again under other seeds, so how much it varies is not known.{self._remedy()}"
        if self.own is None:
            again = printing.trials(one.trial for one in self.confirmation.candidates)
            return (
                f"It is none of those that were trained again under other seeds ({again}), so how much it varies "
                f"is not known.{self._remedy()}"
            )
        said = list(enumerate(self.confirmation.objectives))[int(self.followed) :]
        if not said:
            return ""
        means = ", ".join(f"{name} {self.own.words(i)}" for i, name in said)
        runs = "the same seeds" if self.followed else self.confirmation.runs(self.own)
        return f"Under {runs}: {means}; {self._comparison(said)}."

    def to_dict(self) -> dict[str, Any]:
        """Convert to what `choice.json` holds."""
        found: dict[str, Any] = {"known": self.own is not None}
        if self.own is not None and self.confirmation is not None:
            names = self.confirmation.objectives
            found |= {
                "seeds": sorted(self.own.values),
                "mean": {name: self.own.mean(i) for i, name in enumerate(names)},
                "spread": {name: self.own.spread(i) for i, name in enumerate(names)},
                "not_told_from": {name: self.not_different_from(i) for i, name in enumerate(names)},
                "winner": self.confirmation.winner.trial,
            }
        elif self.line:
            found["confirm_with"] = self.line
        return found | {"sentence": self.sentence()}

    def _comparison(self, objectives: Sequence[tuple[int, str]]) -> str:
        """Half a sentence on the other trials; objectives of which the same is to be said are taken together."""
        assert self.confirmation is not None
        if len(self.confirmation.candidates) == 1:
            return self.confirmation.comparison()
        alike: dict[tuple[int, ...], list[str]] = {}
        for i, name in objectives:
            alike.setdefault(tuple(self.not_different_from(i)), []).append(name)
        parts = []
        for tied, names in alike.items():
            others = printing.trials(tied) if tied else "every other"
            parts.append(f"is {'not ' * bool(tied)}significantly different from {others} in {' and '.join(names)}")
        return f"it {', '.join(parts)}"

    def _remedy(self) -> str:
        return f" To find out: {self.line}" if self.line else ""


def confirming_line(run: Path, trial: int, ranked: Sequence[int]) -> str:
    """Compose the command that trains a trial again under other seeds, with those that rank before it.

    In words where the command of the sweep is not known from the folder of its `run`, or starts no sweep. Empty if the
    trial is not `ranked`, as the sweep confirms them: infeasible, or a repeat.
    """
    if trial not in ranked:
        return ""
    asked = f"{KEY}={{top: {max(TOP, ranked.index(trial) + 1)}, seeds: {SEEDS}}}"
    try:
        command = RunDir(run).provenance().get("command")
    except DataError:
        command = None
    typed: list[str] = command if isinstance(command, list) and is_plain(command) else []
    kept = [word for word in typed if not word.lstrip("+").startswith(f"{KEY}=")]
    if not set(SWEPT) & set(kept):
        return f"the line that started the sweep, with '{asked}'"
    return shlex.join(["python", *kept, asked])
