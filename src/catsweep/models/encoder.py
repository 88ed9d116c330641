"""The convolutional encoder: the VAE's recognition network and the DCGAN's discriminator."""

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from catsweep.errors import ConfigError
from catsweep.models.blocks import Activation, Normalization


def stage_channels(halvings: int, channels: int, max_channels: int) -> list[int]:
    """Channels after each halving: `channels` doubled at every stage, at most `max_channels`."""
    return [min(channels * 2**stage, max_channels) for stage in range(halvings)]


def _sizes(image_size: int, halvings: int) -> str:
    """Sizes next to one that can be halved so often, or at all."""
    step = 1 << max(1, halvings)
    below = image_size // step * step
    return " or ".join(str(size) for size in (below, below + step) if size > 0 and size != image_size)


def smallest_side(image_size: int, halvings: int) -> int:
    """Side of the feature map after all halvings, in cells.

    Raises:
        ConfigError: the image cannot be halved that often.
    """
    if halvings < 1 or image_size % (1 << halvings):
        possible = [h for h in range(1, image_size.bit_length()) if image_size % 2**h == 0]
        depths = f"choose depth.halvings from {possible}, or " if possible else "choose "
        raise ConfigError(
            f"An image of {image_size} pixels cannot be halved {halvings} times without a rest; "
            f"{depths}another data.size, as {_sizes(image_size, halvings)} (photos that prepare.py has made ready have "
            "the size that it was given: size=…)."
        )
    return image_size >> halvings


class Encoder(nn.Module):
    """Halve an image `halvings` times, then project the last feature map to a vector.

    Args:
        image_size: side of the square input, in pixels.
        outputs: length of the vector.
        halvings: number of stages (the depth).
        channels: channels of the first stage (the width), doubled at each later one.
        max_channels: bound of that doubling.
        down: factory of a halving stage.
        normalization: factory, from a channel count. The first stage has none (Radford et al. 2015, section 3):
            normalising at the image would hide its brightness from the network.
        activation: factory of the activation.

    Raises:
        ConfigError: `image_size` cannot be halved that often.
    """

    def __init__(
        self,
        image_size: int,
        outputs: int,
        halvings: int,
        channels: int,
        max_channels: int,
        down: Callable[[int, int, Normalization, Activation], nn.Module],
        normalization: Normalization,
        activation: Activation,
    ):
        super().__init__()
        side = smallest_side(image_size, halvings)
        widths = stage_channels(halvings, channels, max_channels)
        stages = [down(3, widths[0], nn.Identity, activation)]
        stages += [down(a, b, normalization, activation) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1] * side * side, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to vectors (N, outputs)."""
        # Centred input: the range a tanh generator draws in, and zero-mean for the first convolution.
        result: Tensor = self.head(self.stages(images * 2 - 1).flatten(1))
        return result
