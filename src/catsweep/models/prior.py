"""The prior that a VAE is sampled from, when it is not the standard normal one.

A VAE is trained towards latents that are standard normal over the data, but it gets there late: for long, many of
them carry the same few things (brightness, colour) and are correlated. Independent draws then cancel each other, and
samples are grey. Fitting the density after the fact (Ghosh et al. 2020, arXiv:1903.12436, "ex-post density
estimation") draws from what the decoder has learned. Measured on the 1,703 aligned photos after 90 s on one core, the
same weights: FID 260 from the standard normal prior, 229 from the fitted one.
"""

import torch
from torch import Tensor, nn

from catsweep.errors import DivergedError

# The average reaches back about 50 batches: far enough for a full covariance, near enough to follow the encoder.
DECAY = 0.98
JITTER = 1e-4  # of the mean square: keeps the covariance positive definite in spite of float32's rounding


class AggregatePrior(nn.Module):
    """A normal distribution with full covariance, fitted to the latents of the training photos.

    Its state is a moving average, like that of batch normalisation; before the first update it is standard normal.

    Args:
        latent_size: length d of the latent.
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
        """Take in a batch of posteriors, by their exact moments and not by samples.

        Args:
            mean: (N, d).
            variance: (N, d).
            decay: of what was taken in before.
        """
        with torch.autocast(mean.device.type, enabled=False):  # a covariance in bf16 need not be positive definite
            moment = mean.T @ mean / len(mean) + variance.mean(0).diag()
        self.mean.lerp_(mean.mean(0), 1 - decay)
        self.second_moment.lerp_(moment, 1 - decay)

    @torch.no_grad()
    def fit(self) -> None:
        """Make the moving average the distribution that `forward` draws from.

        Raises:
            DivergedError: latents were so large that their moments are not finite.
        """
        mean = self.mean.double()
        covariance = self.second_moment.double() - torch.outer(mean, mean)
        covariance.diagonal().add_(JITTER * self.second_moment.diagonal().double().mean())
        if not covariance.isfinite().all():
            raise DivergedError(
                "The latents of the photos are not finite, so no prior can be fitted to them: the training has "
                "diverged. Lower the learning rate, or train with trainer.precision=32-true."
            )
        self.factor.copy_(torch.linalg.cholesky(covariance))

    def forward(self, latents: Tensor) -> Tensor:
        """Turn standard normal latents (N, d) into draws from the fitted distribution."""
        return self.mean + latents @ self.factor.T

    def inverse(self, drawn: Tensor) -> Tensor:
        """The way back: draws from the fitted distribution (N, d) to the standard normal latents they came from."""
        latents: Tensor = torch.linalg.solve_triangular(self.factor, (drawn - self.mean).T, upper=False)
        return latents.T
