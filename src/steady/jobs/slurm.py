"""SLURM as an engine of `steady.jobs.cluster_executor`: one `sbatch` for each allocation.

It takes the keys of `hydra/launcher=submitit_slurm` (hydra-submitit-launcher 1.4) and runs no submitit. States come
from one `squeue` for all jobs, which needs no accounting (`sacct`). Ids of jobs come from files, which may be damaged
or a stranger's: a job is ours if SLURM says that it works in the folder of its allocation.
"""

import os
import re
import shlex
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from steady.atomic import write_text
from steady.exceptions import ConfigError
from steady.jobs.engine import EngineAway, State, Status
from steady.jobs.job_files import OUTPUT, SCRIPT
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
# Keys that are whole numbers from 1 up; sbatch takes a negative time limit.
WHOLE = {"timeout_min": "minutes", "signal_delay_s": "seconds", "cpus_per_task": "cores", "cpus_per_gpu": "cores"}
# Options of sbatch that the sweep sets, or that would make other jobs of its own.
OURS = {
    "array", "chdir", "error", "job-name", "no-requeue", "open-mode", "output", "parsable", "requeue", "signal", "wrap",
}  # fmt: skip
# What words of a refusal are about; all others are about what a node has.
ABOUT = {
    "--time|time limit": ("timeout_min",), "partition": ("partition",), "feature": ("constraint",), "qos": ("qos",),
    "account": ("account",), "node name": ("exclude",), "option": ("additional_parameters",),
    "--mem": ("mem_gb", "mem_per_cpu", "mem_per_gpu"), "--cpus": ("cpus_per_task", "cpus_per_gpu"),
    "gres|gpu": ("gres", "gpus_per_node", "gpus_per_task", "cpus_per_gpu", "mem_per_gpu"),
    "": ("cpus_per_task", "mem_gb", "mem_per_cpu", "gres", "gpus_per_node", "constraint", "exclude", "partition"),
}  # fmt: skip
SEE = (
    "sinfo -N -o '%N %P %l %c %m %G %f' lists nodes with their partition, time limit, cores, MB, GPUs (as gres has "
    "them) and features (constraint)"
)
LATER = re.compile(r"busy|not available now|down, drained|accounting/QOS", re.I)  # of a job that may wait in the queue
AWAY = re.compile(
    r"unable to contact|connect|timed out|zero bytes|socket|not responding|unexpected message|temporarily|try again|"
    r"communication|MaxSubmitJob|authenti|credential",
    re.I,
)
FORMAT = "%i|%T|%N|%r|%Z"  # id, state, nodes, reason, folder that it works in
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
    given: Mapping[str, Any] = field(default_factory=dict)  # keys of the launcher, for messages
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
        for key, unit in WHOLE.items():
            if (value := keys.get(key)) is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"hydra.launcher.{key} must be a whole number of {unit}, 1 or more; got {value!r}.")
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
        given = {key: value for key, value in keys.items() if key not in OTHERS and value not in (None, {}, [])}
        return cls(tuple(words), tuple(map(str, setup)), given)

    def check(self) -> None:
        """See `Engine`."""
        said = self._call(SUBMITTING, "sbatch", "--test-only", *self.options, "--wrap=true")
        if said.returncode and not LATER.search(said.stderr):
            raise self._refusal(said)

    def start(self, command: Sequence[str], folder: Path, name: str) -> str:
        """See `Engine`."""
        # Its folder is the proof that a job is ours. exec: TERM is for the command.
        lines = ("#!/bin/bash", f"cd {shlex.quote(os.getcwd())}", *self.setup, f"exec {shlex.join(command)}", "")
        write_text(folder / SCRIPT, "\n".join(lines))
        said = self._call(
            SUBMITTING, "sbatch", "--parsable", "--no-requeue", f"--job-name={name}", f"--chdir={folder}",
            f"--output={folder / OUTPUT}", "--open-mode=append", *self.options, str(folder / SCRIPT),
        )  # fmt: skip
        if (id := re.match(r"\d+", said.stdout.strip())) is None:
            raise self._refusal(said)
        return id[0]

    def statuses(self, started: Mapping[str, Path]) -> dict[str, Status]:
        """See `Engine`."""
        if not (ids := [id for id in started if re.fullmatch("[0-9]+", id)]):
            return {}
        said = self._call(
            ASKING, "squeue", "--noheader", "--states=all", f"--format={FORMAT}", f"--jobs={','.join(ids)}"
        )
        if said.returncode and "Invalid job id" not in said.stderr:  # which it says of one that it has forgotten
            raise EngineAway(_reason(said))
        return parse(said.stdout, started)

    def cancel(self, started: Mapping[str, Path]) -> None:
        """See `Engine`."""
        if ours := self.statuses(started):
            self._call(ASKING, "scancel", "--quiet", *ours)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def _refusal(self, said: "subprocess.CompletedProcess[str]") -> ConfigError:
        reason = _reason(said)
        about = next(keys for words, keys in ABOUT.items() if re.search(words, reason, re.I))
        asked = [f"hydra.launcher.{key}={self.given[key]}" for key in about if key in self.given]
        came = f"That came of {', '.join(asked)}" if asked else "See hydra.launcher"
        return ConfigError(f"SLURM takes no such job: {reason}. {came}; {SEE}.")

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


def parse(told: str, started: Mapping[str, Path]) -> dict[str, Status]:
    """Read what squeue says of jobs, by id; those that work elsewhere than they were started in are left out.

    >>> parse("7|RUNNING|n1|None|/jobs/7", {"7": Path("/jobs/7")})
    {'7': Status(state=<State.RUNNING: 'running'>, host='n1', kind=<Kind.LOST: 'lost'>, message='', cancelled=False)}
    >>> parse("7|RUNNING|n1|None|/home/me/thesis", {"7": Path("/jobs/7")})
    {}
    """
    found = {}
    for line in told.splitlines():
        if line.count("|") < 4:
            continue
        id, state, host, reason, folder = line.split("|", 4)
        if id not in started or os.path.realpath(folder) != os.path.realpath(started[id]):
            continue
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
