"""What people have keeps working: a study, runs, a bundle and a ready set that an earlier version wrote (`make.py`).

Numbers are compared as far as arithmetic on another processor allows: a few steps of training differ in the fifth
digit, and a log says four; a score is of 16 images, and its network's features differ in the fifth digit, too.
"""

import base64
import csv
import io
import json
import lzma
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
from omegaconf import OmegaConf
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image
from tests.before.make import EXPECTED, GENERATE, HERE, PLACE, RUNS, SWEEP, numbers, unpack, weights
from tests.starting import OF_A_SWEEP, Running, Warm

NOW = json.loads(EXPECTED.read_text())
BUNDLE = "outputs/exports/runs-vae"
LEARNING_RATES = {"vae": 1e-3, "dcgan": 2e-4}
SHARES = {"val/recall", "val/coverage", "val/copied"}  # of 16 images: one more or less

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def warm(root: Path) -> Iterator[Warm]:
    preload = OmegaConf.load(root / "conf/hydra/sweeper/steady.yaml").preload
    warm = Warm([*OF_A_SWEEP, *preload], os.environ)
    yield warm
    warm.close()


@pytest.fixture(scope="module")
def place(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything as it was, in a folder of its own; the graph of the features is the suite's."""
    place = tmp_path_factory.mktemp("before")
    unpack(place)
    graphs.mkdir(exist_ok=True)
    (place / "data/statistics").symlink_to(graphs)
    for path in (HERE / "app").glob("*.*"):
        shutil.copy(path, place / "plain")
    return place


@pytest.fixture(scope="module")
def typed(root: Path, place: Path, warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Typed:
    """A command, by its name or its file, which must succeed unless it is `refused`."""
    logs = tmp_path_factory.mktemp("logs")

    def run(command: str, *words: str, folder: Path = place, refused: bool = False) -> subprocess.CompletedProcess[str]:
        file = folder / command if command.endswith(".py") else root / "src" / f"{command}.py"
        done = Running(warm, file, folder, words, logs).done()
        assert (done.returncode != 0) == refused, done.stdout + done.stderr
        return done

    return run


def same(scores: dict[str, float], before: dict[str, float]) -> None:
    """Compare scores with those that the earlier version got from the same files."""
    assert scores.keys() == before.keys()
    for name, score in scores.items():
        assert score == pytest.approx(before[name], rel=0.01, abs=1 / 16 if name in SHARES else 0.001), name


def pixels(page: Path | io.BytesIO) -> np.ndarray:
    with Image.open(page) as image:
        return np.asarray(image).astype(int)


def test_what_is_kept_is_small_text_and_says_nothing_of_the_machine_that_made_it() -> None:
    files = [path for path in PLACE.rglob("*") if path.is_file()]
    texts = {path: path.read_text(encoding="utf-8") for path in files}
    assert sum(map(len, texts.values())) < 400_000
    readable = {path: text for path, text in texts.items() if path.suffix != ".b64"}
    assert [path for path, text in readable.items() if re.search(r"/(home|root|tmp|work|Users)\b", text)] == []


# First what only reads them, as they were.


def test_the_winner_of_the_study_is_taken_home_and_exported(place: Path, typed: Typed) -> None:
    assert "Trial 0 of study small: " in typed("best_model", "study=small").stdout
    assert json.loads((place / "outputs/best_model/choice.json").read_text())["trial"] == 0
    for name in ("checkpoints/best.ckpt", "config.yaml", "metrics.json", "provenance.json"):
        assert (place / "outputs/best_model" / name).read_bytes() == (place / "outputs/small/0" / name).read_bytes()
    typed("export", "draws=0", "metrics/judge=none")
    names = "generator.onnx generator.pt2 reconstructor.onnx model.safetensors metrics.json README.md generate.py"
    assert {path.name for path in (place / "outputs/exports/small-0").iterdir()} >= {*names.split()}


def test_the_study_is_reported_with_its_failure_and_its_confirmation(place: Path, typed: Typed) -> None:
    typed("report", "study=small", "plotly=false")
    [score, _] = study(place).trials[0].values
    for name in ("report.html", "report.md"):
        page = (place / "sweeps/small" / name).read_text(encoding="utf-8")
        assert f"{score:.4g}" in page
        assert "diverged" in page
        assert "other seed" in page


def test_cats_are_those_that_the_bundle_and_its_run_drew_then(place: Path, typed: Typed) -> None:
    then = pixels(io.BytesIO(base64.b64decode(NOW["page"])))
    for source in (f"bundle={BUNDLE}", "run=outputs/runs/vae"):
        now = pixels(place / typed("generate", source, *GENERATE).stdout.strip())
        assert now.shape == then.shape
        assert np.abs(now - then).max() <= 1  # another processor may round to the other side
    typed("generate", "run=outputs/runs/dcgan", *GENERATE)


@pytest.mark.parametrize("folder", [BUNDLE, "outputs/runs/vae"])
def test_a_bundle_and_a_run_score_as_they_did(place: Path, typed: Typed, folder: str) -> None:
    typed("evaluate", f"bundle={folder}", "metrics/judge=none", "out=again.json")


# Then what goes on with them.


def study(place: Path) -> optuna.Study:
    return optuna.load_study(study_name="small", storage=f"sqlite:///{place}/sweeps/small/study.db")


@pytest.mark.trains
@pytest.mark.parametrize("name", RUNS)
def test_a_run_goes_on_as_the_earlier_version_would_have(place: Path, typed: Typed, name: str) -> None:
    folder = place / "outputs/runs" / name
    record = (folder / "metrics.json").read_text()
    done = typed("train", *RUNS[name], "epochs=2", f"resume=outputs/runs/{name}")
    assert f"Resuming outputs/runs/{name}" in done.stderr
    assert (folder / "metrics-epoch-1.json").read_text() == record
    now = json.loads((folder / "metrics.json").read_text())
    assert now["epochs"] == 2
    epoch = numbers((folder / "train.log").read_text(), "2/2")
    assert epoch == pytest.approx(NOW[name]["epoch"], rel=0.002, abs=0.001)
    same(now["scores"], NOW[name]["scores"])
    then = np.frombuffer(lzma.decompress(base64.b64decode(NOW[name]["weights"])), np.float32)
    # A step of Adam moves a weight by about the learning rate: a tenth is less than a wrong moment would make.
    assert weights(folder) == pytest.approx(then, rel=1e-3, abs=LEARNING_RATES[name] / 10)
    assert len(json.loads((folder / "provenance.json").read_text())["earlier"]) == 1


def test_the_study_still_refuses_what_changes_it(place: Path, typed: Typed) -> None:
    done = typed("train", *SWEEP, "trials=4", "model.free_bits=0.5", refused=True)
    assert "was begun otherwise (before → now):\n  config.model.free_bits: 0.0 → 0.5\n" in done.stderr + done.stdout


@pytest.mark.trains
def test_the_study_goes_on_under_the_same_command(place: Path, typed: Typed) -> None:
    before = study(place).trials
    assert [trial.state.name for trial in before] == ["COMPLETE", "PRUNED", "COMPLETE"]
    typed("train", *SWEEP, "trials=4")
    now = study(place)
    assert now.trials[:3] == before
    assert now.trials[3].state.name == "COMPLETE"
    scores = json.loads((place / "outputs/small/3/metrics.json").read_text())["scores"]
    assert now.trials[3].values == [scores[name] for name in now.metric_names or ()]
    same(scores, NOW["trial"])
    with (place / "sweeps/small/leaderboard.csv").open(newline="") as file:
        assert sorted(row["state"] for row in csv.DictReader(file)) == ["complete"] * 3 + ["diverged"]


def test_the_study_of_somebody_elses_app_goes_on(place: Path, typed: Typed) -> None:
    storage = JournalStorage(JournalFileBackend(str(place / "plain/study.journal")))
    before = optuna.load_study(study_name="plain", storage=storage).trials
    assert [trial.state.name for trial in before] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    typed("task.py", "-m", "failing=1", "hydra.sweeper.n_trials=5", folder=place / "plain")
    now = optuna.load_study(study_name="plain", storage=storage).trials
    assert now[:4] == before
    assert [trial.state.name for trial in now[4:]] == ["COMPLETE"]
