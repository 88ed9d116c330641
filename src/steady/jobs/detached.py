"""Detach the fork server of `steady.jobs.executor` from the controller's session; the server imports this first.

Else a signal to the whole group of the controller (Ctrl-C, `timeout`, a batch system) would end the fork server, and
with it all word of how trials end. When the controller is gone it goes as well, on Linux at once.

Then it makes Hydra ready, so that trials need not each.
"""

import ctypes
import os
import pickle
import signal
import string
import sys
from contextlib import suppress
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


def warm_up_hydra() -> None:
    """Do what Hydra does at first in each process: look for plugins in all installed packages, and build its parser.

    The tables of the parser grow with each character that it meets where it has not met it before.

    Example:
        >>> warm_up_hydra()
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.plugins import Plugins

    with suppress(Exception):  # whoever needs it will tell
        Plugins.instance()
        letters = string.ascii_letters + string.digits
        values = (f"'{letters}/:.-_'", letters, "/x", "1234567890", "-0.1234567890", "5e-06", "true", "null", "[x,1]")
        OverridesParser.create().parse_overrides([f"+x.{letters}_.{letters}_={value}" for value in values])


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
    warm_up_hydra()
