"""Convert between stored images and network inputs or outputs.

Stored images (ready sets, batches, samples, what the scores read) are uint8 in NHWC order. Networks take float32 in
NCHW order, values in [0, 1], laid out channels_last. There is no other conversion, so that real and generated images
are rounded the same way before they are compared.
"""

import torch
from torch import Tensor


def to_float(images: Tensor) -> Tensor:
    """Convert stored images to network input.

    Args:
        images: uint8, shape (N, H, W, 3).

    Returns:
        float32, shape (N, 3, H, W), values in [0, 1], channels_last in memory (no copy of the layout is made).
    """
    return images.permute(0, 3, 1, 2).float().div_(255)


def to_uint8(images: Tensor) -> Tensor:
    """Convert network output to stored images: clamp to [0, 1], round to the nearest of 256 levels.

    Args:
        images: floating point, shape (N, 3, H, W).

    Returns:
        uint8, shape (N, H, W, 3), contiguous.
    """
    levels = images.detach().float().clamp(0, 1).mul(255).round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
