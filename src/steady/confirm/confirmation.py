"""Compare the best trials of a study under other seeds, by means and significance tests.

The best score of a search is also the luckiest. So the best few are trained again, and compared by the mean over seeds
that the search did not see (`steady.confirm.significance`). `steady.confirm.confirmation_stage` runs the trainings.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from steady import printing
from steady.atomic import write_json
from steady.confirm.significance import confidence_level, significantly_different
from steady.exceptions import StudyError
from steady.storage import CONFIRMATION, find_study
from steady.study import meta
from steady.study.select import ScoredTrial, TrialChoice, candidates, equal_values, objective_names

FILE = "confirmation.json"
LARGEST = 2**24  # bytes of that file that are read; a candidate has some 200 and as many a seed
RUN_FOLDER = "confirm/{}"  # of a run on which none is written, by its number, in the sweep's folder


@dataclass(frozen=True)
class ConfirmedTrial:
    """A trial with its values under several seeds."""

    trial: int  # its number in the search
    searched: tuple[float, ...]  # its values there, one per objective; biased, for it was chosen by them
    values: dict[int, tuple[float, ...]]  # by seed, one per objective

    def of(self, objective: int = 0) -> dict[int, float]:
        """Get the values of one objective by seed."""
        return {seed: values[objective] for seed, values in self.values.items()}

    def mean(self, objective: int = 0) -> float:
        """Compute the mean over the seeds."""
        return fmean(self.of(objective).values())

    def spread(self, objective: int = 0) -> float | None:
        """Compute the standard deviation over the seeds; None of one."""
        return stdev(self.of(objective).values()) if len(self.values) > 1 else None

    def under(self, seeds: Collection[int]) -> "ConfirmedTrial":
        """Get the same trial with the values under these seeds only."""
        return replace(self, values={seed: own for seed, own in self.values.items() if seed in seeds})

    def words(self, objective: int = 0) -> str:
        """Format mean and standard deviation: `41.5 ± 0.707`."""
        spread = self.spread(objective)
        return f"{self.mean(objective):.5g}" + ("" if spread is None else f" ± {spread:.3g}")


@dataclass(frozen=True)
class Confirmation:
    """The winner of a confirmation, and the trials that are not significantly different from it."""

    objectives: tuple[str, ...]  # names; the candidates are compared by the first
    directions: tuple[str, ...]  # `minimize` or `maximize`, of each
    candidates: tuple[ConfirmedTrial, ...]  # best mean over `shared_seeds` first; the first is the winner
    tied: tuple[int, ...]  # trials that are not significantly different from the winner
    considered: tuple[int, ...]  # trials that were to be confirmed, best of the search first; some may have failed

    @property
    def winner(self) -> ConfirmedTrial:
        """The candidate with the best mean over `shared_seeds`."""
        return self.candidates[0]

    @property
    def seeds(self) -> list[int]:
        """All seeds under which a candidate finished."""
        return sorted({seed for candidate in self.candidates for seed in candidate.values})

    @property
    def shared_seeds(self) -> list[int]:
        """The seeds by which the candidates are compared: those that all have, or all if there are none such."""
        return _shared(one.values for one in self.candidates)

    @property
    def compared(self) -> ConfirmedTrial:
        """The winner with the values by which it is the best, those under `shared_seeds`."""
        return self.winner.under(self.shared_seeds)

    def not_different_from(self, own: ConfirmedTrial, objective: int) -> list[int]:
        """List the other candidates whose means of an objective do not differ significantly from a candidate's."""
        level, shared = confidence_level(len(self.candidates)), self.shared_seeds
        mine = own.under(shared).of(objective)
        others = [one.under(shared) for one in self.candidates if one.trial != own.trial]
        return [one.trial for one in others if not significantly_different(mine, one.of(objective), level)]

    def outdated(self, directions: Sequence[str], finished: Sequence[ScoredTrial], ranked: Sequence[int]) -> str:
        """Say why this tells nothing of the study as it is now; empty if it does.

        `directions` are those of the study's objectives; for `ranked` see `steady.study.select.candidates`.
        """
        if self.directions != tuple(directions):
            return "the study has other objectives"
        values = {trial.number: trial.values for trial in finished}
        if changed := [c.trial for c in self.candidates if not equal_values(c.searched, values.get(c.trial, ()))]:
            return f"the study has other values for {printing.trials(changed)}"
        compared = [candidate.trial for candidate in self.candidates]
        before = _up_to_last(ranked, compared)
        if better := [number for number in before if number not in self.considered]:
            several = len(better) > 1
            came = f"{printing.trials(better)} came later"
            return f"{came}, and {'are' if several else 'is'} better than some it compares"
        return "" if set(compared) <= set(ranked) else "it compares trials that are no candidates any more"

    def choice(self, finished: Sequence[ScoredTrial]) -> TrialChoice:
        """Choose the winner among the finished trials of its study."""
        [chosen] = [trial for trial in finished if trial.number == self.winner.trial]
        extreme = "highest" if self.directions[0] == "maximize" else "lowest"
        own = self.compared
        seeds = ", ".join(map(str, own.values))
        return TrialChoice(
            chosen,
            f"the {extreme} mean {self.objectives[0]} under other seeds, {own.words()} over "
            f"{self.runs(own)} ({seeds}), {self.winner.searched[0]:.5g} in the search; {self.comparison()}",
            objective=0,
        )

    def sentence(self) -> str:
        """Put the outcome in a sentence."""
        own = self.compared
        mean = f"{self.objectives[0]} {own.words()}"
        return f"Confirmed: trial {own.trial}, {mean} over {self.runs(own)}; {self.comparison()}."

    def runs(self, candidate: ConfirmedTrial) -> str:
        """Count the runs of a candidate: `3 other seeds`, `2 of 3 other seeds`."""
        done, total = len(candidate.values), len(self.seeds)
        return f"{'' if done == total else f'{done} of '}{total} other seed{'s' if total > 1 else ''}"

    def comparison(self) -> str:
        """Compare the winner with the others in half a sentence."""
        if len(self.candidates) == 1:
            return "there was no other to compare it with"
        others = self.tied or [candidate.trial for candidate in self.candidates[1:]]
        return f"it is {'not significantly different from' if self.tied else 'better than'} {printing.trials(others)}"

    def table(self) -> Table:
        """Make a table of the candidates for a terminal."""
        table = Table(title=f"{self.objectives[0]} under other seeds", title_justify="left")
        table.add_column("trial", justify="right")
        for name in self.objectives:
            table.add_column(name, justify="right")
            table.add_column("in the search", justify="right")
        table.add_column("seeds", justify="right")
        table.add_column("")
        for one in self.candidates:
            cells = [cell for i, value in enumerate(one.searched) for cell in (one.words(i), f"{value:.5g}")]
            role = "winner" if one is self.winner else "not significantly different" if one.trial in self.tied else ""
            table.add_row(str(one.trial), *cells, str(len(one.values)), role)
        return table

    def print(self, console: Console | None = None, more: Table | None = None) -> None:
        """Print tables and sentence, with one more of what the runs have beside the objectives."""
        console = console or printing.console()
        console.print(self.table())
        if more is not None:
            console.print(more)
        console.print(self.sentence(), highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """Get the content of `confirmation.json`."""
        names = self.objectives
        return {
            "winner": self.winner.trial,
            "tied": list(self.tied),
            "considered": list(self.considered),
            "objectives": [
                {"name": name, "direction": direction} for name, direction in zip(names, self.directions, strict=True)
            ],
            "candidates": [
                {
                    "trial": one.trial,
                    "searched": dict(zip(names, one.searched, strict=True)),
                    "seeds": len(one.values),
                    "mean": {name: one.mean(i) for i, name in enumerate(names)},
                    "spread": {name: one.spread(i) for i, name in enumerate(names)},
                    "values": {str(seed): dict(zip(names, v, strict=True)) for seed, v in one.values.items()},
                }
                for one in self.candidates
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Confirmation":
        """Read the content of `confirmation.json`; KeyError, TypeError, ValueError or AttributeError if it is other.

        Whoever hands on a study may have written it: what is read can be compared and put into words.
        """
        names = tuple(str(one["name"]) for one in content["objectives"])
        found = tuple(
            ConfirmedTrial(
                int(one["trial"]),
                tuple(float(one["searched"][name]) for name in names),
                {int(seed): tuple(float(values[name]) for name in names) for seed, values in one["values"].items()},
            )
            for one in content["candidates"]
        )
        if not found or content["winner"] != found[0].trial:
            raise ValueError("the winner is not the first candidate")
        if not all(one.values for one in found):
            raise ValueError("a candidate has no values under other seeds")
        if not all(math.isfinite(value) for one in found for own in one.values.values() for value in own):
            raise ValueError("a value is not finite")
        directions = tuple(str(one["direction"]) for one in content["objectives"])
        tied, considered = (tuple(map(int, content[key])) for key in ("tied", "considered"))
        return cls(names, directions, found, tied, considered)

    def write(self, folder: Path) -> None:
        """Write `confirmation.json`, atomically; the folder is made if it is not there."""
        write_json(folder / FILE, self.to_dict())


def read(folder: Path) -> Confirmation | None:
    """Read what `Confirmation.write` left in a folder; None if nothing. A ValueError if the file is damaged.

    >>> trial = ConfirmedTrial(3, (40.0,), {1: (41.0,), 2: (42.0,)})
    >>> Confirmation(("fid",), ("minimize",), (trial,), (), (3,)).write(Path("cats"))
    >>> read(Path("cats")).winner.words()
    '41.5 ± 0.707'
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return Confirmation.from_dict(json.loads(file.read(LARGEST)))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error!r})") from error


def runs_of(study: optuna.Study) -> list[FrozenTrial]:
    """List the runs that confirm trials of a study: trials of a study of their own, which need not be there.

    >>> runs_of(optuna.create_study())
    []
    """
    name = study.study_name + CONFIRMATION
    if find_study(study._storage, name) is None:
        return []
    return optuna.load_study(study_name=name, storage=study._storage).get_trials(deepcopy=False)


def is_of_now(run: FrozenTrial, study: optuna.Study) -> bool:
    """Tell whether no change of a study was accepted since a run that confirms a trial of it began.

    >>> is_of_now(optuna.trial.create_trial(value=1.0), optuna.create_study())
    True
    """
    return bool(meta.get(run, meta.CHANGES) == meta.get(study, meta.CHANGES))


def folders(study: optuna.Study) -> dict[int, dict[int, str]]:
    """Find the folders of the finished runs that confirm trials of a study, by trial and seed, in that of its sweep.

    >>> study = optuna.create_study(study_name="cats")
    >>> runs = optuna.create_study(study_name="cats.confirm", storage=study._storage)
    >>> runs.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={meta.CONFIRMS: 3, meta.SEED: 7}))
    >>> folders(study)
    {3: {7: 'confirm/0'}}
    """
    found: dict[int, dict[int, str]] = {}
    for run in (run for run in runs_of(study) if is_of_now(run, study)):
        trial, seed = meta.get(run, meta.CONFIRMS), meta.get(run, meta.SEED)
        if run.state == TrialState.COMPLETE and isinstance(trial, int) and isinstance(seed, int):
            found.setdefault(trial, {})[seed] = str(meta.get(run, meta.FOLDER, RUN_FOLDER.format(run.number)))
    return found


def plan(numbers: Sequence[int], seeds: int, base_seed: int) -> list[dict[str, int]]:
    """Plan the runs of trials under the seeds that follow the search's `base_seed`: user attributes of each run.

    They go seed by seed, so that whenever they end all trials have about as many. All trials have the same seeds
    (common random numbers), so that what a seed does to all cancels in their differences.

    >>> [run[meta.CONFIRMS] for run in plan([7, 3], seeds=2, base_seed=0)]
    [7, 3, 7, 3]
    """
    others = [(base_seed + s) % 2**32 for s in range(1, seeds + 1)]
    return [{meta.CONFIRMS: number, meta.SEED: seed} for seed in others for number in numbers]


def compare(
    study: optuna.Study,
    results: Sequence[tuple[int, int, Sequence[float]]],
    objectives: Sequence[str],
    directions: Sequence[str],
) -> Confirmation:
    """Compare the confirmed trials of a search by the mean of the first objective over the seeds that all have.

    `results` are trial, seed and values of each finished run; `objectives` are names, and may be none; `directions` are
    `minimize` or `maximize`, of each. Raises a StudyError if no run has finite values.

    >>> study = optuna.create_study()
    >>> study.add_trials([optuna.trial.create_trial(value=value) for value in (0.1, 0.2)])
    >>> runs = [(0, 1, [0.5]), (0, 2, [0.6]), (1, 1, [0.3]), (1, 2, [0.3])]
    >>> compare(study, runs, ["loss"], ["minimize"]).winner
    ConfirmedTrial(trial=1, searched=(0.2,), values={1: (0.3,), 2: (0.3,)})
    """
    sign = -1 if directions[0] == "maximize" else 1
    values: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, seed, found in results:
        if all(map(math.isfinite, found)):
            values.setdefault(number, {})[seed] = tuple(found)
    if not values:
        raise StudyError("No confirmation run gave finite values; the logs in the folder confirm/ tell why.")
    trials = study.get_trials(deepcopy=False)
    compared = [ConfirmedTrial(n, tuple(trials[n].values), dict(sorted(own.items()))) for n, own in values.items()]
    shared = _shared(values.values())  # a hard seed that only one has had would be to its cost
    compared.sort(key=lambda one: (sign * one.under(shared).mean(), one.trial))
    considered = _up_to_last(candidates(study), values)  # all before a confirmed one were to be confirmed as well
    names = objective_names(study, objectives)
    result = Confirmation(tuple(names), tuple(directions), tuple(compared), (), tuple(considered))
    return replace(result, tied=tuple(result.not_different_from(result.winner, 0)))


def _shared(values: Iterable[Mapping[int, Any]]) -> list[int]:
    """List the seeds that all of several candidates have, or all that any has if there are none such."""
    seeds = list(map(set, values))
    return sorted(set.intersection(*seeds) or set.union(*seeds))


def _up_to_last(ranked: Sequence[int], compared: Collection[int]) -> Sequence[int]:
    """Select the trials up to the last that was compared."""
    return ranked[: max((i + 1 for i, number in enumerate(ranked) if number in compared), default=0)]
