"""Tests of `steady.storage.reported_trials`: what pruners read is what the study has, in as few statements."""

from pathlib import Path

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from steady.storage import open_storage
from steady.storage.storage_errors import REPORTED

KEY = "steady:rungs"


def test_trials_have_states_one_attribute_and_what_pruners_noted(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    cats, dogs = (optuna.create_study(study_name=name, storage=storage) for name in ("cats", "dogs"))
    trials = [study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}) for study in (cats, dogs, cats, cats)]
    for number in (0, 2):
        trials[number].set_user_attr(KEY, {"1": {"loss": 0.5 + number}})
        trials[number].set_user_attr("other", number)
    storage.set_trial_system_attr(trials[3]._trial_id, "completed_rung_0", 0.25)
    cats.tell(trials[0], 0.5)
    cats.tell(trials[2], state=TrialState.PRUNED)
    read = getattr(storage, REPORTED)(cats._study_id, [KEY])
    there = cats.get_trials()
    assert [(one.number, one._trial_id, one.state) for one in read] == [(t.number, t._trial_id, t.state) for t in there]
    assert [one.user_attrs.get(KEY) for one in read] == [t.user_attrs.get(KEY) for t in there]
    both = getattr(storage, REPORTED)(cats._study_id, [KEY, "other"])  # an attribute may have had another name
    assert [one.user_attrs for one in both] == [t.user_attrs for t in there]
    assert [one.system_attrs for one in read] == [t.system_attrs for t in there]


@pytest.mark.parametrize("n", [1, 20])
def test_it_takes_two_statements_however_many_trials_there_are(n: int, tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path}/study.db")
    study = optuna.create_study(storage=storage)
    study.add_trials([optuna.trial.create_trial(value=1.0, user_attrs={KEY: {}}) for _ in range(n)])
    statements: list[str] = []
    listen = ("before_cursor_execute", lambda *told: statements.append(told[2]))
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, *listen)
    try:
        assert len(getattr(storage, REPORTED)(study._study_id, [KEY])) == n
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, *listen)
    assert len(statements) == 2
