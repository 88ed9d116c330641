"""Priors fitted to a VAE's latents after the fact, to draw from instead of the standard normal distribution.

"Ex-post density estimation" (Ghosh et al. 2020, arXiv:1903.12436); what each gains is measured in docs/decisions.md.

- `AggregatePrior`, of a VAE in training: a normal distribution. A VAE's latents approach the standard normal late:
  for long many are correlated, independent draws cancel each other, and samples are grey.
- `FlowPrior`, of a frozen encoder: a normal distribution, bent by a small normalizing flow.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from catsweep.errors import DivergedError

# The average reaches back about 50 batches: far enough for a full covariance, near enough to follow the encoder.
DECAY = 0.98
JITTER = 1e-4  # of the mean variance, or mean square: keeps the covariance positive definite in spite of rounding
# Standard normal latents, per dimension, that count as seen at the start: the covariance of a few photos has directions
# without any variance, and the next photo would lie infinitely far out. After an epoch they are a hundredth of all.
HEAD_START = 1 / 16
# A coupling stretches a number at most e-fold. Without a bound one odd photo makes the likelihood explode.
MAX_LOG_SCALE = 1.0


def _covariance(first: Tensor, second: Tensor, remedy: str) -> Tensor:
    """Covariance (d, d) in double precision of moments (d,) and (d, d); raises DivergedError if it is not finite."""
    covariance = second.double() - torch.outer(first.double(), first.double())
    if not covariance.isfinite().all():
        raise DivergedError(f"The latents of the photos are not finite, so no prior can be fitted to them{remedy}")
    return covariance


class AggregatePrior(nn.Module):
    """A normal distribution of latents (N, d) with full covariance, fitted to those of the training photos.

    Its state is a moving average, like that of batch normalization; before the first update it is standard normal.

    >>> prior = AggregatePrior(latent_size=2)
    >>> prior.update(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), torch.ones(2, 2), decay=0.0)
    >>> prior.fit()
    >>> prior(torch.zeros(1, 2))
    tensor([[2., 0.]])
    """

    mean: Tensor
    second_moment: Tensor
    factor: Tensor

    def __init__(self, latent_size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_size))
        self.register_buffer("second_moment", torch.eye(latent_size))
        self.register_buffer("factor", torch.eye(latent_size))

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor, decay: float = DECAY) -> None:
        """Average a batch of posteriors in, each (N, d), by their exact moments; `decay` weighs the average so far."""
        with torch.autocast(mean.device.type, enabled=False):  # a covariance in bf16 need not be positive definite
            moment = mean.T @ mean / len(mean) + variance.mean(0).diag()
        self.mean.lerp_(mean.mean(0), 1 - decay)
        self.second_moment.lerp_(moment, 1 - decay)

    @torch.no_grad()
    def fit(self) -> None:
        """Make the moving average the distribution that `forward` draws from; a `DivergedError` if it is not finite."""
        remedy = ": the training has diverged. Lower the learning rate, or train with trainer.precision=32-true."
        covariance = _covariance(self.mean, self.second_moment, remedy)
        covariance.diagonal().add_(JITTER * self.second_moment.diagonal().double().mean())
        self.factor.copy_(torch.linalg.cholesky(covariance))

    def forward(self, latents: Tensor) -> Tensor:
        """Turn standard normal latents (N, d) into draws from the fitted distribution."""
        return self.mean + latents @ self.factor.T

    def inverse(self, drawn: Tensor) -> Tensor:
        """Turn draws (N, d) into the standard normal latents that `forward` draws them from."""
        latents: Tensor = torch.linalg.solve_triangular(self.factor, (drawn - self.mean).T, upper=False)
        return latents.T


class Coupling(nn.Module):
    """An affine coupling of maps (N, c, s, s) (Dinh et al. 2017, "Real NVP", arXiv:1605.08803), at first the identity.

    `number` is its place in the flow: by turns halves are fields of a chessboard and channels, and change places.
    """

    mask: Tensor

    def __init__(self, channels: int, side: int, hidden: int, number: int):
        super().__init__()
        along = torch.arange(side)
        squares = (along[:, None] + along).expand(channels, side, side)
        layers = torch.arange(channels)[:, None, None].expand(channels, side, side)
        divided = layers if number // 2 % 2 and channels > 1 else squares
        self.register_buffer("mask", ((divided + number) % 2).float())
        self.enter = nn.Conv2d(channels, hidden, 3, padding=1)
        self.place = nn.Parameter(torch.zeros(hidden, side, side))  # a face is not the same everywhere
        self.between = nn.Conv2d(hidden, hidden, 3, padding=1)
        self.leave = nn.Conv2d(hidden, 2 * channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)

    def _move(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        features = functional.silu(self.enter(self.mask * maps) + self.place)
        log_scale, shift = self.leave(functional.silu(self.between(features))).chunk(2, dim=1)
        moved = 1 - self.mask
        return MAX_LOG_SCALE * torch.tanh(log_scale / MAX_LOG_SCALE) * moved, shift * moved

    def forward(self, maps: Tensor) -> Tensor:
        """Transform in the direction of drawing: (N, c, s, s) to the same."""
        log_scale, shift = self._move(maps)
        return maps * log_scale.exp() + shift

    def inverse(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Transform back: (N, c, s, s) to the same, and the logarithm of the volume that is gained, (N,)."""
        log_scale, shift = self._move(maps)
        return (maps - shift) * (-log_scale).exp(), -log_scale.flatten(1).sum(1)


class FlowPrior(nn.Module):
    """A normal distribution of maps of latents (c, s, s), bent by an invertible flow; at first standard normal.

    Two steps, each with an exact likelihood:

    - `z = mean + colour · x`, with full covariance, is fitted by moments. `colour` is the symmetric root, which leaves
      each number at its place in the image as far as possible (ZCA; Bell & Sejnowski 1997).
    - `x = flow(u)`: affine couplings, learned by maximum likelihood. Without any, the normal distribution is all.

    >>> prior, latents = FlowPrior(channels=2, side=4, couplings=2, hidden=3), torch.randn(5, 32)
    >>> prior(latents).shape, torch.allclose(prior.inverse(prior(latents)), latents)
    (torch.Size([5, 2, 4, 4]), True)
    """

    mean: Tensor
    first_moment: Tensor
    second_moment: Tensor
    seen: Tensor
    colour: Tensor
    whiten: Tensor
    log_volume: Tensor

    def __init__(self, channels: int, side: int, couplings: int, hidden: int):
        super().__init__()
        self.shape, size = (channels, side, side), channels * side * side
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("first_moment", torch.zeros(size))
        self.register_buffer("second_moment", torch.eye(size))
        self.register_buffer("seen", torch.tensor(HEAD_START * size))
        self.register_buffer("colour", torch.eye(size))
        self.register_buffer("whiten", torch.eye(size))
        self.register_buffer("log_volume", torch.zeros(()))
        self._batches = 0  # since the start or a resumption
        self.couplings = nn.ModuleList(Coupling(channels, side, hidden, number) for number in range(couplings))

    def forward(self, latents: Tensor) -> Tensor:
        """Turn standard normal latents (N, c·s·s) into draws from the prior, (N, c, s, s)."""
        maps = latents.reshape(-1, *self.shape)
        for coupling in self.couplings:
            maps = coupling(maps)
        return (self.mean + maps.flatten(1) @ self.colour.T).reshape(-1, *self.shape)

    def inverse(self, drawn: Tensor) -> Tensor:
        """Turn draws (N, c, s, s) into the latents (N, c·s·s) that `forward` draws them from."""
        return self._inverse(drawn)[0]

    def negative_log_likelihood(self, drawn: Tensor) -> Tensor:
        """Compute the negative log-likelihood (N,) of draws (N, c, s, s), in nats."""
        latents, log_volume = self._inverse(drawn)
        normal = 0.5 * (latents.square().sum(1) + latents.shape[1] * math.log(2 * math.pi))
        return normal - log_volume

    def _inverse(self, drawn: Tensor) -> tuple[Tensor, Tensor]:
        maps = ((drawn.flatten(1) - self.mean) @ self.whiten.T).reshape(-1, *self.shape)
        log_volume = self.log_volume.expand(len(drawn))
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            maps, gained = coupling.inverse(maps)
            log_volume = log_volume + gained
        return maps.flatten(1), log_volume

    @torch.no_grad()
    def update(self, mean: Tensor, variance: Tensor) -> None:
        """Average a batch of posteriors in, each (N, c, s, s), by their exact moments.

        The encoder is frozen, so this is a plain average over all that was seen. The normal distribution follows it
        after 1, 2, 4, 8, … batches, and whenever `fit` is called: seldom enough that the flow can learn on top of it.
        """
        mean, variance = mean.flatten(1).float(), variance.flatten(1).float()
        self.seen += len(mean)
        share = len(mean) / self.seen
        self.first_moment.lerp_(mean.mean(0), share)
        self.second_moment.lerp_(mean.T @ mean / len(mean) + variance.mean(0).diag(), share)
        self._batches += 1
        if self._batches & (self._batches - 1) == 0:
            self.fit()

    @torch.no_grad()
    def fit(self) -> None:
        """Make the normal distribution that of everything seen; a `DivergedError` if its moments are not finite."""
        remedy = ". Are the weights of model.source whole? Or train with trainer.precision=32-true."
        covariance = _covariance(self.first_moment, self.second_moment, remedy)
        covariance.diagonal().add_(JITTER * covariance.diagonal().mean())
        variances, axes = torch.linalg.eigh(covariance)
        variances = variances.clamp(min=JITTER * variances.max())  # rounding may have left some below 0
        self.mean.copy_(self.first_moment)
        self.colour.copy_(axes * variances.sqrt() @ axes.T)
        self.whiten.copy_(axes * variances.rsqrt() @ axes.T)
        self.log_volume.copy_(-0.5 * variances.log().sum())


class FitsPrior:
    """Hooks of Lightning that fit a model's `prior`, if any, before samples are drawn or a checkpoint is written."""

    prior: AggregatePrior | FlowPrior | None

    def fit_prior(self) -> None:
        """Make what the prior has seen the distribution that it draws from."""
        if self.prior is not None:
            self.prior.fit()

    on_validation_start = fit_prior  # samples are drawn after this
    on_train_epoch_end = fit_prior  # the last checkpoint is written after this
    on_train_end = fit_prior  # a run may end within an epoch
