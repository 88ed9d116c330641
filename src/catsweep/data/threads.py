"""Thread pool that keeps order, and a byte-counting semaphore that bounds what its threads hold in memory.

Threads, because decoding, warping and hashing release the interpreter's lock, and unlike processes they need no
importable main module and work inside a trial's worker.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

import cv2
from rich.progress import track

from steady import printing

In = TypeVar("In")
Out = TypeVar("Out")


class ByteSemaphore:
    """Semaphore of `total` bytes: a thread that needs more than is left waits. First come, first served."""

    def __init__(self, total: int) -> None:
        self.total, self._held = total, 0
        self._queue, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold `size` bytes, at most all of them, while the block runs. Not to be nested: it could wait for itself."""
        size = min(size, self.total)
        with self._queue, self._changed:  # the queue keeps small needs from overtaking a large one
            self._changed.wait_for(lambda: self._held + size <= self.total)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def trim_heap() -> None:
    """Return freed memory to the system, where the C library can (glibc's `malloc_trim`).

    glibc keeps blocks of up to 32 MiB, Pillow's are of 16: a TIFF of 50 megapixels after a JPEG of 67 took 1.1 GiB.
    """
    with suppress(OSError, AttributeError, TypeError):  # another library, another system
        ctypes.CDLL(None).malloc_trim(0)


def in_order(work: Callable[[In], Out], tasks: Iterable[In]) -> Iterator[Out]:
    """Map `work` over tasks on all cores, and yield its results in their order; only a few are held at a time."""
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
