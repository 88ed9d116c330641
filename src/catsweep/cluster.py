"""Which process of how many a run is: the only one, unless `trainer=ddp` asks for several.

Flow: `catsweep.training` hands the trainer what `environment` returns, so that Lightning need not guess. It guesses
from the variables that SLURM, `torchrun`, LSF and MPI set, and takes any of them for a statement about its own process.
Within an allocation they are one about the job: a run there would take itself for one of the job's tasks, refuse to
start, record nothing because its rank is not 0, or wait for others who never come.
"""

import os
from collections.abc import Sequence
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import DictConfig


def environment(trainer: DictConfig) -> ClusterEnvironment:
    """What starts a run's processes and tells each its rank; also tells it to all that only rank 0 does.

    Args:
        trainer: of the configuration.

    Returns:
        Lightning itself for one process, and for several that nobody else has started. Processes from outside are the
        run's own only if they are as many as `trainer.devices` and `trainer.num_nodes` ask for: a sweep in a job of
        one task may train each trial on two GPUs.
    """
    processes = _processes(trainer)
    # What was started by us has LOCAL_RANK from the first, which has none.
    chosen: ClusterEnvironment = LightningEnvironment()
    rank = int(os.environ.get("LOCAL_RANK", 0)) + int(os.environ.get("NODE_RANK", 0))
    if processes == 1:
        rank = 0
    elif (outside := _from_outside(processes)) is not None:
        chosen, rank = outside, outside.global_rank()
    _take(rank)
    return chosen


def stand_alone() -> None:
    """Be rank 0: of a process that trains nothing, such as the controller of a sweep, there is one."""
    _take(0)


def is_first() -> bool:
    """Whether this process is the one that writes what is written once; `environment` has decided."""
    return bool(rank_zero_only.rank == 0)  # type: ignore[attr-defined]  # how it is told, too


def _take(rank: int) -> None:
    # Lightning set it, when it was imported, by the variables of what is around this process.
    rank_zero_only.rank = rank  # type: ignore[attr-defined]  # how it is told, too


def _processes(trainer: DictConfig) -> int | None:
    """How many processes the trainer is to have; None where that depends on the machine."""
    devices: Any = trainer.get("devices", "auto")
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        devices = len(devices)
    if not str(devices).isdecimal():
        return None
    return int(devices) * int(trainer.get("num_nodes", 1))


def _from_outside(processes: int | None) -> ClusterEnvironment | None:
    """The starter of processes around this one, if these are the run's."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if SLURMEnvironment.detect():
        return SLURMEnvironment() if processes in (None, int(os.environ["SLURM_NTASKS"])) else None
    return next((kind() for kind in (LSFEnvironment, MPIEnvironment) if kind.detect()), None)
