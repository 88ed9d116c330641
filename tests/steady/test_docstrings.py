"""The examples in the docstrings of steady, run."""

import doctest
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

import pytest

import steady

MODULES = [found.name for found in pkgutil.walk_packages(steady.__path__, "steady.")]


@pytest.mark.parametrize("name", ["steady", *MODULES])
def test_examples_hold(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where they write
    module: ModuleType = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert not found.failed
