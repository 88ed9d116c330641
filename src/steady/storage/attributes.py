"""Read and write the system attributes of a study in one statement each, in databases that can.

Controllers look at each other's leases several times a trial (`steady.study.leases`), and Optuna makes four statements
and a transaction of each look. Also, of two processes that write an attribute for the first time at once, Optuna drops
one's value. And each trial may have distributions of its own, so that a space can be changed.
"""

import json
from typing import Any

import sqlalchemy
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage

READ = sqlalchemy.text(
    "SELECT a.key, a.value_json FROM studies s LEFT JOIN study_system_attributes a ON a.study_id = s.study_id "
    "WHERE s.study_id = :study"
)
WRITE = sqlalchemy.text(
    "INSERT INTO study_system_attributes (study_id, key, value_json) "
    "SELECT study_id, :key, :value FROM studies WHERE study_id = :study "
    "ON CONFLICT (study_id, key) DO UPDATE SET value_json = excluded.value_json"
)


class Database(RDBStorage):
    """Optuna's storage in a database, where each trial may have choices of its own: Optuna wants those of the first.

    Whoever draws sees to it that samplers are shown trials of one space (`steady.propose.sampling`).

    >>> import optuna
    >>> study = optuna.create_study(storage=Database("sqlite:///study.db"))
    >>> [study.ask().suggest_categorical("x", choices) for choices in (["a"], ["b"])]
    ['a', 'b']
    """

    def _set_trial_param_without_commit(
        self,
        session: Any,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
        previous_distribution: BaseDistribution | None = None,
    ) -> None:
        super()._set_trial_param_without_commit(
            session, trial_id, param_name, param_value_internal, distribution, distribution
        )


def use_single_statements(storage: BaseStorage, database: RDBStorage) -> BaseStorage:
    """Replace two methods of a storage, in place, if its database is SQLite or PostgreSQL; they do the same.

    >>> import optuna
    >>> database = RDBStorage("sqlite:///study.db")
    >>> storage = use_single_statements(optuna.storages.get_storage(database), database)
    >>> study = optuna.create_study(storage=storage)
    >>> storage.set_study_system_attr(study._study_id, "cats", 9)
    >>> storage.get_study_system_attrs(study._study_id)
    {'cats': 9}
    """
    if database.engine.dialect.name not in ("sqlite", "postgresql"):
        return storage
    engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")

    def get_study_system_attrs(study_id: int) -> dict[str, Any]:
        with engine.connect() as connection:
            rows = connection.execute(READ, {"study": study_id}).all()
        if not rows:
            raise KeyError(f"There is no study with the id {study_id}.")
        return {key: json.loads(value) for key, value in rows if key is not None}

    def set_study_system_attr(study_id: int, key: str, value: Any) -> None:
        with engine.connect() as connection:
            done = connection.execute(WRITE, {"study": study_id, "key": key, "value": json.dumps(value)})
        if not done.rowcount:
            raise KeyError(f"There is no study with the id {study_id}.")

    storage.get_study_system_attrs = get_study_system_attrs  # type: ignore[method-assign]  # of this one storage
    storage.set_study_system_attr = set_study_system_attr  # type: ignore[method-assign]  # likewise
    return storage
