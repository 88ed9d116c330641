"""Photos through a model, in batches and full precision, as `catsweep.models.generator.generate` draws."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from catsweep.images import to_float, to_uint8
from catsweep.models.generator import LatentEncoder, Reconstructor, evaluating

Images = NDArray[np.uint8]

BATCH = 64  # images at once; bounds memory


def reconstructions(model: Reconstructor, images: Images) -> Images:
    """Photos drawn again: uint8, shape (N, H, W, 3), to the same."""
    return to_uint8(_through(model, model.reconstruct, images)).numpy()


def latents_of(model: LatentEncoder, images: Images) -> Tensor:
    """The latents that photos are drawn from: uint8, shape (N, H, W, 3), to float, shape (N, latent_size)."""
    return _through(model, model.latents_of, images)


def _through(model: object, step: Callable[[Tensor], Tensor], images: Images) -> Tensor:
    parts: tuple[Tensor, ...] = torch.split(to_float(torch.from_numpy(images)), BATCH)
    if not isinstance(model, nn.Module):
        return torch.cat([step(part) for part in parts])
    device = next((parameter.device for parameter in model.parameters()), parts[0].device)
    with evaluating(model), torch.autocast(device.type, enabled=False):
        return torch.cat([step(part.to(device)).cpu() for part in parts])
