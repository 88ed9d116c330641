"""The loop with jobs that take no time and end as written, for the tests of it and of its parts."""

from pathlib import Path

import optuna

from steady.jobs.executor import Job
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.ledger import Ledger, Limits
from steady.run.scheduler import Scheduler
from steady.study.failures import Kind, Outcome
from steady.study.leases import Identity, Leases
from steady.study.trial_folders import Folders

GOOD = Outcome(Kind.COMPLETE, value=1.0)


class Script:
    """An executor whose jobs end as written, in the order in which they were started; `GOOD` when nothing is."""

    def __init__(self, slots: int, *ends: Outcome) -> None:
        self.slots, self.spare, self.ends = slots, 1, list(ends)
        self.prepared: list[int] = []
        self.busy: dict[int, Job] = {}
        self.started: list[int] = []
        self.most = 0
        self.stopped = False

    def submit(self, job: Job) -> int:
        slot = next(slot for slot in range(self.slots) if slot not in self.busy)
        self.busy[slot] = job
        self.started.append(job.number)
        self.most = max(self.most, len(self.busy))
        if job.number in self.prepared:
            self.prepared.remove(job.number)
        return slot

    def prepare(self, job: Job) -> None:
        self.prepared.append(job.number)

    def adopt(self, job: Job) -> int | None:
        return None

    forget = lambda self, number: self.prepared.remove(number)  # noqa: E731

    def running(self) -> dict[int, Job]:
        return dict(self.busy)

    def wait(self, timeout: float) -> list[tuple[Job, Outcome]]:
        if not self.busy:
            return []
        slot = min(self.busy, key=lambda slot: self.started.index(self.busy[slot].number))
        if self.stopped:
            return [(self.busy.pop(slot), Outcome(Kind.INTERRUPTED))]
        return [(self.busy.pop(slot), self.ends.pop(0) if self.ends else GOOD)]

    def stop(self) -> None:
        self.stopped = True

    kill = close = stop

    def cancel(self, number: int) -> None:
        raise AssertionError(f"job {number} was cancelled")


def scheduler(
    script: Script, limits: Limits, study: optuna.Study | None = None, name: str = "here", **keys: object
) -> Scheduler:
    study = study or optuna.create_study()
    space = Space.parse({"x": "interval(0.0, 1.0)"}, [])
    leases = Leases(study._storage, study.study_name, identity=Identity(name, 1, 0.0))
    leases.register()
    node = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    own = {key: keys.pop(key) for key in ("record", "refresh", "draw_ahead", "clock", "leftovers") if key in keys}
    ledger = Ledger(
        study, Proposer(study, space, Samplers(node, 0, space)), leases, Folders(Path()), limits,
        **{"event": lambda line: None, **keys},  # type: ignore[arg-type]
    )  # fmt: skip
    return Scheduler(ledger, script, lambda trial: space.overrides(trial.params), **own)  # type: ignore[arg-type]


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]
