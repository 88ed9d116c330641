"""Errors that catsweep raises on purpose: one root, shared with `steady`, so that a caller can tell them from a bug.

A message says what was expected, what came, and what to do about it.
"""

from steady.exceptions import (
    ConfigError,
    DataError,
    DivergedError,
    InterruptedTrial,
    PlaceError,
    StorageError,
    StudyError,
    TrainingError,
)
from steady.exceptions import SteadyError as CatsweepError

__all__ = [
    "CatsweepError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "EvaluationError",
    "ExportError",
    "InterruptedTrial",
    "MetricError",
    "PlaceError",
    "StorageError",
    "StudyError",
    "TakenError",
    "TrainingError",
]


class MetricError(CatsweepError):
    """A score that cannot be computed, or two scores that may not be compared."""


class ExportError(CatsweepError):
    """A run or a study that cannot be turned into a bundle."""


class EvaluationError(CatsweepError):
    """A model that does not score as its record says."""


class TakenError(CatsweepError):
    """A place where something lies that catsweep did not make, and so does not replace."""
