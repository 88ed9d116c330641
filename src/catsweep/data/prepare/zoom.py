"""Stage 3, zoom: every photo cut to the cat's face, upright and always in the same place.

By landmarks where a photo has them, else by OpenCV's cascades, else the middle of the photo, marked. What is uncertain
goes on with a doubt, for a person to look at in stage `verify`.

Photos that are faces already are taken whole (`whole_photos`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data import landmarks
from catsweep.data.align import Border
from catsweep.data.decode import Unreadable
from catsweep.data.prepare import faces, whole_photos
from catsweep.data.prepare.images import Pixels
from catsweep.data.prepare.record import Record, rounded
from catsweep.data.prepare.stage import Build, Stage, Work

Array = NDArray[np.float64]

# Where left eye, right eye and mouth come to lie, in sides of the zoomed image.
TARGETS = np.array([[130, 150], [230, 150], [180, 232]]) / alignment.STANDARD
DROP = "drop"  # instead of a border
LEAST = 1.0  # pixels between the eyes; only so that landmarks are two points, `max_enlarged` is about small faces


@dataclass(frozen=True)
class Frame:
    """Where a photo is cut.

    Attributes:
        method: how that was found.
        matrix: photo → zoomed image, shape (2, 3).
        confidence: that the face is there, 0 to 1; None if no face was looked for.
        details: of the method, for the manifest.
        doubts: about it.
    """

    method: str
    matrix: Array
    confidence: float | None
    details: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


class Zoom(Stage):
    """Cuts photos to the face.

    Args:
        size: side of the zoomed images, pixels.
        landmarks: use them where there are any.
        cascades: else look for a face.
        border: what is shown where a frame leaves its photo: `reflect`, `constant`, `blur` (`align.Border`), or `drop`.
        colour: of a constant border, red, green and blue, 0 to 255.
        min_inside: of frames of which less shows the photo, `drop` leaves the image out; else it is doubted.
        max_enlarged: faces that have to be enlarged more, to come to `final`, are doubted.
        final: side of the images that will be trained on, pixels; None: `size`. What is blurred at `size` may well be
            sharp there: of the 1,706 photos of CAT_00, 37 % are enlarged more than twice at 360 pixels, 1 % at 128.
        min_confidence: faces that a cascade is less sure of are doubted.
        whole: when a photo is taken whole (the largest square of it, at the face if one was found), instead of being
            doubted for where its face is. `auto`: where the frame of an upright face would be larger than the photo;
            and wherever else there would be such a doubt, if nearly all certain faces fill their photo, or hardly any
            face is found in the whole set. `always` the latter, whatever the set is; or `never`.

    Raises:
        ConfigError: an OpenCV without cascades.
    """

    name: ClassVar[str] = "zoom"
    folder: ClassVar[str] = "zoomed"
    code: ClassVar[tuple[str, ...]] = (
        "align.py",
        "landmarks.py",
        "prepare/faces.py",
        "prepare/whole_photos.py",
        "prepare/zoom.py",
    )
    keeping: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(whole_photos.PLACE, f"zoom.whole={whole_photos.ALWAYS}"),
        "small": "zoom.max_enlarged=99",
    }

    def __init__(
        self,
        size: int = alignment.STANDARD,
        landmarks: bool = True,
        cascades: bool = True,
        border: str = Border.BLUR,
        colour: Sequence[int] = alignment.GREY,
        min_inside: float = 0.75,
        max_enlarged: float = 2.0,
        final: int | None = None,
        min_confidence: float = 0.8,
        whole: str = whole_photos.AUTO,
    ) -> None:
        if cascades:
            faces.load()
        self.size, self.landmarks, self.cascades, self.border = size, landmarks, cascades, border
        self.colour = (int(colour[0]), int(colour[1]), int(colour[2]))
        self.min_inside, self.max_enlarged, self.min_confidence = min_inside, max_enlarged, min_confidence
        self.final = size if final is None else final
        self.whole = whole

    def parameters(self) -> dict[str, Any]:
        """See `Stage`."""
        return {
            "size": self.size,
            "landmarks": self.landmarks,
            "cascades": self.cascades,
            "border": self.border,
            "colour": self.colour,
            "min_inside": self.min_inside,
            "max_enlarged": self.max_enlarged,
            "final": self.final,
            "min_confidence": self.min_confidence,
            "whole": self.whole,
        }

    def run(self, build: Build) -> Iterable[Record]:
        """See `Stage`."""
        # Lossless only where it has to be, for transparency: JPEG takes an eighth of the time.
        suffix = ".jpg" if all(record.file.endswith(".jpg") for record in build.inputs) else ".png"

        def cut(record: Record) -> tuple[Record, Pixels | None]:
            return self._zoom(record, build.read(record))

        made = list(build.each(cut, suffix))
        whole = self.whole == whole_photos.ALWAYS
        whole |= self.whole == whole_photos.AUTO and bool(whole_photos.why(made, self.min_confidence))
        # Some are of an earlier build, and were taken whole because of what the others were then.
        before = {record.id: record for record in made if whole_photos.in_set(record)}
        suited = {record.id: record for record in made if record.id not in before and whole_photos.suits(record)}
        work, other = (self._taken_whole(build, suited), suited) if whole else (cut, before)
        by_id = {record.id: record for record in (*made, *build.again(work, other, suffix))}
        return [by_id[record.id] for record in build.inputs]

    def notes(self, records: Sequence[Record]) -> list[str]:
        """See `Stage`."""
        return whole_photos.note(records, self.min_confidence)

    def _zoom(self, record: Record, photo: Pixels) -> tuple[Record, Pixels | None]:
        """Cut a photo as it would be by itself, whatever the others are."""
        points, wrong = _plausible(record, photo)
        frame = self._frame(points, wrong, photo)
        return self._cut(record, photo, frame, points)

    def _taken_whole(self, build: Build, made: Mapping[str, Record]) -> Work:
        """Take photos whole that are of a set of faces.

        Args:
            build: of the stage.
            made: by id, what `_zoom` has made of them, which says what was found.
        """

        def take(record: Record) -> tuple[Record, Pixels | None]:
            photo, found = build.read(record), made[record.id]
            height, width = photo.shape[:2]
            near = np.array(found.parameters["matrix"]) if whole_photos.upright(found) else None
            matrix = whole_photos.centred(height, width, self.size, near)
            details = {name: found.parameters[name] for name in whole_photos.SEARCHED if name in found.parameters}
            frame = Frame(whole_photos.METHOD, matrix, found.confidence, {**details, "whole": whole_photos.SET})
            return self._cut(record, photo, frame, _plausible(record, photo)[0])

        return take

    def _cut(self, record: Record, photo: Pixels, frame: Frame, points: Array | None) -> tuple[Record, Pixels | None]:
        """Cut a photo to a frame, and doubt what is doubtful about it."""
        height, width = photo.shape[:2]
        inside = alignment.inside(frame.matrix, height, width, self.size)
        enlarged = alignment.scale(frame.matrix)
        details = {
            "matrix": frame.matrix.round(6).tolist(),
            "enlarged": round(enlarged, 3),
            "inside": round(inside, 3),
            **frame.details,
        }
        moved = None if points is None else rounded(alignment.transform(frame.matrix, points) - 0.5)
        record = replace(
            record,
            operation=f"zoom: {frame.method}",
            parameters=details,
            confidence=frame.confidence,
            landmarks=moved,
        ).doubt(*frame.doubts)
        if (finally_enlarged := enlarged * self.final / self.size) > self.max_enlarged:
            record = record.doubt(f"small: enlarged {finally_enlarged:.1f} times at {self.final} pixels")
        if inside < self.min_inside:
            word = f"cut off: {inside:.0%} of the frame lies in the photo"
            if self.border == DROP:
                return record.refuse(word), None
            record = record.doubt(word)
        border = Border.REFLECT if self.border == DROP else Border(self.border)
        return record, alignment.align(photo, frame.matrix, self.size, self.size, border, self.colour)

    def _frame(self, points: Array | None, wrong: str, photo: Pixels) -> Frame:
        """The first of the methods that finds something."""
        targets = TARGETS * self.size
        height, width = photo.shape[:2]
        details = {"landmarks": wrong} if wrong else {}
        if self.landmarks and points is not None:
            matrix = alignment.similarity(points[:3], targets)
            return Frame("landmarks", matrix, 1.0, {"frame": whole_photos.share(matrix, height, width, self.size)})
        if self.cascades:
            face = faces.find(photo)
            if face is not None:
                return self._cascade(face, targets, details, height, width)
        looked = self.cascades or (self.landmarks and bool(wrong))
        doubts = ("no face found: the middle of the photo was taken",) if looked else ()
        return Frame("centre", whole_photos.centred(height, width, self.size), 0.0 if looked else None, details, doubts)

    def _cascade(self, face: faces.Face, targets: Array, details: dict[str, Any], height: int, width: int) -> Frame:
        matrix = alignment.similarity(face.eyes, targets[:2])
        left, top = face.x - face.side / 2, face.y - face.side / 2
        details = {
            **details,
            "box": [round(value, 1) for value in (left, top, face.side, face.side)],
            "angle": face.angle,
            "weight": round(face.weight, 3),
            "frame": whole_photos.share(matrix, height, width, self.size),
        }
        doubts = []
        if face.angle:
            doubts.append(f"turned: found in the photo turned by {face.angle:g} degrees")
        if face.confidence < self.min_confidence:
            doubts.append(f"unsure: the face was found with a confidence of {face.confidence:.2f}")
        method = "cascade rotated" if face.angle else "cascade"
        inside = alignment.inside(matrix, height, width, self.size)
        if self.whole != whole_photos.NEVER and not face.angle and details["frame"] >= 1 and inside < self.min_inside:
            method, matrix = whole_photos.METHOD, whole_photos.centred(height, width, self.size, matrix)
            details["whole"] = whole_photos.PHOTO
        return Frame(method, matrix, round(face.confidence, 3), details, tuple(doubts))


def _plausible(record: Record, photo: Pixels) -> tuple[Array | None, str]:
    """Landmarks in continuous positions (`catsweep.data.align`), or None; and what is wrong with them, if anything."""
    if (points := record.points) is None:
        return None, ""
    points = points + 0.5
    try:
        landmarks.check(points, LEAST)
    except Unreadable as error:
        return None, error.reason
    height, width = photo.shape[:2]
    x, y = points[:3].mean(axis=0)
    if not (0 <= x <= width and 0 <= y <= height):
        return None, f"implausible landmarks: the face is at ({x:.0f}, {y:.0f}), outside the photo"
    return points, ""
