"""Which of the best is really the best: the winners of a search, trained again under other seeds.

The best score of a search is also the luckiest. So the best few are trained again, and compared by the mean over seeds
that the search did not see. Arithmetic and files: `catsweep.search.sweep` runs the trainings, and
`catsweep.export.choice` reads the outcome.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from catsweep import printing
from catsweep.atomic import write_json
from catsweep.errors import ConfigError, StudyError
from catsweep.metrics.judge import BESIDE, TITLE, RunScores, table
from catsweep.search import attributes
from catsweep.search.pareto import ranks
from catsweep.search.significance import confidence, distinct

FILE = "confirmation.json"
SEEDS = 2**32  # how many there are


@dataclass(frozen=True)
class Candidate:
    """A configuration under several seeds.

    Attributes:
        trial: its number in the search.
        searched: its values there, one per objective; biased, for it was chosen by them, and in no mean.
        values: by seed, one per objective.
    """

    trial: int
    searched: tuple[float, ...]
    values: dict[int, tuple[float, ...]]

    def of(self, objective: int = 0) -> dict[int, float]:
        """One objective by seed."""
        return {seed: values[objective] for seed, values in self.values.items()}

    def mean(self, objective: int = 0) -> float:
        """Over the seeds."""
        return fmean(self.of(objective).values())

    def spread(self, objective: int = 0) -> float | None:
        """Standard deviation over the seeds; None of one."""
        return stdev(self.of(objective).values()) if len(self.values) > 1 else None

    def words(self, objective: int = 0) -> str:
        """`41.2 ± 0.8`."""
        spread = self.spread(objective)
        return f"{self.mean(objective):.5g}" + ("" if spread is None else f" ± {spread:.3g}")


@dataclass(frozen=True)
class Confirmation:
    """The winner, and how sure one can be.

    Attributes:
        objectives: their names; the candidates are compared by the first.
        directions: of each, `minimize` or `maximize`.
        candidates: best mean first; the first is the winner.
        tied: trials that cannot be told from the winner.
        considered: the trials that were to be confirmed, best of the search first; some may have failed.
    """

    objectives: tuple[str, ...]
    directions: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    tied: tuple[int, ...]
    considered: tuple[int, ...]

    @property
    def winner(self) -> Candidate:
        """The best mean."""
        return self.candidates[0]

    @property
    def seeds(self) -> list[int]:
        """All seeds under which a candidate finished."""
        return sorted({seed for candidate in self.candidates for seed in candidate.values})

    def sentence(self) -> str:
        """The outcome."""
        mean = f"{self.objectives[0]} {self.winner.words()}"
        return f"Confirmed: trial {self.winner.trial}, {mean} over {self.runs(self.winner)}; {self.comparison()}."

    def runs(self, candidate: Candidate) -> str:
        """`3 other seeds`, `2 of 3 other seeds`."""
        done, total = len(candidate.values), len(self.seeds)
        return f"{'' if done == total else f'{done} of '}{total} other seed{'s' if total > 1 else ''}"

    def comparison(self) -> str:
        """What the winner is beside the others, as half a sentence."""
        others = [candidate.trial for candidate in self.candidates[1:]]
        if not others:
            return "there was no other to compare it with"
        return f"it cannot be told from {_listed(self.tied)}" if self.tied else f"it is better than {_listed(others)}"

    def beside(self, again: Mapping[int, Mapping[int, RunScores]]) -> dict[str, dict[int, str]]:
        """What the runs have beside the objectives, as `41.2 ± 0.8` by score and trial; only scores that any has.

        Args:
            again: scores by trial and seed.
        """
        found: dict[str, dict[int, str]] = {}
        for name in (name for name in BESIDE if name not in self.objectives):
            for one in self.candidates:
                runs = again.get(one.trial, {})
                values = [runs[seed].values[name] for seed in one.values if name in runs.get(seed, RunScores()).values]
                if values:
                    spread = f" ± {stdev(values):.3g}" if len(values) > 1 else ""
                    found.setdefault(name, {})[one.trial] = f"{fmean(values):.4g}{spread}"
        return found

    def table(self) -> Table:
        """The candidates for a terminal."""
        table = Table(title=f"{self.objectives[0]} under other seeds", title_justify="left")
        table.add_column("trial", justify="right")
        for name in self.objectives:
            table.add_column(name, justify="right")
            table.add_column("in the search", justify="right")
        table.add_column("seeds", justify="right")
        table.add_column("")
        for one in self.candidates:
            cells = [cell for i, value in enumerate(one.searched) for cell in (one.words(i), f"{value:.5g}")]
            role = "winner" if one is self.winner else "not told from it" if one.trial in self.tied else ""
            table.add_row(str(one.trial), *cells, str(len(one.values)), role)
        return table

    def more(self, beside: Mapping[str, Mapping[int, str]]) -> Table | None:
        """What `beside` returns, for a terminal; None of nothing."""
        trials = [one.trial for one in self.candidates]
        rows = {str(trial): {name: words.get(trial, "") for name, words in beside.items()} for trial in trials}
        return table(f"{TITLE}, under other seeds", rows)

    def print(self, console: Console | None = None, beside: Mapping[str, Mapping[int, str]] | None = None) -> None:
        """Print the tables and the sentence.

        Args:
            console: to print on; standard output if there is none.
            beside: as `beside` returns it.
        """
        console = console or printing.console()
        console.print(self.table())
        if more := self.more(beside or {}):
            console.print(more)
        console.print(self.sentence(), highlight=False, soft_wrap=True)

    def to_dict(self) -> dict[str, Any]:
        """The content of `confirmation.json`."""
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
        """The way back.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        names = tuple(str(one["name"]) for one in content["objectives"])
        found = tuple(
            Candidate(
                int(one["trial"]),
                tuple(float(one["searched"][name]) for name in names),
                {int(seed): tuple(float(values[name]) for name in names) for seed, values in one["values"].items()},
            )
            for one in content["candidates"]
        )
        if not found or content["winner"] != found[0].trial:
            raise ValueError("the winner is not the first candidate")
        directions = tuple(str(one["direction"]) for one in content["objectives"])
        return cls(names, directions, found, tuple(content["tied"]), tuple(content["considered"]))

    def write(self, folder: Path) -> None:
        """Write `confirmation.json`, atomically; the folder is made if it is not there."""
        write_json(folder / FILE, self.to_dict())


def first_seed(config: DictConfig) -> int:
    """The seed under which trials of the search train; the confirmation's are others.

    Args:
        config: of the multirun.

    Raises:
        ConfigError: it has no key `seed`, or no whole number there.
    """
    seed = OmegaConf.select(config, "seed")
    if type(seed) is not int:
        raise ConfigError(
            f"confirm trains under other seeds, so the configuration needs a key seed, a whole number; it is {seed!r}. "
            "Add one (+seed=0), or set hydra.sweeper.confirm=null."
        )
    return seed


def read(folder: Path) -> Confirmation | None:
    """What `Confirmation.write` left in a folder, None if nothing.

    Raises:
        ValueError: the file is damaged, or another version's.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Confirmation.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read ({error!r})") from error


def folders(runs: optuna.Study, usual: Callable[[int], str]) -> dict[int, dict[int, str]]:
    """The folders of the finished runs, by trial and seed, in that of their sweep.

    Args:
        runs: the study of the confirmation.
        usual: of a run on which none is written, from its number.
    """
    found: dict[int, dict[int, str]] = {}
    for run in runs.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        trial, seed = (run.user_attrs.get(key) for key in (attributes.CONFIRMS, attributes.SEED))
        if isinstance(trial, int) and isinstance(seed, int):
            found.setdefault(trial, {})[seed] = str(run.user_attrs.get(attributes.FOLDER, usual(run.number)))
    return found


def candidates(study: optuna.Study, k: int | None = None, by: int = 0) -> list[int]:
    """The trials to confirm: the best finished, feasible ones, each configuration once.

    With several objectives those that no other dominates come first, then those that only they dominate, and so on,
    because a winner should be Pareto-optimal whatever it is chosen by; within a rank the objective `by` decides, by
    which the winner will be chosen.

    Args:
        study: the search.
        k: how many; None for all.
        by: index of the objective.
    """
    signs = [-1 if direction == StudyDirection.MAXIMIZE else 1 for direction in study.directions]
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [t for t in finished if _feasible(t) and all(map(math.isfinite, t.values))]
    losses = [[sign * value for sign, value in zip(signs, trial.values, strict=True)] for trial in trials]
    # Of one objective, the rank would be its order.
    rank = ranks(losses).tolist() if losses and len(signs) > 1 else [0] * len(losses)
    best: dict[str, int] = {}
    for i in sorted(range(len(trials)), key=lambda i: (rank[i], losses[i][by], losses[i], trials[i].number)):
        best.setdefault(repr(sorted(trials[i].params.items())), trials[i].number)
    return list(best.values())[:k]


def plan(numbers: Sequence[int], seeds: int, base_seed: int) -> list[dict[str, int]]:
    """The runs, seed by seed, so that whenever it ends all candidates have about as many.

    Args:
        numbers: of the trials.
        seeds: how many other seeds; the same for each trial (common random numbers), so that what a seed does to all
            cancels in their differences.
        base_seed: of the search; the others follow it.

    Returns:
        The user attributes of each run.
    """
    others = [(base_seed + s) % SEEDS for s in range(1, seeds + 1)]
    return [{attributes.CONFIRMS: number, attributes.SEED: seed} for seed in others for number in numbers]


def report(
    study: optuna.Study,
    results: Sequence[tuple[int, int, Sequence[float]]],
    objectives: Sequence[str],
    directions: Sequence[str],
) -> Confirmation:
    """Compare the candidates.

    Args:
        study: the search.
        results: trial, seed and values of each finished confirmation run.
        objectives: their names; may be none.
        directions: `minimize` or `maximize`, of each.

    Raises:
        StudyError: no run has finite values.
    """
    sign = -1 if directions[0] == "maximize" else 1
    values: dict[int, dict[int, tuple[float, ...]]] = {}
    for number, seed, found in results:
        if all(map(math.isfinite, found)):
            values.setdefault(number, {})[seed] = tuple(found)
    if not values:
        raise StudyError("No confirmation run gave finite values; the logs in the folder confirm/ tell why.")
    trials = study.get_trials(deepcopy=False)
    compared = [Candidate(n, tuple(trials[n].values), dict(sorted(own.items()))) for n, own in values.items()]
    compared.sort(key=lambda c: (sign * c.mean(), c.trial))
    level = confidence(len(compared))
    tied = [c.trial for c in compared[1:] if not distinct(compared[0].of(), c.of(), level)]
    ranked = candidates(study)
    # All that stand before a confirmed one were to be confirmed as well.
    considered = ranked[: max((i + 1 for i, n in enumerate(ranked) if n in values), default=0)]
    names = objectives or (["value"] if len(directions) == 1 else [f"value {i}" for i in range(len(directions))])
    return Confirmation(tuple(names), tuple(directions), tuple(compared), tuple(tied), tuple(considered))


def _feasible(trial: FrozenTrial) -> bool:
    return all(value <= 0 for value in trial.constraints.values())


def _listed(trials: Sequence[int]) -> str:
    """`trial 3`, `trials 3 and 1`, `trials 3, 1 and 2`."""
    *most, last = map(str, trials)
    return f"trials {', '.join(most)} and {last}" if most else f"trial {last}"
