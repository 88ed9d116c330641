"""The memory of a process of the suite: `tests/memory.py`."""

import weakref

import numpy as np
import psutil
from tests import memory


class Ring:
    """Garbage in a circle, as a trainer with its callbacks is."""

    def __init__(self, megabytes: int) -> None:
        self.content, self.itself = np.ones(megabytes << 17), self


def test_much_that_a_test_leaves_is_freed() -> None:
    memory.settle()
    much = weakref.ref(Ring((memory.MUCH >> 20) * 3))
    memory.settle()
    assert much() is None


def test_what_was_freed_in_between_makes_no_room_for_garbage() -> None:
    held = np.ones((memory.MUCH >> 20) * 5 << 17)
    memory.settle()  # with much in use
    del held
    memory.settle()
    much = weakref.ref(Ring((memory.MUCH >> 20) * 3))
    memory.settle()
    assert much() is None


def test_the_peak_is_what_this_process_has_had() -> None:
    now = psutil.Process().memory_info().rss
    content = np.ones((memory.MUCH >> 20) << 17)
    assert memory.peak() >= max(now, content.nbytes)
    assert memory.peak() >= psutil.Process().memory_info().rss * 0.9  # the kernel counts in steps
