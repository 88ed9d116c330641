"""Studies and run folders, made in milliseconds: real Optuna, real models, no training."""

import contextlib
import functools
import io
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tests.fake_sweeps import judged_as

from catsweep.export import bundle, graphs
from catsweep.instantiation import instantiate, trusting
from catsweep.runs import load_run

ROOT = Path(__file__).resolve().parents[2]
RESIDUAL = ("model=vae", "block=residual", "normalization=group", "activation=silu", "model.aggregate_prior=true")
TINY = ("data.size=32", "depth=shallow", "width.channels=4", "model.latent_size=8")


@pytest.fixture(autouse=True, scope="session")
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def make_run(folder: Path, root: Path, *overrides: str, **records: dict) -> Path:
    """The folder of a finished run, whose model is as configured but has never been trained.

    Args:
        folder: where to.
        root: the project's.
        overrides: of its configuration.
        records: more nodes of its configuration, `data` and `metrics`.
    """
    with initialize_config_dir(str(root / "conf")):
        cfg = compose("train", [*TINY, *overrides])
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # as if it had seen images: an export that forgets it shows
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    (folder / "checkpoints").mkdir(parents=True)
    loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 10}}}}  # as Lightning counts epochs
    torch.save({"state_dict": model.state_dict(), "loops": loops}, folder / "checkpoints" / "best.ckpt")
    nodes = {"model": OmegaConf.to_container(cfg.model, resolve=True), **records}
    OmegaConf.save(OmegaConf.create(nodes), folder / "config.yaml")
    card = {"extractor": "efficientnet_lite0", "samples": 512}
    metrics = {"scores": {"val/fid": 76.54321}, "cards": {"val/fid": card}, "checkpoint": "best", "epoch": 10}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "provenance.json").write_text(json.dumps({"seed": 0, "git": {"commit": "abc"}}))
    return folder


@pytest.fixture
def run_of(tmp_path: Path, root: Path) -> Callable[..., Path]:
    """Makes the folder of a finished run with the given overrides."""

    def make(*overrides: str, name: str = "outputs/runs/2026-01-02/03-04-05") -> Path:
        return make_run(tmp_path / name, root, *overrides)

    return make


def ready_of(run: Path) -> str:
    """Where the ready set of `chosen_vae` is."""
    return str(run.parents[1] / "ready")


OWN = ("catsweep.metrics.*", "torch.nn.*")  # trust=[…] of the command line: the metrics below are not of conf/


@pytest.fixture(autouse=True)
def _trusted_metrics() -> Iterator[None]:
    with trusting(OWN):
        yield


# Takes means over blocks of pixels for features: no weights, and as fast as it looks.
METRICS = {
    "_target_": "catsweep.metrics.scorer.Scorer",
    "_partial_": True,
    "extractor": {
        "_target_": "catsweep.metrics.extractors.Extractor",
        "network": {
            "_target_": "torch.nn.Sequential",
            "_args_": [{"_target_": "torch.nn.AvgPool2d", "kernel_size": 8}, {"_target_": "torch.nn.Flatten"}],
        },
        "name": "blocks",
        "num_features": 48,
        "weights_sha256": "00",
        "size": 32,
        "resize": "none",
        "backend": "torch",
    },
    "samples": 24,
    "rung_samples": 8,
    "seed": 0,
    "batch_size": 16,
}


@dataclass(frozen=True)
class Exported:
    """A run, its bundle, and what was printed while it was exported."""

    run: Path
    folder: Path
    said: str

    def json(self, name: str) -> dict:
        return json.loads((self.folder / name).read_text())


def export_config(run: Path, out: Path, **keys: object) -> DictConfig:
    """conf/export.yaml for a run, without intervals unless they are asked for."""
    given: dict[Any, Any] = {"run": str(run), "out": str(out), "draws": 0, **keys}
    merged = OmegaConf.merge(_export_keys(), given)
    assert isinstance(merged, DictConfig)
    return merged


@functools.cache
def _export_keys() -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("export", ["metrics/judge=none"])


def exported(run: Path, out: Path, **keys: object) -> Exported:
    with contextlib.redirect_stdout(io.StringIO()) as said, trusting(OWN):
        folder = bundle.run(export_config(run, out, **keys))
    return Exported(run, folder, said.getvalue())


@pytest.fixture
def export() -> Callable[..., Exported]:
    """Exports a run: `export(run, out, **keys of conf/export.yaml)`."""
    return exported


@pytest.fixture(scope="session")
def chosen_vae(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A VAE that was chosen from a study and scored for real, on drawn cats."""
    place = tmp_path_factory.mktemp("chosen")
    data = {
        "_target_": "catsweep.data.datamodule.CatDataModule",
        "reader": {"_target_": "catsweep.data.sources.DemoCats", "n": 40, "seed": 0},
        "size": 32,
        "root": str(place / "ready"),
        "val_fraction": 0.25,
        "source": None,
    }
    metrics = METRICS | {"cache_root": str(place / "statistics")}
    run = make_run(place / "outputs/best_model", root, *RESIDUAL, data=data, metrics=metrics)
    ready = instantiate(OmegaConf.create(data)).ready
    scorer = instantiate(OmegaConf.create(metrics))(ready=ready)
    scores, cards = scorer.final(load_run(run)[0])
    record = {"cards": {name: card.to_dict() for name, card in cards.items()}, "checkpoint": "best", "epoch": 10}
    (run / "metrics.json").write_text(json.dumps({"scores": scores, **record}))
    judged_as(run, 95.125)
    command = ["src/train.py", "study=cats", f"data.root={place / 'ready'}"]
    git = {"commit": "abc", "dirty": True, "diff": "--- a/code.py\n+++ b/code.py\n"}
    provenance = {"seed": 3, "data_digest": ready.digest, "git": git, "command": command}
    (run / "provenance.json").write_text(json.dumps(provenance))
    choice = {
        "study": "cats",
        "trial": 12,
        "selected_by": "the lowest val/fid",
        "objectives": [{"name": "val/fid", "direction": "minimize"}, {"name": "val/ssim", "direction": "maximize"}],
        "params": {"depth": "shallow", "optimizer.lr": 0.00123456},
        "pareto_set": [
            {"trial": 12, "values": {"val/fid": 76.54321, "val/ssim": 0.5}},
            {"trial": 3, "values": {"val/fid": 80.0, "val/ssim": 0.75}},
        ],
        "finished_trials": 5,
        "seeds": {"known": False, "sentence": "No trial was trained again under other seeds."},
        "judge": {"judge": "dinov2_vits14", "sentence": "The judge (dinov2_vits14) agrees: judge/fid 95.13."},
    }
    (run / "choice.json").write_text(json.dumps(choice))
    return run


def once(place: Path, make: Callable[[], Exported]) -> Exported:
    """What `make` exports to a place in the suite's folder: the first process that wants it does, for all."""
    record = place / "exported.json"
    with FileLock(f"{place}.lock"):
        if not record.exists():
            shutil.rmtree(place, ignore_errors=True)  # of one that failed
            made = make()
            record.write_text(json.dumps({"run": str(made.run), "folder": str(made.folder), "said": made.said}))
    found = json.loads(record.read_text())
    return Exported(Path(found["run"]), Path(found["folder"]), found["said"])


@pytest.fixture(scope="session")
def vae(chosen_vae: Path, suite: Path) -> Exported:
    """The bundle of a chosen VAE, with everything that a bundle has."""
    place = suite / "vae"
    return once(place, lambda: exported(chosen_vae, place, draws=2, ready=ready_of(chosen_vae)))


@pytest.fixture(scope="session")
def gan(root: Path, suite: Path) -> Exported:
    """The bundle of a DCGAN that was not chosen from anything, exported without photos."""
    place = suite / "gan"

    def make() -> Exported:
        run = make_run(place / "outputs/runs/2026-01-02/03-04-05", root, "model=dcgan")
        return exported(run, place / "exports")

    return once(place, make)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch, vae: Exported) -> dict[str, Path]:
    """Files that are exported come out of an earlier bundle, which saves seconds; changes to one may be given."""
    files = {name: vae.folder / name for name in (graphs.GENERATOR, graphs.RECONSTRUCTOR, graphs.PROGRAM)}

    def copy(model: object, path: Path, traced: object = None) -> None:
        shutil.copyfile(files[path.name], path)

    monkeypatch.setattr(graphs, "trace_decode", lambda model: None)
    for writer in ("write_onnx", "write_reconstructor", "write_program"):
        monkeypatch.setattr(graphs, writer, copy)
    return files
