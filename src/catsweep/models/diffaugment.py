"""Differentiable augmentation, DiffAugment (Zhao et al. 2020, arXiv:2006.10738), of what a discriminator sees.

A model passes photos and drawn images through one `DiffAugment`, in training only, so that few photos cannot be
memorised and the generator does not learn the changes as part of a cat. Parameters are drawn anew for every call and
image from torch's global generator. All parts can be differentiated twice, as R1 and the gradient penalty need.

kornia's counterparts take 1.5 to 12 times as long (measured, 64 x 3 x 64 x 64 on one thread) and differ: `ColorJiggle`
clips, which stops the gradient of pixels beyond the range; `RandomErasing` keeps its squares within the image, and one
of half its side always hides the middle, so that the discriminator would never see a nose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catsweep.errors import ConfigError

_GREY = 0.5  # what the paper's 0 is in the range [0, 1]


def color(images: Tensor) -> Tensor:
    """Shift brightness by up to 0.25, scale saturation by 0 to 2 and contrast by 0.5 to 1.5 of images N x C x H x W.

    In this order, not clipped: pixels of a [0, 1] image stay within [-2.5, 3.5], nearly all within [-0.5, 1.5].

    >>> color(torch.rand(2, 3, 8, 8)).shape
    torch.Size([2, 3, 8, 8])
    """
    brightness, saturation, contrast = torch.rand(3, len(images), 1, 1, 1, device=images.device).unbind()
    brightness, saturation, contrast = (brightness - 0.5) / 2, saturation * 2, contrast + 0.5
    grey = images.mean(dim=1, keepdim=True)
    level = grey.mean(dim=(2, 3), keepdim=True)
    # The three steps multiplied out, which saves four passes over the pixels:
    # contrast * (saturation * (x - grey) + grey - level) + level, and the brightness, which both others leave alone.
    colourless = grey * (contrast * (1 - saturation)) + (level * (1 - contrast) + brightness)
    return images * (contrast * saturation) + colourless


def translation(images: Tensor) -> Tensor:
    """Shift each image (N x C x H x W) by whole pixels, up to an eighth of its side; what comes in is mid-grey.

    >>> translation(torch.full((2, 3, 8, 8), 0.5)).unique()
    tensor([0.5000])
    """
    reach = round(images.shape[-1] / 8)
    shifts = torch.randint(-reach, reach + 1, (2, len(images)), device=images.device)
    # torch leaves Function.apply untyped, here and in `backward`.
    moved: Tensor = _Shift.apply(images, shifts, reach, _GREY)  # type: ignore[no-untyped-call]  # torch: no types
    return moved


def cutout(images: Tensor) -> Tensor:
    """Paint a mid-grey square on each image (N x C x H x W), half its side, with the centre anywhere in it.

    >>> cutout(torch.zeros(2, 3, 8, 8)).unique()
    tensor([0.0000, 0.5000])
    """
    rows, columns = (_inside_a_random_half(len(images), side, images.device) for side in images.shape[2:])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], _GREY)


_PARTS: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


class DiffAugment(nn.Module):
    """A policy of augmentations, any of color, translation, cutout (else a ConfigError), without parameters or state.

    They are applied in this order whatever the order given: grey that is moved or painted in must keep its colour.

    >>> DiffAugment(["cutout", "color"])
    DiffAugment(color, cutout)
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")):
        super().__init__()
        unknown = [name for name in policy if name not in _PARTS]
        if unknown:
            raise ConfigError(
                f"The policy of DiffAugment is a list of any of {', '.join(_PARTS)}, but names "
                f"{', '.join(map(repr, unknown))}. Change model.augment.policy."
            )
        self.policy = tuple(name for name in _PARTS if name in policy)

    def forward(self, images: Tensor) -> Tensor:
        """Augment images N x C x H x W in [0, 1]: the same shape, float32 unless the policy is empty, see `color`."""
        if not self.policy:
            return images
        # Planes of one colour make sums and shifts several times as fast as interleaved pixels do.
        images = images.float().contiguous()
        for name in self.policy:
            images = _PARTS[name](images)
        return images

    def extra_repr(self) -> str:
        """Show the policy when the model is printed."""
        return ", ".join(self.policy)


class _Shift(torch.autograd.Function):
    """Shift images by whole pixels. Its gradient is the shift back, itself a `_Shift`, hence differentiable again."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, shifts: Tensor, reach: int, fill: float) -> Tensor:
        """Shift image i down and right by `shifts[:, i]` (2 x N, within +-reach), filling up with `fill`."""
        ctx.save_for_backward(shifts)
        ctx.reach = reach
        height, width = images.shape[2:]
        padded = F.pad(images, (reach, reach, reach, reach), value=fill)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: N x C x places down x places right x H x W
        down, right = reach - shifts
        return windows[torch.arange(len(images), device=images.device), :, down, right]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (shifts,) = ctx.saved_tensors
        back: Tensor = _Shift.apply(gradients[0], -shifts, ctx.reach, 0.0)  # type: ignore[no-untyped-call]  # torch: no types
        return back, None, None, None


def _inside_a_random_half(n: int, side: int, device: torch.device) -> Tensor:
    """Mask, n x side, of a stretch of half of `side` pixels about a random centre, for each of n draws."""
    length = side // 2
    start = torch.randint(0, side + 1 - length % 2, (n, 1), device=device) - length // 2
    pixel = torch.arange(side, device=device)
    return (pixel >= start) & (pixel < start + length)
