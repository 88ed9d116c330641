"""A bundle scored again: one real bundle of a tiny network, in ONNX Runtime, against a tiny ready set."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from catsweep.commands import guard
from catsweep.data.ready import CARD, IMAGES, MANIFEST, Item, ReadySet, Row, digest, write_manifest
from catsweep.errors import ConfigError, DataError, EvaluationError, ExportError, MetricError, TakenError
from catsweep.export import evaluation, graphs, recorded
from catsweep.export.graphs import load_bundle
from catsweep.export.intervals import measure
from catsweep.metrics.extractors import Extractor
from catsweep.metrics.scorer import Scorer

SIDE = 16


class Net(nn.Module):
    """Paints waves in the colours of the latents; draws photos again darker."""

    latent_size, image_size = 3, SIDE

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))

    def decode(self, latents: Tensor) -> Tensor:
        return (self.scale * latents[:, :, None, None] + WAVES).sigmoid()

    def reconstruct(self, images: Tensor) -> Tensor:
        return self.scale * images


WAVES = torch.linspace(0, 3, SIDE).outer(torch.linspace(1, 2, SIDE))
DECODE = [
    ("Mul", ["latents", "scale"], "scaled"),
    ("Unsqueeze", ["scaled", "axes"], "coloured"),
    ("Add", ["coloured", "waves"], "waving"),
    ("Sigmoid", ["waving"], "images"),
]


def write_network(path: Path, given: str, shape: list[str | int], steps: list[tuple[str, list[str], str]]) -> None:
    """What `catsweep.export.graphs` writes of the network below, without waiting seconds for torch's exporter."""
    constants = {"scale": np.float32(0.7), "waves": WAVES.numpy(), "axes": np.array([2, 3])}
    graph = helper.make_graph(
        [helper.make_node(kind, inputs, [output]) for kind, inputs, output in steps],
        "network",
        [helper.make_tensor_value_info(given, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(graphs.OUTPUT, TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10).SerializeToString()
    )


def write_ready(folder: Path, seed: int = 0) -> ReadySet:
    """24 photos of noise, the last 8 held out."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(seed).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    splits = ["train"] * 16 + ["val"] * 8
    np.save(folder / IMAGES, images)
    rows = [Row.of(Item(f"{i}.png"), i) for i in range(24)]
    write_manifest(
        folder / MANIFEST,
        [Row(**{n: getattr(r, n) for n in Row.__slots__} | {"split": s}) for r, s in zip(rows, splits, strict=True)],
    )
    (folder / CARD).write_text(json.dumps({"n": 24, "size": SIDE, "digest": digest(images, splits)}))
    return ReadySet.open(folder)


def scorer_of(ready: ReadySet, cache: Path, samples: int = 40) -> Scorer:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())
    extractor = Extractor(
        network,
        name="means",
        num_features=12,
        weights_sha256="0123456789abcdef",
        size=SIDE,
        resize="none",
        backend="torch",
    )
    return Scorer(extractor, ready, cache, samples, rung_samples=20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one bundle, to be copied."""
    root = tmp_path_factory.mktemp("project")
    ready, bundle = write_ready(root / "data" / "ready" / "cats-16"), root / "outputs" / "exports" / "cats-3"
    bundle.mkdir(parents=True)
    scorer, model = scorer_of(ready, root / "statistics"), Net()
    write_network(bundle / graphs.GENERATOR, graphs.INPUT, ["N", 3], DECODE)
    write_network(
        bundle / graphs.RECONSTRUCTOR, graphs.PHOTOS, ["N", 3, SIDE, SIDE], [("Mul", ["photos", "scale"], "images")]
    )
    scores, cards = scorer.final(model)
    metrics = {
        "scores": scores,
        "cards": {name: card.to_dict() for name, card in cards.items()},
        "checkpoint": "best",
        "intervals": measure(load_bundle(bundle), scorer, draws=3),
    }
    (bundle / "metrics.json").write_text(json.dumps(metrics))
    (bundle / "provenance.json").write_text(json.dumps({"data_digest": ready.digest}))
    OmegaConf.save(
        OmegaConf.create({"data": {"source": "/home/somebody/cats"}, "metrics": {"samples": 40}}),
        bundle / "config.yaml",
    )
    return root


@pytest.fixture
def bundle(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle in a project of the test's own, which is the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def rebuild(config: dict[str, Any], key: str) -> Any:
        if key == "data":
            raise ConfigError("data cannot be rebuilt")
        return lambda ready: scorer_of(ready, Path("statistics"), config["metrics"]["samples"])

    monkeypatch.setattr(recorded, "rebuild", rebuild)  # what a real configuration names is slower
    return Path("outputs/exports/cats-3")


def config(**changes: Any) -> DictConfig:
    keys: Any = OmegaConf.load(Path(__file__).parents[2] / "conf" / "evaluate.yaml")
    return OmegaConf.merge({key: keys[key] for key in keys if key not in ("defaults", "hydra")}, changes)  # type: ignore[return-value]


def change(bundle: Path, by: Callable[[dict[str, Any]], None]) -> None:
    metrics = json.loads((bundle / "metrics.json").read_text())
    by(metrics)
    (bundle / "metrics.json").write_text(json.dumps(metrics))


def test_a_bundle_agrees_with_its_record(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in bundle.iterdir()}
    assert evaluation.run(config()) == bundle
    printed = capsys.readouterr().out
    assert printed.startswith(
        "Scoring outputs/exports/cats-3 again, against cats-16\nScores of cats-3: 40 images from seed 0"
    )
    assert "outputs/exports/cats-3 agrees with its record: all 8 scores are inside." in printed
    assert "val/nearest and val/copied in features of means (weights 0123456789ab…; none)" in printed
    assert "val/ssim_gap and val/ssim in pixels" in printed
    assert printed.count(" yes ") == 8
    assert "should give the record" not in printed
    assert {path: path.read_bytes() for path in bundle.iterdir()} == before


def test_a_record_of_before_there_was_recall_is_compared_by_what_it_has(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def older(metrics: dict[str, Any]) -> None:
        for part in ("scores", "cards"):  # exported by what draws for intervals of recall and coverage, too
            metrics[part] = {k: v for k, v in metrics[part].items() if k not in ("val/recall", "val/coverage")}

    change(bundle, older)
    evaluation.run(config())
    assert "agrees with its record: all 6 scores are inside." in capsys.readouterr().out


def test_other_latents_land_inside_the_intervals(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.run(config(bundle=str(bundle), seed=1, out="scores/one.json"))
    assert "scores as it says: all 8 scores are inside" in capsys.readouterr().out
    outcome = json.loads(Path("scores/one.json").read_text())
    assert (outcome["seed"], outcome["recorded_seed"], outcome["folder"]) == (1, 0, bundle.as_posix())
    fid = outcome["scores"]["val/fid"]
    assert fid["now"] != pytest.approx(fid["recorded"], rel=1e-3)
    assert fid["interval"]["low"] <= fid["now"] <= fid["interval"]["high"]
    assert outcome["scores"]["val/ssim"]["now"] == pytest.approx(outcome["scores"]["val/ssim"]["recorded"])
    assert outcome["cards"]["val/fid"]["seed"] == 1
    assert os.listdir("scores") == ["one.json"]


def test_a_score_outside_is_an_error_with_the_outcome_written(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def better(metrics: dict[str, Any]) -> None:
        metrics["scores"]["val/fid"] = 0.5
        metrics["intervals"]["val/fid"] |= {"low": 0.4, "high": 0.6}

    change(bundle, better)
    with pytest.raises(EvaluationError, match=r"does not score as it says: val/fid is .*, not within 0\.4 to 0\.6\.$"):
        evaluation.run(config(out="one.json"))
    printed = capsys.readouterr().out
    assert "NO" in printed
    assert "agrees" not in printed
    inside = {name: one["inside"] for name, one in json.loads(Path("one.json").read_text())["scores"].items()}
    assert inside == dict.fromkeys(inside, True) | {"val/fid": False}


def test_it_is_exit_code_1_and_no_traceback(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(bundle, lambda metrics: metrics["intervals"]["val/kid"].update(low=8, high=9))
    with pytest.raises(SystemExit) as ended:
        guard(evaluation.run)(config())
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(
        "EvaluationError: outputs/exports/cats-3 does not score as it says: val/k"
    )


def test_inside_but_not_the_record_is_said(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other weights that are as good, say."""
    change(bundle, lambda metrics: metrics["scores"].update({"val/ssim": metrics["scores"]["val/ssim"] * 1.002}))
    evaluation.run(config())
    printed = capsys.readouterr().out
    assert "should give the record to 0.1%; val/ssim is " in printed
    assert "scores as it says: all 8 scores are inside" in printed


def test_a_bundle_that_lost_its_reconstructor_does_not_score_as_it_says(bundle: Path) -> None:
    (bundle / graphs.RECONSTRUCTOR).unlink()
    with pytest.raises(EvaluationError, match="val/ssim cannot be taken, for the model does not reconstruct"):
        evaluation.run(config())


def test_photos_elsewhere_are_named(bundle: Path) -> None:
    shutil.move("data/ready/cats-16", "moved/cats-16")
    with pytest.raises(DataError, match=r"are not in data/ready.*ready=data/ready/NAME-SIZE.*cannot be made again"):
        evaluation.run(config())
    with pytest.raises(DataError, match=r"complete ready set .* in data.*ready="):
        evaluation.run(config(ready="data"))
    for there in ("moved", "moved/cats-16"):
        evaluation.run(config(ready=there))


def test_other_photos_are_refused(bundle: Path) -> None:
    write_ready(Path("others"), seed=1)
    with pytest.raises(DataError, match=r"other photos than those in others: expected digest .*, got .*ready="):
        evaluation.run(config(ready="others"))


def test_photos_that_were_tampered_with_are_refused(bundle: Path) -> None:
    images = np.load("data/ready/cats-16/images.npy")
    images[3, 2, 1, 0] ^= 1
    np.save("data/ready/cats-16/images.npy", images)
    with pytest.raises(DataError, match="pixels and splits give"):
        evaluation.run(config())


def test_scores_taken_otherwise_are_refused(bundle: Path) -> None:
    OmegaConf.save(
        OmegaConf.merge(OmegaConf.load(bundle / "config.yaml"), {"metrics": {"samples": 30}}), bundle / "config.yaml"
    )
    with pytest.raises(MetricError, match=r"measured the same way[\s\S]*samples: 40 against 30"):
        evaluation.run(config())


def test_other_libraries_are_said_and_not_refused(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def older(metrics: dict[str, Any]) -> None:
        for card in metrics["cards"].values():
            card["versions"] |= {"torchmetrics": "0.1"}

    change(bundle, older)
    evaluation.run(config())
    printed = capsys.readouterr().out
    assert printed.count("torchmetrics 0.1, now ") == 1
    assert "Not the libraries of the record: torchmetrics 0.1, now" in printed


def test_a_bundle_without_intervals_is_to_be_exported_with_them(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(bundle, lambda metrics: metrics.pop("intervals"))
    evaluation.run(config(seed=3))
    printed = " ".join(capsys.readouterr().out.split())
    assert "may land: the bundle was exported without intervals (draws=0). Export it again." in printed


@pytest.fixture
def run(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the folder of a run: no network, no intervals."""
    for path in bundle.glob("*.onnx"):
        path.unlink()
    change(bundle, lambda metrics: metrics.pop("intervals"))
    loaded = {(bundle, "best"): (Net(), None)}
    monkeypatch.setattr(evaluation, "load_run", lambda folder, checkpoint: loaded[folder, checkpoint])
    return bundle


def test_a_run_must_repeat_its_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.run(config(bundle=str(run)))
    printed = capsys.readouterr().out
    assert "agrees with its record: all 8 scores are inside" in printed
    assert "with rounding" in printed
    assert "95%" not in printed
    change(run, lambda metrics: metrics["scores"].update({"val/kid": metrics["scores"]["val/kid"] * 1.01}))
    with pytest.raises(EvaluationError, match="val/kid is"):
        evaluation.run(config(bundle=str(run)))


def test_a_run_has_nothing_to_judge_other_latents_by(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluation.run(config(bundle=str(run), seed=3))
    printed = capsys.readouterr().out
    assert "Nothing says where other latents than those of seed 0 may land: a run's folder" in " ".join(printed.split())
    assert "there was nothing to compare with" in printed


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"metrics\.json cannot be read: .* torn"),
        ('{"scores": {"val/fid": 1}}', "KeyError"),
        ('{"scores": {}, "cards": {}}', "no score"),
    ],
)
def test_a_record_that_cannot_be_read(bundle: Path, content: str, message: str) -> None:
    (bundle / "metrics.json").write_text(content)
    with pytest.raises(ExportError, match=message):
        evaluation.run(config())


def test_without_a_bundle_it_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"No bundle in .*make best-model export"):
        evaluation.run(config(exports=str(tmp_path)))


@pytest.mark.security
def test_a_file_of_the_user_is_not_replaced_and_an_outcome_is(bundle: Path) -> None:
    Path("package.json").write_text('{"name": "mine"}')
    with pytest.raises(TakenError, match=r"package\.json, but a file of that name is there.*out=FILE"):
        evaluation.run(config(out="package.json"))
    assert Path("package.json").read_text() == '{"name": "mine"}'
    for _ in range(2):
        evaluation.run(config(out="one.json"))
