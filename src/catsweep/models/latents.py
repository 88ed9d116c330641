"""Latents: drawn from a seed that belongs to the call, and walked along the sphere they lie on."""

import torch
from torch import Tensor


def draw_latents(n: int, latent_size: int, seed: int) -> Tensor:
    """Draw standard normal latents that depend on the arguments alone, never on the global random state.

    Returns:
        float32, shape (n, latent_size). The first rows do not change when `n` grows.
    """
    generator = torch.Generator().manual_seed(seed)
    # Row by row: a single randn(n, d) fills its buffer in an order that depends on n.
    return torch.stack([torch.randn(latent_size, generator=generator) for _ in range(n)])


def interpolate(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Walk from one latent to another on the great circle (slerp; Shoemake 1985, White 2016, arXiv:1609.04468).

    A straight line would cross the low-norm middle, where a generator of normal latents has never been.

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
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device).unsqueeze(1)
    cosine = torch.nn.functional.cosine_similarity(start, end, dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    if sine < 1e-4:  # parallel: the circle is a point or a line, and the formula 0/0
        path = start + t * (end - start)
    else:
        path = (torch.sin((1 - t) * angle) * start + torch.sin(t * angle) * end) / sine
    path[0], path[-1] = start, end
    return path
