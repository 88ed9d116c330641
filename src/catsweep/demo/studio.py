"""What the demo draws, without the page: the same functions as `python src/generate.py`, so the same pixels.

`page` calls it for each change of a slider. Everything ends in a file of the demo's own folder, which the page shows
and offers for download.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catsweep.errors import DataError
from catsweep.generation import attributes, walks
from catsweep.generation.encoding import latents_of, reconstructions
from catsweep.generation.own_photos import OwnPhotos
from catsweep.generation.sources import Source
from catsweep.generation.writing import Images, Strips, save_animation, upscale
from catsweep.grids import grid, save_png
from catsweep.models.generator import draw_latents, generate

FPS = 12
SIDE = 256  # pixels of an animation, at least, where the model's images are smaller
Strengths = Mapping[str, float]  # by name of attribute, in standard deviations


class Studio:
    """A generator with its attributes.

    Args:
        source: of the generator.
        folder: where pictures go; must exist.

    Raises:
        CatsweepError: the generator cannot be loaded.
    """

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.model = source.generator
        self.attributes = attributes.measured(self.model, list(attributes.MEASURES))

    def cats(self, n: int, seed: int, truncation: float, strengths: Strengths) -> Path:
        """A page of cats.

        Args:
            n: how many.
            seed: of their latents.
            truncation: see conf/generate.yaml.
            strengths: of attributes.

        Returns:
            A PNG; without attributes, with the pixels that `python src/generate.py` draws from the same numbers.
        """
        latents = self._moved(truncation * draw_latents(n, self.model.latent_size, seed), strengths)
        page = Strips(generate(self.model, latents).numpy()[:, None], []).page(None)
        return self._saved(f"cats_{seed}", page)

    def walk(self, start: int, end: int, steps: int, truncation: float, suffix: str) -> Path:
        """From the first cat of one seed to that of another, and back.

        Args:
            start: seed.
            end: seed.
            steps: images from one to the other.
            truncation: see conf/generate.yaml.
            suffix: `.webp`, or `.gif`, which takes ten times as long.

        Returns:
            An animation.
        """
        stops = torch.cat([draw_latents(1, self.model.latent_size, seed) for seed in (start, end)])
        frames = generate(self.model, truncation * walks.loop(stops, steps)).numpy()
        path = self._place(f"walk_{start}_{end}", frames).with_suffix(suffix)
        if not path.exists():
            save_animation(path, upscale(frames, max(1, -(-SIDE // self.model.image_size))), FPS)
        return path

    def photo(self, path: str, strengths: Strengths) -> Path:
        """A person's own photo, and what the model makes of it.

        Args:
            path: of the photo.
            strengths: of attributes, added to the latents that the photo is drawn from.

        Returns:
            A PNG: the photo as the model sees it, and the drawn one.

        Raises:
            CatsweepError: the file is no photo, or the model cannot take it in.
        """
        item = next(OwnPhotos(path, "photo").items(self.model.image_size))
        if item.image is None:
            raise DataError(f"{item.source} cannot be used: {item.reason}. Take another photo.")
        own = item.image[None]
        if any(strengths.values()):
            encoder = self.source.encoder
            drawn = generate(encoder, self._moved(latents_of(encoder, own), strengths)).numpy()
        else:
            drawn = reconstructions(self.source.reconstructor, own)
        return self._saved("photo", grid(np.concatenate([own, drawn])))

    def _moved(self, latents: Tensor, strengths: Strengths) -> Tensor:
        for name, strength in strengths.items():
            if strength:
                latents = latents + strength * self.attributes[name]
        return latents

    def _saved(self, name: str, page: Images) -> Path:
        path = self._place(name, page).with_suffix(".png")
        if not path.exists():
            save_png(path, page)
        return path

    def _place(self, name: str, pixels: Images) -> Path:
        """A path without ending; its folder is that of these pixels, so that no browser takes one for another."""
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:32]
        return self.folder / digest / name
