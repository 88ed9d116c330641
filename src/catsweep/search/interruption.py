"""Ctrl-C and SIGTERM: once to stop at a checkpoint, twice to stop at once."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from catsweep.search.executor import Executor
from catsweep.search.limits import Stop


@contextmanager
def interruptible(executor: Executor, stop: Stop) -> Iterator[None]:
    """Within it, the signals mean what this module says.

    Args:
        executor: told to stop its jobs, then to end them.
        stop: told what was asked for, and by which signal.
    """

    def asked(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        if stop.requested:
            executor.kill()
            return
        stop.requested = True  # the scheduler says so: a word from here would fall into the table that is being drawn
        executor.stop()

    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
