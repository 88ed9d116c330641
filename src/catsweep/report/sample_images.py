"""Read sample grids of runs and photos of ready sets, and lay them out for the report.

Missing or damaged images are no error: run folders are removed, and data sets move.
"""

import base64
import math
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
    """Cut a grid into its images.

    Args:
        page: uint8, shape (H, W, 3), as `grid` draws it: square images with `PADDING` white pixels around each.

    Returns:
        uint8, shape (N, side, side, 3), row by row, without the white cells of an unfinished last row; N is 0 if the
        page is not such a grid.
    """
    height, width, _ = page.shape
    for side in _sides(height, width):
        step = side + PADDING
        inner = page[PADDING:, PADDING:].reshape(height // step, step, width // step, step, 3).swapaxes(1, 2)
        gaps = (inner[:, :, side:], inner[:, :, :, side:])
        if all((gap >= WHITE).all() for gap in gaps):
            found = inner[:, :, :side, :side].reshape(-1, side, side, 3)
            drawn = np.flatnonzero((found < WHITE).any(axis=(1, 2, 3)))
            return np.ascontiguousarray(found[: drawn[-1] + 1 if len(drawn) else 0])
    return NONE


def read_page(path: Path | None) -> Images | None:
    """Read an image, uint8 (H, W, 3); None if it is missing or damaged."""
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def samples(run: Path | None) -> Images:
    """Read a run's samples of the scored epoch, uint8 (N, side, side, 3); N may be 0."""
    page = read_page(latest(run, "samples", scored_epoch(run)))
    return NONE if page is None else cells(page)


def latest(run: Path | None, kind: str, epoch: float) -> Path | None:
    """Find the newest grid of a run that was drawn up to an epoch, or else its first.

    Args:
        run: its folder; None gives None.
        kind: `samples` or `reconstructions`.
        epoch: of the scored checkpoint; training may have continued and become worse.
    """
    if run is None:
        return None
    drawn = {int(n): page for page in (run / kind).glob("epoch_*.png") if (n := page.stem[6:]).isdecimal()}
    until = [number for number in drawn if number <= epoch]
    return drawn[max(until) if until else min(drawn)] if drawn else None


def scored_epoch(run: Path | None) -> float:
    """Read the epoch of the checkpoint that a run's scores are of; infinite if unknown."""
    try:
        return RunDir(run).metrics().epoch if run else math.inf
    except DataError:
        return math.inf


def real_cats(ready: ReadySet | None, n: int) -> Images:
    """Pick up to `n` photos of a ready set, evenly spread and without augmented copies; none without a set."""
    if ready is None:
        return NONE
    originals = ready.originals()
    return np.asarray(ready.images[originals[pick(len(originals), n)]])


def sheet(images: Images, columns: int, rows: int, padding: int = 1, cell: int = 0) -> Images:
    """Lay out the first images on one page.

    Args:
        images: uint8, shape (N, H, W, 3), N at least 1.
        columns: of the page, fewer if there are fewer images.
        rows: at most.
        padding: white pixels around each.
        cell: longest side of an image, pixels; larger images are shrunk to it. 0 for no limit.
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


def _sides(height: int, width: int) -> list[int]:
    """List sides of cells that fill a page exactly, smallest first: gaps of two cells are gaps of four too."""
    inner = (height - PADDING, width - PADDING)
    return [
        step - PADDING for step in range(8 + PADDING, min(inner) + 1) if all(length % step == 0 for length in inner)
    ]
