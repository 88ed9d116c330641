"""What a run computes on: refused before anything is prepared if it is not there, and named in the run's record."""

import torch

from catsweep.errors import ConfigError


def require(accelerator: str) -> None:
    """Refuse a GPU where there is none: Lightning would, but with a traceback, and when the data are prepared.

    Args:
        accelerator: Lightning's word, `trainer.accelerator`.

    Raises:
        ConfigError: saying what torch lacks.
    """
    if accelerator not in ("gpu", "cuda") or torch.cuda.is_available():
        return
    if accelerator == "gpu" and torch.backends.mps.is_available():
        return
    why = "finds none: see what nvidia-smi shows, and CUDA_VISIBLE_DEVICES"
    if torch.version.cuda is None and torch.version.hip is None:
        why = "is a build for processors only: install one for your GPU"
    raise ConfigError(
        f"trainer.accelerator={accelerator} needs a GPU, but torch {torch.__version__} {why}. Or trainer=cpu."
    )


def device_name(device: torch.device) -> str:
    """What a person calls a device: `cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cuda_in_use() -> bool:
    """Whether this process has started CUDA. Asking a GPU for anything would, and costs some 500 MB of its memory."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch has not typed it
