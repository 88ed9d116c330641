"""Examples in docstrings run."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

import catsweep.metrics

MODULES = [f"catsweep.metrics.{found.name}" for found in pkgutil.iter_modules(catsweep.metrics.__path__)]


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_has_one(name: str) -> None:
    module = importlib.import_module(name)
    functions = inspect.getmembers(module, lambda one: inspect.isfunction(one) and one.__module__ == name)
    lacking = [word for word, one in functions if not word.startswith("_") and ">>>" not in (one.__doc__ or "")]
    assert lacking == []
