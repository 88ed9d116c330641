"""Convert between stored images (uint8, NHWC) and network inputs and outputs (float32, NCHW, in [0, 1]).

There is no other conversion, so that real and generated images are rounded the same way before they are compared.
"""

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Convert uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1], channels_last: the layout is not copied."""
    return images.permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Convert floats (N, 3, H, W) to contiguous uint8 (N, H, W, 3): clamp to [0, 1], round to 256 levels."""
    levels = images.detach().float().clamp(0, 1).mul(255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
