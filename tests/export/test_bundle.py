import json
import re

import numpy as np
import onnxruntime
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from catsweep.errors import DataError, ExportError
from catsweep.export import bundle, onnx, weights
from catsweep.models.latents import draw_latents
from catsweep.models.protocol import generate
from catsweep.report.grids import grid
from catsweep.runs import load_run


def config(run, out):
    return OmegaConf.create({"run": str(run), "out": str(out)})


def choose(run, study="cats", trial=12) -> None:
    choice = {"study": study, "trial": trial, "selected_by": "the lowest val/fid"}
    (run / "choice.json").write_text(json.dumps(choice))


def test_whoever_may_read_the_run_may_read_the_bundle(run_of, tmp_path) -> None:
    run = run_of()
    modes = {path.name: path.stat().st_mode for path in bundle.run(config(run, tmp_path / "exports")).iterdir()}
    assert modes == dict.fromkeys(modes, (run / "config.yaml").stat().st_mode)


@pytest.mark.parametrize("model", ["vae", "dcgan"])
def test_best_model_becomes_a_bundle(run_of, tmp_path, capsys, model) -> None:
    run = run_of(f"model={model}", name="outputs/best_model")
    choose(run)
    folder = bundle.run(config(run, tmp_path / "exports"))
    assert folder == tmp_path / "exports" / "cats-12"
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.yaml",
        "generator.onnx",
        "metrics.json",
        "model.safetensors",
        "provenance.json",
        "samples.png",
    ]
    for name in ("config.yaml", "metrics.json"):
        assert (folder / name).read_bytes() == (run / name).read_bytes()
    export = json.loads((folder / "provenance.json").read_text())["export"]
    assert (export["study"], export["trial"], export["selected_by"]) == ("cats", 12, "the lowest val/fid")
    assert 0 <= export["max_difference"] < export["tolerance"] == 1e-4
    assert export["checked_batches"] == [1, 7]
    assert re.search(r"max \|Δ\| \d\.\de-\d\d \(batches of 1 and 7\)", capsys.readouterr().out)


def test_provenance_of_the_run_is_kept(run_of, tmp_path) -> None:
    run = run_of()
    provenance = json.loads((bundle.run(config(run, tmp_path)) / "provenance.json").read_text())
    assert provenance["git"] == {"commit": "abc"}
    assert "export" not in json.loads((run / "provenance.json").read_text())


def test_any_run_can_be_exported_and_is_named_by_its_folder(run_of, tmp_path) -> None:
    assert bundle.run(config(run_of(), tmp_path)).name == "2026-01-02-03-04-05"


def test_samples_are_drawn_from_the_bundle_itself(run_of, tmp_path) -> None:
    run = run_of("model=vae")
    folder = bundle.run(config(run, tmp_path / "exports"))
    latents = draw_latents(64, 8, seed=0)
    drawn = generate(onnx.OnnxGenerator(folder / "generator.onnx"), latents).numpy()
    with Image.open(folder / "samples.png") as page:
        assert np.array_equal(np.asarray(page), grid(drawn, columns=8))
    by_torch = generate(load_run(run)[0], latents).numpy()
    assert np.abs(drawn.astype(int) - by_torch.astype(int)).max() <= 1


def test_nothing_is_pickled(run_of, tmp_path) -> None:
    folder = bundle.run(config(run_of(), tmp_path / "exports"))
    # A zip of pickles, and every pickle since protocol 2, say so in their first bytes.
    assert not [path for path in folder.iterdir() if path.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04")]


def test_readme_draws_a_cat(run_of, tmp_path, monkeypatch) -> None:
    run = run_of("model=dcgan", name="outputs/best_model")
    choose(run)
    folder = bundle.run(config(run, tmp_path / "exports"))
    page = (folder / "README.md").read_text()
    assert "trial 12 of study cats, the lowest val/fid" in page
    assert "| val/fid | 76.54 | efficientnet_lite0 | 512 |" in page
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {})
    with Image.open(folder / "cat.png") as image:
        assert image.size == (32, 32)


def test_lying_onnx_file_is_refused_and_the_earlier_bundle_stays(run_of, tmp_path, monkeypatch) -> None:
    run = run_of("model=vae")
    folder = bundle.run(config(run, tmp_path / "exports"))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    write = onnx.write

    def write_another(model, path) -> None:
        with torch.no_grad():
            for parameter in (state := load_run(run)[0]).decoder.parameters():
                parameter.mul_(1.01)
        write(state, path)

    monkeypatch.setattr(onnx, "write", write_another)
    with pytest.raises(ExportError, match=r"generator\.onnx draws other images.*at most 1e-04"):
        bundle.run(config(run, tmp_path / "exports"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_session_that_drifts_just_above_the_tolerance_is_refused(run_of, tmp_path, monkeypatch) -> None:
    class Drifting(onnxruntime.InferenceSession):
        drift = 0.5e-4

        def run(self, *args, **kwargs):
            return [output + np.float32(self.drift) for output in super().run(*args, **kwargs)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Drifting)
    run = run_of("model=vae")
    bundle.run(config(run, tmp_path / "exports"))
    Drifting.drift = 1.5e-4
    with pytest.raises(ExportError, match=r"max \|Δ\| 1\.5e-04"):
        bundle.run(config(run, tmp_path / "exports"))


def test_incomplete_weights_are_refused(run_of, tmp_path, monkeypatch) -> None:
    # A model whose decode reads what no submodule of its own ran: the file would lack it.
    monkeypatch.setattr(weights, "parts_in_use", lambda model: {"encoder"})
    with pytest.raises(ExportError, match=r"model\.safetensors draws other images"):
        bundle.run(config(run_of("model=vae"), tmp_path / "exports"))
    assert not (tmp_path / "exports" / "2026-01-02-03-04-05").exists()


def test_without_a_best_model_it_says_what_to_run(tmp_path) -> None:
    with pytest.raises(
        ExportError, match=r"lacks config\.yaml, metrics\.json, provenance\.json\. Run `make best-model`"
    ):
        bundle.run(config(tmp_path / "outputs" / "best_model", tmp_path / "exports"))
    assert not (tmp_path / "exports").exists()


def test_run_without_its_checkpoint(run_of, tmp_path) -> None:
    run = run_of()
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(DataError, match=r"best\.ckpt"):
        bundle.run(config(run, tmp_path / "exports"))
