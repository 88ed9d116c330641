"""What can be measured of the images of a ready set, for the report: light, sharpness, tilt and size of the face.

Pure functions on pixels and records.
"""

import math
from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data.prepare.record import Record


def brightness(image: NDArray[np.uint8]) -> float:
    """Mean luma (ITU-R BT.601) of an image of shape (H, W, 3), 0 to 255."""
    return float(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean())


def sharpness(image: NDArray[np.uint8]) -> float:
    """How much neighbouring pixels of an image of shape (H, W, 3) differ, in levels of grey; 0 is one plain colour.

    The standard deviation of its Laplacian. Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000, who take the variance.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).std())


def tilts(records: Iterable[Record]) -> list[float]:
    """By how much zoomed faces had been tilted in their photos, degrees; clockwise positive.

    Args:
        records: of stage `zoom`; those that were not turned to a face are passed over.
    """
    found = []
    for record in records:
        matrix = record.parameters.get("matrix")
        if matrix is not None and method(record) != "centre":
            found.append(-math.degrees(math.atan2(matrix[1][0], matrix[0][0])))
    return found


def enlargements(records: Iterable[Record]) -> list[float]:
    """How many times stage `zoom` enlarged each photo; below 1 it was shrunk."""
    return [float(record.parameters["enlarged"]) for record in records if "enlarged" in record.parameters]


def method(record: Record) -> str:
    """How an image was made, for example `landmarks`."""
    return record.operation.rpartition(": ")[2]
