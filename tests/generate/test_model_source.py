"""Which generator is meant, and the errors of folders that are something else."""

import os
import subprocess
import sys

import pytest

import catsweep.runs
from catsweep.errors import ConfigError, DataError, ExportError
from catsweep.generate.model_source import choose


def test_without_a_name_it_is_the_latest_bundle_else_the_best_model(monkeypatch, tmp_path, bundle) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=r"nothing to draw with.*make best-model export"):
        choose(None, None)
    (tmp_path / "outputs" / "best_model").mkdir(parents=True)
    (tmp_path / "outputs" / "best_model" / "config.yaml").touch()
    assert str(choose(None, None).folder) == "outputs/best_model"
    for age, name in enumerate(("new", "old")):
        os.utime(bundle(f"outputs/exports/{name}") / "generator.onnx", (1e9 - age, 1e9 - age))
    assert str(choose(None, None).folder) == "outputs/exports/new"


def test_run_is_loaded_from_the_checkpoint_asked_for(monkeypatch, tmp_path, toy) -> None:
    monkeypatch.setattr(
        catsweep.runs, "load_run", lambda run, name: (toy, None) if (run, name) == (tmp_path, "last") else None
    )
    source = choose(None, str(tmp_path), "last")
    assert source.generator is source.encoder is source.reconstructor is toy
    assert source.reconstructs


def test_each_name_is_for_its_kind(tmp_path, bundle) -> None:
    (tmp_path / "config.yaml").touch()
    with pytest.raises(ExportError, match=f"That is the folder of a run: run={tmp_path}"):
        choose(str(tmp_path), None)
    with pytest.raises(ConfigError, match=r"is an exported bundle, not a run\. Say bundle="):
        choose(None, str(bundle()))
    with pytest.raises(ConfigError, match="got both"):
        choose("a", "b")
    with pytest.raises(ConfigError, match=r"checkpoint=last is of a run.*run="):
        choose(str(bundle()), None, "last")


def test_folder_that_is_no_run(tmp_path) -> None:
    with pytest.raises(DataError, match="Expected the folder of a run"):
        _ = choose(None, str(tmp_path / "nowhere")).generator


def test_damaged_bundle(tmp_path) -> None:
    (tmp_path / "generator.onnx").write_bytes(b"cut short")
    with pytest.raises(ExportError, match="not a file that catsweep exported"):
        _ = choose(str(tmp_path), None).generator


def test_onnx_runtime_reports_to_nobody(root) -> None:
    program = "import os; os.environ.pop('ORT_DISABLE_TELEMETRY', None); import catsweep; "
    program += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    done = subprocess.run([sys.executable, "-c", program], cwd=root / "src", capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
