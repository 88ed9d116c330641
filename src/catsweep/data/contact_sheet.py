"""One picture of many: the contact sheet by which one sees at a glance what a data set holds.

Pure arithmetic on arrays; a ready set's contact_sheet.png is made of it.
"""

import math

import numpy as np
from numpy.typing import NDArray


def pick(n: int, at_most: int = 100) -> NDArray[np.int64]:
    """Which of `n` images to show: all of them, or `at_most` spread evenly from first to last."""
    return np.unique(np.linspace(0, n - 1, min(n, at_most)).round().astype(np.int64))


def contact_sheet(images: NDArray[np.uint8], columns: int = 10, gap: int = 2) -> NDArray[np.uint8]:
    """Lay images out in rows, left to right, on white.

    Args:
        images: uint8, shape (N, H, W, 3), N ≥ 1.
        columns: images in a row; fewer if there are fewer images.
        gap: white pixels around each image.

    Returns:
        uint8, shape (rows · (H + gap) + gap, columns · (W + gap) + gap, 3).
    """
    n, height, width, _ = images.shape
    columns = min(columns, n)
    rows = math.ceil(n / columns)
    cells = np.full((rows * columns, height + gap, width + gap, 3), 255, dtype=np.uint8)
    cells[:n, gap:, gap:] = images
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    laid = cells.reshape(rows, columns, height + gap, width + gap, 3).swapaxes(1, 2)
    sheet[: -gap or None, : -gap or None] = laid.reshape(rows * (height + gap), columns * (width + gap), 3)
    return sheet
