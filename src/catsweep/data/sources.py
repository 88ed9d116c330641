"""Sources of images: drawn cats, photos in a folder or archive, and photos with Kaggle's landmarks.

Each class is named by `_target_` in conf/data/*.yaml and follows `catsweep.data.ready.Source`, as one's own does.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from catsweep.data import align as alignment
from catsweep.data import landmarks
from catsweep.data.archives import open_files
from catsweep.data.decode import MAX_BYTES, Unreadable, decoding, heif_is_there
from catsweep.data.files import READING, Files, digest, reading, recorded_digest
from catsweep.data.ready import DRAWN, Item
from catsweep.data.threads import in_order, watched
from catsweep.errors import ConfigError, DataError, PlaceError
from catsweep.synthetic.catalogue import Cat, pick
from catsweep.synthetic.layers import landmarks_of
from catsweep.synthetic.renderer import draw, render
from steady.places import explain

log = logging.getLogger(__name__)
DATASET = "crawford/cat-dataset"  # of Kaggle
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
SUFFIXES = JPEG_SUFFIXES | {".avif", ".bmp", ".gif", ".j2k", ".jp2", ".mpo", ".png", ".tif", ".tiff", ".webp"}
SUFFIXES |= {".heic", ".heif", ".hif", ".pbm", ".pgm", ".pnm", ".ppm"}
FACE = {"left_eye": (0.32, 0.42), "right_eye": (0.68, 0.42), "mouth": (0.50, 0.70)}
# Files of `catsweep` that decide what the pixels are, of photos and of drawn cats.
Pixels = alignment.Pixels
_PHOTOS = tuple(f"data/{name}" for name in (*READING, "align.py", "sources.py"))
_DRAWN = ("data/sources.py", *(f"synthetic/{name}.py" for name in ("catalogue", "layers", "renderer")))
DEMO_SIDE = 256  # pixels of a drawn photo, from which faces of 64 and 128 pixels can be made
# Of the cat in it; stage `zoom` shows 1.3 times what the cats are drawn for, which fits in up to 0.77.
DEMO_SCALE = (0.58, 0.75)
DEMO_SHIFT = 0.03  # beyond the room that this leaves, in fractions of the picture


class DemoCats:
    """Cats drawn by `catsweep.synthetic`, so that everything runs on a fresh machine with no network.

    Args:
        n: number of cats.
        seed: of the drawing; not the run's seed, for the data are the same for all runs.
    """

    name = DRAWN
    code = _DRAWN

    def __init__(self, n: int = 1500, seed: int = 0) -> None:
        if n < 1:
            raise ConfigError(f"Expected at least 1 demo cat, got n={n}; set data.reader.n.")
        self.n, self.seed = n, seed

    def __str__(self) -> str:
        return f"{self.n} drawn cats"

    def key(self, size: int) -> dict[str, Any]:
        """See `catsweep.data.ready.Source`."""
        return {"n": self.n, "seed": self.seed, "code": recorded_digest(*self.code)}

    @cached_property
    def files(self) -> Files:
        """The cats as photos, for the preparation."""
        return DemoFiles(self.n, self.seed, recorded_digest(*self.code))

    def items(self, size: int) -> Iterator[Item]:
        """See `catsweep.data.ready.Source`."""
        cats = render(self.n, size, self.seed)
        for number, (image, points) in enumerate(zip(cats.images, cats.landmarks, strict=True)):
            name = hashlib.sha256(image.tobytes()).hexdigest()
            yield Item(f"cat-{number:06d}", name, name, size, size, image, points)


class DemoFiles(Files):
    """Files of drawn cats, each a photo with landmarks beside it, drawn by `code` (a version) when read.

    The cats are smaller than `render` draws them, off centre and not level, so that there is something to align.
    """

    def __init__(self, n: int, seed: int, code: str) -> None:
        self.seed, self.code = seed, code
        self._places = {f"cat-{number:06d}.png": number for number in range(n)}

    def __iter__(self) -> Iterator[str]:
        yield from self._places

    def __contains__(self, name: object) -> bool:
        return str(name).removesuffix(landmarks.SUFFIX) in self._places

    def size(self, name: str) -> int:
        """See `Files`: pixels that do not shrink."""
        return 4 * DEMO_SIDE * DEMO_SIDE

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """See `Files`."""
        if name not in self:
            raise Unreadable("cannot be opened: there is no such cat")
        cat = photographed(self.seed, self._places[name.removesuffix(landmarks.SUFFIX)])
        if name.endswith(landmarks.SUFFIX):  # pixels counted from the centre of the first
            points = landmarks_of(cat).ravel() * DEMO_SIDE - 0.5
            return f"{landmarks.POINTS} {' '.join(f'{value:.2f}' for value in points)} ".encode()
        image, _ = draw(cat, DEMO_SIDE)
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()

    def digest(self, name: str) -> str:
        """Hash what a cat is drawn from, for drawing all of them at each start would take a minute."""
        return hashlib.sha256(f"{self.code} {self.seed} {DEMO_SIDE} {name}".encode()).hexdigest()


def photographed(seed: int, index: int) -> Cat:
    """Draw the parameters of cat `index` of a seed, as a photo shows it."""
    draws = np.random.default_rng([seed, index, DEMO_SIDE])
    cat, scale = pick(seed, index), draws.uniform(*DEMO_SCALE)
    most = (1 - scale / DEMO_SCALE[1]) / 2 + DEMO_SHIFT
    shift = draws.uniform(-most, most), draws.uniform(-most, most)
    pose = replace(cat.pose, scale=cat.pose.scale * scale, shift=shift, roll=2 * cat.pose.roll)
    return replace(cat, pose=pose)


class Photos:
    """Photos of any kind and size in a folder (with sub-folders), zip or tar: centre square, resized.

    Args:
        folder: where they are; links in it are not followed.
        min_side: photos whose shorter side is smaller are left out, pixels.
    """

    name = "photos"
    suffixes = SUFFIXES
    beside: str | None = None  # ending of a second file that belongs to each photo
    code: tuple[str, ...] = _PHOTOS
    remedy = "data.source=DIR"

    def __init__(self, folder: str | Path | None, min_side: int = 32) -> None:
        self.folder, self.min_side = folder, min_side

    def __str__(self) -> str:
        return f"photos ({' '.join(sorted(self.suffixes))}) in {self.folder}"

    @cached_property
    def files(self) -> Files:
        """Files of the folder or archive; ConfigError without one, DataError if it is neither."""
        if self.folder is None:
            raise ConfigError(f"data={self.name} needs a folder of photos: add {self.remedy} to the command.")
        return open_files(self.folder, self.suffixes)

    def passed_over(self) -> dict[str, str]:
        """See `Files`; landmarks beside a photo are not passed over."""
        photos = set(self.files)
        others = self.files.passed_over().items()
        return {name: reason for name, reason in others if name.removesuffix(landmarks.SUFFIX) not in photos}

    def key(self, size: int) -> dict[str, Any]:
        """See `catsweep.data.ready.Source`."""
        return {**self._parameters(), "content": digest(self.files, self.beside), "code": recorded_digest(*self.code)}

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

    def _prepare(self, name: str, photo: Pixels, size: int) -> tuple[Pixels, alignment.Array | None]:
        """Turn a decoded photo (H, W, 3) into an image (size, size, 3) and its landmarks (9, 2), if it has any."""
        height, width = photo.shape[:2]
        if min(height, width) < self.min_side:
            raise Unreadable(f"photo too small: {width} x {height} pixels, at least {self.min_side} are needed")
        return alignment.resize(alignment.centre_square(photo), size), None

    def _parameters(self) -> dict[str, Any]:
        return {"min_side": self.min_side, "heif": heif_is_there()}


class KaggleCats(Photos):
    """Photos with landmarks beside them (`x.jpg` and `x.jpg.cat`), faces aligned by eyes and mouth.

    Args:
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
    code = (*Photos.code, "data/landmarks.py")
    remedy = "data.source=DIR (or data.download=true, to fetch it from Kaggle)"

    def __init__(
        self, folder: str | Path | None, face: Mapping[str, Sequence[float]] = FACE, min_eye_distance: float = 8.0,
        min_inside: float = 0.5, standard: int = alignment.STANDARD, download: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(folder)
        if set(face) != set(FACE):
            raise ConfigError(f"Expected data.reader.face to hold {', '.join(FACE)}, got {', '.join(face)}.")
        self.face = {name: (float(face[name][0]), float(face[name][1])) for name in FACE}
        self.min_eye_distance, self.min_inside = min_eye_distance, min_inside
        self.standard, self.download = standard, download

    @cached_property
    def files(self) -> Files:
        """See `Photos`."""
        if self.download and self.folder is not None:
            raise ConfigError(f"Expected either a download or data.source={self.folder}, got both; leave one out.")
        if self.download:
            self.folder = download_kaggle()
        return super().files

    def __str__(self) -> str:
        return f"photos with a landmark file each (x.jpg.cat; data=photos needs none) in {self.folder}"

    def _parameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("face", "min_eye_distance", "min_inside", "standard")}

    def _prepare(self, name: str, photo: Pixels, size: int) -> tuple[Pixels, alignment.Array | None]:
        points = landmarks.read(self.files, name) + 0.5
        landmarks.check(points, self.min_eye_distance)
        standard = max(self.standard, size)
        matrix = alignment.similarity(points[:3], np.array(list(self.face.values())) * standard)
        height, width = photo.shape[:2]
        inside = alignment.inside(matrix, height, width, standard)
        if inside < self.min_inside:
            raise Unreadable(f"face cut off: {inside:.0%} of the aligned image lies in the photo")
        image = alignment.align(photo, matrix, standard, size)
        return image, alignment.transform(matrix, points) * (size / standard) - 0.5


def download_kaggle() -> Path:
    """Fetch Kaggle's 9,000 cat photos with landmarks (4 GB) once, by the optional `kagglehub`; return their folder."""
    otherwise = f"Or download {DATASET} in a browser, and give it by data=kaggle_cats data.source=DIR (or its .zip)."
    try:
        import kagglehub
    except ImportError as error:
        raise DataError(
            "Expected kagglehub, which fetches data from Kaggle, but it is not installed: pip install kagglehub. "
            + otherwise
        ) from error
    log.info("Fetching %s from Kaggle (4 GB, once).", DATASET)
    account = "It takes a network; if Kaggle refuses, also an account, whose token goes into KAGGLE_API_TOKEN."
    with fetching(f"to fetch {DATASET} from Kaggle", f"{account} {otherwise}", "KAGGLEHUB_CACHE"):
        return Path(kagglehub.dataset_download(DATASET))


@contextmanager
def fetching(expected: str, remedy: str, variable: str) -> Iterator[None]:
    """Turn whatever goes wrong in a download into DataError, or PlaceError for the folder that `variable` names."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if (wrong := explain(error, key=f"the environment variable {variable}")) is not None:
            raise PlaceError(wrong) from error
        said = " ".join(str(error).split())[:300]
        raise DataError(f"Expected {expected}, but: {type(error).__name__}: {said}. {remedy}") from error
