"""Adversarial losses of a discriminator and a generator, and gradient penalties.

`conf/loss/<name>.yaml` names one of these classes under `adversarial:`. They take raw logits, N or N x K, never through
a sigmoid, raise them to float32, and return a mean over the batch and over the K logits of each image, a scalar.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from catsweep.errors import ConfigError


@dataclass(frozen=True)
class AdversarialLoss(ABC):
    """The base class of adversarial losses; one of your own derives from it and is named by `_target_`.

    >>> issubclass(Hinge, AdversarialLoss), Hinge().gradient_penalty, Hinge().needs_real
    (True, 0.0, False)
    """

    gradient_penalty: float = 0.0  # weight of `interpolated_gradient_penalty` in the discriminator's loss; 0: none
    needs_real: ClassVar[bool] = False  # whether the generator's loss needs the discriminator's logits of real images

    @abstractmethod
    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """Compute the discriminator's loss from its logits of real and of generated images."""

    @abstractmethod
    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """Compute the generator's loss; `real_logits` may be None unless `needs_real`."""


class BinaryCrossEntropy(AdversarialLoss):
    """Goodfellow et al. 2014 with the non-saturating generator (section 3), in the softplus form.

    >>> BinaryCrossEntropy().generator(None, torch.zeros(4))
    tensor(0.6931)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log D(x) - log(1 - D(G(z))), in nats; 2 log 2 where it cannot tell them apart."""
        return F.softplus(-_wide(real_logits)).mean() + F.softplus(_wide(fake_logits)).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-log D(G(z)), in nats."""
        return F.softplus(-_wide(fake_logits)).mean()


class Hinge(AdversarialLoss):
    """Hinge loss: Lim & Ye 2017, Miyato et al. 2018 (equations 16, 17).

    >>> Hinge().discriminator(torch.tensor([2.0]), torch.tensor([0.5]))
    tensor(1.5000)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """max(0, 1 - D(x)) + max(0, 1 + D(G(z)))."""
        return F.relu(1 - _wide(real_logits)).mean() + F.relu(1 + _wide(fake_logits)).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-D(G(z)); it has no lower bound."""
        return -_wide(fake_logits).mean()


class LeastSquares(AdversarialLoss):
    """LSGAN, Mao et al. 2017, equation 9: real towards 1, generated towards 0, the generator's towards 1.

    >>> LeastSquares().discriminator(torch.tensor([1.0]), torch.tensor([1.0]))
    tensor(0.5000)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """((D(x) - 1)^2 + D(G(z))^2) / 2."""
        return 0.5 * ((_wide(real_logits) - 1).square().mean() + _wide(fake_logits).square().mean())

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """(D(G(z)) - 1)^2 / 2."""
        return 0.5 * (_wide(fake_logits) - 1).square().mean()


@dataclass(frozen=True)
class WassersteinGradientPenalty(AdversarialLoss):
    """WGAN-GP, Gulrajani et al. 2017: a critic whose slope the gradient penalty holds at 1.

    The penalty is per image, so the critic must not mix the images of a batch (no batch normalization in it); the paper
    trains it five times per generator step with Adam betas (0, 0.9).

    >>> WassersteinGradientPenalty().discriminator(torch.tensor([3.0]), torch.tensor([1.0]))
    tensor(-2.)
    """

    gradient_penalty: float = 10.0

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """D(G(z)) - D(x): minus the estimate of the Wasserstein distance; the penalty is the caller's to add."""
        return _wide(fake_logits).mean() - _wide(real_logits).mean()

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        """-D(G(z)); it has no lower bound."""
        return -_wide(fake_logits).mean()


class _Relativistic(AdversarialLoss):
    """A loss that compares real with generated images, for the generator with the two exchanged."""

    needs_real: ClassVar[bool] = True

    def generator(self, real_logits: Tensor | None, fake_logits: Tensor) -> Tensor:
        if real_logits is None:
            raise ConfigError(
                "The relativistic generator loss compares with real images, but got no real_logits. "
                "Pass the discriminator's logits of real images whenever `needs_real` is set."
            )
        return self.discriminator(fake_logits, real_logits)


class RelativisticAverage(_Relativistic):
    """RaSGAN, Jolicoeur-Martineau 2018, section 4.2: each logit against the mean of the other kind's.

    The standard (cross-entropy) form, not RaLSGAN. The averages are over the batch, for each of the K logits its own;
    under DDP each process has its own.

    >>> RelativisticAverage().discriminator(torch.zeros(4), torch.zeros(4))
    tensor(1.3863)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log s(D(x) - mean D(G(z))) - log(1 - s(D(G(z)) - mean D(x))), s the sigmoid, in nats."""
        real, fake = _wide(real_logits), _wide(fake_logits)
        return F.softplus(fake.mean(0) - real).mean() + F.softplus(fake - real.mean(0)).mean()


class RelativisticPairs(_Relativistic):
    """RpGAN, Jolicoeur-Martineau 2018: the logit of each photo against that of the drawn image beside it in the batch.

    R3GAN's loss (Huang et al. 2024, arXiv:2501.05441), there with R1 and R2. Each of the K logits has its own pairs.

    >>> RelativisticPairs().generator(torch.zeros(4), torch.zeros(4))
    tensor(0.6931)
    """

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        """-log s(D(x) - D(G(z))), s the sigmoid, in nats; log 2 where it cannot tell them apart."""
        return F.softplus(_wide(fake_logits) - _wide(real_logits)).mean()


def r1_penalty(real_images: Tensor, real_logits: Tensor) -> Tensor:
    """Compute the mean squared norm of the discriminator's gradient at real images: E ||grad D(x)||^2, float32.

    Mescheder et al. 2018, equation 9, is R1 = gamma / 2 times this. `real_images` (N x C x H x W) must have required a
    gradient before the discriminator saw them; `real_logits` are its output, with its graph.

    >>> images = torch.zeros(2, 1, 2, 2, requires_grad=True)
    >>> r1_penalty(images, images.sum((1, 2, 3))).item()
    4.0
    """
    return _squared_gradient_norms(real_images, real_logits).mean()


def interpolated_gradient_penalty(discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Compute a penalty on slopes other than 1 between real and generated images: E (||grad D(x')|| - 1)^2, float32.

    Gulrajani et al. 2017, equation 3, without its weight. `real` and `fake` are N x C x H x W, of one shape (else a
    ConfigError); the mixing weights, one per image, are drawn by torch's global generator.

    >>> images = torch.zeros(2, 1, 2, 2)
    >>> round(interpolated_gradient_penalty(lambda x: x.sum((1, 2, 3)), images, images).item(), 4)
    1.0
    """
    if real.shape != fake.shape:
        raise ConfigError(
            f"The gradient penalty mixes real and generated images one to one, but they are {tuple(real.shape)} and "
            f"{tuple(fake.shape)}. Generate as many images, and as large, as the real batch has."
        )
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    mixed = torch.lerp(fake.detach().to(real.dtype), real.detach(), share).requires_grad_()
    with torch.enable_grad():
        squared = _squared_gradient_norms(mixed, discriminator(mixed))
    # The tiny offset keeps the square root's own gradient finite where the discriminator is flat.
    return ((squared + 1e-12).sqrt() - 1).square().mean()


def _squared_gradient_norms(images: Tensor, logits: Tensor) -> Tensor:
    """Squared Euclidean norm of d logit / d image for every image of the batch, with a graph: N values, float32."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return _wide(gradient).square().flatten(1).sum(dim=1)


def _wide(values: Tensor) -> Tensor:
    """Raise half precision to float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
