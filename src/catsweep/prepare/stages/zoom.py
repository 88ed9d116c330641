"""Stage 3, zoom: crop each photo to the cat's face, aligned and upright.

By landmarks where a photo has them, else by OpenCV's cascades (`catsweep.prepare.faces`), else the centre of the photo.
What is uncertain goes on with a doubt, for a person to look at in stage `verify`.

Photos that were cropped to their faces before are taken whole: a frame would ask for more than there is, and a cascade
often finds no face without what surrounds it. Whether a set is of this kind shows when all photos have been searched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data import landmarks
from catsweep.data.align import Border
from catsweep.data.decode import Unreadable
from catsweep.prepare import faces
from catsweep.prepare.image_files import Pixels
from catsweep.prepare.manifest import Record, kind_of, rounded
from catsweep.prepare.stage import Stage, StageBuilder

Array = NDArray[np.float64]

# Where left eye, right eye and mouth come to lie, in sides of the zoomed image.
TARGETS = np.array([[130, 150], [230, 150], [180, 232]]) / alignment.STANDARD
DROP = "drop"  # instead of a border
LEAST = 1.0  # pixels between the eyes; only so that landmarks are two points, `max_enlarged` is about small faces

AUTO, ALWAYS, NEVER = "auto", "always", "never"  # of `whole`
FACES, FACELESS = "faces", "faceless"  # why all photos of a set are taken whole
WHOLE = "whole photo"
SET, PHOTO = "set", "photo"  # in a record's parameters: taken whole because of the others, or by itself

# A set is one of faces if nearly all of its certain faces have a frame of `FILLING` shorter sides of their photo.
# Of sets that were cut to their faces, tight to loose, all have; of half faces and half whole cats, 80 %, of a fifth of
# whole cats, 94 %; of CAT_00, 30 to 40 %; of whole cats on white, none. Only certain ones say so, as what is found in a
# face beside the face itself is an eye or a nose, at up to 0.996; and only several, as one face of CAT_00 may well fill
# its photo.
CERTAIN, FILLING, NEARLY_ALL, SEVERAL = 0.999, 0.65, 0.95, 3
ASKING = 0.9  # in a set of faces, photos with a larger frame than this are taken whole
# With a sure face in less than this share of the photos, the search is not for them: of CAT_00 it finds one in 65 %, of
# whole cats on white in 27 to 40 %, of cats on white that are a fifth of their photo in none.
SURE = 0.1
PLACE = ("cut off", "no face found", "turned", "unsure")  # kinds of doubt about where a face is
SEARCHED = ("landmarks", "box", "angle", "weight", "frame")  # parameters that say what the search has found


@dataclass(frozen=True)
class Frame:
    """Crop of a photo."""

    method: str  # that found it
    matrix: Array  # affine map from photo to zoomed image, shape (2, 3)
    confidence: float | None  # probability that the face is there, 0 to 1; None if no face was looked for
    details: dict[str, Any] = field(default_factory=dict)  # of the method, for the manifest
    doubts: tuple[str, ...] = ()  # for a person


@dataclass
class Zoom(Stage):
    """Crops photos to the face; raises ConfigError if cascades are wanted and OpenCV has none."""

    name, folder = "zoom", "zoomed"
    code = (
        "data/align.py", "data/landmarks.py", "prepare/faces.py", "prepare/stages/zoom.py",
    )  # fmt: skip
    keeping: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(PLACE, f"zoom.whole={ALWAYS}"),
        "small": "zoom.max_enlarged=99",
    }

    size: int = alignment.STANDARD  # side of the zoomed images, pixels
    landmarks: bool = True  # use landmarks where there are any
    cascades: bool = True  # else detect a face
    border: str = Border.BLUR  # outside the photo: `reflect`, `constant`, `blur` (`align.Border`), or `drop` the image
    colour: Sequence[int] = alignment.GREY  # of a constant border, red, green and blue, 0 to 255
    min_inside: float = 0.75  # least share of a frame that shows the photo; with less, the image is dropped or doubted
    max_enlarged: float = 2.0  # most enlargement of a face, at `final` pixels, without a doubt
    # Side of the images that will be trained on, pixels; None: `size`. What is blurred at `size` may be sharp there: of
    # the 1,706 photos of CAT_00, 37 % are enlarged more than twice at 360 pixels, 1 % at 128.
    final: int | None = None
    min_confidence: float = 0.8  # least confidence of a cascade without a doubt
    # When a photo is taken whole (its largest square, at the face if one was found) instead of being doubted for where
    # its face is. `auto`: where the frame of an upright face would be larger than the photo; and wherever else there
    # would be such a doubt, if nearly all certain faces fill their photo, or hardly any face is found in the whole set.
    # `always`: the latter, whatever the set is. `never`.
    whole: str = AUTO

    def __post_init__(self) -> None:
        if self.cascades:
            faces.load()
        self.colour = (int(self.colour[0]), int(self.colour[1]), int(self.colour[2]))
        self.final = self.size if self.final is None else self.final

    def run(self, build: StageBuilder) -> Iterable[Record]:
        """See `Stage`."""
        # Lossless only where it has to be, for transparency: JPEG takes an eighth of the time.
        suffix = ".jpg" if all(record.file.endswith(".jpg") for record in build.inputs) else ".png"

        def crop(record: Record) -> tuple[Record, Pixels | None]:
            photo = build.read(record)
            points, wrong = _plausible(record, photo)
            return self._cut(record, photo, self._frame(points, wrong, photo), points)

        def take_whole(record: Record) -> tuple[Record, Pixels | None]:
            photo, found = build.read(record), cropped[record.id]
            height, width = photo.shape[:2]
            near = np.array(found.parameters["matrix"]) if _is_upright(found) else None
            details = {name: found.parameters[name] for name in SEARCHED if name in found.parameters}
            matrix = centred(height, width, self.size, near)
            frame = Frame(WHOLE, matrix, found.confidence, {**details, "whole": SET})
            return self._cut(record, photo, frame, _plausible(record, photo)[0])

        made = list(build.each(crop, suffix))
        # Some are of an earlier build, and were taken whole because of what the others were then.
        before = {record.id: record for record in made if record.parameters.get("whole") == SET}
        cropped = {record.id: record for record in made if record.id not in before and better_whole(record)}
        if self.whole == ALWAYS or (self.whole == AUTO and why_whole(made, self.min_confidence)):
            made += build.again(take_whole, cropped, suffix)
        else:
            made += build.again(crop, before, suffix)
        by_id = {record.id: record for record in made}
        return [by_id[record.id] for record in build.inputs]

    def notes(self, records: Sequence[Record]) -> list[str]:
        """See `Stage`. Counts the photos that were taken whole, and says why."""
        taken = [record for record in records if "whole" in record.parameters]
        if not taken:
            return []
        _, sure, certain, filling = _count_faces(records, self.min_confidence)
        reason = {
            FACES: f"{filling:,} of {certain:,} faces that are certain fill their photo, so most are faces already",
            FACELESS: f"a face was found for sure {f'only in {sure:,}' if sure else 'in none'}",
        }.get(why_whole(records, self.min_confidence), "zoom.whole=always")
        if all(record.parameters["whole"] == PHOTO for record in taken):
            reason = "the frame of the face would be larger than the photo"
        photos, were = f"photo{'s' * (len(records) != 1)}", "was" if len(taken) == 1 else "were"
        return [
            f"{len(taken):,} of {len(records):,} {photos} {were} taken whole: {reason}. "
            "To cut to the face all the same: zoom.whole=never."
        ]

    def _cut(self, record: Record, photo: Pixels, frame: Frame, points: Array | None) -> tuple[Record, Pixels | None]:
        """Crop a photo to a frame and record its doubts."""
        height, width = photo.shape[:2]
        inside = alignment.inside(frame.matrix, height, width, self.size)
        enlarged = alignment.scale(frame.matrix)
        details = {"matrix": frame.matrix.round(6).tolist(), "enlarged": round(enlarged, 3), "inside": round(inside, 3)}
        moved = None if points is None else rounded(alignment.transform(frame.matrix, points) - 0.5)
        record = replace(
            record, operation=f"zoom: {frame.method}", parameters={**details, **frame.details},
            confidence=frame.confidence, landmarks=moved,
        ).doubt(*frame.doubts)  # fmt: skip
        final = self.final or self.size
        if (finally_enlarged := enlarged * final / self.size) > self.max_enlarged:
            record = record.doubt(f"small: enlarged {finally_enlarged:.1f} times at {final} pixels")
        if inside < self.min_inside:
            word = f"cut off: {inside:.0%} of the frame lies in the photo"
            if self.border == DROP:
                return record.refuse(word), None
            record = record.doubt(word)
        border = Border.REFLECT if self.border == DROP else Border(self.border)
        red, green, blue = self.colour
        return record, alignment.align(photo, frame.matrix, self.size, self.size, border, (red, green, blue))

    def _frame(self, points: Array | None, wrong: str, photo: Pixels) -> Frame:
        """Frame by the first method that finds something."""
        height, width = photo.shape[:2]
        if self.landmarks and points is not None:
            matrix = alignment.similarity(points[:3], TARGETS * self.size)
            return Frame("landmarks", matrix, 1.0, {"frame": self._share(matrix, height, width)})
        details = {"landmarks": wrong} if wrong else {}
        if self.cascades and (face := faces.find(photo)) is not None:
            return self._frame_face(face, details, height, width)
        looked = self.cascades or (self.landmarks and bool(wrong))
        doubts = ("no face found: the middle of the photo was taken",) if looked else ()
        return Frame("centre", centred(height, width, self.size), 0.0 if looked else None, details, doubts)

    def _frame_face(self, face: faces.Face, details: dict[str, Any], height: int, width: int) -> Frame:
        matrix = alignment.similarity(face.eyes, TARGETS[:2] * self.size)
        box = [round(value, 1) for value in (face.x - face.side / 2, face.y - face.side / 2, face.side, face.side)]
        share = self._share(matrix, height, width)
        details |= {"box": box, "angle": face.angle, "weight": round(face.weight, 3), "frame": share}
        doubts = []
        if face.angle:
            doubts.append(f"turned: found in the photo turned by {face.angle:g} degrees")
        if face.confidence < self.min_confidence:
            doubts.append(f"unsure: the face was found with a confidence of {face.confidence:.2f}")
        method = "cascade rotated" if face.angle else "cascade"
        inside = alignment.inside(matrix, height, width, self.size)
        if self.whole != NEVER and not face.angle and share >= 1 and inside < self.min_inside:
            method, matrix = WHOLE, centred(height, width, self.size, matrix)
            details["whole"] = PHOTO
        return Frame(method, matrix, round(face.confidence, 3), details, tuple(doubts))

    def _share(self, frame: Array, height: int, width: int) -> float:
        """Return the side of a frame in shorter sides of its photo."""
        return round(self.size / alignment.scale(frame) / min(height, width), 3)


def _plausible(record: Record, photo: Pixels) -> tuple[Array | None, str]:
    """Return landmarks in continuous positions (`catsweep.data.align`), or None; and what is wrong with them."""
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


def centred(height: int, width: int, size: int, frame: Array | None = None) -> Array:
    """Compute the affine map, shape (2, 3), from the largest square of a photo to the zoomed image.

    The square comes as near as it can to the centre of `frame`, a map likewise; None: to the photo's.
    """
    side = min(height, width)
    middle = np.array([width, height]) / 2
    if frame is not None:
        wanted = cv2.invertAffineTransform(frame) @ [size / 2, size / 2, 1]
        middle = np.clip(wanted, side / 2, np.array([width, height]) - side / 2)
    factor = size / side
    x, y = size / 2 - factor * middle
    return np.array([[factor, 0, x], [0, factor, y]])


def why_whole(records: Sequence[Record], min_confidence: float) -> str:
    """Tell why all photos of a set are taken whole: `FACES`, `FACELESS`, or "" if they are not.

    `min_confidence` is that of a face that is found for sure.
    """
    searched, sure, certain, filling = _count_faces(records, min_confidence)
    if sure < SURE * searched:
        return FACELESS
    return FACES if certain >= SEVERAL and filling >= NEARLY_ALL * certain else ""


def _count_faces(records: Sequence[Record], min_confidence: float) -> tuple[int, int, int, int]:
    """Count the photos that were searched, with a sure face, with a certain one, and with one that fills its photo."""
    searched = [record for record in records if record.confidence is not None]
    sure = [record for record in searched if _is_upright(record) and (record.confidence or 0) >= min_confidence]
    certain = [record.parameters["frame"] for record in sure if (record.confidence or 0) >= CERTAIN]
    return len(searched), len(sure), len(certain), sum(frame >= FILLING for frame in certain)


def better_whole(record: Record) -> bool:
    """Tell whether a photo, cropped by itself, is better taken whole if it is one of a set of faces."""
    if "box" in record.parameters and (record.parameters["frame"] >= ASKING or (record.confidence or 0) < CERTAIN):
        return True
    return any(kind_of(text) in PLACE for text in (*record.doubts, record.reason))


def _is_upright(record: Record) -> bool:
    """Tell whether an upright face was found, or landmarks were used."""
    return "frame" in record.parameters and not record.parameters.get("angle")
