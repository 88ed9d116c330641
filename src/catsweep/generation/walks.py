"""Paths through the latents: rows from one cat to another, a closed loop through several, steps along an attribute.

Everything here is arithmetic on latents; `command` and the demo draw the result.
"""

import torch
from torch import Tensor

from catsweep.models.generator import interpolate


def rows(ends: Tensor, steps: int) -> Tensor:
    """Walk along the great circle between the two latents of each pair.

    Args:
        ends: float, shape (R, 2, d).
        steps: points of each walk, both ends included, at least 2.

    Returns:
        float, shape (R, steps, d).
    """
    return torch.stack([interpolate(start, end, steps) for start, end in ends])


def neighbours(stops: Tensor) -> Tensor:
    """Each latent with the next, the last with the first: (S, d) to (S, 2, d), or (1, 2, d) of two latents."""
    if len(stops) == 2:
        return stops.unsqueeze(0)
    return torch.stack([stops, stops.roll(-1, 0)], 1)


def loop(stops: Tensor, steps: int) -> Tensor:
    """Walk through all latents along great circles and back to the first, for an animation that repeats.

    The angles within a leg are equal; the last point is one step before the first, so nothing is shown twice.

    Args:
        stops: float, shape (S, d), S at least 2.
        steps: from one stop to the next, at least 1.

    Returns:
        float, shape (S · steps, d).
    """
    legs = [interpolate(start, end, steps + 1)[:-1] for start, end in zip(stops, stops.roll(-1, 0), strict=True)]
    return torch.cat(legs)


def along(latents: Tensor, direction: Tensor, strength: float, steps: int) -> Tensor:
    """Move each latent along a direction, from -`strength` to +`strength`; the middle of an odd number is itself.

    Args:
        latents: float, shape (N, d).
        direction: float, shape (d,), of length 1, so that 1 is the standard deviation of latents along it.
        strength: how far, at either end.
        steps: at least 2.

    Returns:
        float, shape (N, steps, d).
    """
    return latents.unsqueeze(1) + torch.linspace(-strength, strength, steps).unsqueeze(1) * direction
