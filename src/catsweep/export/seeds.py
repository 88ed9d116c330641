"""How much the chosen trial varies from seed to seed, and which trials it is not significantly different from.

`best_model` says it beside its choice, whatever the choice was made by: from the study's confirmation if that covers
the trial, else that nobody knows, and the line that finds out.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from catsweep.errors import DataError
from catsweep.records import read_json
from steady.confirm.confirmation import Candidate, Confirmation, confidence_level, significantly_different
from steady.study.untrusted import SWEPT, is_plain

KEY = "hydra.sweeper.confirm"
TOP, SEEDS = 3, 3  # what one would ask for


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
    def own(self) -> Candidate | None:
        """The trial itself, if it was trained again."""
        compared = self.confirmation.candidates if self.confirmation else ()
        return next((one for one in compared if one.trial == self.trial), None)

    def not_different_from(self, objective: int) -> list[int]:
        """Confirmed trials whose means over the seeds do not differ significantly from this one's.

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
        """What is known, and how to find out what is not; empty if the choice has said it all."""
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
        """As `choice.json` has it."""
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
    """The command that trains a trial again under other seeds, with those that rank before it.

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
        command = read_json(run / "provenance.json").get("command")
    except DataError:
        command = None
    typed: list[str] = command if isinstance(command, list) and is_plain(command) else []
    kept = [word for word in typed if not word.lstrip("+").startswith(f"{KEY}=")]
    if not set(SWEPT) & set(kept):
        return f"the line that started the sweep, with '{asked}'"
    return shlex.join(["python", *kept, asked])


def _trials(numbers: Sequence[int]) -> str:
    return f"trial{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
