"""The DCGAN (Radford et al. 2015, arXiv:1511.06434) with today's remedies, each one an option.

Averaged generator weights (Yazıcı et al. 2018), discriminators to choose from (`catsweep.models.discriminator`), R1
(Mescheder et al. 2018) every few steps (Karras et al. 2020, "lazy"), DiffAugment (Zhao et al. 2020), a learning rate
for each side (Heusel et al. 2017). Its place in the flow: `training.run` builds it from `conf/model/dcgan.yaml`,
Lightning trains it, and everything after that sees it as a `catsweep.models.protocol.Generator`.
"""  # noqa: RUF002  # a name with dotless i's

from collections.abc import Callable, Iterator
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from catsweep.images import to_float
from catsweep.losses.adversarial import AdversarialLoss, interpolated_gradient_penalty, r1_penalty
from catsweep.models.averaging import MovingAverage
from catsweep.models.blocks import Activation, Normalization, initialize
from catsweep.models.decoder import Decoder
from catsweep.models.discriminator import Discriminator, PlainDiscriminator
from catsweep.models.epoch_means import EpochMeans
from catsweep.models.optimization import (
    OptimizerFactory,
    Schedule,
    build,
    expected_steps,
    of_first_process,
    once_a_step,
    take_step,
)


class DCGAN(EpochMeans):
    """Deep convolutional GAN.

    Args:
        image_size: side of the square images, in pixels.
        latent_size: length of the latent.
        halvings: of the generator, see `Encoder`.
        channels: of the generator, see `Encoder`.
        max_channels: of the generator, see `Encoder`.
        block: factories `down`, `up`, `output`, see `catsweep.models.blocks`.
        normalization: of the generator, see `Encoder`.
        activation: of the generator.
        adversarial_loss: see `catsweep.losses.adversarial`.
        optimizer: factory, used for both networks.
        schedule: learning-rate multiplier, for both.
        generator_lr: learning rate of the generator.
        discriminator_lr: learning rate of the discriminator.
        ema_decay: decay of the averaged generator per step, in [0, 1); 0 turns the average off.
        r1_gamma: weight gamma of the R1 penalty, gamma / 2 times E‖∇D(x)‖²; 0 turns it off.
        r1_every: steps between two R1 penalties, each then weighted that much more.
        augment: applied to everything the discriminator sees, (N, 3, H, W) in [0, 1] to the same.
        discriminator: None: a `PlainDiscriminator` with as many stages as the generator and the three arguments that
            follow, which configurations had before there were others.
        discriminator_normalization: of that one; None: as the generator's.
        discriminator_activation: of that one; None: leaky, with a slope of 0.2.
        spectral_norm: of that one.

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
        block: dict[str, Callable[..., nn.Module]],
        normalization: Normalization,
        activation: Activation,
        adversarial_loss: AdversarialLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        generator_lr: float,
        discriminator_lr: float,
        ema_decay: float,
        r1_gamma: float,
        r1_every: int,
        augment: nn.Module,
        discriminator: Discriminator | None = None,
        discriminator_normalization: Normalization | None = None,
        discriminator_activation: Activation | None = None,
        spectral_norm: bool = False,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.image_size, self.latent_size = image_size, latent_size
        size = (halvings, channels, max_channels)
        self.generator = Decoder(
            image_size, latent_size, *size, block["up"], block["output"], normalization, activation
        ).apply(initialize)
        self.discriminator = discriminator or PlainDiscriminator(
            image_size,
            *size,
            block["down"],
            discriminator_normalization or normalization,
            discriminator_activation or partial(nn.LeakyReLU, 0.2),
            spectral_norm,
        )
        self.averaged = MovingAverage(self.generator, ema_decay) if ema_decay else None
        self.adversarial_loss, self.augment = adversarial_loss, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.generator_lr, self.discriminator_lr = generator_lr, discriminator_lr
        self.r1_gamma, self.r1_every = r1_gamma, r1_every

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`: from the averaged generator if there is one."""
        images: Tensor = (self.averaged or self.generator)(latents)
        return images

    def _see(self, images: Tensor) -> list[Tensor]:
        """What the discriminator is to judge of images (N, 3, H, W) in [0, 1], augmented while training."""
        return self.discriminator.see(self.augment(images) if self.training else images)

    def _judge(self, seen: list[Tensor]) -> Tensor:
        """Logits (N, K) in float32."""
        return self.discriminator.judge(seen).float()

    def _penalties(self, real: Tensor, drawn: Tensor) -> Iterator[Tensor]:
        """What the loss and R1 add for the discriminator's gradient at this step, in full precision."""

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
        """Train the discriminator by what it has seen of real and of drawn images."""
        with parametrize.cached():  # each layer's spectral norm is estimated once for all of it
            logits = [self._judge([part.detach() for part in parts]) for parts in seen]
            loss = self.adversarial_loss.discriminator(*logits)
            loss = sum(self._penalties(real, drawn), start=loss)
        self._update(0, loss)
        return loss

    def _generator_step(self, seen: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """Train the generator by what the discriminator, as it is now, thinks of the same."""
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
        take_step(self, side, loss)
        self.lr_schedulers()[side].step()  # type: ignore[index]  # Lightning gives a list, for there are two

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        """One step of the discriminator and one of the generator on a uint8 batch (N, H, W, 3)."""
        real = to_float(batch)
        latents = torch.randn(len(batch), self.latent_size, device=self.device)
        if self._step_index() == 0:
            self.discriminator.calibrate(of_first_process(self.trainer, real))
        # One drawing serves both sides, and is seen once: the generator does not change in between.
        drawn = self.generator(latents).float()
        seen = self._see(real), self._see(drawn)
        discriminator_loss = self._discriminator_step(real, drawn.detach(), seen)
        generator_loss = self._generator_step(seen)
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)
        self.note({"train/discriminator_loss": discriminator_loss, "train/generator_loss": generator_loss})

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log what the discriminator thinks of held-out photos: far below the training photos, it has memorised."""
        logits = self._judge(self._see(to_float(batch)))
        self.log("val/real_logit", logits.mean(), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """The discriminator's optimizer, then the generator's; their schedules advance in `training_step`."""
        total = once_a_step(
            partial(expected_steps, self.trainer)
        )  # counts batches, which is what each of the two steps over
        sides = ((self.discriminator, self.discriminator_lr), (self.generator, self.generator_lr))
        built = [build(network, self.optimizer, self.schedule, total, lr) for network, lr in sides]
        return [optimizer for optimizer, _ in built], [schedule for _, schedule in built]
