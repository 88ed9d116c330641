"""The examples in the docstrings of `catsweep.metrics` do what they show, and every public function has one."""

import pytest
from tests.examples import failed, lacking, modules

from catsweep import metrics


@pytest.mark.parametrize("name", modules(metrics))
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec")
def test_examples_do_what_they_show(name: str) -> None:
    assert failed(name) == 0


@pytest.mark.parametrize("name", modules(metrics))
def test_every_public_function_has_an_example(name: str) -> None:
    assert lacking(name, functions_only=True) == []
