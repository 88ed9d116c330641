"""Wait for a storage's server that is away or busy: a restart, a failover, a network that is down, a deadlock.

Each call of a storage from `steady.storage` goes through `Patience`, which tries again for as long as errors are of the
kind that passes (`is_away`). The answer to a call may be lost when its work is done, so whatever is tried again must
not be done twice.
"""

import copy
import functools
import inspect
import logging
import math
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from steady.exceptions import causes
from steady.storage.storage_errors import CALLS

log = logging.getLogger(__name__)

FIRST, LONGEST = 0.1, 3.0  # seconds between two tries: doubled each time, up to the longest
TOKEN = "steady:token"  # attribute of a trial by which the try that made it is known
# SQLSTATE, or its begin, of errors that pass.
PASSING = (
    "08", "57P01", "57P02", "57P03", "57P05", "25P03",  # connection lost or ended, server shut down or starting
    "53300", "40001", "40P01", "55P03", "57014",  # too many connections, conflict, deadlock, lock or time over
    "25006",  # failed over to a standby, which can be read only until it is promoted
)  # fmt: skip
# The same as numbers of MySQL and MariaDB, those from 2000 on of the client.
PASSING_MYSQL = frozenset({
    1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1317, 1927, 1969, 3024, 4031,
    2002, 2003, 2005, 2006, 2013, 2055,
})  # fmt: skip
# libpq gives no code to what it meets while it connects. Its own words are English; the server's need not be.
SAID_BY_SERVER = re.compile(r"failed: [^\n:]{1,30}:  ")  # severity, two spaces, message
PASSING_WORDS = ("database system", "too many connections", "too many clients", "slots are reserved", "terminating")
REFUSING_WORDS = (
    "authentication", "certificate", "database", "does not support SSL", "encryption", "no password supplied",
    "permission", "permitted", "pg_hba.conf", "role", "SSL error",
)  # fmt: skip

_limit: ContextVar[float] = ContextVar("limit", default=math.inf)


@contextmanager
def wait_at_most(seconds: float) -> Iterator[None]:
    """Let the calls of this thread wait for a server no longer than this, whatever the patience of their storage.

    >>> with wait_at_most(0.0):
    ...     Patience(seconds=600).call(lambda: "answer")
    'answer'
    """
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def is_away(error: BaseException) -> bool:
    """Tell whether an error of a storage passes: its server cannot be reached now, or is busy.

    Decides by SQLSTATE, or by MySQL's number, wherever an error has one.

    >>> is_away(ValueError("no such state"))
    False
    >>> is_away(sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused"), True))
    True
    """
    for cause in causes(error, suppressed=True):
        if type(cause).__module__.startswith("grpc"):
            code = getattr(cause, "code", lambda: None)()
            return getattr(code, "name", "") in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
        if isinstance(cause, sqlalchemy.exc.TimeoutError):  # of the pool of connections
            return True
        if isinstance(cause, sqlalchemy.exc.DBAPIError):
            return cause.connection_invalidated or _passes(cause)
    return False


def _passes(error: sqlalchemy.exc.DBAPIError) -> bool:
    origin = error.orig
    if type(origin).__module__.startswith("sqlite3"):
        return False
    if code := getattr(origin, "sqlstate", None) or getattr(origin, "pgcode", None):
        return str(code).startswith(PASSING)
    first = origin.args[0] if origin is not None and origin.args else None
    if isinstance(first, int):  # MySQL's drivers
        return first in PASSING_MYSQL
    return isinstance(error, sqlalchemy.exc.OperationalError) and not _refused(origin)


def _refused(origin: BaseException | None) -> bool:
    """Tell whether a connection that was not made, for a reason without a code, will not be made later either."""
    said = re.sub(r'"[^"]*"', "", str(origin))  # names of hosts and roles may be such words
    if not SAID_BY_SERVER.search(said):  # libpq itself: what it met in the network passes
        return any(word in said for word in REFUSING_WORDS)
    if any(word in said for word in PASSING_WORDS):
        return False
    # In whatever language: a server that has asked for the password is up.
    connection = getattr(origin, "pgconn", None)  # psycopg's
    asked = connection is not None and (connection.needs_password or connection.used_password)
    return asked or any(word in said for word in REFUSING_WORDS)


@dataclass
class Patience:
    """How long the calls of a storage wait for its server.

    >>> patience = Patience(seconds=600)
    >>> patience.call(lambda: "answer")
    'answer'
    """

    seconds: float  # of one outage; 0: errors are raised at once
    place: str = "the study's storage"  # for messages, without a password
    hurry: Callable[[], bool] = lambda: False  # asked between two tries; True ends the wait
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    _since: float | None = None  # when the server was found away; None if it is there
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of a storage, again and again while its server is away.

        Raises:
            Exception: what the method raised, at once if its server is there, else when the patience is over.
        """
        began, delay = None, FIRST
        while True:
            try:
                result = method(*args, **kwargs)
            except Exception as error:
                if not is_away(error):
                    self._told_back()
                    if began is not None and _done_before(method, args, kwargs, error):
                        return True if method.__name__ == "set_trial_state_values" else None
                    raise
                began = self.clock() if began is None else began
                seconds = min(self.seconds, _limit.get())
                left = seconds - (self.clock() - began)
                if left <= 0 or self.hurry():
                    raise
                self._told_away(error, seconds)
            else:
                self._told_back()
                return result
            self.sleep(min(delay * random.uniform(0.5, 1), left))
            delay = min(2 * delay, LONGEST)

    def _told_away(self, error: Exception, seconds: float) -> None:
        with self._lock:
            if self._since is not None:
                return
            self._since = self.clock()
        log.warning(
            "%s is away or busy (%s); trying again for %.0f s, and the trials go on training meanwhile",
            self.place, reason(error), seconds,
        )  # fmt: skip

    def _told_back(self) -> None:
        with self._lock:
            since, self._since = self._since, None
        if since is not None:
            log.warning("%s is back after %.0f s", self.place, self.clock() - since)


def reason(error: BaseException) -> str:
    """Word an error in one line, without the SQL that met it.

    >>> reason(sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused")))
    'refused'
    """
    for cause in causes(error, suppressed=True):
        if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.orig is not None:
            error = cause.orig
        elif hasattr(cause, "details"):  # grpc's
            return str(cause.details())[:200]
    return " ".join(str(error).split())[:200]


def _done_before(method: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> bool:
    """Tell whether a write that is refused now was made by the try before, whose answer was lost."""
    name, storage = getattr(method, "__name__", ""), getattr(method, "__self__", None)
    if name == "delete_study":
        return isinstance(error, KeyError)
    if name != "set_trial_state_values" or storage is None or not isinstance(error, UpdateFinishedTrialError):
        return False
    given = inspect.signature(method).bind(*args, **kwargs).arguments
    trial, values = storage.get_trial(given["trial_id"]), given.get("values")
    return bool(trial.state == given["state"] and (values is None or list(values) == list(trial.values or ())))


def wait_for_server(storage: BaseStorage, patience: Patience) -> BaseStorage:
    """Make each call of a storage wait for its server, in place.

    >>> wait_for_server(optuna.storages.InMemoryStorage(), Patience(1.0)).get_all_studies()
    []
    """
    create = _create_once(patience, storage.create_new_trial, storage.get_all_trials)
    for name in CALLS:
        if method := getattr(storage, name, None):
            setattr(storage, name, functools.update_wrapper(functools.partial(patience.call, method), method))
    storage.create_new_trial = create  # type: ignore[method-assign]  # of this one storage
    return storage


def _create_once(
    patience: Patience, create: Callable[..., int], get_all: Callable[..., list[FrozenTrial]]
) -> Callable[..., int]:
    """Make a `create_new_trial` that, tried again, finds the trial that the try before made: by a token on it."""

    @functools.wraps(create)
    def create_new_trial(study_id: int, template_trial: FrozenTrial | None = None) -> int:
        template = copy.copy(template_trial or optuna.trial.create_trial(state=TrialState.RUNNING))
        token = uuid.uuid4().hex
        template.system_attrs = {**template.system_attrs, TOKEN: token}
        again = False

        def attempt() -> int:
            nonlocal again
            made = get_all(study_id, deepcopy=False) if again else []
            again = True
            for trial in made:
                if trial.system_attrs.get(TOKEN) == token:
                    return trial._trial_id
            return create(study_id, template)

        return int(patience.call(attempt))

    return create_new_trial
