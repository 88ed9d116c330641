"""Export a run (usually the best model) as a folder that others use without catsweep: `python src/export.py`.

Reads `outputs/best_model/`, writes `outputs/exports/<study>-<trial>/`. The folder appears only after each of its files
has been read back and found to draw what the checkpoint draws. Nothing in it is pickled, or names a place on this
machine.
"""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import LightningModule
from rich.console import Console

from catsweep import judging
from catsweep.errors import ExportError
from catsweep.export import bundle_images, digests, graphs, intervals, model_card, standalone, weights
from catsweep.export.graphs import CHECKED_BATCHES, load_bundle
from catsweep.export.recorded import FinishedRun, portable, scorer_of
from catsweep.folders import replacing_folder
from catsweep.grids import save_png
from catsweep.metrics.judge import read_judged
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import Generator, Reconstructor, draw_latents, generate
from catsweep.ownership import FolderKind, require
from catsweep.runs import CONFIG, PROVENANCE, SCORES, Bundle, RunDir, load_run
from steady import places, printing

TOLERANCE = 1e-4  # a fortieth of the step between two of the 256 levels of a pixel
SCRIPT_CHECKED = 9  # images that the script is checked on
BUNDLE = FolderKind("a bundle", "out=DIR", (*Bundle.FILES, Bundle.README, digests.KEPT), sign=Bundle.GENERATOR)
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors")


def run(cfg: DictConfig) -> Path:
    """Export a run, check what was written, and print and return where it is; see `conf/export.yaml`.

    Raises:
        ExportError: there is nothing to export, it cannot be exported, the export draws other images, the run's
            photos are not here.
        TakenError: in the place of the bundle is something that catsweep did not make.
        DataError: the run folder is not one.
        PlaceError: `out` cannot be written.
    """
    finished = FinishedRun.read(Path(cfg.run))
    target = Path(cfg.out) / finished.name
    require(target, BUNDLE)
    for place in (target, target.parent):
        places.check(place, cfg)
    model, _ = load_run(finished.folder, RunDir(finished.folder).scored_checkpoint())
    scorer = scorer_of(finished.folder, cfg.ready) if cfg.draws else None
    judge = judging.factory(cfg) if scorer is not None else None
    console = printing.console()
    with places.named(target), replacing_folder(target, BUNDLE) as folder:
        differences = _write_models(folder, finished, model)
        _write_scores(folder, finished, scorer, cfg.draws, console)
        _write_judgement(folder, finished, scorer, judge, console)
        _write_records(folder, finished, model, differences)
        kept = digests.keep_page(target, folder)
    said = [_summary(target, differences), judging.absent(cfg)]
    if kept:
        said.append(f"{target / Bundle.README} was edited, and is now {kept} beside the new one.")
    for line in filter(None, said):
        console.print(line, highlight=False, soft_wrap=True)
    return target


def _write_models(folder: Path, finished: FinishedRun, model: LightningModule) -> dict[str, float]:
    """Write the files that draw, and return for each its largest absolute difference to what the model draws."""
    assert isinstance(model, Generator)
    model.float().eval()
    (folder / CONFIG).write_text(OmegaConf.to_yaml(OmegaConf.create(finished.portable_config)), encoding="utf-8")
    header = {"model": f"{type(model).__module__}.{type(model).__qualname__}"}
    header |= {key: str(getattr(model, key)) for key in ("latent_size", "image_size")}
    header |= {key: str(finished.origin[key]) for key in ("study", "trial") if key in finished.origin}
    weights.save(model, folder, header)
    traced = graphs.trace_decode(model)
    graphs.write_program(model, folder / Bundle.PROGRAM, traced)
    graphs.write_onnx(model, folder / Bundle.GENERATOR, traced)
    differences = {name: graphs.difference(model, folder / name) for name in (Bundle.GENERATOR, Bundle.PROGRAM)}
    # Against the ONNX file, so that this also holds for what the two files say of each other.
    differences[Bundle.WEIGHTS] = graphs.difference(weights.load(folder), folder / Bundle.GENERATOR)
    if isinstance(model, Reconstructor):
        graphs.write_reconstructor(model, folder / Bundle.RECONSTRUCTOR)
        differences[Bundle.RECONSTRUCTOR] = graphs.difference(model, folder / Bundle.RECONSTRUCTOR)
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise ExportError(
                f"{name} draws other images than the checkpoint: max |Δ| {difference:.1e}, expected at most "
                f"{TOLERANCE:.0e}. Nothing was exported. An operation of the model does not survive the export."
            )
    shutil.copyfile(standalone.__file__, folder / Bundle.SCRIPT)
    ours = generate(load_bundle(folder), 0.7 * draw_latents(SCRIPT_CHECKED, model.latent_size, seed=1))
    if not np.array_equal(standalone.draw(SCRIPT_CHECKED, 1, 0.7, folder / Bundle.GENERATOR), ours.numpy()):
        raise ExportError(
            f"{Bundle.SCRIPT} draws other pixels than the project from the same seed. Nothing was exported."
        )
    return differences


def _write_scores(folder: Path, finished: FinishedRun, scorer: Scorer | None, draws: int, console: Console) -> None:
    """Add the pictures, and the scores of what `generator.onnx` draws; intervals if there are photos."""
    model = load_bundle(folder)
    save_png(folder / bundle_images.SAMPLES, bundle_images.samples(model))
    save_png(folder / bundle_images.INTERPOLATION, bundle_images.interpolation(model))
    metrics = dict(finished.metrics)
    if scorer is not None:
        said = f"Scoring it from {draws} other draws of {scorer.samples} latents, for the intervals"
        console.print(said, soft_wrap=True)
        metrics["intervals"] = intervals.measure(model, scorer, draws, finished.metrics["scores"])
        found = bundle_images.neighbours(model, scorer)
        save_png(folder / bundle_images.NEIGHBOURS, bundle_images.neighbour_page(found))
    RunDir(folder).write(SCORES, metrics, ascii_only=False)


def _write_judgement(
    folder: Path, finished: FinishedRun, scorer: Scorer | None, judge: judging.Factory | None, console: Console
) -> None:
    """Add what the judge says of what `generator.onnx` draws; without a judge, what it has said of the run."""
    if scorer is not None and judge is not None:
        found = judging.judge_model(judge, load_bundle(folder), folder, scorer)
        console.print(f"Judged by {found.judge}: {judging.line(found)}", highlight=False, soft_wrap=True)
    elif known := read_judged(finished.folder):
        known.write(folder)


def _write_records(
    folder: Path, finished: FinishedRun, model: LightningModule, differences: Mapping[str, float]
) -> None:
    """Add the provenance, the model card, and the digests of all files."""
    assert isinstance(model, Generator)
    seeds = {card.get("seed") for card in finished.metrics.get("cards", {}).values()}
    about: dict[str, Any] = portable(finished.provenance)
    scored = seeds.pop() if len(seeds) == 1 else None
    about["export"] = finished.origin | {
        "checkpoint": finished.metrics["checkpoint"],
        "seeds": {"training": finished.provenance.get("seed"), "scores": scored, "pictures": bundle_images.SEED},
        "max_difference": dict(differences), "tolerance": TOLERANCE, "checked_batches": list(CHECKED_BATCHES),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
    }  # fmt: skip
    bundle = RunDir(folder)
    bundle.write(PROVENANCE, about, ascii_only=False)  # whole below: the page tells of it
    facts = {key: getattr(model, key) for key in ("latent_size", "image_size")}
    facts["parameters"] = weights.count(folder)
    page = model_card.compose(finished, folder, facts, bundle.metrics().content, about)
    (folder / Bundle.README).write_text(page, encoding="utf-8")
    about["export"]["files"] = digests.of(folder)
    bundle.write(PROVENANCE, about, ascii_only=False)


def _summary(target: Path, differences: Mapping[str, float]) -> str:
    width = max(map(len, differences))
    batches = " and ".join(map(str, CHECKED_BATCHES))
    said = f"Exported {target}; its files and the checkpoint agree to max |Δ| (batches of {batches})"
    return "\n".join([said, *(f"  {name:<{width}}  {found:.1e}" for name, found in sorted(differences.items()))])
