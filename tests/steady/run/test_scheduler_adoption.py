"""Trials of a controller that is gone, whose jobs live on: adopted, waited for, or set back, and never begun twice."""

from pathlib import Path
from typing import cast

import optuna
from tests.steady.scripted import GOOD, Script, scheduler, states

from steady.jobs.executor import Job
from steady.jobs.job_files import Left, Leftovers
from steady.run.ledger import Limits
from steady.study import meta
from steady.study.failures import Kind, Outcome


class Adopting(Script):
    """Adopts the jobs of these trials."""

    def __init__(self, slots: int, adopts: tuple[int, ...], *ends: Outcome) -> None:
        super().__init__(slots, *ends)
        self.adopts = adopts
        self.asked: list[Job] = []

    def adopt(self, job: Job) -> int | None:
        self.asked.append(job)
        if job.number not in self.adopts:
            return None
        self.started.append(job.number)
        self.busy[10 + job.number] = job
        return 10 + job.number


class Scripted:
    """Stands for `Leftovers`: says this of a job, one after the other."""

    def __init__(self, *said: Outcome | Left) -> None:
        self.said = list(said)

    def dismiss(self, job: Job) -> Outcome | Left:
        return self.said.pop(0)


def left_by_another(n: int, name: str = "cats") -> optuna.Study:
    """A study with trials that a controller had begun, which is gone."""
    study = optuna.create_study(study_name=name)
    loop = scheduler(Script(n), Limits(n), study, "gone")
    for _ in range(n):
        loop.ledger.acquire()
    loop.ledger.leases.close()
    assert states(study) == ["RUNNING"] * n
    return study


def test_a_job_that_lives_is_adopted_with_its_attempt_and_no_trial_starts_in_its_place() -> None:
    study = left_by_another(2)
    lines: list[str] = []
    script = Adopting(1, (0, 1))
    loop = scheduler(script, Limits(3), study, event=lines.append)
    loop.run()
    assert script.started == [0, 1, 2]
    assert script.most == 1  # the third began when both had ended
    assert states(study) == ["COMPLETE"] * 3
    assert [trial.user_attrs[meta.ATTEMPT] for trial in study.trials] == [0, 0, 0]
    assert script.asked[:2] == [Job(0, (), Path("0"), "cats"), Job(1, (), Path("1"), "cats")]
    assert lines[0] == "trial 0 goes on in the job that a controller that is gone had started"


def test_a_job_that_was_lost_meanwhile_is_retried_as_any_other() -> None:
    study = left_by_another(1)
    script = Adopting(1, (0,), Outcome(Kind.LOST, message="its node died"))
    scheduler(script, Limits(1), study).run()
    assert script.started == [0, 0]
    assert study.trials[0].user_attrs[meta.ATTEMPT] == 1
    assert study.trials[0].user_attrs[meta.LOST_COUNT] == 1


def test_one_that_another_executor_left_is_waited_for_until_it_has_stopped() -> None:
    study = left_by_another(1)
    script, now = Script(1), [0.0]

    def clock() -> float:
        now[0] += 1.0
        return now[0]

    leftovers = cast(Leftovers, Scripted(Left.STOPPING, Left.STOPPING, Outcome(Kind.INTERRUPTED)))
    loop = scheduler(script, Limits(1), study, clock=clock, leftovers=leftovers)
    loop.run()
    assert script.started == [0]
    assert study.trials[0].user_attrs[meta.ATTEMPT] == 1
    assert states(study) == ["COMPLETE"]


def test_an_outcome_that_another_executor_left_counts() -> None:
    study = left_by_another(1)
    script = Script(1)
    scheduler(script, Limits(1), study, leftovers=cast(Leftovers, Scripted(GOOD))).run()
    assert script.started == []
    assert states(study) == ["COMPLETE"]


def test_what_nothing_is_left_of_goes_on_under_the_next_attempt() -> None:
    study = left_by_another(1)
    script = Adopting(1, ())
    scheduler(script, Limits(1), study, leftovers=cast(Leftovers, Scripted(Left.NOTHING))).run()
    assert script.started == [0]
    assert study.trials[0].user_attrs[meta.ATTEMPT] == 1


def test_a_job_in_a_queue_began_when_it_says() -> None:
    study = left_by_another(1)
    trial = study.trials[0]
    told = {"engine": "slurm", "attempt": 0, "began": 1000.0}
    study._storage.set_trial_user_attr(trial._trial_id, meta.JOB, told)
    scheduler(Adopting(1, (0,)), Limits(1), study).run()
    assert study.trials[0].user_attrs[meta.RUNS][0]["start"] == 1000.0


def test_one_that_left_the_queue_before_it_began_is_said_to_begin() -> None:
    study = optuna.create_study(study_name="cats")
    lines: list[str] = []
    waited = Outcome(Kind.INTERRUPTED, message="It was taken out of the queue.", began=False)
    scheduler(Script(1, waited), Limits(1), study, event=lines.append).run()
    assert "trial 0 was taken out of the queue, and begins when its turn comes" in lines
    assert not [line for line in lines if "checkpoint" in line]
    assert len(study.trials[0].user_attrs[meta.RUNS]) == 1  # it did not run while it waited


def test_one_that_had_a_checkpoint_before_it_waited_goes_on_from_it() -> None:
    study = left_by_another(1)
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.JOB, {"attempt": 0})
    lines: list[str] = []
    script = Adopting(1, (0,), Outcome(Kind.INTERRUPTED, began=False))
    scheduler(script, Limits(1), study, event=lines.append).run()
    assert "trial 0 was taken out of the queue, and goes on from its checkpoint when its turn comes" in lines
