"""`python src/generate.py`: new cats, walks between them, one's own photos drawn again, or an attribute turned up.

What is asked for is checked (`wish`), the model is found (`sources`), latents are drawn by the seed or taken from the
person's own photos (`own_photos`), moved (`walks`, `attributes`), drawn, and written (`writing`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from torch import Tensor

from catsweep.data.files import say_passed_over
from catsweep.errors import ConfigError
from catsweep.generation import attributes, walks
from catsweep.generation.encoding import latents_of, reconstructions
from catsweep.generation.own_photos import Own, OwnPhotos, said
from catsweep.generation.sources import Source, choose
from catsweep.generation.wish import ANIMATION, FOLDER, Attribute, Wish, read
from catsweep.generation.writing import Images, Strips, save_animation, save_folder, upscale
from catsweep.grids import save_png
from catsweep.models.generator import Generator, LatentEncoder, Reconstructor, draw_latents, generate
from steady import places
from steady.links import plain
from steady.printing import say

DRAWN = Path("outputs/generated")  # what is drawn from a bundle, to which nothing may be added


@dataclass(frozen=True)
class Sorted:
    """A person's photos with and without an attribute."""

    having: OwnPhotos
    lacking: OwnPhotos


def run(cfg: DictConfig) -> Path:
    """Draw what is asked for, write it, and print where it is.

    Args:
        cfg: as in `conf/generate.yaml`.

    Returns:
        The file, or the folder.

    Raises:
        ConfigError: a key is out of its range, a place is taken, or the model has no use for photos.
        DataError: no photo can be read, or the run's folder holds no trained model.
        ExportError: there is no bundle, or a damaged one.
        PlaceError: `out` cannot be written.
    """
    wish = read(cfg)
    photos = None if wish.photos is None else OwnPhotos(wish.photos, "photos")
    groups = None
    if wish.attribute and wish.attribute.having and wish.attribute.lacking:
        groups = Sorted(
            OwnPhotos(wish.attribute.having, "attribute.with"), OwnPhotos(wish.attribute.lacking, "attribute.without")
        )
    source = choose(cfg.bundle, cfg.run, cfg.checkpoint)
    out = wish.out or _usual_place(source, wish)
    if wish.form == FOLDER:
        places.check(out, cfg)
    else:
        places.check(out.parent, cfg, file=out.name, key="out=FILE")
    strips = _strips(wish, source, photos, groups)
    return write(strips, out, wish)


def _usual_place(source: Source, wish: Wish) -> Path:
    folder = DRAWN / source.folder.resolve().name if source.is_bundle else source.folder
    return folder / (f"{wish.kind}.png" if wish.photos else f"{wish.kind}_{wish.seed}.png")


def write(strips: Strips, out: Path, wish: Wish) -> Path:
    """Write what was drawn, in the form that was asked for, and print where it is; what it replaced is told.

    Returns:
        `out`.
    """
    before = out.is_file() or (out.is_dir() and any(out.iterdir()))
    strips = Strips(upscale(strips.images, wish.scale), strips.names, strips.upright)
    if wish.form == FOLDER:
        save_folder(out, strips)
    elif wish.form == ANIMATION:
        save_animation(out, strips.images[:, 0], wish.fps)
    else:
        save_png(out, strips.page(wish.columns))
    if before:
        what = "files of the same names, and left others, in" if wish.form == FOLDER else "what was there:"
        say(f"Replaced {what} {out}", file=sys.stderr)
    say(out)
    return out


def _strips(wish: Wish, source: Source, photos: OwnPhotos | None, groups: Sorted | None) -> Strips:
    """Draw what is asked for."""
    if photos is not None and not wish.interpolate and not wish.attribute:
        return _beside_reconstructions(source.reconstructor, photos, wish.rows)
    encoder = source.encoder if photos or groups else None
    model = encoder or source.generator
    own = None
    if photos is not None and encoder is not None:
        own = _read(photos, model.image_size, wish.rows)
        start, names = latents_of(encoder, own.images), _names(own.names)
    else:
        count = wish.rows if wish.form == ANIMATION or not wish.interpolate else 2 * wish.rows
        start = wish.truncation * draw_latents(count, model.latent_size, wish.seed)
        names = [f"cat_{wish.seed}_{number:04d}" for number in range(count)]
    if wish.attribute:
        return _along(wish.attribute, model, start, names, groups, own)
    if wish.interpolate:
        return _walk(wish, model, start, own)
    return Strips(_drawn(model, start.unsqueeze(1)), names)


def _beside_reconstructions(model: Reconstructor, photos: OwnPhotos, most: int) -> Strips:
    own = _read(photos, model.image_size, most)
    return Strips(np.stack([own.images, reconstructions(model, own.images)], 1), _names(own.names), upright=True)


def _walk(wish: Wish, model: Generator, start: Tensor, own: Own | None) -> Strips:
    """From cat to cat: a loop of single frames for an animation, else one walk in each row."""
    assert wish.interpolate is not None
    if own is not None and len(start) < 2:
        raise ConfigError(
            f"A walk needs at least 2 photos, and photos={wish.photos} holds one that can be used, or n={wish.n} "
            f"leaves room for one of {wish.interpolate} steps."
        )
    if wish.form == ANIMATION:
        frames = walks.loop(start, wish.interpolate).unsqueeze(1)
        return Strips(_drawn(model, frames), [f"frame_{number:04d}" for number in range(len(frames))])
    pairs = start.view(-1, 2, model.latent_size) if own is None else walks.neighbours(start)
    names = [f"walk_{wish.seed}_{number:04d}" for number in range(len(pairs))]
    return Strips(_drawn(model, walks.rows(pairs, wish.interpolate)), names)


def _along(
    wanted: Attribute, model: Generator, start: Tensor, names: list[str], groups: Sorted | None, own: Own | None
) -> Strips:
    """Each cat with less and with more of an attribute, from left to right; of a photo, itself before that."""
    if groups is not None:
        assert isinstance(model, LatentEncoder)
        way = _sorted_by_hand(wanted, model, groups)
    else:
        assert wanted.measure is not None
        found = attributes.measured(model, [wanted.measure], wanted.draws)
        if wanted.measure not in found:
            raise ConfigError(f"All cats have the same {wanted.measure}, so it is no attribute of this model.")
        way = found[wanted.measure]
    images = _drawn(model, walks.along(start, way, wanted.strength, wanted.steps))
    if wanted.measure is not None:
        low, high = (attributes.MEASURES[wanted.measure](images[:, end]).mean() for end in (0, -1))
        say(f"{wanted.measure}: {low:.3f} on average at the left, {high:.3f} at the right", file=sys.stderr)
    if own is not None:
        images = np.concatenate([own.images[:, None], images], 1)
    return Strips(images, names)


def _sorted_by_hand(wanted: Attribute, model: LatentEncoder, groups: Sorted) -> Tensor:
    having, lacking = (
        latents_of(model, _read(photos, model.image_size, None).images) for photos in (groups.having, groups.lacking)
    )
    way = attributes.direction(having, lacking, wanted.name)
    right, asked = attributes.told_apart(having, lacking)
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
        say(f"Left out of {photos.key_name}: {said(own.left_out)}", file=sys.stderr)
    if passed_over := photos.passed_over():
        say(f"{photos.key_name}: {say_passed_over(passed_over)}", file=sys.stderr)
    if len(own.names) + len(own.left_out) < own.found:
        say(f"The first {len(own.names):,} of {own.found:,} photos; a larger n takes more of them", file=sys.stderr)
    return own


def _names(photos: list[str]) -> list[str]:
    """Names of files for photos, in their order, unique although folders and endings are dropped."""
    return [f"{number:04d}_{plain(Path(name).stem, 'photo')}" for number, name in enumerate(photos)]


def _drawn(model: Generator, latents: Tensor) -> Images:
    """Images (S, k, H, W, 3) of latents (S, k, d)."""
    flat = generate(model, latents.reshape(-1, model.latent_size)).numpy()
    return flat.reshape(*latents.shape[:2], *flat.shape[1:])
