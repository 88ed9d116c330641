"""`wandb sweep sweeps/wandb_vae.yaml`: W&B's own sweep runs our training, here with its agent's own code, offline."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import optuna
import pytest
import yaml
from hydra import compose as compose_config
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args
from wandb.sdk.lib import config_util
from wandb.sdk.sweeps.run_state import RunState
from wandb.sdk.sweeps.scheduler.optimizer import RunWithMetrics, make_optimizer
from wandb.sdk.sweeps.scheduler.optuna import OptunaOptimizer, sweep_parameter_to_distribution
from wandb.sdk.sweeps.sweep_info import SweepInfo

from catsweep.training import fit
from steady.propose.space import Space

SWEEP = "sweeps/wandb_vae.yaml"
BUDGET = {"model", "epochs", "minutes", "eval_every"}
STANDING = {"model.beta_warmup", "model.aggregate_prior"}  # set by our search's file, and not searched; betas, too


@pytest.fixture(scope="module")
def sweep(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((root / SWEEP).read_text())  # as wandb reads it, which leaves it open
    return found


def test_it_searches_what_our_own_sweep_does_under_the_same_budget(root: Path, sweep: dict[str, Any]) -> None:
    with initialize_config_dir(str(root / "conf")):
        ours = compose_config("train", overrides=["hparams_search=vae_optuna"], return_hydra_config=True)
    params: Any = OmegaConf.to_container(ours.hydra.sweeper.params)
    space = Space.parse(params, [], {}, None)
    # Read as wandb's own scheduler for Optuna reads it.
    theirs = {name: sweep_parameter_to_distribution(node) for name, node in sweep["parameters"].items()}
    for name in BUDGET - {"model"}:
        assert sweep["parameters"][name] == {"value": ours[name]}
    assert f"optimizer.betas={list(ours.optimizer.betas)}".replace(" ", "") in sweep["command"]
    for name in STANDING:
        assert sweep["parameters"][name] == {"value": OmegaConf.select(ours, name)}
    assert {name: one for name, one in theirs.items() if name not in BUDGET | STANDING} == space.parameters


def test_it_optimises_the_scores_that_our_sweep_does(sweep: dict[str, Any], root: Path) -> None:
    search = OmegaConf.load(root / "conf/hparams_search/vae_optuna.yaml")
    assert [one["name"] for one in sweep["metrics"]] == list(search.objective)
    assert [one["goal"] for one in sweep["metrics"]] == list(search.hydra.sweeper.direction)
    assert "metric" not in sweep  # wandb-core refuses both
    assert sweep["method"] == "random"
    assert (root / sweep["program"]).is_file()
    assert sweep["run_cap"] == OmegaConf.load(root / "conf/hparams_search/vae_optuna.yaml").trials


def test_wandbs_scheduler_drives_optuna_by_it(
    sweep: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `wandb sweep-scheduler`, which needs an account for the runs between ask and tell."""
    monkeypatch.chdir(root)
    optimizer = make_optimizer(SweepInfo("abc123", "vae", "me", "catsweep", sweep, "run"))
    assert isinstance(optimizer, OptunaOptimizer)
    assert isinstance(optimizer.study.sampler, optuna.samplers.TPESampler)
    asked = list(optimizer.ask_n_runs(3) or ())
    assert len({json.dumps(one.config.flat_dict()) for one in asked}) == 3
    told = [{"val/fid": 90.0, "val/ssim": 0.5}, {"val/fid": 80.0, "val/ssim": 0.4}, {"val/fid": 95.0, "val/ssim": 0.3}]
    for one, summary in zip(asked, told, strict=True):
        assert set(one.config.flat_dict()) == set(sweep["parameters"])
        optimizer.tell_run(one.run_id, RunWithMetrics(one.config, RunState.FINISHED, one.run_id, summary, []))
    assert {trial.number for trial in optimizer.study.best_trials} == {0, 1}


def agents_command(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What `wandb agent` starts, see `wandb.wandb_agent.Agent._command_run`."""
    arguments = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    own = {"env": ["/usr/bin/env"], "interpreter": [sys.executable], "program": [sweep["program"]]}
    words: list[str] = []
    for word in create_sweep_command(list(sweep["command"])):
        words += {**arguments, **own}[word[2:-1]] if word.startswith("${") else [word]
    return words


def drawn(sweep: dict[str, Any], which: int) -> dict[str, Any]:
    """One configuration: of each list one, of each range an end."""
    return {
        name: node["value"] if "value" in node else node["values"][which] if "values" in node else node["min"]
        for name, node in sweep["parameters"].items()
    }


@pytest.mark.parametrize("which", [0, -1])
def test_each_configuration_composes(root: Path, sweep: dict[str, Any], which: int) -> None:
    words = [word for word in agents_command(sweep, drawn(sweep, which)) if "=" in word]
    with initialize_config_dir(str(root / "conf")):
        cfg = compose_config("train", overrides=words)
    assert cfg.optimizer._target_ == ("torch.optim.Adam" if which == 0 else "torch.optim.AdamW")
    assert cfg.optimizer.lr == pytest.approx(3e-4)


@pytest.mark.trains
def test_a_run_of_an_agent_is_the_agents_and_scores_as_one_without_a_logger(
    root: Path,
    sweep: dict[str, Any],
    compose: Callable[..., DictConfig],
    tmp_path: Path,
    read_all: Callable[[Path], list[Any]],
) -> None:
    tiny = compose()
    values = {
        **drawn(sweep, 0), "epochs": 1, "minutes": "null", "eval_every": 1,
        "data.batch_size": 8, "data.reader.n": 20, "data.size": 32, "data.root": tiny.data.root,
        "width.channels": 4, "model.latent_size": 8, "trainer.threads": 1, "trainer.precision": "32-true",
        "metrics.cache_root": tiny.metrics.cache_root, "metrics.samples": 8, "metrics.rung_samples": 8,
        "metrics.extractor.backend": "torch",
    }  # fmt: skip
    chosen = tmp_path / "wandb" / "sweep-abc123" / "config-run456.yaml"
    config_util.save_config_file_from_dict(str(chosen), {name: {"value": v} for name, v in values.items()})
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "HYDRA_"))}
    done = subprocess.run(
        agents_command({**sweep, "program": str(root / sweep["program"])}, values),
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        env=environment | {
            "WANDB_SWEEP_ID": "abc123", "WANDB_RUN_ID": "run456", "WANDB_SWEEP_PARAM_PATH": str(chosen),
            "WANDB_MODE": "offline", "WANDB_CONFIG_DIR": str(tmp_path / "c"), "NETRC": str(tmp_path / "netrc"),
            "OMP_NUM_THREADS": "1",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "wandb" not in (done.stdout + done.stderr).lower()

    [record] = read_all(tmp_path / "outputs")
    assert (record.run["run_id"], record.run["sweep_id"]) == ("run456", "abc123")
    assert "run_group" not in record.run
    assert record.run["job_type"] == "trial"
    assert record.run["tags"] == ["vae", "demo_cats", "mse"]
    [folder] = (tmp_path / "outputs/runs").glob("*/*")
    scores = json.loads((folder / "metrics.json").read_text())["scores"]
    assert {name: record.summary[name] for name in ("val/fid", "val/ssim")} == {
        name: scores[name] for name in ("val/fid", "val/ssim")
    }  # what W&B optimises
    assert record.history[-1]["val/fid"] == scores["val/fid"]
    assert record.config["choices"]["loss"] == "mse"
    assert record.exit_code == 0

    # The same run without a logger. tests/tracking/test_loggers.py compares all of them, on a smaller model.
    literal = [word for word in sweep["command"] if not word.startswith("${")]
    words = [*literal, *(f"{name}={value}" for name, value in values.items())]
    with initialize_config_dir(str(root / "conf")):
        fit.run(hydra.compose("train", overrides=[*words, "logger=none", "metrics/judge=none"]), tmp_path / "none")
    assert json.loads((tmp_path / "none" / "metrics.json").read_text())["scores"] == scores
