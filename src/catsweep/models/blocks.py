"""Convolutional encoders and decoders, and the blocks that they stack (Radford et al. 2015, arXiv:1511.06434).

`conf/block/*.yaml` names a family of three factories: `down` halves an image, `up` doubles it, `output` doubles it into
RGB. A new family is three such classes and a YAML. Convolutions before a normalization have no bias, which it would
subtract again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from catsweep.errors import ConfigError

Activation = Callable[[], nn.Module]
Normalization = Callable[[int], nn.Module]  # of a channel count


def initialize(module: nn.Module) -> None:
    """Draw weights from N(0, 0.02²) and normalization scales from N(1, 0.02²) (Radford et al. 2015, section 4).

    >>> bool(nn.Linear(9, 99).apply(initialize).weight.abs().max() < 0.2)
    True
    """
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)


def group_norm(channels: int, group_size: int = 16) -> nn.Module:
    """Group normalization (Wu and He 2018) with groups of about `group_size` channels, for any channel count.

    >>> group_norm(48).num_groups
    3
    """
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
    """Build a convolution, plain or transposed, of a kernel, stride and padding, and the normalization after it.

    >>> convolution(nn.Conv2d, 3, 8, (4, 2, 1), nn.BatchNorm2d)[0].bias is None
    True
    """
    normalized = normalization(channels_out)
    bias = isinstance(normalized, nn.Identity)
    return kind(channels_in, channels_out, *geometry, bias=bias), normalized


class PlainDown(nn.Sequential):
    """Strided 4x4 convolution, normalization, activation: (N, in, H, W) to (N, out, H/2, W/2)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        super().__init__(*convolution(nn.Conv2d, channels_in, channels_out, (4, 2, 1), normalization), activation())


class PlainUp(nn.Sequential):
    """Transposed 4x4 convolution, normalization, activation: (N, in, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        made = convolution(nn.ConvTranspose2d, channels_in, channels_out, (4, 2, 1), normalization)
        super().__init__(*made, activation())


class PlainOutput(nn.Sequential):
    """Transposed 4x4 convolution into RGB: (N, in, H, W) to (N, 3, 2H, 2W), unbounded."""

    def __init__(self, channels_in: int):
        super().__init__(nn.ConvTranspose2d(channels_in, 3, 4, 2, 1))


class _Residual(nn.Module):
    """The activation of a sum of two branches."""

    def __init__(self, main: nn.Module, shortcut: nn.Module, activation: Activation):
        super().__init__()
        self.main, self.shortcut, self.activation = main, shortcut, activation()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.main(x) + self.shortcut(x))
        return result


class ResidualDown(_Residual):
    """A 3x3 and a strided 4x4 convolution beside a pooled 1x1 shortcut: (N, in, H, W) to (N, out, H/2, W/2)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        main = nn.Sequential(
            *convolution(nn.Conv2d, channels_in, channels_out, (3, 1, 1), normalization),
            activation(),
            # A stride here rather than a pooling after it: the same halving for a quarter of the work.
            *convolution(nn.Conv2d, channels_out, channels_out, (4, 2, 1), normalization),
        )
        shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels_in, channels_out, 1))
        super().__init__(main, shortcut, activation)


class ResidualUp(_Residual):
    """Nearest-neighbour doubling, two 3x3 convolutions beside a 1x1 shortcut: (N, in, H, W) to (N, out, 2H, 2W)."""

    def __init__(self, channels_in: int, channels_out: int, normalization: Normalization, activation: Activation):
        main = nn.Sequential(
            nn.Upsample(scale_factor=2),
            *convolution(nn.Conv2d, channels_in, channels_out, (3, 1, 1), normalization),
            activation(),
            *convolution(nn.Conv2d, channels_out, channels_out, (3, 1, 1), normalization),
        )
        # The 1x1 convolution commutes with nearest-neighbour doubling, and costs a quarter before it.
        shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1), nn.Upsample(scale_factor=2))
        super().__init__(main, shortcut, activation)


class ResidualOutput(nn.Sequential):
    """Nearest-neighbour doubling and a 3x3 convolution into RGB: (N, in, H, W) to (N, 3, 2H, 2W), unbounded."""

    def __init__(self, channels_in: int):
        super().__init__(nn.Upsample(scale_factor=2), nn.Conv2d(channels_in, 3, 3, 1, 1))


@dataclass(frozen=True)
class ConvArchitecture:
    """The sizes and parts of a convolutional encoder or decoder; a `ConfigError` if a size is out of range.

    >>> plain = {"down": PlainDown, "up": PlainUp, "output": PlainOutput}
    >>> architecture = ConvArchitecture(64, 4, 32, 512, plain, nn.BatchNorm2d, nn.ReLU)
    >>> architecture.side, architecture.widths
    (4, [32, 64, 128, 256])
    """

    image_size: int  # side of the square images, in pixels; a multiple of 2^halvings
    halvings: int  # number of stages (the depth), at least 1
    channels: int  # of the stage next to the image (the width), at least 1; doubled at each further one
    max_channels: int  # bound of that doubling, at least 1
    block: Mapping[str, Callable[..., nn.Module]]  # factories: `down` for an encoder, `up` and `output` for a decoder
    normalization: Normalization
    activation: Activation

    def __post_init__(self) -> None:
        if self.halvings < 1 or self.image_size % (1 << self.halvings):
            possible = [h for h in range(1, self.image_size.bit_length()) if self.image_size % 2**h == 0]
            depths = f"choose depth.halvings from {possible}, or " if possible else "choose "
            step = 1 << max(1, self.halvings)
            below = self.image_size // step * step
            sizes = [str(size) for size in (below, below + step) if size > 0 and size != self.image_size]
            raise ConfigError(
                f"An image of {self.image_size} pixels cannot be halved {self.halvings} times without a rest; "
                f"{depths}another data.size, as {' or '.join(sizes)} (photos that prepare.py has made ready have "
                "the size that it was given: size=…)."
            )
        if min(self.channels, self.max_channels) < 1:
            raise ConfigError(
                f"width.channels and width.max_channels must be 1 or more; got {self.channels} and {self.max_channels}."
            )

    @property
    def side(self) -> int:
        """Side of the smallest feature map, in cells."""
        return self.image_size >> self.halvings

    @property
    def widths(self) -> list[int]:
        """Channels of each stage, from the image on."""
        return [min(self.channels * 2**stage, self.max_channels) for stage in range(self.halvings)]

    def factory(self, name: str) -> Callable[..., nn.Module]:
        """The factory `down`, `up` or `output`; a `ConfigError` if the family of blocks has none."""
        if name not in self.block:
            raise ConfigError(f"A block needs down, up and output, as conf/block/plain.yaml; got {list(self.block)}.")
        return self.block[name]


def check_batch(cfg: DictConfig, photos: int | None = None) -> None:
    """Refuse batches of one image where a network ends as a single cell, and normalizes it over the batch.

    Mean and deviation are then those of one number per channel, which torch refuses in the first step. A batch has no
    more than the `photos` that there are to train on, once they are known.

    Raises:
        ConfigError: naming the alternatives.

    >>> check_batch(OmegaConf.create({"data": {"batch_size": 1}, "model": {"image_size": 64, "halvings": 4}}))
    """
    size, halvings = cfg.model.get("image_size"), cfg.model.get("halvings")
    normalization = str(OmegaConf.select(cfg, "model.normalization._target_"))
    if type(halvings) is not int or size != 2**halvings or not normalization.endswith("BatchNorm2d"):
        return
    if photos == 1:
        batches, more = "batches of the 1 photo that there is to train on", "Add photos"
    elif cfg.data.batch_size == 1:
        batches, more = "data.batch_size=1", "Set data.batch_size=2 or more"
    else:
        return
    raise ConfigError(
        f"A network that ends as a single cell (data.size={size}, depth.halvings={halvings}) cannot be normalized over "
        f"{batches}. {more}, or normalization=group{f', or depth.halvings={halvings - 1}' if halvings > 1 else ''}."
    )


class Encoder(nn.Module):
    """Halve images (N, 3, H, W) in [0, 1] in stages, then project the last feature map to vectors (N, outputs).

    The first stage is not normalized (Radford et al. 2015, section 3): that would hide an image's brightness.

    >>> architecture = ConvArchitecture(16, 2, 4, 8, {"down": PlainDown}, nn.BatchNorm2d, nn.ReLU)
    >>> Encoder(architecture, outputs=5)(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, architecture: ConvArchitecture, outputs: int):
        super().__init__()
        widths, parts = architecture.widths, (architecture.normalization, architecture.activation)
        down = architecture.factory("down")
        stages = [down(3, widths[0], nn.Identity, architecture.activation)]
        stages += [down(a, b, *parts) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(widths[-1] * architecture.side**2, outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (N, 3, H, W) in [0, 1] to vectors (N, outputs)."""
        # Centred input: the range a tanh generator draws in, and zero-mean for the first convolution.
        result: Tensor = self.head(self.stages(images * 2 - 1).flatten(1))
        return result


class Decoder(nn.Module):
    """Project latents (N, latent_size) to a feature map, then double it in stages into images (N, 3, H, W) in [0, 1].

    It mirrors `Encoder`. The output is not normalized (Radford et al. 2015, section 3).

    >>> architecture = ConvArchitecture(16, 2, 4, 8, {"up": PlainUp, "output": PlainOutput}, nn.BatchNorm2d, nn.ReLU)
    >>> Decoder(architecture, latent_size=6)(torch.randn(2, 6)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(self, architecture: ConvArchitecture, latent_size: int):
        super().__init__()
        widths, parts = architecture.widths[::-1], (architecture.normalization, architecture.activation)
        # A transposed convolution of a 1x1 map is a linear layer that already has the image's layout.
        project = convolution(nn.ConvTranspose2d, latent_size, widths[0], (architecture.side, 1, 0), parts[0])
        self.project = nn.Sequential(*project, architecture.activation())
        stages = [architecture.factory("up")(a, b, *parts) for a, b in pairwise(widths)]
        self.stages = nn.Sequential(*stages, architecture.factory("output")(widths[-1]))

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent_size) to images (N, 3, H, W) in [0, 1]."""
        images: Tensor = self.stages(self.project(latents[:, :, None, None]))
        return torch.tanh(images) * 0.5 + 0.5
