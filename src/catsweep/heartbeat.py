"""Log the progress of slow loops: neither a reader nor `hydra.sweeper.trial_timeout` then takes silence for a hang."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

EVERY = 60.0  # seconds

T = TypeVar("T")


def every_minute(
    items: Iterable[T], log: logging.Logger, line: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[T]:
    """Iterate over items, and log their count once a minute: `line` has a `%s` for it, as "%s photos read so far"."""
    last = clock()
    for count, item in enumerate(items):
        if clock() - last >= EVERY:
            log.info(line, f"{count:,}")
            last = clock()
        yield item
