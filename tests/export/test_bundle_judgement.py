"""A bundle has the judgement of what its own file draws, if a judge is there, or that of its run."""

import json
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tests import onnx_networks

from catsweep.errors import MetricError
from catsweep.export import bundle, digests, evaluation
from catsweep.metrics.judge import FILE, read_judged
from catsweep.metrics.scores import DEFAULT, SCORES

Printed = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_networks.write(tmp_path_factory.mktemp("judge") / "tiny.onnx", shape=("N", 3, 32, 32), side=32)


def config(command: str, root: Path, file: Path, *words: str, option: str = "onnx") -> DictConfig:
    """Of a command, with a judge of this file."""
    judge = [f"metrics/judge={option}", f"judge.extractor.file={file}", "judge.extractor.pool=cls", "judge.samples=16"]
    with initialize_config_dir(str(root / "conf")):
        return compose(command, [*judge, f"judge.cache_root={file.parent}", *words])


@pytest.mark.usefixtures("copied")
def test_a_bundle_says_what_a_judge_says_of_what_it_draws(
    chosen_vae: Path, network: Path, root: Path, tmp_path: Path, capsys: Printed
) -> None:
    ready = f"ready={chosen_vae.parents[1] / 'ready'}"
    before = (chosen_vae / FILE).read_bytes()
    folder = bundle.run(config("export", root, network, f"run={chosen_vae}", f"out={tmp_path}", "draws=2", ready))
    judged = read_judged(folder)
    assert judged is not None
    assert tuple(judged.scores) == tuple(f"judge/{name}" for name in DEFAULT if SCORES[name].in_features)
    assert judged.recorded == json.loads((folder / "metrics.json").read_text())["scores"]
    fid = f"judge/fid {judged.scores['judge/fid']:.4g}"
    assert f"Judged by tiny: {fid} (photos: " in capsys.readouterr().out
    assert FILE in json.loads((folder / "provenance.json").read_text())["export"]["files"]
    assert digests.verify(folder) == []
    assert (chosen_vae / FILE).read_bytes() == before
    evaluation.run(config("evaluate", root, network, f"bundle={folder}", ready, f"out={tmp_path / 'again.json'}"))
    printed = capsys.readouterr().out
    assert f"Judged by tiny: {fid} (photos: " in printed
    assert f"(recorded: {fid})" in printed
    assert json.loads((tmp_path / "again.json").read_text())["judge"]["scores"] == pytest.approx(judged.scores)


@pytest.mark.usefixtures("copied")
def test_without_a_judge_the_runs_own_judgement_goes_along(
    chosen_vae: Path, network: Path, root: Path, tmp_path: Path, capsys: Printed
) -> None:
    run = Path(shutil.copytree(chosen_vae, tmp_path / "best_model"))
    scores = json.loads((run / "metrics.json").read_text())["scores"]
    card = json.loads((run / "metrics.json").read_text())["cards"]["val/fid"]
    known = {"scores": {"judge/fid": 9.0}, "cards": {"judge/fid": card}, "reference": {}, "recorded": scores}
    (run / FILE).write_text(json.dumps(known))
    words = (f"run={run}", f"out={tmp_path / 'exports'}", "draws=0")
    folder = bundle.run(config("export", root, tmp_path / "no.onnx", *words, option="auto"))
    assert json.loads((folder / FILE).read_text()) == known
    assert "no.onnx is not there. `make judge` fetches it" in capsys.readouterr().out
    (run / FILE).write_text("torn")
    assert not (bundle.run(config("export", root, network, *words)) / FILE).exists()


def test_a_judge_that_is_named_and_not_there_is_told_before_anything_is_written(
    chosen_vae: Path, root: Path, tmp_path: Path
) -> None:
    words = (f"run={chosen_vae}", f"out={tmp_path / 'exports'}", "draws=2", f"ready={chosen_vae.parents[1] / 'ready'}")
    with pytest.raises(MetricError, match="it is not there"):
        bundle.run(config("export", root, tmp_path / "no.onnx", *words))
    assert not (tmp_path / "exports").exists()
