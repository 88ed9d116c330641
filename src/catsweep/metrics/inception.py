"""The network in which papers take FID: Inception v3 as TensorFlow published it in December 2015.

Its weights are the file (91 MB) that pytorch-fid and torch-fidelity share. torch-fidelity imports torchvision, so the
network is defined here: each block is a table of its convolutions, with the names that the file has for them.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from catsweep.errors import MetricError
from catsweep.losses.frozen_features import load_weights
from catsweep.metrics.extractors import Extractor
from steady.places import explain

FILE = "pt_inception-2015-12-05-6726825d.pth"
URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}"
HASH_PREFIX = "6726825d"
SIZE = 299


class Conv(NamedTuple):
    """One convolution of a block."""

    name: str  # in the file; the attribute of the block
    source: str  # name of the convolution it reads; `in` is the block's input, `pool` the pooled input
    channels: int  # of its output
    kernel: tuple[int, int]  # height and width; padded to keep the size, unless the stride is 2
    stride: int


def _block(table: str) -> list[Conv]:
    """Read a block's convolutions, one `name source channels [height x width[/stride]]` between semicolons."""
    convs = []
    for line in table.split(";"):
        name, source, channels, *shape = line.split()
        kernel, _, stride = (shape[0] if shape else "1x1").partition("/")
        height, width = map(int, kernel.split("x"))
        convs.append(Conv(name, source, int(channels), (height, width), int(stride or 1)))
    return convs


def _block_a(pooled: int) -> list[Conv]:
    return _block(
        "branch1x1 in 64; branch5x5_1 in 48; branch5x5_2 branch5x5_1 64 5x5; "
        "branch3x3dbl_1 in 64; branch3x3dbl_2 branch3x3dbl_1 96 3x3; branch3x3dbl_3 branch3x3dbl_2 96 3x3; "
        f"branch_pool pool {pooled}"
    )


def _block_c(inner: int) -> list[Conv]:
    return _block(
        f"branch1x1 in 192; branch7x7_1 in {inner}; branch7x7_2 branch7x7_1 {inner} 1x7; "
        f"branch7x7_3 branch7x7_2 192 7x1; branch7x7dbl_1 in {inner}; branch7x7dbl_2 branch7x7dbl_1 {inner} 7x1; "
        f"branch7x7dbl_3 branch7x7dbl_2 {inner} 1x7; branch7x7dbl_4 branch7x7dbl_3 {inner} 7x1; "
        "branch7x7dbl_5 branch7x7dbl_4 192 1x7; branch_pool pool 192"
    )


BLOCK_B = _block(
    "branch3x3 in 384 3x3/2; branch3x3dbl_1 in 64; branch3x3dbl_2 branch3x3dbl_1 96 3x3; "
    "branch3x3dbl_3 branch3x3dbl_2 96 3x3/2"
)
BLOCK_D = _block(
    "branch3x3_1 in 192; branch3x3_2 branch3x3_1 320 3x3/2; branch7x7x3_1 in 192; "
    "branch7x7x3_2 branch7x7x3_1 192 1x7; branch7x7x3_3 branch7x7x3_2 192 7x1; branch7x7x3_4 branch7x7x3_3 192 3x3/2"
)
BLOCK_E = _block(
    "branch1x1 in 320; branch3x3_1 in 384; branch3x3_2a branch3x3_1 384 1x3; branch3x3_2b branch3x3_1 384 3x1; "
    "branch3x3dbl_1 in 448; branch3x3dbl_2 branch3x3dbl_1 384 3x3; branch3x3dbl_3a branch3x3dbl_2 384 1x3; "
    "branch3x3dbl_3b branch3x3dbl_2 384 3x1; branch_pool pool 192"
)


def _conv_norm(
    inputs: int, channels: int, kernel: tuple[int, int], stride: int = 1, padded: bool = True
) -> nn.Sequential:
    padding = (kernel[0] // 2, kernel[1] // 2) if padded else (0, 0)
    conv, bn = nn.Conv2d(inputs, channels, kernel, stride, padding, bias=False), nn.BatchNorm2d(channels, eps=0.001)
    return nn.Sequential(OrderedDict(conv=conv, bn=bn, relu=nn.ReLU(inplace=True)))


class _Block(nn.Module):
    """A block of parallel branches: every convolution that none other reads is part of the output, in order."""

    def __init__(self, inputs: int, convs: list[Conv], pool: nn.Module) -> None:
        super().__init__()
        channels = {"in": inputs, "pool": inputs}
        for conv in convs:
            layer = _conv_norm(channels[conv.source], conv.channels, conv.kernel, conv.stride, conv.stride == 1)
            self.add_module(conv.name, layer)
            channels[conv.name] = conv.channels
        self.pool = pool
        self.convs = convs
        read = {conv.source for conv in convs}
        self.outputs = [name for name in (*(conv.name for conv in convs), "pool") if name not in read]
        self.channels = sum(channels[name] for name in self.outputs)

    def forward(self, maps: Tensor) -> Tensor:
        results = {"in": maps, "pool": self.pool(maps)}
        for conv in self.convs:
            results[conv.name] = self.get_submodule(conv.name)(results[conv.source])
        return torch.cat([results[name] for name in self.outputs], 1)


class InceptionNetwork(nn.Module):
    """Inception v3 (Szegedy et al. 2015, arXiv:1512.00567) up to its last pooling: 2,048 features.

    Where it is not today's Inception v3, it is TensorFlow's of 2015: average pools do not count the padding, and the
    last block pools by maximum.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _conv_norm(3, 32, (3, 3), 2, padded=False)
        self.Conv2d_2a_3x3 = _conv_norm(32, 32, (3, 3), padded=False)
        self.Conv2d_2b_3x3 = _conv_norm(32, 64, (3, 3))
        self.Conv2d_3b_1x1 = _conv_norm(64, 80, (1, 1))
        self.Conv2d_4a_3x3 = _conv_norm(80, 192, (3, 3), padded=False)
        average = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        largest, halving = nn.MaxPool2d(3, 1, 1), nn.MaxPool2d(3, 2)
        blocks = {"5b": _block_a(32), "5c": _block_a(64), "5d": _block_a(64), "6a": BLOCK_B}
        blocks |= {"6b": _block_c(128), "6c": _block_c(160), "6d": _block_c(160), "6e": _block_c(192)}
        blocks |= {"7a": BLOCK_D, "7b": BLOCK_E, "7c": BLOCK_E}
        pools: dict[str, nn.Module] = {"6a": halving, "7a": halving, "7c": largest}
        channels = 192
        for name, convs in blocks.items():
            block = _Block(channels, convs, pools.get(name, average))
            self.add_module(f"Mixed_{name}", block)
            channels = block.channels
        self.blocks = [f"Mixed_{name}" for name in blocks]
        self.halving = halving

    def forward(self, pixels: Tensor) -> Tensor:
        """Extract features: float32 (N, 3, 299, 299), values in [0, 255], to float32 (N, 2048)."""
        maps = self.Conv2d_1a_3x3((pixels - 128) / 128)
        maps = self.halving(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(maps)))
        maps = self.halving(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(maps)))
        for name in self.blocks:
            maps = self.get_submodule(name)(maps)
        features: Tensor = maps.mean((2, 3))
        return features


class Inception(Extractor):
    """Features of the standard FID network: 2,048 per image.

    By default the resize is that of TensorFlow 1, as in the papers: bilinear without antialiasing, its grid anchored at
    the corner of the first pixel, so that images larger than 299 pixels alias.

    Args:
        weights: the weights file.
        download: fetch the file if it is not there.
        antialias: resize with antialiasing instead, as `EfficientNetLite0`; card and scores are others.
        **settings: `backend`, `threads` and `cache_root`, see `Extractor`.

    Raises:
        MetricError: the file is not there and was not, or cannot be, fetched; or it holds something else.
    """

    def __init__(
        self,
        weights: str | Path,
        download: bool = False,
        antialias: bool = False,
        **settings: Any,
    ) -> None:
        path = Path(weights)
        if not path.is_file():
            _fetch(path, download)
        network = InceptionNetwork()
        # The file also has the classifier; older torch versions wrote no batch counters.
        unused = ("fc.weight", "fc.bias", "num_batches_tracked")
        sha256 = load_weights(network, path, remedy=f"delete it and put {FILE} there, from {URL}", ignore=unused)
        super().__init__(
            network,
            name="inception",
            num_features=2048,
            weights_sha256=sha256,
            size=SIZE,
            resize=f"bilinear {'antialiased' if antialias else 'as in TensorFlow 1'} to {SIZE}",
            **settings,
        )
        self.antialias = antialias

    def resized(self, images: Tensor) -> Tensor:
        """See `Extractor`."""
        if self.antialias:
            return super().resized(images)
        rows, columns = (_tensorflow_weights(side, SIZE).to(images.device) for side in images.shape[1:3])
        return torch.einsum("yh,nhwc,xw->ncyx", rows, images.float(), columns)


def _tensorflow_weights(inputs: int, outputs: int) -> Tensor:
    """Weights, (outputs, inputs), of TensorFlow 1's bilinear interpolation: output i lies at i * inputs / outputs."""
    position = torch.arange(outputs, dtype=torch.float32) * (inputs / outputs)
    below = position.floor().long().clamp_max(inputs - 1)
    above = (below + 1).clamp_max(inputs - 1)
    share = (position - below).unsqueeze(1)
    one_hot = torch.eye(inputs)
    return one_hot[below] * (1 - share) + one_hot[above] * share


def _fetch(path: Path, download: bool) -> None:
    if not download:
        raise MetricError(
            f"The inception extractor expects its weights in {path}; there is no such file. Put {FILE} there "
            f"(from {URL}), or let it be fetched: metrics.extractor.download=true."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=HASH_PREFIX, progress=False)
    except (OSError, RuntimeError) as error:  # no network; or other content than expected
        if explain(error) is not None:  # no room for them
            raise
        raise MetricError(
            f"The inception weights could not be fetched: {error}. Fetch {URL} on a machine with a network and put "
            f"the file in {path}."
        ) from error
