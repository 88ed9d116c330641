"""A process that runs one job, as the controller sees it: how it is signalled, ended when it hangs, and told of.

`steady.run.executor` keeps these in its slots; `steady.run.worker` is what they run.

When a trial is taken to hang: it shows no sign of progress for too long, or takes too long in all.

Asked by `steady.run.process` about once a second while a trial runs. Signs of progress are a line in a log of the
trial's folder (its output, or what Hydra logs), and a word to its reporter (`steady.reporting`), as any
report of scores and, of our own trainings, each step of some seconds. Checkpoints, or what Weights & Biases keeps,
are none: threads of libraries write on beside a training that hangs.
"""

import math
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from steady.options import TrialTimeout
from steady.run.reaper import DUMP, END
from steady.run.worker import OUTPUT, Incoming
from steady.study.failures import FRAME, Kind, Outcome
from steady.study.trial_folders import PROGRESS

if TYPE_CHECKING:
    from steady.run.executor import Job


MEMORY_EVENTS = Path("/sys/fs/cgroup/memory.events")
PATIENCE = 10.0  # seconds that a process may take to leave after its outcome came
DUMPING = 2.0  # seconds for the stacks of one that hangs to be written
GRACE = 10.0  # seconds after SIGTERM for it to leave
UNKNOWN = 255  # exit code that multiprocessing gives when the fork server is gone; or the task's own
STACK = re.compile(r"^(?:Current thread|Thread|Stack) .*\(most recent call first\):$", re.MULTILINE)


Signs = dict[str, tuple[int, int]]  # by the file's name: when it was written (ns), its size


STALL = 10.0  # seconds between two looks of which more do not count: it was we who slept, with the machine perhaps


class Watchdog:
    """Watches one attempt of a trial.

    Args:
        bounds: on it.
        folder: where it works.
        elsewhere: whether a launcher runs it, at a time of its own: time counts from the first sign of progress that
            is not the launcher's.
        clock: seconds that only go forward.
    """

    def __init__(
        self, bounds: TrialTimeout, folder: Path, elsewhere: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.bounds, self.folder, self.clock = bounds, folder, clock
        self.waiting = elsewhere
        self.signs = self._signs()
        self.total = self.idle = 0.0
        self.last = clock()

    @property
    def due(self) -> float:
        """Seconds until the next look."""
        every = self.bounds.every
        return float("inf") if every is None else max(0.0, self.last + every - self.clock())

    def look(self) -> str:
        """Why the trial is to be ended; empty if it may go on."""
        if self.due > 0:
            return ""
        passed = min(self.clock() - self.last, STALL)
        self.last = self.clock()
        before, self.signs = self.signs, self._signs()
        if self.waiting:
            self.waiting = all(before.get(name) == self.signs[name] for name in self.signs if name != OUTPUT)
            return ""
        self.total += passed
        self.idle = 0.0 if self.signs != before else self.idle + passed
        if self.bounds.progress is not None and self.idle >= self.bounds.progress:
            return f"No sign of progress for {self.bounds.progress:g} s (hydra.sweeper.trial_timeout.progress)"
        if self.bounds.total is not None and self.total >= self.bounds.total:
            return f"Not done after {self.bounds.total:g} s (hydra.sweeper.trial_timeout.total)"
        return ""

    def _signs(self) -> Signs:
        found: Signs = {}
        for path in (*self.folder.glob("*.log"), self.folder / PROGRESS):
            try:
                stat = path.stat()
            except OSError:
                continue
            found[path.name] = (stat.st_mtime_ns, stat.st_size)
        return found


@dataclass
class TrialProcess:
    """One process and its job.

    Attributes:
        process: of multiprocessing: its reaper (`steady.run.reaper`), which dies as it did.
        pipe: to it.
        job: that it has, if it has one.
        outcome: as it told it, before it left.
        leave_by: time on the monotonic clock at which it should have left.
        oom_kills: of this machine when the job began.
        watchdog: while the job runs.
        hung: why it is being ended, if it is.
    """

    process: Any
    pipe: Connection
    job: "Job | None" = None
    outcome: Outcome | None = None
    leave_by: float = math.inf
    oom_kills: int = 0
    watchdog: Watchdog | None = None
    hung: str = ""
    _next: float = 0.0  # time at which the next step of ending it is due
    _asked: bool = False  # to leave, by SIGTERM
    _killed: bool = False
    _said: int = 0  # bytes of its log when it was found to hang

    def __post_init__(self) -> None:
        self.incoming = Incoming(self.pipe)
        self._itself: psutil.Process | None = None
        with suppress(psutil.Error):  # it has died already
            self._itself = psutil.Process(self.process.pid)

    def send(self, value: Any) -> None:
        """Send it something. That it has died is no error here: `bury` tells."""
        with suppress(OSError):
            self.pipe.send(value)

    def kill(self) -> None:
        """End the process and all that it started, in whatever session, at once."""
        self.signal(END)
        self.signal(signal.SIGCONT)  # the reaper may have been stopped by the task

    def signal(self, number: int) -> None:
        """Send a signal to the process's reaper, which passes it on."""
        with suppress(ProcessLookupError, PermissionError):
            os.kill(self.process.pid, number)

    def end_the_rest(self) -> None:
        """End what a reaper could not, because it was killed itself, or because the fork server was."""
        if self.process.exitcode == UNKNOWN:
            self._end_unheard()
        elif self.process.exitcode == -signal.SIGKILL and not psutil.pid_exists(self.process.pid):
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if os.getsid(process.pid) == self.process.pid:
                        process.kill()

    def _end_unheard(self) -> None:
        """See that the reaper has gone, which ends by itself when nobody hears of it any more."""
        until = time.monotonic() + PATIENCE
        with suppress(psutil.Error):  # it has left
            while (
                self._itself is not None
                and self._itself.is_running()
                and self._itself.status() != psutil.STATUS_ZOMBIE
                and time.monotonic() < until
            ):
                self._itself.send_signal(END)
                time.sleep(0.01)

    def hear(self) -> None:
        """Take in what it tells. That it died without a word the pipe may tell before the process does."""
        self.leave_by = time.monotonic() + PATIENCE
        self.outcome = self.incoming.take()

    @property
    def due(self) -> float:
        """Seconds until `tend` is to be called again."""
        if self._killed:
            return math.inf
        if self.leave_by < math.inf:
            return self.leave_by - time.monotonic()
        if self.hung:
            return self._next - time.monotonic()
        return self.watchdog.due if self.watchdog else math.inf

    def tend(self) -> None:
        """End it if it hangs, or does not leave: its stacks into its log, then SIGTERM, then SIGKILL."""
        if self._killed or not self.process.is_alive():  # its number may be another's by now
            return
        now = time.monotonic()
        if self.leave_by < math.inf:
            if now >= self.leave_by:  # threads of the task's own, which are not daemons
                self._end()
        elif not self.hung:
            self.hung = self.watchdog.look() if self.watchdog else ""
            if self.hung:
                self._said = self._log_size()
                self.signal(DUMP)
                self._next = now + DUMPING
        elif now >= self._next and not self._asked:
            self.signal(signal.SIGTERM)
            self._asked, self._next = True, now + GRACE
        elif now >= self._next:
            self._end()

    def _end(self) -> None:
        self.kill()
        self._killed = True  # it leaves when the kernel lets it: the other trials are not to wait for that

    def bury(self, stopping: bool) -> Outcome:
        """How the job of the process, which has ended, ended.

        Args:
            stopping: whether processes are being ended on purpose.
        """
        if not self.incoming.over:
            self.hear()
        outcome = self.outcome or self._lost(stopping)
        if outcome.kind == Kind.INTERRUPTED and not stopping:
            # The task raised KeyboardInterrupt itself, or was sent a signal by others: it may do so without end.
            message = f"The task was interrupted, though nobody asked the sweep to stop: {outcome.message}"
            outcome = replace(outcome, kind=Kind.LOST, message=message)
        if self.hung and outcome.kind not in (Kind.COMPLETE, Kind.PRUNED):  # what it still came to is a result
            outcome = self._timed_out()
        self.end_the_rest()
        self.pipe.close()
        self.process.close()
        return outcome

    def _lost(self, stopping: bool) -> Outcome:
        code = self.process.exitcode
        if code is not None and code < 0:
            name = _named(-code)
            if stopping and -code in (signal.SIGTERM, signal.SIGKILL, END):
                return Outcome(Kind.INTERRUPTED, message=f"ended by {name}")
            if -code == signal.SIGKILL and oom_kills() > self.oom_kills:
                return Outcome(Kind.OUT_OF_MEMORY, message="The kernel ended the process: the memory was used up.")
            return Outcome(Kind.LOST, message=f"The process was ended by {name}.")
        return Outcome(Kind.LOST, message=f"The process ended with exit code {code} and no result.")

    def _timed_out(self) -> Outcome:
        stacks = self._stacks()
        main = stacks[list(STACK.finditer(stacks))[-1].start() :] if stacks else ""  # the oldest thread comes last
        found = FRAME.search(main)
        where = f", in {Path(found[1]).name}, line {found[2]}" if found else ""
        told = "; its log has the stacks" if stacks else "; there are no stacks: it was stopped, or deaf to signals"
        return Outcome(Kind.TIMED_OUT, message=f"{self.hung}{where}{told}.", traceback=stacks)

    def _stacks(self) -> str:
        """What faulthandler wrote of where it hung; empty if it could not."""
        assert self.job is not None
        with suppress(OSError), (self.job.folder / OUTPUT).open("rb") as log:
            log.seek(self._said)
            written = log.read().decode(errors="replace")
            if begin := STACK.search(written):
                return written[begin.start() :]
        return ""

    def _log_size(self) -> int:
        assert self.job is not None
        with suppress(OSError):
            return (self.job.folder / OUTPUT).stat().st_size
        return 0


def _named(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals between the first and the last have no name
        return f"signal {number}"


def oom_kills() -> int:
    """How often the kernel ended a process of this machine (or container) for want of memory."""
    with suppress(OSError, ValueError):
        counts = dict(line.split() for line in MEMORY_EVENTS.read_text().splitlines())
        return int(counts.get("oom_kill", 0))
    return 0
