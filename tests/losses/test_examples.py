"""The examples in the docstrings of `catsweep.losses` do what they show, and everything public has one."""

import pytest
from tests.examples import failed, lacking, modules

from catsweep import losses


@pytest.mark.parametrize("name", modules(losses))
def test_examples_do_what_they_show(name: str) -> None:
    assert failed(name) == 0


@pytest.mark.parametrize("name", modules(losses))
def test_everything_public_has_an_example(name: str) -> None:
    assert lacking(name) == []
