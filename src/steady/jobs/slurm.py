"""SLURM as an engine of `steady.jobs.cluster_executor`: one `sbatch` for each allocation.

It takes the keys of `hydra/launcher=submitit_slurm` (hydra-submitit-launcher 1.4) and runs no submitit. States come
from one `squeue` for all jobs, which needs no accounting (`sacct`).
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steady.atomic import write_text
from steady.exceptions import ConfigError
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.job_files import OUTPUT
from steady.resources import without_rank
from steady.study.failures import Kind

# Keys of the launcher, by the option of sbatch that each is.
OPTIONS = {
    "timeout_min": "time", "cpus_per_task": "cpus-per-task", "gpus_per_node": "gpus-per-node", "partition": "partition",
    "qos": "qos", "comment": "comment", "constraint": "constraint", "exclude": "exclude", "gres": "gres",
    "cpus_per_gpu": "cpus-per-gpu", "gpus_per_task": "gpus-per-task", "mem_per_gpu": "mem-per-gpu",
    "mem_per_cpu": "mem-per-cpu", "account": "account",
}  # fmt: skip
# Keys with one meaning here: their values, and what to do instead of another.
FIXED: dict[str, tuple[Collection[Any], str]] = {
    "nodes": ((1,), "A trial runs on one node; hydra.sweeper.n_jobs says how many run at once."),
    "tasks_per_node": ((1, None), "A trial is one task; with trainer=ddp it starts its processes itself."),
    "max_num_timeout": ((0,), "A trial goes on in another job after a time limit, however often."),
    "srun_args": ((None, []), "The job runs without srun."),
    "array_parallelism": ((256,), "hydra.sweeper.n_jobs says how many jobs there are at once."),
}
# The class, what jobs are called and run by (`JobFactory` reads these), and what only submitit's own jobs have:
# ours are without srun, in a folder of the sweep's record, and have one log.
OTHERS = {"_target_", "name", "python", "use_srun", "submitit_folder", "stderr_to_stdout"}
READ = {"mem_gb", "signal_delay_s", "setup", "additional_parameters"}
OURS = {
    "array",
    "chdir",
    "error",
    "job-name",
    "no-requeue",
    "open-mode",
    "output",
    "parsable",
    "requeue",
    "signal",
    "wrap",
}

AWAY = re.compile(
    r"unable to contact|connect|timed out|zero bytes|socket|not responding|unexpected message|temporarily|try again|"
    r"communication|MaxSubmitJob|authenti|credential",
    re.I,
)
FORMAT = "%i|%T|%N|%r"  # id, state, nodes, reason
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
RUNNING = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
KINDS = {"PREEMPTED": Kind.INTERRUPTED, "OUT_OF_MEMORY": Kind.OUT_OF_MEMORY}
SUBMITTING, ASKING = 60.0, 30.0  # seconds for a command to answer

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@dataclass
class Slurm:
    """SLURM, through its commands."""

    options: Sequence[str] = ()  # of sbatch
    setup: Sequence[str] = ()  # lines of shell before the command
    run: Command = subprocess.run
    name = "slurm"
    trials_per_job: int | None = 1  # a queue is fair to all when jobs are short

    @classmethod
    def from_launcher(cls, keys: Mapping[str, Any]) -> "Slurm":
        """Take the keys of submitit's launcher; a ConfigError for one that means nothing here.

        >>> Slurm.from_launcher({"timeout_min": 90, "gres": "gpu:1", "signal_delay_s": 60}).options
        ('--time=90', '--gres=gpu:1', '--signal=B:TERM@60')
        """
        if unknown := keys.keys() - OPTIONS.keys() - FIXED.keys() - OTHERS - READ:
            raise ConfigError(
                f"hydra.launcher.{min(unknown)} is none of the keys that jobs of SLURM have here: "
                f"{', '.join(sorted({*OPTIONS, *READ}))}. Other options of sbatch belong into additional_parameters."
            )
        for key, (values, remedy) in FIXED.items():
            if key in keys and keys[key] not in values:
                raise ConfigError(f"hydra.launcher.{key} must be {next(iter(values))}; got {keys[key]!r}. {remedy}")
        options = {OPTIONS[key]: value for key, value in keys.items() if key in OPTIONS and value is not None}
        if (memory := keys.get("mem_gb")) is not None:
            options["mem"] = f"{_megabytes(memory)}M"
        # To the command itself, which has the trial come to a checkpoint.
        options["signal"] = f"B:TERM@{keys.get('signal_delay_s', 120)}"
        more = {str(key).replace("_", "-"): value for key, value in (keys.get("additional_parameters") or {}).items()}
        if ours := more.keys() & OURS:
            raise ConfigError(f"hydra.launcher.additional_parameters.{min(ours)} is set by the sweep; leave it out.")
        words = (f"--{key}" if value is True else f"--{key}={value}" for key, value in (options | more).items())
        setup = keys.get("setup") or ()
        if isinstance(setup, str):
            raise ConfigError(f"hydra.launcher.setup must be a list of shell lines; got {setup!r}.")
        return cls(tuple(words), tuple(map(str, setup)))

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        """See `Engine`."""
        lines = ("#!/bin/bash", *self.setup, f"exec {shlex.join(command)}", "")  # exec: TERM is for the command
        write_text(folder / "job.sh", "\n".join(lines))
        said = self._call(
            SUBMITTING, "sbatch", "--parsable", "--no-requeue", f"--job-name={name}", f"--output={folder / OUTPUT}",
            "--open-mode=append", *self.options, str(folder / "job.sh"),
        )  # fmt: skip
        if (id := re.match(r"\d+", said.stdout.strip())) is None:
            raise ConfigError(f"SLURM takes no such job: {_reason(said)}. See hydra.launcher.")
        return id[0]

    def statuses(self, ids: Collection[str]) -> dict[str, Status]:
        """See `Engine`."""
        if not (known := _numbers(ids)):
            return {}
        said = self._call(
            ASKING, "squeue", "--noheader", "--states=all", f"--format={FORMAT}", f"--jobs={','.join(known)}"
        )
        if said.returncode and "Invalid job id" not in said.stderr:  # which it says of one that it has forgotten
            raise EngineAway(_reason(said))
        return parse(said.stdout)

    def cancel(self, ids: Collection[str]) -> None:
        """See `Engine`."""
        if known := _numbers(ids):
            self._call(ASKING, "scancel", "--quiet", *known)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _call(self, seconds: float, *command: str) -> "subprocess.CompletedProcess[str]":
        try:
            said = self.run(
                command, env=variables(os.environ), capture_output=True, text=True, errors="replace", timeout=seconds,
                stdin=subprocess.DEVNULL, check=False, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise EngineAway(f"{command[0]} did not answer in {seconds:g} s") from error
        except FileNotFoundError as error:
            raise ConfigError(f"Jobs of SLURM need its {command[0]}, which is not here.") from error
        if said.returncode and AWAY.search(said.stderr):
            raise EngineAway(_reason(said))
        return said


def _numbers(ids: Collection[str]) -> list[str]:
    """Keep what is a job's number: ids come from files, which may be damaged or a stranger's."""
    return [id for id in ids if re.fullmatch(r"[0-9]+(_[0-9]+)?", id)]


def variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Get the variables that jobs inherit: not those of a job that the controller is in, nor its GPUs.

    >>> variables({"SLURM_CONF": "slurm.conf", "SLURM_JOB_ID": "7", "CUDA_VISIBLE_DEVICES": "0", "HOME": "/root"})
    {'SLURM_CONF': 'slurm.conf', 'HOME': '/root'}
    """
    return {
        name: value
        for name, value in without_rank(environment).items()
        if name == "SLURM_CONF" or not name.startswith(("SLURM_", "CUDA_VISIBLE_DEVICES"))
    }


def _megabytes(memory: Any) -> int:
    if type(memory) not in (int, float) or not memory * 1024 >= 1:
        raise ConfigError(f"hydra.launcher.mem_gb must be a number of GB above 0.001; got {memory!r}.")
    return int(memory * 1024)


def parse(told: str) -> dict[str, Status]:
    """Read what squeue says of jobs, by id.

    >>> parse("7|RUNNING|n1|None")
    {'7': Status(state=<State.RUNNING: 'running'>, host='n1', kind=<Kind.LOST: 'lost'>, message='', cancelled=False)}
    """
    found = {}
    for line in told.splitlines():
        id, _, rest = line.partition("|")
        if rest.count("|") != 2:
            continue
        state, host, reason = rest.split("|")
        if state in WAITING:
            found[id] = Status(State.WAITING)
        elif state in RUNNING:
            found[id] = Status(State.RUNNING, host)
        else:
            why = f" ({reason})" if reason not in ("", "None") else ""
            message = f"Job {id} of SLURM ended as {state}{why} on {host or 'no node'}."
            found[id] = Status(State.ENDED, host, KINDS.get(state, Kind.LOST), message, state == "CANCELLED")
    return found


def _reason(said: "subprocess.CompletedProcess[str]") -> str:
    lines = [line.partition("error: ")[2] or line for line in said.stderr.splitlines() if line.strip()]
    return "; ".join(lines)[:500] or f"exit code {said.returncode}, and no message"
