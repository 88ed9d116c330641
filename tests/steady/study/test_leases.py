"""One holder at a time, whoever dies: with fake controllers, and with real processes that claim at once."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from tests.steady import contenders

from steady.storage import open_storage
from steady.study.leases import CONTROLLER, DEAD, Identity, Leases, remove_side_study

GRACE = 10.0


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def with_study(storage: optuna.storages.BaseStorage) -> optuna.storages.BaseStorage:
    optuna.create_study(study_name="s", storage=storage, load_if_exists=True)
    return storage


@pytest.fixture
def storage() -> optuna.storages.BaseStorage:
    return with_study(optuna.storages.InMemoryStorage())


def controller(storage: optuna.storages.BaseStorage, machine: str, clock: Clock | None = None) -> Leases:
    leases = Leases(storage, "s", grace=GRACE, identity=Identity(machine, 1, 0.0), clock=clock or Clock())
    leases.register()
    return leases


def left(storage: optuna.storages.BaseStorage) -> list[list[str]]:
    """What each controller holds that neither ended nor was found dead, by the order in which they came."""
    said = storage.get_study_system_attrs(storage.get_study_id_from_name("s"))
    living = [
        value
        for key, value in said.items()
        if key.startswith(CONTROLLER) and value and key.replace(CONTROLLER, DEAD) not in said
    ]
    return [[*one["holds"], *one["places"]] for one in sorted(living, key=lambda one: one["came"])]


# --- claims


def test_one_of_two_has_a_name_until_it_gives_it_back(storage: optuna.storages.BaseStorage) -> None:
    a, b = controller(storage, "a"), controller(storage, "b")
    assert a.claim("trial/1")
    assert a.claim("trial/1"), "it has it already"
    assert not b.claim("trial/1")
    assert b.claim("trial/2")
    assert b.owned("trial/1")
    assert a.holds("trial/1")
    assert not b.holds("trial/1")
    a.release("trial/1")
    assert not b.owned("trial/1")
    assert b.claim("trial/1")


def test_a_closed_controller_leaves_nothing(storage: optuna.storages.BaseStorage) -> None:
    a, b = controller(storage, "a"), controller(storage, "b")
    assert a.claim("x")
    a.close()
    assert b.claim("x")
    b.close()
    assert left(storage) == []


def test_a_lock_is_released_also_when_its_body_fails(storage: optuna.storages.BaseStorage) -> None:
    a, b = controller(storage, "a"), controller(storage, "b")

    def body() -> None:
        with a.lock("x"):
            assert not b.claim("x")
            raise KeyError

    with pytest.raises(KeyError):
        body()
    assert b.claim("x")


def test_a_claim_that_was_interrupted_before_we_knew_of_it_does_not_bar_the_name(
    storage: optuna.storages.BaseStorage,
) -> None:
    a, b = controller(storage, "a"), controller(storage, "b")
    write = storage.set_study_system_attr

    def written(*words: Any) -> None:
        write(*words)
        raise ConnectionError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "set_study_system_attr", written)
        with pytest.raises(ConnectionError):
            a.claim("x")
    a.beat()
    assert b.claim("x")
    assert b.claim("y")
    assert a.claim("z")


def test_a_claim_that_another_ended_is_not_held_and_may_be_made_again(storage: optuna.storages.BaseStorage) -> None:
    a, b = controller(storage, "a"), controller(storage, "b")
    assert a.claim("x")
    storage.set_study_system_attr(a.study, f"{DEAD}{a.me}", True)
    assert not a.holds("x")
    assert b.claim("x")
    assert not a.claim("x")
    b.release("x")
    assert a.claim("x")


# --- other tools


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_the_storage_holds_the_study_that_a_person_made_and_no_other(tmp_path: Path, scheme: str) -> None:
    storage = with_study(open_storage(f"{scheme}:///{tmp_path}/study.{scheme}"))
    a, b = controller(storage, "a"), controller(storage, "b")
    assert a.claim("x")
    with b.lock("y"):
        assert optuna.get_all_study_names(storage) == ["s"]
    study = optuna.load_study(study_name=None, storage=storage)
    assert (study.study_name, study.trials, study.user_attrs) == ("s", [], {})


def test_what_an_earlier_version_kept_beside_the_study_is_removed_and_nothing_else(
    storage: optuna.storages.BaseStorage,
) -> None:
    left: dict[str, list[dict[str, Any]]] = {
        "s.leases": [{"name": "controller", "beat": 3, "pid": 1}, {"name": "ask", "owner": 0}],
        "t.leases": [{"name": "controller", "beat": 3}, {"score": 1}],
        "u.leases": [],
    }
    for name, attributes in left.items():
        side = storage.create_new_study([StudyDirection.MINIMIZE], name)
        for one in attributes:
            storage.create_new_trial(side, create_trial(state=TrialState.RUNNING, user_attrs=one))
    for study in ("r", "s", "t", "u", "s"):
        remove_side_study(storage, study)
    assert optuna.get_all_study_names(storage) == ["s", "t.leases", "u.leases"]


# --- life and death


def look(clock: Clock, leases: Leases, until: float) -> None:
    while clock.now < until:
        clock.now += 1.0
        leases.beat()


def test_a_silent_controller_on_another_machine_is_dead_after_the_grace(storage: optuna.storages.BaseStorage) -> None:
    clock = Clock()
    a, b = controller(storage, "a"), controller(storage, "b", clock)
    assert a.claim("x")
    assert not b.claim("x")
    look(clock, b, GRACE - 1)
    assert not b.claim("x")
    assert [other.machine for other in b.controllers()] == ["a", "b"]
    look(clock, b, GRACE + 4)
    assert [other.machine for other in b.controllers()] == ["b"]
    assert b.claim("x")


def test_one_that_was_taken_for_dead_is_told_and_begins_anew(storage: optuna.storages.BaseStorage) -> None:
    clock = Clock()
    a, b = controller(storage, "a"), controller(storage, "b", clock)
    assert a.claim("x")
    look(clock, b, GRACE + 4)
    assert b.claim("x")
    assert not a.holds("x")
    assert not a.claim("x")
    assert a.claim("y")
    with a.lock("z"):
        assert a.holds("z")
    assert [other.machine for other in b.controllers()] == ["b", "a"]


def test_one_that_gives_signs_of_life_is_not_dead(storage: optuna.storages.BaseStorage) -> None:
    clock = Clock()
    a, b = controller(storage, "a", clock), controller(storage, "b", clock)
    assert a.claim("x")
    for clock.now in range(0, 100, 5):
        a.beat()
        assert not b.claim("x")
    assert a.holds("x")


def test_a_storage_that_hung_kills_nobody(storage: optuna.storages.BaseStorage) -> None:
    clock = Clock()
    a, b = controller(storage, "a", clock), controller(storage, "b", clock)
    assert a.claim("x")
    assert not b.claim("x")
    clock.now = 100 * GRACE  # neither could beat
    assert not b.claim("x")
    a.beat()
    look(clock, b, clock.now + GRACE - 1)
    assert a.holds("x")


def test_a_number_that_was_used_again_is_another_process(storage: optuna.storages.BaseStorage) -> None:
    own = Identity.own()
    gone = Leases(storage, "s", identity=Identity(own.machine, own.pid, own.started - 1))
    gone.register()
    assert gone.claim("x")
    us = Leases(storage, "s")
    us.register()
    assert us.controllers() == [own]
    assert left(storage) == [[]], "what the dead left was ended"


class Controllers(RuleBasedStateMachine):
    """Three machines whose clocks run apart; each may stop for any time, and wake up again, or start anew."""

    who = st.integers(0, 2)
    name = st.sampled_from(["x", "y"])

    @initialize()
    def start(self) -> None:
        self.storage = with_study(optuna.storages.InMemoryStorage())
        self.clocks = [Clock(), Clock(), Clock()]
        self.clocks[1].now, self.clocks[2].now = 1e6, -1e6
        self.all = [controller(self.storage, str(n), clock) for n, clock in enumerate(self.clocks)]
        self.asleep: set[int] = set()
        self.holder: dict[str, int] = {}

    @rule(who=who, name=name)
    def claim(self, who: int, name: str) -> None:
        if who in self.asleep:
            return
        won, holder = self.all[who].claim(name), self.holder.get(name)
        if holder is None or holder == who:
            assert won
        elif holder not in self.asleep:
            assert not won
        if won:
            self.holder[name] = who

    @rule(who=who, name=name)
    def release(self, who: int, name: str) -> None:
        if who not in self.asleep:
            self.all[who].release(name)
            self._lost(who, name)

    @rule(who=who)
    def restart(self, who: int) -> None:
        if who not in self.asleep:
            self.all[who].close()
            self.all[who].register()
            for name in "xy":
                self._lost(who, name)

    @rule(beats=st.integers(1, 12))
    def time_goes_by(self, beats: int) -> None:
        for _ in range(beats):
            for who, leases in enumerate(self.all):
                self.clocks[who].now += GRACE / 4
                if who not in self.asleep:
                    leases.beat()

    @rule(who=who)
    def fall_asleep(self, who: int) -> None:
        self.asleep.add(who)

    @precondition(lambda self: self.asleep)
    @rule()
    def wake(self) -> None:
        who = self.asleep.pop()
        self.all[who].beat()  # with which the scheduler's loop begins
        for name in "xy":
            if not self.all[who].holds(name):  # it may have been taken for dead, though nobody took the name
                self._lost(who, name)

    @invariant()
    def those_awake_hold_what_they_claimed_and_nothing_else(self) -> None:
        for who in {0, 1, 2} - self.asleep:
            for name in "xy":
                assert self.all[who].holds(name) == (self.holder.get(name) == who)

    def _lost(self, who: int, name: str) -> None:
        if self.holder.get(name) == who:
            del self.holder[name]


TestControllers = Controllers.TestCase
TestControllers.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


# --- processes

PROCESSES = 4
ROUNDS = 20


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    here = context.Barrier(PROCESSES)
    with ProcessPoolExecutor(PROCESSES, context, initializer=contenders.meet_at, initargs=(here,)) as pool:
        yield pool


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_a_lock_loses_no_count_between_processes(tmp_path: Path, scheme: str, processes: ProcessPoolExecutor) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    url = f"{scheme}:///{tmp_path}/study.{scheme}"
    for done in [processes.submit(contenders.count, url, str(counter), ROUNDS) for _ in range(PROCESSES)]:
        done.result()
    assert counter.read_text() == str(ROUNDS * PROCESSES)
    assert left(open_storage(url)) == []


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_of_those_that_claim_at_once_one_wins(tmp_path: Path, scheme: str, processes: ProcessPoolExecutor) -> None:
    url = f"{scheme}:///{tmp_path}/study.{scheme}"
    won = [done.result() for done in [processes.submit(contenders.claim, url, ROUNDS) for _ in range(PROCESSES)]]
    assert [sum(tries) for tries in zip(*won, strict=True)] == [1] * ROUNDS


def test_what_a_killed_process_held_is_free_at_once(tmp_path: Path) -> None:
    url, context = f"sqlite:///{tmp_path}/study.db", multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=contenders.hold, args=(url, ready))
    process.start()
    ready.wait()
    leases = contenders.registered(url)
    assert not leases.claim("x")
    process.kill()
    os.waitid(os.P_PID, process.pid or 0, os.WEXITED | os.WNOWAIT)  # dead, but its parent has not asked: a zombie
    assert not leases.owned("x")
    assert leases.claim("x")
    process.join()
