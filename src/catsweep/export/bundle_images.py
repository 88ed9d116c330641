"""Draw the pictures of a bundle: samples, interpolations, and the training photos nearest to samples (copies?)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from catsweep.grids import BACKGROUND, Images, enlarge, grid
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator, draw_latents, generate, interpolate
from catsweep.runs import Bundle

SAMPLES, INTERPOLATION, NEIGHBOURS = Bundle.PICTURES
SEED = 0
COUNT, COLUMNS = 64, 8
ROWS, STEPS = 6, 8
PAIRS, PAIR_COLUMNS = 16, 4
SIDE = 128  # pixels that an image is enlarged to, if a whole factor gets it there
COPIED = 0.05  # the share of held-out photos that are nearer than what counts as a copy, as in `val/copied`

INK, ALARM = (40, 40, 40), (200, 30, 30)
HEADING, TEXT = 26, 19  # sizes of letters, pixels
MARGIN = 24


def samples(model: Generator) -> Images:
    """Draw 64 images from the same latents for all generators of that latent size: uint8, shape (height, width, 3)."""
    return grid(enlarge(_drawn(model, draw_latents(COUNT, model.latent_size, SEED)), SIDE), COLUMNS)


def interpolation(model: Generator) -> Images:
    """Draw rows, each along a great circle between two latents: uint8, shape (height, width, 3)."""
    ends = draw_latents(2 * ROWS, model.latent_size, SEED).view(ROWS, 2, -1)
    latents = torch.cat([interpolate(start, end, STEPS) for start, end in ends])
    return grid(enlarge(_drawn(model, latents), SIDE), STEPS)


@dataclass(frozen=True)
class Neighbours:
    """Drawn images, each with its nearest training photo; the nearest pair first."""

    drawn: Images  # uint8, shape (n, H, W, 3)
    photos: Images  # the same
    ratios: NDArray[np.float64]  # (n,): their distance in features, over the median that unseen photos have to theirs
    threshold: float  # a ratio below it counts as a copy: only 5 % of unseen photos are nearer
    extractor: str  # whose features they are

    @property
    def copies(self) -> int:
        """Number of images that count as copies."""
        return int((self.ratios < self.threshold).sum())


def neighbours(model: Generator, scorer: Scorer) -> Neighbours:
    """Find the training photo nearest to each image of `samples`; the scorer knows the photos, and their features.

    Where no photos were held out, "unseen" are the training photos themselves, each beside its nearest other.
    """
    drawn = generate(model, draw_latents(COUNT, model.latent_size, SEED))
    features = torch.cat([scorer.extractor(part) for part in torch.split(drawn, scorer.batch_size)])
    train = scorer.reference.features[scorer.train_rows].double()
    unseen = scorer.reference.features[scorer.val_rows].double()
    distances, nearest = torch.cdist(features.double(), train).min(1)
    between = torch.cdist(unseen, train) if len(unseen) else torch.cdist(train, train).fill_diagonal_(float("inf"))
    usual = between.amin(1)
    usual = usual[usual.isfinite()]  # a single photo has no other
    unit = usual.median().clamp_min(torch.finfo(torch.float32).tiny) if len(usual) else torch.tensor(1.0)
    order = distances.argsort()
    rows = scorer.photos[scorer.train_rows[nearest[order].numpy()]]
    return Neighbours(
        drawn=drawn[order].numpy(),
        photos=np.array(scorer.ready.images[np.asarray(rows)]),
        ratios=(distances / unit)[order].numpy(),
        threshold=float(torch.quantile(usual, COPIED) / unit) if len(usual) else 0.0,
        extractor=scorer.extractor.name,
    )


def neighbour_page(found: Neighbours) -> Images:
    """Lay out the nearest pairs, under each how near it is: uint8, shape (height, width, 3)."""
    pairs = [enlarge(np.stack(pair), SIDE) for pair in zip(found.drawn[:PAIRS], found.photos[:PAIRS], strict=True)]
    tiles = [grid(pair, columns=2) for pair in pairs]
    height, width, _ = tiles[0].shape
    step = height + TEXT + MARGIN
    rows = -(-len(tiles) // PAIR_COLUMNS)
    top = 2 * MARGIN + HEADING + 3 * (TEXT + 8)
    size = (PAIR_COLUMNS * (width + MARGIN) + MARGIN, top + rows * step + MARGIN // 2)
    page = Image.new("RGB", size, (BACKGROUND,) * 3)
    ink = ImageDraw.Draw(page)
    heading, text = (ImageFont.load_default(points) for points in (HEADING, TEXT))
    ink.text((MARGIN, MARGIN), "Drawn, and the nearest training photo", INK, heading)
    for line, words in enumerate(_explanation(found)):
        ink.text((MARGIN, MARGIN + HEADING + 14 + line * (TEXT + 8)), words, INK, text)
    for place, (tile, ratio) in enumerate(zip(tiles, found.ratios, strict=False)):
        row, column = divmod(place, PAIR_COLUMNS)
        left, upper = MARGIN + column * (width + MARGIN), top + row * step
        page.paste(Image.fromarray(tile), (left, upper))
        words, colour = (f"{ratio:.2f}  a copy?", ALARM) if ratio < found.threshold else (f"{ratio:.2f}", INK)
        ink.text((left + width // 2, upper + height + 2), words, colour, text, anchor="ma")
    return np.asarray(page)


def _explanation(found: Neighbours) -> list[str]:
    shown = min(PAIRS, len(found.ratios))
    return [
        f"Left: drawn. Right: the nearest of all training photos. The {shown} nearest pairs of {len(found.ratios)}.",
        f"Number: their distance in features of {found.extractor}; 1 is the median of photos never trained on.",
        f"Below {found.threshold:.2f} it may be a copy: {found.copies} of {len(found.ratios)} are; "
        f"of photos never trained on, 1 in 20.",
    ]


def _drawn(model: Generator, latents: Tensor) -> Images:
    images: Images = generate(model, latents).numpy()
    return images
