"""Who starts a run's processes: nobody else, unless they are as many as `trainer` asks for."""

import pytest
from lightning_fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning_fabric.utilities.rank_zero import rank_zero_only
from omegaconf import OmegaConf
from tests import hostile

from catsweep import devices


@pytest.fixture(autouse=True)
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was imported with `SLURM_PROCID=1`."""
    monkeypatch.setattr(rank_zero_only, "rank", 1)


def chosen(**trainer: object) -> type:
    return type(devices.environment(OmegaConf.create(trainer)))


def around(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("variables", [{}, hostile.SLURM, hostile.TORCHRUN, hostile.SLURM | hostile.TORCHRUN])
@pytest.mark.parametrize("devices", [1, "1", [0]])
def test_one_process_is_alone_wherever_it_runs(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], devices: object
) -> None:
    around(monkeypatch, variables)
    assert chosen(devices=devices) is LightningEnvironment
    assert rank_zero_only.rank == 0


TASKS = hostile.SLURM | {"SLURM_NTASKS_PER_NODE": "1"}


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": 1, "num_nodes": 2}, {"devices": "auto"}])
def test_tasks_of_slurm_are_the_processes_if_they_are_as_many(
    monkeypatch: pytest.MonkeyPatch, trainer: dict[str, object]
) -> None:
    around(monkeypatch, TASKS)
    assert chosen(**trainer) is SLURMEnvironment
    assert rank_zero_only.rank == 1


@pytest.mark.parametrize("changed", [{"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"SLURM_JOB_NAME": "interactive"}])
def test_a_job_of_one_task_starts_its_processes_itself(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    around(monkeypatch, TASKS | changed)
    assert chosen(devices=2) is LightningEnvironment
    assert rank_zero_only.rank == 0
    monkeypatch.setenv("LOCAL_RANK", "1")  # as the second of them has it
    assert chosen(devices=2) is LightningEnvironment
    assert rank_zero_only.rank == 1


def test_processes_of_torchrun_are_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    around(monkeypatch, hostile.SLURM | hostile.TORCHRUN)
    assert chosen(devices=2) is TorchElasticEnvironment
    assert rank_zero_only.rank == 1
