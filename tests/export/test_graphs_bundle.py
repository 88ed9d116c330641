import os
import shutil

import pytest

from catsweep.errors import ExportError
from catsweep.export.graphs import OnnxReconstructor, load_bundle
from catsweep.models.generator import Reconstructor
from catsweep.runs import Bundle


def test_bundle_opens_as_what_it_can_do(vae, gan) -> None:
    assert isinstance(load_bundle(vae.folder), OnnxReconstructor)
    assert isinstance(load_bundle(vae.folder), Reconstructor)
    assert not isinstance(load_bundle(gan.folder), Reconstructor)


def test_run_is_no_bundle(vae, tmp_path) -> None:
    assert Bundle.is_at(vae.folder)
    assert not Bundle.is_at(vae.run)
    with pytest.raises(ExportError, match=r"Expected an exported bundle in .*Write one with `make export`"):
        load_bundle(vae.run)


def test_latest_bundle_is_the_one_written_last(gan, tmp_path) -> None:
    with pytest.raises(ExportError, match="No bundle in"):
        Bundle.latest(tmp_path)
    for name, written in (("b", 300), ("c", 200), (".a-unfinished", 400)):
        (tmp_path / name).mkdir()
        shutil.copyfile(gan.folder / "generator.onnx", tmp_path / name / "generator.onnx")
        os.utime(tmp_path / name / "generator.onnx", (written, written))
    (tmp_path / "z").mkdir()
    assert Bundle.latest(tmp_path) == tmp_path / "b"
