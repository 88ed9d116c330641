"""The winner as the report shows it: chosen by the rule of `make best-model`, with its seeds and its equals.

Between `catsweep.report.record` and the page. Decides nothing itself; `catsweep.export` does.
"""

from dataclasses import dataclass
from pathlib import Path

from catsweep.errors import ExportError
from catsweep.search.confirmation import Confirmation
from catsweep.selection import Choice, Seeds, Trials, decide, read_trials


@dataclass(frozen=True)
class Winner:
    """Which trial won.

    Attributes:
        trials: what there was to choose from; None if no trial has finished.
        choice: the winner; None if no trial has finished.
        seeds: the winner under other seeds, as far as that is known; None if no trial has finished.
        remark: why the confirmation is ignored, or why there is no winner; may be empty.
    """

    trials: Trials | None = None
    choice: Choice | None = None
    seeds: Seeds | None = None
    remark: str = ""

    @property
    def number(self) -> int | None:
        """Of the trial."""
        return self.choice.candidate.number if self.choice else None

    @property
    def confirmed(self) -> Confirmation | None:
        """The comparison under other seeds, whatever the choice was made by."""
        return self.seeds.confirmation if self.seeds else None

    def role(self, number: int) -> str:
        """What a trial of the comparison is beside the winner, in words; empty if the winner is not in it."""
        if number == self.number:
            return "winner"
        if self.seeds is None or self.seeds.own is None:
            return ""
        return "not told from it" if number in self.seeds.not_told_from(0) else "told from it"

    @property
    def front(self) -> tuple[int, ...]:
        """Numbers of the Pareto-optimal trials, best first by the first objective."""
        return tuple(candidate.number for candidate in self.trials.front) if self.trials else ()


def pick(select: str | int | None, folder: Path, runs: Path) -> Winner:
    """Choose the winner of a study.

    Args:
        select: as in `conf/best_model.yaml`; null for the first objective.
        folder: the study's.
        runs: folder of its run folders.

    Raises:
        ConfigError: `select` means nothing for this study.
        ExportError: it is the number of no finished trial.
    """
    try:
        trials = read_trials(folder, runs)
    except ExportError as error:  # nothing has finished yet
        return Winner(remark=str(error))
    decision = decide(select, trials, folder, runs)
    return Winner(trials, decision.choice, decision.seeds, decision.remark)
