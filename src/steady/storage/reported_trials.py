"""Read of all trials of a study what pruners look at, in two statements.

A trial that reports does so in its own process, and Optuna would read all of each trial, with parameters and the
distribution of each: seconds, where a study has ten thousand.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState

from steady.storage.storage_errors import REPORTED

Reported = Callable[[int, Sequence[str]], list[FrozenTrial]]

TRIALS = sqlalchemy.text(
    "SELECT t.trial_id, t.number, t.state, a.key, a.value_json FROM trials t LEFT JOIN trial_user_attributes a "
    "ON a.trial_id = t.trial_id AND a.key IN :attributes WHERE t.study_id = :study ORDER BY t.number"
).bindparams(sqlalchemy.bindparam("attributes", expanding=True))
# Where pruners note how far trials have come.
NOTED = sqlalchemy.text(
    "SELECT a.trial_id, a.key, a.value_json FROM trials t JOIN trial_system_attributes a ON a.trial_id = t.trial_id "
    "WHERE t.study_id = :study"
)


def add_reported_trials(storage: BaseStorage, database: RDBStorage) -> BaseStorage:
    """Give a storage the method `get_reported_trials`: a study's trials by number, with some of their user attributes.

    They have their states and system attributes besides, and nothing else.

    >>> import optuna
    >>> database = RDBStorage("sqlite:///study.db")
    >>> storage = add_reported_trials(optuna.storages.get_storage(database), database)
    >>> study = optuna.create_study(storage=storage)
    >>> study.ask().set_user_attr("cats", 9)
    >>> [trial.user_attrs for trial in getattr(storage, REPORTED)(study._study_id, ["cats"])]
    [{'cats': 9}]
    """
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")

    def get_reported_trials(study_id: int, attributes: Sequence[str]) -> list[FrozenTrial]:
        with engine.connect() as connection:
            rows = connection.execute(TRIALS, {"study": study_id, "attributes": list(attributes)}).all()
            noted: defaultdict[int, dict[str, Any]] = defaultdict(dict)
            for id, key, value in connection.execute(NOTED, {"study": study_id}):
                noted[id][key] = json.loads(value)
        trials: dict[int, FrozenTrial] = {}
        for id, number, state, key, value in rows:  # of a trial with several of the attributes one for each
            if id not in trials:
                trials[id] = FrozenTrial(
                    number=number, trial_id=id, state=TrialState[state], value=None, datetime_start=None,
                    datetime_complete=None, params={}, distributions={}, intermediate_values={}, user_attrs={},
                    system_attrs=noted.get(id, {}),
                )  # fmt: skip
            if value is not None:
                trials[id].user_attrs[key] = json.loads(value)
        return list(trials.values())

    setattr(storage, REPORTED, get_reported_trials)
    return storage
