"""Draw images from a trained generator, and write a page, a folder or an animation: `python src/generate.py`."""

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from catsweep.data.files import say_passed_over
from catsweep.errors import ConfigError
from catsweep.folders import scratch_folder
from catsweep.generate import interpolation
from catsweep.generate.generate_options import ANIMATION, FOLDER, Attribute, GenerateOptions, read
from catsweep.generate.model_source import Source, choose
from catsweep.generate.own_photos import Own, OwnPhotos, latents_of, list_reasons, reconstructions
from catsweep.grids import BACKGROUND, grid, save_png
from catsweep.models.generator import Generator, LatentEncoder, draw_latents, generate, interpolate
from steady import places
from steady.atomic import replacing
from steady.printing import say
from steady.safe_paths import plain_name

Images = NDArray[np.uint8]
Groups = tuple[OwnPhotos, OwnPhotos]  # a person's photos with and without an attribute

DRAWN = Path("outputs/generated")  # what is drawn from a bundle, to which nothing may be added
WEBP_QUALITY = 90


@dataclass(frozen=True)
class Strips:
    """Images in groups of equal length: a cat, a photo and its reconstruction, or a row of steps."""

    images: Images  # uint8, shape (S, k, H, W, 3)
    names: Sequence[str]  # of the files in a folder, without ending, one per strip
    upright: bool = False  # whether the page shows a strip from top to bottom instead of from left to right

    def page(self, columns: int | None) -> Images:
        """Arrange all images on one page, uint8 (height, width, 3).

        Single cats and upright strips are in `columns`, or, if None, about as wide as high; any other strip is a row.
        """
        count, length, *shape = self.images.shape
        if length == 1:
            return grid(self.images[:, 0], columns)
        if not self.upright:
            return grid(self.images.reshape(-1, *shape), length)
        if columns is None:
            most = math.ceil(math.sqrt(count * length))
            columns = math.ceil(count / math.ceil(count / most))  # the same number in each row, as nearly as may be
        columns = min(count, columns)
        blank = np.full((-count % columns, length, *shape), BACKGROUND, np.uint8)
        blocks = np.concatenate([self.images, blank]).reshape(-1, columns, length, *shape)
        return grid(blocks.swapaxes(1, 2).reshape(-1, *shape), columns)


def upscale(images: Images, scale: int) -> Images:
    """Enlarge images (…, H, W, 3) by a whole factor, smoothly (Lanczos)."""
    if scale == 1:
        return images
    *many, height, width, _ = images.shape
    large = [
        np.asarray(Image.fromarray(image).resize((scale * width, scale * height), Image.Resampling.LANCZOS))
        for image in images.reshape(-1, height, width, 3)
    ]
    return np.stack(large).reshape(*many, scale * height, scale * width, 3)


def save_folder(folder: Path, strips: Strips) -> list[Path]:
    """Write one PNG per strip, its images beside each other; all are complete before the first is in its place.

    Files of the same names in the folder are replaced, others stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with scratch_folder(folder / "images") as hidden:
        for name, strip in zip(strips.names, strips.images, strict=True):
            save_png(hidden / f"{name}.png", strip[0] if len(strip) == 1 else grid(strip, len(strip)))
        for name in strips.names:
            os.replace(hidden / f"{name}.png", folder / f"{name}.png")
    return [folder / f"{name}.png" for name in strips.names]


def save_animation(path: Path, frames: Images, fps: int) -> None:
    """Write an animation that repeats for ever, atomically, as GIF or WebP by the ending of its path.

    A GIF counts in hundredths of a second, so there `fps` becomes the next rate that divides 100.
    """
    images = [Image.fromarray(frame) for frame in frames]
    how: dict[str, Any] = (
        {"format": "GIF", "duration": 10 * round(100 / fps), "disposal": 1}  # Pillow finds 256 colours for each frame
        if path.suffix.lower() == ".gif"
        else {"format": "WEBP", "duration": round(1000 / fps), "quality": WEBP_QUALITY}
    )
    with replacing(path) as unfinished:
        images[0].save(unfinished, save_all=True, append_images=images[1:], loop=0, **how)


def run(cfg: DictConfig) -> Path:
    """Draw what the options ask for, write it, and print and return its path.

    Raises:
        ConfigError: a key is out of its range, a place is taken, or the model has no use for photos.
        DataError: no photo can be read, or the run's folder holds no trained model.
        ExportError: there is no bundle, or a damaged one.
        PlaceError: `out` cannot be written.
    """
    options = read(cfg)
    photos = None if options.photos is None else OwnPhotos(options.photos, "photos")
    attribute, groups = options.attribute, None
    if attribute and attribute.having and attribute.lacking:
        groups = OwnPhotos(attribute.having, "attribute.with"), OwnPhotos(attribute.lacking, "attribute.without")
    source = choose(cfg.bundle, cfg.run, cfg.checkpoint)
    folder = DRAWN / source.folder.resolve().name if source.is_bundle else source.folder
    out = options.out or folder / options.file_name
    if options.form == FOLDER:
        places.check(out, cfg)
    else:
        places.check(out.parent, cfg, file=out.name, key="out=FILE")
    _write(_strips(options, source, photos, groups), out, options)
    return out


def _write(strips: Strips, out: Path, options: GenerateOptions) -> None:
    """Write strips as a folder, an animation or a page; print the path, and what was replaced."""
    before = out.is_file() or (out.is_dir() and any(out.iterdir()))
    strips = Strips(upscale(strips.images, options.scale), strips.names, strips.upright)
    if options.form == FOLDER:
        save_folder(out, strips)
    elif options.form == ANIMATION:
        save_animation(out, strips.images[:, 0], options.fps)
    else:
        save_png(out, strips.page(options.columns))
    if before:
        what = "files of the same names, and left others, in" if options.form == FOLDER else "what was there:"
        say(f"Replaced {what} {out}", file=sys.stderr)
    say(out)


def _strips(options: GenerateOptions, source: Source, photos: OwnPhotos | None, groups: Groups | None) -> Strips:
    """Draw the strips that the options ask for."""
    if photos is not None and not options.interpolate and not options.attribute:
        reconstructor = source.reconstructor
        taken = _read(photos, reconstructor.image_size, options.rows)
        pairs = np.stack([taken.images, reconstructions(reconstructor, taken.images)], 1)
        return Strips(pairs, _names(taken.names), upright=True)
    encoder = source.encoder if photos or groups else None
    model = encoder or source.generator
    own = None
    if photos is not None and encoder is not None:
        own = _read(photos, model.image_size, options.rows)
        start, names = latents_of(encoder, own.images), _names(own.names)
    else:
        count = options.rows if options.form == ANIMATION or not options.interpolate else 2 * options.rows
        start = options.truncation * draw_latents(count, model.latent_size, options.seed)
        names = [f"cat_{options.seed}_{number:04d}" for number in range(count)]
    if options.attribute:
        return _along(options.attribute, model, start, names, groups, own)
    if options.interpolate:
        return _interpolated(options, model, start, own)
    return Strips(_drawn(model, start.unsqueeze(1)), names)


def _interpolated(options: GenerateOptions, model: Generator, start: Tensor, own: Own | None) -> Strips:
    """Interpolate from cat to cat: a loop of frames for an animation, else one path in each row."""
    assert options.interpolate is not None
    if own is not None and len(start) < 2:
        raise ConfigError(
            f"A walk needs at least 2 photos, and photos={options.photos} holds one that can be used, or n={options.n} "
            f"leaves room for one of {options.interpolate} steps."
        )
    if options.form == ANIMATION:
        frames = interpolation.loop(start, options.interpolate).unsqueeze(1)
        return Strips(_drawn(model, frames), [f"frame_{number:04d}" for number in range(len(frames))])
    pairs = start.view(-1, 2, model.latent_size) if own is None else interpolation.neighbours(start)
    names = [f"walk_{options.seed}_{number:04d}" for number in range(len(pairs))]
    paths = torch.stack([interpolate(first, last, options.interpolate) for first, last in pairs])
    return Strips(_drawn(model, paths), names)


def _along(
    wanted: Attribute, model: Generator, start: Tensor, names: list[str], groups: Groups | None, own: Own | None
) -> Strips:
    """Draw each cat with less to more of an attribute, from left to right, beside the photo if it is of one."""
    if groups is not None:
        assert isinstance(model, LatentEncoder)
        way = _sorted_by_hand(wanted, model, groups)
    else:
        assert wanted.measure is not None
        found = interpolation.measured(model, [wanted.measure], wanted.draws)
        if wanted.measure not in found:
            raise ConfigError(f"All cats have the same {wanted.measure}, so it is no attribute of this model.")
        way = found[wanted.measure]
    images = _drawn(model, interpolation.along(start, way, wanted.strength, wanted.steps))
    if wanted.measure is not None:
        low, high = (interpolation.MEASURES[wanted.measure](images[:, end]).mean() for end in (0, -1))
        say(f"{wanted.measure}: {low:.3f} on average at the left, {high:.3f} at the right", file=sys.stderr)
    if own is not None:
        images = np.concatenate([own.images[:, None], images], 1)
    return Strips(images, names)


def _sorted_by_hand(wanted: Attribute, model: LatentEncoder, groups: Groups) -> Tensor:
    having, lacking = (latents_of(model, _read(photos, model.image_size, None).images) for photos in groups)
    way = interpolation.direction(having, lacking, wanted.name)
    right, asked = interpolation.told_apart(having, lacking)
    if asked:
        say(
            f"{wanted.name}: {right} of {asked} photos lie on its side when the means are taken without them "
            f"(about {asked // 2} would by chance)",
            file=sys.stderr,
        )
    return way


def _read(photos: OwnPhotos, size: int, most: int | None) -> Own:
    own = photos.read(size, most)
    if own.left_out:
        say(f"Left out of {photos.key_name}: {list_reasons(own.left_out)}", file=sys.stderr)
    if passed_over := photos.passed_over():
        say(f"{photos.key_name}: {say_passed_over(passed_over)}", file=sys.stderr)
    if len(own.names) + len(own.left_out) < own.found:
        say(f"The first {len(own.names):,} of {own.found:,} photos; a larger n takes more of them", file=sys.stderr)
    return own


def _names(photos: list[str]) -> list[str]:
    """Unique file names for photos, in their order, without folders and endings."""
    return [f"{number:04d}_{plain_name(Path(name).stem, 'photo')}" for number, name in enumerate(photos)]


def _drawn(model: Generator, latents: Tensor) -> Images:
    """Draw latents (S, k, d) as images (S, k, H, W, 3)."""
    flat = generate(model, latents.reshape(-1, model.latent_size)).numpy()
    return flat.reshape(*latents.shape[:2], *flat.shape[1:])
