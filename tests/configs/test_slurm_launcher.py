"""`hydra/launcher=slurm`: every key is one that jobs of SLURM honour, or leave to the cluster."""

from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from tests.test_readme import CONF

from steady.jobs.slurm import OPTIONS, READ, Slurm
from steady.run.job_factory import ENGINES


def test_its_keys_are_those_of_jobs() -> None:
    words = ["hydra/launcher=slurm", "hydra/sweeper=steady", "study=cats", "hydra.launcher.gres=gpu:1"]
    with initialize_config_dir(str(CONF)):
        launcher = compose("train", overrides=words, return_hydra_config=True).hydra.launcher
    keys: Any = OmegaConf.to_container(launcher, resolve=True)
    assert Slurm.from_launcher(keys).options == (
        "--time=240", "--cpus-per-task=4", "--gres=gpu:1", "--signal=B:TERM@120",
    )  # fmt: skip
    assert keys["_target_"] in ENGINES
    assert keys["name"] == "cats"
    assert keys.keys() == {*OPTIONS, *READ, "_target_", "name", "python"}
