"""SLURM's commands as they are called, and what they say, without a SLURM."""

import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import OmegaConf

from steady.exceptions import ConfigError
from steady.jobs.engine import EngineAway, State
from steady.jobs.slurm import OPTIONS, READ, Slurm, parse
from steady.run.job_factory import ENGINES
from steady.study.failures import Kind


class Commands:
    """Stands for `subprocess.run`: answers as told, and remembers what was called."""

    def __init__(self, *answers: tuple[int, str, str]) -> None:
        self.answers = list(answers)
        self.called: list[tuple[str, ...]] = []
        self.environment: Mapping[str, str] = {}

    def __call__(
        self, command: Sequence[str], env: Mapping[str, str], timeout: float, **_: Any
    ) -> "subprocess.CompletedProcess[str]":
        self.called.append(tuple(command))
        self.environment = env
        code, out, err = self.answers.pop(0)
        if code < 0:
            raise subprocess.TimeoutExpired(command, timeout)
        return subprocess.CompletedProcess(command, code, out, err)


def defaults(**keys: Any) -> dict[str, Any]:
    made: Any = OmegaConf.to_container(OmegaConf.structured(SlurmQueueConf), resolve=False)
    return {**made, "name": "cats", "submitit_folder": "out/.submitit/%j", **keys}


def test_every_key_of_the_launcher_is_known_and_what_it_says_by_default_is_taken() -> None:
    assert Slurm.from_launcher(defaults()).options == ("--time=60", "--signal=B:TERM@120")


def test_any_app_can_choose_it_and_its_keys_are_those_that_are_read() -> None:
    Plugins.instance()
    node: Any = OmegaConf.to_container(ConfigStore.instance().load("hydra/launcher/slurm.yaml").node)
    assert node["_target_"] in ENGINES
    assert node.keys() == {*OPTIONS, *READ, "_target_", "name", "python"}
    assert Slurm.from_launcher({**node, "gres": "gpu:1"}).options == (
        "--time=240", "--cpus-per-task=4", "--gres=gpu:1", "--signal=B:TERM@120",
    )  # fmt: skip


def test_keys_become_options_of_sbatch() -> None:
    given = {
        "timeout_min": 30, "cpus_per_task": 4, "gpus_per_node": 1, "mem_gb": 1.5, "partition": "gpu", "qos": "low",
        "account": "me", "constraint": "a100", "comment": "two words", "signal_delay_s": 60, "setup": ["module load x"],
        "additional_parameters": {"mail-user": "a@b.c", "exclusive": True, "mail_type": "END"},
    }  # fmt: skip
    engine = Slurm.from_launcher(defaults(**given))
    assert set(engine.options) == {
        "--time=30", "--cpus-per-task=4", "--gpus-per-node=1", "--mem=1536M", "--partition=gpu", "--qos=low",
        "--account=me", "--constraint=a100", "--comment=two words", "--signal=B:TERM@60", "--mail-user=a@b.c",
        "--exclusive", "--mail-type=END",
    }  # fmt: skip
    assert engine.setup == ("module load x",)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"nodes": 2}, "nodes must be 1; got 2. A trial runs on one node"),
        ({"tasks_per_node": 4}, "tasks_per_node must be 1"),
        ({"max_num_timeout": 3}, "goes on in another job after a time limit"),
        ({"srun_args": ["--mpi=pmix"]}, "without srun"),
        ({"array_parallelism": 4}, "n_jobs"),
        ({"additional_parameters": {"requeue": True}}, "requeue is set by the sweep"),
        ({"additional_parameters": {"open_mode": "truncate"}}, "open-mode is set by the sweep"),
        ({"partitoin": "gpu"}, "partitoin is none of the keys"),
    ],
)
def test_keys_that_would_mean_something_else_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Slurm.from_launcher(defaults(**keys))


def test_a_job_is_a_script_that_becomes_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "the controller's")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "the controller's")
    monkeypatch.setenv("SLURM_CONF", "slurm.conf")
    run = Commands((0, "17;cluster\n", ""))
    engine = Slurm(("--time=5",), ("module load cuda",), run=run)
    assert engine.start(["python", "-m", "a b"], tmp_path, "cats") == "17"
    here = shlex.quote(os.getcwd())
    assert (tmp_path / "job.sh").read_text() == f"#!/bin/bash\ncd {here}\nmodule load cuda\nexec python -m 'a b'\n"
    [command] = run.called
    assert {
        "--parsable",
        "--no-requeue",
        "--job-name=cats",
        f"--chdir={tmp_path}",
        f"--output={tmp_path}/engine.log",
    } <= set(command)
    assert (command[0], command[-2:]) == ("sbatch", ("--time=5", str(tmp_path / "job.sh")))
    assert run.environment["SLURM_CONF"] == "slurm.conf"
    assert not {"SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} & set(run.environment)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((1, "", "sbatch: error: invalid partition specified: gpu"), ConfigError, "no such job: invalid"),
        ((1, "", "sbatch: error: Unable to contact slurm controller"), EngineAway, "Unable"),
        ((1, "", "sbatch: error: QOSMaxSubmitJobPerUserLimit"), EngineAway, "QOSMax"),
        ((1, "", "sbatch: error: Socket timed out on send/recv operation"), EngineAway, "Socket"),
        ((-1, "", ""), EngineAway, "sbatch did not answer in 60 s"),
        ((0, "", ""), ConfigError, "exit code 0, and no message"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_from_a_slurm_that_is_away(
    tmp_path: Path, answer: tuple[int, str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Slurm(run=Commands(answer)).start(["true"], tmp_path, "cats")


# What sbatch said to these keys (SLURM 22.05), and what is to be found in the message.
REFUSALS = [
    ({"cpus_per_task": 4, "qos": "low"}, "allocation failure: Requested node configuration is not available",
     "hydra.launcher.cpus_per_task=4"),
    ({"partition": "gpu"}, "sbatch: error: invalid partition specified: gpu\nallocation failure: Invalid partition",
     "hydra.launcher.partition=gpu"),
    ({"gres": "gpu:1"}, "sbatch: error: Invalid generic resource (gres) specification", "hydra.launcher.gres=gpu:1"),
    ({"mem_per_cpu": "lots"}, "sbatch: error: Invalid --mem-per-cpu specification", "hydra.launcher.mem_per_cpu=lots"),
    ({"mem_gb": 1, "mem_per_gpu": "5"}, "sbatch: fatal: --mem, --mem-per-cpu, and --mem-per-gpu are exclusive.",
     "hydra.launcher.mem_gb=1, hydra.launcher.mem_per_gpu=5"),
    ({"constraint": "a100"}, "allocation failure: Invalid feature specification", "hydra.launcher.constraint=a100"),
    ({"additional_parameters": {"nonsense": "x"}}, "sbatch: unrecognized option '--nonsense=x'",
     "hydra.launcher.additional_parameters={'nonsense': 'x'}"),
    ({}, "sbatch: error: Requested time limit is invalid", "See hydra.launcher"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "told", "said"), REFUSALS)
def test_a_refusal_names_the_keys_that_it_came_of(keys: dict[str, Any], told: str, said: str) -> None:
    engine = Slurm.from_launcher({"timeout_min": 30, **keys} if keys else {})
    engine.run = run = Commands((1, "", told))
    with pytest.raises(ConfigError, match=re.escape(said)):
        engine.check()
    assert run.called[0][:2] == ("sbatch", "--test-only")


def test_a_job_that_could_only_wait_is_no_refusal() -> None:
    run = Commands((1, "", "allocation failure: Requested nodes are busy"), (0, "", "Job 1 to start at 2026-11-28"))
    engine = Slurm(run=run)
    engine.check()
    engine.check()


def test_a_slurm_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="need its squeue, which is not here"):
        Slurm().cancel({"1": tmp_path})


def test_all_states_are_asked_for_at_once() -> None:
    run = Commands(
        (0, "1|RUNNING|n1|None|/a/1\n2|PENDING||Resources|/a|2\n", ""),
        (1, "", "slurm_load_jobs error: Invalid job id"),
    )
    engine = Slurm(run=run)
    asked = {"1": Path("/a/1"), "2": Path("/a|2"), "3": Path("/a/3")}
    assert {id: status.state for id, status in engine.statuses(asked).items()} == {
        "1": State.RUNNING, "2": State.WAITING,
    }  # fmt: skip
    assert "--jobs=1,2,3" in run.called[0]
    assert engine.statuses({"3": Path("/a/3")}) == {}  # forgotten
    assert engine.statuses({"not-a-job": Path("/a"), "--name=cats": Path("/a")}) == {}  # and nothing is asked


@pytest.mark.parametrize(
    "answer",
    [
        (1, "", "squeue: error: slurm_load_jobs error: Unable to contact slurm controller"),
        (1, "", "squeue: fatal: Unable to process configuration file"),
        (-9, "", ""),  # ended by the kernel, for one
    ],
)
def test_a_question_that_fails_tells_nothing_of_a_job(answer: tuple[int, str, str]) -> None:
    with pytest.raises(EngineAway):
        Slurm(run=Commands(answer)).statuses({"3": Path("/a")})


@pytest.mark.security
def test_what_works_in_another_folder_is_another_job_and_is_not_cancelled(tmp_path: Path) -> None:
    """An id comes from a file, which may be damaged, or a stranger's that names a job of the user's thesis."""
    (tmp_path / "link").symlink_to(tmp_path)
    told = f"7|RUNNING|n1|None|{tmp_path}/jobs/1\n8|RUNNING|n1|None|/home/me/thesis\n"
    run = Commands((0, told, ""), (0, "", ""), (0, told, ""))
    folder = tmp_path / "link" / "jobs" / "1"
    Slurm(run=run).cancel({"7": folder, "8": folder, "--name=cats": folder})
    Slurm(run=run).cancel({"8": folder})
    assert [command for command in run.called if command[0] != "squeue"] == [("scancel", "--quiet", "7")]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("timeout_min", "abc", "a whole number of minutes, 1 or more"),
        ("timeout_min", -5, "a whole number of minutes"),
        ("cpus_per_task", 0, "a whole number of cores"),
        ("signal_delay_s", 1.5, "a whole number of seconds"),
        ("mem_gb", "lots", "a number of GB"),
        ("mem_gb", 0.0001, "a number of GB"),
        ("setup", "hello", "a list of shell"),
    ],
)
def test_a_value_of_another_kind_is_refused(key: str, value: object, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{key} must be {said}.*; got {value!r}"):
        Slurm.from_launcher({key: value})


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("COMPLETED", Kind.LOST),
        ("FAILED", Kind.LOST),
        ("CANCELLED", Kind.LOST),
        ("NODE_FAIL", Kind.LOST),
        ("BOOT_FAIL", Kind.LOST),
        ("TIMEOUT", Kind.LOST),
        ("DEADLINE", Kind.LOST),
        ("PREEMPTED", Kind.INTERRUPTED),
        ("OUT_OF_MEMORY", Kind.OUT_OF_MEMORY),
    ],
)
def test_how_a_job_ended_is_never_the_tasks_failure(state: str, kind: Kind) -> None:
    status = parse(f"7|{state}|n1|NonZeroExitCode|/a\nrubbish\n|||\n||||\n", {"7": Path("/a")})["7"]
    assert (status.state, status.kind, status.cancelled) == (State.ENDED, kind, state == "CANCELLED")
    assert status.message == f"Job 7 of SLURM ended as {state} (NonZeroExitCode) on n1."
