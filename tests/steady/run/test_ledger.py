"""What a study is told of the end of a job, and which failures end the sweep."""

import math
from pathlib import Path
from unittest.mock import Mock

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from tests.steady.scripted import GOOD, Script, scheduler, states

from steady.exceptions import StudyError
from steady.jobs.executor import Job
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.ledger import Limits
from steady.run.scheduler import Scheduler
from steady.study import budget, meta
from steady.study.constraints import parse_all
from steady.study.failures import Kind, Outcome, classify
from steady.study.results import state
from steady.study.select import best_trials


def test_each_kind_of_end_is_told_as_what_it_is() -> None:
    kinds = [Kind.COMPLETE, Kind.PRUNED, Kind.OUT_OF_MEMORY, Kind.DIVERGED, Kind.FAILED]
    script = Script(1, *(Outcome(kind, value=1.0, message="why", traceback="where") for kind in kinds))
    loop = scheduler(script, Limits(5))
    loop.run()
    assert states(loop.ledger.study) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
    trials = loop.ledger.study.trials
    assert [trial.user_attrs[meta.OUTCOME] for trial in trials] == [kind.value for kind in kinds]
    assert [bool(trial.constraints) for trial in trials] == [False, False, True, True, False]
    assert trials[4].user_attrs[meta.TRACEBACK] == "where"
    assert loop.ledger.study.best_trial.number == 0


def test_a_lost_trial_starts_again_as_often_as_retries_say() -> None:
    lost = Outcome(Kind.LOST, message="SIGKILL")
    script = Script(1, lost, lost, lost)
    loop = scheduler(script, Limits(2, retries=2))
    loop.run()
    assert script.started == [0, 0, 0, 1]
    assert states(loop.ledger.study) == ["FAIL", "COMPLETE"]
    assert loop.ledger.study.trials[0].user_attrs[meta.ATTEMPT] == 2


@pytest.mark.parametrize(
    ("error", "state"),
    [(SystemExit(143), "WAITING"), (KeyboardInterrupt(), "WAITING"), (ValueError("no"), "FAIL")],
    ids=["exit", "two signals", "failure"],
)
def test_a_trial_that_leaves_as_we_stop_was_interrupted(
    error: BaseException, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if isinstance(error, KeyboardInterrupt):  # the second comes while the first is classified
            patch.setattr("traceback.format_exception", Mock(side_effect=KeyboardInterrupt))
        outcome = classify(error)
    assert outcome.kind == Kind.FAILED
    loop = scheduler(Script(1), Limits(1))
    assert loop.ledger.acquire() is not None
    loop.ledger.stop.requested = True
    loop.ledger.finish(Job(0, (), Path("out/0")), outcome, 0, 0.0)
    assert states(loop.ledger.study) == [state]


def test_a_task_that_exits_by_itself_failed() -> None:
    loop = scheduler(Script(1, classify(SystemExit(143))), Limits(1))
    loop.run()
    assert states(loop.ledger.study) == ["FAIL"]


@pytest.mark.security
def test_a_full_disk_stops_the_sweep_at_once_and_costs_the_trial_nothing() -> None:
    full = Outcome(Kind.DISK_FULL, message="PlaceError: outputs cannot be written: no space is left there")
    loop = scheduler(Script(1, full), Limits(3, retries=1))
    with pytest.raises(StudyError, match=r"outputs cannot.* Make room and give the same command"):
        loop.run()
    assert states(loop.ledger.study) == ["WAITING"]
    script = Script(1)
    scheduler(script, Limits(3, retries=1), loop.ledger.study, "again").run()
    assert script.started == [0, 1, 2]
    assert states(loop.ledger.study) == ["COMPLETE"] * 3


def test_a_trial_that_hung_fails_and_is_not_tried_again_and_the_sweep_goes_on() -> None:
    hung = Outcome(Kind.TIMED_OUT, message="No sign of progress for 60 s", traceback='  File "a.py", line 3 in step')
    script = Script(1, hung, hung)
    loop = scheduler(script, Limits(3, retries=2))
    loop.run()
    assert script.started == [0, 1, 2]
    assert states(loop.ledger.study) == ["FAIL", "FAIL", "COMPLETE"]
    told = loop.ledger.study.trials[0].user_attrs
    assert told[meta.OUTCOME] == "timed out"
    assert told[meta.MESSAGE] == hung.message
    assert told[meta.TRACEBACK] == hung.traceback
    assert told[meta.LOG] == "0"
    with pytest.raises(StudyError, match="in step"):  # all in one place: no luck of one trial
        scheduler(Script(1, hung, hung, hung), Limits(9)).run()


def test_values_that_are_none_fail_the_trial() -> None:
    loop = scheduler(Script(1, Outcome(Kind.COMPLETE, value=None)), Limits(2))
    loop.run()
    assert states(loop.ledger.study) == ["FAIL", "COMPLETE"]
    assert "float-castable" in loop.ledger.study.trials[0].user_attrs[meta.MESSAGE]


def test_infinite_values_are_bad_ones_that_samplers_learn_from_with_the_reason() -> None:
    ends = [Outcome(Kind.COMPLETE, value=value) for value in (-math.inf, math.inf, 3.0)]
    loop = scheduler(Script(1, *ends), Limits(3, max_same_failures=1))
    loop.run()
    assert states(loop.ledger.study) == ["PRUNED", "PRUNED", "COMPLETE"]
    assert loop.ledger.study.best_trial.number == 2
    for trial in loop.ledger.study.trials[:2]:
        assert trial.constraints == {"diverged": 1.0}
        assert "must be finite" in trial.user_attrs[meta.MESSAGE]


def test_one_infinite_value_of_several_is_enough() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    loop = scheduler(Script(1, Outcome(Kind.COMPLETE, value=[1.0, math.inf]), GOOD), Limits(1), study)
    loop.run()
    assert states(study) == ["PRUNED"]
    assert study.best_trials == []


def test_the_same_failure_in_a_row_ends_the_sweep_others_do_not() -> None:
    same = Outcome(Kind.FAILED, message="no such file", traceback="")
    with pytest.raises(StudyError, match="no such file"):
        scheduler(Script(1, same, same, same), Limits(9)).run()
    loop = scheduler(Script(1, same, same, GOOD, same, same), Limits(6))
    loop.run()
    assert states(loop.ledger.study).count("FAIL") == 4


def test_too_high_a_share_of_failures_ends_the_sweep() -> None:
    failures = [Outcome(Kind.FAILED, message=text) for text in "abcd"]
    loop = scheduler(Script(2, failures[0], GOOD, failures[1]), Limits(9, max_failure_rate=0.0, window=2))
    with pytest.raises(StudyError, match="max_failure_rate"):
        loop.run()
    assert states(loop.ledger.study) == ["FAIL", "WAITING"]


def test_the_end_of_a_trial_that_was_taken_over_is_ignored() -> None:
    events: list[str] = []
    loop = scheduler(Script(1), Limits(1), event=events.append)
    assert loop.ledger.acquire() is not None
    assert loop.ledger.owns(0)
    loop.ledger.leases.release("trial/0")
    assert not loop.ledger.owns(0)
    loop.ledger.finish(Job(0, (), Path("0")), GOOD, slot=0, begun=0.0)
    assert states(loop.ledger.study) == ["RUNNING"]
    assert "taken over" in events[-1]


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        *((kind, TrialState.COMPLETE) for kind in Kind),
        (Kind.COMPLETE, TrialState.WAITING),
        (Kind.FAILED, TrialState.WAITING),
    ],
)
def test_a_trial_that_is_ended_or_set_back_while_we_tell_of_it_is_let_be(kind: Kind, state: TrialState) -> None:
    """A controller that slept, and was taken for dead, wakes up between our look and our word."""
    events: list[str] = []

    def other(number: int, folder: Path) -> None:
        values = [5.0] if state == TrialState.COMPLETE else None
        loop.ledger.study._storage.set_trial_state_values(loop.ledger.study.trials[number]._trial_id, state, values)

    loop = scheduler(Script(1), Limits(1), event=events.append, attach=other)
    assert loop.ledger.acquire() is not None
    loop.ledger.finish(Job(0, (), Path("0")), Outcome(kind, value=1.0, message="why"), slot=0, begun=0.0)
    assert states(loop.ledger.study) == [state.name]
    assert loop.ledger.study.trials[0].values == ([5.0] if state == TrialState.COMPLETE else None)
    assert not loop.ledger.leases.owned("trial/0")
    assert "taken over" in events[-1]


def test_a_metric_that_is_never_reported_ends_the_sweep_and_keeps_the_values() -> None:
    loop = scheduler(Script(1), Limits(3), must_report=("val/kid",))
    with pytest.raises(StudyError, match="prunes by val/kid, but trial 0 ended without reporting it"):
        loop.run()
    assert states(loop.ledger.study) == ["COMPLETE"]
    study = loop.ledger.study
    study.enqueue_trial({"x": 0.5}, user_attrs={meta.RUNGS: {"1": {"val/kid": 0.3}}})
    scheduler(Script(1), Limits(2), study, "again", must_report=("val/kid",)).run()
    assert states(study) == ["COMPLETE"] * 2


def note_sizes(loop: Scheduler, script: Script, *sizes: float | None) -> None:
    """Let the trials note these sizes while they run, as their tasks would."""
    submit = script.submit

    def noting(job: Job) -> int:
        if (size := sizes[job.number]) is not None:
            trials = loop.ledger.trials
            trials.note(trials.read(job.number), meta.NOTED, {"size": size})
        return submit(job)

    script.submit = noting


def test_a_trial_beyond_a_bound_is_infeasible_with_its_values_and_never_the_best() -> None:
    ends = [Outcome(Kind.COMPLETE, value=1.0), Outcome(Kind.COMPLETE, value=2.0), Outcome(Kind.PRUNED)]
    script = Script(1, *ends, Outcome(Kind.PRUNED))
    told: list[str] = []
    loop = scheduler(script, Limits(4), constraints=parse_all({"size": "<= 10"}), event=told.append)
    note_sizes(loop, script, 20.0, 5.0, 30.0, None)
    loop.run()
    study = loop.ledger.study
    assert states(study) == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED"]
    assert [trial.constraints for trial in study.trials] == [{"size": 1.0}, {"size": -0.5}, {"size": 2.0}, {}]
    assert [state(trial) for trial in study.trials] == ["infeasible", "complete", "infeasible", "pruned"]
    assert study.best_trial.number == 1
    assert [one.number for one in best_trials(study)] == [1]
    assert study.trials[0].user_attrs[meta.MESSAGE] == "It violates size <= 10"
    assert "trial 0 finished: 1 (It violates size <= 10)" in told
    assert budget.all_failed(study.trials[2:3]) is False


def test_a_value_that_is_never_noted_stops_the_sweep_and_its_trial_is_no_winner() -> None:
    script = Script(1)
    loop = scheduler(script, Limits(3), constraints=parse_all({"size": "<= 10", "speed": ">= 1"}))
    note_sizes(loop, script, 5.0, 5.0, 5.0)
    with pytest.raises(StudyError, match=r"bounds speed, but trial 0 ended without noting it \(it noted size\)"):
        loop.run()
    study = loop.ledger.study
    assert study.trials[0].constraints == {"size": -0.5, "speed": 1.0}
    assert best_trials(study) == []


def test_a_trial_that_takes_the_values_of_another_is_as_infeasible() -> None:
    study = optuna.create_study()
    space = Space.parse({"x": "choice(1)"}, [])
    noted = {meta.NOTED: {"size": 20.0}, meta.MESSAGE: "It violates size <= 10"}
    study.add_trial(
        create_trial(
            value=1.0, params={"x": 1}, distributions=space.parameters, user_attrs=noted, constraints={"size": 1.0}
        )
    )
    loop = scheduler(Script(1), Limits(2), study, constraints=parse_all({"size": "<= 10"}))
    sampler = Samplers({"_target_": "optuna.samplers.RandomSampler"}, 0, space)
    loop.ledger.proposals = Proposer(study, space, sampler, "reuse")
    loop.run()
    again = study.trials[1]
    assert again.user_attrs[meta.DUPLICATE_OF] == 0
    assert (state(again), again.values, again.constraints) == ("infeasible", [1.0], {"size": 1.0})
    assert again.user_attrs[meta.NOTED] == {"size": 20.0}
