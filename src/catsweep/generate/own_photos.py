"""Read a person's own photos as images of the model's size, and pass them through a model.

They are cut and resized as data=photos does it; what cannot be read is reported and left out.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catsweep.data.archives import open_files
from catsweep.data.decode import FORMATS, Unreadable, read_start
from catsweep.data.files import START, Files, Folder, refusal, say_passed_over
from catsweep.data.sources import Photos
from catsweep.errors import ConfigError, DataError
from catsweep.images import to_float, to_uint8
from catsweep.models.generator import LatentEncoder, Reconstructor, evaluating
from steady.printing import readable_name

Images = NDArray[np.uint8]

BATCH = 64  # images at once; bounds memory
SAID = 3  # photos that are named one by one when they are left out


@dataclass(frozen=True)
class Own:
    """Photos that were read."""

    images: Images  # uint8, shape (N, size, size, 3)
    names: list[str]  # as a person knows them
    left_out: dict[str, str]  # reasons, by the names of those that could not be read
    found: int  # how many photos there are, those that were not asked for included


class OwnPhotos(Photos):
    """A photo, a folder of photos with its sub-folders, or a zip or tar of them, named by a `key` of the options.

    A ConfigError if it is none of these, or without any photo; nothing is read yet.
    """

    def __init__(self, path: str, key: str) -> None:
        real = Path(path).expanduser().resolve()  # a link that a person names is meant, one within a folder is not
        super().__init__(real)
        self.path, self.key_name = path, key
        if not real.exists():
            raise ConfigError(f"{key}={path} is not there. Expected a photo, or a folder, zip or tar of photos.")
        if not self.photos:
            there = say_passed_over(self.passed_over()) or "it is empty"
            raise ConfigError(f"{key}={path} holds no photo. Expected at least one image file, but: {there}.")

    @cached_property
    def files(self) -> Files:
        """See `Photos`."""
        assert isinstance(self.folder, Path)
        if self.folder.is_file() and (self.folder.suffix.lower() in self.suffixes or _is_image(self.folder)):
            return _One(self.folder)
        try:
            return open_files(self.folder, self.suffixes)
        except DataError as error:
            if self.folder.is_dir():
                raise
            raise ConfigError(
                f"{self.key_name}={self.path} is neither a photo nor a whole zip or tar of photos. "
                f"Photos are {', '.join(FORMATS)}, under any name."
            ) from error

    @cached_property
    def photos(self) -> list[str]:
        """The names of the photos."""
        return list(self.files)

    def read(self, size: int, most: int | None = None) -> Own:
        """Read at most `most` photos, in the order of their names, as images of `size` pixels.

        Raises:
            DataError: none can be read.
        """
        images: list[Images] = []
        names: list[str] = []
        left_out: dict[str, str] = {}
        for item in self.items(size):
            if item.image is None:
                left_out[item.source] = item.reason
                continue
            images.append(item.image)
            names.append(item.source)
            if len(images) == most:
                break
        if not images:
            raise DataError(f"No photo of {self.key_name}={self.path} can be used: {list_reasons(left_out)}.")
        return Own(np.stack(images), names, left_out, len(self.photos))


class _One(Folder):
    """One photo of a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(path.parent, {path.suffix.lower()})
        self.name = path.name

    def __iter__(self) -> Iterator[str]:
        return iter([self.name])

    def passed_over(self) -> dict[str, str]:
        """See `Files`."""
        return {}


def _is_image(path: Path) -> bool:
    with suppress(Unreadable):
        return not refusal(path.name, read_start(path, START))
    return False


def list_reasons(left_out: dict[str, str]) -> str:
    """Format the first photos that were left out with their reasons, and the number of the others."""
    some = [f"{readable_name(name)} ({readable_name(reason)})" for name, reason in list(left_out.items())[:SAID]]
    more = len(left_out) - len(some)
    return "; ".join(some) + (f"; and {more:,} more" if more else "")


def reconstructions(model: Reconstructor, images: Images) -> Images:
    """Reconstruct photos in batches and full precision: uint8, shape (N, H, W, 3), to the same."""
    return to_uint8(_through(model, model.reconstruct, images)).numpy()


def latents_of(model: LatentEncoder, images: Images) -> Tensor:
    """Encode photos in batches and full precision: uint8, shape (N, H, W, 3), to float, shape (N, latent_size)."""
    return _through(model, model.latents_of, images)


def _through(model: object, step: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    parts: tuple[Tensor, ...] = torch.split(to_float(torch.from_numpy(images)), BATCH)
    if not isinstance(model, nn.Module):
        return torch.cat([step(part) for part in parts])
    device = next((parameter.device for parameter in model.parameters()), parts[0].device)
    with evaluating(model), torch.autocast(device.type, enabled=False):
        return torch.cat([step(part.to(device)).cpu() for part in parts])
