"""Real runs of tiny nets: what a run returns and leaves, and that a killed one goes on as if nothing happened."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from tests import memory

from catsweep import runs
from catsweep.errors import ConfigError, DataError, DivergedError, InterruptedTrial, MetricError, TrainingError
from catsweep.instantiation import instantiate
from catsweep.metrics.scorer import Scorer
from catsweep.models.generator import draw_latents, generate
from catsweep.models.vae import VAE
from catsweep.runs import BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, alone
from catsweep.tracking import loggers
from catsweep.training import callbacks, fit, trainer
from steady.reporting import TrialReporter
from steady.signals import COMMAND

Compose = Callable[..., DictConfig]
pytestmark = pytest.mark.trains


class Killed(Exception):
    """Stands for the signal that ends a run."""


def weights(run: Path, checkpoint: str = "last") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = runs.load_run(run, checkpoint)[0].state_dict()
    return state


def kill_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a run die at the start of the epoch after `epochs`, when `last.ckpt` has been written."""

    def die(self: Callback, trainer: object, module: object) -> None:
        if trainer.current_epoch == epochs:  # type: ignore[attr-defined]
            raise Killed

    monkeypatch.setattr(callbacks.FiniteLoss, "on_train_epoch_start", die)


def test_a_run_returns_its_objective_and_leaves_everything_about_it(compose: Compose, tmp_path: Path) -> None:
    cfg = compose("objective=[val/fid,val/ssim]", "seed=3")
    values = fit.run(cfg, tmp_path)
    recorded = json.loads((tmp_path / "metrics.json").read_text())
    precision = trainer.resolve_precision(cfg.trainer.precision, "cpu")
    assert (recorded["precision"], recorded["device"]) == (precision, "cpu")
    assert isinstance(values, tuple)
    assert values == (recorded["scores"]["val/fid"], recorded["scores"]["val/ssim"])
    assert recorded["cards"]["val/fid"]["extractor"] == "efficientnet_lite0"
    assert recorded["cards"]["val/fid"]["samples"] == 16
    assert OmegaConf.load(tmp_path / "config.yaml").seed == 3
    assert json.loads((tmp_path / "provenance.json").read_text())["seed"] == 3
    there = {file.name for file in (tmp_path / "checkpoints").iterdir()}
    assert there == {"best.ckpt", "last.ckpt", "last-previous.ckpt"}
    assert (tmp_path / "samples/epoch_0002.png").exists()
    assert (tmp_path / "reconstructions/epoch_0002.png").exists()


def test_the_run_is_scored_at_the_best_checkpoint(compose: Compose, tmp_path: Path) -> None:
    fid = fit.run(compose("optimizer.lr=0.01"), tmp_path)
    cfg = OmegaConf.load(tmp_path / "config.yaml")
    data = instantiate(cfg.data)
    scorer = instantiate(cfg.metrics)(ready=data.ready)
    scores, _ = scorer.final(runs.load_run(tmp_path, "best")[0])
    assert scores["val/fid"] == pytest.approx(fid)


def test_a_generator_that_collapses_is_scored_as_it_was_before(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kids = iter([0.5, 0.2, 0.9, 0.8])
    monkeypatch.setattr(Scorer, "rung", lambda self, model: {"val/kid": next(kids)})
    fit.run(compose("model=dcgan", "epochs=4"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epoch"] == 2
    assert next(kids, None) is None  # none was taken twice


@pytest.mark.parametrize(
    "options",
    [
        ("model=vae", "schedule=cosine", "model.ema_decay=0.9", "model.aggregate_prior=true"),
        ("model=vae", "model.ema_decay=0.9", "model.adversarial.weight=1", "model.adversarial.start=0.3", "loss=l1"),
        ("model=dcgan", "model.augment.policy=[color,translation]"),
    ],
)
def test_a_killed_run_resumed_is_the_undisturbed_run(
    compose: Compose, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = compose(*options, "epochs=4", "eval_every=2")
    fit.run(cfg, tmp_path / "undisturbed")
    memory.settle()  # three runs in one test
    with monkeypatch.context() as patch:
        kill_after(3, patch)
        with pytest.raises(Killed):
            fit.run(cfg, tmp_path / "killed")
    assert not (tmp_path / "killed/metrics.json").exists()
    memory.settle()
    cfg.resume = True
    fit.run(cfg, tmp_path / "killed")
    memory.settle()
    expected, got = weights(tmp_path / "undisturbed"), weights(tmp_path / "killed")
    assert all(torch.equal(expected[key], got[key]) for key in expected)
    scores = [json.loads((tmp_path / run / "metrics.json").read_text())["scores"] for run in ("undisturbed", "killed")]
    assert scores[0] == scores[1]


@pytest.mark.security
def test_a_run_whose_last_checkpoint_was_torn_is_the_undisturbed_run_too(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(callbacks.LastCheckpoint, "on_train_epoch_end", ModelCheckpoint.on_train_epoch_end)  # each one
    cfg = compose("epochs=3", "eval_every=3")
    fit.run(cfg, tmp_path / "undisturbed")
    memory.settle()  # three runs in one test
    with monkeypatch.context() as patch:
        kill_after(2, patch)
        with pytest.raises(Killed):
            fit.run(cfg, tmp_path / "killed")
    memory.settle()
    last = tmp_path / "killed" / LAST_CHECKPOINT
    os.truncate(last, last.stat().st_size // 2)
    cfg.resume = True
    fit.run(cfg, tmp_path / "killed")
    assert "Going on from the one before it, of epoch 1." in caplog.text
    expected, got = weights(tmp_path / "undisturbed"), weights(tmp_path / "killed")
    assert all(torch.equal(expected[key], got[key]) for key in expected)


@pytest.mark.security
def test_a_finished_run_is_left_alone_or_trained_longer_beside_its_record(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit.run(compose("epochs=1"), tmp_path)
    memory.settle()  # two runs in one test
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for words in (["epochs=1"], ["epochs=1", "minutes=3"], ["epochs=1", "seed=3"], ["epochs=2", "data.size=64"]):
        with pytest.raises(ConfigError, match=r"that run is finished|configured otherwise"):
            fit.run(compose("resume=true", *words), tmp_path)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / BEST_CHECKPOINT).write_bytes(b"torn")
    fit.run(compose("resume=true", "epochs=2"), tmp_path)
    assert "The best of the epochs from here on counts." in caplog.text
    assert (tmp_path / "metrics-epoch-1.json").read_bytes() == before[tmp_path / "metrics.json"]
    recorded = json.loads((tmp_path / "metrics.json").read_text())
    assert (recorded["epoch"], recorded["epochs"]) == (2, 2)


@pytest.mark.security
def test_a_run_is_not_trained_in_a_folder_that_another_process_works_in(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "train", lambda cfg, folder: 0.0)
    with alone(tmp_path), pytest.raises(ConfigError, match="Another process works in"):
        fit.run(compose(), tmp_path)
    assert fit.run(compose(), tmp_path) == 0.0


@pytest.mark.security
def test_a_disk_that_is_full_half_way_leaves_the_checkpoint_before(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []

    def full(file: int) -> None:
        done.append(file)
        if len(done) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("catsweep.checkpoints.os.fsync", full)
    with pytest.raises(TrainingError, match=r"could not be written: No space left on device\. It takes .*resume="):
        fit.run(compose("epochs=3"), tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.undo()
    for checkpoint in ("best", "last"):
        runs.load_run(tmp_path, checkpoint)
    assert {file.name for file in (tmp_path / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


@pytest.mark.security
def test_the_checkpoint_of_another_run_is_named(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("epochs=1"), tmp_path)
    memory.settle()  # two runs in one test
    (tmp_path / "metrics.json").unlink()
    state = torch.load(tmp_path / LAST_CHECKPOINT, weights_only=True)
    state["optimizer_states"] = [{"state": {}, "param_groups": []}]
    torch.save(state, tmp_path / LAST_CHECKPOINT)
    with pytest.raises(DataError, match=r"last\.ckpt is not of this run, whose state does not fit: .*without resume"):
        fit.run(compose("epochs=2", "resume=true"), tmp_path)


def test_resuming_under_another_configuration_is_refused_with_the_difference(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("epochs=1"), tmp_path)
    with pytest.raises(ConfigError, match=r"optimizer\.lr: 0\.001 → 0\.5"):
        fit.run(compose("epochs=1", "resume=true", "optimizer.lr=0.5"), tmp_path)


def test_resuming_nothing_says_so(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected an unfinished run"):
        fit.run(compose("resume=true"), tmp_path)


def test_a_run_that_diverges_ends_and_says_why(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged in epoch 1: .*train/loss"):
        fit.run(compose("optimizer=sgd", "optimizer.lr=1e30", "eval_every=2"), tmp_path)


def blacked_out(self: object, latents: torch.Tensor) -> torch.Tensor:
    return torch.full((len(latents), 3, 32, 32), torch.nan)


def test_images_that_are_no_numbers_are_divergence(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VAE, "decode", blacked_out)
    monkeypatch.setattr(callbacks.FiniteLoss, "on_train_epoch_end", lambda *_: None)
    with pytest.raises(DivergedError, match="not finite"):
        fit.run(compose("epochs=1"), tmp_path)


def test_a_score_that_fails_for_another_reason_says_nothing_of_the_model(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MetricError("the weights file may be damaged")

    monkeypatch.setattr(Scorer, "rung", fail)
    with pytest.raises(MetricError, match="damaged") as raised:
        fit.run(compose("epochs=1"), tmp_path)
    assert not isinstance(raised.value, DivergedError)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(optuna.TrialPruned, "pruned"), (InterruptedTrial, "interrupted"), (Killed, "failed")],
)
def test_a_trial_that_was_pruned_or_asked_to_stop_is_not_recorded_as_failed(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], outcome: str
) -> None:
    def end(*_: object, **__: object) -> None:
        raise error("asked to")  # made here: pytest keeps its parameters, and an error what it has come through

    told: list[str] = []
    monkeypatch.setattr(callbacks.FiniteLoss, "on_train_start", end)
    monkeypatch.setattr(loggers, "finish", lambda _, outcome: told.append(outcome))
    with pytest.raises(error):
        fit.run(compose("epochs=1"), tmp_path)
    assert told == [outcome]


def test_only_a_trial_ends_by_a_collapse(compose: Compose, tmp_path: Path) -> None:
    cfg = compose()
    scorer = instantiate(cfg.metrics)(ready=instantiate(cfg.data).ready)
    alone = trainer.build_callbacks(cfg, tmp_path, scorer, False)
    trial = trainer.build_callbacks(cfg, tmp_path, scorer, False, TrialReporter(optuna.create_study(), 0))
    assert {type(c).__name__ for c in trial} - {type(c).__name__ for c in alone} == {"Collapse", "SweepCallback"}


def test_an_objective_that_will_not_be_scored_is_refused_before_training(compose: Compose, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"val/ssim.*has not|val/ssim"):
        fit.run(compose("model=dcgan", "objective=[val/ssim]"), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("model", ["vae", "dcgan"])
def test_batches_of_one_train_wherever_they_are_not_refused(compose: Compose, tmp_path: Path, model: str) -> None:
    tiny = (f"model={model}", "model.latent_size=8", "data.batch_size=1", "data.reader.n=4", "epochs=1")
    with pytest.raises(ConfigError, match=r"data\.batch_size=1"):
        fit.run(compose(*tiny, "depth=deep"), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    for n, word in enumerate(("depth=medium", "normalization=group")):
        fit.run(compose(*tiny, "depth=deep", word), tmp_path / str(n))


def test_a_run_without_held_out_photos_is_scored(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("data.val_fraction=0", "data.reader.n=8", "epochs=1"), tmp_path)
    assert "val/ssim" not in json.loads((tmp_path / "metrics.json").read_text())["scores"]


def test_minutes_bound_a_run_and_its_last_weights_count(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("minutes=0.01", "epochs=100000", "eval_every=100000", "patience=null"), tmp_path)
    recorded = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < recorded["epoch"] == recorded["epochs"] < 100000
    best, last = weights(tmp_path, "best"), weights(tmp_path, "last")
    assert all(torch.equal(best[key], last[key]) for key in best)


def test_patience_ends_a_run_that_no_longer_improves_and_says_so(
    compose: Compose, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "catsweep")
    fit.run(compose("epochs=30", "patience=1", "optimizer.lr=0"), tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text())["epochs"] == 2
    assert "No better val/kid in 1 evaluations: the run ends here (patience=null trains to the end)" in caplog.messages


def test_a_loaded_run_draws_what_the_trained_model_drew(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("model=dcgan", "epochs=1"), tmp_path)
    latents = draw_latents(4, 8, seed=1)
    models: list[Any] = [runs.load_run(tmp_path)[0] for _ in range(2)]
    first, again = (generate(model, latents) for model in models)
    assert torch.equal(first, again)
    assert not runs.load_run(tmp_path)[0].training


def test_loading_a_folder_that_is_no_run_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.yaml"):
        runs.load_run(tmp_path)


def test_a_checkpoint_holds_no_pickled_objects(compose: Compose, tmp_path: Path) -> None:
    fit.run(compose("epochs=1"), tmp_path)
    state = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert state["epoch"] == 0


@pytest.mark.security
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(b""), r"is torn, or none of catsweep's \(0 bytes"),
        (lambda file: os.truncate(file, 5000), r"is torn, or none of catsweep's \(5,000 bytes"),
        (lambda file: torch.save({"state_dict": {}}, file), "does not tell its epoch|is not of the VAE"),
        (lambda file: torch.save(epoch_3({"decoder.more": torch.zeros(1)}), file), "is not of the VAE that config"),
    ],
    ids=["empty", "cut", "without its epoch", "of another model"],
)
def test_loading_a_torn_checkpoint_names_it_and_what_to_do(
    compose: Compose, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    cfg = compose("model=vae")
    OmegaConf.save(cfg, tmp_path / "config.yaml", resolve=True)
    (tmp_path / BEST_CHECKPOINT).parent.mkdir()
    state = epoch_3(instantiate(cfg.model).state_dict())
    for name in (BEST_CHECKPOINT, LAST_CHECKPOINT, PREVIOUS_CHECKPOINT):
        torch.save(state, tmp_path / name)
    damage(tmp_path / LAST_CHECKPOINT)
    weights(tmp_path, "last")  # of the one before it
    for name, other in ((BEST_CHECKPOINT, "last"), (PREVIOUS_CHECKPOINT, "")):
        damage(tmp_path / name)
        with pytest.raises(DataError, match=rf"{said}[\s\S]*train again.*select=NUMBER.*checkpoint={other}"):
            runs.load_run(tmp_path, "best" if other else "last")


def epoch_3(state: dict[str, torch.Tensor]) -> dict[str, object]:
    return {"state_dict": state, "loops": {"fit_loop": {"epoch_progress": {"current": {"ready": 3}}}}}


@pytest.mark.parametrize("name", ["../best", "", "first"])
def test_there_are_two_checkpoints_to_load(compose: Compose, tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="Expected the checkpoint best or last"):
        runs.load_weights(instantiate(compose().model), tmp_path, name)


@pytest.mark.parametrize(
    ("precision", "accelerator", "abilities", "expected"),
    [
        ("auto", "cpu", {"avx512_bf16": True}, "bf16-mixed"),
        ("auto", "cpu", {"amx_bf16": True}, "bf16-mixed"),
        ("auto", "cpu", {"avx512_bf16": False}, "32-true"),
        ("16-mixed", "cpu", {"avx512_bf16": True}, "16-mixed"),
    ],
)
def test_precision_follows_the_processor_unless_it_is_given(
    precision: str, accelerator: str, abilities: dict[str, bool], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: abilities, raising=False)
    assert trainer.resolve_precision(precision, accelerator) == expected


@pytest.mark.security
@pytest.mark.parametrize(("at", "goes_on"), [((pl.Trainer, "fit"), False), ((Scorer, "final"), True)])
def test_a_run_that_is_stopped_says_how_it_goes_on(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: tuple[type, str], goes_on: bool
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*at, stop)
    monkeypatch.setattr(COMMAND, "said", "")
    with pytest.raises(KeyboardInterrupt):
        fit.run(compose("epochs=1"), tmp_path)
    assert COMMAND.said == "Interrupted." + f" To go on, add resume={tmp_path} to the same line." * goes_on
