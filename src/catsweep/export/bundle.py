"""The best model (or any run) as a folder that others can use without catsweep: `python src/export.py`.

Reads `outputs/best_model/` (what `best_model` left there), writes `outputs/exports/<study>-<trial>/`. It is a proof:
the folder appears only after each of its files has been read back and found to draw what the checkpoint draws, its
scores carry intervals in which another evaluation must land, and a picture shows whether it copies photos. Nothing in
it is pickled, and nothing in it names a place on this machine.
"""

import importlib.metadata
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from rich.console import Console

from catsweep import judging, places, printing
from catsweep.atomic import replacing_folder
from catsweep.errors import ExportError
from catsweep.export import digests, intervals, onnx, pictures, program, push, readme, standalone, weights
from catsweep.export.agreement import CHECKED_BATCHES
from catsweep.export.best_model import scored_checkpoint
from catsweep.export.finished import FinishedRun, portable
from catsweep.export.kept import keep_page
from catsweep.export.reading import load_bundle
from catsweep.export.scoring import scorer_of
from catsweep.export.tracing import trace_decode
from catsweep.metrics.judge import read_judged
from catsweep.metrics.scorer import Scorer
from catsweep.models.latents import draw_latents
from catsweep.models.protocol import Generator, Reconstructor, generate
from catsweep.ownership import Kind, require
from catsweep.report.grids import save_png
from catsweep.runs import load_run

TOLERANCE = 1e-4  # a fortieth of the step between two of the 256 levels of a pixel
SCRIPT = "generate.py"
SCRIPT_CHECKED = 9  # images that the script is checked on
BUNDLE = Kind(
    "a bundle",
    "out=DIR",
    ("README.md", "config.yaml", "generate.py", "generator.onnx", "generator.pt2", "judge.json", "metrics.json",
     "model.safetensors", "provenance.json", "reconstructor.onnx", "interpolation.png", "nearest_neighbours.png",
     "samples.png", digests.KEPT),
    sign="generator.onnx",
)  # fmt: skip
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


def run(cfg: DictConfig) -> Path:
    """Export a run, check what was written, and print where it is.

    Args:
        cfg: as in `conf/export.yaml`.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: `push` cannot work.
        ExportError: there is nothing to export, it cannot be exported, the export draws other images, the run's
            photos are not here, or it cannot be pushed.
        TakenError: in the place of the bundle is something that catsweep did not make.
        DataError: the run folder is not one.
        PlaceError: `out` cannot be written.
    """
    push.check(cfg)
    finished = FinishedRun.read(Path(cfg.run))
    target = Path(cfg.out) / finished.name
    require(target, BUNDLE)
    for place in (target, target.parent):
        places.check(place, cfg)
    model, _ = load_run(finished.folder, scored_checkpoint(finished.folder))
    scorer = scorer_of(finished.folder, cfg.ready) if cfg.draws else None
    judge = judging.factory(cfg) if scorer is not None else None
    console = printing.console()
    with places.named(target), replacing_folder(target, BUNDLE) as folder:
        differences = fill(folder, finished, model)
        evidence(folder, finished, scorer, cfg.draws, console)
        judgement(folder, finished, scorer, judge, console)
        record(folder, finished, model, differences)
        kept = keep_page(target, folder)
    console.print(_report(target, differences), highlight=False, soft_wrap=True)
    if remark := judging.absent(cfg):
        console.print(remark, highlight=False, soft_wrap=True)
    if kept:
        page = target / digests.README
        console.print(f"{page} was edited, and is now {kept} beside the new one.", highlight=False, soft_wrap=True)
    push.push(target, cfg)
    return target


def fill(folder: Path, finished: FinishedRun, model: LightningModule) -> dict[str, float]:
    """Write what draws, and compare each file with the model.

    Args:
        folder: an empty folder.
        finished: the run.
        model: its model, on the CPU.

    Returns:
        By file, the largest absolute difference between what it and the model draw, images being in [0, 1].

    Raises:
        ExportError: a file does not draw what the model draws.
    """
    assert isinstance(model, Generator)
    model.float().eval()
    _write_yaml(folder / weights.CONFIG, finished.portable_config)
    weights.save(model, folder, _header(finished, model))
    traced = trace_decode(model)
    program.write(model, folder / program.FILE, traced)
    onnx.write(model, folder / onnx.FILE, traced)
    differences = {
        onnx.FILE: onnx.largest_difference(model, folder / onnx.FILE),
        program.FILE: program.largest_difference(model, folder / program.FILE),
        # Against the ONNX file, so that this also holds for what the two files say of each other.
        weights.WEIGHTS: onnx.largest_difference(weights.load(folder), folder / onnx.FILE),
    }
    if isinstance(model, Reconstructor):
        path = folder / onnx.RECONSTRUCTOR
        onnx.write_reconstructor(model, path)
        differences[onnx.RECONSTRUCTOR] = onnx.largest_reconstruction_difference(model, path)
    for name, difference in differences.items():
        _refuse_above_tolerance(name, difference)
    _write_script(folder)
    return differences


def _refuse_above_tolerance(name: str, difference: float) -> None:
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{name} draws other images than the checkpoint: max |Δ| {difference:.1e}, expected at most "
            f"{TOLERANCE:.0e}. Nothing was exported. An operation of the model does not survive the export."
        )


def _write_script(folder: Path) -> None:
    """Add `generate.py`, and see that it draws the very pixels that the project draws from the same seed."""
    shutil.copyfile(standalone.__file__, folder / SCRIPT)
    model = load_bundle(folder)
    ours = generate(model, 0.7 * draw_latents(SCRIPT_CHECKED, model.latent_size, seed=1))
    if not np.array_equal(standalone.draw(SCRIPT_CHECKED, 1, 0.7, folder / onnx.FILE), ours.numpy()):
        raise ExportError(f"{SCRIPT} draws other pixels than the project from the same seed. Nothing was exported.")


def evidence(folder: Path, finished: FinishedRun, scorer: Scorer | None, draws: int, console: Console) -> None:
    """Add the pictures, and the scores with their intervals, all of what `generator.onnx` draws.

    Args:
        folder: the bundle, with the files that draw.
        finished: the run.
        scorer: as the run was scored with; None leaves out what needs the photos.
        draws: of latents, for the intervals.
        console: to say that it takes a while.
    """
    model = load_bundle(folder)
    save_png(folder / pictures.SAMPLES, pictures.samples(model))
    save_png(folder / pictures.INTERPOLATION, pictures.walks(model))
    metrics = dict(finished.metrics)
    if scorer is not None:
        console.print(
            f"Scoring it from {draws} other draws of {scorer.samples} latents, for the intervals", soft_wrap=True
        )
        metrics["intervals"] = intervals.measure(model, scorer, draws, finished.metrics["scores"])
        found = pictures.neighbours(model, scorer)
        save_png(folder / pictures.NEIGHBOURS, pictures.neighbour_page(found))
    _write_json(folder / "metrics.json", metrics)


def judgement(
    folder: Path, finished: FinishedRun, scorer: Scorer | None, judge: judging.Factory | None, console: Console
) -> None:
    """Add what another network says of what `generator.onnx` draws; else what it has said of the run, if it has.

    Args:
        folder: the bundle, with its scores.
        finished: the run.
        scorer: as the run was scored with.
        judge: who judges; None if nobody is there.
        console: to say what it found.
    """
    if scorer is None or judge is None:
        if (known := read_judged(finished.folder)) is not None:
            known.write(folder)
        return
    found = judging.judge_model(judge, load_bundle(folder), folder, scorer)
    console.print(f"Judged by {found.judge}: {judging.line(found)}", highlight=False, soft_wrap=True)


def record(folder: Path, finished: FinishedRun, model: LightningModule, differences: Mapping[str, float]) -> None:
    """Add where it comes from, and the page that explains all."""
    assert isinstance(model, Generator)
    about = portable(finished.provenance)
    about["export"] = finished.origin | {
        "checkpoint": scored_checkpoint(finished.folder),
        "seeds": _seeds(finished),
        "max_difference": dict(differences),
        "tolerance": TOLERANCE,
        "checked_batches": list(CHECKED_BATCHES),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    _write_json(folder / digests.PROVENANCE, about)  # whole below: the page tells of it
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    facts = {
        "latent_size": model.latent_size,
        "image_size": model.image_size,
        "parameters": weights.count(folder),
    }
    page = readme.compose(finished, folder, facts, metrics, about)
    (folder / "README.md").write_text(page, encoding="utf-8")
    about["export"]["files"] = digests.of(folder)
    _write_json(folder / digests.PROVENANCE, about)


def _seeds(finished: FinishedRun) -> dict[str, Any]:
    """Every seed that something in the bundle depends on."""
    seeds = {card.get("seed") for card in finished.metrics.get("cards", {}).values()}
    return {
        "training": finished.provenance.get("seed"),
        "scores": seeds.pop() if len(seeds) == 1 else None,
        "pictures": pictures.SEED,
    }


def _header(finished: FinishedRun, model: Generator) -> dict[str, str]:
    """What the header of the weights says of them."""
    facts: dict[str, object] = {
        "model": f"{type(model).__module__}.{type(model).__qualname__}",
        "latent_size": model.latent_size,
        "image_size": model.image_size,
        **{key: finished.origin[key] for key in ("study", "trial") if key in finished.origin},
    }
    return {key: str(value) for key, value in facts.items()}


def _report(target: Path, differences: Mapping[str, float]) -> str:
    width = max(map(len, differences))
    batches = " and ".join(map(str, CHECKED_BATCHES))
    lines = [f"  {name:<{width}}  {difference:.1e}" for name, difference in sorted(differences.items())]
    return "\n".join(
        [f"Exported {target}; its files and the checkpoint agree to max |Δ| (batches of {batches})", *lines]
    )


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_yaml(path: Path, content: Any) -> None:
    path.write_text(OmegaConf.to_yaml(OmegaConf.create(content)), encoding="utf-8")
