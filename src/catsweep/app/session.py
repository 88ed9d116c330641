"""Draw pictures for the demo's page, as files, with the same pixels as `python src/generate.py`."""

import hashlib
import shlex
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catsweep.errors import DataError
from catsweep.generate import interpolation
from catsweep.generate.drawing import Images, Strips, save_animation, upscale
from catsweep.generate.model_source import Source
from catsweep.generate.own_photos import OwnPhotos, latents_of, reconstructions
from catsweep.grids import grid, save_png
from catsweep.metrics.scores import FID, SSIM
from catsweep.models.generator import draw_latents, generate
from catsweep.runs import RunDir

FPS = 12
SCORES = (FID, SSIM)
SIDE = 256  # pixels of an animation, at least, where the model's images are smaller
Strengths = Mapping[str, float]  # by name of attribute, in standard deviations


class Session:
    """A loaded generator and its attributes, which writes pictures to an existing folder."""

    def __init__(self, source: Source, folder: Path) -> None:
        self.source, self.folder = source, folder
        self.model = source.generator
        self.attributes = interpolation.measured(self.model, list(interpolation.MEASURES))

    def cats(self, n: int, seed: int, truncation: float, strengths: Strengths) -> Path:
        """Draw a page of `n` cats, a PNG, moved by the strengths of attributes."""
        latents = self._moved(truncation * draw_latents(n, self.model.latent_size, seed), strengths)
        page = Strips(generate(self.model, latents).numpy()[:, None], []).page(None)
        return self._saved(f"cats_{seed}", page)

    def walk(self, start: int, end: int, steps: int, truncation: float, suffix: str) -> Path:
        """Animate the interpolation from the first cat of one seed to that of another, and back.

        It takes so many steps each way. The suffix is `.webp`, or `.gif`, which takes ten times as long.
        """
        stops = torch.cat([draw_latents(1, self.model.latent_size, seed) for seed in (start, end)])
        frames = generate(self.model, truncation * interpolation.loop(stops, steps)).numpy()
        path = self._place(f"walk_{start}_{end}", frames).with_suffix(suffix)
        if not path.exists():
            save_animation(path, upscale(frames, max(1, -(-SIDE // self.model.image_size))), FPS)
        return path

    def photo(self, path: str, strengths: Strengths) -> Path:
        """Draw a photo as the model sees it, and its reconstruction moved by the strengths of attributes, as a PNG.

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
            latents = latents + strength * self.attributes[name] if strength else latents
        return latents

    def _saved(self, name: str, page: Images) -> Path:
        path = self._place(name, page).with_suffix(".png")
        if not path.exists():
            save_png(path, page)
        return path

    def _place(self, name: str, pixels: Images) -> Path:
        """A path without ending in a folder named by the pixels' digest, so that no browser shows an old picture."""
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()[:32]
        return self.folder / digest / name


def facts_line(source: Source) -> str:
    """Format name, size and scores of the model as one line of HTML; a fact that its folder lacks is left out."""
    side = source.generator.image_size
    facts = [source.folder.resolve().name, f"{side} x {side} pixels"]
    with suppress(DataError, KeyError, TypeError):
        metrics = RunDir(source.folder).metrics()
        scores, cards = metrics.finite, metrics.cards
        # Never FID alone: it is comparable only where the same network judged.
        judges = {one: f" ({cards[one.key]['extractor']})" if one is FID else "" for one in SCORES if one.key in scores}
        facts += [f"{one.title} {scores[one.key]:.3g}{judge}" for one, judge in judges.items()]
    return " · ".join(f"<span>{escape(fact)}</span>" for fact in facts)


def command_line(source: Source, n: int, seed: int, truncation: float) -> str:
    """Format the command line that draws the same page."""
    place = f"{'bundle' if source.is_bundle else 'run'}={source.folder}"
    return shlex.join(["python", "src/generate.py", place, f"n={n}", f"seed={seed}", f"truncation={truncation:g}"])
