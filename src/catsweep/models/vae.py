"""A variational autoencoder (Kingma and Welling 2013, arXiv:1312.6114), with β, free bits, averages, a discriminator.

Named by `conf/model/vae.yaml`, trained by Lightning; elsewhere it is a `catsweep.models.generator.LatentEncoder`. Its
encoder and decoder are in `catsweep.models.blocks`.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from catsweep.images import to_float
from catsweep.instantiation import checked_once
from catsweep.losses.divergence import free_bits as floor_divergence
from catsweep.losses.divergence import kl_normal
from catsweep.models import optimization
from catsweep.models.adversarial_term import AdversarialTerm
from catsweep.models.blocks import ConvArchitecture, Decoder, Encoder, check_batch
from catsweep.models.generator import evaluating
from catsweep.models.optimization import EpochMeans, MovingAverage, OptimizerFactory, Schedule, rising
from catsweep.models.prior import DECAY, AggregatePrior, FitsPrior

# A log-variance outside this range is a deviation below 1/150 or above 150: of no use, and its exp() may overflow.
LOG_VARIANCE_RANGE = (-10.0, 10.0)
# Steps between two batches that the averaged encoder encodes for the prior: it changes slowly, and a batch takes a
# sixth of the time of a step.
PRIOR_EVERY = 4


def warmed_up(beta: float, step: int, warmup_steps: float) -> float:
    """β after `step` optimizer steps: linear from 0 over `warmup_steps`, then constant (Bowman et al. 2016).

    >>> warmed_up(2.0, step=5, warmup_steps=10), warmed_up(2.0, step=50, warmup_steps=10)
    (1.0, 2.0)
    """
    return beta if step >= warmup_steps else beta * step / warmup_steps


def _posterior(encoder: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = encoder(images).float().chunk(2, dim=1)
    return mean, log_variance.clamp(*LOG_VARIANCE_RANGE)


class VAE(FitsPrior, EpochMeans):
    """A β-VAE on images, and with `adversarial` a VAE-GAN.

    The loss is `reconstruction + β · KL`, in nats per image: both terms are summed over the image and over
    the latent, so β = 1 is the evidence lower bound when the reconstruction is a log-likelihood.

    >>> from catsweep.losses.reconstruction import mse
    >>> from catsweep.models.blocks import PlainDown, PlainOutput, PlainUp
    >>> network = {"image_size": 16, "halvings": 2, "channels": 4, "max_channels": 8,
    ...     "block": {"down": PlainDown, "up": PlainUp, "output": PlainOutput},
    ...     "normalization": nn.BatchNorm2d, "activation": nn.ReLU}
    >>> model = VAE(6, mse, 1.0, 0.0, 0.0, False, torch.optim.Adam, lambda step, total: 1.0, **network).eval()
    >>> model.decode(torch.randn(2, 6)).shape, model.latents_of(torch.rand(2, 3, 16, 16)).shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 6]))
    """

    prior: AggregatePrior | None
    check_config = check_photos = staticmethod(check_batch)
    own_parts = MappingProxyType({"discriminator": "It has a discriminator of its own: model.adversarial.weight=6."})

    def __init__(
        self,
        latent_size: int,  # numbers that an image is encoded to
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],  # (drawn, real), (N, 3, H, W) in [0, 1], to a scalar
        beta: float,  # weight of the divergence (Higgins et al. 2017)
        beta_warmup: float,  # share of the run, in [0, 1], over which β rises from 0
        free_bits: float,  # nats per latent dimension that are not charged (Kingma et al. 2016)
        aggregate_prior: bool,  # draw from a normal distribution fitted to the latents; changes nothing that is learned
        optimizer: OptimizerFactory,
        schedule: Schedule,  # multiplier of the learning rate
        ema_decay: float = 0.0,  # per step, in [0, 1), of averages that do everything but train; older runs do not say
        adversarial: AdversarialTerm | None = None,  # what a discriminator adds; none, or of weight 0: nothing
        **architecture: Any,  # of encoder and decoder, the fields of `ConvArchitecture`
    ):
        super().__init__()
        network = ConvArchitecture(**architecture)
        self.image_size, self.latent_size = network.image_size, latent_size
        self.encoder = Encoder(network, 2 * latent_size)
        self.decoder = Decoder(network, latent_size)
        # Two, and not one of a pair: the names of the learning networks' weights stay what they are in older runs.
        self.averaged_encoder = MovingAverage(self.encoder, ema_decay) if ema_decay else None
        self.averaged_decoder = MovingAverage(self.decoder, ema_decay) if ema_decay else None
        self.prior = AggregatePrior(latent_size) if aggregate_prior else None
        self.reconstruction_loss = checked_once(reconstruction_loss)
        self.beta, self.beta_warmup, self.free_bits = beta, beta_warmup, free_bits
        self.optimizer, self.schedule = optimizer, schedule
        self.adversarial = adversarial if adversarial is not None and adversarial.weight else None
        self.automatic_optimization = self.adversarial is None  # which alone can clip gradients

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images (N, 3, H, W) in [0, 1] as means and log-variances of latents, each (N, latent_size)."""
        return _posterior(self.averaged_encoder or self.encoder, images)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`; the latents pass through the fitted prior, if there is one."""
        return self._draw(latents if self.prior is None else self.prior(latents))

    def _draw(self, latents: Tensor) -> Tensor:
        images: Tensor = (self.averaged_decoder or self.decoder)(latents)
        return images

    def reconstruct(self, images: Tensor) -> Tensor:
        """See `Reconstructor.reconstruct`: from the means of the latents."""
        return self._draw(self.encode(images)[0])

    def latents_of(self, images: Tensor) -> Tensor:
        """See `LatentEncoder.latents_of`: the means, passed back through the fitted prior if there is one."""
        mean = self.encode(images)[0]
        return mean if self.prior is None else self.prior.inverse(mean)

    def _learning_posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Encode by the encoder that learns, and update the prior by the one that `encode` takes."""
        mean, log_variance = _posterior(self.encoder, images)
        averaged = self.averaged_encoder
        if self.prior is not None and averaged is None:
            self.prior.update(mean, log_variance.exp())
        elif self.prior is not None and averaged is not None and averaged.updates % PRIOR_EVERY == 0:
            with evaluating(averaged):
                seen, spread = _posterior(averaged, images)
            self.prior.update(seen, spread.exp(), rising(DECAY, averaged.updates // PRIOR_EVERY))
        return mean, log_variance

    def losses(self, images: Tensor, noise: Tensor) -> dict[str, Tensor]:
        """Compute reconstruction error and divergence, in nats per image, at one sample of the latent.

        By the learning networks in training mode, else by those that are drawn from. Images are (N, 3, H, W) in [0, 1],
        the noise is (N, latent_size), standard normal. Returns scalars: `reconstruction`, the divergence `kl`, and
        `kl_charged`, what the loss charges of it after free bits.
        """
        mean, log_variance = self._learning_posterior(images) if self.training else self.encode(images)
        latents = mean + (0.5 * log_variance).exp() * noise
        drawn = self.decoder(latents) if self.training else self._draw(latents)
        divergence = kl_normal(mean, log_variance)
        return {
            "reconstruction": self.reconstruction_loss(drawn.float(), images),
            "kl": divergence.sum(1).mean(),
            "kl_charged": floor_divergence(divergence, self.free_bits),
        }

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor | None:
        """Compute the loss of a uint8 batch (N, H, W, 3), or take its steps if there is a discriminator."""
        images = to_float(batch)
        if self.adversarial is not None:
            self._adversarial_step(self.adversarial, images)
            return None
        parts = self.losses(images, self._noise(images))
        loss = parts["reconstruction"] + self._current_beta() * parts["kl_charged"]
        self.note({"train/loss": loss, "train/reconstruction": parts["reconstruction"], "train/kl": parts["kl"]})
        return loss

    def _noise(self, images: Tensor) -> Tensor:
        return torch.randn(len(images), self.latent_size, device=self.device)

    def _batches(self) -> int:
        # Lightning counts the steps of every optimizer; the autoencoder's schedule steps once a batch.
        if self.automatic_optimization:
            return self.global_step
        return int(self.lr_schedulers()[0].last_epoch)  # type: ignore[index]  # a list, of two

    def _current_beta(self) -> float:
        step = self._batches()
        return warmed_up(self.beta, step, self.beta_warmup * self.expected_steps(step))

    def _adversarial_step(self, term: AdversarialTerm, images: Tensor) -> None:
        """Step the discriminator, from `start` on, then encoder and decoder."""
        step = self._batches()
        if step == 0:
            term.discriminator.calibrate(optimization.of_first_process(self.trainer, images))
        mean, log_variance = self._learning_posterior(images)
        latents = mean + (0.5 * log_variance).exp() * self._noise(images)
        playing = step >= term.start * self.expected_steps(step)
        if step % PRIOR_EVERY == 0:
            self.fit_prior()
        if playing:  # what is judged is drawn as samples will be
            draws = self._noise(images)
            latents = torch.cat([latents, draws if self.prior is None else self.prior(draws)])
        drawn = self.decoder(latents).float()
        gradient, values = term.step(images, drawn, self.reconstruction_loss, partial(optimization.take_step, self, 1))
        divergence = kl_normal(mean, log_variance)
        charged = self._current_beta() * floor_divergence(divergence, self.free_bits)
        optimization.take_step(self, 0, (drawn * gradient).sum() + charged)  # whose gradient at `drawn` is this one
        self._average()
        for schedule in self.lr_schedulers()[: 1 + playing]:  # type: ignore[index]  # a list, too
            schedule.step()
        values = {"loss": values["reconstruction"] + charged, "kl": divergence.sum(1).mean()} | values
        self.note({f"train/{name}": value for name, value in values.items()})

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the loss of held-out photos at full β, at the mean of the latent so that it does not fluctuate."""
        parts = self.losses(to_float(batch), torch.zeros(len(batch), self.latent_size, device=self.device))
        loss = parts["reconstruction"] + self.beta * parts["kl_charged"]
        self.log("val/loss", loss, prog_bar=True, batch_size=len(batch), sync_dist=True)

    def optimizer_step(self, *arguments: Any, **named: Any) -> None:
        """Step, then update the averages, before anything reads or saves the weights."""
        super().optimizer_step(*arguments, **named)
        self._average()

    def _average(self) -> None:
        if self.averaged_encoder is not None and self.averaged_decoder is not None:
            self.averaged_encoder.update_parameters(self.encoder)
            self.averaged_decoder.update_parameters(self.decoder)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """Build the optimizer, and the discriminator's, whose rate follows the same schedule, with every step."""
        self.expected_steps = lru_cache(maxsize=1)(partial(optimization.expected_steps, self.trainer))
        autoencoder = nn.ModuleList([self.encoder, self.decoder])
        optimizer, schedule = optimization.build(autoencoder, self.optimizer, self.schedule, self.expected_steps)
        if self.adversarial is None:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        # By the batches of the run and not by its own steps, which may begin late.
        [multiplier, *_] = schedule.lr_lambdas
        adversarial = optimization.build(
            self.adversarial, self.adversarial.optimizer, lambda *_: multiplier(schedule.last_epoch), lambda step: 1
        )
        return [optimizer, adversarial[0]], [schedule, adversarial[1]]
