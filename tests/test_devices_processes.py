"""Who starts a run's processes: nobody else, unless they are as many as `trainer` asks for."""

from collections.abc import Callable
from pathlib import Path

import pytest
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities import rank_zero
from omegaconf import DictConfig, OmegaConf
from tests import hostile

from catsweep import devices
from catsweep.errors import ConfigError
from catsweep.training import fit


@pytest.fixture(autouse=True)
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that was imported with `SLURM_PROCID=1`."""
    monkeypatch.setattr(rank_zero.rank_zero_only, "rank", 1)


def rank() -> int:
    return vars(rank_zero.rank_zero_only)["rank"]


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
    assert rank() == 0


TASKS = hostile.SLURM | {"SLURM_NTASKS_PER_NODE": "1"}


@pytest.mark.parametrize("trainer", [{"devices": 2}, {"devices": 1, "num_nodes": 2}, {"devices": "auto"}])
def test_tasks_of_slurm_are_the_processes_if_they_are_as_many(
    monkeypatch: pytest.MonkeyPatch, trainer: dict[str, object]
) -> None:
    around(monkeypatch, TASKS)
    assert chosen(**trainer) is SLURMEnvironment
    assert rank() == 1


@pytest.mark.parametrize("changed", [{"SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, {"SLURM_JOB_NAME": "interactive"}])
def test_a_job_of_one_task_starts_its_processes_itself(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str]
) -> None:
    around(monkeypatch, TASKS | changed)
    assert chosen(devices=2) is LightningEnvironment
    assert rank() == 0
    monkeypatch.setenv("LOCAL_RANK", "1")  # as the second of them has it
    assert chosen(devices=2) is LightningEnvironment
    assert rank() == 1


def test_processes_of_torchrun_are_the_runs_own(monkeypatch: pytest.MonkeyPatch) -> None:
    around(monkeypatch, hostile.SLURM | hostile.TORCHRUN)
    assert chosen(devices=2) is TorchElasticEnvironment
    assert rank() == 1


@pytest.mark.parametrize(
    ("trainer", "unknown"), [({"devices": 2}, 1), ({"devices": [0, 1]}, 1), ({"devices": "auto"}, 2)]
)
def test_a_trial_of_a_sweep_starts_no_further_processes(
    monkeypatch: pytest.MonkeyPatch, trainer: dict[str, object], unknown: int
) -> None:
    asked = OmegaConf.create({"accelerator": "auto", **trainer})
    with pytest.raises(ConfigError, match=r"A trial of a sweep is one process, but trainer.devices=.* asks for 2"):
        devices.require_one_process(asked, unknown)
    around(monkeypatch, TASKS)  # two that srun has started
    devices.require_one_process(asked, unknown)


@pytest.mark.parametrize("trainer", [{"devices": 1}, {"devices": "auto", "accelerator": "cpu"}, {"devices": "auto"}])
def test_a_trial_of_one_process_is_taken(trainer: dict[str, object]) -> None:
    devices.require_one_process(OmegaConf.create({"accelerator": "auto", **trainer}), unknown=1)


def test_a_trial_that_would_start_others_ends_before_it_leaves_anything(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = compose("trainer=ddp", "trainer.accelerator=cpu", "trial.number=0", "trial.study=s", "logger=none")
    with pytest.raises(ConfigError, match="A trial of a sweep is one process"):
        fit.run(cfg, tmp_path)
    assert list(tmp_path.iterdir()) == []
