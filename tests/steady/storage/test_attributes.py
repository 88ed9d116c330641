"""Attributes that are read and written in one statement are those that Optuna reads and writes."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import RDBStorage

from steady.storage.attributes import use_single_statements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> RDBStorage:
    database = RDBStorage(f"sqlite:///{tmp_path_factory.mktemp('attributes') / 'study.db'}")
    sqlalchemy.event.listen(database.engine, "connect", lambda made, _: made.execute("PRAGMA synchronous=OFF"))
    database.engine.dispose()
    return database


@settings(max_examples=25)
@given(written=st.lists(st.tuples(st.sampled_from("abc"), VALUES, st.booleans()), max_size=8))
def test_both_ways_see_the_same(database: RDBStorage, written: list[tuple[str, Any, bool]]) -> None:
    plain, fast = optuna.storages.get_storage(database), optuna.storages.get_storage(database)
    use_single_statements(fast, database)
    study = optuna.create_study(storage=plain)._study_id
    for key, value, quickly in written:
        (fast if quickly else plain).set_study_system_attr(study, key, value)
        assert fast.get_study_system_attrs(study) == plain.get_study_system_attrs(study)
    assert fast.get_study_system_attrs(study) == {key: value for key, value, _ in written}


def test_each_look_and_each_note_is_one_statement(database: RDBStorage) -> None:
    storage = use_single_statements(optuna.storages.get_storage(database), database)
    study = optuna.create_study(storage=storage)._study_id
    statements: list[str] = []
    sqlalchemy.event.listen(
        database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]), named=False
    )
    storage.set_study_system_attr(study, "cats", 1)
    storage.set_study_system_attr(study, "cats", 2)
    assert storage.get_study_system_attrs(study) == {"cats": 2}
    assert len(statements) == 3


def test_a_study_that_is_not_there_is_missed(database: RDBStorage) -> None:
    storage = use_single_statements(optuna.storages.get_storage(database), database)
    with pytest.raises(KeyError):
        storage.get_study_system_attrs(10**6)
    with pytest.raises(KeyError):
        storage.set_study_system_attr(10**6, "cats", 1)


def test_other_databases_are_left_to_optuna(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = RDBStorage(f"sqlite:///{tmp_path / 'study.db'}")
    monkeypatch.setattr(database.engine.dialect, "name", "mysql")
    storage = optuna.storages.get_storage(database)
    before = storage.get_study_system_attrs
    assert use_single_statements(storage, database).get_study_system_attrs == before
