"""Demo cats as the files of a source, so that `python src/prepare.py` runs on a fresh machine, too.

`catsweep.data.sources.DemoCats` hands them to `catsweep.prepare`. Each is drawn when it is read, as a photographer
would take it: smaller than `catsweep.data.demo` draws it, not quite in the middle and not quite level, so that there
is something to find and to align. Its landmarks are beside it, as in the Kaggle set.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from catsweep.data.decode import MAX_BYTES, Unreadable
from catsweep.data.demo import draw, landmarks_of
from catsweep.data.demo_catalogue import Cat, pick
from catsweep.data.landmarks import POINTS, SUFFIX

SIDE = 256  # pixels: a photo from which faces of 64 and 128 pixels can be made
SCALE = (0.58, 0.75)  # of the cat; stage `zoom` shows 1.3 times what the cats are drawn for, which fits in up to 0.77
SHIFT = 0.03  # beyond the room that this leaves, in fractions of the picture


class DemoFiles:
    """See `catsweep.data.files.Files`.

    Args:
        n: number of cats.
        seed: of the drawing.
        code: version of what draws them.
    """

    def __init__(self, n: int, seed: int, code: str) -> None:
        self.seed, self.code = seed, code
        self._places = {f"cat-{number:06d}.png": number for number in range(n)}

    def __iter__(self) -> Iterator[str]:
        yield from self._places

    def __contains__(self, name: object) -> bool:
        return str(name).removesuffix(SUFFIX) in self._places

    def size(self, name: str) -> int:
        """See `Files`: pixels that do not shrink."""
        return 4 * SIDE * SIDE

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        if name not in self:
            raise Unreadable("cannot be opened: there is no such cat")
        cat = photographed(self.seed, self._places[name.removesuffix(SUFFIX)])
        if name.endswith(SUFFIX):  # pixels counted from the centre of the first
            points = landmarks_of(cat).ravel() * SIDE - 0.5
            return f"{POINTS} {' '.join(f'{value:.2f}' for value in points)} ".encode()
        image, _ = draw(cat, SIDE)
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()

    def passed_over(self) -> dict[str, str]:
        """See `Files`: all are photos."""
        return {}

    def digest(self, name: str) -> str:
        """See `Files`: of what a cat is drawn from, for drawing all of them at each start would take a minute."""
        return hashlib.sha256(f"{self.code} {self.seed} {SIDE} {name}".encode()).hexdigest()


def photographed(seed: int, index: int) -> Cat:
    """Cat `index` of a seed, as a photo shows it."""
    draws = np.random.default_rng([seed, index, SIDE])
    cat, scale = pick(seed, index), draws.uniform(*SCALE)
    most = (1 - scale / SCALE[1]) / 2 + SHIFT
    shift = draws.uniform(-most, most), draws.uniform(-most, most)
    pose = replace(cat.pose, scale=cat.pose.scale * scale, shift=shift, roll=2 * cat.pose.roll)
    return replace(cat, pose=pose)
