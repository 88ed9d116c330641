"""A machine on which everything that a command could trip over is there: a job of SLURM, a locale of ASCII, a home
that is none, a umask that hides files."""

import os
from pathlib import Path

UMASK = 0o077
# One task of two, and not the first: to take it for a statement about a run is to refuse, to wait, or to write nothing.
SLURM = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "sweep", "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NODELIST": "node[1-2]",
    "SLURM_NNODES": "2", "SLURM_NTASKS": "2", "SLURM_NPROCS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_CPUS_ON_NODE": "2",
}  # fmt: skip
# Not of the machine: Lightning looks for them first, and would not come to see the job.
TORCHRUN = {
    "RANK": "1", "LOCAL_RANK": "1", "GROUP_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "TORCHELASTIC_RUN_ID": "4711",
}  # fmt: skip
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
HOME = "/proc/nowhere"  # where not even root can make a folder


def machine(folder: Path) -> dict[str, str]:
    """Its variables.

    Args:
        folder: for its `srun`, which says no; and for Matplotlib, which asks for one.
    """
    folder.mkdir()
    srun = folder / "srun"
    srun.write_text("#!/bin/sh\nexit 1\n")
    srun.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **SLURM, **ASCII, "HOME": HOME, "MPLCONFIGDIR": str(folder), "PATH": path}
