"""Landmarks of cats' faces as Kaggle has them (`photo.jpg.cat`): reading and plausibility.

Nine points: left eye, right eye, mouth, three of the left ear, three of the right ear; "left" is the viewer's left,
x grows rightwards, y downwards, in pixels. Zhang, Sun, Tang, "Cat Head Detection", ECCV 2008 (the CAT data set).
"""

from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from catsweep.data.decode import Unreadable
from catsweep.data.files import Files

SUFFIX = ".cat"
POINTS = 9
MAX_BYTES = 4096
MAX_COORDINATE = 100_000

# Where the mouth may lie, in units of the distance between the eyes: along the line from eye to eye (0 is the left
# eye) and at right angles to it, downwards positive. On 1,703 of 1,706 photos of CAT_00: 0.04…1.01 and 0.23…1.16;
# the other three are upside-down cats whose left and right are exchanged.
MOUTH_ALONG = (-0.3, 1.3)
MOUTH_BELOW = (0.15, 1.6)


def read(files: Files, photo: str) -> NDArray[np.float64]:
    """Read the landmarks of a photo, float64 (9, 2), pixels, from the file beside it: 9, then x and y of each point.

    Unreadable if it is missing, or does not hold nine points within any photo's reach.
    """
    name = photo + SUFFIX
    if name not in files:
        raise Unreadable(f"no landmarks: {PurePath(name).name} is missing")
    try:
        words = files.read(name, MAX_BYTES).decode("ascii").split()
        numbers = np.array([float(word) for word in words])
    except Unreadable as error:
        raise Unreadable(f"malformed landmarks: {error.reason}") from error
    except ValueError as error:
        raise Unreadable(f"malformed landmarks: expected numbers, {error}") from error
    if len(numbers) != 1 + 2 * POINTS or numbers[0] != POINTS:
        start = " ".join(words[:4])
        raise Unreadable(f"malformed landmarks: expected 9 and 18 coordinates, got {len(words)} words '{start} …'")
    if not (np.abs(numbers) <= MAX_COORDINATE).all():  # also refuses NaN
        raise Unreadable(f"malformed landmarks: expected finite coordinates up to {MAX_COORDINATE:,} pixels")
    return numbers[1:].reshape(POINTS, 2)


def check(points: NDArray[np.float64], min_eye_distance: float) -> None:
    """Refuse, as Unreadable, landmarks (9, 2) that no upright cat's face has, or whose eyes are too close (pixels)."""
    left, right, mouth = points[:3]
    axis, down = right - left, mouth - left
    distance = float(np.hypot(*axis))
    if not distance >= min_eye_distance:
        raise Unreadable(f"face too small: eyes {distance:.1f} pixels apart, at least {min_eye_distance:g} are needed")
    along = float(axis @ down) / distance**2
    below = float(axis[0] * down[1] - axis[1] * down[0]) / distance**2
    if below < 0:
        raise Unreadable("implausible landmarks: the mouth is above the eyes, left and right are exchanged")
    if not (MOUTH_ALONG[0] <= along <= MOUTH_ALONG[1] and MOUTH_BELOW[0] <= below <= MOUTH_BELOW[1]):
        raise Unreadable(
            f"implausible landmarks: mouth at ({along:.2f}, {below:.2f}) eye distances from the left eye, "
            f"expected {MOUTH_ALONG[0]}…{MOUTH_ALONG[1]} along and {MOUTH_BELOW[0]}…{MOUTH_BELOW[1]} below"
        )
