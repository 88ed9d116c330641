"""The scorer of a run, on the very photos that it was scored against.

`bundle` measures intervals and looks for nearest photos with it, before anything is written: photos that cannot be had
are told at once.
"""

from pathlib import Path

from catsweep.errors import CatsweepError, ExportError
from catsweep.export.recorded import Recorded, open_photos, scorer_for
from catsweep.metrics.scorer import Scorer


def scorer_of(folder: Path, ready: str | None = None) -> Scorer:
    """Build the scorer that a run was scored with.

    Args:
        folder: of the run.
        ready: folder of its ready set, if it is no longer where the run found it.

    Raises:
        ExportError: the photos are not here, or are others; or scores would be taken in another way.
    """
    try:
        recorded = Recorded.read(folder)
        return scorer_for(recorded, open_photos(recorded, ready))
    except CatsweepError as error:
        raise ExportError(
            f"{error} Without photos there can be a bundle too, but no intervals and no nearest photos: draws=0."
        ) from error
