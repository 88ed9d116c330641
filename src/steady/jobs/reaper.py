"""The reaper of a trial: the parent of its process, which ends all that the trial has started when the trial ends.

On Linux it is a subreaper (prctl(2)): whatever loses its parent below it, by a double fork or in a session of its own,
becomes its child; also when the trial crashes, and when the controller is killed, which it learns from the pipe. As
`tini` does, it passes signals on and dies as its child did. Elsewhere it finds only what still has a living ancestor in
the trial. Only its own children are ended: their numbers cannot be given to others before it has reaped them.
"""

import faulthandler
import os
import resource
import select
import signal
import time
from collections.abc import Set
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NoReturn

import psutil

from steady.jobs.detached import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, prctl

END = signal.SIGHUP  # to a reaper: end the trial, and all that it started, now
# At this signal a trial writes the stacks of all threads to its log. Lightning and launchers use SIGUSR1 and 2.
DUMP = getattr(signal, "SIGRTMAX", signal.SIGUSR1)
HEARD = {signal.SIGCHLD, signal.SIGTERM, DUMP, END}
LAST_WORDS = 1.0  # seconds after SIGTERM that what an ended trial has left behind has to leave
KILLING = 10.0  # seconds after which is given up what does not leave at SIGKILL: another user's, or in the kernel
AGAIN = 0.1  # seconds between two looks for what has to be ended


def fork(pipe: Connection) -> None:
    """Fork: the child goes on as the leader of a process group; this process becomes its reaper, and never returns.

    The reaper leads the session that both are in. The controller is gone when its end of the pipe is closed.
    """
    os.setsid()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, END)  # of the fork server, without which nobody would hear how the trial ended
    before = signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # what comes meanwhile waits
    reaper = os.getpid()
    child = os.fork()
    if child:
        with suppress(OSError):  # it was faster, or has died
            os.setpgid(child, child)
        _die_as(_Reaper(child, pipe).run())
    os.setpgid(0, 0)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != reaper:  # it died before that
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Reaper:
    """The reaper's loop; `child` is the id of the trial's process."""

    def __init__(self, child: int, pipe: Connection) -> None:
        self.child, self.status = child, -1
        self.woken, wake = os.pipe()
        for end in (self.woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:  # the task may send any to its parent
            with suppress(OSError):  # those of the C library's own
                signal.signal(number, (lambda *_: None) if number in HEARD else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        self.poll = select.poll()
        self.poll.register(self.woken, select.POLLIN)
        self.poll.register(pipe, 0)  # only whether its other end is closed: what comes is for the trial to read
        self.pipe = pipe

    def run(self) -> int:
        """Wait for the trial's end, and end what it leaves behind; returns its status as `os.waitpid` does."""
        while self.status < 0:
            told = self._wait(None)
            if END in told:
                self._end_all(time.monotonic())
            self._reap()
            if self.status < 0:
                for number in told & {signal.SIGTERM, DUMP}:
                    with suppress(OSError):  # DUMP to it alone: programs that it started would die of it
                        (os.kill if number == DUMP else os.killpg)(self.child, number)
        self._end_all(time.monotonic() + LAST_WORDS)
        return self.status

    def _wait(self, seconds: float | None) -> Set[int]:
        """Wait for signals, so many seconds at most; END comes also when the controller is gone."""
        found = {end for end, _ in self.poll.poll(None if seconds is None else seconds * 1000)}
        told = set(os.read(self.woken, 4096)) if self.woken in found else set()
        if found - {self.woken}:
            self.poll.unregister(self.pipe)
            told.add(END)
        return told

    def _reap(self) -> bool:
        """Reap the children that have ended; returns whether any is left."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    self.status = ended[1]
        except ChildProcessError:
            return False
        return True

    def _end_all(self, patient_until: float) -> None:
        """End all descendants: by SIGTERM until that time on the monotonic clock, then by SIGKILL."""
        asked: set[psutil.Process] = set()
        while self._reap() and time.monotonic() < patient_until + KILLING:
            # Looked for anew: psutil compares times of creation, which change with the machine's clock.
            left = set(psutil.Process().children(recursive=True))
            patient = time.monotonic() < patient_until
            for process in left - asked if patient else left:
                with suppress(psutil.Error):  # it has left, or is another user's
                    process.terminate() if patient else process.kill()
                    process.resume()
            asked |= left
            if END in self._wait(AGAIN):
                patient_until = min(patient_until, time.monotonic())


def _die_as(status: int) -> NoReturn:
    """Exit as the trial's process did: with its code, or by its signal."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # it has left its own
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [-code])
        with suppress(OSError):  # those that nobody may handle
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)
