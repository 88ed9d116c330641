"""Divergence of a VAE's latents from the standard normal prior, in nats."""

import torch
from torch import Tensor

from catsweep.errors import ConfigError


def kl_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Compute KL(N(mean, variance) || N(0, 1)) of every dimension (Kingma & Welling 2014, appendix B).

    From (N, latent) to the same in nats, float32 (float64 for float64 input), at least 0 up to rounding.

    >>> kl_normal(torch.tensor([[0.0, 2.0]]), torch.zeros(1, 2))
    tensor([[0., 2.]])
    """
    dtype = torch.promote_types(mean.dtype, torch.float32)
    mean, log_variance = mean.to(dtype), log_variance.to(dtype)
    # expm1: near the prior exp(x) - 1 - x is a difference of nearly equal numbers.
    return 0.5 * (mean.square() + log_variance.expm1() - log_variance)


def free_bits(kl: Tensor, nats: float = 0.0) -> Tensor:
    """Sum the batch's mean KL over dimensions, a scalar, with `nats` of each dimension free of charge.

    Kingma et al. 2016 (inverse autoregressive flow), equation 15, with one group per dimension: a dimension whose mean
    KL over the batch is below `nats` costs `nats` and feels no pressure towards the prior, which keeps it from being
    switched off early in training. One bit is 0.69 nats; 0 gives the plain KL.

    >>> free_bits(torch.tensor([[0.1, 3.0]]), nats=0.5)
    tensor(3.5000)
    """
    if nats < 0:
        raise ConfigError(f"free_bits expects a floor of 0 nats or more for each dimension, not {nats}; 0 is no floor.")
    per_dimension = kl.mean(dim=0)
    return (per_dimension.clamp(min=nats) if nats > 0 else per_dimension).sum()
