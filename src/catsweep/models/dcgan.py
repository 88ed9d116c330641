"""The DCGAN (Radford et al. 2015, arXiv:1511.06434) with today's remedies, each one an option.

Averaged generator weights (Yazıcı et al. 2018), discriminators to choose from (`catsweep.models.discriminator`), R1
(Mescheder et al. 2018) every few steps (Karras et al. 2020, "lazy"), DiffAugment (Zhao et al. 2020), a learning rate
for each side (Heusel et al. 2017). Named by `conf/model/dcgan.yaml`, trained by Lightning.
"""  # noqa: RUF002  # a name with dotless i's

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.nn.utils import parametrize

from catsweep.errors import ConfigError
from catsweep.images import to_float
from catsweep.losses.adversarial import AdversarialLoss, interpolated_gradient_penalty, r1_penalty
from catsweep.models import optimization
from catsweep.models.blocks import Activation, ConvArchitecture, Decoder, Normalization, check_batch, initialize
from catsweep.models.discriminator import Discriminator, PlainDiscriminator
from catsweep.models.optimization import EpochMeans, MovingAverage, OptimizerFactory, Schedule


class DCGAN(EpochMeans):
    """A deep convolutional GAN; elsewhere a `catsweep.models.generator.Generator`."""

    def __init__(
        self,
        latent_size: int,  # numbers that an image is drawn from
        adversarial_loss: AdversarialLoss,
        optimizer: OptimizerFactory,  # for both networks
        schedule: Schedule,  # multiplier of both learning rates
        generator_lr: float,
        discriminator_lr: float,  # its learning rate
        ema_decay: float,  # of the averaged generator, per step, in [0, 1); 0 turns the average off
        r1_gamma: float,  # weight of R1, half of it times E‖∇D(x)‖²; 0 turns it off
        r1_every: int,  # steps between two R1 penalties, each then weighted that much more
        augment: nn.Module,  # of all that the discriminator sees, (N, 3, H, W) in [0, 1] to the same
        discriminator: Discriminator | None = None,  # None: a plain one, by the next three (older runs)
        discriminator_normalization: Normalization | None = None,  # None: as the generator's
        discriminator_activation: Activation | None = None,  # None: leaky, with a slope of 0.2
        spectral_norm: bool = False,
        **architecture: Any,  # of the generator, the fields of `ConvArchitecture`
    ):
        super().__init__()
        self.automatic_optimization = False
        network = ConvArchitecture(**architecture)
        self.image_size, self.latent_size = network.image_size, latent_size
        self.generator = Decoder(network, latent_size).apply(initialize)
        self.discriminator = discriminator or PlainDiscriminator(
            network.factory("down"),
            spectral_norm,
            **{key: architecture[key] for key in ("image_size", "halvings", "channels", "max_channels")},
            normalization=discriminator_normalization or network.normalization,
            activation=discriminator_activation or partial(nn.LeakyReLU, 0.2),
        )
        self.averaged = MovingAverage(self.generator, ema_decay) if ema_decay else None
        self.adversarial_loss, self.augment = adversarial_loss, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.generator_lr, self.discriminator_lr = generator_lr, discriminator_lr
        self.r1_gamma, self.r1_every = r1_gamma, r1_every

    check_photos = staticmethod(check_batch)

    @classmethod
    def check_config(cls, cfg: DictConfig) -> None:
        """Raise a `ConfigError` for gradient penalties of a projected discriminator that is normalized over the batch.

        They penalize the slope at single images, taken of the sum of all logits: it is that of each image only if no
        other one's logit depends on it, and what is normalized over the batch has the same sum whatever the images are.
        The plain discriminator is left to the user: both have been offered with it since there is one.
        """
        check_batch(cfg)
        normalization = str(OmegaConf.select(cfg, "model.discriminator.normalization._target_"))
        if "network" not in (cfg.model.get("discriminator") or {}) or "BatchNorm" not in normalization:
            return
        for key, what, remedy in (
            ("loss.adversarial.gradient_penalty", "of the chosen loss", "Choose another loss, such as hinge or bce"),
            ("model.r1_gamma", "R1 (model.r1_gamma)", "Set model.r1_gamma=0"),
        ):
            if OmegaConf.select(cfg, key):
                raise ConfigError(
                    f"The gradient penalty {what} is of single images, and the heads of discriminator=projected are "
                    f"normalized over the batch. {remedy}, or discriminator.normalization._target_=torch.nn.Identity, "
                    "or discriminator=plain."
                )

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`: from the averaged generator if there is one."""
        images: Tensor = (self.averaged or self.generator)(latents)
        return images

    def _see(self, images: Tensor) -> list[Tensor]:
        """Augment images (N, 3, H, W), while training, and compute what the discriminator judges of them."""
        return self.discriminator.see(self.augment(images) if self.training else images)

    def _judge(self, seen: list[Tensor]) -> Tensor:
        """Logits (N, K) in float32."""
        return self.discriminator.judge(seen).float()

    def _penalties(self, real: Tensor, drawn: Tensor) -> Iterator[Tensor]:
        """The gradient penalties of the loss and of R1 at this step, in full precision."""

        def mean_logit(images: Tensor) -> Tensor:
            return self._judge(self._see(images)).mean(1)

        if weight := self.adversarial_loss.gradient_penalty:
            with torch.autocast(self.device.type, enabled=False):
                penalty = weight * interpolated_gradient_penalty(mean_logit, real, drawn)
            yield penalty
        if self.r1_gamma and self._step_index() % self.r1_every == 0:
            with torch.autocast(self.device.type, enabled=False):
                real = real.detach().requires_grad_()
                penalty = self.r1_every * self.r1_gamma / 2 * r1_penalty(real, mean_logit(real))
            yield penalty

    def _step_index(self) -> int:
        # Lightning counts the steps of every optimizer: two a batch here.
        return self.global_step // 2

    def _discriminator_step(self, real: Tensor, drawn: Tensor, seen: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """Step the discriminator by what it has seen of real and of drawn images."""
        with parametrize.cached():  # each layer's spectral norm is estimated once for all of it
            logits = [self._judge([part.detach() for part in parts]) for parts in seen]
            loss = self.adversarial_loss.discriminator(*logits)
            loss = sum(self._penalties(real, drawn), start=loss)
        self._update(0, loss)
        return loss

    def _generator_step(self, seen: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """Step the generator by the present discriminator's logits of the same."""
        self.discriminator.requires_grad_(False)
        try:
            real, drawn = seen
            logits = self._judge(drawn)
            real_logits = self._judge(real) if self.adversarial_loss.needs_real else None
            loss = self.adversarial_loss.generator(real_logits, logits)
            self._update(1, loss)
        finally:
            self.discriminator.requires_grad_(True)
        return loss

    def _update(self, side: int, loss: Tensor) -> None:
        optimization.take_step(self, side, loss)
        self.lr_schedulers()[side].step()  # type: ignore[index]  # Lightning gives a list, for there are two

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        """Step the discriminator, then the generator, on a uint8 batch (N, H, W, 3)."""
        real = to_float(batch)
        latents = torch.randn(len(batch), self.latent_size, device=self.device)
        if self._step_index() == 0:
            self.discriminator.calibrate(optimization.of_first_process(self.trainer, real))
        # One drawing serves both sides, and is seen once: the generator does not change in between.
        drawn = self.generator(latents).float()
        seen = self._see(real), self._see(drawn)
        discriminator_loss = self._discriminator_step(real, drawn.detach(), seen)
        generator_loss = self._generator_step(seen)
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)
        self.note({"train/discriminator_loss": discriminator_loss, "train/generator_loss": generator_loss})

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log the mean logit of held-out photos: far below that of training photos, the discriminator has memorised."""
        logits = self._judge(self._see(to_float(batch)))
        self.log("val/real_logit", logits.mean(), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """Build the discriminator's optimizer, then the generator's; their schedules advance in `training_step`."""
        # In batches: the optimizers count their steps together.
        total = lru_cache(maxsize=1)(partial(optimization.expected_steps, self.trainer))
        sides = ((self.discriminator, self.discriminator_lr), (self.generator, self.generator_lr))
        built = [optimization.build(network, self.optimizer, self.schedule, total, lr) for network, lr in sides]
        return [optimizer for optimizer, _ in built], [schedule for _, schedule in built]
