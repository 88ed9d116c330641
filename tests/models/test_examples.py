"""The examples in the docstrings of `catsweep.models` do what they show, and each public function has one."""

import pytest
from tests.examples import failed, lacking, modules

from catsweep import models


@pytest.mark.parametrize("name", modules(models))
def test_examples_do_what_they_show(name: str) -> None:
    assert failed(name) == 0


@pytest.mark.parametrize("name", modules(models))
def test_public_functions_have_examples(name: str) -> None:
    assert lacking(name, functions_only=True) == []
