"""The loop, with jobs that take no time: what it starts, when, and what it leaves."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState
from tests.steady.scripted import Script, scheduler, states

from steady.jobs.executor import Job
from steady.run import scheduler as scheduler_module
from steady.run.interruption import Stop
from steady.run.ledger import Limits
from steady.study import meta
from steady.study.failures import Kind, Outcome


def test_every_slot_is_filled_and_the_total_is_exact() -> None:
    script = Script(3)
    loop = scheduler(script, Limits(7))
    loop.run()
    assert script.started == list(range(7))
    assert script.most == 3
    assert states(loop.ledger.study) == ["COMPLETE"] * 7
    runs = loop.ledger.study.trials[0].user_attrs[meta.RUNS]
    assert runs[0]["slot"] == 0
    assert runs[0]["start"] <= runs[0]["end"]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([kind for kind in Kind if kind not in (Kind.INTERRUPTED, Kind.DISK_FULL)]), max_size=20),
    st.integers(1, 4),
    st.booleans(),
)
def test_whatever_happens_the_numbers_are_whole(kinds: list[Kind], slots: int, ahead: bool) -> None:
    script = Script(slots, *(Outcome(kind, value=1.0, message=str(n)) for n, kind in enumerate(kinds)))
    loop = scheduler(script, Limits(8, max_same_failures=99), draw_ahead=ahead)
    loop.run()
    assert not script.prepared
    assert len(loop.ledger.study.trials) == 8
    assert all(trial.state.is_finished() for trial in loop.ledger.study.trials)
    assert sorted(set(script.started)) == list(range(8))


@pytest.mark.parametrize("ahead", [False, True])
def test_a_stop_asks_for_nothing_more_and_leaves_nothing_running(ahead: bool) -> None:
    stop = Stop()
    script = Script(2)
    said: list[str] = []

    def ask(line: str) -> None:
        said.append(line)
        if "finished" in line and not stop.requested:
            stop.requested = True
            script.stop()

    loop = scheduler(script, Limits(9), stop=stop, event=ask, draw_ahead=ahead)
    loop.run()
    assert states(loop.ledger.study) == ["COMPLETE", "WAITING", "WAITING"][: 3 if ahead else 2]
    assert not script.prepared
    assert sum("once more to stop at once" in line for line in said) == 1
    again = scheduler(Script(2), Limits(9), loop.ledger.study, "there")
    again.run()
    assert states(loop.ledger.study) == ["COMPLETE"] * 9
    assert loop.ledger.study.trials[1].user_attrs[meta.ATTEMPT] == 1


def test_a_trial_drawn_ahead_is_prepared_once_and_starts_before_the_end_of_the_last_is_told() -> None:
    """Its start is told after that end all the same."""
    script = Script(1)
    said: list[str] = []
    begun: list[int] = []  # trials, when each line is told
    loop = scheduler(
        script, Limits(3), draw_ahead=True, event=lambda line: (said.append(line), begun.append(len(script.started)))
    )
    prepared: list[int] = []
    prepare = script.prepare
    script.prepare = lambda job: (prepared.append(job.number), prepare(job))  # type: ignore[assignment]
    loop.run()
    assert prepared == [1, 2]
    order = [" ".join(line.split()[1:3]).rstrip(":") for line in said]
    assert order == ["0 started", "0 finished", "1 started", "1 finished", "2 started", "2 finished"]
    assert begun == [1, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("seconds", [scheduler_module.SHORT / 2, scheduler_module.SHORT * 2])
def test_the_next_trial_is_drawn_ahead_when_trials_are_short(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    script = Script(1)
    wait = script.wait

    def takes_long(timeout: float) -> list[tuple[Job, Outcome]]:
        now[0] += seconds
        ahead.append(len(script.prepared))
        return wait(timeout)

    ahead: list[int] = []
    script.wait = takes_long
    scheduler(script, Limits(4), draw_ahead=None).run()
    assert ahead == ([1, 1, 1, 0] if seconds < scheduler_module.SHORT else [1, 0, 0, 0])


def test_a_prepared_trial_that_another_controller_took_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduler_module, "REAP", 0.0)
    script = Script(1)
    loop = scheduler(script, Limits(2), draw_ahead=True)
    prepared: list[list[int]] = []
    wait, forgotten = script.wait, []

    def taken_over(timeout: float) -> list[tuple[Job, Outcome]]:
        prepared.append(list(script.prepared))
        if len(prepared) > 1:
            return wait(timeout)
        loop.ledger.leases.release("trial/1")  # and set back by the other, who ends it
        loop.ledger.study._storage.set_trial_state_values(
            loop.ledger.study.trials[1]._trial_id, TrialState.COMPLETE, [5.0]
        )
        return []

    forget = script.forget
    script.wait = taken_over
    script.forget = lambda number: (forgotten.append(number), forget(number))
    loop.run()
    assert prepared == [[1], []]
    assert forgotten == [1]
    assert script.started == [0]
    assert [trial.value for trial in loop.ledger.study.trials] == [1.0, 5.0]


def test_after_the_timeout_nothing_begins() -> None:
    times = iter(range(1000))
    loop = scheduler(Script(1), Limits(99, timeout=20), clock=lambda: float(next(times)))
    loop.run()
    assert 0 < len(loop.ledger.study.trials) < 20
    assert loop.is_out_of_time()


def test_what_is_reserved_of_the_time_is_not_for_trials() -> None:
    times, begun = iter(range(1000)), list[str]()
    loop = scheduler(Script(1), Limits(99, timeout=990, reserved=lambda share: 970.0), clock=lambda: float(next(times)))
    loop.run()
    assert 0 < len(loop.ledger.study.trials) < 20
    # Once the time is over no trial begins, should the rest of the sweep turn out to need less.
    reserved = [1000.0, 0.0]
    loop = scheduler(Script(1), Limits(9, timeout=990, reserved=lambda share: reserved.pop(0)), event=begun.append)
    loop.run()
    assert begun == []


@pytest.mark.parametrize(("cost", "most"), [(0.0, 30), (1.0, 2)])  # seconds of a clock on which all else takes none
def test_result_files_are_rewritten_at_once_but_seldom_when_that_takes_long(cost: float, most: int) -> None:
    now, recorded = 0.0, []

    def record() -> None:
        nonlocal now
        now += cost
        recorded.append(len(states(loop.ledger.study)))

    loop = scheduler(Script(1), Limits(30), record=record, clock=lambda: now)
    loop.run()
    assert len(recorded) == most
    assert recorded[-1] == 30  # all of it, in the end
