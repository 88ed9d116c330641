"""What the controller costs for each trial, around the 100th, 1,000th and 10,000th: time, statements, memory.

    python tests/benchmarks/overhead.py [TRIALS] [--slots 8 32 100] [--storages sqlite journal postgresql]

Prints a table in Markdown. The trials are fakes of 0.05 to 1 s that use no processor: the clock is set forward instead
of waiting for them. All else is the real sweep, with a random sampler and five parameters. Columns: milliseconds of the
controller for each trial, and those of them on its own processor; statements that it sends, and trials that it reads,
for each trial; its memory; milliseconds in which TPE draws one trial from as many, which the others hold nothing of.
"""

import argparse
import contextlib
import dataclasses
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parents[2] / "src"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import optuna
import psutil
import sqlalchemy
from hydra import compose, initialize_config_dir
from optuna.storages._rdb.models import TrialModel
from tests.engines.postgres import Postgres, find_binaries

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.jobs.executor import Job
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.job_factory import JobFactory
from steady.run.ledger import Ledger
from steady.run.scheduler import Scheduler
from steady.storage import open_storage
from steady.study.failures import Kind, Outcome
from steady.sweep import Sweep

STORAGES, SLOTS, TRIALS = ("sqlite", "journal", "postgresql"), (8, 32, 100), 1000
MARKS = (100, 1000, 10_000)
SPACE = {
    "lr": "tag(log, interval(1e-5, 1e-1))", "dropout": "interval(0.0, 0.5)", "width": "range(16, 128)",
    "optimizer": "choice(adam, sgd, lion)", "depth": "choice(2, 3, 4)",
}  # fmt: skip
SHORTEST, LONGEST = 0.05, 1.0  # seconds of a trial
BEFORE = 200  # trials before a mark over which is measured, at most, and at most half of all


class Clock:
    """A clock that is set forward where one would wait."""

    skipped = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped


class Used(NamedTuple):
    """What was used up until so many trials had ended."""

    ended: int
    seconds: float  # of the controller
    cpu: float
    statements: int
    read: int  # trials, out of a database


class FakeExecutor:
    """Runs nothing; keeps the books between the return of one `wait` and the next call."""

    def __init__(self, slots: int, sweep: options.SweepOptions, space: Space, marks: list[int]) -> None:
        self.slots, self.spare, self.sweep, self.space, self.marks = slots, max(1, slots // 4), sweep, space, marks
        self.clock = Clock()
        self.busy: dict[int, Job] = {}
        self.ends: list[tuple[float, int]] = []  # a heap: when, slot
        self.draw = random.Random(0)
        self.used: list[Used] = []  # at each look for what has ended
        self.at: dict[int, tuple[int, float]] = {}  # by mark: bytes of memory, seconds of TPE for one draw
        self.ended = self.statements = self.read = 0
        self.seconds = self.cpu = 0.0
        sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", self._count_statement)
        sqlalchemy.event.listen(TrialModel, "load", self._count_trial)
        self.since: tuple[float, float] | None = (time.monotonic(), time.process_time())

    def _count_statement(self, *_: Any) -> None:
        self.statements += self.since is not None

    def _count_trial(self, *_: Any) -> None:
        self.read += self.since is not None

    def prepare(self, job: Job) -> None:
        pass

    def forget(self, number: int) -> None:
        pass

    def submit(self, job: Job) -> int:
        slot = next(slot for slot in range(self.slots) if slot not in self.busy)
        self.busy[slot] = job
        heapq.heappush(self.ends, (self.clock() + self.draw.uniform(SHORTEST, LONGEST), slot))
        return slot

    def running(self) -> dict[int, Job]:
        return dict(self.busy)

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        assert self.since is not None
        self.seconds += time.monotonic() - self.since[0]
        self.cpu += time.process_time() - self.since[1]
        self.since = None
        self.clock.skipped += max(0.0, min(self.ends[0][0] - self.clock() if self.ends else timeout, timeout))
        ended = []
        while self.ends and self.ends[0][0] <= self.clock():
            ended.append((self.busy.pop(heapq.heappop(self.ends)[1]), Outcome(Kind.COMPLETE, value=self.draw.random())))
        before, self.ended = self.ended, self.ended + len(ended)
        self.used.append(Used(before, self.seconds, self.cpu, self.statements, self.read))
        for mark in self.marks:
            if before < mark <= self.ended:
                self.at[mark] = psutil.Process().memory_info().rss, self._tpe()
        self.since = (time.monotonic(), time.process_time())
        return ended

    def _tpe(self) -> float:
        """Processor seconds of a draw, the least of three."""
        study = optuna.load_study(study_name=self.sweep.study, storage=open_storage(self.sweep.storage))
        trials = study.get_trials(deepcopy=False)
        took = []
        for seed in range(3):
            proposer = Proposer(study, self.space, Samplers({"_target_": options.TPE}, seed, self.space))
            start = time.process_time()
            proposer.propose(trials)
            took.append(time.process_time() - start)
        return min(took)

    def stop(self) -> None:
        pass

    kill = close = stop

    def adopt(self, job: Job) -> None:
        return None

    def cancel(self, number: int) -> None:
        raise AssertionError(f"job {number} was cancelled")


class FakeJobs(JobFactory):
    """Makes the jobs of the sweep as ever, and an executor that runs none."""

    def executor(self) -> FakeExecutor:
        made.append(FakeExecutor(self.options.slots, self.options, self.space, _marks(self.options.n_trials)))
        return made[0]


made: list[FakeExecutor] = []


def _start(mark: int) -> int:
    return mark - min(mark // 2, BEFORE)


def _marks(trials: int) -> list[int]:
    return [mark for mark in MARKS if mark <= trials] or [trials]


def run(url: str, slots: int, trials: int) -> list[dict[str, float]]:
    """Run one sweep here, in the working directory; a row for each mark."""
    with initialize_config_dir(str(Path(__file__).parent / "sleeper")):
        config = compose("config", ["hydra.sweep.dir=out"], return_hydra_config=True)
    keys = {field.name: getattr(SteadySweeperConf(), field.name) for field in dataclasses.fields(SteadySweeperConf)}
    keys |= dict(study_name="fake", storage=url, n_jobs=slots, n_trials=trials, gpus=[])
    keys["sampler"] = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    jobs = FakeJobs(options.read(keys, "fake", "out"), Space.parse(SPACE, []), None, print, config)  # type: ignore[arg-type]  # no context: nothing is composed

    def scheduler(ledger: Ledger, executor: FakeExecutor, **more: Any) -> Scheduler:
        return Scheduler(ledger, executor, clock=executor.clock, **more)

    with open("said", "w") as said, contextlib.redirect_stdout(said), patch("steady.sweep.Scheduler", scheduler):
        Sweep(jobs).run()
    rows = []
    for mark in made[0].marks:
        looks = made[0].used
        start = [look for look in looks if look.ended <= _start(mark)][-1]
        end = next((look for look in looks if look.ended >= mark), looks[-1])  # several may have ended between two
        n = max(1, end.ended - start.ended)
        used = {name: (getattr(end, name) - getattr(start, name)) / n for name in Used._fields[1:]}
        memory, tpe = made[0].at[mark]
        rows.append({"trial": mark, **used, "memory": memory, "tpe": tpe})
    return rows


def measure(url: str, slots: int, trials: int) -> list[dict[str, float]]:
    """Run one sweep in a process of its own."""
    with tempfile.TemporaryDirectory() as place:
        words = [sys.executable, __file__, str(trials), "--slots", str(slots), "--one", url]
        done = subprocess.run(
            words, cwd=place, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return list(json.loads(done.stdout.splitlines()[-1]))


def compare(storages: list[str], slots: list[int], trials: int, server: Postgres | None) -> None:
    """Print the table."""
    print("| storage | slots | trial | ms | CPU ms | statements | trials read | MiB | TPE, ms |")
    print("| --- " + "| ---: " * 8 + "|")
    for storage in storages:
        for n in slots:
            url = f"{storage}:///study"
            if storage == "postgresql":
                if server is None:
                    continue
                url = server.database(f"fake{n}")
            for row in measure(url, n, trials):
                times = f"{1000 * row['seconds']:.1f} | {1000 * row['cpu']:.1f}"
                counts = f"{row['statements']:.1f} | {row['read']:.1f} | {row['memory'] / 2**20:.0f}"
                print(
                    f"| {storage} | {n} | {row['trial']:,} | {times} | {counts} | {1000 * row['tpe']:.0f} |", flush=True
                )


def main() -> None:
    """Measure and print."""
    words = argparse.ArgumentParser()
    words.add_argument("trials", nargs="?", type=int, default=TRIALS)
    words.add_argument("--slots", nargs="+", type=int, default=SLOTS)
    words.add_argument("--storages", nargs="+", choices=STORAGES, default=STORAGES)
    words.add_argument("--one", help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.one:
        print(json.dumps(run(given.one, given.slots[0], given.trials)))
        return
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        Path(folder).chmod(0o755)
        installed = find_binaries() and find_spec("psycopg")
        server = Postgres(Path(folder) / "server") if "postgresql" in given.storages and installed else None
        if server is None and "postgresql" in given.storages:
            print("PostgreSQL or psycopg is not installed, and left out (apt-get install postgresql).\n")
        try:
            if server is not None:
                server.create()
            compare(given.storages, given.slots, given.trials, server)
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
