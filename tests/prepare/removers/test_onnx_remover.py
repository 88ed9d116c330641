"""On networks of two or three nodes, made here."""

import threading
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from catsweep.errors import ConfigError, DataError
from catsweep.prepare.removers import onnx_remover as module
from catsweep.prepare.removers.onnx_remover import Onnx

SIDE = 8
OPSETS = [helper.make_opsetid("", 18)]


def network(
    file: Path, shape=(1, 3, SIDE, SIDE), scale: float = 1.0, offset: float = 0.5, kind: int = TensorProto.FLOAT, keep=1
) -> Path:
    """Mean of the channels, times a scale, plus an offset; a second output that nobody wants."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"axes": np.array([1]), "scale": np.array(scale, dtype), "offset": np.array(offset, dtype)}
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMean", ["photo", "axes"], ["grey"], keepdims=keep),
            helper.make_node("Mul", ["grey", "scale"], ["scaled"]),
            helper.make_node("Add", ["scaled", "offset"], ["mask"]),
        ],
        "brightness",
        [helper.make_tensor_value_info("photo", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in ("mask", "grey")],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=OPSETS, ir_version=10), file)
    return file


def flat(value: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16])
@pytest.mark.parametrize("keep", [0, 1])
def test_a_photo_goes_in_normalised_and_a_mask_of_its_size_comes_out(tmp_path: Path, kind: int, keep: int) -> None:
    remove = Onnx(network(tmp_path / "x.onnx", kind=kind, keep=keep))
    for value in (0, 64, 192):
        alpha = remove(flat(value), None)
        assert (alpha.shape, alpha.dtype) == ((20, 30), np.uint8)
        np.testing.assert_array_equal(alpha, round(255 * value / 256))


def test_the_mask_lies_where_the_photo_is_bright(tmp_path: Path) -> None:
    photo = flat(0, 64, 32)
    photo[:32, 16:] = 255
    alpha = Onnx(network(tmp_path / "x.onnx"))(photo, None)
    assert alpha[:26, 19:].min() > 250
    assert alpha[38:].max() == alpha[:, :13].max() == 0
    up = Onnx(network(tmp_path / "x.onnx"))(photo[28:36, 14:18], None)  # smaller than the network's input
    assert up.shape == (8, 4)
    assert up[0, -1] > 250


def test_each_channel_has_its_own_mean_and_std(tmp_path: Path) -> None:
    remove = Onnx(network(tmp_path / "x.onnx", offset=0), mean=[0, 10, 20], std=[100, 200, 400])
    photo = np.empty((4, 4, 3), np.uint8)
    photo[:] = [50, 60, 220]
    expected = np.mean([0.5, 0.25, 0.5])
    np.testing.assert_array_equal(remove(photo, None), np.rint(255 * expected))


def test_outputs_that_are_no_probabilities(tmp_path: Path) -> None:
    file = network(tmp_path / "x.onnx", scale=8, offset=0)  # -4 to 4
    photo = flat(0)
    photo[:, 15:] = 255
    with pytest.raises(DataError, match=r"from 0 to 1, but they go from -4 to 3\.97.*output=logits"):
        Onnx(file)(photo, None)
    stretched = Onnx(file, output="minmax")(photo, None)
    assert (stretched.min(), stretched.max()) == (0, 255)
    logits = Onnx(file, output="logits")(photo, None)
    assert (logits.min(), logits.max()) == (round(255 / (1 + np.exp(4))), round(255 / (1 + np.exp(-3.96875))))
    assert Onnx(file, output="minmax")(flat(9), None).max() == 0  # nothing to stretch
    with pytest.raises(DataError, match="go from nan to nan"):
        Onnx(network(tmp_path / "nan.onnx", offset=float("nan")))(photo, None)


def test_the_side_is_the_networks_or_the_given_one(tmp_path: Path) -> None:
    free = network(tmp_path / "free.onnx", (1, 3, "height", "width"))
    with pytest.raises(ConfigError, match=r"size to be .*takes \[1, 3, 'height', 'width'\] and the size is None"):
        Onnx(free)(flat(1), None)
    assert Onnx(free, size=16)(flat(128), None).shape == (20, 30)
    with pytest.raises(ConfigError, match=r"takes \[1, 3, 8, 8\] and the size is 16"):
        Onnx(network(tmp_path / "x.onnx"), size=16)(flat(1), None)
    with pytest.raises(ConfigError, match=r"\[1, 3, 8, 12\]"):
        Onnx(network(tmp_path / "oblong.onnx", (1, 3, 8, 12)))(flat(1), None)


def test_files_that_are_no_such_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"remover\.file=.*none\.onnx, but: No such file.*make background-model"):
        Onnx(tmp_path / "none.onnx").parameters()
    with pytest.raises(DataError, match="File doesn't exist"):
        Onnx(tmp_path / "none.onnx")(flat(1), None)
    (tmp_path / "page.onnx").write_text("<html>404</html>")
    with pytest.raises(DataError, match=r"Expected an ONNX network in .*page\.onnx, but onnxruntime says"):
        Onnx(tmp_path / "page.onnx")(flat(1), None)
    with pytest.raises(DataError, match=r"to take one photo, but it takes photo: tensor\(float\) \[1, 1, 8, 8\]"):
        Onnx(network(tmp_path / "grey.onnx", (1, 1, SIDE, SIDE)))(flat(1), None)
    with pytest.raises(DataError, match=r"it takes photo: tensor\(double\)"):
        Onnx(network(tmp_path / "double.onnx", kind=TensorProto.DOUBLE))(flat(1), None)
    classes = helper.make_graph(
        [helper.make_node("Flatten", ["photo"], ["classes"])],
        "classifier",
        [helper.make_tensor_value_info("photo", TensorProto.FLOAT, (1, 3, SIDE, SIDE))],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(classes, opset_imports=OPSETS, ir_version=10), tmp_path / "c.onnx")
    with pytest.raises(DataError, match=r"a mask of 8 x 8, but the network gives \(1, 192\)"):
        Onnx(tmp_path / "c.onnx")(flat(1), None)


def test_the_key_follows_the_content_of_the_file_and_not_its_place(tmp_path: Path) -> None:
    first = Onnx(network(tmp_path / "x.onnx")).parameters()
    (tmp_path / "y").mkdir()
    assert Onnx(network(tmp_path / "y" / "z.onnx")).parameters() == first
    assert str(tmp_path) not in str(first)
    assert Onnx(network(tmp_path / "x.onnx", offset=0.4)).parameters() != first
    others = [{"size": 8}, {"mean": [0, 0, 0]}, {"std": [255, 255, 255]}, {"output": "minmax"}]
    assert all(Onnx(network(tmp_path / "x.onnx"), **other).parameters() != first for other in others)


class Session:
    """onnxruntime's, slowed down, and for one thread at a time."""

    made: ClassVar[list[str]] = []
    real = module.onnxruntime.InferenceSession

    def __init__(self, file: Path, *args, **kwargs) -> None:
        self.made.append(file.name)
        self.inner, self.busy = self.real(file, *args, **kwargs), threading.Lock()
        self.get_inputs, self.get_outputs = self.inner.get_inputs, self.inner.get_outputs

    def run(self, *args):
        assert self.busy.acquire(blocking=False), "two photos at a time"
        time.sleep(0.002)
        output = self.inner.run(*args)
        self.busy.release()
        return output


def test_threads_share_one_network_and_get_their_own_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "made", [])
    remove = Onnx(network(tmp_path / "x.onnx"))
    assert Session.made == []  # not before the first photo: a stage that is made already needs none
    masks: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda v=v: masks.update({v: remove(flat(v), None)})) for v in range(0, 256, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Session.made == ["x.onnx"]
    assert {value: {*np.unique(mask)} for value, mask in masks.items()} == {
        value: {round(255 * value / 256)} for value in range(0, 256, 16)
    }
