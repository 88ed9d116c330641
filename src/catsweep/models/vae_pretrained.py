"""A VAE that others have trained, made to draw cats: its decoder fine-tuned, or a small prior learned on its latents.

Its place in the flow: as `catsweep.models.vae`, from `conf/model/vae_pretrained.yaml`. `catsweep.models.pretrained`
builds the VAE and fetches its weights, `catsweep.models.flow` is the prior.

The encoder stays as it is. So its latents stay the same, and there is no divergence to pay for: what makes standard
normal latents into those of cats is a prior, fitted to them afterwards (as latent diffusion does it, with a much larger
one: Rombach et al. 2022, arXiv:2112.10752).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from catsweep.errors import ConfigError
from catsweep.images import to_float
from catsweep.instantiation import checked_once
from catsweep.models import pretrained
from catsweep.models.flow import FlowPrior
from catsweep.models.optimization import OptimizerFactory, Schedule, build, expected_steps


class PretrainedVAE(pl.LightningModule):
    """A Hugging Face `AutoencoderKL` behind `catsweep.models.protocol.Encoder`.

    It is built with random weights, from its architecture alone. Those of the source come when it is first trained;
    a checkpoint or a bundle has its own. So neither asks for the source again.

    Args:
        image_size: side of the square images, in pixels; a multiple of what the VAE reduces them by (8, usually).
        source: see `catsweep.models.pretrained.architecture`.
        subfolder: see there.
        revision: see there.
        architecture: the source's own `config.json`; None: it is read from the source. `configuration.complete` puts it
            into the configuration of a run.
        train: `prior` trains a flow on the latents, and nothing of the VAE; `decoder` trains the decoder on
            `reconstruction_loss`, and fits the prior, then a normal distribution, by moments.
        couplings: of the flow, see `FlowPrior`.
        hidden: see `FlowPrior`.
        reconstruction_loss: (drawn, real), each (N, 3, H, W) in [0, 1], to a scalar.
        optimizer: factory.
        schedule: learning-rate multiplier.

    Raises:
        ConfigError: the source is not such a VAE, or not one of images of this size.
        DataError: the source cannot be read.
    """

    pretrained_loaded: Tensor

    def __init__(
        self,
        image_size: int,
        source: str | None,
        subfolder: str | None,
        revision: str | None,
        architecture: Mapping[str, Any] | None,
        train: Literal["prior", "decoder"],
        couplings: int,
        hidden: int,
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: OptimizerFactory,
        schedule: Schedule,
    ):
        super().__init__()
        found = architecture or pretrained.architecture(source, subfolder, revision)
        self.source, self.subfolder, self.revision = source, subfolder, revision
        autoencoder = self.autoencoder = pretrained.build(found)
        config = autoencoder.config
        side = _side(image_size, config)
        self.image_size, self.latent_size = image_size, config.latent_channels * side**2
        # What the VAE's own users multiply its latents by, so that they have a variance of about 1.
        self.scale, self.offset = float(config.scaling_factor), float(config.shift_factor or 0.0)
        self.trains_decoder = train == "decoder"
        self.prior = FlowPrior(config.latent_channels, side, 0 if self.trains_decoder else couplings, hidden)
        self.register_buffer("pretrained_loaded", torch.tensor(False))  # of the state, so that a resumed run knows
        autoencoder.requires_grad_(False)
        if self.trains_decoder:
            for part in filter(None, (autoencoder.decoder, autoencoder.post_quant_conv)):
                part.requires_grad_(True)
        self.reconstruction_loss = checked_once(reconstruction_loss)
        self.optimizer, self.schedule = optimizer, schedule

    def on_fit_start(self) -> None:
        """Take the source's weights, unless a checkpoint has been restored."""
        if not self.pretrained_loaded:
            pretrained.load(self.autoencoder, str(self.source), self.subfolder, self.revision)
            self.pretrained_loaded.fill_(True)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of the scaled latents, each (N, c, s, s), of images (N, 3, H, W) in [0, 1]."""
        posterior = self.autoencoder.encode(2 * images - 1).latent_dist
        return (posterior.mean.float() - self.offset) * self.scale, posterior.std.float() * self.scale

    def draw(self, scaled: Tensor) -> Tensor:
        """Images (N, 3, H, W), about in [0, 1], of scaled latents (N, c, s, s)."""
        decoded: Tensor = self.autoencoder.decode(scaled / self.scale + self.offset).sample
        return (decoded + 1) / 2

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`; the latents pass through the prior."""
        return self.draw(self.prior(latents)).clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Draw images again from the means of their latents: (N, 3, H, W) in [0, 1] to the same."""
        return self.draw(self.encode(images)[0]).clamp(0, 1)

    def latents_of(self, images: Tensor) -> Tensor:
        """See `Encoder.latents_of`: the means of their latents, back through the prior."""
        return self.prior.inverse(self.encode(images)[0])

    def loss(self, images: Tensor, noise: Tensor | None) -> Tensor:
        """What is trained on, per image: the reconstruction loss, or the latent's negative log-likelihood in nats.

        Args:
            images: (N, 3, H, W) in [0, 1].
            noise: (N, c, s, s), standard normal; None for the mean of the latent.
        """
        with torch.no_grad():
            mean, deviation = self.encode(images)
        scaled = mean if noise is None else mean + deviation * noise
        if self.training:
            with torch.autocast(self.device.type, enabled=False):  # a covariance in bf16 need not be positive definite
                self.prior.update(mean, deviation.square())
        if self.trains_decoder:
            drawn = self.draw(scaled).float()
            # Losses are of images in [0, 1]. Beyond it the gradient must live on, or a pixel could never come back.
            drawn = drawn + (drawn.clamp(0, 1) - drawn).detach()
            loss: Tensor = self.reconstruction_loss(drawn, images)
            return loss
        with torch.autocast(self.device.type, enabled=False):
            return self.prior.negative_log_likelihood(scaled).mean()

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        """One step on a uint8 batch (N, H, W, 3)."""
        noise = torch.randn(len(batch), *self.prior.shape, device=self.device)
        loss = self.loss(to_float(batch), noise)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(batch), sync_dist=True)
        return loss

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the loss of held-out photos, at the mean of the latent so that it does not fluctuate."""
        self.log("val/loss", self.loss(to_float(batch), None), prog_bar=True, batch_size=len(batch), sync_dist=True)

    def on_validation_start(self) -> None:
        """Samples are drawn after this."""
        self.prior.fit()

    def on_train_epoch_end(self) -> None:
        """The last checkpoint is written after this."""
        self.prior.fit()

    def on_train_end(self) -> None:
        """A run may end within an epoch."""
        self.prior.fit()

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """One optimizer, of what is trained; its schedule advances with every step."""
        optimizer, schedule = build(self, self.optimizer, self.schedule, partial(expected_steps, self.trainer))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _side(image_size: int, config: Any) -> int:
    """Side of the map of latents.

    Raises:
        ConfigError: the VAE is not one of such images.
    """
    reduction: int = 2 ** (len(config.block_out_channels) - 1)
    if image_size % reduction:
        raise ConfigError(
            f"This VAE reduces images by {reduction}, so data.size must be a multiple of it; got {image_size}."
        )
    if (config.in_channels, config.out_channels) != (3, 3):
        raise ConfigError(
            f"model.source must be a VAE of images with 3 channels; this one takes {config.in_channels} and draws "
            f"{config.out_channels}."
        )
    return image_size // reduction
