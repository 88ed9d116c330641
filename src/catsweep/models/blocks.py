"""The stages that encoder and decoder are built from: plain (Radford et al. 2015) or residual (He et al. 2015).

`conf/block/*.yaml` names a family of three factories: `down` halves an image, `up` doubles it, `output`
doubles it one last time into RGB. A new family is three such classes and a YAML.
Convolutions that feed a normalisation have no bias of their own: it would be subtracted again. The others have one.
"""

from collections.abc import Callable

from torch import Tensor, nn

Activation = Callable[[], nn.Module]
Normalization = Callable[[int], nn.Module]


def initialize(module: nn.Module) -> None:
    """Weights from N(0, 0.02²), normalisation scales from N(1, 0.02²) (Radford et al. 2015, section 4)."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)


def group_norm(channels: int, group_size: int = 16) -> nn.Module:
    """Group normalisation (Wu and He 2018) with groups of about `group_size` channels, for any channel count."""
    groups = max(1, channels // group_size)
    while channels % groups:
        groups -= 1
    return nn.GroupNorm(groups, channels)


def convolution(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d],
    channels_in: int,
    channels_out: int,
    geometry: tuple[int, int, int],
    normalization: Normalization,
) -> tuple[nn.Module, nn.Module]:
    """A convolution and the normalisation it feeds; biased only if that is the identity.

    Args:
        kind: plain or transposed.
        channels_in: channels before it.
        channels_out: channels after it.
        geometry: kernel, stride, padding.
        normalization: factory, from a channel count.
    """
    normalized = normalization(channels_out)
    bias = isinstance(normalized, nn.Identity)
    return kind(channels_in, channels_out, *geometry, bias=bias), normalized


class PlainDown(nn.Sequential):
    """Strided 4x4 convolution, normalisation, activation: (N, in, H, W) to (N, out, H/2, W/2)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        super().__init__(*convolution(nn.Conv2d, channels_in, channels_out, (4, 2, 1), normalization), activation())


class PlainUp(nn.Sequential):
    """Transposed 4x4 convolution, normalisation, activation: (N, in, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        super().__init__(
            *convolution(nn.ConvTranspose2d, channels_in, channels_out, (4, 2, 1), normalization), activation()
        )


class PlainOutput(nn.Sequential):
    """Transposed 4x4 convolution into RGB: (N, in, H, W) to (N, 3, 2H, 2W), unbounded."""

    def __init__(self, channels_in: int):
        super().__init__(nn.ConvTranspose2d(channels_in, 3, 4, 2, 1))


class ResidualDown(nn.Module):
    """A 3x3 and a strided 4x4 convolution beside an average-pooled 1x1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        super().__init__()
        self.main = nn.Sequential(
            *convolution(nn.Conv2d, channels_in, channels_out, (3, 1, 1), normalization),
            activation(),
            # A stride here rather than a pooling after it: the same halving for a quarter of the work.
            *convolution(nn.Conv2d, channels_out, channels_out, (4, 2, 1), normalization),
        )
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels_in, channels_out, 1))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/2, W/2)."""
        result: Tensor = self.activation(self.main(x) + self.shortcut(x))
        return result


class ResidualUp(nn.Module):
    """Nearest-neighbour doubling, two 3x3 convolutions beside a 1x1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        super().__init__()
        self.main = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *convolution(nn.Conv2d, channels_in, channels_out, (3, 1, 1), normalization),
            activation(),
            *convolution(nn.Conv2d, channels_out, channels_out, (3, 1, 1), normalization),
        )
        # The 1x1 convolution commutes with nearest-neighbour doubling, and costs a quarter before it.
        self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.Upsample(scale_factor=2))
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, 2H, 2W)."""
        result: Tensor = self.activation(self.main(x) + self.shortcut(x))
        return result


class ResidualOutput(nn.Sequential):
    """Nearest-neighbour doubling and a 3x3 convolution into RGB: (N, in, H, W) to (N, 3, 2H, 2W), unbounded."""

    def __init__(self, channels_in: int):
        super().__init__(nn.Upsample(scale_factor=2), nn.Conv2d(channels_in, 3, 3, 1, 1))
