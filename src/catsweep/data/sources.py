"""Where images come from: drawn cats, any folder of photos, or the Kaggle layout with landmarks.

Each class is named by `_target_` in conf/data/*.yaml and follows `catsweep.data.ready.Source`; one's own needs
nothing else. They hand `catsweep.data.building` one `Item` after the other, an image of the training size or a
reason.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data import landmarks
from catsweep.data.decode import Unreadable, decode_bytes, read_bytes
from catsweep.data.ready import Item
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError, DataError

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SUFFIXES = JPEG_SUFFIXES | {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".mpo", ".png", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".pbm", ".pgm", ".pnm", ".ppm"}
FACE = {"left_eye": (0.32, 0.42), "right_eye": (0.68, 0.42), "mouth": (0.50, 0.70)}
_HERE = Path(__file__).parent


class DemoCats:
    """Cats drawn by `catsweep.data.demo`: everything runs on a fresh machine, with no network.

    Args:
        n: number of cats.
        seed: of the drawing; not the run's seed, for the data are the same for all runs.
    """

    name = "demo_cats"

    def __init__(self, n: int = 1500, seed: int = 0) -> None:
        if n < 1:
            raise ConfigError(f"Expected at least 1 demo cat, got n={n}; set data.reader.n.")
        self.n, self.seed = n, seed

    def __str__(self) -> str:
        return f"{self.n} drawn cats"

    def key(self, size: int) -> dict[str, Any]:
        """See `catsweep.data.ready.Source`."""
        return {"n": self.n, "seed": self.seed, "code": _code("demo*.py")}

    def items(self, size: int) -> Iterator[Item]:
        """See `catsweep.data.ready.Source`."""
        from catsweep.data.demo import render

        cats = render(self.n, size, self.seed)
        for number, (image, points) in enumerate(zip(cats.images, cats.landmarks, strict=True)):
            name = hashlib.sha256(image.tobytes()).hexdigest()
            yield Item(f"cat-{number:06d}", name, name, size, size, image, points)


class Photos:
    """A folder of photos of any kind and size, with all its sub-folders: centre square, resized.

    Args:
        folder: where they are; links in it are not followed.
        min_side: photos whose shorter side is smaller are left out, pixels.
    """

    name = "photos"
    suffixes = SUFFIXES

    def __init__(self, folder: str | Path | None, min_side: int = 32) -> None:
        self.folder, self.min_side = folder, min_side

    def __str__(self) -> str:
        return f"photos ({' '.join(sorted(self.suffixes))}) in {self.folder}"

    def key(self, size: int) -> dict[str, Any]:
        """See `catsweep.data.ready.Source`."""
        return {**self._parameters(), "content": self._content(), "code": self._code()}

    def items(self, size: int) -> Iterator[Item]:
        """See `catsweep.data.ready.Source`."""
        folder = self._folder()

        def item(path: Path) -> Item:
            name = str(path.relative_to(folder))
            try:
                data = read_bytes(path)
            except Unreadable as error:
                return Item(name, reason=error.reason)
            sha256 = hashlib.sha256(data).hexdigest()
            height = width = 0
            try:
                photo = decode_bytes(data)
                height, width = photo.shape[:2]
                image, points = self._prepare(path, photo, size)
            except Unreadable as error:
                return Item(name, sha256, sha256, width, height, reason=error.reason)
            return Item(name, sha256, sha256, width, height, image, points)

        paths = list(self._paths())
        yield from watched(in_order(item, paths), len(paths), f"Reading {self.folder}")

    def _prepare(
        self, path: Path, photo: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
        """From a decoded photo (H, W, 3) to an image (size, size, 3) and its landmarks (9, 2), if it has any."""
        height, width = photo.shape[:2]
        if min(height, width) < self.min_side:
            raise Unreadable(f"photo too small: {width} x {height} pixels, at least {self.min_side} are needed")
        return alignment.resize(alignment.centre_square(photo), size), None

    def _parameters(self) -> dict[str, Any]:
        return {"min_side": self.min_side}

    def _code(self) -> str:
        return _code("decode.py", "align.py", "sources.py")

    def _folder(self) -> Path:
        if self.folder is None:
            raise ConfigError(f"data={self.name} needs a folder of photos: add data.source=DIR to the command.")
        folder = Path(self.folder).expanduser()
        if not folder.is_dir():
            raise DataError(f"Expected a folder of photos, but data.source={self.folder} is none; check the path.")
        return folder

    def _paths(self) -> Iterator[Path]:
        """All photos, in the order of their names; hidden ones (also macOS's `._x.jpg`) are passed over."""

        def fail(error: OSError) -> None:
            raise DataError(f"Expected to list {error.filename}, but: {error.strerror}. Allow it, or move it away.")

        for parent, folders, names in os.walk(self._folder(), onerror=fail):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            links = {name for name in folders if Path(parent, name).is_symlink()}  # not followed, but accounted for
            for name in sorted([*names, *links]):
                if name in links or (not name.startswith(".") and Path(name).suffix.lower() in self.suffixes):
                    yield Path(parent, name)

    def _companions(self, path: Path) -> Sequence[Path]:
        """The files that decide what becomes of a photo."""
        return (path,)

    def _content(self) -> str:
        """Digest over names and content of all files that matter."""
        folder, state = self._folder(), hashlib.sha256()
        files = [file for path in self._paths() for file in self._companions(path)]
        for file, content in zip(files, in_order(_file_digest, files), strict=True):
            state.update(os.fsencode(file.relative_to(folder)) + b"\0" + content.encode() + b"\0")
        return state.hexdigest()


class KaggleCats(Photos):
    """Photos with landmarks beside them (`x.jpg` and `x.jpg.cat`): faces aligned by eyes and mouth.

    Args:
        folder: where they are; links in it are not followed.
        face: where `left_eye`, `right_eye` and `mouth` go, as fractions of the image's side (x, y).
        min_eye_distance: faces whose eyes are closer are left out, pixels of the photo.
        min_inside: faces so near the edge that less than this share of the aligned image shows the photo are left
            out; the rest of such an image is the mirrored border.
        standard: side of the standard aligned form, pixels.
    """

    name = "kaggle_cats"
    suffixes = JPEG_SUFFIXES

    def __init__(
        self,
        folder: str | Path | None,
        face: Mapping[str, Sequence[float]] = FACE,
        min_eye_distance: float = 8.0,
        min_inside: float = 0.5,
        standard: int = alignment.STANDARD,
    ) -> None:
        super().__init__(folder)
        if set(face) != set(FACE):
            raise ConfigError(f"Expected data.reader.face to hold {', '.join(FACE)}, got {', '.join(face)}.")
        self.face = {name: (float(face[name][0]), float(face[name][1])) for name in FACE}
        self.min_eye_distance, self.min_inside, self.standard = min_eye_distance, min_inside, standard

    def __str__(self) -> str:
        return f"photos with a landmark file each (x.jpg.cat; data=photos needs none) in {self.folder}"

    def _parameters(self) -> dict[str, Any]:
        return {
            "face": self.face,
            "min_eye_distance": self.min_eye_distance,
            "min_inside": self.min_inside,
            "standard": self.standard,
        }

    def _code(self) -> str:
        return _code("decode.py", "align.py", "landmarks.py", "sources.py")

    def _companions(self, path: Path) -> Sequence[Path]:
        return (path, _landmark_file(path))

    def _prepare(
        self, path: Path, photo: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
        points = landmarks.read(_landmark_file(path)) + 0.5
        landmarks.check(points, self.min_eye_distance)
        standard = max(self.standard, size)
        targets = np.array(list(self.face.values())) * standard
        matrix = alignment.similarity(points[:3], targets)
        height, width = photo.shape[:2]
        inside = alignment.inside(matrix, height, width, standard)
        if inside < self.min_inside:
            raise Unreadable(f"face cut off: {inside:.0%} of the aligned image lies in the photo")
        image = alignment.align(photo, matrix, standard, size)
        return image, alignment.transform(matrix, points) * (size / standard) - 0.5


def _landmark_file(photo: Path) -> Path:
    return photo.with_name(photo.name + ".cat")


def _file_digest(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except Unreadable as error:
        return error.kind


def _code(*patterns: str) -> str:
    """Digest over the source text of the modules that decide what the pixels are."""
    files = sorted({file for pattern in patterns for file in _HERE.glob(pattern)})
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
