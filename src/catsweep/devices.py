"""Devices and processes of a run: which GPUs there are, and which rank this process has.

The trainer is handed what `environment` returns. Lightning would guess from the variables that SLURM, `torchrun`, LSF
and MPI set, and take any of them for a statement about its own process. Within an allocation they are one about the
job: a run there would take itself for one of the job's tasks, refuse to start, record nothing because its rank is not
0, or wait for others who never come.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig

from catsweep.errors import CatsweepError, ConfigError, TrainingError

T = TypeVar("T")


def environment(trainer: DictConfig) -> ClusterEnvironment:
    """Choose what starts a run's processes and gives each its rank, by `cfg.trainer`; set the rank of this process.

    That is Lightning itself for one process, and for several that nobody else has started. Processes from outside are
    the run's own only if they are as many as `trainer.devices` and `trainer.num_nodes` ask for: a run in a job of one
    task may train on two GPUs.
    """
    processes = _processes(trainer)
    # What was started by us has LOCAL_RANK from the first, which has none.
    chosen: ClusterEnvironment = LightningEnvironment()
    rank = int(os.environ.get("LOCAL_RANK", 0)) + int(os.environ.get("NODE_RANK", 0))
    if processes == 1:
        rank = 0
    elif (outside := _from_outside(processes)) is not None:
        chosen, rank = outside, outside.global_rank()
    # Lightning set it, when it was imported, by the variables of what is around this process.
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # an attribute of a function, which mypy does not know
    return chosen


def stand_alone() -> None:
    """Set the rank of this process to 0, for one that trains nothing, such as a sweep's controller."""
    rank_zero_only.rank = 0  # type: ignore[attr-defined]  # an attribute of a function


def is_first() -> bool:
    """Whether this process has rank 0, and so writes what is written once; `environment` has decided."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # an attribute of a function


def on_rank_zero(trainer: pl.Trainer, act: Callable[[], T]) -> T:
    """Call a function in the process of rank 0 only, and return its result in all.

    What it raises is raised on every rank, so that none waits for another forever.
    """
    result: T | None = None
    raised: Exception | None = None
    if trainer.is_global_zero:
        try:
            result = act()
        except Exception as error:
            raised = error
    # Other people's exceptions may not survive the way; ours are a message.
    told = raised if raised is None or isinstance(raised, CatsweepError) else TrainingError(f"On rank 0: {raised!r}")
    result, told = trainer.strategy.broadcast((result, told), src=0)
    if failure := raised or told:
        raise failure
    return result  # type: ignore[return-value]  # T may itself be None: no other None comes this far


def _processes(trainer: DictConfig) -> int | None:
    """The number of processes that the trainer is to have; None where that depends on the machine."""
    devices: Any = trainer.get("devices", "auto")
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        devices = len(devices)
    return int(devices) * int(trainer.get("num_nodes", 1)) if str(devices).isdecimal() else None


def _from_outside(processes: int | None) -> ClusterEnvironment | None:
    """The starter of processes around this one, if these are the run's."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment() if processes in (None, int(os.environ["SLURM_NTASKS"])) else None
    return next((kind() for kind in (LSFEnvironment, MPIEnvironment) if kind.detect()), None)


def require(accelerator: str, devices: int | str | Sequence[int] = "auto") -> None:
    """Raise a `ConfigError` for GPUs that are not there: Lightning would with a traceback, after the data are prepared.

    `accelerator` and `devices` (how many, or which; on a processor they are processes) are those of `trainer`.
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


def require_one_process(trainer: DictConfig, unknown: int = 1) -> None:
    """Raise a `ConfigError` if Lightning would start further processes for a trial of a sweep.

    It starts them by the command line of this process. That is the sweep's, so each would be another controller of the
    same study. Processes that are there already, of `srun` or `torchrun`, are none that it starts. `unknown` is how
    many there are where that depends on the machine (`trainer.devices=auto`).
    """
    processes = _processes(trainer)
    if processes is None:
        processes = 1 if trainer.accelerator == "cpu" else unknown
    if processes > 1 and _from_outside(processes) is None:
        raise ConfigError(
            f"A trial of a sweep is one process, but trainer.devices={trainer.get('devices', 'auto')} asks for "
            f"{processes}, which would be started by the sweep's own line. Take trainer=gpu, or trainer.devices=1, and "
            "several trials side by side; or train a single run, without -m."
        )


def device_name(device: torch.device) -> str:
    """Name a device for a person: `cpu`, or the GPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def cuda_in_use() -> bool:
    """Whether this process has started CUDA. Asking a GPU for anything would, and costs some 500 MB of its memory."""
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]  # torch has not typed it
