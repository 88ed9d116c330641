"""Face detection for stage `zoom`: OpenCV's cascades for cats, upright first, then on the turned photo.

The cascades are by Joseph Howse ("OpenCV for Secret Agents"): boosted Haar features (Viola and Jones, CVPR 2001), one
for frontal faces, one for faces with ears. OpenCV 5 has none, so opencv-python-headless is held below it. Positions
are continuous, as in `catsweep.data.align`.
"""

import threading
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.errors import ConfigError
from catsweep.prepare.image_files import Pixels, on_white, shrunk

Array = NDArray[np.float64]

DATA = Path(cv2.__file__).parent / "data"  # `cv2.data.haarcascades`, which has no types
CASCADES = ("haarcascade_frontalcatface.xml", "haarcascade_frontalcatface_extended.xml")
LONG = 240  # photos are searched at this length of their longer side, pixels; at 320 or 400 no more is found
# The search goes from coarse to fine: a first look, in which anything counts, then around each place that it names a
# close one. Factors from one size to the next: of the first looks, upright, one after the other, and turned (where one
# cascade is enough); of the close look, and how many of its finds in one place make a box.
UPRIGHT_STEPS, TURNED_STEP = (1.2, 1.05), 1.1
CLOSE_STEP, NEIGHBOURS = 1.05, 3
AROUND, SIZES = 1.6, 1.3  # of the close look: side of what is searched, and how much larger or smaller the face may be
SAME, LIKE = 0.2, 1.2  # places of the first look that are nearer to each other, in sides, and of like size are one
LEAST = 0.1  # smallest box looked for, in shorter sides of the photo
TURNS = (15.0, -15.0, 30.0, -30.0)  # degrees, by which a photo is turned in which nothing was found upright
# Two boxes are of one face if their centres are closer than this, in sides, and their sides differ by less than this.
CLOSE, ALIKE = 0.25, 1.5

# The rest was fitted to every ninth photo of CAT_00 (`catsweep.data.landmarks`), 190 of them, 137 with a face that was
# found upright. Of a box, in its sides: where the middle between the eyes lies from its centre, rightwards and
# downwards, and how far the eyes are apart (medians; the two cascades do not differ).
RIGHT, DOWN, APART = 0.012, -0.105, 0.446
# The probability that a box is right is the logistic function of slope · weight + intercept.
UPRIGHT, TURNED = (1.5, 0.6), (1.4, -1.85)


@dataclass(frozen=True)
class Face:
    """Detected face."""

    x: float  # centre of its box, pixels of the photo
    y: float
    side: float  # of the box, pixels of the photo
    angle: float  # of the photo when it was found, degrees, counter-clockwise
    weight: float  # margin in the last stage of the cascade; the sum, if both cascades found it

    @property
    def confidence(self) -> float:
        """Probability that it is a face, 0 to 1."""
        slope, intercept = TURNED if self.angle else UPRIGHT
        return float(1 / (1 + np.exp(-slope * self.weight - intercept)))

    @property
    def eyes(self) -> Array:
        """Expected places of the left and the right eye: shape (2, 2), pixels of the photo."""
        upright = self.side * np.array([[RIGHT - APART / 2, DOWN], [RIGHT + APART / 2, DOWN]])
        return np.asarray(upright @ _turn_by(self.angle) + np.array([self.x, self.y]))


def find(photo: Pixels) -> Face | None:
    """Detect the most certain face in a photo, uint8 (H, W, 3 or 4); None if there is none. Thread-safe. See `load`."""
    height, width = photo.shape[:2]
    grey = shrunk(np.asarray(cv2.cvtColor(on_white(photo), cv2.COLOR_RGB2GRAY), np.uint8), LONG)
    across, down = width / grey.shape[1], height / grey.shape[0]
    found: list[Face] = []
    for step in UPRIGHT_STEPS:
        found = found or _search(grey, 0.0, step)
    found = found or [face for angle in TURNS for face in _search(grey, angle, TURNED_STEP)]
    if not found:
        return None
    best = max(found, key=lambda face: face.weight)
    return replace(best, x=best.x * across, y=best.y * down, side=best.side * across)


def load() -> list["cv2.CascadeClassifier"]:
    """Load classifiers for `CASCADES`; raises ConfigError if this OpenCV has none, or not these."""
    remedy = "Install opencv-python-headless>=4.14,<5, or do without: zoom.cascades=false."
    if not hasattr(cv2, "CascadeClassifier"):
        raise ConfigError(f"Expected an OpenCV with cascade classifiers, but {cv2.__version__} has none. {remedy}")
    classifiers = []
    for cascade in CASCADES:
        file = DATA / cascade
        if not file.is_file():  # some builds come without data
            raise ConfigError(f"Expected OpenCV to bring {file}, but it is missing. {remedy}")
        classifiers.append(cv2.CascadeClassifier(str(file)))
    return classifiers


_local = threading.local()


def _classifiers() -> list["cv2.CascadeClassifier"]:
    """Return the classifiers of this thread; each holds the photo that it searches, so they cannot be shared."""
    if not hasattr(_local, "classifiers"):
        _local.classifiers = load()
    classifiers: list[cv2.CascadeClassifier] = _local.classifiers
    return classifiers


def _search(grey: Pixels, angle: float, step: float) -> list[Face]:
    """Search a photo turned by an angle, with a first look at sizes by the factor `step` apart."""
    turned, back = _turn(grey, angle)
    classifiers = _classifiers()
    least = round(LEAST * min(grey.shape))
    looking = classifiers[:1] if angle else classifiers
    first = [box for classifier in looking for box in _boxes(classifier, turned, step, 0, least)]
    found = []
    for place in _apart(first):
        around, left, top = _around(turned, place)
        least, most = round(place.side / SIZES), round(place.side * SIZES)
        faces = []
        for classifier in classifiers:
            boxes = _boxes(classifier, around, CLOSE_STEP, NEIGHBOURS, least, most)
            faces.append([box.moved(back, left, top, angle) for box in boxes])
        found += _merged(*faces)
    return found


@dataclass(frozen=True, order=True)
class _Box:
    """Detection in pixels of the turned photo or a part of it; sorts the surest first."""

    doubt: float  # minus the weight
    x: float
    y: float
    side: float

    def moved(self, back: Array, left: int, top: int, angle: float) -> Face:
        """Map a box, in a part of the turned photo that begins at `left` and `top`, to the photo."""
        x, y = alignment.transform(back, np.array([[self.x + left, self.y + top]]))[0]
        return Face(float(x), float(y), self.side, angle, -self.doubt)


def _boxes(
    classifier: "cv2.CascadeClassifier", grey: Pixels, step: float, neighbours: int, least: int, most: int = 0
) -> list[_Box]:
    """Run a cascade over a grey image, at sizes by the factor `step` apart from `least` to `most` pixels (0: no limit).

    So many `neighbours`, finds in one place, make a box; 0: each is one. The surest box comes first, for OpenCV's own
    order depends on its threads.
    """
    boxes, _, weights = classifier.detectMultiScale3(
        grey, step, neighbours, minSize=(least, least), maxSize=(most, most), outputRejectLevels=True
    )
    return sorted(
        _Box(-float(weight), left + side / 2, top + side / 2, float(side))
        for (left, top, side, _), weight in zip(boxes, weights, strict=True)
    )


def _apart(boxes: list[_Box]) -> list[_Box]:
    """Select the largest box of each place."""
    apart: list[_Box] = []
    for box in sorted(boxes, key=lambda box: (-box.side, box)):
        near = (other for other in apart if np.hypot(box.x - other.x, box.y - other.y) < SAME * other.side)
        if not any(other.side < LIKE * box.side for other in near):
            apart.append(box)
    return apart


def _around(grey: Pixels, place: _Box) -> tuple[Pixels, int, int]:
    """Crop a photo around a place; return it and where it begins."""
    height, width = grey.shape
    reach = place.side * AROUND / 2
    left, top = max(0, int(place.x - reach)), max(0, int(place.y - reach))
    right, bottom = min(width, int(place.x + reach) + 1), min(height, int(place.y + reach) + 1)
    return np.ascontiguousarray(grey[top:bottom, left:right]), left, top


def _merged(faces: list[Face], others: list[Face]) -> list[Face]:
    """Merge boxes of the same face into their mean, with the sum of their weights."""

    def is_same(one: Face, other: Face) -> bool:
        near = np.hypot(one.x - other.x, one.y - other.y) < CLOSE * one.side
        return bool(near and 1 / ALIKE < one.side / other.side < ALIKE)

    merged, alone = [], list(others)
    for face in faces:
        twin = next((other for other in alone if is_same(face, other)), None)
        if twin is not None:
            alone.remove(twin)
            x, y, side = ((a + b) / 2 for a, b in ((face.x, twin.x), (face.y, twin.y), (face.side, twin.side)))
            face = Face(x, y, side, face.angle, face.weight + twin.weight)
        merged.append(face)
    return merged + alone


def _turn_by(angle: float) -> Array:
    """Rotation matrix: turns column vectors counter-clockwise on the screen."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    return np.array([[cos, sin], [-sin, cos]])


def _turn(grey: Pixels, angle: float) -> tuple[Pixels, Array]:
    """Turn a photo counter-clockwise, degrees, on a sheet that holds all of it; return it and the matrix back."""
    height, width = grey.shape
    if not angle:
        return grey, np.eye(2, 3)
    turn = _turn_by(angle)
    sheet = np.ceil(np.abs(turn) @ [width, height]).astype(int)
    shift = sheet / 2 - turn @ [width / 2, height / 2]
    warp = np.column_stack([turn, shift + turn @ [0.5, 0.5] - 0.5])  # OpenCV counts from the first pixel's centre
    turned = cv2.warpAffine(grey, warp, (int(sheet[0]), int(sheet[1])), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(turned, np.uint8), np.column_stack([turn.T, -turn.T @ shift])
