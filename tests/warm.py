"""Starts `python FILE …` again and again with its imports done, which are most of the time of a start.

Each start is a fork, so it is a process of its own: with its own number, signals, exit code and working directory, as
one from the shell. `tests/starting.py` writes one line of JSON for each start to standard input, and reads from
standard output `{"pid": …}` and, once it has ended, `{"pid": …, "code": …}` (negative: the signal).
The words of the command line are the modules to import; before them may be `--share-fork-server`, see below.
"""

import gc
import importlib
import json
import os
import runpy
import select
import signal
import sys
from contextlib import suppress
from typing import Any

from steady.jobs.detached import warm_up_hydra

SHARE = "--share-fork-server"


def tell(**what: int) -> None:
    os.write(1, (json.dumps(what) + "\n").encode())


def reap() -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            tell(pid=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


def wait_for_a_start() -> dict[str, Any] | None:
    """What to start, in its process; None when no more is to be started."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            reap()
        if 0 in ready:
            line = sys.stdin.buffer.readline()
            if not line:
                return None
            if pid := os.fork():
                tell(pid=pid)
                continue
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(woken)
            os.close(wake)
            wanted: dict[str, Any] = json.loads(line)
            return wanted


def become(wanted: dict[str, Any]) -> None:
    """What a shell would do: the files, the folder, the words."""
    for stream, name in enumerate((os.devnull, wanted["out"], wanted["err"])):
        file = os.open(name, os.O_RDONLY if stream == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    os.chdir(wanted["folder"])
    sys.argv = [wanted["file"], *wanted["words"]]
    sys.path[0] = os.path.dirname(os.path.abspath(wanted["file"]))


def share_fork_server() -> None:
    """Start a fork server, from which sweeps take their trials: one of its own costs each a second."""
    from multiprocessing import forkserver

    from steady.jobs.executor import warm_context

    warm_context([])
    # A sweep would look whether the server lives by waiting for it, as only its parent can.
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None


if __name__ == "__main__":
    is_shared = SHARE in sys.argv
    for module in sys.argv[1 + is_shared :]:
        importlib.import_module(module)
    warm_up_hydra()
    if is_shared:
        share_fork_server()
    gc.freeze()
    if (wanted := wait_for_a_start()) is not None:
        become(wanted)
        runpy.run_path(wanted["file"], run_name="__main__")
