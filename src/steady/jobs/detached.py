"""Detach the fork server of `steady.jobs.executor` from the controller's session; the server imports this first.

Else a signal to the whole group of the controller (Ctrl-C, `timeout`, a batch system) would end the fork server, and
with it all word of how trials end. When the controller is gone it goes as well, on Linux at once.
"""

import ctypes
import os
import pickle
import signal
import sys
from types import TracebackType

FORK_SERVER = "STEADY_FORK_SERVER"  # environment variable, set for it alone
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)


def prctl(option: int, value: int) -> None:
    """Set an attribute of this process on Linux; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught exception, unless it only says that the controller left while it asked for a process.

    Example:
        >>> report_uncaught(EOFError, EOFError(), None)
    """
    torn = issubclass(kind, pickle.UnpicklingError) and "truncated" in str(error)  # killed while it wrote
    if not torn and not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


if os.environ.pop(FORK_SERVER, None):
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.excepthook = report_uncaught
    # A batch system sends it to every process of a job, and trials are to reach a checkpoint.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Blocked until now; what came was for the controller, and is forgotten by being ignored for a moment.
    for number in signal.pthread_sigmask(signal.SIG_BLOCK, []):
        handler = signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
        signal.signal(number, handler)
