"""The best model (or any run) as a folder that others can use without catsweep: `python src/export.py`.

Reads `outputs/best_model/` (what `best_model` left there), writes `outputs/exports/<study>-<trial>/`. It is a
proof: the folder appears only after its own files have been read back and found to draw what the checkpoint draws.
Nothing in it is pickled, so it can be opened without trusting whoever made it.
"""

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning import LightningModule
from rich.console import Console

from catsweep.errors import ExportError
from catsweep.export import onnx, readme, weights
from catsweep.export.best_model import CHOICE, DOCUMENTS, scored_checkpoint
from catsweep.export.swap import replacing
from catsweep.models.latents import draw_latents
from catsweep.models.protocol import Generator, generate
from catsweep.report.grids import grid, save_png
from catsweep.runs import load_run

TOLERANCE = 1e-4  # a fortieth of the step between two of the 256 levels of a pixel
SAMPLES, SAMPLE_COUNT, SAMPLE_SEED = "samples.png", 64, 0
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


def run(cfg: DictConfig) -> Path:
    """Export a run, check what was written, and print where it is.

    Args:
        cfg: as in `conf/export.yaml`.

    Returns:
        The bundle's folder.

    Raises:
        ExportError: there is nothing to export, it cannot be exported, or the export draws other images.
        DataError: the run folder is not one.
    """
    source = Path(cfg.run)
    if missing := [name for name in DOCUMENTS if not (source / name).is_file()]:
        raise ExportError(
            f"Expected a finished run in {source}; it lacks {', '.join(missing)}. "
            f"Run `make best-model` first, or name another run: run=outputs/…"
        )
    model, _ = load_run(source, scored_checkpoint(source))
    target = Path(cfg.out) / bundle_name(source)
    with replacing(target) as folder:
        difference = fill(folder, source, model)
    batches = " and ".join(map(str, onnx.CHECKED_BATCHES))
    Console().print(
        f"Exported {target}: ONNX and torch agree to max |Δ| {difference:.1e} (batches of {batches})",
        highlight=False,
        soft_wrap=True,
    )
    return target


def bundle_name(source: Path) -> str:
    """`<study>-<trial>` of a best model; of any other run the last two parts of its path, joined the same way."""
    if chosen := _choice(source):
        return f"{chosen['study']}-{chosen['trial']}"
    return "-".join(source.resolve().parts[-2:])


def fill(folder: Path, source: Path, model: LightningModule) -> float:
    """Write a bundle's files, and check what they draw.

    Args:
        folder: an empty folder.
        source: the run folder, or the best model's.
        model: its model, on the CPU.

    Returns:
        The largest absolute difference between what the ONNX file and the model draw, images being in [0, 1].

    Raises:
        ExportError: the files do not draw what the model draws.
    """
    assert isinstance(model, Generator)
    model.float().eval()
    weights.save(model, folder, _metadata(source, model))
    for name in DOCUMENTS:
        shutil.copyfile(source / name, folder / name)
    onnx.write(model, file := folder / onnx.FILE)
    difference = onnx.largest_difference(model, file)
    _refuse_above_tolerance(onnx.FILE, difference)
    _refuse_above_tolerance(weights.WEIGHTS, onnx.largest_difference(weights.load(folder), file))
    drawn = generate(onnx.OnnxGenerator(file), draw_latents(SAMPLE_COUNT, model.latent_size, SAMPLE_SEED))
    save_png(folder / SAMPLES, grid(drawn.numpy(), columns=8))
    _record(folder, source, difference)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    page = readme.compose(
        bundle_name(source), model.latent_size, model.image_size, difference, _choice(source), metrics
    )
    (folder / "README.md").write_text(page, encoding="utf-8")
    return difference


def _refuse_above_tolerance(name: str, difference: float) -> None:
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{name} draws other images than the checkpoint: max |Δ| {difference:.1e}, expected at most "
            f"{TOLERANCE:.0e}. Nothing was exported. An operation of the model's decode does not survive the export."
        )


def _record(folder: Path, source: Path, difference: float) -> None:
    """Add to the bundle's provenance where it was taken from and how it was checked."""
    path = folder / "provenance.json"
    provenance = json.loads(path.read_text(encoding="utf-8"))
    chosen = _choice(source) or {}
    taken_from = {key: chosen[key] for key in ("study", "trial", "selected_by") if key in chosen}
    provenance["export"] = taken_from | {
        "checkpoint": scored_checkpoint(source),
        "max_difference": difference,
        "tolerance": TOLERANCE,
        "checked_batches": list(onnx.CHECKED_BATCHES),
        "samples_seed": SAMPLE_SEED,
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    path.write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _metadata(source: Path, model: Generator) -> dict[str, str]:
    chosen = _choice(source) or {}
    facts: dict[str, object] = {
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "latent_size": model.latent_size,
        "image_size": model.image_size,
        "study": chosen.get("study"),
        "trial": chosen.get("trial"),
    }
    return {key: str(value) for key, value in facts.items() if value is not None}


def _choice(source: Path) -> dict[str, Any] | None:
    path = source / CHOICE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
