"""Do the same to many files at once, in order, with a progress bar while a person is looking.

Serves the sources, whose heavy parts (decoding, warping, hashing) release the interpreter's lock: threads then use
all cores, and unlike processes they need no importable main module and work inside a trial's worker, too.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import cv2
from rich.progress import track

from steady import printing

In = TypeVar("In")
Out = TypeVar("Out")


def in_order(work: Callable[[In], Out], tasks: Iterable[In]) -> Iterator[Out]:
    """Do `work` on each task, as many at a time as there are cores.

    Yields:
        The results in the order of the tasks. Only a few are held at a time, however many tasks there are.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # one level of threads: ours
    pending: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(cores)
    try:
        for task in tasks:
            pending.append(pool.submit(work, task))
            if len(pending) >= 8 * cores:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads)


def watched(items: Iterable[Out], total: int, title: str) -> Iterator[Out]:
    """Pass items through, with a progress bar on standard error if that is a terminal."""
    console = printing.console(stderr=True)
    yield from track(items, title, total, console=console, transient=True, disable=not console.is_terminal)
