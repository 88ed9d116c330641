"""Memory as a thing that threads share: who needs more than is left waits until others are done.

Serves reading (`catsweep.data.files.reading`) and decoding (`catsweep.data.decode.decoding`), so that a folder of
huge photos takes no more memory than one of them, and one of small photos still uses all cores.

Do the same to many files at once, in order, with a progress bar while a person is looking.

Serves the sources, whose heavy parts (decoding, warping, hashing) release the interpreter's lock: threads then use
all cores, and unlike processes they need no importable main module and work inside a trial's worker, too.
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

from catsweep import printing


class ByteSemaphore:
    """A number of bytes to share. First come, first served: a large need is not overtaken for ever by small ones.

    Args:
        total: bytes that may be held at the same time.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._held = 0
        self._door = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Hold so many bytes while the block runs; more than there are means all of them.

        A thread that holds some must not ask the same budget for more: it could wait for itself.
        """
        size = min(size, self.total)
        with self._door, self._changed:
            self._changed.wait_for(lambda: self._held + size <= self.total)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


def trim_heap() -> None:
    """Give memory that was freed back to the system, where the C library can (glibc).

    It keeps blocks of up to 32 MiB for later, and Pillow's are of 16: a TIFF of 50 megapixels after a JPEG of 67 took
    1.1 GiB, though neither alone takes more than 0.6.
    """
    with suppress(OSError, AttributeError, TypeError):  # another library, another system
        ctypes.CDLL(None).malloc_trim(0)


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
