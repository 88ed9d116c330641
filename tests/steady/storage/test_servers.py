"""Calls of a storage whose server comes and goes, with servers that fail as real ones do; `tests/engines` has those."""

import logging
from collections.abc import Callable
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from steady.storage.servers import Patience, is_away, open_proxy, wait_for_server


class Refused(Exception):
    """As a driver's."""

    def __init__(self, message: object = "connection refused", sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


def lost(origin: Exception, invalidated: bool = False) -> Exception:
    return sqlalchemy.exc.OperationalError("SELECT 1", {}, origin, connection_invalidated=invalidated)


class Clock:
    """Time passes by sleeping only."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Server(InMemoryStorage):
    """A storage that is away for the next `times` calls of a method; `late`: the call is made, and its answer lost."""

    times = 0
    late = False
    calls = 0

    def reach(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        if self.times > 0:
            self.times -= 1
            if self.late:
                call()
            raise lost(Refused())
        return call()

    def get_all_studies(self) -> Any:
        return self.reach(super().get_all_studies)

    def set_trial_state_values(self, *args: Any, **kwargs: Any) -> bool:
        return bool(self.reach(lambda: InMemoryStorage.set_trial_state_values(self, *args, **kwargs)))

    def delete_study(self, study_id: int) -> None:
        self.reach(lambda: InMemoryStorage.delete_study(self, study_id))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patient(server: BaseStorage, clock: Clock, seconds: float = 600.0, **more: Any) -> BaseStorage:
    return wait_for_server(server, Patience(seconds, "the server", clock=clock, sleep=clock.sleep, **more))


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (lost(Refused("Connection refused")), True),
        (lost(Refused("terminating connection", "57P01")), True),
        (lost(Refused("the database system is starting up", "57P03")), True),
        (lost(Refused("too many clients", "53300")), True),
        (lost(Refused("anything"), invalidated=True), True),
        (lost(Refused(2006)), True),
        (lost(Refused(1045)), False),
        (lost(Refused('FATAL: password authentication failed for user "cats"')), False),
        (lost(Refused('FATAL: database "cats" does not exist')), False),
        (lost(Refused("disk full", "53100")), False),
        (sqlalchemy.exc.IntegrityError("INSERT", {}, Refused("twice", "23505")), False),
        (sqlalchemy.exc.TimeoutError("pool"), True),
        (KeyError("trial"), False),
    ],
)
def test_what_passes_is_told_from_what_does_not(error: Exception, away: bool) -> None:
    assert is_away(error) == away
    (wrapped := optuna.exceptions.StorageInternalError("wrapped")).__cause__ = error
    assert is_away(wrapped) == away


def test_a_call_waits_until_the_server_is_back(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    (server := Server()).times = 5
    assert patient(server, clock).get_all_studies() == []
    assert server.calls == 6
    assert all(later <= 2 * 2 * earlier for earlier, later in zip(clock.slept, clock.slept[1:], strict=False))
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    away, back = (record.getMessage() for record in caplog.records)
    assert "is away (connection refused); trying again for 600 s" in away
    assert "is back after" in back


def test_patience_ends(clock: Clock) -> None:
    (server := Server()).times = 10**9
    with pytest.raises(sqlalchemy.exc.OperationalError):
        patient(server, clock, seconds=60.0).get_all_studies()
    assert clock.now == pytest.approx(60.0)


def test_nothing_is_waited_for_without_patience(clock: Clock) -> None:
    (server := Server()).times = 1
    patience = Patience(60.0, clock=clock, sleep=clock.sleep)
    storage = wait_for_server(server, patience)
    with patience.none(), pytest.raises(sqlalchemy.exc.OperationalError):
        storage.get_all_studies()
    assert not clock.slept
    assert storage.get_all_studies() == []


def test_who_is_asked_to_stop_does_not_wait(clock: Clock) -> None:
    (server := Server()).times = 10**9
    with pytest.raises(sqlalchemy.exc.OperationalError):
        patient(server, clock, hurry=lambda: len(clock.slept) >= 3).get_all_studies()
    assert len(clock.slept) == 3


def test_another_fault_is_raised_at_once(clock: Clock) -> None:
    storage = patient(Server(), clock)
    with pytest.raises(KeyError):
        storage.get_trial(7)
    assert not clock.slept


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL])
def test_an_end_whose_answer_was_lost_is_told_once(clock: Clock, state: TrialState) -> None:
    server = Server()
    study = optuna.create_study(storage=patient(server, clock))
    trial = study.ask()
    server.times, server.late = 1, True
    study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state=state)
    assert study.trials[0].state == state


def test_the_end_that_another_told_is_no_answer(clock: Clock) -> None:
    server = Server()
    trial = optuna.create_study(storage=server).ask()
    server.times = 1
    original = clock.sleep

    def meanwhile(seconds: float) -> None:
        original(seconds)
        InMemoryStorage.set_trial_state_values(server, trial._trial_id, TrialState.FAIL)

    storage = wait_for_server(server, Patience(60.0, clock=clock, sleep=meanwhile))
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [2.0])


def test_a_study_that_is_deleted_twice_is_deleted(clock: Clock) -> None:
    server = Server()
    study = optuna.create_study(storage=(storage := patient(server, clock)))
    server.times, server.late = 1, True
    storage.delete_study(study._study_id)
    assert storage.get_all_studies() == []


def test_a_proxy_needs_a_host() -> None:
    with pytest.raises(ValueError, match="no host"):
        open_proxy("grpc://:13000")
