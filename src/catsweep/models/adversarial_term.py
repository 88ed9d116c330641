"""The adversarial term of a VAE-GAN (Larsen et al. 2016, arXiv:1512.09300): what a discriminator adds to a VAE.

A pixelwise loss rewards blur where a latent leaves the details open, and a VAE's decoder never sees draws from the
prior while it trains. Here a discriminator judges such draws, and its features of a photo and of its reconstruction may
also be compared (the paper's learned similarity). By algorithm 1 of the paper the encoder learns from the
reconstructions and the divergence alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from catsweep.errors import ConfigError
from catsweep.losses.adversarial import AdversarialLoss
from catsweep.models.discriminator import Discriminator
from catsweep.models.optimization import OptimizerFactory

_TINY = 1e-12  # of the norm of a gradient, which is above 1e-4


class AdversarialTerm(nn.Module):
    """A discriminator with its loss, optimizer, augmentation and weight."""

    def __init__(
        self,
        discriminator: Callable[[], Discriminator],  # not called if `weight` is 0
        loss: AdversarialLoss,  # of the discriminator and of the decoder; one with a gradient penalty is a ConfigError
        optimizer: OptimizerFactory,  # of the discriminator
        augment: nn.Module,  # of all that the discriminator sees, (N, 3, H, W) in [0, 1] to the same
        weight: float,  # length of the adversarial gradient, in units of the reconstruction's; 0: no discriminator
        start: float,  # share of the run, in [0, 1], before which the discriminator and its gradient rest
        similarity: float,  # share, in [0, 1], of the reconstruction loss that compares what the discriminator sees
    ):
        super().__init__()
        if loss.gradient_penalty:
            raise ConfigError(
                f"A VAE's adversarial term takes no gradient penalty, without which {type(loss).__name__} "
                "learns nothing. Choose another model.adversarial.loss, for example catsweep.losses.adversarial.Hinge."
            )
        self.discriminator = discriminator() if weight else Discriminator()
        self.loss, self.optimizer, self.augment = loss, optimizer, augment
        self.weight, self.start, self.similarity = weight, start, similarity

    def step(
        self,
        photos: Tensor,  # (N, 3, H, W) in [0, 1]
        drawn: Tensor,  # their reconstructions, and then any number of draws from the prior; none before `start`
        reconstruction_loss: Callable[[Tensor, Tensor], Tensor],  # (drawn, real) to a scalar
        learn: Callable[[Tensor], None],  # one step of the discriminator down a loss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Step the discriminator by the draws, and compute the gradient of the loss with respect to `drawn`.

        Also returns the scalars `reconstruction`, `discriminator_loss` and `generator_loss`.
        """
        n, images = len(photos), drawn.detach().requires_grad_()
        seen_photos, seen = self._see(photos, images)
        seen_draws = [maps[n:] for maps in seen]
        reconstruction = (1 - self.similarity) * reconstruction_loss(images[:n], photos)
        if self.similarity:
            reconstruction = reconstruction + self.similarity * dissimilarity(
                [m[:n] for m in seen], seen_photos, photos
            )
        values = {"reconstruction": reconstruction}
        if len(drawn) == n:
            nothing = photos.new_zeros(())
            values |= {"discriminator_loss": nothing, "generator_loss": nothing}
            (gradient,) = torch.autograd.grad(reconstruction, images)
            return gradient, values
        judge = self.discriminator.judge
        with parametrize.cached():  # each layer's spectral norm is estimated once for both
            logits = judge(seen_photos), judge([maps.detach() for maps in seen_draws])
            values["discriminator_loss"] = self.loss.discriminator(*logits)
        learn(values["discriminator_loss"])
        real = judge(seen_photos) if self.loss.needs_real else None
        values["generator_loss"] = self.loss.generator(real, judge(seen_draws))
        # One pass back for both: reconstructions and draws are images of their own.
        (gradient,) = torch.autograd.grad(reconstruction + values["generator_loss"], images)
        # Esser et al. 2021 (arXiv:2012.09841, equation 7) compare at the last layer, for two more passes back.
        lengths = [part.norm() for part in (gradient[:n], gradient[n:])]
        gradient[n:] *= self.weight * lengths[0] / (lengths[1] + _TINY)
        return gradient, values

    def _see(self, photos: Tensor, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute what the discriminator sees of photos, and of reconstructions and draws, each once."""
        n = len(photos)
        # The random state is restored: the reconstructions are augmented as the photos are, so that both compare.
        with torch.random.fork_rng([photos.device] if photos.device.type == "cuda" else []):
            augmented = self.augment(photos)
        parts = [self.augment(images[:n])]
        if len(images) > n:
            parts.append(self.augment(images[n:]))
        with torch.no_grad():
            seen_photos = self.discriminator.see(augmented)
        return seen_photos, self.discriminator.see(torch.cat(parts))


def dissimilarity(seen: list[Tensor], wanted: list[Tensor], photos: Tensor) -> Tensor:
    """Compute the squared error in what a discriminator sees, averaged over its levels, in the unit of `mse`.

    Each level's error counts as a share of that level's variance over the photos (N, 3, H, W), times the variance of
    their pixels: for a discriminator that sees the pixels themselves, it is `mse`. Returns a scalar per image.

    >>> photos = torch.rand(2, 3, 8, 8)
    >>> dissimilarity([photos], [photos], photos)
    tensor(0.)
    """
    errors = [
        (a.float() - b.float()).square().mean() / (b.float().var() + _TINY) for a, b in zip(seen, wanted, strict=True)
    ]
    return torch.stack(errors).mean() * photos.var() * photos[0].numel()
