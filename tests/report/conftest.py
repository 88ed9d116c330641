"""Fixtures of the report's tests; `tests.report.studies` fills them."""

from pathlib import Path

import optuna
import pytest
from tests.report.studies import Lab


@pytest.fixture
def lab(tmp_path: Path, empty_database: Path) -> Lab:
    """An empty project."""
    return Lab(tmp_path, empty_database)


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
