"""The DCGAN (Radford et al. 2015, arXiv:1511.06434) with today's remedies, each one an option.

Averaged generator weights (Yazıcı et al. 2018), spectral normalisation (Miyato et al. 2018), R1 (Mescheder et al.
2018) every few steps (Karras et al. 2020, "lazy"), DiffAugment (Zhao et al. 2020), a learning rate for each side
(Heusel et al. 2017). Its place in the flow: `training.run` builds it from `conf/model/dcgan.yaml`, Lightning trains
it, and everything after that sees it as a `catsweep.models.protocol.Generator`.
"""  # noqa: RUF002  # a name with dotless i's

from collections.abc import Callable
from functools import partial

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from catsweep.images import to_float
from catsweep.losses.adversarial import AdversarialLoss, interpolated_gradient_penalty, r1_penalty
from catsweep.models.averaging import MovingAverage
from catsweep.models.blocks import Activation, Normalization
from catsweep.models.decoder import Decoder
from catsweep.models.encoder import Encoder
from catsweep.models.epoch_means import EpochMeans
from catsweep.models.optimization import OptimizerFactory, Schedule, build, expected_steps


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02²), normalisation scales from N(1, 0.02²) (Radford et al. 2015, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)


class DCGAN(EpochMeans):
    """Deep convolutional GAN.

    Args:
        image_size: side of the square images, in pixels.
        latent_size: length of the latent.
        halvings: see `Encoder`; both networks have as many stages.
        channels: see `Encoder`.
        max_channels: see `Encoder`.
        block: factories `down`, `up`, `output`, see `catsweep.models.blocks`.
        normalization: of the generator, see `Encoder`.
        discriminator_normalization: of the discriminator.
        activation: of the generator.
        discriminator_activation: of the discriminator; leaky in the paper, so that gradients pass.
        adversarial_loss: see `catsweep.losses.adversarial`.
        optimizer: factory, used for both networks.
        schedule: learning-rate multiplier, for both.
        generator_lr: learning rate of the generator.
        discriminator_lr: learning rate of the discriminator.
        ema_decay: decay of the averaged generator per step, in [0, 1); 0 turns the average off.
        spectral_norm: whether to bound the spectral norm of the discriminator's layers.
        r1_gamma: weight gamma of the R1 penalty, gamma / 2 times E‖∇D(x)‖²; 0 turns it off.
        r1_every: steps between two R1 penalties, each then weighted that much more.
        augment: applied to everything the discriminator sees, (N, 3, H, W) in [0, 1] to the same.

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
        discriminator_normalization: Normalization,
        activation: Activation,
        discriminator_activation: Activation,
        adversarial_loss: AdversarialLoss,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        generator_lr: float,
        discriminator_lr: float,
        ema_decay: float,
        spectral_norm: bool,
        r1_gamma: float,
        r1_every: int,
        augment: nn.Module,
    ):
        super().__init__()
        self.automatic_optimization = False
        self.image_size, self.latent_size = image_size, latent_size
        size = (halvings, channels, max_channels)
        self.generator = Decoder(
            image_size, latent_size, *size, block["up"], block["output"], normalization, activation
        ).apply(initialize)
        self.discriminator = Encoder(
            image_size, 1, *size, block["down"], discriminator_normalization, discriminator_activation
        ).apply(initialize)
        if spectral_norm:
            self._bound_spectral_norm()
        self.averaged = MovingAverage(self.generator, ema_decay) if ema_decay else None
        self.adversarial_loss, self.augment = adversarial_loss, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.generator_lr, self.discriminator_lr = generator_lr, discriminator_lr
        self.r1_gamma, self.r1_every = r1_gamma, r1_every

    def _bound_spectral_norm(self) -> None:
        for module in list(self.discriminator.modules()):
            if isinstance(module, nn.Conv2d | nn.Linear):
                spectral_norm(module)

    def decode(self, latents: Tensor) -> Tensor:
        """See `Generator.decode`: from the averaged generator if there is one."""
        images: Tensor = (self.averaged or self.generator)(latents)
        return images

    def _judge(self, images: Tensor) -> Tensor:
        """Logits (N,) of the discriminator for images (N, 3, H, W) in [0, 1], augmented while training."""
        if self.training:
            images = self.augment(images)
        logits: Tensor = self.discriminator(images)
        return logits.float().squeeze(1)

    def _penalty(self, real: Tensor, drawn: Tensor) -> Tensor:
        """What the loss and R1 add for the discriminator's gradient at this step, in full precision."""
        penalty = real.new_zeros(())
        with torch.autocast(self.device.type, enabled=False):
            if self.adversarial_loss.gradient_penalty:
                weight = self.adversarial_loss.gradient_penalty
                penalty = penalty + weight * interpolated_gradient_penalty(self._judge, real, drawn)
            if self.r1_gamma and self._step_index() % self.r1_every == 0:
                real = real.detach().requires_grad_()
                penalty = penalty + self.r1_every * self.r1_gamma / 2 * r1_penalty(real, self._judge(real))
        return penalty

    def _step_index(self) -> int:
        # Lightning counts the steps of every optimizer: two a batch here.
        return self.global_step // 2

    def _discriminator_step(self, real: Tensor, drawn: Tensor) -> Tensor:
        loss = self.adversarial_loss.discriminator(self._judge(real), self._judge(drawn)) + self._penalty(real, drawn)
        self._update(0, loss)
        return loss

    def _generator_step(self, real: Tensor, drawn: Tensor) -> Tensor:
        self.discriminator.requires_grad_(False)
        try:
            logits = self._judge(drawn)
            real_logits = self._judge(real) if self.adversarial_loss.needs_real else None
            loss = self.adversarial_loss.generator(real_logits, logits)
            self._update(1, loss)
        finally:
            self.discriminator.requires_grad_(True)
        return loss

    def _update(self, side: int, loss: Tensor) -> None:
        optimizer = self.optimizers()[side]  # type: ignore[index]  # Lightning gives a list, for there are two
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.lr_schedulers()[side].step()  # type: ignore[index]  # a list, too

    def training_step(self, batch: Tensor, batch_index: int) -> None:
        """One step of the discriminator and one of the generator on a uint8 batch (N, H, W, 3)."""
        real = to_float(batch)
        latents = torch.randn(len(batch), self.latent_size, device=self.device)
        # One drawing serves both sides: the generator does not change in between.
        drawn = self.generator(latents).float()
        discriminator_loss = self._discriminator_step(real, drawn.detach())
        generator_loss = self._generator_step(real, drawn)
        if self.averaged is not None:
            self.averaged.update_parameters(self.generator)
        self.note({"train/discriminator_loss": discriminator_loss, "train/generator_loss": generator_loss})

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        """Log what the discriminator thinks of held-out photos: far below the training photos, it has memorised."""
        self.log("val/real_logit", self._judge(to_float(batch)).mean(), batch_size=len(batch), sync_dist=True)

    def configure_optimizers(self) -> pl.utilities.types.OptimizerLRScheduler:
        """The discriminator's optimizer, then the generator's; their schedules advance in `training_step`."""
        total = partial(expected_steps, self.trainer)  # counts batches, which is what each of the two steps over
        sides = ((self.discriminator, self.discriminator_lr), (self.generator, self.generator_lr))
        built = [build(network, self.optimizer, self.schedule, total, lr) for network, lr in sides]
        return [optimizer for optimizer, _ in built], [schedule for _, schedule in built]
