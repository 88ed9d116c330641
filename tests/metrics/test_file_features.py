import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tests import onnx_networks
from tests.onnx_networks import FEATURES, SIDE, TOKENS, weights, write
from torch import Tensor, nn

from catsweep.errors import MetricError
from catsweep.metrics.file_features import OnnxFeatures, TorchFeatures

IMAGENET = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]]).view(2, 3, 1, 1)


def features(path: Path, **settings: Any) -> OnnxFeatures:
    return OnnxFeatures(path, **({"threads": 1} | settings))


def photos(n: int = 5, side: int = SIDE) -> Tensor:
    return torch.randint(256, (n, side, side, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def expected(images: Tensor) -> Tensor:
    colours = (images.permute(0, 3, 1, 2).float() / 255 - IMAGENET[0]) / IMAGENET[1]
    return (colours.flatten(1) @ torch.from_numpy(weights(3 * SIDE * SIDE, TOKENS * FEATURES))).tanh()


@pytest.mark.parametrize(
    ("output", "pool", "of"),
    [
        (None, "cls", lambda flat: flat.view(-1, TOKENS, FEATURES)[:, 0]),
        ("tokens", "mean", lambda flat: flat.view(-1, TOKENS, FEATURES).mean(1)),
        ("maps", "mean", lambda flat: flat.view(-1, FEATURES, 2, 2).mean((2, 3))),
        ("flat", "none", lambda flat: flat),
    ],
)
@pytest.mark.parametrize("batch", ["N", 1])
def test_features_are_those_of_the_network(tmp_path: Path, output: str, pool: str, of: Any, batch: Any) -> None:
    found = features(write(tmp_path / "net.onnx", shape=(batch, 3, SIDE, SIDE)), output=output, pool=pool)
    wanted = of(expected(photos()))
    assert torch.allclose(found(photos()), wanted, atol=1e-5)
    assert (found.num_features, found.size, found.name) == (wanted.shape[1], SIDE, "net")
    assert pool == "none" or {"cls": "class token", "mean": "mean"}[pool] in found.resize
    assert set(found.versions(torch.device("cpu"))) == {"onnxruntime"}


def test_larger_and_smaller_images_are_resized_to_its_side(tmp_path: Path) -> None:
    found = features(write(tmp_path / "net.onnx", shape=("N", 3, "H", "W")), output="flat", size=SIDE)
    flat = torch.full((2, 40, 40, 3), 200, dtype=torch.uint8)
    assert torch.allclose(found(flat), expected(flat[:, :SIDE, :SIDE]), atol=1e-4)
    edge = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    edge[:, :, 4:] = 255
    levels = found.resized(edge) * IMAGENET[1] + IMAGENET[0]
    assert levels.min() >= -1e-6  # bicubic overshoots; there are no such colours
    assert levels.max() <= 1 + 1e-6


def test_half_precision_goes_in_as_it_wants(tmp_path: Path) -> None:
    found = features(write(tmp_path / "net.onnx", kind=TensorProto.FLOAT16), output="flat")
    assert found(photos()).dtype == torch.float32
    assert torch.allclose(found(photos()), expected(photos()), atol=0.05)


def test_it_is_the_file_that_was_named(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    found = features(path, pool="cls", sha256=digest.upper())
    assert found.weights_sha256 == digest
    write(path, seed=1)
    with pytest.raises(MetricError, match="another file"):
        features(path, pool="cls", sha256=digest)
    with pytest.raises(MetricError, match="another file"):  # nor may it change behind our back
        found(photos())


def test_no_session_is_held_before_the_first_batch_or_taken_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = features(write(tmp_path / "net.onnx"), pool="cls")
    opened = onnx_networks.opened_sessions(monkeypatch)
    before = found(photos())
    assert opened == [1]  # by the first batch
    assert torch.equal(pickle.loads(pickle.dumps(found))(photos()), before)
    assert opened == [1, 1]


@pytest.mark.parametrize(
    "settings", [{"pool": "cls"}, {"pool": "mean"}, {"size": 8}, {"std": (1, 1, 1)}, {"output": "maps"}]
)
def test_what_changes_the_features_is_on_the_card(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write(tmp_path / "net.onnx", shape=("N", 3, SIDE, SIDE))
    usual = features(path, output="flat")
    if settings.get("size"):
        with pytest.raises(MetricError, match=r"size is 8\. Give the one that it was trained with"):
            features(path, output="flat", **settings)
        return
    other = features(path, **({"output": "tokens" if "pool" in settings else "flat", "pool": "none"} | settings)) if (
        "maps" not in settings.values()
    ) else features(path, output="maps", pool="mean")  # fmt: skip
    assert other.resize != usual.resize


def external(path: Path, place: str) -> None:
    model = onnx_networks.network()
    tensor = helper.make_tensor("elsewhere", TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    if place == "initializer":
        model.graph.initializer.append(tensor)
    elif place == "attribute":
        model.graph.node.append(helper.make_node("Constant", [], ["more"], value=tensor))
    elif place == "function":
        inner = helper.make_node("Constant", [], ["more"], value=tensor)
        model.functions.append(helper.make_function("own", "F", [], ["more"], [inner], [helper.make_opsetid("", 18)]))
    else:
        branch = helper.make_graph(
            [helper.make_node("Identity", ["elsewhere"], ["chosen"])], "branch", [],
            [helper.make_tensor_value_info("chosen", TensorProto.FLOAT, [1])], [tensor],
        )  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        model.graph.node.append(helper.make_node("If", ["yes"], ["more"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())


@pytest.mark.security
@pytest.mark.parametrize("place", ["initializer", "attribute", "function", "branch"])
def test_no_other_file_is_read(tmp_path: Path, place: str) -> None:
    external(tmp_path / "net.onnx", place)
    with pytest.raises(MetricError, match="in another file, and no other file is opened"):
        features(tmp_path / "net.onnx", pool="cls")


@pytest.mark.security
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": ("N", 1, SIDE, 3 * SIDE)}, r"to take images, float \(N, 3, size, size\).*takes tensor\(float\)"),
        ({"shape": ("N", 3 * SIDE * SIDE)}, "to take images"),
        ({"kind": TensorProto.DOUBLE}, "Expected"),
        ({"inputs": ["images", "more"]}, "to take images"),
        ({"shape": (2, 3, SIDE, SIDE)}, "any number of them or one"),
        ({"shape": ("N", 3, "H", "W")}, "size is None"),
        ({"nodes": [helper.make_node("Anything", ["images"], ["tokens"], domain="some.where")]}, "Expected an ONNX"),
        ({"nodes": [helper.make_node("Identity", ["nothing"], ["tokens"])]}, "Expected an ONNX"),
    ],
    ids=str,
)  # fmt: skip
def test_what_takes_no_images_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MetricError, match=message):
        features(write(tmp_path / "net.onnx", **changes), pool="cls")
    assert capfd.readouterr() == ("", "")  # ONNX Runtime would print what stands in the file


@pytest.mark.security
@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"no network at all", pickle.dumps(print)], ids=repr)
def test_what_is_no_network_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    with pytest.raises(MetricError, match="No such file"):
        features(path)
    path.write_bytes(content)
    for kind in (OnnxFeatures, TorchFeatures):
        with pytest.raises(MetricError, match="Expected"):
            kind(path, size=SIDE, sha256=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pool": "cls", "output": "flat"}, r"must be \(N, tokens, features\) for N=2 images; got \(2, 24\)"),
        ({"pool": "none", "output": "maps"}, r"must be \(N, features\) for N=2"),
        ({"pool": "mean", "output": "flat"}, "Choose another pool"),
        ({"output": "nothing"}, "no output 'nothing'; it has tokens, maps, flat"),
        ({"pool": "max"}, "one of cls, mean, none"),
        ({"name": "../cats"}, "name of an extractor"),
    ],
)
def test_settings_that_do_not_fit_the_network_are_refused(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        features(write(tmp_path / "net.onnx"), **({"pool": "cls"} | settings))


def test_a_network_that_sees_no_difference_is_refused(tmp_path: Path) -> None:
    nodes = onnx_networks.network().graph.node
    nodes[2].op_type = "Sub"
    nodes[2].input.append("sums")
    with pytest.raises(MetricError, match="all images the same features"):
        features(write(tmp_path / "net.onnx", nodes=nodes), pool="cls")


@pytest.mark.parametrize("share", [1.0, 0.01])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_a_network_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path, kind: int, share: float) -> None:
    model = onnx_networks.network(kind=kind)
    dtype = np.float16 if kind == TensorProto.FLOAT16 else np.float32
    model.graph.initializer.append(numpy_helper.from_array(np.array(share, dtype), "share"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "batch"))
    nodes = [
        *model.graph.node[:2],
        helper.make_node("ReduceMean", ["sums", "batch"], ["mean"]),
        helper.make_node("Mul", ["mean", "share"], ["part"]),
        helper.make_node("Sub", ["sums", "part"], ["mixed"]),
        *model.graph.node[2:],
    ]
    nodes[5].input[0] = "mixed"
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    if share < 0.1 and kind == TensorProto.FLOAT16:  # within what half precision rounds
        assert features(tmp_path / "net.onnx", pool="cls").num_features == FEATURES
        return
    with pytest.raises(MetricError, match=r"mixes the images of a batch.*batch_size.*model\.eval\(\)"):
        features(tmp_path / "net.onnx", pool="cls")


class Means(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(2)[..., :6].mean(1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    shape = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(Means(), (torch.zeros(2, 3, SIDE, SIDE),), dynamic_shapes=shape), path)
    return path


def test_a_program_of_torch_is_opened_by_whoever_says_which(program: Path) -> None:
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    found = TorchFeatures(program, size=SIDE, sha256=digest)
    colours = (photos().permute(0, 3, 1, 2).float() / 255 - IMAGENET[0]) / IMAGENET[1]
    assert torch.allclose(found(photos()), Means()(colours), atol=1e-5)
    assert set(found.versions(torch.device("cpu"))) == {"torch"}


@pytest.mark.security
def test_a_program_that_nobody_has_vouched_for_is_not_opened(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.export, "load", lambda *given: pytest.fail("it was opened"))
    for sha256 in (None, "00"):
        with pytest.raises(MetricError, match=r"say which it is|another file"):
            TorchFeatures(program, size=SIDE, sha256=sha256)


@pytest.mark.security
def test_torchscript_and_pickles_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(Means(), path)
    with pytest.raises(MetricError, match="TorchScript and pickles are not opened"):
        TorchFeatures(path, size=SIDE, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.security
def test_a_network_that_cannot_be_run_is_refused_in_one_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = onnx_networks.network()
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([-1, 5, 7]), "to_tokens"))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(MetricError, match=r"Expected an ONNX|cannot be run on images of 16 pixels"):
        features(tmp_path / "net.onnx", pool="cls")
    assert capfd.readouterr() == ("", "")  # ONNX Runtime itself would print it, with what stands in the file


@pytest.mark.security
@pytest.mark.parametrize("side", [0, 60_000])
def test_a_side_that_nobody_has_memory_for_is_refused(tmp_path: Path, side: int) -> None:
    pooled = [helper.make_node("GlobalAveragePool", ["images"], ["maps"])]
    model = onnx_networks.network(shape=("N", 3, side, side), side=1, nodes=pooled)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("maps", TensorProto.FLOAT, ["N", 3, 1, 1]))
    del model.graph.output[1:]
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(MetricError, match="of 1 to 1024 pixels"):
        features(tmp_path / "net.onnx", pool="mean")
