"""A perceptual reconstruction loss, of a network's features and of pixels: `loss=perceptual`.

After LPIPS (Zhang et al. 2018, arXiv:1801.03924): feature maps of several depths, of unit length at each place, and
their squared difference; here without weights that were learned from people. Contract and currency are those of
`catsweep.losses.reconstruction`.

**The network is not the metric's**, see `catsweep.losses.frozen_features`, but a sibling of it. Compare the FID of a
run with this loss with that of another loss with care: look at the images, or score both with `metrics=inception`.
Samples and reconstructions have eyes, ears and fur where those of `l1_ssim` are blots (measured: docs/decisions.md).
"""

import torch
from torch import Tensor

from catsweep.losses.frozen_features import FrozenFeatures, require_known
from catsweep.losses.reconstruction import l1

_EPSILON = 1e-6  # of a squared length; those of real features are above 100
# Saving of each tap's mean difference per saving of the mean squared error, measured on photos of cats, 64 x 64,
# blurred to a squared error of 0.010, see `catsweep.losses.reconstruction`.
PER_MSE = {"efficientnet_lite0": (154.0, 114.0, 73.0, 44.0), "efficientnet_lite1": (168.0, 87.0, 62.0, 38.0)}


def perceptual(
    prediction: Tensor, target: Tensor, features: float = 0.5, network: str = "efficientnet_lite1"
) -> Tensor:
    """Mix feature differences (what is there, and how sharp) with `l1` (colour and brightness).

    Each of the four depths is divided by what it saves per squared error, so that both terms, and each depth, are in
    the currency of `mse`, and `features`, in [0, 1], is the share itself. Images are N x 3 x H x W, H and W at least 16
    (else a ConfigError); a MetricError if the network's weights cannot be read.

    >>> images = torch.rand(1, 3, 32, 32)
    >>> perceptual(images, images).item()
    0.0
    """
    pixels = l1(prediction, target)  # refuses shapes that differ
    require_known(network, "loss.reconstruction.network")
    features_of = FrozenFeatures.of(network, prediction.device)
    # Autocast is off, as in the other losses: their sums over images need more than the 8 bits of bf16.
    with torch.autocast(prediction.device.type, enabled=False):
        with torch.no_grad():
            wanted = [_unit(maps) for maps in features_of(target)]
        pairs = zip(features_of(prediction), wanted, PER_MSE[network], strict=True)
        differences = [(_unit(drawn) - real).square().sum(1).mean() / unit for drawn, real, unit in pairs]
    return features * torch.stack(differences).mean() * prediction[0].numel() + (1 - features) * pixels


def _unit(maps: Tensor) -> Tensor:
    """Normalize features to length 1 at each place: (N, c, h, w) to the same."""
    return maps * (maps.square().sum(1, keepdim=True) + _EPSILON).rsqrt()
