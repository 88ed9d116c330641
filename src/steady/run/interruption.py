"""Handle Ctrl-C, SIGTERM and SIGHUP: once to stop at a checkpoint, twice to stop at once.

While there are no trials yet, or no more, nothing has to reach a checkpoint: the sweep then stops at the first.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from steady.signals import NUMBERS, Interruption, ignored

if TYPE_CHECKING:
    from steady.jobs.executor import Executor  # heavier than what this module is imported before

SAID = "Interrupted; nothing is lost. The same line goes on."


@dataclass
class Stop:
    """A request to stop, by a person or the machine."""

    requested: bool = False
    signal: int | None = None  # its number


@contextmanager
def ending(stop: Stop) -> Iterator[None]:
    """End the sweep in one line at the first signal, which sets `stop`, unless `interruptible` handles it.

    Raises:
        SystemExit: 128 + signal.

    Example:
        >>> with ending(Stop()):
        ...     pass
    """
    interruption = Interruption(SAID)

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.requested, stop.signal = True, number
        interruption(number, frame)

    with _handle_signals(interrupt):
        try:
            yield
        except SystemExit:
            raise
        except BaseException as error:
            if interruption.number is None and not isinstance(error, KeyboardInterrupt):
                raise
            raise interruption.end() from None  # a library may have made another exception of it


@contextmanager
def interruptible(executor: "Executor", stop: Stop) -> Iterator[None]:
    """Stop the jobs at a checkpoint at the first signal, which sets `stop`, and end them at the second.

    Example:
        >>> from unittest.mock import Mock
        >>> stop = Stop()
        >>> with interruptible(Mock(), stop):
        ...     signal.raise_signal(signal.SIGTERM)
        >>> stop
        Stop(requested=True, signal=15)
    """
    interruption = Interruption()

    def interrupt(number: int, frame: FrameType | None) -> None:
        stop.signal = number
        if stop.requested:
            executor.kill()
            return
        interruption.note(number)
        stop.requested = True  # the scheduler says so: a word from here would fall into the table that is being drawn
        executor.stop()

    with _handle_signals(interrupt):
        yield


@contextmanager
def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals, but not SIGHUP under `nohup`; only the main thread of Python can have handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in NUMBERS if not (number == signal.SIGHUP and ignored(number))]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was or signal.SIG_DFL)
