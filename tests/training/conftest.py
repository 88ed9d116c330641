"""Tests of training run outside Hydra, and build a scorer each."""

import pytest
from hydra.core.hydra_config import HydraConfig


@pytest.fixture(autouse=True)
def outside_hydra(monkeypatch: pytest.MonkeyPatch, quick_scorers: None) -> None:
    """No job of Hydra's: another test of this process may have left its configuration, which a preflight would ask."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
