"""From `_target_` nodes to objects, in the configuration that a person composes of `conf/` and the command line.

It is their own, and may name anything of these packages, and of their own packages with `trust=[mypackage.*]` on the
command line (see `catsweep.commands.guard`). A list of packages keeps slips and copied lines from reaching `os.system`,
and is no protection from a stranger: a configuration that was loaded from a file is `catsweep.loaded`'s, which knows
exact names only.
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

LOCATING = re.compile(r"Error locating target '([\w.]+)'")  # how Hydra begins when it finds nothing of a name

_trusted: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextmanager
def trusting(names: Sequence[str]) -> Iterator[None]:
    """While the block runs, configurations of either kind may name these too.

    Args:
        names: exact ones, `mypackage.models.Net`, or all of a package, `mypackage.*`; those of the command line.
    """
    with hydra.utils.execution_whitelist(list(names)):
        token = _trusted.set((*_trusted.get(), *map(str, names)))
        try:
            yield
        finally:
            _trusted.reset(token)


def is_trusted(name: str) -> bool:
    """Whether `trusting` has been told of a name."""
    return any(name == one or (one.endswith(".*") and name.startswith(one[:-1])) for one in _trusted.get())


def unimportable(name: str) -> str:
    """The remedy for a name that is not found, if that is because its package is not; else empty."""
    package = name.partition(".")[0]
    if not package.isidentifier() or find_spec(package) is not None:
        return ""
    return (
        f"Python does not look for {package} in the folder that you are in: put PYTHONPATH=. before the command, or "
        "install it (pip install -e FOLDER)."
    )


def instantiate(node: Any, **kwargs: Any) -> Any:
    """Build what a node names, see `hydra.utils.instantiate`.

    Args:
        node: a mapping with `_target_`, and the arguments of that target.
        **kwargs: further arguments, which override the node's.

    Raises:
        ConfigError: a target is not trusted, or cannot be found. What a target itself raises passes through.
    """
    try:
        return hydra.utils.instantiate(node, _execution_whitelist_=TRUSTED, **kwargs)
    except InstantiationException as error:
        # Hydra's message first names the target and then quotes its own manual at length.
        said = str(error).partition("\n\n")[0]
        located = LOCATING.match(said)
        if located is not None and is_trusted(located[1]) and (remedy := unimportable(located[1])):
            raise ConfigError(f"{' '.join(said.split())}, for there is no package of that name. {remedy}") from error
        raise ConfigError(
            f"A configuration may name targets of {', '.join(TRUSTED)} and of the packages in trust=[…]. {said}"
        ) from error


def checked_once(function: Callable[..., R]) -> Callable[..., R]:
    """For a function that training calls in every step: the same one, checked by Hydra in its first call only.

    What Hydra makes of `_partial_: true` looks through the whole configuration in every call, to see that nothing is
    called that is not trusted: about a millisecond, as long as a small network takes on a GPU. The first call has
    passed that; later ones call the same function, with the same arguments of the configuration.

    Args:
        function: a partial of Hydra's, or any other function, which is returned as it is.
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
