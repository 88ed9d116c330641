"""Folders of strangers with pickles that run code in them, given to every command that opens a run or a bundle."""

import ast
import functools
import http.server
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
import safetensors.torch
import torch
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from onnx import TensorProto, helper

from catsweep import runs
from catsweep.app.session import Session
from catsweep.commands import guard
from catsweep.configuration import CONF
from catsweep.data.ready import CARD, IMAGES, MANIFEST, Item, ReadySet, Row, digest, write_manifest
from catsweep.errors import CatsweepError, ConfigError, DataError, ExportError
from catsweep.export import bundle as bundles
from catsweep.export import evaluation, weights
from catsweep.export.graphs import OnnxGenerator
from catsweep.generate import drawing
from catsweep.generate.model_source import choose
from catsweep.metrics.scores import MetricCard
from catsweep.training import fit
from catsweep.untrusted_config import rebuild

pytestmark = pytest.mark.security

SRC = CONF.parent / "src"
DRAWS = """
<ir_version: 8, opset_import: ["": 17]>
toy (float[N, 3] latents) => (float[N, 3, 4, 4] images)
<int64[2] flat = {2, 3}, int64[4] shape = {1, 3, 4, 4}>
{ colours = Sigmoid(latents) dots = Unsqueeze(colours, flat) images = Expand(dots, shape) }
"""


class Evil:
    """When it is unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there when code has run. The test's folder becomes the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "mark"


@pytest.fixture
def pickled(tmp_path: Path, mark: Path) -> Path:
    """A checkpoint with such a pickle in it."""
    loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 1}}}}
    file = tmp_path / "served/evil.ckpt"
    file.parent.mkdir()
    torch.save({"state_dict": {}, "loops": loops, "pytorch-lightning_version": "2.6.0", "evil": Evil(mark)}, file)
    torch.load(file, weights_only=False)
    assert mark.exists()  # it would
    mark.unlink()
    return file


@pytest.fixture
def address(pickled: Path) -> Iterator[tuple[str, list[str]]]:
    """The same by http, and the requests that came."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(pickled.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/evil.ckpt", asked
        server.shutdown()
        thread.join()


def command(name: str, **keys: Any) -> DictConfig:
    """The configuration of a command."""
    with initialize_config_dir(str(CONF)):
        judge = ["metrics/judge=none"] if name in ("evaluate", "export") else []  # none that lies on this machine
        return OmegaConf.merge(hydra_compose(name, judge), keys)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model, as anybody's."""
    tiny = ("data.size=16", "depth.halvings=2", "width.channels=2", "model.latent_size=3")
    with initialize_config_dir(str(CONF)):
        config = OmegaConf.to_container(hydra_compose("train", [*tiny, "study=null"]), resolve=True)
    assert isinstance(config, dict)
    folder = tmp_path_factory.mktemp("run") / "a/0"
    (folder / "checkpoints").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    model = rebuild({str(key): value for key, value in config.items()}, "model")
    loops = {"fit_loop": {"epoch_progress": {"current": {"ready": 1}}}}
    torch.save({"state_dict": model.state_dict(), "loops": loops}, folder / "checkpoints/best.ckpt")
    card = MetricCard("fid", "means", "00", "none", "float32", "d", 8, 8, seed=0, versions={})
    scores = {"scores": {"val/fid": 2.0}, "cards": {"val/fid": card.to_dict()}, "checkpoint": "best", "epoch": 1}
    (folder / "metrics.json").write_text(json.dumps(scores))
    (folder / "provenance.json").write_text(json.dumps({"seed": 0, "data_digest": "0" * 64}))
    return folder


@pytest.fixture
def run(plain_run: Path, mark: Path) -> Path:
    """The test's own copy."""
    return Path(shutil.copytree(plain_run, mark.with_name("outputs") / "a/0"))


@pytest.fixture
def bundle(run: Path) -> Path:
    """The same as a bundle."""
    model, _ = runs.load_run(run)
    onnx.save(onnx.parser.parse_model(DRAWS), run / "generator.onnx")
    weights.save(model, run, {})
    return run


def put(folder: Path, key: str, value: Any) -> None:
    config = OmegaConf.load(folder / "config.yaml")
    OmegaConf.update(config, key, value, merge=False)
    OmegaConf.save(config, folder / "config.yaml")


def hostile(checkpoint: str, name: str = "pytorch_lightning.LightningModule.load_from_checkpoint") -> dict[str, Any]:
    return {"_target_": name, "checkpoint_path": checkpoint, "weights_only": False}


OPENING_A_RUN: dict[str, Callable[[Path], Any]] = {
    "generate": lambda run: drawing.run(command("generate", run=str(run), n=1)),
    "evaluate": lambda run: evaluation.open_model(run),
    "export": lambda run: bundles.run(command("export", run=str(run), draws=0, out="exports")),
    "demo": lambda run: Session(choose(None, str(run)), Path()),
}
NAMES = ["pytorch_lightning.LightningModule.load_from_checkpoint", "catsweep.models.vae.VAE.load_from_checkpoint"]


@pytest.mark.parametrize("opened", OPENING_A_RUN.values(), ids=OPENING_A_RUN)
@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_a_pickle(
    opened: Callable[[Path], Any], name: str, run: Path, pickled: Path, mark: Path, address: tuple[str, list[str]]
) -> None:
    there = sorted(run.rglob("*"))
    for place in (str(pickled), address[0]):
        put(run, "model", hostile(place, name))
        put(run, "trust", ["pytorch_lightning.*", "catsweep.*"])  # is not the command line's
        with pytest.raises(ConfigError, match=f"model names '{name}'"):
            opened(run)
        assert not mark.exists()
    assert (address[1], sorted(run.rglob("*"))) == ([], there)


@pytest.mark.parametrize("key", ["activation", "block.down", "optimizer", "reconstruction_loss", "latent_size"])
def test_a_part_of_a_model_that_is_a_pickle(key: str, run: Path, pickled: Path, mark: Path) -> None:
    put(run, f"model.{key}", hostile(str(pickled)))
    with pytest.raises(ConfigError, match=f"model.{key} names"):
        OPENING_A_RUN["generate"](run)
    assert not mark.exists()


@pytest.mark.parametrize("opened", OPENING_A_RUN.values(), ids=OPENING_A_RUN)
@pytest.mark.filterwarnings("ignore")
def test_a_checkpoint_that_is_a_pickle(opened: Callable[[Path], Any], run: Path, pickled: Path, mark: Path) -> None:
    shutil.copy(pickled, run / "checkpoints/best.ckpt")
    with pytest.raises(Exception):  # noqa: B017, PT011  # of torch, or of ours: what counts is below
        opened(run)
    assert not mark.exists()
    assert not Path("exports/a-0").exists()


@pytest.mark.trains
def test_a_run_that_goes_on_from_a_pickle(
    compose: Callable[..., DictConfig], tmp_path: Path, pickled: Path, mark: Path
) -> None:
    folder, cfg = tmp_path / "run", compose("resume=true")
    (folder / "checkpoints").mkdir(parents=True)
    shutil.copy(pickled, folder / "checkpoints/last.ckpt")
    OmegaConf.save(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)), folder / "config.yaml")
    with pytest.raises(Exception, match=r"[Ww]eights_only|last\.ckpt"):
        fit.run(cfg, folder)
    assert not mark.exists()


def test_the_torch_model_of_a_bundle_that_is_a_pickle(bundle: Path, pickled: Path, mark: Path) -> None:
    assert weights.load(bundle).image_size == 16
    put(bundle, "model", hostile(str(pickled)))
    with pytest.raises(ConfigError, match="model names"):
        weights.load(bundle)
    for name in ("model.safetensors", "generator.onnx", "reconstructor.onnx", "generator.pt2"):
        shutil.copy(pickled, bundle / name)
    put(bundle, "model", OmegaConf.load(bundle / "config.yaml").model)
    with pytest.raises(CatsweepError):
        weights.load(bundle)
    with pytest.raises(ExportError, match=r"generator\.onnx"):
        OnnxGenerator(bundle / "generator.onnx")
    assert not mark.exists()


def set_of(folder: Path) -> str:
    """A ready set of noise; its digest."""
    folder.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    np.save(folder / IMAGES, images)
    write_manifest(folder / MANIFEST, [Row.of(Item(f"{i}.png"), i) for i in range(8)])
    found = digest(images, [""] * 8)
    (folder / CARD).write_text(json.dumps({"n": 8, "size": 16, "digest": found}))
    return found


@pytest.mark.parametrize("key", ["data", "data.reader", "metrics", "metrics.extractor"])
def test_scores_again_through_a_pickle(
    key: str, bundle: Path, pickled: Path, mark: Path, address: tuple[str, list[str]]
) -> None:
    if key.startswith("metrics"):
        found = set_of(Path("data/ready/noise-16-0"))
        (bundle / "provenance.json").write_text(json.dumps({"data_digest": found}))
    for place in (str(pickled), address[0]):
        put(bundle, key, hostile(place))
        with pytest.raises(CatsweepError, match=f"{key} names 'pytorch_lightning"):
            evaluation.run(command("evaluate", bundle=str(bundle)))
    assert not mark.exists()
    assert address[1] == []


def test_where_photos_and_caches_are_is_not_the_files_to_say(bundle: Path, tmp_path: Path) -> None:
    set_of(Path("data/ready/noise-16-0"))
    for key in ("data.root", "data.source", "metrics.cache_root", "metrics.extractor.cache_root"):
        put(bundle, key, str(tmp_path / "victim"))
    put(bundle, "data.reader", {"_target_": "catsweep.data.sources.Photos", "folder": str(tmp_path / "victim")})
    with pytest.raises(DataError, match=r"not in data/ready.*data\.reader names"):
        evaluation.run(command("evaluate", bundle=str(bundle)))
    assert not (tmp_path / "victim").exists()


def test_drawn_cats_are_drawn_again_where_ready_sets_are(bundle: Path, tmp_path: Path) -> None:
    put(bundle, "data.reader.n", 12)
    put(bundle, "data.root", str(tmp_path / "victim"))
    with pytest.raises(DataError, match=r"other photos than those in data/ready/demo_cats-16-"):
        evaluation.run(command("evaluate", bundle=str(bundle)))
    assert not (tmp_path / "victim").exists()


def test_an_exported_configuration_does_not_tell_of_this_machine(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "hush")
    put(run, "note", "x")
    file = run / "config.yaml"
    file.write_text(file.read_text().replace("note: x", "note: ${oc.env:SECRET}"))
    with pytest.raises(SystemExit):
        guard(bundles.run)(command("export", run=str(run), draws=0, out="exports"))
    said = capsys.readouterr().err
    assert said.startswith("ExportError: ")
    assert "oc.env" in said
    assert "hush" not in said
    assert not Path("exports").exists()


# --- files beside the configuration


def test_a_ready_set_of_pickled_objects_is_damaged(mark: Path) -> None:
    set_of(Path("data/ready/evil"))
    np.save("data/ready/evil/images.npy", np.array([Evil(mark)] * 8, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="complete ready set"):
        ReadySet.open("data/ready/evil")
    assert not mark.exists()


@pytest.mark.parametrize("location", ["../secret.bin", "{absolute}", "link.bin", "/dev/zero"])
def test_a_network_cannot_have_its_weights_elsewhere(bundle: Path, location: str, tmp_path: Path) -> None:
    """ONNX knows data in other files; what they hold would be drawn."""
    secret = bundle.parent / "secret.bin"
    secret.write_bytes(bytes(192))
    (bundle / "link.bin").symlink_to(secret)
    shape = [1, 3, 4, 4]
    graph = onnx.parser.parse_model(DRAWS)
    tensor = helper.make_tensor("secret", TensorProto.FLOAT, shape, [0.0] * 48)
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location.format(absolute=secret.absolute())), ("length", "192")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph.graph.initializer.append(tensor)
    graph.graph.node[-1].output[0] = "plain"
    graph.graph.node.append(helper.make_node("Add", ["plain", "secret"], ["images"]))
    (bundle / "generator.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ExportError, match="External data path"):
        OnnxGenerator(bundle / "generator.onnx")


# --- more than there is memory for

HUGE = [
    ({"latent_size": 10**10}, "other shapes|not expected"),
    ({"channels": 10**6, "max_channels": 10**6}, "other shapes|not expected"),
    ({"image_size": 2**4000, "halvings": 3998}, "more than 3,[0-9]{3} parts"),
]


@pytest.mark.parametrize(("changes", "said"), HUGE)
def test_a_model_of_terabytes_is_compared_with_the_weights_before_it_is_built(
    changes: dict[str, int], said: str, run: Path, bundle: Path
) -> None:
    for key, value in changes.items():
        put(run, f"model.{key}", value)
    with pytest.raises(CatsweepError, match=said):
        runs.load_run(run)
    with pytest.raises(CatsweepError, match=said):
        weights.load(bundle)


def test_weights_that_are_hardly_any_are_of_no_model(bundle: Path) -> None:
    put(bundle, "model.latent_size", 10**10)
    safetensors.torch.save_file({}, bundle / weights.WEIGHTS)
    with pytest.raises(ExportError, match=r"are 0 numbers, and the model in config\.yaml has [0-9,]{9,}"):
        weights.load(bundle)


# --- by construction


@functools.cache
def calls() -> dict[str, list[tuple[str, dict[str, str]]]]:
    """By module of ours, what it calls, and with which constant keywords."""
    found = {}
    for file in SRC.rglob("*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        found[file.relative_to(SRC).with_suffix("").as_posix()] = [
            (dotted(node.func), {str(k.arg): repr(getattr(k.value, "value", None)) for k in node.keywords})
            for node in nodes
        ]
    return found


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calling(*names: str) -> set[str]:
    return {module for module, made in calls().items() if any(name in names for name, _ in made)}


def test_who_builds_what_a_configuration_names() -> None:
    """Those that compose theirs; whoever opens a folder goes through `catsweep.untrusted_config`."""
    assert calling("instantiate") == {
        "catsweep/training/fit", "catsweep/training/trainer", "catsweep/training/fast_dev_run",
        "catsweep/training/preflight", "catsweep/judging",
        "catsweep/tracking/loggers", "catsweep/tracking/sweep_run",
        "catsweep/prepare/pipeline", "catsweep/prepare/exporters",
    }  # fmt: skip
    assert calling("hydra.utils.instantiate", "hydra.utils.call") == {
        "catsweep/instantiation", "catsweep/untrusted_config", "steady/propose/space", "steady/propose/trusted",
    }  # fmt: skip


def test_what_is_unpickled_is_our_own() -> None:
    """The task and the configuration that our own process was sent; the state of CMA-ES through a list of classes."""
    assert calling("pickle.load", "pickle.loads", "cloudpickle.load", "cloudpickle.loads", "joblib.load", "_State") == {
        "steady/composition", "steady/jobs/worker", "steady/study/untrusted",
    }  # fmt: skip
    for made in calls().values():
        for name, given in made:
            assert name != "torch.load" or given.get("weights_only") == "True"
            assert name != "np.load" or given.get("allow_pickle", "False") == "False"
