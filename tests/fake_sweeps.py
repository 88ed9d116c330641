"""Studies and their run folders, made in milliseconds: real Optuna, no training."""

import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState, create_trial

OBJECTIVES = ("val/fid", "val/ssim")


def write_checkpoint(file: Path, text: str) -> None:
    """A whole checkpoint of one record, as far as a file tells that it is whole."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights", text)


@dataclass(frozen=True)
class Project:
    """A project's folder, in which studies are made."""

    folder: Path
    empty_database: Path

    @property
    def sweeps(self) -> Path:
        return self.folder / "sweeps"

    @property
    def outputs(self) -> Path:
        return self.folder / "outputs"

    def create_study(
        self,
        name: str,
        directions: Sequence[Literal["minimize", "maximize"]],
        names: Sequence[str] | None,
        place: str,
    ) -> optuna.Study:
        """An empty study of named objectives, in a database that may have others."""
        database = self.sweeps / place / "study.db"
        if not database.exists():
            database.parent.mkdir(parents=True)
            shutil.copyfile(self.empty_database, database)
        study = optuna.create_study(study_name=name, storage=f"sqlite:///{database}", directions=list(directions))
        if names is not None:
            # What Study.set_metric_names does, which warns that it is experimental.
            study._storage.set_study_system_attr(study._study_id, "study:metric_names", list(names))
        return study


class Sweep(Project):
    """A fake sweep, and how to make more of it."""

    def study(
        self,
        name: str,
        values: Sequence[Sequence[float] | TrialState],
        directions: Sequence[Literal["minimize", "maximize"]] = ("minimize", "maximize"),
        names: Sequence[str] | None = None,
        study_name: str | None = None,
    ) -> optuna.Study:
        """A study with one trial per entry: its values, or the state it ended in without any."""
        study = self.create_study(study_name or name, directions, names, name)
        for number, value in enumerate(values):
            space: dict[str, BaseDistribution] = {"optimizer.lr": optuna.distributions.FloatDistribution(0, 1)}
            params = {"optimizer.lr": 1 / (number + 3)}
            state, told = (value, None) if isinstance(value, TrialState) else (TrialState.COMPLETE, list(value))
            study.add_trial(create_trial(state=state, values=told, params=params, distributions=space))
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
        write_checkpoint(run / "checkpoints" / "best.ckpt", f"weights of {study}/{number}")
        for epoch in (5, 10, 15):
            (run / "samples" / f"epoch_{epoch:04d}.png").write_text(f"drawn at {epoch}")
        return run

    def with_runs(self, name: str, values: Sequence[Sequence[float]]) -> None:
        """A study whose trials all finished, each with its run folder."""
        self.study(name, values)
        for number, value in enumerate(values):
            self.run(name, number, value)


JUDGE = {
    "metric": "fid", "extractor": "dinov2_vits14", "weights_sha256": "d1" * 32, "resize": "bicubic to 224",
    "dtype": "float32", "reference_digest": "ab" * 32, "reference_size": 90, "samples": 256, "seed": 0,
    "settings": {}, "versions": {"onnxruntime": "1.27"},
}  # fmt: skip


def judged_as(run: Path, fid: float, photos: float = 42.5, recorded: dict | None = None, **card: object) -> None:
    """Leave what the judge leaves in the folder of a run: its `judge.json`, of the scores that the run has."""
    scores = {"judge/fid": fid, "judge/recall": 0.25, "judge/coverage": 0.375, "judge/copied": 0.0625}
    (run / "judge.json").write_text(
        json.dumps(
            {
                "scores": scores,
                "cards": {name: {**JUDGE, "metric": name.partition("/")[2], **card} for name in scores},
                "reference": {"judge/fid": photos, "judge/recall": 0.875, "val/fid": 5.5},
                "recorded": recorded or json.loads((run / "metrics.json").read_text())["scores"],
            }
        )
    )
