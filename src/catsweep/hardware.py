"""What a run computes on: refused before anything is prepared if it is not there, and named in the run's record."""

from collections.abc import Sequence

import torch

from catsweep.errors import ConfigError


def require(accelerator: str, devices: int | str | Sequence[int] = "auto") -> None:
    """Refuse GPUs that are not there: Lightning would, but with a traceback, and when the data are prepared.

    Args:
        accelerator: Lightning's word, `trainer.accelerator`.
        devices: how many, or which, `trainer.devices`; on a processor they are processes.

    Raises:
        ConfigError: saying what torch lacks.
    """
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        if accelerator == "gpu" and torch.backends.mps.is_available():
            return
        why = "finds none: see what nvidia-smi shows, and CUDA_VISIBLE_DEVICES"
        if torch.version.cuda is None and torch.version.hip is None:
            why = "is a build for processors only: install one for your GPU"
        raise ConfigError(
            f"trainer.accelerator={accelerator} needs a GPU, but torch {torch.__version__} {why}. Or trainer=cpu."
        )
    if accelerator in ("gpu", "cuda", "auto") and torch.cuda.is_available() and devices != "auto":
        there = torch.cuda.device_count()
        wanted = devices if isinstance(devices, int) else 1 + max(map(int, devices))
        if wanted > there:
            shown = devices if isinstance(devices, int) else list(devices)
            raise ConfigError(
                f"trainer.devices={shown} needs {wanted} GPUs, but torch finds {there}: see CUDA_VISIBLE_DEVICES. "
                f"Set trainer.devices={there} or less, or trainer.accelerator=cpu for processes on the processor."
            )


def device_name(device: torch.device) -> str:
    """What a person calls a device: `cpu`, or the GPU's name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cuda_in_use() -> bool:
    """Whether this process has started CUDA. Asking a GPU for anything would, and costs some 500 MB of its memory."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch has not typed it
