"""Resources of the machine: number of slots, and the GPUs and cores of each. Touches no GPU."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from steady.exceptions import ConfigError

ALLOCATOR = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")  # torch's settings of a GPU's memory: old name, new name
SHARED_SINCE = (2, 10)  # torch's version from which on they limit it
ANSWERS = 30.0  # seconds in which NVIDIA's tool does, or there is no GPU
MEMORY_PER_SLOT = 1.5e9  # bytes; a small trial of ours on the processor stays below 1.2 GB
CPUINFO = Path("/proc/cpuinfo")
OF_ITS_SHARE = 0.95  # of a slot's share of a GPU's memory, for tensors; CUDA itself wants some in each process

# Variables in which SLURM, torchrun and MPI tell a process its rank and the number of processes.
RANK = re.compile(
    r"(LOCAL_|GROUP_|NODE_|ROLE_)?RANK|(LOCAL_|GROUP_|ROLE_)?WORLD_SIZE|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+"
    r"|SLURM_(PROCID|LOCALID|NODEID|NTASKS|NPROCS|NTASKS_PER_NODE|TASKS_PER_NODE|STEP_NUM_TASKS|STEP_TASKS_PER_NODE)"
    r"|(PMI|PMIX|OMPI_COMM_WORLD|MV2_COMM_WORLD|JSM_NAMESPACE)_\w+"
)


def without_rank(variables: Mapping[str, str]) -> dict[str, str]:
    """Drop the controller's rank and world size from the environment variables of a job.

    A library in a job would wait for the other ranks, or write nothing as it is not the first. The allocation itself
    (`SLURM_JOB_ID`) stays.

    >>> without_rank({"RANK": "1", "SLURM_JOB_ID": "7"})
    {'SLURM_JOB_ID': '7'}
    """
    return {name: value for name, value in variables.items() if not RANK.fullmatch(name)}


def visible_gpus(gpus: Any) -> list[str]:
    """List the ids of the GPUs that slots may use: of `auto`, a number of GPUs, or ids; else a ConfigError.

    >>> visible_gpus([0, 2])
    ['0', '2']
    """
    if gpus == "auto":
        return _found()
    if type(gpus) is int and gpus >= 0:
        return (_found() or [str(n) for n in range(gpus)])[:gpus]
    if isinstance(gpus, Sequence) and not isinstance(gpus, str):
        return [str(gpu) for gpu in gpus]
    raise ConfigError(f"hydra.sweeper.gpus must be auto, a number, or a list of ids; got {gpus!r}.")


def _found() -> list[str]:
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    return [index for index in _query("index") if index.isdigit()]


def _query(key: str, ids: Sequence[str] = ()) -> list[str]:
    """Ask NVIDIA's tool for something of each GPU, or of some; nothing where there is none."""
    if (tool := shutil.which("nvidia-smi")) is None:
        return []
    command = [tool, f"--query-gpu={key}", "--format=csv,noheader", *([f"--id={','.join(ids)}"] if ids else [])]
    try:
        listed = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=ANSWERS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # a tool that is broken, or a driver that hangs
        return []
    return [line.strip() for line in listed.stdout.splitlines()] if listed.returncode == 0 else []


def free_gpu_memory() -> list[float]:
    """List the free memory of the GPUs that may be used, in GiB, 0 where the driver does not say.

    >>> all(memory >= 0 for memory in free_gpu_memory())
    True
    """
    words = (line.partition(" ")[0] for line in _query("memory.free", visible_gpus("auto")))  # 143771 MiB
    return [float(word) / 1024 if word.isdigit() else 0.0 for word in words]


def _memory_can_be_shared() -> bool:
    """Tell whether the installed torch knows `per_process_memory_fraction`; an older one refuses to start with it."""
    try:
        major, minor = version("torch").split(".")[:2]
    except PackageNotFoundError:
        return False
    return (int(major), int(minor)) >= SHARED_SINCE


def slots(n_jobs: Any, gpus: Any, share: float) -> int:
    """Count the slots: `n_jobs`, or for `auto` as many as GPUs, or cores and free memory, allow; from 1 up.

    Each slot has `share` of a GPU. For `gpus` see `visible_gpus`. A ConfigError for other values.

    >>> slots("auto", ["0", "1"], 0.5)
    4
    """
    if n_jobs != "auto":
        if type(n_jobs) is not int or n_jobs < 1:
            raise ConfigError(f"hydra.sweeper.n_jobs must be a whole number from 1 up, or auto; got {n_jobs!r}.")
        return n_jobs
    if found := visible_gpus(gpus):
        return len(found) * _slots_per_gpu(share) if share <= 1 else max(1, len(found) // int(share))
    return max(1, min(cores(), int(psutil.virtual_memory().available / MEMORY_PER_SLOT)))


def _slots_per_gpu(share: float) -> int:
    return max(1, int(1 / share + 1e-9))  # 1 / (1 / 49) is a little less than 49


def cores() -> int:
    """Count the cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str | None:
    """Name the processor's model, an ARM's by the numbers of maker and part; None if the system does not say."""
    told: dict[str, str] = {}
    with suppress(OSError):
        for line in CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            told.setdefault(key.strip(), value.strip())  # those of the first core
    if "CPU implementer" in told and not told.get("model name"):
        return f"ARM {told['CPU implementer']} {told.get('CPU part', '')}".strip()  # 0x41 0xd0c: of ARM, Neoverse N1
    return told.get("model name") or platform.processor() or platform.machine() or None


def machine() -> str:
    """Describe what this machine computes with: its processor, the cores that may be used, its GPUs.

    >>> "core" in machine()
    True
    """
    n, gpus = cores(), _query("name")
    counted = [f"{gpus.count(name)} x {name}" for name in sorted(set(gpus))]
    return ", ".join([processor() or "an unknown processor", f"{n} core{'s' * (n != 1)}", *counted])


def environment(slot: int, slots: int, gpus: Sequence[str], share: float) -> dict[str, str]:
    """Build the environment variables of a slot (from 0): its GPUs, its share of their memory, its number of threads.

    A `share` of 0.5 puts two slots on one GPU, each with half of its memory; above 1, a slot has several.

    >>> environment(1, 4, ["0", "1"], 0.5)["CUDA_VISIBLE_DEVICES"]
    '0'
    """
    result = {}
    if gpus:
        many = max(1, int(share))
        first = slot // _slots_per_gpu(share) * many
        result["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[(first + k) % len(gpus)] for k in range(many))
        if share < 1 and _memory_can_be_shared() and not any(name in os.environ for name in ALLOCATOR):
            # Else a trial too large for its share takes the others' memory, and they fail in its place.
            result[ALLOCATOR[0]] = f"per_process_memory_fraction:{share * OF_ITS_SHARE:.4f}"
    if "OMP_NUM_THREADS" not in os.environ:
        result["OMP_NUM_THREADS"] = str(max(1, cores() // slots))
    return result
