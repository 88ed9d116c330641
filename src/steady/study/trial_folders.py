"""Folders that the trials of a study work in: as a job composes `hydra.sweep.subdir`, and never another trial's.

One is chosen when a trial is taken for the first time, and written on it unless it is named by the trial's number. So
an attempt that goes on finds its checkpoint, whatever the template says by then. A trial begins in an empty folder.

A study may be a stranger's, and so may what it says of folders. Its trials work where this start says, or where a sweep
of that name has worked before, of which `mark` leaves a note; each in there, or where this start's own template says.
"""

import json
import os
import re
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from os.path import abspath
from pathlib import Path

from optuna.trial import FrozenTrial

from steady import safe_paths
from steady.atomic import write_json
from steady.exceptions import StudyError
from steady.safe_paths import inside
from steady.study import meta

PROGRESS = "progress.json"  # in a trial's folder: how far it is
NOTE = ".steady-study.json"  # in a sweep's folder: names of the studies whose trials work there
BEFORE = ".catsweep-study.json"  # the same, of versions up to 0.1


def mark(folder: Path, study: str) -> None:
    """Note in a sweep's folder which study's trials work there.

    >>> folder = Path("multirun")
    >>> mark(folder, "cats")
    >>> is_of(folder, "cats"), is_of(folder, "dogs")
    (True, False)
    """
    if study not in (known := _noted(folder)):
        write_json(folder / NOTE, {"by": "steady", "studies": [*known, study]})


def is_of(folder: Path, study: str) -> bool:
    """Tell whether a sweep of this name has worked in a folder.

    >>> is_of(Path("nowhere"), "cats")
    False
    """
    return study in _noted(folder)


def is_used(folder: Path) -> bool:
    """Tell whether there is something in a trial's folder to be.

    >>> is_used(Path("nowhere"))
    False
    """
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except FileNotFoundError:
        return os.path.lexists(folder)  # a link to what is not there
    except OSError:  # a file, or a folder that we may not look into
        return True


def used(base: Path, n: int) -> list[Path]:
    """List those of the folders of the first `n` trials, named by number, that are not empty.

    >>> Path("out/1/.hydra").mkdir(parents=True)
    >>> used(Path("out"), 5)
    [PosixPath('out/1')]
    """
    try:
        numbers = [int(name) for name in os.listdir(base) if re.fullmatch(r"0|[1-9][0-9]{0,8}", name)]
    except OSError:
        return []
    return [folder for number in sorted(numbers) if number < n and is_used(folder := base / str(number))]


def _noted(folder: Path) -> list[str]:
    noted: list[str] = []
    for name in (BEFORE, NOTE):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            found = json.loads((folder / name).read_text(encoding="utf-8"))["studies"]
            noted += [str(study) for study in found] if isinstance(found, list) else []
    return list(dict.fromkeys(noted))


@dataclass(frozen=True)
class Folders:
    """Folders of the trials of one study.

    >>> from optuna.trial import create_trial
    >>> Folders(Path("out")).of(create_trial(value=1.0, user_attrs={meta.FOLDER: "a=1"})).name
    'a=1'
    """

    base: Path  # the sweep's; folders of trials are relative to it, unless they are absolute
    usual: Callable[[int], str] = str  # from a trial's number, the folder if none is written on it
    # Composes a trial's folder as its job would; returns None if the job will fail at that.
    compose: Callable[[FrozenTrial], str | None] | None = None
    others: tuple[Path, ...] = ()  # folders that are taken by others than these trials

    def name(self, trial: FrozenTrial) -> str:
        """Get a trial's folder, relative to the sweep's; a StudyError if only the study says that it is elsewhere."""
        name = str(meta.get(trial, meta.FOLDER, self.usual(trial.number)))
        if inside(self.base, self.base / name):
            return name
        if not meta.has(trial, meta.FOLDER):
            safe_paths.refuse_links([self.base / name], self.base, "sweep", StudyError)
        composed = None if self.compose is None else self.compose(trial)
        if composed is not None and re.fullmatch(re.escape(composed.rstrip("/")) + r"(_\d+)*/?", name):
            return name
        raise StudyError(
            f"The study says that trial {trial.number} works in {name!r}, which is not in {self.base}, where this "
            f"sweep works. If that is meant, say so in hydra.sweep.subdir; if not, the study is not this sweep's: give "
            f"it another name."
        )

    def said(self, trial: FrozenTrial) -> Path:
        """Get a trial's folder as the study says, wherever that is: for comparisons, and not to work in."""
        return self.base / str(meta.get(trial, meta.FOLDER, self.usual(trial.number)))

    def of(self, trial: FrozenTrial) -> Path:
        """Get a trial's folder, to work in.

        Raises a StudyError as `name` does, and for a link out of it among what Hydra and its logs write there. Other
        links are the task's, which may look itself (`safe_paths.refuse_links_within`).
        """
        folder = self.base / self.name(trial)
        written = [folder / ".hydra", *(folder / ".hydra").glob("*"), *folder.glob("*.log")]
        safe_paths.refuse_links(written, folder, "trial", StudyError)
        return folder

    def choose(self, trial: FrozenTrial, trials: Iterable[FrozenTrial], used: Container[str] = ()) -> str | None:
        """Choose the folder of a trial that has none yet; with its number behind it if there is something already.

        `trial` has all its parameters, and may be among `trials`, those of the study; but for some of which `used` has
        the absolute paths of their folders. Returns what is to be written on the trial; None for the usual folder, and
        for one that cannot be composed.
        """
        wanted: str | None = self.usual(trial.number)
        anew = not meta.get(trial, meta.ATTEMPT)  # else it began in the usual one
        if self.compose is not None and anew:
            wanted = self.compose(trial)
        if wanted is None:
            return None
        taken = {abspath(self.said(other)) for other in trials if other.number != trial.number}
        taken |= {abspath(self.base), *map(abspath, self.others)}
        if abspath(self.base / wanted) == abspath(self.base):
            wanted = str(trial.number)
        while (path := abspath(self.base / wanted)) in taken or path in used or (anew and is_used(self.base / wanted)):
            wanted = f"{wanted.rstrip('/')}_{trial.number}"
        return None if self.compose is None and wanted == self.usual(trial.number) else wanted
