"""The pictures of the report: cells cut out of sample grids, real cats beside them, all as data URIs.

A missing or damaged picture is no error anywhere here: run folders are removed, and data sets move.
"""

import base64
import math
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from catsweep.data.contact_sheet import pick
from catsweep.data.ready import ReadySet
from catsweep.errors import DataError
from catsweep.report.grids import Images, grid
from catsweep.runs import RunDir

PADDING = 2  # of the grids that training draws, see `catsweep.report.grids.grid`
CELL = 64  # longest side of a cell in a strip, pixels
WHITE = 250  # from here on a border is one
NONE: Images = np.empty((0, 1, 1, 3), np.uint8)  # no images


def cells(page: Images) -> Images:
    """Cut a grid into its images.

    Args:
        page: uint8, shape (H, W, 3), as `grid` draws it: square images, `PADDING` white pixels around each.

    Returns:
        uint8, shape (N, side, side, 3), row by row, without the white cells of an unfinished last row; N is 0 for a
        page that is no such grid.
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
    """A picture as it is, uint8 (H, W, 3); None if it is not there or damaged."""
    if path is None:
        return None
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def read_cells(path: Path | None) -> Images:
    """The images of a grid in a file; none if it is not there or damaged."""
    page = read_page(path)
    return NONE if page is None else cells(page)


def latest(run: Path | None, kind: str, epoch: float) -> Path | None:
    """The newest grid of a run that was drawn up to an epoch, or else its first.

    Args:
        run: its folder; None gives None.
        kind: `samples` or `reconstructions`.
        epoch: of the checkpoint that the scores are of; training may have gone on, for the worse.
    """
    if run is None:
        return None
    drawn = {int(n): page for page in (run / kind).glob("epoch_*.png") if (n := page.stem[6:]).isdecimal()}
    until = [number for number in drawn if number <= epoch]
    return drawn[max(until) if until else min(drawn)] if drawn else None


def sheet(images: Images, columns: int, rows: int, padding: int = 1, cell: int = 0) -> Images:
    """The first images on one page.

    Args:
        images: uint8, shape (N, H, W, 3), N at least 1.
        columns: of the page, fewer if there are fewer images.
        rows: at most.
        padding: white pixels around each.
        cell: longest side of an image, pixels; larger ones are shrunk to it. 0 for any.
    """
    chosen = images[: columns * rows]
    side = max(chosen.shape[1:3])
    if cell and side > cell:
        chosen = np.stack([cv2.resize(one, (cell, cell), interpolation=cv2.INTER_AREA) for one in chosen])
    return grid(chosen, columns=min(columns, len(chosen)), padding=padding)


def data_uri(page: Images, quality: int = 85) -> str:
    """A page as HTML takes it: a JPEG; equal pages give equal words."""
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(page), quality=quality, colorsubsampling="444")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def real_cats(ready: ReadySet | None, n: int) -> Images:
    """Some photos of a ready set, spread evenly over it, without copies; none of none."""
    if ready is None:
        return NONE
    originals = ready.originals()
    return np.asarray(ready.images[originals[pick(len(originals), n)]])


def _sides(height: int, width: int) -> list[int]:
    """Sides of cells that fill a page of this size exactly, smallest first: gaps of two cells are gaps of four too."""
    inner = (height - PADDING, width - PADDING)
    return [
        step - PADDING for step in range(8 + PADDING, min(inner) + 1) if all(length % step == 0 for length in inner)
    ]


def scored_epoch(run: Path | None) -> float:
    """The epoch of the checkpoint that a run's scores are of; infinite if it has none."""
    try:
        return RunDir(run).metrics().epoch if run else math.inf
    except DataError:
        return math.inf
