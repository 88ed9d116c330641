"""Lay out images of one size on a page, and write PNGs atomically."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from steady.atomic import replacing

Images = NDArray[np.uint8]

BACKGROUND = 255  # white


def grid(images: Images, columns: int | None = None, padding: int = 2) -> Images:
    """Lay out images, uint8 (N, H, W, 3), N at least 1, row by row on one white page.

    Without `columns` as square as possible; cells of an unfinished last row stay white. Each image has `padding` white
    pixels around it. Others are a ValueError.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8 or not images.size:
        raise ValueError(
            f"A grid needs uint8 images of shape (N, H, W, 3), at least one; got {images.dtype} {images.shape}."
        )
    count, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1 or padding < 0:
        raise ValueError(f"A grid needs columns >= 1 and padding >= 0; got columns={columns}, padding={padding}.")
    rows_needed = math.ceil(count / columns)
    page = np.full(
        (rows_needed * (height + padding) + padding, columns * (width + padding) + padding, 3), BACKGROUND, np.uint8
    )
    for position, image in enumerate(images):
        row, column = divmod(position, columns)
        top, left = padding + row * (height + padding), padding + column * (width + padding)
        page[top : top + height, left : left + width] = image
    return page


def rows(*batches: Images, padding: int = 2) -> Images:
    """Lay out batches, uint8, of one shape (N, H, W, 3), one row each, so that a column compares the same item."""
    shapes = {batch.shape for batch in batches}
    if len(shapes) != 1:
        raise ValueError(f"Rows need batches of one common shape, at least one batch; got {sorted(shapes)}.")
    return grid(np.concatenate(batches), columns=len(batches[0]), padding=padding)


def enlarge(images: Images, side: int) -> Images:
    """Enlarge images (N, H, W, 3) by the greatest whole factor, at least 1, that keeps them within `side` pixels."""
    factor = max(1, side // images.shape[2])
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def save_png(path: Path, image: Images) -> None:
    """Write an image, uint8 (H, W, 3), atomically; missing folders are made."""
    with replacing(path) as unfinished:
        Image.fromarray(image).save(unfinished, format="PNG")
