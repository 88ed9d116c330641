"""Errors that steady raises on purpose: one root, so that a caller can tell them from a bug.

A message says what was expected, what came, and what to do about it.
"""

from collections.abc import Iterator


def causes(error: BaseException, suppressed: bool = False) -> Iterator[BaseException]:
    """Yield an exception and its causes, each once; with `suppressed` also those that `raise … from None` hides.

    >>> error = KeyError("a")
    >>> error.__cause__ = ValueError("b")
    >>> " from ".join(type(cause).__name__ for cause in causes(error))
    'KeyError from ValueError'
    """
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        hidden = following.__suppress_context__ and not suppressed
        following = following.__cause__ or (None if hidden else following.__context__)


class SteadyError(Exception):
    """Root of all errors that steady raises on purpose."""


class ConfigError(SteadyError):
    """A configuration that cannot mean anything, for example a sampler that does not exist."""


class PlaceError(SteadyError):
    """A folder or file that cannot be used: no room, no permission, something else in its place."""


class DataError(SteadyError):
    """A file or other input that cannot be used, or is not what it claims to be."""


class TrainingError(SteadyError):
    """A failure that a task reports itself."""


class DivergedError(TrainingError):
    """Training that has diverged: a loss or scores that are not finite, or a collapsed generator."""


class InterruptedTrial(TrainingError):
    """A task that stopped on request, at a checkpoint that it can resume from."""


class StudyError(SteadyError):
    """A sweep that cannot go on as asked: its study was made otherwise, or every trial fails in the same way."""


class StorageError(StudyError):
    """A study whose file or server cannot be read or written; `full` if no space is left."""

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class NoStorageError(StorageError):
    """A storage that is to be read, and is not there."""
