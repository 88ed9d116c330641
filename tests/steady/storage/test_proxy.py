"""Optuna's storage proxy in front of a database that comes and goes."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState

from steady.exceptions import ConfigError, StorageError
from steady.storage import open_storage
from steady.storage.patience import Patience, is_away
from steady.storage.proxy import main, serve

grpc = pytest.importorskip("grpc")


def test_a_sweep_s_study_is_driven_through_it(tmp_path: Path) -> None:
    server, port = serve(f"sqlite:///{tmp_path}/study.db")
    try:
        study = optuna.create_study(study_name="cats", storage=open_storage(f"grpc://localhost:{port}"))
        study.tell(study.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
        study.tell(study.ask(), state=TrialState.FAIL)
        study.set_user_attr("contract", {"a": [1, None]})
    finally:
        server.stop(None).wait()
    there = optuna.load_study(study_name="cats", storage=open_storage(f"sqlite:///{tmp_path}/study.db", make=False))
    assert [trial.state for trial in there.trials] == [TrialState.COMPLETE, TrialState.FAIL]
    assert there.user_attrs == {"contract": {"a": [1, None]}}


def test_clients_wait_for_a_database_that_is_away_and_are_told_of_other_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[Exception] = []
    plain = optuna.storages.RDBStorage.get_all_studies

    def get_all_studies(self: Any) -> Any:
        if faults:
            raise faults.pop()
        return plain(self)

    monkeypatch.setattr(optuna.storages.RDBStorage, "get_all_studies", get_all_studies)
    server, port = serve(f"sqlite:///{tmp_path}/study.db")
    try:
        faults += [sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused"))] * 2
        assert open_storage(f"grpc://localhost:{port}", patience=Patience(60.0)).get_all_studies() == []
        assert not faults
        faults.append(sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused")))
        with pytest.raises(StorageError, match="refused") as told:
            open_storage(f"grpc://localhost:{port}").get_all_studies()
        assert is_away(told.value)
        faults.append(RuntimeError("something else"))
        with pytest.raises(StorageError, match="something else") as told:
            open_storage(f"grpc://localhost:{port}", patience=Patience(60.0)).get_all_studies()
        assert not is_away(told.value)
    finally:
        server.stop(None).wait()


def test_a_proxy_that_is_not_there_is_named_with_what_to_check() -> None:
    with pytest.raises(StorageError, match=r"grpc://localhost:1 cannot be used: .*Check that the server runs.*proxy"):
        open_storage("grpc://localhost:1").get_all_studies()


@pytest.mark.parametrize("url", ["journal:///study.log", "grpc://localhost:1"])
def test_what_is_no_database_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="A proxy serves a database"):
        serve(url)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    server, port = serve(f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(SystemExit, match=f"localhost:{port} cannot be listened at: .*--port"):
        main([f"sqlite:///{tmp_path}/study.db", f"--port={port}"])
    server.stop(None).wait()
