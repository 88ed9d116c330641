"""What hydra-optuna-sweeper shows in its examples, with the sweeper's name as the only change.

The apps are ours, of the same kind: a sphere, several objectives, a space extended in Python, a grid.
"""

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from tests.starting import Running, Warm

APP = '''
import hydra

@hydra.main(config_path=".", config_name="config")
def app(cfg):
    """The example's objective."""
    return {objective}

def configure(cfg, trial):
    """The example's extension of the space."""
    trial.suggest_float("z", trial.params["x"] - cfg.reach, trial.params["x"] + cfg.reach)

if __name__ == "__main__":
    app()
'''
CONFIG = """
defaults:
  - override hydra/sweeper: {sweeper}
  - override hydra/sweeper/sampler: {sampler}
hydra:
  sweep: {{dir: out}}
  sweeper:
    sampler: {{seed: 123}}
    direction: {direction}
    study_name: example
    storage: null
    n_trials: 12
    n_jobs: 1
    params:
      x: {x}
      y: choice(-5, 0, 5)
    {extra}
x: 1
y: 1
z: 0
reach: 0.5
"""
SPHERE = "cfg.x**2 + cfg.y**2"


def results(
    warm: Warm, place: Path, sweeper: str, sampler: str = "tpe", objective: str = SPHERE, direction: str = "minimize",
    x: str = "range(-5.5, 5.5, 0.5)", extra: str = "",
) -> DictConfig:  # fmt: skip
    folder = place / sweeper
    folder.mkdir(parents=True)
    (folder / "example.py").write_text(APP.format(objective=objective))
    config = CONFIG.format(sweeper=sweeper, sampler=sampler, direction=direction, x=x, extra=extra)
    (folder / "config.yaml").write_text(config)
    done = Running(warm, folder / "example.py", folder, ["-m"], folder / "logs").done()
    assert done.returncode == 0, done.stderr
    written = OmegaConf.load(folder / "out/optimization_results.yaml")
    assert isinstance(written, DictConfig)
    return written


def test_a_sphere(warm: Warm, tmp_path: Path) -> None:
    stock, ours = (results(warm, tmp_path, sweeper) for sweeper in ("optuna", "steady"))
    assert ours.keys() == stock.keys()
    assert ours.best_params.keys() == stock.best_params.keys()
    assert ours.best_value == pytest.approx(ours.best_params.x**2 + ours.best_params.y**2)


def test_several_objectives(warm: Warm, tmp_path: Path) -> None:
    several = {"objective": "(cfg.x**2, (cfg.x - 2) ** 2)", "direction": "[minimize, minimize]"}
    stock, ours = (results(warm, tmp_path, sweeper, "nsgaii", **several) for sweeper in ("optuna", "steady"))
    assert ours.keys() == stock.keys()
    assert ours.solutions[0].keys() == stock.solutions[0].keys()
    for solution in ours.solutions:
        assert solution["values"] == pytest.approx([solution.params.x**2, (solution.params.x - 2) ** 2])


def test_a_space_extended_in_python(warm: Warm, tmp_path: Path) -> None:
    ours = results(
        warm, tmp_path, "steady", objective=f"{SPHERE} + cfg.z**2", extra="custom_search_space: example.configure"
    )
    assert set(ours.best_params) == {"x", "y", "z"}
    assert abs(ours.best_params.z - ours.best_params.x) <= 0.5


def test_a_grid_is_walked_and_gives_the_same_file(warm: Warm, tmp_path: Path) -> None:
    grids = [results(warm, tmp_path, sweeper, "grid", x="choice(-1, 2, 3, 4)") for sweeper in ("optuna", "steady")]
    assert grids[0] == grids[1] == {"name": "optuna", "best_params": {"x": -1, "y": 0}, "best_value": 1.0}
