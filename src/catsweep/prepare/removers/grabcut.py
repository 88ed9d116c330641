"""GrabCut remover: find the cat by its colours, with OpenCV. Needs no weights, and is often wrong.

What is alike in colour and unlike the rim of the photo is taken for the cat; landmarks, where known, are its start.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.prepare.image_files import Floats, Pixels, Points, shrunk
from catsweep.prepare.removers import Alpha

log = logging.getLogger(__name__)

SURELY, LIKELY = 0.30, 0.85  # where a cat is in a photo: ovals around the centre, share of the sides
RADIUS = 4  # of the guided filter, pixels of the shrunk photo
SMOOTHNESS = 1e-3  # of the guided filter, for brightness from 0 to 1: less follows every hair, and the noise
STEEPNESS = 2.0  # of the mask's edge: 1 leaves a haze


@dataclass
class GrabCut:
    """Alternates colour models of cat and background with segmentation.

    Source: Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004.
    """

    reliability: ClassVar[float] = 0.55

    side: int = 128  # photos are shrunk until their longer side is this, pixels; the time grows with its square
    rounds: int = 3  # how often the models are improved
    margin: float = 0.03  # the rim of a photo that is taken for background, share of its sides
    _said: threading.Lock = field(default_factory=threading.Lock, init=False)

    def parameters(self) -> dict[str, Any]:
        """See `Remover`."""
        return {"name": "grabcut", "side": self.side, "rounds": self.rounds, "margin": self.margin}

    def __call__(self, photo: Pixels, points: Points | None) -> Alpha:
        """See `Remover`."""
        if self._said.acquire(blocking=False):  # only the first photo gets it
            log.warning(
                "Cats are cut out by GrabCut, which needs no weights and is often wrong. A network does it better: "
                "`make background-model`, then background/remover=onnx."
            )
        small = shrunk(photo, self.side)
        labels = rim(small.shape[:2], self.margin)
        if points is None:
            mark_centre(labels)
        else:
            # Landmarks count from the centre of the first pixel, whose place changes with its size.
            scale = np.array(small.shape[1::-1]) / photo.shape[1::-1]
            mark_face(labels, (points + 0.5) * scale - 0.5)
        return enlarge(segment(small, labels, self.rounds), small, photo)


def rim(shape: tuple[int, int], margin: float) -> Pixels:
    """Make initial labels: the rim is background, but for its lower side, where bodies leave the photo."""
    height, width = shape
    top, left = max(1, round(height * margin)), max(1, round(width * margin))
    labels = np.full(shape, cv2.GC_BGD, np.uint8)
    labels[top:, left : width - left] = cv2.GC_PR_FGD
    labels[height - top :, left : width - left] = cv2.GC_PR_BGD
    return labels


def mark_centre(labels: Pixels) -> None:
    """Mark the centre as cat; without a part that is surely cat, half of the cats are lost."""
    height, width = labels.shape
    centre = (width - 1) / 2, (height - 1) / 2
    labels[~_oval(labels, centre, (LIKELY * width, LIKELY * height)) & (labels == cv2.GC_PR_FGD)] = cv2.GC_PR_BGD
    labels[_oval(labels, centre, (SURELY * width, SURELY * height))] = cv2.GC_FGD


def mark_face(labels: Pixels, points: Points) -> None:
    """Mark what is surely cat: an oval over eyes and mouth, and the ears."""
    across = points[1] - points[0]
    eyes = float(np.hypot(*across))
    face = _oval(labels, points[:3].mean(0), (1.6 * eyes, 1.4 * eyes), float(np.degrees(np.arctan2(*across[::-1]))))
    ears = np.zeros_like(labels)
    for ear in (points[3:6], points[6:9]):
        cv2.fillConvexPoly(ears, ear.round().astype(np.int32), 1)
    labels[(face | (ears == 1)) & (labels != cv2.GC_BGD)] = cv2.GC_FGD  # some background must stay


def segment(small: Pixels, labels: Pixels, rounds: int) -> Floats:
    """Segment cat (1) and background (0): float32, (H, W)."""
    found, behind, front = labels.copy(), np.zeros((1, 65)), np.zeros((1, 65))
    if len(np.unique(labels % 2)) == 2:  # GrabCut wants some of either; labels of the cat are odd
        cv2.setRNGSeed(0)  # k-means draws from the thread's own dice, which would roll on from photo to photo
        cv2.grabCut(small, found, (0, 0, 0, 0), behind, front, rounds, cv2.GC_INIT_WITH_MASK)
    return (found % 2).astype(np.float32)


def enlarge(mask: Floats, small: Pixels, photo: Pixels) -> Alpha:
    """Enlarge a mask, float32 (h, w), along the edges of the photo that `small`, (h, w, 3), was made of.

    A guided filter: near each pixel, the mask is a linear function of the photo's brightness, with coefficients that
    are found on the shrunk photo and enlarged. Source: He, Sun, "Fast Guided Filter", arXiv:1505.00996.
    """
    guide = _brightness(small)
    mean_guide, mean_mask = _mean(guide), _mean(mask)
    slope = (_mean(guide * mask) - mean_guide * mean_mask) / (_mean(guide * guide) - mean_guide**2 + SMOOTHNESS)
    offset = mean_mask - slope * mean_guide
    smooth = np.dstack([_mean(slope), _mean(offset)])
    large = cv2.resize(smooth, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    soft = large[..., 0] * _brightness(photo) + large[..., 1]
    return np.rint(np.clip((soft - 0.5) * STEEPNESS + 0.5, 0, 1) * 255).astype(np.uint8)


def _oval(like: Pixels, centre: Sequence[float], size: tuple[float, float], turned: float = 0) -> NDArray[np.bool_]:
    """Mask an oval; `turned` in degrees, clockwise."""
    drawn = cv2.ellipse(np.zeros_like(like), (tuple(map(float, centre)), size, turned), 1, cv2.FILLED)
    return np.asarray(drawn == 1)


def _brightness(image: Pixels) -> Floats:
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def _mean(values: Floats) -> Floats:
    return np.asarray(cv2.blur(values, (2 * RADIUS + 1, 2 * RADIUS + 1)), np.float32)
