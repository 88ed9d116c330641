"""Stage 2, background: the cat stays, what is behind it goes. Only on that track: `background=remove`.

It follows `duplicates`, so no copy is cut out in vain, and comes before `zoom`, so that a mask is made of all that the
photo shows. Who finds the cat is a `Remover` (`removers/`), what takes the background's place is in `cutout`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from catsweep.data.prepare.cutout import cut_out, shares
from catsweep.data.prepare.images import Pixels, on_white
from catsweep.data.prepare.record import Record
from catsweep.data.prepare.removers.protocol import Alpha, Remover
from catsweep.data.prepare.stage import Build, Stage
from catsweep.errors import DataError


class Background(Stage):
    """Cuts cats out of their photos. Landmarks stay what they are.

    Args:
        remover: finds the cat; None: photos keep their background, and the stage has nothing to do.
        fill: what is put behind the cat: white, black, mean (colour of the photo's background), blur (the background,
            out of focus and without the cat) or transparent.
        min_foreground: cats that take up less of their photo are doubtful, 0 to 1.
        max_foreground: the same for more.
        max_unsure: so are masks that are half-transparent in a larger share of what they put in front, 0 to 1.
    """

    name: ClassVar[str] = "background"
    folder: ClassVar[str] = "no_background"
    code: ClassVar[tuple[str, ...]] = (
        "prepare/background.py",
        "prepare/cutout.py",
        "prepare/removers/grabcut.py",
        "prepare/removers/onnx.py",
        "prepare/removers/rembg.py",
    )
    keeping: ClassVar[Mapping[str, str]] = {
        "little foreground": "background.min_foreground=0",
        "much foreground": "background.max_foreground=1",
        "unsure mask": "background.max_unsure=1",
    }

    def __init__(
        self,
        remover: Remover | None = None,
        fill: str = "white",
        min_foreground: float = 0.05,
        max_foreground: float = 0.90,
        max_unsure: float = 0.25,
    ) -> None:
        self.remover, self.fill, self.max_unsure = remover, fill, max_unsure
        self.min_foreground, self.max_foreground = min_foreground, max_foreground
        self.active = remover is not None

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "remover": None if self.remover is None else self.remover.parameters(),
            "fill": self.fill,
            "min_foreground": self.min_foreground,
            "max_foreground": self.max_foreground,
            "max_unsure": self.max_unsure,
        }

    def run(self, build: Build) -> Iterable[Record]:
        """See `Stage`."""
        assert self.remover is not None
        suffix = ".png" if self.fill == "transparent" else ".jpg"
        return build.each(partial(self._photo, self.remover, build), suffix)

    def _photo(self, remover: Remover, build: Build, record: Record) -> tuple[Record, Pixels]:
        photo = on_white(build.read(record))
        alpha = _checked(remover(photo, record.points), photo, remover)
        front, unsure = shares(alpha)
        record = replace(
            record,
            operation=f"remove background: {self.fill}",
            parameters={"foreground": round(front, 4), "unsure": round(unsure, 4)},
            confidence=round(remover.reliability * (1 - unsure), 3),
        )
        return record.doubt(*self._doubts(front, unsure)), cut_out(photo, alpha, self.fill)

    def _doubts(self, front: float, unsure: float) -> Iterable[str]:
        if front < self.min_foreground:
            yield f"little foreground: {front:.1%} of the photo, at least {self.min_foreground:.0%} are expected"
        if front > self.max_foreground:
            yield f"much foreground: {front:.1%} of the photo, at most {self.max_foreground:.0%} are expected"
        if unsure > self.max_unsure:
            yield f"unsure mask: {unsure:.0%} of the foreground is half-transparent, {self.max_unsure:.0%} may be"


def _checked(alpha: Alpha, photo: Pixels, remover: Remover) -> Alpha:
    """A mask, if it is one: removers may be anybody's."""
    height, width = photo.shape[:2]
    if not isinstance(alpha, np.ndarray) or alpha.dtype != np.uint8 or alpha.shape != (height, width):
        came = f"{alpha.dtype} {alpha.shape}" if isinstance(alpha, np.ndarray) else type(alpha).__name__
        raise DataError(
            f"Expected a mask, uint8 ({height}, {width}), of {type(remover).__qualname__}, but it returned {came}. "
            "Mend it, or choose another background/remover."
        )
    return alpha
