"""Fixtures of the report's tests; `tests.report.studies` fills them."""

from pathlib import Path

import optuna
import pytest
from tests.report.studies import Lab


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables without a study: making them takes ten times as long as all the rest of a test."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def lab(tmp_path: Path, empty_database: Path) -> Lab:
    """An empty project."""
    return Lab(tmp_path, empty_database)


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
