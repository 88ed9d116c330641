"""Stage 2, background: replace the background of each photo (`background=remove`).

It comes before `zoom`, so that masks are made of all that a photo shows.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import cv2
import numpy as np

from catsweep.errors import DataError
from catsweep.prepare.image_files import Floats, Pixels, on_white, shrunk
from catsweep.prepare.manifest import Record
from catsweep.prepare.removers import Alpha, Remover
from catsweep.prepare.stage import Stage, StageBuilder


@dataclass
class Background(Stage):
    """Cuts cats out of their photos. Landmarks stay as they are."""

    name, folder = "background", "no_background"
    code = (
        "prepare/stages/background.py",
        "prepare/removers/grabcut.py",
        "prepare/removers/onnx_remover.py",
        "prepare/removers/rembg.py",
    )
    keeping: ClassVar[Mapping[str, str]] = {
        "little foreground": "background.min_foreground=0",
        "much foreground": "background.max_foreground=1",
        "unsure mask": "background.max_unsure=1",
    }

    remover: Remover | None = None  # finds the cat; None: photos keep their background, and the stage is not active
    # Behind the cat: white, black, mean (colour of the photo's background), blur (the background, out of focus and
    # without the cat) or transparent.
    fill: str = "white"
    min_foreground: float = 0.05  # least share of the photo that a cat covers without a doubt, 0 to 1
    max_foreground: float = 0.90  # largest such share
    max_unsure: float = 0.25  # largest half-transparent share of the foreground without a doubt, 0 to 1

    def __post_init__(self) -> None:
        self.active = self.remover is not None

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return super().parameters() | {"remover": self.remover and self.remover.parameters()}

    def run(self, build: StageBuilder) -> Iterable[Record]:
        """See `Stage`."""
        assert self.remover is not None
        suffix = ".png" if self.fill == "transparent" else ".jpg"
        return build.each(partial(self._cut_out, self.remover, build), suffix)

    def _cut_out(self, remover: Remover, build: StageBuilder, record: Record) -> tuple[Record, Pixels]:
        photo = on_white(build.read(record))
        alpha = _checked(remover(photo, record.points), photo, remover)
        front, unsure = shares(alpha)
        doubts = []
        if front < self.min_foreground:
            doubts.append(
                f"little foreground: {front:.1%} of the photo, at least {self.min_foreground:.0%} are expected"
            )
        if front > self.max_foreground:
            doubts.append(f"much foreground: {front:.1%} of the photo, at most {self.max_foreground:.0%} are expected")
        if unsure > self.max_unsure:
            doubts.append(
                f"unsure mask: {unsure:.0%} of the foreground is half-transparent, {self.max_unsure:.0%} may be"
            )
        record = replace(
            record, operation=f"remove background: {self.fill}",
            parameters={"foreground": round(front, 4), "unsure": round(unsure, 4)},
            confidence=round(remover.reliability * (1 - unsure), 3),
        )  # fmt: skip
        return record.doubt(*doubts), cut_out(photo, alpha, self.fill)


def _checked(alpha: Alpha, photo: Pixels, remover: Remover) -> Alpha:
    """Check a mask, for removers may be anybody's."""
    height, width = photo.shape[:2]
    if not isinstance(alpha, np.ndarray) or alpha.dtype != np.uint8 or alpha.shape != (height, width):
        came = f"{alpha.dtype} {alpha.shape}" if isinstance(alpha, np.ndarray) else type(alpha).__name__
        raise DataError(
            f"Expected a mask, uint8 ({height}, {width}), of {type(remover).__qualname__}, but it returned {came}. "
            "Mend it, or choose another background/remover."
        )
    return alpha


SMALL = 256  # pixels of the longer side at which colours are blurred: what is smooth needs no more
NEAR = 4.0  # how far the colours of fur and background reach across an edge, pixels of the small copy
FAR = 10.0  # the same for the blurred background
PURE = 32  # power of a pixel's share in cat or background with which it counts for the colours around
FAINT = 1e-3  # where there is less to blur than this, the mean colour takes over
SURE = 26  # masks below this and above 255 - this have decided: a tenth


def shares(alpha: Alpha) -> tuple[float, float]:
    """Measure a mask: the foreground's share of the photo, and the half-transparent share of the foreground."""
    front = alpha >= SURE
    unsure = front & (alpha <= 255 - SURE)
    return float(alpha.mean() / 255), float(unsure.sum() / max(1, front.sum()))


def cut_out(photo: Pixels, alpha: Alpha, fill: str) -> Pixels:
    """Replace the background of a photo, uint8 (H, W, 3); `alpha`, uint8 (H, W), says how much of each pixel is cat.

    Of half-covered pixels only the cat's part of their colour is taken along, else each cat would carry a seam of its
    old background. With the fill `transparent` the result is (H, W, 4), and its hidden pixels continue the colours of
    the cat, so that no later resize can mix anything else into its edge.
    """
    share = (alpha.astype(np.float32) / 255)[..., None]
    front = foreground_colours(photo, share)
    if (behind := FILLS[fill](photo, share)) is None:
        return np.dstack([_pixels(front), alpha])
    return _pixels(front * share + behind * (1 - share))


def foreground_colours(photo: Pixels, share: Floats) -> Floats:
    """Estimate the foreground colours, float32 (H, W, 3), 0 to 255, also where they are mixed with the background.

    The colours around, of the cat and of the background, are what a pixel is likely made of; what they leave
    unexplained is the cat's. After Forte, "Approximate Fast Foreground Colour Estimation", ICIP 2021, where mixed
    pixels count for the colours around, too. `share` of the cat in each pixel: float32, (H, W, 1), 0 to 1.
    """
    # What is half cat says little about the colour of either, so it counts for next to nothing.
    cat, ground = _spread(photo, share**PURE, NEAR), _spread(photo, (1 - share) ** PURE, NEAR)
    return np.asarray(np.clip(cat + share * (photo - share * cat - (1 - share) * ground), 0, 255), np.float32)


def _spread(photo: Pixels, weight: Floats, sigma: float) -> Floats:
    """Blur the colours where `weight` is across where it is not: float32, (H, W, 3)."""
    small = shrunk(np.dstack([photo * weight, weight]), SMALL)  # colours times weight, and the weight
    blurred = cv2.GaussianBlur(small, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    colour = (blurred[..., :3] + FAINT * _mean(photo, weight)) / (blurred[..., 3:] + FAINT)
    return np.asarray(cv2.resize(colour, photo.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def _mean(photo: Pixels, weight: Floats) -> Floats:
    """Average the colours where `weight` is, or of the whole photo if it is nowhere: float32 (3,)."""
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
    "blur": lambda photo, share: _spread(photo, (1 - share) ** PURE, FAR),  # without a shadow of the cat
    "transparent": lambda photo, share: None,
}
