"""The files through which a controller and an allocation of a cluster talk, in a folder that both machines see.

Each allocation has a folder with two files, each with one writer: `orders.json` says what the controller wants,
`report.json` what the allocation has done. Both are replaced as a whole, and found by name: what a network file system
lists may be old, and times are those of other clocks. In `SWEEP/jobs/trials/` a file for each attempt of a trial says
which allocation it was given to, so that a controller that goes on with the study finds what still runs.

No two start one job: an allocation says that it begins, and then looks whether its orders still stand; a controller
that takes them back writes that, and then looks whether the job has begun. One of them sees the other.
"""

import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from steady.atomic import write_bytes, write_json
from steady.jobs.executor import Job
from steady.jobs.worker import LARGEST, deserialize, serialize
from steady.study.failures import Outcome

SHARED, ORDERS, REPORT, TAKEN = "shared", "orders.json", "report.json", "taken"
OUTPUT, SCRIPT = "engine.log", "job.sh"  # of the engine
JOBS, TRIALS = "jobs", "trials"  # folder in a sweep's record, and in that
SILENT = 60.0  # seconds without a beat of its report after which an allocation is dead, for whom no engine says so
BEAT = 10.0  # seconds between two beats

T = TypeVar("T")


@dataclass(frozen=True)
class Orders:
    """What a controller wants of an allocation."""

    controller: str  # who writes here, see `ClusterExecutor.token`
    engine: str  # which runs it
    id: str = ""  # of the allocation, as its engine says; empty until it is known
    sequence: int = 0  # of the job, from 1 up: the next is to be run when the one before has ended
    job: Job | None = None
    more: bool = True  # whether another job may come
    stop: bool = False  # the job is to stop at its next checkpoint; one that has not begun is not to begin


@dataclass(frozen=True)
class Report:
    """What an allocation has done."""

    host: str = ""
    pid: int = 0
    beat: int = 0  # changes every `BEAT` seconds
    begun: int = 0  # sequence of the job that was begun last
    ended: int = 0  # of the one that has ended last
    outcome: Outcome | None = None  # of that one
    terminated: bool = False  # the engine sent SIGTERM: a time limit, a preemption, somebody who cancels
    left: bool = False  # nothing more will come


@dataclass(frozen=True)
class JobFiles:
    """The two files of an allocation.

    >>> files = JobFiles(Path("jobs/a/1").absolute())
    >>> files.give(Orders("a", "slurm", job=Job(3, ("x=1",), Path("out/3")), sequence=1))
    >>> files.orders().job.number, files.report().begun
    (3, 0)
    """

    folder: Path  # absolute

    def give(self, orders: Orders) -> None:
        """Write orders."""
        job = orders.job and {**asdict(orders.job), "folder": str(orders.job.folder)}
        write_json(self.folder / ORDERS, {**vars(orders), "job": job})

    def orders(self) -> Orders | None:
        """Read the orders; None if there are none."""
        return _read(self.folder / ORDERS, _orders)

    def tell(self, report: Report) -> None:
        """Write a report."""
        outcome = report.outcome and json.loads(serialize(report.outcome))
        write_json(self.folder / REPORT, {**vars(report), "outcome": outcome})

    def report(self) -> Report:
        """Read the report."""
        return _read(self.folder / REPORT, _report) or Report()

    def take(self) -> bool:
        """Take the folder for this process; False if another has: an engine may start an allocation twice."""
        try:
            os.close(os.open(self.folder / TAKEN, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def remove(self) -> None:
        """Remove the folder, which we made."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def output(self) -> str:
        """The last lines that the allocation has printed."""
        with suppress(OSError), (self.folder / OUTPUT).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
            return log.read().decode(errors="replace").strip()
        return ""


def write_shared(folder: Path, header: Mapping[str, Any], static: bytes) -> str:
    """Write what all jobs share, a line of JSON and a pickle, and return its digest, by which it is known.

    >>> digest = write_shared(Path("jobs/a"), {"cwd": "/work"}, b"pickle")
    >>> read_shared(Path("jobs/a"), digest)
    ({'cwd': '/work'}, b'pickle')
    """
    whole = json.dumps(dict(header)).encode() + b"\n" + static
    write_bytes(folder / SHARED, whole)
    return hashlib.sha256(whole).hexdigest()


def read_shared(folder: Path, digest: str) -> tuple[dict[str, Any], bytes]:
    """Read what all jobs share; a ValueError if it is not what was written: a pickle runs what its writer wants."""
    whole = (folder / SHARED).read_bytes()
    if hashlib.sha256(whole).hexdigest() != digest:
        raise ValueError(f"{folder / SHARED} is not what the controller has written; nothing of it was read.")
    head, _, static = whole.partition(b"\n")
    return dict(json.loads(head)), static


@dataclass(frozen=True)
class TrialFiles:
    """The files that say which allocation an attempt of a trial was given to.

    >>> trials = TrialFiles(Path("jobs").absolute())
    >>> job = Job(3, (), Path("out/3"), study="cats", attempt=1)
    >>> trials.assign(job, new_folder(trials.root) / "1", 1)
    >>> files, sequence = trials.find(job)
    >>> files.folder.name, sequence
    ('1', 1)
    """

    root: Path  # absolute: `jobs` in the sweep's record

    def assign(self, job: Job, folder: Path, sequence: int) -> None:
        """Note that a job is that of this sequence in an allocation."""
        write_json(self._path(job), {"allocation": str(folder.relative_to(self.root)), "sequence": sequence})

    def find(self, job: Job) -> tuple[JobFiles, int] | None:
        """Find the allocation that a job was given to; None if there is none."""
        found = _read(self._path(job), _assignment)
        return None if found is None else (JobFiles(self.root / found[0]), found[1])

    def forget(self, job: Job) -> None:
        """Remove the note."""
        self._path(job).unlink(missing_ok=True)

    def _path(self, job: Job) -> Path:
        return self.root / TRIALS / quote(job.study, safe="") / f"{job.number}-{job.attempt}.json"


class Left(Enum):
    """What there is of a job that a controller before left behind, where nothing was returned of it."""

    NOTHING = "nothing"
    STOPPING = "stopping"  # it was told to stop; to be asked again


@dataclass
class Leftovers:
    """Jobs that an earlier controller has sent to an engine that is not this sweep's."""

    root: Path
    clock: Callable[[], float] = time.monotonic
    _beats: dict[Path, tuple[int, float]] = field(default_factory=dict)  # by folder: last beat, and when it was new

    def dismiss(self, job: Job) -> Outcome | Left:
        """Tell a job to stop; returns how it ended, if it has. One that has not begun never will."""
        if (found := TrialFiles(self.root).find(job)) is None:
            return Left.NOTHING
        files, sequence = found
        orders = files.orders()
        if orders is None or orders.sequence != sequence:
            return Left.NOTHING
        if not orders.stop:
            files.give(replace(orders, more=False, stop=True))
        report = files.report()
        if report.ended >= sequence and report.outcome is not None:
            return report.outcome
        if report.begun < sequence or report.left or self._silent(files.folder, report.beat):
            return Left.NOTHING
        return Left.STOPPING

    def _silent(self, folder: Path, beat: int) -> bool:
        known, since = self._beats.get(folder, (None, 0.0))
        if known != beat:
            self._beats[folder] = beat, self.clock()
            return False
        return self.clock() - since > SILENT


def new_folder(root: Path) -> Path:
    """Make the folder of a controller's allocations.

    >>> new_folder(Path("jobs").absolute()).is_dir()
    True
    """
    folder = root / uuid.uuid4().hex[:12]
    folder.mkdir(parents=True)
    return folder


def clear(root: Path) -> None:
    """Remove what controllers that were killed have left, once no job runs or waits; logs of what never began stay.

    >>> JobFiles(new_folder(Path("left").absolute()) / "1").give(Orders("a", "slurm"))
    >>> clear(Path("left"))
    >>> Path("left").exists()
    False
    """
    for folder in root.glob("[0-9a-f]" * 12):
        for allocation in (path for path in folder.glob("[1-9]*") if path.name.isdecimal()):
            files = JobFiles(allocation)
            log = () if files.output and not files.report().begun else (OUTPUT,)
            _remove(allocation, ORDERS, REPORT, TAKEN, SCRIPT, *log)
        _remove(folder, SHARED)
    for study in (root / TRIALS).glob("*"):
        _remove(study, *(path.name for path in study.glob("*.json") if re.fullmatch(r"\d+-\d+\.json", path.name)))
    _remove(root / TRIALS)
    _remove(root)


def _remove(folder: Path, *names: str) -> None:
    """Remove files, and the folder if it is then empty; what cannot be removed stays."""
    for remove in (*((folder / name).unlink for name in names), folder.rmdir):
        with suppress(OSError):
            remove()


def _read(path: Path, convert: Callable[[Any], T]) -> T | None:
    """Read a file of ours; None if it is not there, or is not one."""
    damaged = (ValueError, KeyError, TypeError, OverflowError, RecursionError)  # JSON's Infinity is no whole number
    with suppress(OSError, *damaged), path.open("rb") as file:
        return convert(json.loads(file.read(2 * LARGEST)))
    return None


def _orders(told: Any) -> Orders:
    job = told["job"]
    if job is not None:
        words = tuple(map(str, job["overrides"]))
        job = Job(int(job["number"]), words, Path(job["folder"]), str(job["study"]), int(job["attempt"]))
    names = {name: str(told[name]) for name in ("controller", "engine", "id")}
    return Orders(
        **names, sequence=int(told["sequence"]), job=job, more=told["more"] is True, stop=told["stop"] is True
    )


def _report(told: Any) -> Report:
    outcome = None if told["outcome"] is None else deserialize(json.dumps(told["outcome"]).encode())
    pid, beat, begun, ended = (int(told[name]) for name in ("pid", "beat", "begun", "ended"))
    terminated, left = (told[name] is True for name in ("terminated", "left"))
    return Report(str(told["host"]), pid, beat, begun, ended, outcome, terminated, left)


def _assignment(told: Any) -> tuple[str, int]:
    name = str(told["allocation"])
    if not re.fullmatch(r"[0-9a-f]{12}/[0-9]{1,9}", name):
        raise ValueError(name)
    return name, int(told["sequence"])
