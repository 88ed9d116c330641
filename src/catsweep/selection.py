"""Select the best trial of a study, and say why and how sure one can be: for export, report and trackers alike.

`read_trials` reads a study, `choose` takes a point of its Pareto set by a rule of one word (an objective, `knee`, or a
number), and `decide` prefers the winner that the sweep has confirmed under other seeds (`steady.confirm.confirmation`)
where the rule asks for the best by the first objective. `Seeds` says how much the winner varies from seed to seed.

The study is the truth about which trial scored what; the run folders hold the weights. The two are matched by their
scores, never by number alone: the stock sweeper counts its jobs from 0 again when it resumes, so that folder 3 may
belong to trial 11.
"""

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from catsweep.errors import ConfigError, DataError, ExportError
from catsweep.runs import CONFIG, RunDir
from steady import grammar
from steady.confirm import confirmation
from steady.confirm.confirmation import Candidate as Compared
from steady.confirm.confirmation import Confirmation, confidence_level, significantly_different
from steady.confirm.confirmation_stage import CONFIRMATION
from steady.safe_paths import inside
from steady.study import meta, select
from steady.study.storage import find_study, open_study
from steady.study.untrusted import SWEPT, is_plain

TOLERANCE = 1e-9  # relative, and absolute near 0: both files keep all digits of a float
KEY = "hydra.sweeper.confirm"
TOP, SEEDS = 3, 3  # trials and seeds of a confirmation that is advised


@dataclass(frozen=True)
class Objective:
    """An objective of a study.

    Attributes:
        name: as in the run's config and `metrics.json`, for example `val/fid`.
        maximise: whether higher is better.
    """

    name: str
    maximise: bool

    def loss(self, value: float) -> float:
        """Turn the sign of a value so that lower is better."""
        return -value if self.maximise else value


@dataclass(frozen=True)
class Candidate:
    """A finished trial.

    Attributes:
        number: the trial's number in its study.
        values: one finite number per objective, in the order of the objectives.
    """

    number: int
    values: tuple[float, ...]

    def losses(self, objectives: Sequence[Objective]) -> tuple[float, ...]:
        """Turn the signs of the values so that lower is better in each."""
        return tuple(o.loss(v) for o, v in zip(objectives, self.values, strict=True))


@dataclass(frozen=True)
class Choice:
    """A candidate, and why it was taken (half a sentence for people)."""

    candidate: Candidate
    reason: str


def choose(
    select: str | int, front: Sequence[Candidate], finished: Sequence[Candidate], objectives: Sequence[Objective]
) -> Choice:
    """Choose a candidate by a rule, whatever the order in which the candidates come.

    Args:
        select: one of

            - an objective, by its full name, its last part (`fid` for `val/fid`), or a piece that occurs in one
              name only (`ssim` for `val/ssim_gap`): the point of the Pareto set that is best in it. Equal values
              are decided by the other objectives in their order, then by the lower number;
            - `knee`: see `knee`;
            - the number of a finished trial, Pareto-optimal or not: the user knows why.
        front: the Pareto set; at least one candidate.
        finished: every candidate that may be asked for by number.
        objectives: of the study.

    Returns:
        The chosen candidate with the reason.

    Raises:
        ExportError: no finished candidate has that number.
        ConfigError: `select` is none of the above, or fits several objectives.
    """
    rule = str(select).strip()
    if rule.isdecimal():
        chosen = _by_number(int(rule), finished)
        remark = "" if chosen in front else ", although it is not Pareto-optimal"
        return Choice(chosen, f"asked for by its number{remark}")
    if rule == "knee":
        return Choice(knee(front, objectives), "the knee of the Pareto set")
    axis = objective_called(rule, objectives)
    chosen = min(front, key=lambda c: (c.losses(objectives)[axis], *c.losses(objectives), c.number))
    return Choice(chosen, f"the {'highest' if objectives[axis].maximise else 'lowest'} {objectives[axis].name}")


def objective_called(word: str, objectives: Sequence[Objective]) -> int:
    """Find the index of an objective.

    Args:
        word: its full name, the last part of it, or a piece that occurs in no other name.
        objectives: of the study.

    Raises:
        ConfigError: it fits none, or several.
    """
    names = [o.name for o in objectives]
    exact = [i for i, name in enumerate(names) if word in (name, name.rpartition("/")[2])]
    fitting = exact or [i for i, name in enumerate(names) if word and word in name]
    if len(fitting) != 1:
        problem = "fits several objectives" if fitting else "is no objective of this study"
        raise ConfigError(
            f"select={word} {problem}. Choose an objective ({', '.join(names)}), 'knee', or the number of a trial."
        )
    return fitting[0]


def knee(front: Sequence[Candidate], objectives: Sequence[Objective]) -> Candidate:
    """Find the point of a Pareto set beyond which a little more of one objective costs much of another.

    Each objective is rescaled over the Pareto set, best to 0 and worst to 1. The extremes of two objectives are then
    (0, 1) and (1, 0), and the knee is the point farthest from the line through them towards the ideal (0, 0) (Das 1999,
    "On characterizing the 'knee' of the Pareto curve"): the smallest sum of coordinates, which also serves one
    objective, or more than two. Where no point lies on that side, the extremes tie.

    Args:
        front: the Pareto set; at least one candidate.
        objectives: of the study.

    Returns:
        The knee. Equal distances are decided by the objectives in their order, then by the lower number.
    """
    axes = list(zip(*(c.losses(objectives) for c in front), strict=True))

    def distance_to_ideal(candidate: Candidate) -> float:
        scaled = (
            (loss - min(axis)) / (max(axis) - min(axis)) if max(axis) > min(axis) else 0.0
            for loss, axis in zip(candidate.losses(objectives), axes, strict=True)
        )
        # Rounded, so that points on one line tie in spite of the last bit of the division.
        return round(math.fsum(scaled), 12)

    return min(front, key=lambda c: (distance_to_ideal(c), *c.losses(objectives), c.number))


def _by_number(number: int, finished: Sequence[Candidate]) -> Candidate:
    if found := next((candidate for candidate in finished if candidate.number == number), None):
        return found
    numbers = ", ".join(str(n) for n in sorted(c.number for c in finished))
    raise ExportError(f"select={number}: the study has no finished trial of that number. Finished are: {numbers}.")


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
    done = {t.number: t for t in trials if t.state == TrialState.COMPLETE and all(map(math.isfinite, t.values))}
    finished = {number: Candidate(number, tuple(t.values)) for number, t in sorted(done.items())}
    front = [finished[t.number] for t in study.best_trials if t.number in finished] if finished else []
    if not front:
        states = Counter(t.state.name.lower() for t in trials)
        have = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no trial at all"
        raise ExportError(
            f"Study {folder.name!r} has no finished trial to choose from (it has {have}). "
            f"Run `make sweep` to the end, or look for the reason of a failure in {runs}/<trial>/."
        )
    space = (meta.get(study, meta.CONTRACT) or {}).get("space") or {}
    exact = meta.has(study, meta.SPELLING)
    return Trials(
        study=folder.name,
        objectives=objectives,
        finished=tuple(finished.values()),
        front=tuple(sorted(front, key=lambda c: (*c.losses(objectives), c.number))),
        params={number: dict(t.params) for number, t in done.items()},
        overrides={number: grammar.as_overrides(t.params, space, exact) for number, t in done.items()},
        ranked=tuple(select.candidates(study)),
        folders={t.number: meta.get(t, meta.FOLDER) for t in trials if meta.has(t, meta.FOLDER)},
        again=_again(study),
    )


def find_run(runs: Path, trial: Candidate, objectives: Sequence[Objective], known: str | None = None) -> Path:
    """Find the run folder whose recorded scores are the values of a trial.

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
    own = known or str(trial.number)
    for run in (runs / own, *(path for path in _numbered(runs) if path.name != own)):
        try:
            metrics = RunDir(run).metrics()
            if _equal([metrics.score(o.name) for o in objectives], trial.values):
                return run
        except DataError:  # still running, or failed before it was scored
            continue
    wanted = ", ".join(f"{o.name}={v:.6g}" for o, v in zip(objectives, trial.values, strict=True))
    raise ExportError(
        f"No run folder in {runs}/ has the scores of trial {trial.number} ({wanted}) in its metrics.json. It was "
        f"removed, or overwritten when the sweep was started again. Choose another trial with select=NUMBER, or run "
        f"the sweep under a new name."
    )


def _again(study: optuna.Study) -> dict[int, dict[int, str]]:
    name = study.study_name + CONFIRMATION
    if find_study(study._storage, name) is None:
        return {}
    runs = optuna.load_study(study_name=name, storage=study._storage)
    return confirmation.folders(runs, lambda number: f"{CONFIRMATION[1:]}/{number}")


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
    """The best trial of a study.

    Attributes:
        choice: the trial, and why.
        seeds: the trial under other seeds, with the study's confirmation, whatever the choice was made by.
        remark: why the study's confirmation is ignored; may be empty.
    """

    choice: Choice
    seeds: "Seeds"
    remark: str


def decide(select: str | int | None, trials: Trials, folder: Path, runs: Path) -> Decision:
    """Choose the best trial of a study: the confirmed winner if the rule asks for the best by the first objective.

    Args:
        select: see `choose`; None for the first objective.
        trials: of the study.
        folder: the study's, perhaps with a `confirmation.json`.
        runs: folder of its run folders, which know the command of the sweep.

    Raises:
        ExportError: no finished trial has the number that is asked for.
        ConfigError: `select` means nothing for this study.
    """
    rule = trials.objectives[0].name if select is None else str(select).strip()
    choice = choose(rule, trials.front, trials.finished, trials.objectives)
    reason = ""
    try:
        confirmed = confirmation.read(folder)
        reason = _outdated(confirmed, trials) if confirmed else ""
    except ValueError as error:
        reason = str(error)
    if reason:
        confirmed = None
        reason = f"Its confirmation is ignored: {reason}. Start the sweep again with hydra.sweeper.confirm to renew it."
    by_first = not rule.isdecimal() and rule != "knee" and objective_called(rule, trials.objectives) == 0
    if confirmed and by_first:
        choice = _confirmed(confirmed, trials)
    chosen = choice.candidate
    try:
        run = find_run(runs, chosen, trials.objectives, trials.folders.get(chosen.number))
    except ExportError:
        run = runs  # where no command is kept either
    line = confirming_line(run, chosen.number, trials.ranked)
    return Decision(choice, Seeds(chosen.number, confirmed, confirmed is not None and by_first, line), reason)


def _outdated(found: Confirmation, trials: Trials) -> str:
    """Why a confirmation says nothing about the study as it is now; empty if it does."""
    directions = tuple("maximize" if o.maximise else "minimize" for o in trials.objectives)
    if found.directions != directions:
        return "the study has other objectives"
    finished = {candidate.number: candidate.values for candidate in trials.finished}
    if changed := [c.trial for c in found.candidates if not _equal(c.searched, finished.get(c.trial, ()))]:
        return f"the study has other values for {_trials(changed)}"
    compared = [candidate.trial for candidate in found.candidates]
    last = max((i for i, number in enumerate(trials.ranked) if number in compared), default=-1)
    if better := [number for number in trials.ranked[: last + 1] if number not in found.considered]:
        return f"{_trials(better)} came later, and {'are' if len(better) > 1 else 'is'} better than some it compares"
    return "" if set(compared) <= set(trials.ranked) else "it compares trials that are no candidates any more"


def _confirmed(found: Confirmation, trials: Trials) -> Choice:
    """Choose the winner under other seeds."""
    first, winner = trials.objectives[0], found.winner
    [candidate] = [candidate for candidate in trials.finished if candidate.number == winner.trial]
    seeds = ", ".join(map(str, winner.values))
    return Choice(
        candidate,
        f"the {'highest' if first.maximise else 'lowest'} mean {first.name} under other seeds, {winner.words()} over "
        f"{found.runs(winner)} ({seeds}), {winner.searched[0]:.5g} in the search; {found.comparison()}",
    )


def _equal(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(
        math.isclose(x, y, rel_tol=TOLERANCE, abs_tol=TOLERANCE) for x, y in zip(a, b, strict=True)
    )


@dataclass(frozen=True)
class Seeds:
    """A trial under other seeds.

    Attributes:
        trial: its number.
        confirmation: of its study, as the study is now; None without one.
        followed: whether the choice was made by it, which then has said what there is to say of the first objective.
        line: the command that confirms the trial; empty if it is no candidate.
    """

    trial: int
    confirmation: Confirmation | None
    followed: bool
    line: str

    @property
    def own(self) -> Compared | None:
        """Values of the trial under other seeds, if it was trained again."""
        compared = self.confirmation.candidates if self.confirmation else ()
        return next((one for one in compared if one.trial == self.trial), None)

    def not_different_from(self, objective: int) -> list[int]:
        """List the confirmed trials whose means over the seeds do not differ significantly from this one's.

        Args:
            objective: its index.
        """
        own = self.own
        if own is None or self.confirmation is None:
            return []
        level = confidence_level(len(self.confirmation.candidates))
        others = [one for one in self.confirmation.candidates if one.trial != self.trial]
        return [one.trial for one in others if not significantly_different(own.of(objective), one.of(objective), level)]

    def sentence(self) -> str:
        """Say what is known, and how to find out what is not; empty if the choice has said it all."""
        if self.confirmation is None:
            return f"No trial was trained again under other seeds, so how much it varies is not known.{self._remedy()}"
        if self.own is None:
            again = ", ".join(str(one.trial) for one in self.confirmation.candidates)
            return (
                f"It is none of the trials that were trained again under other seeds ({again}), so how much it varies "
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
            return "there was no other to compare it with"
        alike: dict[tuple[int, ...], list[str]] = {}
        for i, name in objectives:
            alike.setdefault(tuple(self.not_different_from(i)), []).append(name)
        parts = [
            f"is {'not ' * bool(tied)}significantly different from {_trials(tied) if tied else 'every other'} "
            f"in {' and '.join(names)}"
            for tied, names in alike.items()
        ]
        return f"it {', '.join(parts)}"

    def _remedy(self) -> str:
        return f" To find out: {self.line}" if self.line else ""


def confirming_line(run: Path, trial: int, ranked: Sequence[int]) -> str:
    """Compose the command that trains a trial again under other seeds, with those that rank before it.

    Args:
        run: folder of a run of the sweep, which knows the command that began it.
        trial: to be confirmed.
        ranked: trials in the order in which a sweep confirms them.

    Returns:
        The command; in words where it is not known, or is none that a sweep begins with. Empty if the trial is no
        candidate: infeasible, or a repeat.
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


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
