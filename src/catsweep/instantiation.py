"""Building of the objects that `_target_` nodes name, in the configuration that a person composes.

It may name anything of these packages, and of their own with `trust=[mypackage.*]` on the command line. That keeps
slips and copied lines from reaching `os.system`, and is no protection from a stranger: a configuration that was loaded
from a file is for `catsweep.untrusted_config`.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, TypeVar

import hydra.utils
from hydra.errors import InstantiationException

from catsweep.errors import ConfigError

R = TypeVar("R")

TRUSTED = ("catsweep.*", "torch.nn.*", "torch.optim.*", "pytorch_lightning.*", "pytorch_optimizer.*", "kornia.*")
_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(names: Sequence[str]) -> Iterator[None]:
    """Let configurations name these too in the block: `mypackage.models.Net`, or all of a package, `mypackage.*`."""
    try:
        allowing = hydra.utils.execution_whitelist(list(names))
    except InstantiationException as error:
        raise ConfigError(
            f"trust must be a list of names, or of packages and .*, such as mypackage.*; got {list(names)!r}."
        ) from error
    with allowing:
        token = _trusted.set((*_trusted.get(), *map(str, names)))
        try:
            yield
        finally:
            _trusted.reset(token)


def is_trusted(name: str) -> bool:
    """Tell whether `trusting` covers a name."""
    return any(name == one or (one.endswith(".*") and name.startswith(one[:-1])) for one in _trusted.get())


def unimportable(name: str) -> str:
    """Describe the remedy for a name whose package is not found; empty if it is found."""
    package = name.partition(".")[0]
    if not package.isidentifier() or find_spec(package) is not None:
        return ""
    return (
        f"Python does not look for {package} in the folder that you are in: put PYTHONPATH=. before the command, or "
        "install it (pip install -e FOLDER)."
    )


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Build what a node names, see `hydra.utils.instantiate`.

    Raises:
        ConfigError: a target is not trusted, or cannot be found. What a target itself raises passes through.
    """
    try:
        return hydra.utils.instantiate(node, _execution_whitelist_=TRUSTED, **kwargs)
    except InstantiationException as error:
        raise ConfigError(_said(error)) from error


def _said(error: InstantiationException) -> str:
    """Reword what Hydra says of a target: without its manual, and with the remedy for a command line."""
    said = " ".join(str(error).partition("\n\n")[0].split())
    found = re.search(r"[Tt]arget '([^']*)'", said)
    name = found[1] if found else ""
    if said.startswith("Error locating target"):
        return (
            f"The target {name!r} cannot be found: {' '.join(str(error.__cause__).split())} "
            f"{unimportable(name) or 'Is it spelled as in its module?'}"
        )
    if "is not in the Hydra execution whitelist" in said:
        return (
            f"The target {name!r} is not trusted: a configuration may name targets of {', '.join(TRUSTED)}. "
            f"If it is yours, add 'trust=[{name.partition('.')[0] or 'mypackage'}.*]'."
        )
    if "cannot be authorized" in said:
        return f"The target {name!r} may not be named, whatever is trusted: it could run anything."
    return said


def checked_once(function: Callable[..., R]) -> Callable[..., R]:
    """Wrap a partial of Hydra's (`_partial_: true`) such that only its first call looks for targets not trusted.

    That takes a millisecond in every call, as long as a small network's step on a GPU. Other functions stay.
    """
    is_hydras = isinstance(function, functools.partial) and type(function) is not functools.partial
    return _CheckedOnce(function) if is_hydras else function


class _CheckedOnce:
    """See `checked_once`; a class, so that a model that has one can be copied."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self.function(*args, **kwargs)
        if type(self.function) is not functools.partial:
            self.function = functools.partial(self.function.func, *self.function.args, **self.function.keywords)
        return result
