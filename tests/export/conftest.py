"""Studies and run folders, made in milliseconds: real Optuna, real models, no training."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from optuna.trial import TrialState, create_trial

from catsweep.instantiation import instantiate

TINY = ("data.size=32", "depth=shallow", "width.channels=4", "model.latent_size=8")
OBJECTIVES = ("val/fid", "val/ssim")


@dataclass(frozen=True)
class Sweep:
    """Where a fake sweep is, and how to make more of it."""

    folder: Path
    empty_database: Path

    @property
    def sweeps(self) -> Path:
        return self.folder / "sweeps"

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def study(
        self,
        name: str,
        values: Sequence[Sequence[float] | TrialState],
        directions: Sequence[str] = ("minimize", "maximize"),
        names: Sequence[str] | None = None,
        study_name: str | None = None,
    ) -> optuna.Study:
        """A study with one trial per entry: its values, or the state it ended in without any."""
        database = self.sweeps / name / "study.db"
        if not database.exists():
            database.parent.mkdir(parents=True)
            shutil.copyfile(self.empty_database, database)
        study = optuna.create_study(
            study_name=study_name or name, storage=f"sqlite:///{database}", directions=list(directions)
        )
        for number, value in enumerate(values):
            space = {"optimizer.lr": optuna.distributions.FloatDistribution(0, 1)}
            params = {"optimizer.lr": 1 / (number + 3)}
            state, told = (value, None) if isinstance(value, TrialState) else (TrialState.COMPLETE, list(value))
            study.add_trial(create_trial(state=state, values=told, params=params, distributions=space))
        if names is not None:
            # What Study.set_metric_names does, which warns that it is experimental.
            study._storage.set_study_system_attr(study._study_id, "study:metric_names", list(names))
        return study

    def run(self, study: str, number: int | str, values: Sequence[float], names: Sequence[str] = OBJECTIVES) -> Path:
        """A finished run folder with these scores."""
        run = self.outputs / study / str(number)
        (run / "checkpoints").mkdir(parents=True)
        (run / "samples").mkdir()
        (run / "config.yaml").write_text(f"objective: {json.dumps(list(names))}\n")
        scores = dict(zip(names, values, strict=True)) | {"val/kid": 0.5}
        (run / "metrics.json").write_text(json.dumps({"scores": scores, "checkpoint": "best", "epoch": 10}))
        (run / "provenance.json").write_text(json.dumps({"seed": 0}))
        (run / "checkpoints" / "best.ckpt").write_text(f"weights of {study}/{number}")
        for epoch in (5, 10, 15):
            (run / "samples" / f"epoch_{epoch:04d}.png").write_text(f"drawn at {epoch}")
        return run

    def with_runs(self, name: str, values: Sequence[Sequence[float]]) -> None:
        """A study whose trials all finished, each with its run folder."""
        self.study(name, values)
        for number, value in enumerate(values):
            self.run(name, number, value)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Optuna's tables without a study: making them takes ten times as long as all the rest of a test."""
    path = tmp_path_factory.mktemp("optuna") / "empty.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def sweep(tmp_path: Path, empty_database: Path) -> Sweep:
    """An empty project."""
    return Sweep(tmp_path, empty_database)


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture
def run_of(tmp_path: Path, root: Path) -> Callable[..., Path]:
    """Makes the folder of a finished run, whose model is as configured but has never been trained."""

    def make(*overrides: str, name: str = "outputs/runs/2026-01-02/03-04-05") -> Path:
        with initialize_config_dir(str(root / "conf")):
            cfg = compose("train", [*TINY, *overrides])
        torch.manual_seed(0)
        model = instantiate(cfg.model)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):  # as if it had seen images: an export that forgets it shows
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
        run = tmp_path / name
        (run / "checkpoints").mkdir(parents=True)
        loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 10}}}}  # as Lightning counts epochs
        torch.save({"state_dict": model.state_dict(), "loops": loops}, run / "checkpoints" / "best.ckpt")
        OmegaConf.save(
            OmegaConf.create({"model": OmegaConf.to_container(cfg.model, resolve=True)}), run / "config.yaml"
        )
        card = {"extractor": "efficientnet_lite0", "samples": 512}
        metrics = {"scores": {"val/fid": 76.54321}, "cards": {"val/fid": card}, "checkpoint": "best", "epoch": 10}
        (run / "metrics.json").write_text(json.dumps(metrics))
        (run / "provenance.json").write_text(json.dumps({"seed": 0, "git": {"commit": "abc"}}))
        return run

    return make
