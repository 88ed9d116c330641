"""Who drives which trial: locks and claims that several controllers share, in the study's own storage.

Optuna has no atomic claim of a running trial, and heartbeats only for databases. What every storage of it does have
is an append with a total order: `create_new_trial` gives each caller its own next number, attributes included. So a
side study, `<study>.leases`, is used as a list of *tokens*. A claim is a token with a name; of the unreleased tokens
of a name, the one with the lowest number holds it, and everybody reads the same order. This is Lamport's bakery.

A token belongs to a controller, itself a token with signs of life: on the same machine whether its process lives, from
another machine whether its beat still changes, by one's own clock, since clocks of two machines need not agree. Whoever
finds a controller dead ends its token first; that makes it so for all, and for the dead one, should it wake up.
"""

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from catsweep.search.storage import find_study

log = logging.getLogger(__name__)

SIDE = ".leases"
CONTROLLER = "controller"
BEATS = 4  # signs of life in one period of grace


@dataclass(frozen=True)
class Identity:
    """A process, told apart from all others.

    Attributes:
        machine: equal for two processes that can see each other.
        pid: its number there.
        started: when it began (see `_started`), for a number may be used again.
    """

    machine: str
    pid: int
    started: float

    @classmethod
    def own(cls) -> "Identity":
        """Of this process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()) or 0.0)


@dataclass
class _Silence:
    """Of a controller on another machine: its last beat, and how long (seconds) we have seen it unchanged."""

    beat: Any
    looked: float
    lasted: float = 0.0


class Leases:
    """Locks and claims of one controller. Not for several threads.

    Args:
        storage: the study's.
        study: its name.
        grace: seconds without a sign of life after which a controller on another machine is dead.
        identity: of this controller.
        clock: seconds.
    """

    def __init__(
        self,
        storage: BaseStorage,
        study: str,
        grace: float = 60.0,
        identity: Identity | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.storage, self.grace, self.clock = storage, grace, clock
        self.identity = identity or Identity.own()
        self.side = _side_study(storage, study + SIDE)
        self.me: int | None = None  # number of our controller's token
        self.tokens: dict[str, int] = {}  # trial ids of our claims, by name
        self._beats, self._next_beat = 0, 0.0
        self._silences: dict[int, _Silence] = {}  # by the controller's number

    def register(self) -> None:
        """Become a controller, with no claims. Nothing can be claimed before."""
        self._token = self._append({"name": CONTROLLER, "beat": 0, **asdict(self.identity)})
        self.me = self.storage.get_trial(self._token).number
        self.tokens = {}
        self._next_beat = self.clock() + self.grace / BEATS

    def beat(self) -> None:
        """Give a sign of life and look for those of others; call it often, it does something only when it is due."""
        if self.clock() < self._next_beat:
            return
        self._next_beat = self.clock() + self.grace / BEATS
        self._beats += 1
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # we were taken for dead; the look shows it
            self.storage.set_trial_user_attr(self._token, "beat", self._beats)
        self._look()

    def close(self) -> None:
        """Release everything, and be no controller any more."""
        for name in list(self.tokens):
            self.release(name)
        if self.me is not None:
            self._finish(self._token)
            self.me = None

    def controllers(self) -> list[Identity]:
        """Those that live, this one included, in the order in which they came."""
        return [_identity(token) for token in self._look()[0].values()]

    def claim(self, name: str) -> bool:
        """Take a name if no living controller has it. Never waits."""
        self.beat()  # the last may be long ago, and who claims is alive
        queue, token = self._stand(name)
        if queue[0] == token:
            return True
        self.release(name)
        return False

    def take(self, name: str) -> None:
        """Take a name that no other can have, under a lock that keeps them from it; half the cost of a claim."""
        self.tokens[name] = self._append({"name": name, "owner": self.me})

    def release(self, name: str) -> None:
        """Give a name back; one that we do not have is no error."""
        token = self.tokens.pop(name, None)
        if token is not None:
            self._finish(token)

    def holds(self, name: str) -> bool:
        """Whether a name that we claimed is still ours: another controller may have taken us for dead."""
        queue = self._queue(name)
        return name in self.tokens and queue[:1] == [self.tokens[name]]

    def owned(self, name: str) -> bool:
        """Whether any living controller has the name, or is about to take it, this one included."""
        return bool(self._queue(name))

    @contextmanager
    def lock(self, name: str, poll: float = 0.02) -> Iterator[None]:
        """Hold a name for a moment; those who wait get it in the order in which they came.

        The name must be one that we do not hold; `poll` is in seconds.
        """
        assert name not in self.tokens, f"we would wait for ourselves: {name}"
        try:
            queue, token = self._stand(name)
            while queue[0] != token:
                time.sleep(poll)
                self.beat()
                queue, token = self._stand(name)
            yield
        finally:
            self.release(name)

    def _stand(self, name: str) -> tuple[list[int], int]:
        """Be in the queue for a name: the queue, and our token in it."""
        assert self.me is not None, "register first"
        while True:
            token = self.tokens.get(name)
            if token is None:
                self.take(name)
                token = self.tokens[name]
            queue = self._queue(name)
            if token in queue:
                return queue, token
            self.tokens.pop(name, None)  # it was ended, since we were taken for dead: to the end of the queue

    def _queue(self, name: str) -> list[int]:
        return [token._trial_id for token in self._look()[1] if token.user_attrs["name"] == name]

    def _look(self) -> tuple[dict[int, FrozenTrial], list[FrozenTrial]]:
        """The living controllers by number, and their claims in order. What the dead have left is ended first.

        So is a claim of ours that we know nothing of: Ctrl-C, or a lost connection, came between.
        """
        tokens = self.storage.get_all_trials(self.side, deepcopy=False, states=(TrialState.RUNNING,))
        living, claims, ours = dict[int, FrozenTrial](), [], set(self.tokens.values())
        for token in sorted(tokens, key=lambda token: token.number):  # a controller comes before its claims
            if token.user_attrs["name"] == CONTROLLER:
                if self._alive(token):
                    living[token.number] = token
                    continue
            elif (owner := token.user_attrs["owner"]) in living and (owner != self.me or token._trial_id in ours):
                claims.append(token)
                continue
            self._finish(token._trial_id)
        if self.me is not None and self.me not in living:
            log.warning("This controller gave no sign of life for so long that another took it for dead")
            self.register()
        return living, claims

    def _alive(self, controller: FrozenTrial) -> bool:
        other, beat, now = _identity(controller), controller.user_attrs["beat"], self.clock()
        if controller.number == self.me:
            return True
        if other.machine == self.identity.machine:
            return _started(other.pid) == other.started
        known = self._silences.get(controller.number)
        if known is None or known.beat != beat:
            known = self._silences[controller.number] = _Silence(beat, now)
        # Long between two looks was a pause of ours, or of the storage. The other may have been stopped by the same.
        known.lasted += min(now - known.looked, self.grace / 2)
        known.looked = now
        return known.lasted <= self.grace

    def _append(self, attributes: dict[str, Any]) -> int:
        return self.storage.create_new_trial(self.side, create_trial(state=TrialState.RUNNING, user_attrs=attributes))

    def _finish(self, token_id: int) -> None:
        with suppress(optuna.exceptions.UpdateFinishedTrialError):  # by another, who also saw that its owner is dead
            self.storage.set_trial_state_values(token_id, TrialState.FAIL)


def _identity(controller: FrozenTrial) -> Identity:
    return Identity(*(controller.user_attrs[key] for key in ("machine", "pid", "started")))


def _side_study(storage: BaseStorage, name: str) -> int:
    if (known := find_study(storage, name)) is not None:
        return known
    with suppress(optuna.exceptions.DuplicatedStudyError):  # by another controller that starts now
        return storage.create_new_study([StudyDirection.MINIMIZE], name)
    return storage.get_study_id_from_name(name)


def _machine() -> str:
    """Machine, boot, namespace and user: processes with the same see each other in /proc."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink(namespace)} {os.getuid()}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _started(pid: int) -> float | None:
    """When a process began, in ticks since boot or, without /proc, seconds; None if it has ended (zombies too)."""
    try:
        if Path("/proc/self/stat").exists():
            # In ticks since boot. psutil adds the time of boot, which moves when the clock is set.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else float(fields[18])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return None
