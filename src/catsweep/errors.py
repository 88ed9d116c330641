"""Every error catsweep raises on purpose: one root, so that a caller can tell ours from a bug.

A message says what was expected, what came, and what to do about it.
"""


class CatsweepError(Exception):
    """Root of all errors that catsweep raises on purpose."""


class ConfigError(CatsweepError):
    """A configuration that cannot mean anything, for example a loss the model has no use for."""


class PlaceError(CatsweepError):
    """A folder or file that cannot be used: no room, no permission, something else in its place."""


class DataError(CatsweepError):
    """Input data that cannot be used, or a ready set that is not what it claims to be."""


class MetricError(CatsweepError):
    """A score that cannot be computed, or two scores that may not be compared."""


class ExportError(CatsweepError):
    """A run or a study that cannot be turned into a bundle."""


class TrainingError(CatsweepError):
    """A run that went wrong in a way that the run itself can tell, for example a loss that is not a number."""


class DivergedError(TrainingError):
    """Training that cannot come to anything: a loss or images that are not finite, or a generator that collapsed."""


class InterruptedTrial(TrainingError):
    """A run that was asked to stop and did, at a checkpoint it can go on from."""


class StudyError(CatsweepError):
    """A sweep that cannot go on as asked: its study was made otherwise, or every trial fails in the same way."""


class StorageError(StudyError):
    """A study whose file or server cannot be read or written, as on a full disk.

    Args:
        message: which, why, and what to do.
        full: no space is left, so nothing else can be written there either.
    """

    def __init__(self, message: str, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class EvaluationError(CatsweepError):
    """A model that does not score as its record says."""


class TakenError(CatsweepError):
    """A place where something lies that catsweep did not make, and so does not replace."""
