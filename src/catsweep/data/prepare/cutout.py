"""From a photo and a mask to a cut-out: the cat's own colours at its edge, and something else behind it.

Pure arithmetic; stage `background` calls it for each photo. Nothing here knows where masks come from.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data.prepare.images import Pixels
from catsweep.data.prepare.removers.protocol import Alpha

Floats = NDArray[np.floating[Any]]
Image = TypeVar("Image", Pixels, Floats)

SMALL = 256  # pixels of the longer side at which colours are blurred: what is smooth needs no more
NEAR = 4.0  # how far the colours of fur and background reach across an edge, pixels of the small copy
FAR = 10.0  # the same for the blurred background
PURE = 32  # power of a pixel's share in cat or background with which it counts for the colours around
FAINT = 1e-3  # where there is less to blur than this, the mean colour takes over
SURE = 26  # masks below this and above 255 - this have decided: a tenth


def shares(alpha: Alpha) -> tuple[float, float]:
    """How large a cat is, and how undecided its mask.

    Args:
        alpha: uint8, (H, W).

    Returns:
        Share of the photo that is in front; share of what is (at least partly) in front that is half-transparent.
    """
    front = alpha >= SURE
    unsure = front & (alpha <= 255 - SURE)
    return float(alpha.mean() / 255), float(unsure.sum() / max(1, front.sum()))


def shrunk(image: Image, side: int) -> Image:
    """An image whose longer side is at most `side` pixels."""
    height, width = image.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), image.dtype)


def cut_out(photo: Pixels, alpha: Alpha, fill: str) -> Pixels:
    """Put something else behind the cat.

    Half-covered pixels of the photo show cat and background at once. Only the cat's part of their colour is taken
    along, else each cat would carry a seam of its old background.

    Args:
        photo: uint8, (H, W, 3).
        alpha: uint8, (H, W), how much of each pixel is cat.
        fill: a key of `FILLS`.

    Returns:
        uint8, (H, W, 3); of `transparent`, (H, W, 4), whose hidden pixels continue the colours of the cat, so that no
        later resize can mix anything else into its edge.
    """
    share = (alpha.astype(np.float32) / 255)[..., None]
    front = cats_own(photo, share)
    if (behind := FILLS[fill](photo, share)) is None:
        return np.dstack([_pixels(front), alpha])
    return _pixels(front * share + behind * (1 - share))


def cats_own(photo: Pixels, share: Floats) -> Floats:
    """Colours of the cat alone, also where the photo mixes them with its background.

    The colours around, of the cat and of the background, are what a pixel is likely made of; what they leave
    unexplained is the cat's. After Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, where mixed
    pixels count for the colours around, too.

    Args:
        photo: uint8, (H, W, 3).
        share: float32, (H, W, 1), 0 to 1.

    Returns:
        float32, (H, W, 3), 0 to 255. Where `share` is 1 it is the photo; where it is 0, cat's colours from nearby.
    """
    # What is half cat says little about the colour of either, so it counts for next to nothing.
    cat, ground = _spread(photo, share**PURE, NEAR), _spread(photo, (1 - share) ** PURE, NEAR)
    return np.asarray(np.clip(cat + share * (photo - share * cat - (1 - share) * ground), 0, 255), np.float32)


def _spread(photo: Pixels, weight: Floats, sigma: float) -> Floats:
    """Colours of where `weight` is, blurred across where it is not: float32, (H, W, 3)."""
    small = shrunk(np.dstack([photo * weight, weight]), SMALL)  # colours times weight, and the weight
    blurred = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    colour = (blurred[..., :3] + FAINT * _mean(photo, weight)) / (blurred[..., 3:] + FAINT)
    return np.asarray(cv2.resize(colour, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _mean(photo: Pixels, weight: Floats) -> Floats:
    """Mean colour of where `weight` is, float32 (3,); of the whole photo, where it is nowhere."""
    total = float(weight.sum(dtype=np.float64))
    if total == 0:
        return np.asarray(photo.mean((0, 1), dtype=np.float64), np.float32)
    return np.asarray((photo * weight).sum((0, 1), dtype=np.float64) / total, np.float32)


def _pixels(colours: Floats) -> Pixels:
    return np.rint(np.clip(colours, 0, 255)).astype(np.uint8)


FILLS: dict[str, Callable[[Pixels, Floats], Floats | None]] = {
    "white": lambda photo, share: np.full(3, 255, np.float32),
    "black": lambda photo, share: np.zeros(3, np.float32),
    "mean": lambda photo, share: _mean(photo, (1 - share) ** PURE),  # of the background: the light of the photo stays
    "blur": lambda photo, share: _spread(
        photo, (1 - share) ** PURE, FAR
    ),  # of the background: the cat leaves no shadow in it
    "transparent": lambda photo, share: None,
}
