import onnx as onnx_format
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from catsweep.errors import ExportError
from catsweep.export import graphs
from catsweep.models.generator import Generator, draw_latents, generate
from catsweep.runs import load_run


class Tiny(nn.Module):
    """The smallest generator with something to get wrong: dropout and batch statistics."""

    latent_size = 4
    image_size = 2

    def __init__(self, shift: float = 0.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm, self.dropout = nn.Linear(4, 12), nn.BatchNorm1d(12), nn.Dropout(0.5)
        self.shift = shift

    def decode(self, latents: Tensor) -> Tensor:
        values = self.dropout(self.norm(self.linear(latents)))
        return values.sigmoid().view(-1, 3, 2, 2) + self.shift


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    model, path = Tiny().train(), tmp_path_factory.mktemp("onnx") / "generator.onnx"
    graphs.write_onnx(model, path)
    return model, path


@pytest.fixture(scope="module")
def file(written):
    return written[1]


def test_real_model_draws_the_same_in_onnx_runtime(run_of) -> None:
    # One that averages no weights and normalises nothing; `test_bundle` exports two of other kinds.
    run = run_of("model=dcgan", "normalization=none", "activation=mish", "model.ema_decay=0")
    model, _ = load_run(run)
    graphs.write_onnx(model, run / "generator.onnx")
    assert graphs.difference(model, run / "generator.onnx", batches=(1, 2, 7, 64)) < 1e-5


def test_interface_needs_nothing_of_ours(file) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (latents,), (images,) = session.get_inputs(), session.get_outputs()
    assert (latents.name, latents.type, latents.shape[1:]) == ("latents", "tensor(float)", [4])
    assert (images.name, images.type, images.shape[1:]) == ("images", "tensor(float)", [3, 2, 2])
    assert isinstance(latents.shape[0], str)
    assert latents.shape[0] == images.shape[0]


def test_file_is_whole(file) -> None:
    assert [path.name for path in file.parent.iterdir()] == ["generator.onnx"]
    onnx_format.checker.check_model(str(file), full_check=True)


def test_writing_leaves_the_model_in_its_mode(written) -> None:
    model, _ = written
    assert model.training
    assert model.norm.num_batches_tracked == 0


def test_check_sees_a_generator_that_differs(file) -> None:
    assert graphs.difference(Tiny(), file) < 1e-6
    assert graphs.difference(Tiny(shift=2e-4), file) == pytest.approx(2e-4, rel=1e-2)


def test_check_sees_a_wrong_shape_or_no_number(file) -> None:
    class Bigger(Tiny):
        def decode(self, latents: Tensor) -> Tensor:
            return super().decode(latents).repeat(1, 1, 2, 2)

    assert graphs.difference(Bigger(), file) == float("inf")
    assert graphs.difference(Tiny(shift=float("nan")), file) > 1e30


def test_check_compares_in_evaluation_mode(file) -> None:
    assert graphs.difference(Tiny().train(), file) < 1e-6


def test_bundle_is_a_generator_like_any_other(file) -> None:
    drawer = graphs.OnnxGenerator(file)
    assert isinstance(drawer, Generator)
    assert (drawer.latent_size, drawer.image_size) == (4, 2)
    latents = draw_latents(5, 4, seed=1)
    assert (generate(drawer, latents).int() - generate(Tiny(), latents).int()).abs().max() <= 1


@pytest.mark.parametrize("content", [b"", b"no protobuf"], ids=["empty", "garbage"])
def test_damaged_file_is_refused(tmp_path, content) -> None:
    (tmp_path / "generator.onnx").write_bytes(content)
    with pytest.raises(ExportError, match="not a file that catsweep exported"):
        graphs.OnnxGenerator(tmp_path / "generator.onnx")


def test_missing_file_is_refused(tmp_path) -> None:
    with pytest.raises(ExportError, match="not a file that catsweep exported"):
        graphs.OnnxGenerator(tmp_path / "generator.onnx")


def test_onnx_file_of_something_else_is_refused(tmp_path) -> None:
    value = onnx_format.helper.make_tensor_value_info
    node = onnx_format.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx_format.helper.make_graph([node], "g", [value("x", 1, [1, 2])], [value("y", 1, [1, 2])])
    model = onnx_format.helper.make_model(graph, opset_imports=[onnx_format.helper.make_opsetid("", 18)], ir_version=10)
    onnx_format.save(model, tmp_path / "generator.onnx")
    with pytest.raises(ExportError, match="maps 'x' to 'y'"):
        graphs.OnnxGenerator(tmp_path / "generator.onnx")
