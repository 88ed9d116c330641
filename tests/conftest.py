"""Fixtures shared by all tests. One thread: the suite runs on two shared cores."""

from pathlib import Path

import pytest
import torch
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)
# No time limit: on a busy machine it would tell of the neighbours.
settings.register_profile("catsweep", deadline=None)
settings.load_profile("catsweep")


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def photos() -> Path:
    """The real photos (../shared/photos); the test is skipped where they are absent."""
    folder = ROOT.parent / "shared" / "photos"
    if not folder.is_dir():
        pytest.skip("the real photos (../shared/photos) are not here")
    return folder
