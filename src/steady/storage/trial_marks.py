"""Tell cheaply which trials of a study are new or have changed, so that not all are read to find out.

Optuna's storages hand out all trials, however few have changed; those of a database read each unfinished one with six
statements. Marks are one statement, over the trials that have not ended and those that are new.
"""

from collections.abc import Callable, Collection
from datetime import datetime

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial

from steady.storage.storage_errors import MARKS

# Of a trial that has not ended: the name of its state, when it began last, and how many parameters and user attributes
# it has. What changes otherwise is the value of an attribute, or what a trial reports while it runs.
Mark = tuple[str, datetime | None, int, int]
Marks = Callable[[int, Collection[int], int], dict[int, Mark]]

_MARK = """
SELECT t.trial_id, t.state, t.datetime_start,
  (SELECT COUNT(*) FROM trial_params p WHERE p.trial_id = t.trial_id),
  (SELECT COUNT(*) FROM trial_user_attributes u WHERE u.trial_id = t.trial_id)
FROM trials t WHERE"""
# Two selections, since of one with OR a database makes a search through all trials.
QUERY = (
    sqlalchemy.text(f"{_MARK} t.study_id = :study AND t.trial_id > :above UNION ALL {_MARK} t.trial_id IN :ids")
    .bindparams(sqlalchemy.bindparam("ids", expanding=True))
    .columns(datetime_start=sqlalchemy.DateTime)  # SQLite keeps it as text
)


def mark(trial: FrozenTrial) -> Mark:
    """Get the mark of a trial that was read.

    >>> import optuna
    >>> mark(optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING, user_attrs={"cats": 9}))
    ('RUNNING', datetime.datetime(...), 0, 1)
    """
    return trial.state.name, trial.datetime_start, len(trial.params), len(trial.user_attrs)


def add_trial_marks(storage: BaseStorage, database: RDBStorage) -> BaseStorage:
    """Give a storage the method `get_trial_marks`: of a study's trials with these ids, and those with higher ones.

    >>> import optuna
    >>> database = RDBStorage("sqlite:///study.db")
    >>> storage = add_trial_marks(optuna.storages.get_storage(database), database)
    >>> study = optuna.create_study(storage=storage)
    >>> study.enqueue_trial({})
    >>> getattr(storage, MARKS)(study._study_id, [], 0)
    {1: ('WAITING', None, 0, 0)}
    """
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")

    def get_trial_marks(study_id: int, ids: Collection[int], above: int) -> dict[int, Mark]:
        with engine.connect() as connection:
            rows = connection.execute(QUERY, {"study": study_id, "ids": list(ids), "above": above}).all()
        return {id: (state, start, params, attributes) for id, state, start, params, attributes in rows}

    setattr(storage, MARKS, get_trial_marks)
    return storage
