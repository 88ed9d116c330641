"""Latents: drawn from a seed that belongs to the call, and walked along the sphere they lie on."""

import numpy as np
import torch
from torch import Tensor


def draw_latents(n: int, latent_size: int, seed: int) -> Tensor:
    """Draw standard normal latents that depend on the arguments alone, never on the global random state.

    NumPy draws them, so that an exported bundle, which has no torch, draws the same cats from the same seed.

    Returns:
        float32, shape (n, latent_size). The first rows do not change when `n` grows.
    """
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, latent_size), dtype=np.float32))


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Walk from one latent to another along the great circle (slerp; Shoemake 1985, White 2016, arXiv:1609.04468).

    A straight line would cross the low-norm middle, where a generator of normal latents has never been. Norms go
    evenly from that of `start` to that of `end`.

    Args:
        start: float, shape (d,).
        end: float, shape (d,).
        steps: number of points, both ends included, at least 2.

    Returns:
        float, shape (steps, d); first row `start`, last row `end`.

    Raises:
        ValueError: fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"An interpolation needs at least 2 steps, both ends included; got {steps}.")
    t = torch.linspace(0, 1, steps, dtype=torch.float64, device=start.device).unsqueeze(1)
    a, b = (torch.nn.functional.normalize(latent.double(), dim=0) for latent in (start, end))
    angle = torch.arccos((a @ b).clamp(-1, 1))
    sine = torch.sin(angle)
    if sine < 1e-4:  # parallel or opposite: every great circle would do, and the formula is 0/0
        path = torch.lerp(start.double(), end.double(), t)
    else:
        # Directions on the circle and norms apart: between nearly opposite latents of different norms the formula on
        # the latents themselves goes far outside both.
        norms = torch.lerp(start.double().norm(), end.double().norm(), t)
        path = norms * (torch.sin((1 - t) * angle) * a + torch.sin(t * angle) * b) / sine
    path = path.to(start.dtype)
    path[0], path[-1] = start, end
    return path
