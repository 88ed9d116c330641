"""The convolutional decoder: the VAE's likelihood network and the DCGAN's generator."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from catsweep.models.blocks import Activation, Normalization, convolution
from catsweep.models.encoder import smallest_side, stage_channels


class Decoder(nn.Module):
    """Project a latent to a small feature map, then double it `halvings` times into an image.

    The mirror of `Encoder`: same stages, same channels, in reverse; the arguments mean the same.

    Args:
        image_size: side of the square output, in pixels.
        latent_size: length of the latent.
        halvings: number of doublings (the depth).
        channels: channels of the last stage before RGB (the width).
        max_channels: bound of the doubling of channels towards the latent.
        up: factory of a doubling stage.
        output: factory of the last doubling, into RGB. It has no normalisation (Radford et al. 2015, section 3).
        normalization: factory, from a channel count.
        activation: factory of the activation.

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
        up: Callable[[int, int, Normalization, Activation], nn.Module],
        output: Callable[[int], nn.Module],
        normalization: Normalization,
        activation: Activation,
    ):
        super().__init__()
        side = smallest_side(image_size, halvings)
        widths = stage_channels(halvings, channels, max_channels)[::-1]
        self.project = nn.Sequential(
            # A transposed convolution of a 1x1 map is a linear layer that already has the image's layout.
            *convolution(nn.ConvTranspose2d, latent_size, widths[0], (side, 1, 0), normalization),
            activation(),
        )
        stages = [up(a, b, normalization, activation) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*stages, output(widths[-1]))

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_size) to images (N, 3, H, W) in [0, 1]."""
        images: Tensor = self.stages(self.project(latents[:, :, None, None]))
        return images.tanh() * 0.5 + 0.5
