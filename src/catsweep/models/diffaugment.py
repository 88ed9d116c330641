"""DiffAugment (Zhao et al. 2020, arXiv:2006.10738): change what the discriminator sees, and let gradients through.

Flow: `DCGAN` hands every batch, photos and generated images alike, through one `DiffAugment` before its discriminator,
in training only, so that few photos cannot be memorised and the generator does not learn the changes as part of a cat.
Parameters are drawn anew for every call and image from torch's global generator; photos and generated images need not
share them. All parts can be differentiated twice, as R1 and the gradient penalty need.

Written in torch by the paper's formulas, because kornia's nearest counterparts differ, and cost more in a place that is
passed three times a step (64 x 3 x 64 x 64, CPU time of one thread, forward / with backward; all of ours: 3 / 6 ms):

- `ColorJiggle`, 3.3 / 23 ms against 0.5 / 1.9: it clips, which stops the gradient of every pixel that leaves the range.
- `RandomTranslate` with nearest resampling, 3.2 / 4.5 ms against 0.8 / 2.1.
- `RandomErasing`, 1.3 / 2.1 ms against 1.0 / 2.1: its squares lie within the image, and one of half its side then
  always hides the middle, so that the discriminator would never see a nose.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catsweep.errors import ConfigError

_GREY = 0.5  # what the paper's 0 is in the range [0, 1]


def color(images: Tensor) -> Tensor:
    """Shift brightness by up to 0.25, scale saturation by 0 to 2 and contrast by 0.5 to 1.5, in this order.

    Args:
        images: N x C x H x W.

    Returns:
        The same shape, not clipped: pixels of a [0, 1] image stay within [-2.5, 3.5], nearly all within [-0.5, 1.5].
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
    """Move each image by whole pixels, up to an eighth of its height and width; what comes in is mid-grey.

    Args:
        images: N x C x H x W.

    Returns:
        The same shape and range.
    """
    reach = round(images.shape[-1] / 8)
    shifts = torch.randint(-reach, reach + 1, (2, len(images)), device=images.device)
    # torch leaves Function.apply untyped, here and in `backward`.
    moved: Tensor = _Shift.apply(images, shifts, reach, _GREY)  # type: ignore[no-untyped-call]
    return moved


def cutout(images: Tensor) -> Tensor:
    """Paint a mid-grey square, half the side of the image, whose centre is anywhere in it; it may hang over the edge.

    Args:
        images: N x C x H x W.

    Returns:
        The same shape and range; painted pixels have no gradient.
    """
    rows, columns = (_inside_a_random_half(len(images), side, images.device) for side in images.shape[2:])
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], _GREY)


_PARTS: dict[str, Callable[[Tensor], Tensor]] = {"color": color, "translation": translation, "cutout": cutout}


class DiffAugment(nn.Module):
    """The parts of a policy, one after the other. It has no parameters and no state.

    Args:
        policy: any of color, translation, cutout, applied in this order; none of them leaves images as they are.

    Raises:
        ConfigError: a name is none of these.
    """

    def __init__(self, policy: Sequence[str] = ("color", "translation", "cutout")):
        super().__init__()
        unknown = [name for name in policy if name not in _PARTS]
        if unknown:
            raise ConfigError(
                f"The policy of DiffAugment is a list of any of {', '.join(_PARTS)}, but names "
                f"{', '.join(map(repr, unknown))}. Change model.augment.policy."
            )
        # In the paper's order whatever the order given: grey that is moved or painted in must keep its colour.
        self.policy = tuple(name for name in _PARTS if name in policy)

    def forward(self, images: Tensor) -> Tensor:
        """Augment images.

        Args:
            images: N x C x H x W, floating, in [0, 1].

        Returns:
            The same shape, float32 if there is anything to do; beyond [0, 1] where `color` says so.
        """
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
    """Move images by whole pixels. Its gradient is the shift back, itself a `_Shift`, hence differentiable again."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, shifts: Tensor, reach: int, fill: float) -> Tensor:
        """Move image i down and right by `shifts[:, i]` (2 x N, within +-reach), filling up with `fill`."""
        ctx.save_for_backward(shifts)
        ctx.reach = reach
        height, width = images.shape[2:]
        padded = F.pad(images, (reach, reach, reach, reach), value=fill)
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: N x C x places down x places right x H x W
        down, right = reach - shifts
        return windows[torch.arange(len(images), device=images.device), :, down, right]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Move the gradient back; what was filled in has none."""
        (shifts,) = ctx.saved_tensors
        back: Tensor = _Shift.apply(gradients[0], -shifts, ctx.reach, 0.0)  # type: ignore[no-untyped-call]
        return back, None, None, None


def _inside_a_random_half(n: int, side: int, device: torch.device) -> Tensor:
    """For n draws, say which of `side` pixels are in a stretch of half as many about a random centre: n x side."""
    length = side // 2
    start = torch.randint(0, side + 1 - length % 2, (n, 1), device=device) - length // 2
    pixel = torch.arange(side, device=device)
    return (pixel >= start) & (pixel < start + length)
