"""SLURM's commands as they are called, and what they say, without a SLURM."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra_plugins.hydra_submitit_launcher.config import SlurmQueueConf
from omegaconf import OmegaConf

from steady.exceptions import ConfigError
from steady.jobs.engine import EngineAway, State
from steady.jobs.slurm import Slurm, parse
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
    assert (tmp_path / "job.sh").read_text() == "#!/bin/bash\nmodule load cuda\nexec python -m 'a b'\n"
    [command] = run.called
    assert {"--parsable", "--no-requeue", "--job-name=cats", f"--output={tmp_path}/engine.log"} <= set(command)
    assert (command[0], command[-2:]) == ("sbatch", ("--time=5", str(tmp_path / "job.sh")))
    assert run.environment["SLURM_CONF"] == "slurm.conf"
    assert not {"SLURM_JOB_ID", "CUDA_VISIBLE_DEVICES"} & set(run.environment)


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((1, "", "sbatch: error: invalid partition specified: gpu"), ConfigError, "no such job: invalid partition"),
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


def test_a_slurm_that_is_not_installed_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="need its scancel, which is not here"):
        Slurm().cancel(["1"])


def test_all_states_are_asked_for_at_once() -> None:
    run = Commands(
        (0, "1|RUNNING|n1|None\n2|PENDING||Resources\n", ""), (1, "", "slurm_load_jobs error: Invalid job id")
    )
    engine = Slurm(run=run)
    assert {id: status.state for id, status in engine.statuses(["1", "2", "3"]).items()} == {
        "1": State.RUNNING, "2": State.WAITING,
    }  # fmt: skip
    assert "--jobs=1,2,3" in run.called[0]
    assert engine.statuses(["3"]) == {}  # forgotten
    assert engine.statuses(["not-a-job", "--name=cats"]) == {}  # and nothing is asked


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
        Slurm(run=Commands(answer)).statuses(["3"])


def test_only_numbers_are_cancelled() -> None:
    run = Commands((0, "", ""))
    Slurm(run=run).cancel(["--name=cats", "7", "8_1", "7 8"])
    assert run.called == [("scancel", "--quiet", "7", "8_1")]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("mem_gb", "lots", "a number of GB"), ("mem_gb", 0.0001, "a number of GB"), ("setup", "hello", "a list of shell")],
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
    status = parse(f"7|{state}|n1|NonZeroExitCode\nrubbish\n|||\n")["7"]
    assert (status.state, status.kind, status.cancelled) == (State.ENDED, kind, state == "CANCELLED")
    assert status.message == f"Job 7 of SLURM ended as {state} (NonZeroExitCode) on n1."
