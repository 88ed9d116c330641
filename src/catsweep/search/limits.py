"""What bounds a sweep: set by its settings, or asked for while it runs."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What bounds a sweep.

    Attributes:
        n_trials: of the study in all.
        timeout: seconds after which no further trial begins; None: no bound.
        reserved: how many of these are kept for what comes after the trials; asked whenever one could begin.
        retries: how often a trial whose process was lost starts again.
        max_same_failures: failures of one kind in a row that end the sweep; None: no bound.
        max_failure_rate: share of failures among the last `window` trials, above which the sweep ends.
        window: see there.
    """

    n_trials: int
    timeout: float | None = None
    reserved: Callable[[], float] = lambda: 0.0
    retries: int = 1
    max_same_failures: int | None = 3
    max_failure_rate: float = 1.0
    window: int = 1


@dataclass
class Stop:
    """What a person, or the machine, asked for: whether to stop, and by which signal. Set by `interruption`."""

    requested: bool = False
    signal: int | None = None
