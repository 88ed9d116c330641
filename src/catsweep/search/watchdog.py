"""When a trial is taken to hang: it shows no sign of progress for too long, or takes too long in all.

Asked by `catsweep.search.process` about once a second while a trial runs. Signs of progress are a line in a log of the
trial's folder (its output, or what Hydra logs), and a word to its reporter (`catsweep.search.reporting`), as any
report of scores and, of our own trainings, each step of some seconds. Checkpoints, or what Weights & Biases keeps,
are none: threads of libraries write on beside a training that hangs.
"""

import time
from collections.abc import Callable
from pathlib import Path

from catsweep.search.folders import PROGRESS
from catsweep.search.settings import TrialTimeout
from catsweep.search.worker import OUTPUT

STALL = 10.0  # seconds between two looks of which more do not count: it was we who slept, with the machine perhaps

Signs = dict[str, tuple[int, int]]  # by the file's name: when it was written (ns), its size


class Watchdog:
    """Watches one attempt of a trial.

    Args:
        bounds: on it.
        folder: where it works.
        elsewhere: whether a launcher runs it, at a time of its own: time counts from the first sign of progress that
            is not the launcher's.
        clock: seconds that only go forward.
    """

    def __init__(
        self, bounds: TrialTimeout, folder: Path, elsewhere: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bounds, self.folder, self.clock = bounds, folder, clock
        self.waiting = elsewhere
        self.signs = self._signs()
        self.total = self.idle = 0.0
        self.last = clock()

    @property
    def due(self) -> float:
        """Seconds until the next look."""
        every = self.bounds.every
        return float("inf") if every is None else max(0.0, self.last + every - self.clock())

    def look(self) -> str:
        """Why the trial is to be ended; empty if it may go on."""
        if self.due > 0:
            return ""
        passed = min(self.clock() - self.last, STALL)
        self.last = self.clock()
        before, self.signs = self.signs, self._signs()
        if self.waiting:
            self.waiting = all(before.get(name) == self.signs[name] for name in self.signs if name != OUTPUT)
            return ""
        self.total += passed
        self.idle = 0.0 if self.signs != before else self.idle + passed
        if self.bounds.progress is not None and self.idle >= self.bounds.progress:
            return f"No sign of progress for {self.bounds.progress:g} s (hydra.sweeper.trial_timeout.progress)"
        if self.bounds.total is not None and self.total >= self.bounds.total:
            return f"Not done after {self.bounds.total:g} s (hydra.sweeper.trial_timeout.total)"
        return ""

    def _signs(self) -> Signs:
        found: Signs = {}
        for path in (*self.folder.glob("*.log"), self.folder / PROGRESS):
            try:
                stat = path.stat()
            except OSError:
                continue
            found[path.name] = (stat.st_mtime_ns, stat.st_size)
        return found
