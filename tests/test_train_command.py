"""The commands in real processes, from a folder of their own: a run killed and resumed, a sweep, and its winner."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import optuna
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from tests import hostile
from tests.starting import OF_A_SWEEP, Running, Warm

from catsweep.runs import load_run

pytestmark = pytest.mark.trains

TINY = (
    "data.reader.n=96", "data.size=32", "data.batch_size=16", "depth=shallow", "width.channels=4",
    "model.latent_size=8", "metrics.samples=16", "metrics.rung_samples=8", "trainer.threads=1",
    "trainer.precision=32-true", "minutes=null",
)  # fmt: skip
# Nothing trains at the last of the rates, which the first trial is given.
IMPOSSIBLE = 1e30
SWEEP = (
    "-m", "hparams_search=vae_optuna", *TINY, "trials=3", "epochs=1", "study=tiny", "seed=0",
    f"optimizer.lr=choice(1e-3,2e-3,{IMPOSSIBLE})", "hydra.sweeper.n_jobs=2",
    f"hydra.sweeper.enqueue=[{{optimizer.lr: {IMPOSSIBLE}}}]",
    "model.adversarial.weight=0",  # what a discriminator does is seen in tests/training
)  # fmt: skip
EPOCHS = 24

# Without wandb: what it is to tidy when a process ends is the warm one's.
IMPORTS = (*OF_A_SWEEP, "catsweep.training", "catsweep.export.bundle", "catsweep.export.choice", "onnxscript")

Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of it happens; the data and the reference statistics are made once."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def environment(place: Path) -> Mapping[str, str]:
    """Of somebody without a W&B account, with a wide terminal, in the worst of places: see `tests.hostile`."""
    return {**hostile.machine(place / "bin"), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def warm(environment: Mapping[str, str]) -> Iterator[Warm]:
    warm = Warm(IMPORTS, environment, hostile.UMASK)
    yield warm
    warm.close()


@pytest.fixture(scope="module")
def start(
    root: Path, place: Path, warm: Warm, graphs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Running]:
    logs = tmp_path_factory.mktemp("logs")

    def started(command: str, *words: str) -> Running:
        own = [f"metrics.extractor.cache_root={graphs}"] if command == "train" else []
        return Running(warm, root / "src" / f"{command}.py", place, [*words, *own], logs)

    return started


@pytest.fixture(scope="module")
def typed(start: Callable[..., Running]) -> Typed:
    return lambda *line: start(*line).done()


def runs(place: Path) -> list[Path]:
    return sorted((place / "outputs/runs").glob("*/*"))


def test_a_run_ended_by_sigkill_and_resumed_is_the_undisturbed_run(
    place: Path, typed: Typed, start: Callable[..., Running]
) -> None:
    line = ("train", *TINY, f"epochs={EPOCHS}", f"eval_every={EPOCHS}", "logger=none")
    done = typed(*line)
    assert done.returncode == 0, done.stderr
    [undisturbed] = runs(place)

    process = start(*line)
    written: set[int] = set()
    while len(written) < 2:
        assert process.poll() is None, process.communicate()
        written |= {file.stat().st_mtime_ns for run in runs(place)[1:] for file in run.glob("checkpoints/last.ckpt")}
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [killed] = {*runs(place)} - {undisturbed}
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "metrics.json").exists()
    reached = torch.load(killed / "checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
    assert 2 <= reached < EPOCHS

    done = typed(*line, "resume=true")
    assert done.returncode == 0, done.stderr
    assert f"Resuming {killed.relative_to(place)}" in done.stderr
    assert runs(place) == sorted([undisturbed, killed])
    expected, got = (load_run(run, "last")[0].state_dict() for run in (undisturbed, killed))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    recorded = [json.loads((run / "metrics.json").read_text()) for run in (undisturbed, killed)]
    assert recorded[0]["scores"] == recorded[1]["scores"]
    assert [record["epochs"] for record in recorded] == [EPOCHS, EPOCHS]
    assert len(json.loads((killed / "provenance.json").read_text())["earlier"]) == 1


@pytest.fixture(scope="module")
def sweep(place: Path, typed: Typed) -> subprocess.CompletedProcess[str]:
    """Three trials with the default logger, one of which cannot succeed."""
    done = typed("train", *SWEEP)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def study(place: Path, sweep: object) -> optuna.Study:
    return optuna.load_study(study_name="tiny", storage=f"sqlite:///{place}/sweeps/tiny/study.db")


@pytest.fixture
def finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that could succeed; there are some, and some that could not."""
    possible = [trial for trial in study.trials if trial.params["optimizer.lr"] != IMPOSSIBLE]
    assert 0 < len(possible) < len(study.trials) == 3
    return possible


def rows(place: Path) -> list[dict[str, str]]:
    with (place / "sweeps/tiny/leaderboard.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_trial_that_fails_costs_that_trial(
    study: optuna.Study, finished: list[optuna.trial.FrozenTrial], place: Path
) -> None:
    for trial in study.trials:
        # Told such that the sampler learns from it, which it does not from FAIL.
        assert trial.state.name == ("COMPLETE" if trial in finished else "PRUNED")
        if trial not in finished:
            assert trial.constraints == {"diverged": 1.0}
            assert "diverged" in (place / f"outputs/tiny/{trial.number}/train.log").read_text()
            assert not (place / f"outputs/tiny/{trial.number}/metrics.json").exists()
    assert study.metric_names == ["val/fid", "val/ssim"]


def test_each_trial_has_a_folder_by_its_number_with_its_scores(
    finished: list[optuna.trial.FrozenTrial], place: Path
) -> None:
    folder = place / "outputs/tiny"
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"0", "1", "2"}
    for trial in finished:
        scores = json.loads((folder / f"{trial.number}/metrics.json").read_text())["scores"]
        assert [scores["val/fid"], scores["val/ssim"]] == trial.values
        cfg = OmegaConf.load(folder / f"{trial.number}/config.yaml")
        assert (cfg.study, cfg.trial.number) == ("tiny", trial.number)
        assert cfg.optimizer.lr == trial.params["optimizer.lr"]


def test_results_are_in_files_and_on_the_terminal(
    sweep: subprocess.CompletedProcess[str],
    study: optuna.Study,
    finished: list[optuna.trial.FrozenTrial],
    place: Path,
) -> None:
    board = rows(place)
    assert [row["state"] for row in board] == ["complete"] * len(finished) + ["diverged"] * (3 - len(finished))
    assert float(board[0]["val/fid"]) == min(trial.values[0] for trial in finished)
    solutions = OmegaConf.load(place / "outputs/tiny/optimization_results.yaml").solutions
    assert [solution["values"] for solution in solutions] == [trial.values for trial in study.best_trials]
    assert "tiny: 3 trials, * Pareto-optimal" in sweep.stdout
    assert all(row["optimizer"] in sweep.stdout for row in board)
    assert "make best-model export STUDY=tiny" in sweep.stdout
    assert "Traceback" not in sweep.stderr


def test_each_trial_is_an_offline_wandb_run_of_the_studys_group_without_a_word(
    sweep: subprocess.CompletedProcess[str],
    finished: list[optuna.trial.FrozenTrial],
    place: Path,
    environment: Mapping[str, str],
) -> None:
    assert "wandb" not in (sweep.stdout + sweep.stderr).lower()
    found = {}
    for folder in (place / "outputs/wandb").glob("offline-run-*"):
        command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.splitlines()
        records = {(record := json.loads(line))["type"]: record for line in lines}
        found[records["run"]["run"]["display_name"]] = records
    assert sorted(found) == ["tiny 0", "tiny 1", "tiny 2", "tiny sweep"]
    assert {records["run"]["run"]["run_group"] for records in found.values()} == {"tiny"}
    well = {name for name, records in found.items() if not records["exit"]["exit"].get("exit_code", 0)}
    assert well == {"tiny sweep"} | {f"tiny {trial.number}" for trial in finished}


def test_a_job_of_slurm_is_no_reason_to_warn_or_to_wait_for_others(
    sweep: subprocess.CompletedProcess[str], place: Path
) -> None:
    said = [sweep.stdout, sweep.stderr, *((place / f"outputs/tiny/{n}/output.log").read_text() for n in range(3))]
    assert not [line for text in said for line in text.splitlines() if "srun" in line or "Warning" in line]


def test_the_same_line_again_says_that_the_study_is_finished(sweep: object, place: Path, typed: Typed) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        files = (path for path in (place / "outputs/tiny").glob("[0-9]*/**/*") if path.is_file())
        return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in files}

    before = state()
    done = typed("train", *SWEEP)
    assert done.returncode == 0, done.stderr
    assert "The study tiny is finished: 3 trials" in done.stdout
    assert state() == before


@pytest.fixture(scope="module")
def best(sweep: object, typed: Typed, place: Path) -> subprocess.CompletedProcess[str]:
    done = typed("best_model", "study=tiny")
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def bundle(best: object, typed: Typed, place: Path) -> Path:
    done = typed("export", "draws=2")
    assert done.returncode == 0, done.stderr
    [folder] = (place / "outputs/exports").iterdir()
    assert folder.relative_to(place).as_posix() in done.stdout
    return folder


def test_the_best_model_is_the_first_row_of_the_leaderboard(
    best: subprocess.CompletedProcess[str], place: Path
) -> None:
    winner = rows(place)[0]["trial"]
    assert f"Trial {winner} of study tiny: the lowest val/fid" in best.stdout
    folder = place / "outputs/best_model"
    assert json.loads((folder / "choice.json").read_text())["trial"] == int(winner)
    for name in ("checkpoints/best.ckpt", "config.yaml", "metrics.json", "provenance.json"):
        assert (folder / name).read_bytes() == (place / "outputs/tiny" / winner / name).read_bytes()
    assert (folder / "samples.png").exists()


def test_the_bundle_is_whole_and_its_onnx_draws_images(bundle: Path, place: Path) -> None:
    assert bundle.name == f"tiny-{rows(place)[0]['trial']}"
    names = "generator.onnx generator.pt2 reconstructor.onnx metrics.json nearest_neighbours.png README.md generate.py"
    assert {path.name for path in bundle.iterdir()} >= {*names.split()}
    session = onnxruntime.InferenceSession(bundle / "generator.onnx", providers=["CPUExecutionProvider"])
    for n in (1, 3):
        latents = np.random.default_rng(0).normal(size=(n, 8)).astype(np.float32)
        [images] = session.run(None, {"latents": latents})
        assert (images.shape, images.dtype) == ((n, 3, 32, 32), np.float32)
        assert 0 <= images.min() < images.max() <= 1


def test_new_cats_are_the_same_from_the_best_model_and_from_the_bundle(bundle: Path, typed: Typed, place: Path) -> None:
    pages = []
    for key, source in (("run", "outputs/best_model"), ("bundle", bundle.relative_to(place))):
        done = typed("generate", f"{key}={source}", "n=4", "seed=1")
        assert done.returncode == 0, done.stderr
        written = done.stdout.strip()
        assert written.endswith("/generated_1.png")
        with Image.open(place / written) as page:
            pages.append(np.asarray(page).astype(int))
    assert min(pages[0].shape[:2]) >= 2 * 32
    assert np.abs(pages[0] - pages[1]).max() <= 1  # ONNX Runtime may round to the other side


def test_one_ready_set_served_every_run(sweep: object, place: Path) -> None:
    assert len([folder for folder in (place / "data/ready").iterdir() if folder.is_dir()]) == 1
