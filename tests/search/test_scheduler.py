"""The loop, with jobs that take no time: what it starts, tells, retries and gives up."""

from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import TrialState

from catsweep.errors import StudyError
from catsweep.search import attributes
from catsweep.search import scheduler as scheduler_module
from catsweep.search.executor import Job
from catsweep.search.leases import Identity, Leases
from catsweep.search.limits import Limits, Stop
from catsweep.search.outcome import Kind, Outcome
from catsweep.search.proposer import Proposer
from catsweep.search.sampling import Samplers
from catsweep.search.scheduler import Scheduler
from catsweep.search.space import Space

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

    forget = lambda self, number: self.prepared.remove(number)  # noqa: E731

    def free(self) -> int:
        return self.slots - len(self.busy)

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


def scheduler(
    script: Script, limits: Limits, study: optuna.Study | None = None, name: str = "here", **keys: object
) -> Scheduler:
    study = study or optuna.create_study()
    space = Space.parse({"x": "interval(0.0, 1.0)"}, [])
    leases = Leases(study._storage, study.study_name, identity=Identity(name, 1, 0.0))
    leases.register()
    node = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    return Scheduler(
        study=study, proposals=Proposer(study, space, Samplers(node, 0, space)), executor=script, leases=leases,
        limits=limits, overrides=lambda trial: space.overrides(trial.params), folder=lambda n: Path(str(n)),
        **{"event": lambda line: None, **keys},  # type: ignore[arg-type]
    )  # fmt: skip


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


def test_every_slot_is_filled_and_the_total_is_exact() -> None:
    script = Script(3)
    loop = scheduler(script, Limits(7))
    loop.run()
    assert script.started == list(range(7))
    assert script.most == 3
    assert states(loop.study) == ["COMPLETE"] * 7
    runs = loop.study.trials[0].user_attrs[attributes.RUNS]
    assert runs[0]["slot"] == 0
    assert runs[0]["start"] <= runs[0]["end"]


@settings(max_examples=25)
@given(
    st.lists(st.sampled_from([kind for kind in Kind if kind != Kind.INTERRUPTED]), max_size=20),
    st.integers(1, 4),
    st.booleans(),
)
def test_whatever_happens_the_numbers_are_whole(kinds: list[Kind], slots: int, ahead: bool) -> None:
    script = Script(slots, *(Outcome(kind, value=1.0, message=str(n)) for n, kind in enumerate(kinds)))
    loop = scheduler(script, Limits(8, max_same_failures=99), draw_ahead=ahead)
    loop.run()
    assert not script.prepared
    assert len(loop.study.trials) == 8
    assert all(trial.state.is_finished() for trial in loop.study.trials)
    assert sorted(set(script.started)) == list(range(8))


def test_each_kind_of_end_is_told_as_what_it_is() -> None:
    kinds = [Kind.COMPLETE, Kind.PRUNED, Kind.OUT_OF_MEMORY, Kind.DIVERGED, Kind.FAILED]
    script = Script(1, *(Outcome(kind, value=1.0, message="why", traceback="where") for kind in kinds))
    loop = scheduler(script, Limits(5))
    loop.run()
    assert states(loop.study) == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED", "FAIL"]
    trials = loop.study.trials
    assert [trial.user_attrs[attributes.OUTCOME] for trial in trials] == [kind.value for kind in kinds]
    assert [bool(trial.constraints) for trial in trials] == [False, False, True, True, False]
    assert trials[4].user_attrs[attributes.TRACEBACK] == "where"
    assert loop.study.best_trial.number == 0


def test_a_lost_trial_starts_again_as_often_as_retries_say() -> None:
    lost = Outcome(Kind.LOST, message="SIGKILL")
    script = Script(1, lost, lost, lost)
    loop = scheduler(script, Limits(2, retries=2))
    loop.run()
    assert script.started == [0, 0, 0, 1]
    assert states(loop.study) == ["FAIL", "COMPLETE"]
    assert loop.study.trials[0].user_attrs[attributes.ATTEMPT] == 2


def test_values_that_are_none_fail_the_trial() -> None:
    loop = scheduler(Script(1, Outcome(Kind.COMPLETE, value=None)), Limits(2))
    loop.run()
    assert states(loop.study) == ["FAIL", "COMPLETE"]
    assert "float-castable" in loop.study.trials[0].user_attrs[attributes.MESSAGE]


def test_the_same_failure_in_a_row_ends_the_sweep_others_do_not() -> None:
    same = Outcome(Kind.FAILED, message="no such file", traceback="")
    with pytest.raises(StudyError, match="no such file"):
        scheduler(Script(1, same, same, same), Limits(9)).run()
    loop = scheduler(Script(1, same, same, GOOD, same, same), Limits(6))
    loop.run()
    assert states(loop.study).count("FAIL") == 4


def test_too_high_a_share_of_failures_ends_the_sweep() -> None:
    failures = [Outcome(Kind.FAILED, message=text) for text in "abcd"]
    loop = scheduler(Script(2, failures[0], GOOD, failures[1]), Limits(9, max_failure_rate=0.0, window=2))
    with pytest.raises(StudyError, match="max_failure_rate"):
        loop.run()
    assert states(loop.study) == ["FAIL", "WAITING"]


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
    assert states(loop.study) == ["COMPLETE", "WAITING", "WAITING"][: 3 if ahead else 2]
    assert not script.prepared
    assert sum("once more to stop at once" in line for line in said) == 1
    again = scheduler(Script(2), Limits(9), loop.study, "there")
    again.run()
    assert states(loop.study) == ["COMPLETE"] * 9
    assert loop.study.trials[1].user_attrs[attributes.ATTEMPT] == 1


def test_a_trial_drawn_ahead_is_prepared_once_and_starts_before_the_end_of_the_last_is_told() -> None:
    script = Script(1)
    said: list[str] = []
    loop = scheduler(script, Limits(3), draw_ahead=True, event=said.append)
    prepared: list[int] = []
    prepare = script.prepare
    script.prepare = lambda job: (prepared.append(job.number), prepare(job))  # type: ignore[method-assign,assignment]
    loop.run()
    assert prepared == [1, 2]
    order = [" ".join(line.split()[1:3]).rstrip(":") for line in said]
    assert order == ["0 started", "1 started", "0 finished", "2 started", "1 finished", "2 finished"]


@pytest.mark.parametrize("seconds", [scheduler_module.SHORT / 2, scheduler_module.SHORT * 2])
def test_the_next_trial_is_drawn_ahead_when_trials_are_short(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scheduler_module.time, "time", lambda: now[0])
    script = Script(1)
    wait = script.wait

    def takes_long(timeout: float) -> list[tuple[Job, Outcome]]:
        now[0] += seconds
        ahead.append(len(script.prepared))
        return wait(timeout)

    ahead: list[int] = []
    script.wait = takes_long  # type: ignore[method-assign]
    scheduler(script, Limits(4), draw_ahead=None).run()
    assert ahead == ([1, 1, 1, 0] if seconds < scheduler_module.SHORT else [1, 0, 0, 0])


def test_a_prepared_trial_that_another_controller_took_is_forgotten() -> None:
    script = Script(1)
    loop = scheduler(script, Limits(2), draw_ahead=True)
    loop._fill()
    loop._look_ahead()
    assert script.prepared == [1]
    loop.leases.release("trial/1")
    loop._let_go()
    assert script.prepared == []
    assert not loop.ready


def test_after_the_timeout_nothing_begins() -> None:
    times = iter(range(1000))
    loop = scheduler(Script(1), Limits(99, timeout=20), clock=lambda: float(next(times)))
    loop.run()
    assert 0 < len(loop.study.trials) < 20


def test_what_a_dead_controller_left_goes_on_under_its_number() -> None:
    study = optuna.create_study()
    dead = scheduler(Script(1), Limits(3), study, "dead")
    trial = dead.intake.next()
    assert trial is not None
    dead.leases.close()  # its tokens are gone, as those of the dead are
    assert states(study) == ["RUNNING"]
    script = Script(1)
    scheduler(script, Limits(3), study, "alive").run()
    assert script.started == [0, 1, 2]
    assert states(study) == ["COMPLETE"] * 3
    assert study.trials[0].params == trial.params


def test_a_trial_of_a_living_controller_is_left_alone() -> None:
    study = optuna.create_study()
    other = scheduler(Script(1), Limits(3), study, "other")
    assert other.intake.next() is not None
    mine = scheduler(Script(1), Limits(3), study, "mine")
    mine.intake.reap()
    assert states(study) == ["RUNNING"]
    taken = mine.intake.next()
    assert taken is not None
    assert taken.number == 1


def test_the_end_of_a_trial_that_was_taken_over_is_ignored() -> None:
    events: list[str] = []
    loop = scheduler(Script(1), Limits(1), event=events.append)
    loop._fill()
    loop.leases.release("trial/0")
    loop._settle(Job(0, (), Path("0")), GOOD)
    assert states(loop.study) == ["RUNNING"]
    assert "taken over" in events[-1]


def test_enqueued_configurations_come_first_and_reused_ones_cost_nothing() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    loop = scheduler(Script(1), Limits(3), study)
    loop.run()
    assert study.trials[0].params == {"x": 0.5}
    reuse = optuna.create_study()
    space = Space.parse({"x": "choice(1)"}, [])
    script = Script(1)
    loop = scheduler(script, Limits(3), reuse)
    node = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    loop.intake.proposals = Proposer(reuse, space, Samplers(node, 0, space), "reuse")
    loop.run()
    assert script.started == [0]
    assert [trial.user_attrs.get(attributes.DUPLICATE_OF) for trial in reuse.trials] == [None, 0, 0]
    assert [trial.state for trial in reuse.trials] == [TrialState.COMPLETE] * 3
