"""Fixtures shared by all tests. One thread: the suite runs on two shared cores."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)


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
