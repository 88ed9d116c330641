"""Colour profiles: from the colours that a file means to sRGB, which is what networks and screens take.

Part of `catsweep.data.decode`. Nearly all profiles of photos are sRGB, or as good as: those are recognised by what they
do, and cost nothing. A profile that is broken, or of another kind than the photo, costs no photo; a note says so.
"""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

MAX_PROFILE = 1 << 22  # bytes; those of printing presses have two to three million
SAME = 2  # of 255: a profile that moves no colour further is taken for sRGB; variants of sRGB differ by that in shadows
APART = 32  # of 255: black and white, and any two of the eight corners of RGB, stay further apart than this
BAND = 1 << 20  # pixels
# As Photoshop converts: what sRGB cannot show becomes its nearest colour, and black stays black.
_INTENT, _FLAGS = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
_SPACES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # of profiles, and the mode of images in them


@dataclass(frozen=True)
class Conversion:
    """How an image becomes sRGB.

    Attributes:
        mode: of Pillow, in which the transform takes it: `RGB`, `L` or `CMYK`.
        transform: by its profile; None: it is sRGB, or nobody knows.
        notes: what a person should know of it.
    """

    mode: str
    transform: ImageCms.ImageCmsTransform | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, or a band of it, in mode `RGB`; transparency is left out."""
        if self.transform is None:
            return image.convert("RGB")
        made = ImageCms.applyTransform(image.convert(self.mode), self.transform)
        assert made is not None  # it is only where the image itself is changed
        return made

    def of_pixels(self, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The same for uint8, (H, W, 3), in which grey has three equal channels; may change it."""
        if self.transform is None:
            return stored
        step = max(1, BAND // stored.shape[1])
        for top in range(0, len(stored), step):
            band = stored[top : top + step]
            band[:] = np.asarray(self(Image.fromarray(band[..., 0] if self.mode == "L" else band)))
        return stored


def conversion(image: Image.Image) -> Conversion:
    """What the profile in a file asks for.

    Args:
        image: as opened; its pixels are not needed.
    """
    grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    mode = "L" if grey else "CMYK" if image.mode == "CMYK" else "RGB"
    if "icc_profile" not in image.info:
        return Conversion(mode, notes=("no colour profile: CMYK by its plain formula",) if mode == "CMYK" else ())
    profile = image.info["icc_profile"]
    try:
        if not profile:
            raise ValueError("it is incomplete")
        if len(profile) > MAX_PROFILE:
            raise ValueError(f"{len(profile):,} bytes, at most {MAX_PROFILE:,} are read")
        return Conversion(mode, _transform(profile, mode))
    except Exception as error:  # of Pillow, and of what a broken profile makes of its fields
        said = " ".join(str(error).split())[:120]
        return Conversion(mode, notes=(f"colour profile ignored: {said or type(error).__name__}",))


@lru_cache(maxsize=16)  # a photo album has few; each may be `MAX_PROFILE` long
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None if there is nothing to do.

    Raises:
        ValueError: it is of another kind of colours.
        Exception: it cannot be read.
    """
    opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    space = opened.profile.xcolor_space.strip()
    if _SPACES.get(space) != mode:
        raise ValueError(f"it is one of {space or 'nothing'}, but the photo is {'GRAY' if mode == 'L' else mode}")
    srgb = ImageCms.createProfile("sRGB")
    made = ImageCms.buildTransform(opened, srgb, mode, "RGB", _INTENT, _FLAGS)
    if mode == "CMYK":
        return made
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).astype(np.uint8)
    cube = np.stack(np.meshgrid(*[levels] * 3), -1).reshape(1, -1, 3) if mode == "RGB" else levels[None]
    asked = Image.fromarray(cube)
    given = Conversion(mode, made)(asked)
    shown = np.asarray(given).astype(int)
    if _collapses(shown.reshape(*[9] * 3, 3) if mode == "RGB" else shown[0]):
        raise ValueError("it makes one colour of several")
    moved = np.abs(shown - np.asarray(asked.convert("RGB")))
    return None if moved.max() <= SAME else made


def _collapses(shown: NDArray[np.int_]) -> bool:
    """Whether colours can no longer be told apart: no screen or scanner has such a profile, but broken files do.

    Args:
        shown: what became of evenly spaced colours, (N, N, N, 3), or of greys, (N, 3).
    """
    colours = shown.ndim == 4
    greys = (shown[(np.arange(len(shown)),) * 3] if colours else shown).mean(-1)
    if greys[-1] - greys[0] < APART or np.diff(greys).min() < -SAME:
        return True
    corners = shown[:: len(shown) - 1, :: len(shown) - 1, :: len(shown) - 1].reshape(-1, 3) if colours else shown[:0]
    return any(np.abs(one - other).max() < APART for one, other in combinations(corners, 2))
