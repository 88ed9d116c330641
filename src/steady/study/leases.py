"""Leases of trials: locks and claims that several controllers share, among the attributes of the study itself.

Optuna has no atomic claim of a running trial, and heartbeats only for databases. What every storage of it has is
attributes of a study: registers that anybody writes and everybody reads, all at once. That is enough. Each controller
writes one of its own, with what it is, what it holds and where it stands in the queue for a lock; a lock is Lamport's
bakery (CACM 17(8), 1974) over these. Who finds nobody else in the queue while it still chooses its number has the lock:
whoever comes later sees that it chooses, and waits. So a lock that nobody else wants is two small writes and a read.

A controller lives as long as it gives signs of life: on the same machine whether its process lives, from another
machine whether its register still changes, by one's own clock, since clocks of two machines need not agree. Whoever
finds one dead says so in a second register, which nobody takes back; that makes it so for all, and for the dead one,
should it wake up.
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

from steady.study.storage import LEASES, find_study

log = logging.getLogger(__name__)

CONTROLLER = "steady:controller:"  # and an id: the register of a controller; null when it has ended
# Those of versions up to 0.1 (`catsweep:controller:`) are not read: a controller lives no longer than its process, and
# no two versions drive a study at once.
DEAD = "steady:dead:"  # and an id: it was found dead
BEATS = 4  # signs of life in one period of grace
CHOOSING = 0  # the place in a queue of one that has no number yet, or came when nobody else was there
CLAIMS = "claim"  # the lock under which names are claimed


@dataclass(frozen=True)
class Identity:
    """The identity of a process among those of all machines.

    Attributes:
        machine: equal for two processes that can see each other.
        pid: its number there.
        started: when it began (see `_started`), for a number may be used again.

    Example:
        >>> Identity.own() == Identity.own()
        True
    """

    machine: str
    pid: int
    started: float

    @classmethod
    def own(cls) -> "Identity":
        """Get that of this process."""
        return cls(_machine(), os.getpid(), _started(os.getpid()) or 0.0)


@dataclass
class _Silence:
    """The silence of a controller on another machine: its last beat, and for how many seconds it has been the same."""

    beat: Any
    looked: float
    lasted: float = 0.0


class Leases:
    """The locks and claims of one controller. Not for several threads.

    Args:
        storage: the study's.
        study: its name; it exists.
        grace: seconds without a sign of life after which a controller on another machine is dead.
        identity: of this controller.
        clock: seconds.

    Example:
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
        self._silences: dict[str, _Silence] = {}  # by the controller's id

    def register(self) -> None:
        """Become a controller, with no claims. Nothing can be claimed before."""
        self.me, self.held, self.places = uuid.uuid4().hex[:12], [], {}
        self._came = 1 + max((said["came"] for said in self._look().values()), default=0)
        self._write()

    def beat(self) -> None:
        """Give a sign of life and look for those of others; call it often, it does something only when it is due."""
        if self.clock() >= self._next_beat:
            self._write()
            self._look()

    def close(self) -> None:
        """Release everything, and be no controller any more."""
        if self.me is not None:
            self.storage.set_study_system_attr(self.study, CONTROLLER + self.me, None)
        self.me, self.held, self.places = None, [], {}

    def controllers(self) -> list[Identity]:
        """List those that live, this one included, in the order in which they came."""
        came = sorted(self._look().items(), key=lambda one: (one[1]["came"], one[0]))
        return [_identity(said) for _, said in came]

    def claim(self, name: str) -> bool:
        """Take a name if no living controller has it; waits for those that claim at this moment, and for no holder."""
        if name in self.held and self.holds(name):
            return True
        with self.lock(CLAIMS):
            self.take(name)
            self._write()  # before we look, as those do who want it for a lock
            if not self._rivals(name):
                return True
            self.held.remove(name)
        return False

    def take(self, name: str) -> None:
        """Take a name that no other can have, under a lock that keeps them from it; the end of the lock tells it."""
        self.held.append(name)
        if not self.places:
            self._write()

    def release(self, name: str) -> None:
        """Give a name back; one that we do not have is no error."""
        if name in self.held or name in self.places:
            self.places.pop(name, None)
            self.held = [other for other in self.held if other != name]
            self._write()

    def holds(self, name: str) -> bool:
        """Tell whether a name that we claimed is still ours: another controller may have taken us for dead."""
        self._look()
        return name in self.held or name in self.places

    def owned(self, name: str) -> bool:
        """Tell whether any living controller has the name, or is about to take it, this one included."""
        return any(name in said["holds"] or name in said["places"] for said in self._look().values())

    @contextmanager
    def lock(self, name: str, poll: float = 0.02) -> Iterator[None]:
        """Hold a name for a moment; those who wait get it in the order in which they came.

        The name must be one that we do not hold; `poll` is in seconds.
        """
        assert self.me is not None, "register first"
        assert name not in self.held, f"we would wait for ourselves: {name}"
        assert name not in self.places, f"we would wait for ourselves: {name}"
        try:
            while not self._first(name):
                time.sleep(poll)
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
        """List places and ids of the others in the queue for a name; one that claimed it stands before all."""
        others = [(id, said) for id, said in self._look().items() if id != self.me]
        waiting = [(said["places"][name], id) for id, said in others if name in said["places"]]
        return waiting + [(CHOOSING, id) for id, said in others if name in said["holds"]]

    def _look(self) -> dict[str, dict[str, Any]]:
        """Read what the living controllers say, by id. Those that are found dead are told so."""
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
        other, beat, now = _identity(said), said["beat"], self.clock()
        if other.machine == self.identity.machine:
            return _started(other.pid) == other.started
        known = self._silences.get(id)
        if known is None or known.beat != beat:
            known = self._silences[id] = _Silence(beat, now)
        # Long between two looks was a pause of ours, or of the storage. The other may have been stopped by the same.
        known.lasted += min(now - known.looked, self.grace / 2)
        known.looked = now
        return known.lasted <= self.grace

    def _write(self) -> None:
        """Write our register, which is a sign of life too."""
        self._beats += 1
        self._next_beat = self.clock() + self.grace / BEATS
        said = {
            **asdict(self.identity),
            "came": self._came,
            "beat": self._beats,
            "holds": list(self.held),
            "places": dict(self.places),
        }
        self.storage.set_study_system_attr(self.study, f"{CONTROLLER}{self.me}", said)


def remove_side_study(storage: BaseStorage, study: str) -> None:
    """Delete the study that a version up to 0.1 kept beside a study, and nobody reads any more.

    Optuna's tools listed it beside the study, and `optuna.load_study(study_name=None)` did not know which to load.

    Example:
        >>> import optuna
        >>> remove_side_study(optuna.storages.InMemoryStorage(), "cats")
    """
    if (side := find_study(storage, study + LEASES)) is None:
        return
    tokens = storage.get_all_trials(side, deepcopy=False)
    ours = bool(tokens) and all({"owner", "beat"} & set(token.user_attrs) for token in tokens)
    if ours:  # else a person made it
        with suppress(KeyError):  # another controller was faster
            storage.delete_study(side)


def _identity(said: dict[str, Any]) -> Identity:
    return Identity(*(said[key] for key in ("machine", "pid", "started")))


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
