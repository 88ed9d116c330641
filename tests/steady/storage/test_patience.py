"""Calls of a storage whose server comes and goes, with servers that fail as real ones do; `tests/engines` has those."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from steady.storage.patience import TOKEN, Patience, is_away, wait_at_most, wait_for_server


class Refused(Exception):
    """As a driver's."""

    def __init__(
        self, message: object = "connection refused", sqlstate: str | None = None, asked: bool = False
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.pgconn = SimpleNamespace(needs_password=False, used_password=asked)


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

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        return int(self.reach(lambda: InMemoryStorage.create_new_trial(self, *args, **kwargs)))

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        return bool(self.reach(lambda: InMemoryStorage.set_trial_state_values(self, trial_id, state, values)))

    def delete_study(self, study_id: int) -> None:
        self.reach(lambda: InMemoryStorage.delete_study(self, study_id))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patient(server: BaseStorage, clock: Clock, seconds: float = 600.0, **more: Any) -> BaseStorage:
    return wait_for_server(server, Patience(seconds, "the server", clock=clock, sleep=clock.sleep, **more))


# As libpq words what it meets while it connects: no code, and of a server that speaks German or Russian its own words.
WHERE = 'connection failed: connection to server at "role-database", port 5432 failed: '
NETWORK = [
    "Connection refused\n\tIs the server running on that host and accepting TCP/IP connections?",
    "No route to host",
    "timeout expired",
    "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
]
CONFIGURED = [
    "server does not support SSL, but SSL was required",
    'authentication method requirement "!password" failed: server requested a cleartext password',
    "SSL error: certificate verify failed",
    "fe_sendauth: no password supplied",
]
COMES = [
    "the database system is starting up",
    "the database system is shutting down",
    "the database system is not yet accepting connections\nDETAIL:  Consistent recovery state has not been reached.",
    "sorry, too many clients already",
    'too many connections for role "cats"',
    "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    "terminating connection due to administrator command",
]
STAYS = [
    'password authentication failed for user "cats"',
    'role "cats" does not exist',
    'role "cats" is not permitted to log in',
    'database "cats" does not exist',
    'permission denied for database "cats"',
    'no pg_hba.conf entry for host "10.0.0.1", user "cats", database "cats", no encryption',
]
CONNECTING = [
    *[(WHERE + said, False, True) for said in NETWORK],
    *[(WHERE + said, False, False) for said in CONFIGURED],
    *[(f"{WHERE}FATAL:  {said}", False, True) for said in COMES],
    *[(f"{WHERE}FATAL:  {said}", False, False) for said in STAYS],
    (f"{WHERE}FATAL:  das Datenbanksystem startet", False, True),
    (f"{WHERE}ВАЖНО:  система баз данных запускается", False, True),
    (f"{WHERE}FATAL:  Passwort-Authentifizierung für Benutzer »cats« fehlgeschlagen", True, False),
    (f"{WHERE}ÖLÜMCÜL (FATAL):  cats için kimlik hatali", True, False),
    (f"{WHERE}server closed the connection unexpectedly", True, True),  # killed when it had asked for the password
    ("failed to resolve host 'postgres.cluster': [Errno -3] Temporary failure in name resolution", False, True),
]
CODES = {
    True: (
        "08000", "08006", "57P01", "57P02", "57P03", "57P05", "53300", "25006", "25P03", "40001", "40P01", "55P03",
        "57014",
    ),
    False: ("28P01", "28000", "3D000", "42501", "42P01", "22001", "23505", "53100", "57P04", "XX001"),
}  # fmt: skip
NUMBERS = {True: (1040, 1205, 1213, 2002, 2003, 2006, 2013), False: (0, 1044, 1045, 1049, 1142, 1290, 1146)}


@pytest.mark.parametrize(
    ("error", "away"),
    [
        *[(lost(Refused(said, asked=asked)), away) for said, asked, away in CONNECTING],
        *[(lost(Refused("role database", code)), away) for away, codes in CODES.items() for code in codes],
        *[(lost(Refused(number)), away) for away, numbers in NUMBERS.items() for number in numbers],
        (lost(Refused("anything"), invalidated=True), True),
        (sqlalchemy.exc.IntegrityError("INSERT", {}, Refused("twice", "23505")), False),
        (sqlalchemy.exc.ProgrammingError("SELECT", {}, Refused("no code")), False),
        (lost(sqlite3.OperationalError("database is locked")), False),
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
    assert "is away or busy (connection refused); trying again for 600 s" in away
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
    with wait_at_most(0.0), pytest.raises(sqlalchemy.exc.OperationalError):
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


def test_a_bound_is_of_one_thread_and_within_the_patience(clock: Clock) -> None:
    (server := Server()).times = 10**9
    storage = patient(server, clock, seconds=60.0)
    refused: list[Exception] = []

    def elsewhere() -> None:
        try:
            storage.get_all_studies()
        except sqlalchemy.exc.OperationalError as error:
            refused.append(error)

    with wait_at_most(7.0):
        with pytest.raises(sqlalchemy.exc.OperationalError):
            storage.get_all_studies()
        assert clock.now == pytest.approx(7.0)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert clock.now == pytest.approx(67.0)
    with wait_at_most(600.0):
        elsewhere()
    assert clock.now == pytest.approx(127.0)
    assert len(refused) == 2


def test_a_trial_whose_making_was_not_told_is_made_once(clock: Clock) -> None:
    server = Server()
    study = optuna.create_study(storage=patient(server, clock))
    server.times, server.late = 1, True
    assert study.ask().number == 0
    server.times, server.late = 3, False
    template = optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"a": 1}, system_attrs={"b": 2})
    study._storage.create_new_trial(study._study_id, template)
    [first, second] = study.trials
    assert (second.number, second.user_attrs, second.system_attrs["b"]) == (1, {"a": 1}, 2)
    assert first.state == second.state == TrialState.RUNNING
    assert first.system_attrs[TOKEN] != second.system_attrs[TOKEN]
    assert template.system_attrs == {"b": 2}


def test_a_trial_that_another_made_meanwhile_is_not_taken_for_ours(clock: Clock) -> None:
    server = Server()
    optuna.create_study(study_name="s", storage=server)
    original = clock.sleep

    def meanwhile(seconds: float) -> None:
        original(seconds)
        optuna.load_study(study_name="s", storage=server).ask()

    storage = wait_for_server(server, Patience(60.0, clock=clock, sleep=meanwhile))
    server.times = 1
    mine = storage.create_new_trial(storage.get_study_id_from_name("s"))
    assert storage.get_trial(mine).number == 1


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL])
def test_an_end_whose_answer_was_lost_is_told_once(clock: Clock, state: TrialState, named: bool) -> None:
    server = Server()
    study = optuna.create_study(storage=(storage := patient(server, clock)))
    trial = study.ask()
    server.times, server.late = 1, True
    values = [1.0] if state == TrialState.COMPLETE else None
    if named:
        assert storage.set_trial_state_values(trial._trial_id, values=values, state=state)
    else:
        study.tell(trial, values, state=state)
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
        storage.set_trial_state_values(trial._trial_id, state=TrialState.COMPLETE, values=[2.0])


def test_a_study_that_is_deleted_twice_is_deleted(clock: Clock) -> None:
    server = Server()
    study = optuna.create_study(storage=(storage := patient(server, clock)))
    server.times, server.late = 1, True
    storage.delete_study(study._study_id)
    assert storage.get_all_studies() == []


def test_a_trial_that_another_has_ended_alike_is_told_to_whoever_has_not_tried_before() -> None:
    storage = wait_for_server(InMemoryStorage(), Patience(600.0))
    study = optuna.create_study(storage=storage)
    trial = study.ask()
    study.tell(trial, 1.0)
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
