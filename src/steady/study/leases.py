"""Leases of trials: locks and claims that several controllers share, among the attributes of the study.

Optuna has no atomic claim of a running trial, and heartbeats only for databases. What all its storages have is
attributes of a study: shared registers. Each controller writes one of its own, with its identity, its claims and its
places in the queues for locks; a lock is Lamport's bakery (CACM 17(8), 1974) over these. A lock that nobody else wants
costs two small writes and a read.

A controller on the same machine lives as long as its process, one on another machine as long as its register changes,
by our own clock, since clocks of two machines need not agree. Whoever finds one dead says so in a second register,
which nobody takes back; so it is dead for all, and for itself, should it wake up.
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

import psutil
from optuna.storages import BaseStorage

from steady.storage import LEASES, find_study

log = logging.getLogger(__name__)

# Prefixes of attributes, before a controller's id: its register, null when it has ended; that it was found dead. Those
# of versions up to 0.1 (`catsweep:controller:`) are not read: no two versions drive a study at once.
CONTROLLER, DEAD = "steady:controller:", "steady:dead:"
POLL = 0.02  # seconds between two looks at a queue
BEATS = 4  # signs of life in one period of grace
CHOOSING = 0  # place in a queue of a controller that has no number yet, or came when nobody else was there


@dataclass(frozen=True)
class Identity:
    """Identity of a process among those of all machines.

    >>> Identity.own() == Identity.own()
    True
    """

    machine: str  # equal for two processes that can see each other
    pid: int
    started: float  # see `_started`; a pid may be used again

    @classmethod
    def own(cls) -> "Identity":
        """Get the identity of this process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()) or 0.0)


class Leases:
    """Locks and claims of one controller of a study, which exists. Not thread-safe.

    A controller on another machine is dead after `grace` seconds without a sign of life; `clock` returns seconds.

    >>> import optuna
    >>> study = optuna.create_study(study_name="cats")
    >>> one, other = Leases(study._storage, "cats"), Leases(study._storage, "cats")
    >>> one.register(), other.register()
    (None, None)
    >>> one.claim("trial 0"), other.claim("trial 0"), other.claim("trial 1")
    (True, False, True)
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
        self.study = storage.get_study_id_from_name(study)
        self.me: str | None = None  # id of our register
        self.held: list[str] = []  # names that we claimed
        self.places: dict[str, int] = {}  # by the name of a lock: our number in its queue
        self._beats, self._next_beat = 0, 0.0
        # By the id of a controller on another machine: its last beat, when we looked, and seconds without another.
        self._silences: dict[str, tuple[int, float, float]] = {}

    def register(self) -> None:
        """Become a controller, without claims. Nothing can be claimed before."""
        self.me, self.held, self.places = uuid.uuid4().hex[:12], [], {}
        self._came = 1 + max((said["came"] for said in self._look().values()), default=0)
        self._write()

    def beat(self) -> None:
        """Give a sign of life and look for those of others, when it is due; to be called often."""
        if self.clock() >= self._next_beat:
            self._write()
            self._look()

    def close(self) -> None:
        """Release everything, and be no controller any more."""
        if self.me is not None:
            self.storage.set_study_system_attr(self.study, CONTROLLER + self.me, None)
        self.me, self.held, self.places = None, [], {}

    def controllers(self) -> list[Identity]:
        """List the living controllers, this one included, in the order in which they came."""
        came = sorted(self._look().items(), key=lambda one: (one[1]["came"], one[0]))
        return [Identity(said["machine"], said["pid"], said["started"]) for _, said in came]

    def claim(self, name: str) -> bool:
        """Take a name if no living controller has it. Waits for those that claim at this moment, not for a holder."""
        if name in self.held and self.holds(name):
            return True
        with self.lock("claim"):
            self.take(name)
            self._write()  # before we look, as those do who want it for a lock
            if not self._rivals(name):
                return True
            self.held.remove(name)
        return False

    def take(self, name: str) -> None:
        """Take a name under a lock that keeps all others from it; it is written at the latest when the lock ends."""
        self.held.append(name)
        if not self.places:
            self._write()

    def release(self, name: str) -> None:
        """Give a name back; no error if we do not have it."""
        if name in self.held or name in self.places:
            self.places.pop(name, None)
            self.held = [other for other in self.held if other != name]
            self._write()

    def holds(self, name: str) -> bool:
        """Tell whether a name that we claimed is still ours: another controller may have taken us for dead."""
        self._look()
        return name in self.held or name in self.places

    def names(self) -> set[str]:
        """Get the names that a living controller has or waits for, this one included."""
        return {name for said in self._look().values() for name in (*said["holds"], *said["places"])}

    def owned(self, name: str) -> bool:
        """Tell whether any living controller has the name or waits for it, this one included."""
        return name in self.names()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold a name that we do not hold for a moment; those who wait get it in the order in which they came."""
        assert self.me is not None, "register first"
        assert name not in (*self.held, *self.places), f"we would wait for ourselves: {name}"
        try:
            while not self._first(name):
                time.sleep(POLL)
                self.beat()
            yield
        finally:
            self.release(name)

    def _first(self, name: str) -> bool:
        """Queue for a lock, and tell whether it is our turn."""
        if name not in self.places:  # or not any more, since we were taken for dead: to the end of the queue
            self.places[name] = CHOOSING
            self._write()
            rivals = self._rivals(name)
            if name in self.places:
                if not rivals:
                    return True
                self.places[name] = 1 + max(place for place, _ in rivals)
                self._write()
        rivals = self._rivals(name)
        return name in self.places and all(rival > (self.places[name], self.me) for rival in rivals)

    def _rivals(self, name: str) -> list[tuple[int, str]]:
        """List places and ids of the others in the queue for a name; a holder stands before all."""
        others = [(id, said) for id, said in self._look().items() if id != self.me]
        waiting = [(said["places"][name], id) for id, said in others if name in said["places"]]
        return waiting + [(CHOOSING, id) for id, said in others if name in said["holds"]]

    def _look(self) -> dict[str, dict[str, Any]]:
        """Read what the living controllers say, by id; note those that are found dead."""
        written = dict(self.storage.get_study_system_attrs(self.study))
        living = {}
        for key, said in written.items():
            id = key.removeprefix(CONTROLLER)
            if id == key or said is None or DEAD + id in written:
                continue
            if id == self.me or self._alive(id, said):
                living[id] = said
            else:
                self.storage.set_study_system_attr(self.study, DEAD + id, True)
        if self.me is not None and DEAD + self.me in written:
            log.warning("This controller gave no sign of life for so long that another took it for dead")
            self.register()
        if self.me in living:
            living[self.me] = {**living[self.me], "holds": self.held, "places": self.places}  # some may be unwritten
        return living

    def _alive(self, id: str, said: dict[str, Any]) -> bool:
        if said["machine"] == self.identity.machine:
            return bool(_started(said["pid"]) == said["started"])
        beat, now = said["beat"], self.clock()
        last, looked, silent = self._silences.get(id, (beat, now, 0.0))
        # A longer time between two looks was a pause of ours or of the storage, which may have stopped the other too.
        silent = silent + min(now - looked, self.grace / 2) if last == beat else 0.0
        self._silences[id] = beat, now, silent
        return silent <= self.grace

    def _write(self) -> None:
        """Write our register, which is a sign of life too."""
        self._beats += 1
        self._next_beat = self.clock() + self.grace / BEATS
        said = dict(came=self._came, beat=self._beats, holds=list(self.held), places=dict(self.places))
        self.storage.set_study_system_attr(self.study, f"{CONTROLLER}{self.me}", asdict(self.identity) | said)


def remove_side_study(storage: BaseStorage, study: str) -> None:
    """Delete the study that a version up to 0.1 kept its leases in, unless a person made it.

    Optuna's tools listed it beside the study, and `optuna.load_study(study_name=None)` did not know which to load.

    >>> import optuna
    >>> remove_side_study(optuna.storages.InMemoryStorage(), "cats")
    """
    if (side := find_study(storage, study + LEASES)) is None:
        return
    tokens = storage.get_all_trials(side, deepcopy=False)
    if tokens and all({"owner", "beat"} & set(token.user_attrs) for token in tokens):
        with suppress(KeyError):  # another controller was faster
            storage.delete_study(side)


def _machine() -> str:
    """Name machine, boot, namespace and user: processes with the same see each other in /proc."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and namespace.exists():
        return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink(namespace)} {os.getuid()}"
    return f"{socket.gethostname()} {uuid.getnode():x}"


def _started(pid: int) -> float | None:
    """Get when a process began, in ticks since boot or, without /proc, seconds; None if it has ended (zombies too)."""
    try:
        if Path("/proc/self/stat").exists():
            # In ticks since boot. psutil adds the time of boot, which moves when the clock is set.
            state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if state in "ZX" else float(fields[18])
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return None
