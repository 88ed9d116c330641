"""Read sample grids of runs and photos of ready sets, and lay them out for the report.

Missing or damaged images are no error: run folders are removed, and data sets move.
"""

import base64
import math
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from catsweep.data.ready import ReadySet, pick
from catsweep.errors import DataError
from catsweep.grids import BACKGROUND, Images, grid
from catsweep.runs import RunDir

PADDING = 2  # of the grids that training draws, see `catsweep.grids.grid`
CELL = 64  # longest side of a cell in a strip, pixels
WHITE = 250  # least value of a white pixel
NONE: Images = np.empty((0, 1, 1, 3), np.uint8)


def cells(page: Images) -> Images:
    """Cut a grid, uint8 (H, W, 3), into its square images with `PADDING` white pixels around each.

    Returns:
        uint8, shape (N, side, side, 3), row by row, without the white cells of an unfinished last row; N is 0 if the
        page is not such a grid.
    """
    height, width, _ = page.shape
    # The smallest cells first: gaps of two cells are gaps of four too.
    for step in range(8 + PADDING, min(height, width) - PADDING + 1):
        if (height - PADDING) % step or (width - PADDING) % step:
            continue
        side = step - PADDING
        inner = page[PADDING:, PADDING:].reshape(height // step, step, width // step, step, 3).swapaxes(1, 2)
        gaps = (inner[:, :, side:], inner[:, :, :, side:])
        if all((gap >= WHITE).all() for gap in gaps):
            found = inner[:, :, :side, :side].reshape(-1, side, side, 3)
            drawn = np.flatnonzero((found < WHITE).any(axis=(1, 2, 3)))
            return np.ascontiguousarray(found[: drawn[-1] + 1 if len(drawn) else 0])
    return NONE


def read_grid(run: Path | None, kind: str) -> Images | None:
    """Read the `samples` or `reconstructions` of a run's scored epoch, uint8 (H, W, 3); None if missing or damaged.

    Training may have continued after that epoch and become worse.
    """
    if run is None:
        return None
    epoch = math.inf
    with suppress(DataError):
        epoch = RunDir(run).metrics().epoch
    try:
        if page := RunDir(run).grid(kind, epoch):
            with Image.open(page) as image:
                return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        pass
    return None


def samples(run: Path | None) -> Images:
    """Read a run's samples of the scored epoch, uint8 (N, side, side, 3); N may be 0."""
    page = read_grid(run, "samples")
    return NONE if page is None else cells(page)


def real_cats(ready: ReadySet | None, n: int) -> Images:
    """Pick up to `n` photos of a ready set, evenly spread and without augmented copies; none without a set."""
    if ready is None:
        return NONE
    originals = ready.originals()
    return np.asarray(ready.images[originals[pick(len(originals), n)]])


def sheet(images: Images, columns: int, rows: int, padding: int = 1, cell: int = 0) -> Images:
    """Lay out the first of one or more images, uint8 (N, H, W, 3), on one page of at most so many columns and rows.

    Each has `padding` white pixels around it, and is shrunk to a longest side of `cell` pixels; 0 for no limit.
    """
    chosen = images[: columns * rows]
    side = max(chosen.shape[1:3])
    if cell and side > cell:
        chosen = np.stack([cv2.resize(one, (cell, cell), interpolation=cv2.INTER_AREA) for one in chosen])
    return grid(chosen, columns=min(columns, len(chosen)), padding=padding)


def side_by_side(*pages: Images, gap: int = 24) -> Images:
    """Lay out one or more pages beside each other on white, uint8 (H, W, 3)."""
    height = max(page.shape[0] for page in pages)
    width = sum(page.shape[1] for page in pages) + gap * (len(pages) - 1)
    whole, left = np.full((height, width, 3), BACKGROUND, np.uint8), 0
    for page in pages:
        whole[: page.shape[0], left : left + page.shape[1]] = page
        left += page.shape[1] + gap
    return whole


def data_uri(page: Images, quality: int = 85) -> str:
    """Encode a page as a JPEG data URI; equal pages give equal URIs."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(page), quality=quality, colorsubsampling="444")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
