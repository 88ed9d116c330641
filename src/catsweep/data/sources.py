"""Where images come from: drawn cats, any folder of photos, or the Kaggle layout with landmarks.

Each class is named by `_target_` in conf/data/*.yaml and follows `catsweep.data.ready.Source`; one's own needs
nothing else. They hand `catsweep.data.building` one `Item` after the other, an image of the training size or a
reason.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catsweep.data import align as alignment
from catsweep.data import landmarks
from catsweep.data.archives import open_files
from catsweep.data.decode import Unreadable, decoding, heif_is_there
from catsweep.data.files import READING, Files, digest, reading
from catsweep.data.ready import Item
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError

JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SUFFIXES = JPEG_SUFFIXES | {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".mpo", ".png", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".heic", ".heif", ".hif", ".pbm", ".pgm", ".pnm", ".ppm"}
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
        return {"n": self.n, "seed": self.seed, "code": code_digest("demo*.py")}

    @cached_property
    def files(self) -> Files:
        """The cats as photos, for `catsweep.prepare`."""
        from catsweep.data.demo_files import DemoFiles

        return DemoFiles(self.n, self.seed, code_digest("demo*.py"))

    def items(self, size: int) -> Iterator[Item]:
        """See `catsweep.data.ready.Source`."""
        from catsweep.data.demo import render

        cats = render(self.n, size, self.seed)
        for number, (image, points) in enumerate(zip(cats.images, cats.landmarks, strict=True)):
            name = hashlib.sha256(image.tobytes()).hexdigest()
            yield Item(f"cat-{number:06d}", name, name, size, size, image, points)


class Photos:
    """A folder (with all its sub-folders), zip or tar of photos of any kind and size: centre square, resized.

    Args:
        folder: where they are; links in it are not followed.
        min_side: photos whose shorter side is smaller are left out, pixels.
    """

    name = "photos"
    suffixes = SUFFIXES
    beside: str | None = None  # ending of a second file that belongs to each photo
    remedy = "data.source=DIR"

    def __init__(self, folder: str | Path | None, min_side: int = 32) -> None:
        self.folder, self.min_side = folder, min_side

    def __str__(self) -> str:
        return f"photos ({' '.join(sorted(self.suffixes))}) in {self.folder}"

    @cached_property
    def files(self) -> Files:
        """The files themselves.

        Raises:
            ConfigError: no folder was given.
            DataError: it is no folder and no archive.
        """
        if self.folder is None:
            raise ConfigError(f"data={self.name} needs a folder of photos: add {self.remedy} to the command.")
        return open_files(self.folder, self.suffixes)

    def passed_over(self) -> dict[str, str]:
        """See `Files`; landmarks beside a photo are its own."""
        photos = set(self.files)
        others = self.files.passed_over().items()
        return {name: reason for name, reason in others if name.removesuffix(landmarks.SUFFIX) not in photos}

    def key(self, size: int) -> dict[str, Any]:
        """See `catsweep.data.ready.Source`."""
        return {**self._parameters(), "content": digest(self.files, self.beside), "code": self._code()}

    def items(self, size: int) -> Iterator[Item]:
        """See `catsweep.data.ready.Source`."""

        def item(name: str) -> Item:
            found = Item(name)
            try:
                with reading(self.files, name) as data:
                    sha256 = hashlib.sha256(data).hexdigest()
                    found = replace(found, sha256=sha256, group=sha256, bytes=len(data))
                    with decoding(data) as photo:
                        height, width = photo.pixels.shape[:2]
                        found = replace(found, height=height, width=width, notes=photo.notes)
                        image, points = self._prepare(name, photo.pixels, size)
            except Unreadable as error:
                return replace(found, reason=error.reason)
            return replace(found, image=image, landmarks=points)

        names = list(self.files)
        yield from watched(in_order(item, names), len(names), f"Reading {self.folder}")

    def _prepare(
        self, name: str, photo: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
        """From a decoded photo (H, W, 3) to an image (size, size, 3) and its landmarks (9, 2), if it has any."""
        height, width = photo.shape[:2]
        if min(height, width) < self.min_side:
            raise Unreadable(f"photo too small: {width} x {height} pixels, at least {self.min_side} are needed")
        return alignment.resize(alignment.centre_square(photo), size), None

    def _parameters(self) -> dict[str, Any]:
        return {"min_side": self.min_side, "heif": heif_is_there()}

    def _code(self) -> str:
        return code_digest(*READING, "align.py", "sources.py")


class KaggleCats(Photos):
    """Photos with landmarks beside them (`x.jpg` and `x.jpg.cat`): faces aligned by eyes and mouth.

    Args:
        folder: where they are; links in it are not followed.
        face: where `left_eye`, `right_eye` and `mouth` go, as fractions of the image's side (x, y).
        min_eye_distance: faces whose eyes are closer are left out, pixels of the photo.
        min_inside: faces so near the edge that less than this share of the aligned image shows the photo are left
            out; the rest of such an image is the mirrored border.
        standard: side of the standard aligned form, pixels.
        download: fetch the set from Kaggle instead (once; `pip install kagglehub`).
    """

    name = "kaggle_cats"
    suffixes = JPEG_SUFFIXES
    beside = landmarks.SUFFIX
    remedy = "data.source=DIR (or data.download=true, to fetch it from Kaggle)"

    def __init__(
        self,
        folder: str | Path | None,
        face: Mapping[str, Sequence[float]] = FACE,
        min_eye_distance: float = 8.0,
        min_inside: float = 0.5,
        standard: int = alignment.STANDARD,
        download: bool = False,
    ) -> None:
        super().__init__(folder)
        self.download = download
        if set(face) != set(FACE):
            raise ConfigError(f"Expected data.reader.face to hold {', '.join(FACE)}, got {', '.join(face)}.")
        self.face = {name: (float(face[name][0]), float(face[name][1])) for name in FACE}
        self.min_eye_distance, self.min_inside, self.standard = min_eye_distance, min_inside, standard

    @cached_property
    def files(self) -> Files:
        """See `Photos`."""
        if self.download and self.folder is not None:
            raise ConfigError(f"Expected either a download or data.source={self.folder}, got both; leave one out.")
        if self.download:
            from catsweep.data.kaggle import download

            self.folder = download()
        return super().files

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
        return code_digest(*READING, "align.py", "landmarks.py", "sources.py")

    def _prepare(
        self, name: str, photo: NDArray[np.uint8], size: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
        points = landmarks.read(self.files, name) + 0.5
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


def code_digest(*patterns: str) -> str:
    """Digest over the source text of the modules that decide what the pixels are."""
    files = sorted({file for pattern in patterns for file in _HERE.glob(pattern)})
    return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:16]
