"""A process of the suite stays small: two of them are to fit a laptop.

A run that was trained in a test is garbage in a circle (the trainer, its callbacks, the scorer with its session of ONNX
Runtime hold each other), 230 MB each. Python looks for such circles the more seldom the more it has imported, so that
5 GB of them lay about; hence it is asked to as soon as a test has left much. `pytest_runtest_teardown` in `conftest.py`
calls `settle`, and holds the limit.
"""

import ctypes
import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import psutil

LIMIT = 2 << 30  # bytes, the highest that a process may ever have had
MUCH = 64 << 20  # bytes more than at the least since the last look

gc.disable()  # until `begin`: imports make millions of objects, and hardly any garbage to look for among them

_process = psutil.Process()
_after_the_last_look = 0


def begin() -> None:
    """Take what was imported and collected for eternal, so that a look for garbage takes milliseconds."""
    gc.collect()
    gc.freeze()
    gc.enable()


def settle() -> None:
    """Free what a test has left, if that is much."""
    global _after_the_last_look
    now = _process.memory_info().rss
    if now < _after_the_last_look + MUCH:
        _after_the_last_look = min(_after_the_last_look, now)  # what was freed since is room for garbage again
        return
    gc.collect()
    with suppress(OSError, AttributeError):  # where the C library is not GNU's
        ctypes.CDLL(None).malloc_trim(0)
    _after_the_last_look = _process.memory_info().rss


def peak() -> int:
    """The most memory, in bytes, that this process has had."""
    with suppress(OSError):  # getrusage would count what its parent had when it was started
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)
