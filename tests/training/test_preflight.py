"""What is known before the first trial."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from catsweep.errors import CatsweepError, ConfigError
from catsweep.training.preflight import facts


def test_the_facts_are_the_datas_digest_and_how_scores_are_taken(compose: Callable[..., DictConfig]) -> None:
    found = facts(compose("objective=[val/fid,val/ssim]"))
    assert set(found) == {"data", "cards"}
    assert set(found["cards"]) == {"val/fid", "val/ssim"}
    assert all("versions" not in card for card in found["cards"].values())
    assert found == facts(compose("objective=[val/fid,val/ssim]", "seed=5", "depth=medium"))
    other = facts(compose("objective=[val/fid]", "data.reader.n=97"))
    assert other["data"] != found["data"]
    assert other["cards"]["val/fid"] != found["cards"]["val/fid"]


def test_what_no_trial_could_use_is_refused(compose: Callable[..., DictConfig]) -> None:
    with pytest.raises(CatsweepError):
        facts(compose("loss=hinge"))


class Two:
    """Two configurations of a search: one that works, one that does not."""

    elsewhere = False

    def __init__(self, *configurations: DictConfig) -> None:
        self.configurations = configurations

    def problems(self, attempt: Callable[[DictConfig], list[str]]) -> list[str]:
        return [line for cfg in self.configurations for line in attempt(cfg)]


@pytest.mark.security
def test_what_the_search_could_not_run_with_is_refused_all_at_once(compose: Callable[..., DictConfig]) -> None:
    sound = compose("loss=l1")
    assert facts(compose(), Two(sound)) == facts(compose())  # type: ignore[arg-type]
    wrong = Two(sound, compose("loss=hinge"), compose("objective=[val/nope]"))
    with pytest.raises(ConfigError, match=r"(?s)No trial could run with:\n.*adversarial.*val/nope"):
        facts(compose(), wrong)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_controller_without_a_gpu_may_search_on_machines_that_have_one(compose: Callable[..., DictConfig]) -> None:
    sweep = Two(compose("trainer=gpu"), compose("trainer=gpu", "trainer.precision=16-mixed"))
    with pytest.raises(ConfigError, match="needs a GPU"):
        facts(compose(), sweep)  # type: ignore[arg-type]
    sweep.elsewhere = True
    assert facts(compose("trainer=gpu"), sweep) == facts(compose())  # type: ignore[arg-type]
    wrong = Two(compose("trainer=gpu", "loss=hinge"))
    wrong.elsewhere = True
    with pytest.raises(ConfigError, match=r"(?s)No trial could run with:\n.*adversarial"):
        facts(compose(), wrong)  # type: ignore[arg-type]


def test_the_warm_parent_of_trials_imports_what_they_train_with(root: Path) -> None:
    preload = OmegaConf.load(root / "conf/hydra/sweeper/steady.yaml").preload
    code = f"import sys, {', '.join(preload)}; print({{'torch', 'pytorch_lightning'}} <= sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root / "src")
    assert done.stdout.strip() == "True"
