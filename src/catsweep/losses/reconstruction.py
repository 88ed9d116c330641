"""Reconstruction losses of decoded images.

`conf/loss/<name>.yaml` names one of these functions under `reconstruction:`, Hydra makes it a partial, and the VAE adds
it to beta times the divergence. They share a contract, so that a sweep may swap them without a change of beta:

- `loss(prediction, target)`: two N x C x H x W tensors with values in [0, 1], of one shape (else a ConfigError); a
  scalar comes back, **summed over the pixels and channels of an image and averaged over the batch**. It is 0 at
  equality and never negative.
- **One currency.** `mse` is the plain squared error (a Gaussian likelihood of variance 1/2, up to a constant). Every
  other loss carries a constant such that, where a small VAE ends up (errors of standard deviation 0.1,
  `REFERENCE_ERROR`), shrinking all errors by a percent saves about as much as it does under `mse`, within a factor of
  two. That saving, and not the value of the loss, is what the divergence has to pay for, hence what makes beta mean
  the same. For the pixelwise losses it is arithmetic on Gaussian errors; for the structural ones it was measured on
  photos of cats, 64 x 64, blurred until their squared error was that of such a VAE.
- bfloat16 and float16 are raised to float32 here, under autocast as well; gradients are finite for all values in
  [0, 1], at both ends and for identical images.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from kornia.losses import MS_SSIMLoss, charbonnier_loss, ssim_loss
from torch import Tensor

from catsweep.errors import ConfigError

REFERENCE_ERROR = 0.1
"""Standard deviation of the pixel errors (range 1) at which all losses are brought to the scale of `mse`."""

_HALF_GREY_LEVEL = 0.5 / 255
_ROUNDING_VARIANCE = 1 / (12 * 255**2)
# Saving of the plain mean DSSIM (SSIM) and mean 1 - MS-SSIM (MS-SSIM) per saving of the mean squared error, measured
# on blurred photos of mean squared error 0.010: 23.5 and 29.2.
_SSIM_PER_MSE = 24.0
_MS_SSIM_PER_MSE = 30.0
# Zhao et al. use sigmas of 0.5 to 8 on photos of several hundred pixels. At our 32 to 128 px those would cover the
# image, and the convolutions would take 2.7 s per batch of 64 at 64 x 64; these take 0.17 s.
_MS_SSIM_SIGMAS = (0.5, 1.0, 2.0)


def mse(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the squared error, the unit of all the others.

    >>> mse(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(192.)
    """
    prediction, target = _pair(prediction, target)
    return _per_image((prediction - target).square())


def l1(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the absolute error times 0.25: sharper edges than by `mse`, for a large error is no worse per unit.

    For Gaussian errors of standard deviation s, a percent off them saves s * sqrt(2 / pi) percent of the absolute and
    2 s^2 percent of the squared error, so the constant is s * sqrt(2 pi), 0.25 at `REFERENCE_ERROR`.

    >>> l1(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(96.2545)
    """
    prediction, target = _pair(prediction, target)
    return REFERENCE_ERROR * math.sqrt(2 * math.pi) * _per_image((prediction - target).abs())


def huber(prediction: Tensor, target: Tensor, delta: float = 0.1) -> Tensor:
    """Compute Huber's loss (1964): exactly `mse` for errors below `delta`, in units of the range, and linear beyond it.

    >>> huber(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.1))
    tensor(7.6800)
    """
    prediction, target = _pair(prediction, target)
    return 2 * _per_image(F.huber_loss(prediction, target, reduction="none", delta=delta))


def charbonnier(prediction: Tensor, target: Tensor, scale: float = 0.1) -> Tensor:
    """Compute Charbonnier's loss (1994; Barron 2019, alpha = 1): `mse` for small errors, smoothly turning into a line.

    `scale` is Barron's c, the error, in units of the pixel range, around which it turns.

    >>> charbonnier(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.1))
    tensor(6.3623)
    """
    prediction, target = _pair(prediction, target)
    return 2 * scale**2 * _per_image(charbonnier_loss(prediction / scale, target / scale))


def bce(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute half the binary cross-entropy above its minimum, strict in shadows and highlights.

    It is KL(Bernoulli(target) || Bernoulli(prediction)) / 2 in nats: the usual cross-entropy less the entropy of the
    target (which has no gradient), so that it is 0 at equality; halved it equals `mse` for small errors about mid-grey.
    Both sides are first squeezed by half a grey level of an 8-bit image, which bounds the gradient at pure black and
    white (to 255 per pixel) and leaves the minimum at equality.

    >>> bce(torch.full((2, 3, 16, 16), 0.4), torch.full((2, 3, 16, 16), 0.5))
    tensor(7.7752)
    """
    prediction, target = (
        _HALF_GREY_LEVEL + (1 - 2 * _HALF_GREY_LEVEL) * image.clamp(0, 1) for image in _pair(prediction, target)
    )
    # Written out: torch's binary_cross_entropy refuses to run under CUDA autocast.
    gain = target * (target / prediction).log() + (1 - target) * ((1 - target) / (1 - prediction)).log()
    return 0.5 * _per_image(gain)


def ssim(prediction: Tensor, target: Tensor, window: int = 11) -> Tensor:
    """Compute the structural dissimilarity (1 - SSIM) / 2 of Wang et al. 2004, divided by 24.

    kornia's map, reflected at the borders, one value per pixel and channel. `window` is the width of the Gaussian
    window (sigma 1.5) in pixels, odd, and less than twice the image's side.

    >>> ssim(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(15.9936)
    """
    prediction, target = _pair(prediction, target)
    return _per_image(ssim_loss(prediction, target, window, reduction="none")) / _SSIM_PER_MSE


def ms_ssim(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute 1 - MS-SSIM at Gaussian scales of 0.5, 1 and 2 pixels, all at full resolution (Zhao et al. 2017).

    Divided by 30. The most costly of the losses: three filters of 9 x 9 over five maps.

    >>> ms_ssim(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(25.5972)
    """
    prediction, target = _pair(prediction, target)
    dissimilarity: Tensor = _ms_ssim_module(prediction.device)(prediction, target)
    # One value per pixel, a mean over channels: spread it over them again, so that it counts per pixel and channel.
    return _per_image(dissimilarity) * prediction.shape[1] / _MS_SSIM_PER_MSE


def l1_ssim(prediction: Tensor, target: Tensor, structure: float = 0.5) -> Tensor:
    """Mix `ssim` (a share, `structure`, in [0, 1]) with `l1` (colour and brightness, to which SSIM is nearly blind).

    After Zhao et al. 2017, whose 0.84 for structure holds for unscaled terms; here both terms are in one currency.

    >>> l1_ssim(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(56.1241)
    """
    return structure * ssim(prediction, target) + (1 - structure) * l1(prediction, target)


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Compute the logarithm of each image's mean squared error: PSNR, turned so that less is better.

    Up to constants this is the Gaussian likelihood with the best variance for each image (Rybkin et al. 2021): a good
    image is pressed on as hard as a bad one. kornia's `psnr_loss` pools the batch into one error and is -inf for equal
    images; here each image has its own, and the variance that rounding to 8 bits leaves behind (59 dB) is added to
    it, so that equal images score 0 with a gradient of 0.

    >>> psnr(torch.zeros(2, 3, 16, 16), torch.full((2, 3, 16, 16), 0.5))
    tensor(93.5512)
    """
    prediction, target = _pair(prediction, target)
    error = (prediction - target).square().flatten(1).mean(dim=1)
    return REFERENCE_ERROR**2 * prediction[0].numel() * (error / _ROUNDING_VARIANCE).log1p().mean()


def _pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check that both are one shape, N x C x H x W, and raise half precision to float32."""
    if prediction.shape != target.shape or prediction.dim() != 4:
        raise ConfigError(
            f"A reconstruction loss compares two N x C x H x W batches of one shape; the prediction is "
            f"{tuple(prediction.shape)} and the target {tuple(target.shape)}. Give model and data the same image size."
        )
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype), target.to(dtype)


def _per_image(loss: Tensor) -> Tensor:
    """Sum an N x ... map over each image, then average over the batch."""
    return loss.flatten(1).sum(dim=1).mean()


@lru_cache
def _ms_ssim_module(device: torch.device) -> MS_SSIMLoss:
    """Build kornia's loss with its filters on `device`, without its L1 term (`alpha=1`) and its factor of 200."""
    return MS_SSIMLoss(_MS_SSIM_SIGMAS, alpha=1.0, compensation=1.0, reduction="none").to(device)
