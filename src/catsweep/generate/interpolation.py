"""Arithmetic on latents: interpolation between cats, and directions of attributes by a difference of means.

The mean latent of images that have something, minus that of images without it, points to where there is more of it
(Larsen et al. 2016, arXiv:1512.09300, section 4.2; White 2016, arXiv:1609.04468). The images are photos that a person
has sorted, encoded by a VAE, or cats drawn from known latents, sorted by a measurement. A direction has length 1: a
step of 1 is the standard deviation of latents along it.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from catsweep.errors import DataError
from catsweep.models.generator import Generator, draw_latents, generate, interpolate

Images = NDArray[np.uint8]
Values = NDArray[np.float64]

DRAWS = 1024  # cats that are drawn to be measured
SEED = 1_000_003  # of those; not one that a person is likely to look at
SHARE = 0.25  # at each end, by what is measured
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# Of the difference of means, against the length of a latent, about √d: less is rounding.
NOTHING = 1e-6


def neighbours(stops: Tensor) -> Tensor:
    """Pair each latent with the next, the last with the first: (S, d) to (S, 2, d), or (1, 2, d) of two latents."""
    if len(stops) == 2:
        return stops.unsqueeze(0)
    return torch.stack([stops, stops.roll(-1, 0)], 1)


def loop(stops: Tensor, steps: int) -> Tensor:
    """Interpolate through all latents along great circles and back to the first, for an animation that repeats.

    Float (S, d) becomes (S · steps, d): the last point is one step before the first, so nothing is shown twice.
    """
    legs = [interpolate(start, end, steps + 1)[:-1] for start, end in zip(stops, stops.roll(-1, 0), strict=True)]
    return torch.cat(legs)


def along(latents: Tensor, direction: Tensor, strength: float, steps: int) -> Tensor:
    """Move each latent along a direction, from -`strength` to +`strength`; the middle of an odd number is itself.

    Float (N, d), along float (d,) of length 1, becomes (N, steps, d); `strength` is in standard deviations of latents.
    """
    return latents.unsqueeze(1) + torch.linspace(-strength, strength, steps).unsqueeze(1) * direction


def _luma(images: Images) -> Values:
    return np.asarray(images @ LUMA / 255)


def _detail(images: Images) -> Values:
    luma = _luma(images)
    down, right = (np.abs(np.diff(luma, axis=axis)).mean((1, 2)) for axis in (1, 2))
    return np.asarray((down + right) / 2)


# Each takes uint8 images, shape (N, H, W, 3), and returns float64, shape (N,).
MEASURES: Mapping[str, Callable[[Images], Values]] = {
    "brightness": lambda images: _luma(images).mean((1, 2)),  # 0 to 1
    "contrast": lambda images: _luma(images).std((1, 2)),  # within each image, 0 to 0.5
    "warmth": lambda images: (images[..., 0].astype(np.float64) - images[..., 2]).mean((1, 2)) / 255,  # red less blue
    "colour": lambda images: np.ptp(images, axis=3).mean((1, 2)) / 255,  # between the strongest and the weakest colour
    "detail": _detail,  # between neighbouring pixels, 0 (smooth) to 1
}


def direction(having: Tensor, lacking: Tensor, what: str) -> Tensor:
    """Unit vector, float32 (d,), from the mean of latents (M, d) without an attribute to that of (N, d) with it.

    Raises:
        DataError: there is no difference.
    """
    difference = having.double().mean(0) - lacking.double().mean(0)
    if not difference.norm() > NOTHING * having.shape[1] ** 0.5:
        raise DataError(
            f"Images with and without {what} have the same latents on average, so there is no way from one to the "
            f"other. Are they the same photos? Sort them anew, or take another attribute."
        )
    return torch.nn.functional.normalize(difference, dim=0).float()


def told_apart(having: Tensor, lacking: Tensor) -> tuple[int, int]:
    """Count the images on the right side of the middle of the two means, each taken without that image; of how many.

    An attribute that the latents do not carry gets about half of them right. Images of a group of one are not asked.
    """
    right = asked = 0
    for group, other, sign in ((having.double(), lacking.double(), 1), (lacking.double(), having.double(), -1)):
        if len(group) < 2:
            continue
        means = (group.sum(0) - group) / (len(group) - 1)  # of the others, for each
        middle, way = (means + other.mean(0)) / 2, sign * (means - other.mean(0))
        right += int((sign * ((group - middle) * way).sum(1) > 0).sum())
        asked += len(group)
    return right, asked


def measured(model: Generator, names: Sequence[str], draws: int = DRAWS) -> dict[str, Tensor]:
    """Find directions of measured attributes, from the top and the bottom quarter of many drawn cats, by name.

    One that is the same for every cat is left out.
    """
    latents = draw_latents(draws, model.latent_size, SEED)
    images = generate(model, latents).numpy()
    found: dict[str, Tensor] = {}
    for name in names:
        values = MEASURES[name](images)
        order, quarter = np.argsort(values, kind="stable"), max(1, int(SHARE * draws))
        if values[order[0]] < values[order[-1]]:
            found[name] = direction(latents[order[-quarter:]], latents[order[:quarter]], name)
    return found
