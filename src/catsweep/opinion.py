"""Compare the choice with what the judge says, by which nothing was chosen.

A generator that trains through a network flatters whoever judges by one of its relatives, so the winner by FID is
compared with what another network says. `choice` prints it, `choice.json` and the model card keep it, the report draws
it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from catsweep.errors import ExportError
from catsweep.metrics.judge import (
    COMMAND,
    FID,
    JUDGED,
    Agreement,
    Judged,
    RunScores,
    comparable,
    rank_agreement,
    run_scores,
)
from catsweep.selection import FinishedTrials, find_run


@dataclass(frozen=True)
class Opinion:
    """Scores of the runs of a study beside their objectives.

    Attributes:
        own: scores by trial, of the run of the search.
        again: scores by trial and seed, of the runs that confirm.
    """

    own: Mapping[int, RunScores]
    again: Mapping[int, Mapping[int, RunScores]]

    @classmethod
    def of(cls, own: Mapping[int, RunScores], again: Mapping[int, Mapping[int, RunScores]]) -> "Opinion":
        """Keep of runs that may have been judged in different ways only the most usual way."""
        runs: dict[tuple[int, int | None], RunScores] = {(trial, None): one for trial, one in own.items()}
        runs |= {(trial, seed): one for trial, seeds in again.items() for seed, one in seeds.items()}
        kept = comparable(runs)
        return cls(
            {trial: kept[trial, None] for trial in own},
            {trial: {seed: kept[trial, seed] for seed in seeds} for trial, seeds in again.items()},
        )

    @property
    def judged(self) -> list[Judged]:
        """Judgements of the runs of the search by trial, then of those that confirm."""
        return [one.judged for one in self._runs() if one.judged is not None and JUDGED in one.values]

    @property
    def judge(self) -> str:
        """Name of the judge; empty if no run was judged."""
        return next((one.judge for one in self._runs() if one.judge), "")

    @property
    def reals(self) -> dict[str, float]:
        """Scores of photos in the place of drawn images."""
        return next((dict(one.reference) for one in self.judged if one.reference), {})

    @property
    def agreement(self) -> Agreement | None:
        """Rank agreement of FID and the judge over all judged runs; None of too few."""
        return rank_agreement(self.judged, FID, JUDGED)

    def by_judge(self) -> dict[int, tuple[float, ...]]:
        """Collect the judge's FID by trial, the best first: of trials' own runs, or of confirmed ones under each seed.

        Means over seeds are compared where at least two trials were judged under the same ones.
        """
        again = {
            trial: {seed: one.values[JUDGED] for seed, one in seeds.items() if JUDGED in one.values}
            for trial, seeds in self.again.items()
        }
        seen = [set(seeds) for seeds in again.values() if seeds]
        common = sorted(set.intersection(*seen)) if len(seen) > 1 else []
        if common:
            found = {trial: tuple(seeds[seed] for seed in common) for trial, seeds in again.items() if seeds}
        else:
            found = {trial: (one.values[JUDGED],) for trial, one in self.own.items() if JUDGED in one.values}
        return dict(sorted(found.items(), key=lambda item: (fmean(item[1]), item[0])))

    def sentence(self, chosen: int) -> str:
        """Whether the judge agrees, or how to ask it.

        Args:
            chosen: number of the chosen trial.
        """
        found = self.by_judge()
        if not found:
            return f"What an independent judge says of it is not known: {COMMAND}."
        preferred, asks = next(iter(found)), f"To have trial {chosen} judged: {COMMAND}."
        reals = f" (real photos get {self.reals[JUDGED]:.4g})" if JUDGED in self.reals else ""
        best = f"{JUDGED} {_mean(found, preferred)}"
        if chosen not in found and len(found) == 1:
            return f"The judge ({self.judge}) has seen trial {preferred} alone, {best}{reals}. {asks}"
        if chosen not in found:
            said = f"of the {len(found)} trials that it has seen it prefers trial {preferred}, {best}{reals}"
            return f"The judge ({self.judge}) has not seen trial {chosen}; {said}. {asks}"
        if len(found) == 1:
            said = f"says {best}{reals}, and has seen no other trial"
        elif chosen == preferred:
            said = f"agrees: {best}, the lowest of {len(found)} judged trials{reals}"
        else:
            said = f"prefers trial {preferred}: {best} against {_mean(found, chosen)}{reals}"
        agreement = self.agreement
        return f"The judge ({self.judge}) {said}." + (f" {agreement.sentence()}" if agreement else "")

    def _runs(self) -> list[RunScores]:
        return [*self.own.values(), *(one for seeds in self.again.values() for one in seeds.values())]

    def to_dict(self, chosen: int) -> dict[str, Any]:
        """As `choice.json` has it; empty if no run was judged."""
        found, agreement = self.by_judge(), self.agreement
        if not found:
            return {}
        return {
            "judge": self.judge,
            "prefers": next(iter(found)),
            "agrees": next(iter(found)) == chosen if chosen in found else None,
            JUDGED: {str(trial): fmean(values) for trial, values in found.items()},
            "reals": self.reals,
            "rank_agreement": None if agreement is None else asdict(agreement),
            "sentence": self.sentence(chosen),
        }


def read(trials: FinishedTrials, runs: Path, also: Iterable[int] = ()) -> Opinion:
    """Read what the run folders of a study say.

    Args:
        trials: of the study.
        runs: folder of its run folders.
        also: trials that are shown beside the Pareto set.
    """
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
    return Opinion.of(own, again)


def _mean(found: Mapping[int, tuple[float, ...]], trial: int) -> str:
    values = found[trial]
    if len(values) == 1:
        return f"{values[0]:.4g}"
    return f"{fmean(values):.4g} ± {stdev(values):.2g} over {len(values)} seeds"
