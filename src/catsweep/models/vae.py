"""The variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114), with β and free bits.

Its place in the flow: `training.run` builds it from `conf/model/vae.yaml`, Lightning trains it, and everything
after that sees it as a `catsweep.models.protocol.Encoder`.
"""

from collections.abc import Callable
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor

from catsweep.images import to_float
from catsweep.instantiation import checked_once
from catsweep.losses.divergence import free_bits as floor_divergence
from catsweep.losses.divergence import kl_normal
from catsweep.models.blocks import Activation, Normalization
from catsweep.models.decoder import Decoder
from catsweep.models.encoder import Encoder
from catsweep.models.epoch_means import EpochMeans
from catsweep.models.optimization import OptimizerFactory, Schedule, build, expected_steps
from catsweep.models.prior import AggregatePrior

# A log-variance outside this range is a deviation below 1/150 or above 150: of no use, and its exp() may overflow.
LOG_VARIANCE_RANGE = (-10.0, 10.0)


def warmed_up(beta: float, step: int, warmup_steps: float) -> float:
    """β after `step` optimizer steps: linear from 0 over `warmup_steps`, then constant (Bowman et al. 2016)."""
    return beta if step >= warmup_steps else beta * step / warmup_steps


class VAE(EpochMeans):
    """β-VAE on images.

    The loss is `reconstruction + β · KL`, in nats per image: both terms are summed over the image and over
    the latent, so β = 1 is the evidence lower bound when the reconstruction is a log-likelihood.

    Args:
        image_size: side of the square images, in pixels.
        latent_size: length of the latent.
        halvings: see `Encoder`.
        channels: see `Encoder`.
        max_channels: see `Encoder`.
        block: factories `down`, `up`, `output`, see `catsweep.models.blocks`.
        normalization: see `Encoder`.
        activation: see `Encoder`.
        reconstruction_loss: (drawn, real), each (N, 3, H, W) in [0, 1], to a scalar.
        beta: weight of the divergence (Higgins et al. 2017).
        beta_warmup: share of the run, in [0, 1], over which β rises from 0.
        free_bits: nats per latent dimension that the divergence does not charge for (Kingma et al. 2016).
        aggregate_prior: draw from a normal distribution fitted to the latents of the training photos instead of the
            standard one, see `catsweep.models.prior`. Changes what is drawn, not what is learned.
        optimizer: factory.
        schedule: learning-rate multiplier.

    Raises:
        ConfigError: `image_size` cannot be halved that often.
    """

    def __init__(
        self,
        image_size: int,
        latent_size: int,
        halvings: int,
        channels: int,
        max_channels: int,
        block: dict[str, Callable[..., torch.nn.Module]],
        normalization: Normalization,
        activation: Activation,
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],
        beta: float,
        beta_warmup: float,
        free_bits: float,
        aggregate_prior: bool,
        optimizer: OptimizerFactory,
        schedule: Schedule,
    ):
        super().__init__()
        self.image_size, self.latent_size = image_size, latent_size
        self.encoder = Encoder(
            image_size, 2 * latent_size, halvings, channels, max_channels, block["down"], normalization, activation
        )
        self.decoder = Decoder(
            image_size,
            latent_size,
            halvings,
            channels,
            max_channels,
            block["up"],
            block["output"],
            normalization,
            activation,
        )
        self.prior = AggregatePrior(latent_size) if aggregate_prior else None
        self.reconstruction_loss = checked_once(reconstruction_loss)
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.optimizer, self.schedule = optimizer, schedule

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of the latent, each (N, latent_size), of images (N, 3, H, W) in [0, 1]."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`; the latents pass through the fitted prior, if there is one."""
        images: Tensor = self.decoder(latents if self.prior is None else self.prior(latents))
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        """Draw images again from the means of their latents: (N, 3, H, W) in [0, 1] to the same."""
        drawn: Tensor = self.decoder(self.encode(images)[0])
        return drawn

    def latents_of(self, images: Tensor) -> Tensor:
        """See `Encoder.latents_of`: the means of their latents, back through the fitted prior if there is one."""
        mean = self.encode(images)[0]
        return mean if self.prior is None else self.prior.inverse(mean)

    def losses(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Reconstruction error and divergence, in nats per image, at one sample of the latent.

        Args:
            images: (N, 3, H, W) in [0, 1].
            noise: (N, latent_size), standard normal.

        Returns:
            `reconstruction`; `kl`, the divergence; `kl_charged`, what the loss charges of it after free bits.
        """
        mean, log_variance = self.encode(images)
        if self.prior is not None and self.training:
            self.prior.update(mean, log_variance.exp())
        drawn = self.decoder(mean + (0.5 * log_variance).exp() * noise)
        divergence = kl_normal(mean, log_variance)
        return {
            "reconstruction": self.reconstruction_loss(drawn.float(), images),
            "kl": divergence.sum(1).mean(),
            "kl_charged": floor_divergence(divergence, self.free_bits),
        }

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """One step on a uint8 batch (N, H, W, 3)."""
        noise = torch.randn(len(batch), self.latent_size, device=self.device)
        parts = self.losses(to_float(batch), noise)
        warmup_steps = self.beta_warmup * expected_steps(self.trainer, self.global_step)
        beta = warmed_up(self.beta, self.global_step, warmup_steps)
        loss = parts["reconstruction"] + beta * parts["kl_charged"]
        self.note({"train/loss": loss, "train/reconstruction": parts["reconstruction"], "train/kl": parts["kl"]})
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the loss of held-out photos at full β, at the mean of the latent so that it does not fluctuate."""
        parts = self.losses(to_float(batch), torch.zeros(len(batch), self.latent_size, device=self.device))
        loss = parts["reconstruction"] + self.beta * parts["kl_charged"]
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def on_validation_start(self) -> None:
        """Samples are drawn after this."""
        self._fit_prior()

    def on_train_epoch_end(self) -> None:
        """The last checkpoint is written after this."""
        self._fit_prior()

    def on_train_end(self) -> None:
        """A run may end within an epoch."""
        self._fit_prior()

    def _fit_prior(self) -> None:
        if self.prior is not None:
            self.prior.fit()

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """One optimizer; its schedule advances with every step."""
        optimizer, schedule = build(self, self.optimizer, self.schedule, partial(expected_steps, self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
