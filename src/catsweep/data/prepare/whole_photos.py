"""Photos that were cut to their faces before: when they are taken whole instead of being cut once more.

Serves stage `zoom`. Its frame asks for more of such a photo than there is, and a cascade, which wants some of what is
around a face, often finds none. Whether a set is of this kind shows when all photos have been searched. Pure functions
on records and matrices.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data.prepare.record import Record

Array = NDArray[np.float64]

AUTO, ALWAYS, NEVER = "auto", "always", "never"  # of `zoom.whole`
FACES, FACELESS = "faces", "faceless"  # why all photos of a set are taken whole
METHOD = "whole photo"
SET, PHOTO = "set", "photo"  # in a record's parameters: taken whole because of the others, or by itself

# A set is one of faces if nearly all of its certain faces have a frame of `FILLING` shorter sides of their photo.
# Of sets that were cut to their faces, tight to loose, all have; of half faces and half whole cats, 80 %, of a fifth of
# whole cats, 94 %; of CAT_00, 30 to 40 %; of whole cats on white, none. Only certain ones say so, as what is found in a
# face beside the face itself is an eye or a nose, at up to 0.996; and only several, as one face of CAT_00 may well fill
# its photo.
CERTAIN, FILLING, NEARLY_ALL, SEVERAL = 0.999, 0.65, 0.95, 3
ASKING = 0.9  # in a set of faces, photos with a larger frame than this are taken whole
# With a sure face in less than this share of the photos, the search is not for them: of CAT_00 it finds one in 65 %, of
# whole cats on white in 27 to 40 %, of cats on white that are a fifth of their photo in none.
SURE = 0.1
PLACE = ("cut off", "no face found", "turned", "unsure")  # kinds of doubt about where a face is
SEARCHED = ("landmarks", "box", "angle", "weight", "frame")  # parameters that say what the search has found


def centred(height: int, width: int, size: int, frame: Array | None = None) -> Array:
    """The matrix from a photo to its largest square, shape (2, 3).

    Args:
        height: of the photo, pixels.
        width: of the photo, pixels.
        size: of the zoomed image, pixels.
        frame: photo → zoomed image; the square is as near to the middle of this frame as it can be. None: it is in the
            middle of the photo.
    """
    side = min(height, width)
    middle = np.array([width, height]) / 2
    if frame is not None:
        wanted = cv2.invertAffineTransform(frame) @ [size / 2, size / 2, 1]
        middle = np.clip(wanted, side / 2, np.array([width, height]) - side / 2)
    factor = size / side
    x, y = size / 2 - factor * middle
    return np.array([[factor, 0, x], [0, factor, y]])


def share(frame: Array, height: int, width: int, size: int) -> float:
    """Side of a frame, in shorter sides of its photo; see `centred`."""
    return round(size / alignment.scale(frame) / min(height, width), 3)


def why(records: Sequence[Record], min_confidence: float) -> str:
    """Why the photos of a set are taken whole: `FACES`, `FACELESS`, or nothing, and then they are not.

    Args:
        records: of stage `zoom`, all of them.
        min_confidence: of a face that is found for sure.
    """
    searched, sure = _found(records, min_confidence)
    if len(sure) < SURE * len(searched):
        return FACELESS
    certain, filled = _certain(sure)
    return FACES if certain >= SEVERAL and filled >= NEARLY_ALL * certain else ""


def _found(records: Sequence[Record], min_confidence: float) -> tuple[list[Record], list[Record]]:
    """The photos in which a face was looked for, and those of them in which one was found for sure."""
    searched = [record for record in records if record.confidence is not None]
    return searched, [record for record in searched if upright(record) and (record.confidence or 0) >= min_confidence]


def _certain(sure: Sequence[Record]) -> tuple[int, int]:
    """How many faces are certain, and how many of these fill their photo."""
    frames = [record.parameters["frame"] for record in sure if (record.confidence or 0) >= CERTAIN]
    return len(frames), sum(frame >= FILLING for frame in frames)


def suits(record: Record) -> bool:
    """Whether a photo that was cut by itself is better taken whole, if it is one of a set of faces."""
    if "box" in record.parameters and (record.parameters["frame"] >= ASKING or (record.confidence or 0) < CERTAIN):
        return True
    return any(word.split(":", 1)[0] in PLACE for word in (*record.doubts, record.reason))


def upright(record: Record) -> bool:
    """Whether an upright face was found in a photo, or its landmarks were used."""
    return "frame" in record.parameters and not record.parameters.get("angle")


def in_set(record: Record) -> bool:
    """Whether a photo was taken whole because of what the others are."""
    return record.parameters.get("whole") == SET


def note(records: Sequence[Record], min_confidence: float) -> list[str]:
    """What is to be said of it: a line, or none."""
    taken = [record for record in records if "whole" in record.parameters]
    if not taken:
        return []
    _, sure = _found(records, min_confidence)
    certain, filled = _certain(sure)
    found = f"only in {len(sure):,}" if sure else "in none"
    reason = {
        FACES: f"{filled:,} of {certain:,} faces that are certain fill their photo, so most are faces already",
        FACELESS: f"a face was found for sure {found}",
    }.get(why(records, min_confidence), "zoom.whole=always")
    if not any(map(in_set, taken)):
        reason = "the frame of the face would be larger than the photo"
    count = (
        f"{len(taken):,} of {len(records):,} photo{'s' * (len(records) != 1)} {'was' if len(taken) == 1 else 'were'}"
    )
    return [f"{count} taken whole: {reason}. To cut to the face all the same: zoom.whole=never."]
