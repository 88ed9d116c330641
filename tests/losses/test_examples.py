"""The examples in the docstrings of `catsweep.losses` do what they show, and everything public has one."""

import doctest
import importlib
import pkgutil

import pytest
import torch

from catsweep import losses

NAMES = sorted(module.name for module in pkgutil.iter_modules(losses.__path__, "catsweep.losses."))


@pytest.mark.parametrize("name", NAMES)
def test_examples_do_what_they_show(name):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        assert doctest.testmod(importlib.import_module(name)).failed == 0
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_has_an_example(name):
    members = vars(importlib.import_module(name)).items()
    public = [
        member
        for key, member in members
        if not key.startswith("_") and callable(member) and getattr(member, "__module__", None) == name
    ]
    assert public
    assert [member.__name__ for member in public if ">>>" not in (member.__doc__ or "")] == []
