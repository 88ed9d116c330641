"""The examples in the docstrings of a package: that they do what they show, and that everything public has one."""

import doctest
import importlib
import pkgutil
from types import ModuleType

import torch


def modules(package: ModuleType) -> list[str]:
    """The dotted names of a package's modules."""
    return sorted(found.name for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."))


def failed(name: str) -> int:
    """How many examples of a module do not do what they show, on one thread and from one seed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        return doctest.testmod(importlib.import_module(name)).failed
    finally:
        torch.set_num_threads(threads)


def lacking(name: str, functions_only: bool = False) -> list[str]:
    """What is public in a module and has no example; there is something public in it."""
    public = {
        key: member
        for key, member in vars(importlib.import_module(name)).items()
        if not key.startswith("_") and callable(member) and getattr(member, "__module__", None) == name
    }
    assert public
    asked = {key: one for key, one in public.items() if not (functions_only and isinstance(one, type))}
    return [key for key, one in asked.items() if ">>>" not in (one.__doc__ or "")]
