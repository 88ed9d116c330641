"""Discriminators: networks that tell real images from drawn ones, for a `DCGAN` or against a `VAE`.

`conf/discriminator/*.yaml` names one of these classes; a model hands it every batch, real and drawn, once a step:

    seen = discriminator.see(images)                       # the frozen, expensive part, if there is one
    logits = discriminator.judge([s.detach() for s in seen])   # for the discriminator's own loss
    logits = discriminator.judge(seen)                     # for the generator's, whose gradient goes to the images
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as bound_spectral_norm

from catsweep.errors import ConfigError
from catsweep.losses.frozen_features import NETWORKS, FrozenFeatures, require_known
from catsweep.models.blocks import Activation, ConvArchitecture, Encoder, Normalization, convolution, initialize

SMALLEST_MAP = 4  # side in cells; of a smaller one a head would see nothing but padding


class Discriminator(nn.Module):
    """The base class of discriminators; one of your own derives from it and is named by `_target_`."""

    def see(self, images: Tensor) -> list[Tensor]:
        """Compute what is judged of images (N, 3, H, W) in [0, 1], by nothing that is trained: tensors of N rows each.

        Gradients go through it to the images.
        """
        return [images]

    def judge(self, seen: list[Tensor]) -> Tensor:
        """Compute logits (N, K), K ≥ 1, of what `see` returned; the higher, the more real."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, K) of images (N, 3, H, W) in [0, 1]."""
        return self.judge(self.see(images))

    def calibrate(self, images: Tensor) -> None:
        """Fit constants, kept as buffers, to real images (N, 3, H, W) in [0, 1], once, before the first step."""


class PlainDiscriminator(Discriminator, Encoder):
    """An encoder with one output, the DCGAN's own discriminator (Radford et al. 2015).

    Takes a factory of a halving stage and the other fields of `ConvArchitecture`; with `spectral_norm` the spectral
    norm of all layers is bounded (Miyato et al. 2018, arXiv:1802.05957). In the paper the activation is leaky.
    """

    def __init__(
        self,
        down: Callable[..., nn.Module],
        spectral_norm: bool = False,  # whether to bound that of all layers
        **architecture: Any,
    ):
        super().__init__(ConvArchitecture(block={"down": down}, **architecture), 1)
        self.apply(initialize)
        if spectral_norm:
            _bound(self)

    def judge(self, seen: list[Tensor]) -> Tensor:
        """Compute one logit for each image: (N, 1)."""
        return Encoder.forward(self, *seen)


class ProjectedDiscriminator(Discriminator):
    """Small discriminators of a frozen network's features, mixed at random (Sauer et al. 2021, arXiv:2111.01007).

    Each depth's features pass a frozen random 1 x 1 convolution, which leaves the discriminator no few channels to rely
    on, scaled so that real images have unit deviation. Its head halves the map until it is smaller than `SMALLEST_MAP`
    and ends in a map of logits. The heads are all there is to learn: cats on one thread, in minutes.

    >>> parts = {"normalization": nn.BatchNorm2d, "activation": nn.LeakyReLU}
    >>> made = ProjectedDiscriminator(64, "efficientnet_lite1", [2, 4, 8, 16], channels=8, head_channels=8, **parts)
    >>> len(made.heads)
    4
    """

    def __init__(
        self,
        image_size: int,  # side of the square images, in pixels
        network: str,  # frozen, of `catsweep.losses.frozen_features`; not the metric's
        strides: Sequence[int],  # the depths, by the pixels per cell of their maps; too small maps are left out
        channels: int,  # of the random mixtures; half of them at stride 2
        head_channels: int,  # of the heads; half of them at stride 2
        normalization: Normalization,
        activation: Activation,
        spectral_norm: bool = True,  # whether to bound that of the heads' layers
        min_side: int | None = None,  # pixels to which smaller images are enlarged for the network; None: none are
        pixels: bool = True,  # whether the pixels of each cell join the features of the first depth
    ):
        super().__init__()
        require_known(network, "discriminator.network")
        self.network, self.side = network, max(image_size, min_side or 0)
        known = NETWORKS[network].strides
        sides = {stride: self.side // stride for stride in known if stride in strides}
        self.depths = [known.index(stride) for stride, side in sides.items() if side >= SMALLEST_MAP]
        if not self.depths or set(strides) - set(known):
            raise ConfigError(
                f"discriminator.strides must be some of {list(known)}, with a map of {SMALLEST_MAP} x {SMALLEST_MAP} "
                f"or more for at least one; got {list(strides)} for images of {self.side} pixels. Enlarge those with "
                "min_side=96."
            )
        # A network that begins with a stride of 2 cannot see the hatch that transposed convolutions leave; pixels do.
        self.pixels_per_cell = known[self.depths[0]] if pixels else 0
        projections, heads = [], []
        for depth in self.depths:
            # 16 features to mix, in four times as many places as at the next depth: half leaves it more of the time.
            narrow = 2 if known[depth] == 2 else 1
            mixed, width = max(1, channels // narrow), max(1, head_channels // narrow)
            features = NETWORKS[network].channels[depth]
            if depth == self.depths[0]:
                features += 3 * self.pixels_per_cell**2
            projections.append(_Projection(features, mixed))
            heads.append(_head(sides[known[depth]], mixed, width, normalization, activation))
        self.projections = nn.ModuleList(projections)
        self.heads = nn.ModuleList(heads).apply(initialize)
        if spectral_norm:
            _bound(self.heads)

    def see(self, images: Tensor) -> list[Tensor]:
        """Compute projected features of each depth, (N, channels, h, w), of images (N, 3, H, W)."""
        if images.shape[-1] < self.side:
            images = F.interpolate(images, (self.side, self.side), mode="bilinear", align_corners=False)
        # Not a part of this module: it has no place in checkpoints.
        every = FrozenFeatures.of(self.network, images.device)(images, self.depths[-1] + 1)
        maps = [every[depth] for depth in self.depths]
        if self.pixels_per_cell:
            side = maps[0].shape[-1] * self.pixels_per_cell  # less than the image's where cells do not divide it
            pixels = F.pixel_unshuffle(2 * images[..., :side, :side] - 1, self.pixels_per_cell)
            maps[0] = torch.cat([maps[0], pixels], dim=1)
        return [project(one) for one, project in zip(maps, self.projections, strict=True)]

    def judge(self, seen: list[Tensor]) -> Tensor:
        """Compute the logits of all maps of all depths: (N, K)."""
        return torch.cat([head(maps).flatten(1) for head, maps in zip(self.heads, seen, strict=True)], dim=1)

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Scale the projections so that each depth has unit deviation over these images."""
        with torch.autocast(images.device.type, enabled=False):
            for projection, maps in zip(self.projections, self.see(images), strict=True):
                assert isinstance(projection, _Projection)
                projection.weight /= maps.std()


class _Projection(nn.Module):
    """A random 1 x 1 convolution, frozen: buffers have no gradient, and `requires_grad_` leaves them alone."""

    weight: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        # As variance-preserving as it can be before anything was measured (He et al. 2015, without the rectifier).
        self.register_buffer("weight", torch.randn(channels_out, channels_in, 1, 1) / channels_in**0.5)

    def forward(self, maps: Tensor) -> Tensor:
        return F.conv2d(maps, self.weight)


def _head(side: int, channels: int, width: int, normalization: Normalization, activation: Activation) -> nn.Sequential:
    """Strided convolutions from a map of this side to one of less than `SMALLEST_MAP`, and logits of what is left."""
    layers: list[nn.Module] = []
    while side >= SMALLEST_MAP:
        layers += [*convolution(nn.Conv2d, channels, width, (4, 2, 1), normalization), activation()]
        channels, side = width, side // 2
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))


def _bound(network: nn.Module) -> None:
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            bound_spectral_norm(module)
