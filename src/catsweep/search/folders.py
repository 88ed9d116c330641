"""Which folder each trial of a study works in: what its job composes `hydra.sweep.subdir` to, and never another's.

Chosen once, by `catsweep.search.intake`, when the trial is taken for the first time; written on the trial unless it is
the usual one, which is named by the trial's number. So an attempt that goes on finds its checkpoint, whatever the
template says by then, and every reader of a study knows where a trial's files are.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from catsweep.search import attributes


@dataclass(frozen=True)
class Folders:
    """The folders of the trials of one study.

    Args:
        base: the sweep's; those of the trials are relative to it, unless they are absolute.
        usual: of a trial on which none is written, from its number.
        compose: of a trial, as its job would name it; None if its job will have to say why it has none. Without this
            each has the usual one.
        others: folders that are taken already, by something else than these trials.
    """

    base: Path
    usual: Callable[[int], str] = str
    compose: Callable[[FrozenTrial], str | None] | None = None
    others: tuple[Path, ...] = ()

    def name(self, trial: FrozenTrial) -> str:
        """A trial's folder, relative to that of the sweep."""
        return str(trial.user_attrs.get(attributes.FOLDER, self.usual(trial.number)))

    def of(self, trial: FrozenTrial) -> Path:
        """A trial's folder."""
        return self.base / self.name(trial)

    def choose(self, trial: FrozenTrial, trials: Iterable[FrozenTrial]) -> str | None:
        """The folder of a trial that has none yet; with its number behind it, should another trial have it already.

        Args:
            trial: with all its parameters.
            trials: all of the study; this one may be among them.

        Returns:
            What is to be written on the trial; None for the usual folder, and for one that cannot be composed.
        """
        wanted: str | None = self.usual(trial.number)
        if self.compose is not None and not trial.user_attrs.get(attributes.ATTEMPT):  # else it began in the usual one
            wanted = self.compose(trial)
        if wanted is None:
            return None
        taken = {_plain(self.of(other)) for other in trials if other.number != trial.number}
        taken |= {_plain(self.base), *map(_plain, self.others)}
        if _plain(self.base / wanted) == _plain(self.base):
            wanted = str(trial.number)
        while _plain(self.base / wanted) in taken:
            wanted = f"{wanted.rstrip('/')}_{trial.number}"
        return None if self.compose is None and wanted == self.usual(trial.number) else wanted


def _plain(folder: Path) -> str:
    return os.path.abspath(folder)
