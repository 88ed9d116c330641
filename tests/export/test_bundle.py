import json
import re
import runpy
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx as onnx_format
import onnxruntime
import pytest
from huggingface_hub import ModelCard
from omegaconf import OmegaConf
from PIL import Image
from tests.export.conftest import export_config

from catsweep import publish
from catsweep.errors import DataError, ExportError
from catsweep.export import graphs, standalone, weights
from catsweep.export.graphs import is_pickled
from catsweep.grids import enlarge, grid
from catsweep.models.generator import draw_latents, generate
from catsweep.ownership import MARKER
from catsweep.runs import load_run

ALWAYS = [
    "README.md",
    "config.yaml",
    "generate.py",
    "generator.onnx",
    "generator.pt2",
    "interpolation.png",
    "metrics.json",
    "model.safetensors",
    "provenance.json",
    "samples.png",
]


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != MARKER)


def damaged_onnx(source, target):
    """The same with the numbers of one weight in reverse."""
    model = onnx_format.load(source)
    weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    changed = np.flip(onnx_format.numpy_helper.to_array(weight)).copy()
    weight.CopyFrom(onnx_format.numpy_helper.from_array(changed, weight.name))
    onnx_format.save(model, target)


def damaged_program(source, target):
    """Likewise: in the archive, weights are plain bytes."""
    with zipfile.ZipFile(source) as before, zipfile.ZipFile(target, "w") as after:
        largest = max(
            (one for one in before.infolist() if "/weights/weight_" in one.filename), key=lambda m: m.file_size
        )
        for member in before.infolist():
            content = before.read(member)
            if member.filename == largest.filename:
                content = np.frombuffer(content, np.float32)[::-1].tobytes()
            after.writestr(member.filename, content)


def test_everything_is_there(vae, gan) -> None:
    assert vae.folder.name == "cats-12"
    assert names(vae.folder) == sorted([*ALWAYS, "reconstructor.onnx", "nearest_neighbours.png", "judge.json"])
    assert gan.folder.name == "2026-01-02-03-04-05"
    assert names(gan.folder) == ALWAYS


def test_whoever_may_read_the_run_may_read_the_bundle(vae) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in vae.folder.iterdir()}
    assert modes == dict.fromkeys(modes, stat.S_IMODE((vae.run / "config.yaml").stat().st_mode))


def test_difference_of_each_file_is_printed_and_recorded(vae, gan) -> None:
    for one in (vae, gan):
        recorded = one.json("provenance.json")["export"]
        assert (recorded["tolerance"], recorded["checked_batches"]) == (1e-4, [1, 7])
        files = [name for name in names(one.folder) if Path(name).suffix in (".onnx", ".pt2", ".safetensors")]
        assert sorted(recorded["max_difference"]) == files
        assert all(0 <= difference < 1e-5 for difference in recorded["max_difference"].values())
        said = dict(re.findall(r"^  (\S+) +(\d\.\de[-+]\d\d)$", one.said, re.MULTILINE))
        assert said == {name: f"{value:.1e}" for name, value in recorded["max_difference"].items()}


def test_provenance_says_where_it_comes_from(vae) -> None:
    about = vae.json("provenance.json")
    assert about["git"] == {"commit": "abc", "dirty": True, "diff": "--- a/code.py\n+++ b/code.py\n"}
    assert (about["export"]["study"], about["export"]["trial"]) == ("cats", 12)
    assert about["export"]["selected_by"] == "the lowest val/fid"
    assert about["export"]["seeds"] == {"training": 3, "scores": 0, "pictures": 0}
    assert about["export"]["packages"]["onnxruntime"] == onnxruntime.__version__
    assert "export" not in json.loads((vae.run / "provenance.json").read_text())


def test_nothing_names_a_place_on_this_machine(vae, gan, root) -> None:
    places = {str(place).encode() for place in (root, Path.home(), vae.run.parents[1], Path("/tmp"))} - {b"/"}
    for path in [*vae.folder.iterdir(), *gan.folder.iterdir()]:
        content = path.read_bytes()
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                content = b"".join(map(archive.read, archive.namelist()))
        assert not [place for place in places if place in content], path.name


def test_configuration_is_plain_and_still_builds_the_model(vae) -> None:
    config = OmegaConf.load(vae.folder / "config.yaml")
    assert "${" not in (vae.folder / "config.yaml").read_text()
    assert config.model == OmegaConf.load(vae.run / "config.yaml").model
    assert (config.data.root, config.metrics.cache_root) == ("data/ready", "data/statistics")
    assert config.data.reader.n == 40


def test_nothing_is_pickled(vae, gan) -> None:
    for path in [*vae.folder.iterdir(), *gan.folder.iterdir()]:
        if path.suffix == ".pt2":
            assert not graphs.pickled_members(path)
        else:
            assert not is_pickled(path.read_bytes()), path.name


def test_scores_have_intervals_that_hold_them(vae, gan) -> None:
    metrics = vae.json("metrics.json")
    before = json.loads((vae.run / "metrics.json").read_text())
    assert {key: metrics[key] for key in before} == before
    assert sorted(metrics["intervals"]) == sorted(before["scores"])
    for key, interval in metrics["intervals"].items():
        assert interval["low"] <= before["scores"][key] <= interval["high"]
    assert metrics["intervals"]["val/fid"]["draws"] == 2
    assert "intervals" not in gan.json("metrics.json")


def test_samples_are_drawn_from_the_bundle_itself(vae) -> None:
    latents = draw_latents(64, 8, seed=0)
    drawn = generate(graphs.OnnxGenerator(vae.folder / "generator.onnx"), latents).numpy()
    with Image.open(vae.folder / "samples.png") as page:
        assert np.array_equal(np.asarray(page), grid(enlarge(drawn, 128), columns=8))
    model: Any = load_run(vae.run)[0]
    by_torch = generate(model, latents).numpy()
    assert np.abs(drawn.astype(int) - by_torch.astype(int)).max() <= 1


def test_without_photos_it_says_what_is_missing(gan) -> None:
    page = (gan.folder / "README.md").read_text()
    assert "No intervals were measured: it was exported with `draws=0`" in page
    assert "beside their nearest training photos is left out" in page


def test_what_the_judge_said_goes_with_the_bundle(vae, gan) -> None:
    assert vae.json("judge.json") == json.loads((vae.run / "judge.json").read_text())
    assert not (gan.folder / "judge.json").exists()
    page = (vae.folder / "README.md").read_text()
    assert "| FID | lower | 95.12 | 42.5 | distance" in page
    assert r"The judge (dinov2\_vits14) agrees: judge/fid 95.13." in page
    assert "No independent network has judged it" in (gan.folder / "README.md").read_text()


class TestModelCard:
    def test_hugging_face_reads_it(self, vae) -> None:
        card = ModelCard.load(vae.folder / "README.md")
        assert (card.data.library_name, card.data.license, card.data.datasets) == ("onnx", "mit", None)
        assert card.data.pipeline_tag == "unconditional-image-generation"
        assert card.data.model_name == "cats-12"
        scores = vae.json("metrics.json")["scores"]
        found = {one.metric_name: (f"val/{one.metric_type}", one.metric_value) for one in card.data.eval_results}
        own = [one for name, one in found.items() if "dinov2" not in name]
        assert dict(own) == scores
        assert {"FID (blocks)", "SSIM (pixels)"} < found.keys()
        assert found["FID (dinov2_vits14)"] == ("val/fid", 95.125)
        # Where a card comes back from Hugging Face's own code as it was, nothing in it was misread.
        assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()

    def test_every_picture_and_file_it_names_is_there(self, vae, gan) -> None:
        for one in (vae, gan):
            page = (one.folder / "README.md").read_text()
            pictures = re.findall(r"!\[.+\]\((.+)\)", page)
            assert sorted(pictures) == [name for name in names(one.folder) if name.endswith(".png")]
            table = page.partition("## Files")[2]
            assert sorted(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE)) == names(one.folder)[1:]

    def test_licence_of_photos_is_not_made_up(self, gan) -> None:
        assert ModelCard.load(gan.folder / "README.md").data.license == "unknown"
        assert "Its licence is `unknown`" in (gan.folder / "README.md").read_text()

    def test_code_draws_a_cat(self, gan, tmp_path, monkeypatch) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", (gan.folder / "README.md").read_text(), re.DOTALL)
        shutil.copyfile(gan.folder / "generator.onnx", tmp_path / "generator.onnx")
        (tmp_path / "code.py").write_text(code)
        monkeypatch.chdir(tmp_path)
        runpy.run_path("code.py")
        with Image.open("cat.png") as image:
            assert image.size == (32, 32)


@pytest.mark.parametrize("name", ["generator.onnx", "reconstructor.onnx", "generator.pt2"])
def test_lying_file_is_refused_and_the_earlier_bundle_stays(vae, export, tmp_path, copied, name) -> None:
    folder = tmp_path / "exports" / "cats-12"
    folder.mkdir(parents=True)
    (folder / "generator.onnx").write_text("of the earlier bundle")
    copied[name] = tmp_path / name
    (damaged_program if name.endswith(".pt2") else damaged_onnx)(vae.folder / name, copied[name])
    with pytest.raises(ExportError, match=rf"{re.escape(name)} draws other images.*at most 1e-04"):
        export(vae.run, tmp_path / "exports")
    assert [path.read_text() for path in folder.iterdir()] == ["of the earlier bundle"]
    assert names(folder.parent) == [folder.name]


def test_session_that_drifts_just_above_the_tolerance_is_refused(vae, export, tmp_path, copied, monkeypatch) -> None:
    class Drifting(onnxruntime.InferenceSession):
        drift = 0.5e-4

        def run(self, *args, **kwargs):
            return [output + np.float32(self.drift) for output in super().run(*args, **kwargs)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Drifting)
    export(vae.run, tmp_path)
    Drifting.drift = 1.5e-4
    with pytest.raises(ExportError, match=r"max \|Δ\| 1\.5e-04"):
        export(vae.run, tmp_path)


def test_incomplete_weights_are_refused(vae, export, tmp_path, copied, monkeypatch) -> None:
    # A model whose decode reads what no submodule of its own ran: the file would lack it.
    monkeypatch.setattr(weights, "parts_in_use", lambda model: {"encoder"})
    with pytest.raises(ExportError, match=r"model\.safetensors draws other images"):
        export(vae.run, tmp_path / "exports")
    assert not (tmp_path / "exports" / "cats-12").exists()


def test_script_that_draws_other_pixels_is_refused(vae, export, tmp_path, copied, monkeypatch) -> None:
    monkeypatch.setattr(standalone, "draw", lambda n, *_: np.zeros((n, 32, 32, 3), np.uint8))
    with pytest.raises(ExportError, match=r"generate\.py draws other pixels"):
        export(vae.run, tmp_path)


def changed_copy(run, target, name, **changes):
    shutil.copytree(run, target)
    content = json.loads((target / name).read_text()) | changes
    (target / name).write_text(json.dumps(content))
    return target


def test_other_photos_than_the_runs_are_refused_before_anything_is_written(vae, export, tmp_path) -> None:
    run = changed_copy(vae.run, tmp_path / "run", "provenance.json", data_digest="0" * 64)
    ready = next(path for path in vae.run.parents[1].glob("ready/*") if path.is_dir())
    with pytest.raises(ExportError, match=r"other photos.*draws=0"):
        export(run, tmp_path / "exports", draws=2, ready=str(ready))
    assert not (tmp_path / "exports").exists()


def test_photos_that_are_gone_are_told_with_the_way_out(vae, export, tmp_path, copied) -> None:
    run = shutil.copytree(vae.run, tmp_path / "run")
    config = OmegaConf.load(run / "config.yaml")
    config.data = {"_target_": "catsweep.data.datamodule.PreparedCats", "source": "data/ready/gone-32", "size": 32}
    OmegaConf.save(config, run / "config.yaml")
    with pytest.raises(ExportError, match=r"not in data/ready.*ready=data/ready/NAME-SIZE.*draws=0"):
        export(run, tmp_path, draws=2)
    ready = str(vae.run.parents[1] / "ready")
    assert "nearest_neighbours.png" in names(export(run, tmp_path, draws=2, ready=ready).folder)


def test_scores_that_are_not_this_models_are_refused(vae, export, tmp_path, copied) -> None:
    scores = json.loads((vae.run / "metrics.json").read_text())["scores"] | {"val/ssim": 0.9}
    run = changed_copy(vae.run, tmp_path / "run", "metrics.json", scores=scores)
    with pytest.raises(ExportError, match=r"The record of val/ssim is 0\.9"):
        export(run, tmp_path / "exports", draws=2, ready=str(vae.run.parents[1] / "ready"))
    assert not (tmp_path / "exports" / "cats-12").exists()


@pytest.mark.security
def test_an_edited_page_is_kept_beside_the_new_one(vae, export, tmp_path, copied) -> None:
    out = tmp_path / "[red]x[/red] :cat: [" / "x]"  # markup of Rich's, if it is taken for that
    folder = export(vae.run, out).folder
    (folder / "README.md").write_text("The licence is mine.")
    said = export(vae.run, out).said
    assert f"Exported {folder}; " in said
    assert f"{folder}/README.md was edited, and is now README.before.md beside the new one." in said
    assert "was edited" not in export(vae.run, out).said
    assert (folder / "README.before.md").read_text() == "The licence is mine."
    assert (folder / "README.md").read_text().startswith("---")


def test_push_is_checked_first_and_done_last(vae, export, tmp_path, copied, monkeypatch) -> None:
    done: list[tuple] = []
    monkeypatch.setattr(publish, "check", lambda cfg: done.append(("check", (tmp_path / "cats-12").exists())))
    monkeypatch.setattr(
        publish, "push", lambda folder, cfg: done.append((folder, (folder / "README.md").is_file(), cfg.push))
    )
    publish.run(export_config(vae.run, tmp_path, push="hub"))
    assert done == [("check", False), (tmp_path / "cats-12", True, "hub")]


def test_without_a_best_model_it_says_what_to_run(export, tmp_path) -> None:
    with pytest.raises(
        ExportError, match=r"lacks config\.yaml, metrics\.json, provenance\.json\. Run `make best-model`"
    ):
        export(tmp_path / "outputs" / "best_model", tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_run_without_its_checkpoint(run_of, export, tmp_path) -> None:
    run = run_of()
    (run / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(DataError, match=r"best\.ckpt"):
        export(run, tmp_path / "exports")


@pytest.mark.parametrize("jobs", ["-j1", "-j4"])
def test_make_exports_after_it_has_chosen(root, tmp_path, jobs) -> None:
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\necho "begin $1" >> log\n[ $1 = src/best_model.py ] && sleep 0.3\necho "end $1" >> log\n'
    )
    python.chmod(0o755)
    make = ["make", jobs, "--file", str(root / "Makefile"), "--assume-old=setup", f"RUN={python}"]
    for goals, expected in (
        (["best-model", "export"], ["begin src/best_model.py", "end src/best_model.py", "begin src/export.py"]),
        (["export"], ["begin src/export.py"]),
    ):
        (tmp_path / "log").unlink(missing_ok=True)
        done = subprocess.run([*make, *goals], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "log").read_text().splitlines() == [*expected, "end src/export.py"]
