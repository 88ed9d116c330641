"""Rungs, requests to stop and fencing, in a real training of a tiny model."""

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from tests import memory

from catsweep import runs
from catsweep.errors import ConfigError, DivergedError, InterruptedTrial
from catsweep.runs import LAST_CHECKPOINT
from catsweep.training import fit, trainer
from catsweep.training.callbacks import SweepCallback, seconds_left
from catsweep.usage import Usage
from steady.options import Promotion
from steady.storage import open_storage
from steady.study import meta, results

pytestmark = pytest.mark.trains
NEVER = {"_target_": "optuna.pruners.NopPruner"}
ALWAYS = {"_target_": "optuna.pruners.ThresholdPruner", "upper": -1.0}

Compose = Callable[..., DictConfig]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/study.db"


def begin(url: str, pruner: dict[str, Any], metric: str = "val/kid") -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=open_storage(url), directions=["minimize", "maximize"])
    study.set_user_attr("pruning", {"pruner": pruner, "metrics": [metric], "directions": ["minimize"]})
    study.ask().set_user_attr(meta.ATTEMPT, 0)
    return study


def configure(compose: Compose, url: str, attempt: int = 0) -> DictConfig:
    return compose(
        "epochs=4", "rungs=[0.2,0.5]", "trial.number=0", "trial.study=s", f"trial.storage={url!r}",
        f"trial.attempt={attempt}", "eval_every=4",
    )  # fmt: skip


def test_each_rung_is_reported_once_though_nothing_was_evaluated_there(
    compose: Compose, url: str, tmp_path: Path
) -> None:
    study = begin(url, NEVER)
    fit.run(configure(compose, url), tmp_path / "0")
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1", "2"}
    assert set(study.trials[0].user_attrs[meta.RUNGS]["1"]) == {"val/kid"}
    assert (tmp_path / "0/progress.json").exists()


def test_what_a_trial_has_used_is_kept_if_it_is_killed_while_it_is_scored(
    compose: Compose, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(url, NEVER)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "load_weights", killed)  # the first step of the scoring
    with pytest.raises(KeyboardInterrupt):
        fit.run(configure(compose, url), tmp_path / "0")
    used = results.usage(study.trials[0])
    last = torch.load(tmp_path / "0" / LAST_CHECKPOINT, weights_only=True)
    assert last["epoch"] == 3
    assert used["samples"] == max(state["samples"] for state in last["callbacks"].values() if "samples" in state)


def test_a_trial_that_is_given_up_ends_there(compose: Compose, url: str, tmp_path: Path) -> None:
    study = begin(url, ALWAYS)
    with pytest.raises(optuna.TrialPruned, match="25%"):
        fit.run(configure(compose, url), tmp_path / "0")
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1"}
    assert not (tmp_path / "0/metrics.json").exists()


def test_a_model_beyond_a_bound_is_not_trained(compose: Compose, url: str, tmp_path: Path) -> None:
    study = begin(url, NEVER)
    study.set_user_attr(meta.CONTRACT, {"constraints": {"model/weights": "<= 10", "generate/ms": "<= 1e6"}})
    with pytest.raises(optuna.TrialPruned):
        fit.run(configure(compose, url), tmp_path / "0")
    noted = study.trials[0].user_attrs[meta.NOTED]
    assert set(noted) == {"model/weights", "generate/ms"}
    assert noted["model/weights"] > 10
    assert not (tmp_path / "0/checkpoints").exists()


def test_a_trial_keeps_the_same_best_checkpoint_as_a_run_of_its_own(compose: Compose, url: str, tmp_path: Path) -> None:
    begin(url, NEVER)
    cfg = configure(compose, url)
    cfg.eval_every = 1
    values = [fit.run(cfg, tmp_path / "trial")]
    memory.settle()  # two runs in one test
    cfg.trial = {"number": None, "attempt": 0, "study": None, "storage": None}
    values.append(fit.run(cfg, tmp_path / "alone"))
    assert values[0] == values[1]
    trial, alone = (runs.load_run(tmp_path / name, "best")[0].state_dict() for name in ("trial", "alone"))
    assert all(torch.equal(weights, alone[key]) for key, weights in trial.items())


class AskAfterTheFirstEpoch(pl.Callback):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_stops_at_a_checkpoint_from_which_the_next_attempt_goes_on(
    compose: Compose, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = begin(url, NEVER)
    plain = trainer.build_callbacks
    monkeypatch.setattr(trainer, "build_callbacks", lambda *args: [*plain(*args), AskAfterTheFirstEpoch()])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(InterruptedTrial, match="after 1 epochs"):
        fit.run(configure(compose, url), tmp_path / "0")
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.setattr(trainer, "build_callbacks", plain)
    memory.settle()  # two runs in one test
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.ATTEMPT, 1)
    later = configure(compose, url, attempt=1)
    later.rungs, later.trust = [0.2, 0.5, 0.6], ["mylab.*"]  # a sweep may go on with other ones
    values = fit.run(later, tmp_path / "0")
    assert "starts afresh" not in caplog.text
    assert json.loads((tmp_path / "0/provenance.json").read_text())["earlier"]
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1", "2", "3"}
    # Killed between its scores and its study, it would not train again.
    assert fit.run(configure(compose, url, attempt=2), tmp_path / "0") == values
    with pytest.raises(ConfigError, match="another sweep"):
        fit.run(configure(compose, url, attempt=0), tmp_path / "0")


@pytest.mark.security
def test_a_trial_writes_nothing_through_a_link_out_of_its_folder(compose: Compose, url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "checkpoints").symlink_to(tmp_path / "home")
    with pytest.raises(ConfigError, match="checkpoints is a link out of the trial"):
        fit.run(configure(compose, url, attempt=1), tmp_path / "0")
    assert list((tmp_path / "home").iterdir()) == []


def test_an_attempt_that_was_overtaken_stops(compose: Compose, url: str, tmp_path: Path) -> None:
    study = begin(url, NEVER)
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.ATTEMPT, 1)
    with pytest.raises(InterruptedTrial, match="attempt 0 of it stops"):
        fit.run(configure(compose, url), tmp_path / "0")
    assert not (tmp_path / "0/checkpoints").exists()


def test_one_that_is_overtaken_while_it_trains_writes_no_checkpoint_and_no_scores(
    compose: Compose, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = begin(url, NEVER)

    def overtake(*_: Any) -> None:
        study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.ATTEMPT, 1)

    monkeypatch.setattr(SweepCallback, "on_train_epoch_start", overtake)
    with pytest.raises(InterruptedTrial, match="attempt 0 of it stops"):
        fit.run(configure(compose, url), tmp_path / "0")
    assert not list((tmp_path / "0").rglob("*.ckpt"))
    assert not (tmp_path / "0/metrics.json").exists()


def test_a_metric_that_nobody_takes_is_refused_before_training(compose: Compose, url: str, tmp_path: Path) -> None:
    begin(url, NEVER, "val/fid")
    with pytest.raises(ConfigError, match=r"val/kid; got val/fid"):
        fit.run(configure(compose, url), tmp_path / "0")
    assert not (tmp_path / "0/checkpoints").exists()


def test_pruning_without_rungs_is_refused_before_training(compose: Compose, url: str, tmp_path: Path) -> None:
    begin(url, NEVER)
    cfg = configure(compose, url)
    cfg.rungs = []
    with pytest.raises(ConfigError, match="Pruning needs rungs"):
        fit.run(cfg, tmp_path / "0")


class AskBeforeTheFirstStep(pl.Callback):
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_while_training_is_prepared_is_a_request_too(
    compose: Compose, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(url, NEVER)
    plain = trainer.build_callbacks
    monkeypatch.setattr(trainer, "build_callbacks", lambda *args: [AskBeforeTheFirstStep(), *plain(*args)])
    with pytest.raises(InterruptedTrial, match="after 0 epochs"):
        fit.run(configure(compose, url), tmp_path / "0")


class AskAfterTheSecondEpoch(AskAfterTheFirstEpoch):
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            super().on_train_epoch_end(trainer, pl_module)


@pytest.mark.security
def test_the_next_attempt_goes_on_from_the_checkpoint_before_a_torn_one(
    compose: Compose, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = begin(url, NEVER)
    with monkeypatch.context() as patch:
        plain = trainer.build_callbacks
        patch.setattr(trainer, "build_callbacks", lambda *args: [*plain(*args), AskAfterTheSecondEpoch()])
        with pytest.raises(InterruptedTrial, match="after 2 epochs"):
            fit.run(configure(compose, url), tmp_path)
    memory.settle()  # two runs in one test
    last = tmp_path / LAST_CHECKPOINT
    last.write_bytes(last.read_bytes()[:2000])
    (tmp_path / "provenance.json").write_text("{")
    study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.ATTEMPT, 1)
    fit.run(configure(compose, url, attempt=1), tmp_path)
    assert "last.ckpt is torn" in caplog.text
    assert "Going on from the one before it, of epoch 1." in caplog.text
    assert "provenance.json cannot be read" in caplog.text
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1", "2"}


# Without a training: a trainer as the callback sees it


class Told:
    """A reporter that keeps what it is told."""

    promotion: Promotion | None = None

    def __init__(self, prune_at: int = 99, error: Exception | None = None) -> None:
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.told: list[dict[str, Any]] = []
        self.shown: list[Path | None] = []
        self.usage: list[tuple[str | None, dict[str, float]]] = []
        self.prune_at, self.error = prune_at, error

    def report(self, step: int, scores: dict[str, float]) -> bool:
        if self.error:
            raise self.error
        self.reports.append((step, scores))
        return step >= self.prune_at

    def note_usage(self, unit: str | None, **amounts: float) -> None:
        self.usage.append((unit, amounts))

    def require_current(self) -> None:
        pass

    def alive(self, folder: Path | None = None) -> None:
        self.shown.append(folder)

    def progress(self, folder: Path, **told: Any) -> None:
        self.told.append(told)


class Scores:
    def __init__(self) -> None:
        self.taken = 0

    def rung_names(self) -> list[str]:
        return ["val/kid"]

    def rung(self, model: object) -> dict[str, float]:
        self.taken += 1
        torch.rand(1)
        return {"val/kid": 0.5}


def trainer_at(
    epoch: int, epochs: int = 10, seconds: tuple[float, float] | None = None, rank: int = 0, received: Any = None
) -> Any:
    """One rank's trainer in an epoch, from 0; bound by time too if `seconds` (used, left) are given."""
    used, left = seconds or (0.0, 0.0)
    counted = Usage("seconds", used + left)
    counted.load_state_dict({"seconds": used})

    def broadcast(value: Any, src: int) -> Any:
        return value if rank == src else received

    return SimpleNamespace(
        current_epoch=epoch, max_epochs=epochs, callbacks=[counted] if seconds else [], callback_metrics={},
        check_val_every_n_epoch=4, is_global_zero=rank == 0, received_sigterm=False,
        strategy=SimpleNamespace(broadcast=broadcast),
    )  # fmt: skip


def callback_of(reporter: Told, tmp_path: Path, clock: Callable[[], float] = lambda: 0.0) -> SweepCallback:
    return SweepCallback(reporter, Scores(), [0.1, 0.25, 0.5], tmp_path, clock)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epoch", "seconds", "steps"),
    [
        (0, None, [1]),
        (0, (5.0, 95.0), [1]),
        (0, (26.0, 74.0), [1, 2]),
        (4, (1.0, 99.0), [1, 2, 3]),
        (0, (9.0, 0.0), [1, 2, 3]),
    ],
)
def test_a_rung_is_a_share_of_epochs_or_of_time_whichever_is_more(
    epoch: int, seconds: tuple[float, float] | None, steps: list[int], tmp_path: Path
) -> None:
    callback = callback_of(reporter := Told(), tmp_path)
    callback.on_train_epoch_end(trainer_at(epoch, seconds=seconds), pl.LightningModule())
    assert reporter.reports == [(step, {"val/kid": 0.5}) for step in steps]
    callback.on_train_epoch_end(trainer_at(epoch, seconds=seconds), pl.LightningModule())
    assert len(reporter.reports) == len(steps)


def test_the_score_of_an_evaluation_is_not_taken_twice(tmp_path: Path) -> None:
    callback = callback_of(reporter := Told(), tmp_path)
    trainer = trainer_at(3)
    trainer.callback_metrics = {"val/kid": torch.tensor(0.25)}
    callback.on_train_epoch_end(trainer, pl.LightningModule())
    assert reporter.reports == [(1, {"val/kid": 0.25}), (2, {"val/kid": 0.25})]
    assert callback.scorer.taken == 0  # type: ignore[attr-defined]


def test_a_score_from_an_earlier_epoch_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    callback = callback_of(reporter := Told(), tmp_path)
    trainer = trainer_at(4)
    trainer.callback_metrics = {"val/kid": torch.tensor(0.25)}
    callback.on_train_epoch_end(trainer, pl.LightningModule())
    assert reporter.reports[-1] == (3, {"val/kid": 0.5})


def test_scoring_a_rung_leaves_the_random_state_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    callback = callback_of(Told(), tmp_path)
    callback.on_train_epoch_end(trainer_at(0), pl.LightningModule())
    assert callback.scorer.taken == 1  # type: ignore[attr-defined]
    assert torch.equal(torch.get_rng_state(), before)


def test_rank_zero_prunes_for_all(tmp_path: Path) -> None:
    with pytest.raises(optuna.TrialPruned, match="10%"):
        callback_of(Told(prune_at=1), tmp_path).on_train_epoch_end(trainer_at(0), pl.LightningModule())
    other = callback_of(reporter := Told(), tmp_path)
    with pytest.raises(optuna.TrialPruned):
        other.on_train_epoch_end(trainer_at(0, rank=1, received=(True, None)), pl.LightningModule())
    assert not reporter.reports
    assert not reporter.told


def test_rank_zero_stops_for_all(tmp_path: Path) -> None:
    callback = callback_of(Told(), tmp_path)
    callback.on_train_epoch_start(trainer_at(1), pl.LightningModule())
    with pytest.raises(InterruptedTrial):
        callback.on_train_epoch_start(trainer_at(1, rank=1, received=(True, None)), pl.LightningModule())


def test_what_goes_wrong_on_rank_zero_ends_every_rank(tmp_path: Path) -> None:
    callback = callback_of(Told(error=DivergedError("no number")), tmp_path)
    sent: list[Any] = []
    trainer = trainer_at(0)
    trainer.strategy.broadcast = lambda value, src: sent.append(value) or value
    with pytest.raises(DivergedError, match="no number"):
        callback.on_train_epoch_end(trainer, pl.LightningModule())
    with pytest.raises(DivergedError, match="no number"):
        callback_of(Told(), tmp_path).on_train_epoch_end(trainer_at(0, rank=1, received=sent[0]), pl.LightningModule())


def test_the_time_left_is_judged_by_this_attempt_alone(tmp_path: Path) -> None:
    now = iter([100.0, 130.0])
    callback = callback_of(reporter := Told(), tmp_path, lambda: next(now))
    before = signal.getsignal(signal.SIGTERM)
    trainer = trainer_at(4)  # four epochs were done by an earlier attempt
    callback.on_train_start(trainer, pl.LightningModule())
    callback.on_train_epoch_end(trainer_at(5), pl.LightningModule())
    callback.on_train_end(trainer, pl.LightningModule())
    assert reporter.told[0]["seconds_left"] == pytest.approx(60)  # two epochs took 30 s, four are left
    assert (reporter.told[0]["epoch"], reporter.told[0]["epochs"], reporter.told[0]["score"]) == (6, 10, 0.5)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_that_its_patience_ended_before_the_first_rung_is_reported_there_and_one_that_failed_is_not(
    tmp_path: Path,
) -> None:
    for end, steps in (("on_train_end", [1]), ("on_exception", [])):
        callback = callback_of(reporter := Told(), tmp_path)
        trainer = trainer_at(0, seconds=(1.0, 99.0))
        callback.on_train_start(trainer, pl.LightningModule())
        more = [RuntimeError()] if end == "on_exception" else []
        getattr(callback, end)(trainer, pl.LightningModule(), *more)
        assert [step for step, _ in reporter.reports] == steps
        assert [(unit, amounts["seconds"]) for unit, amounts in reporter.usage] == [("seconds", 1.0)]


def test_a_training_that_fails_before_it_has_read_what_was_used_leaves_that_as_it_is(tmp_path: Path) -> None:
    callback = callback_of(reporter := Told(), tmp_path)
    callback.on_exception(trainer_at(0, seconds=(0.0, 100.0)), pl.LightningModule(), RuntimeError())
    assert reporter.usage == []


@pytest.mark.parametrize(
    ("before", "now", "seconds", "left"), [(0, 0.25, 10, 30), (0.5, 0.75, 10, 10), (0, 1.2, 10, 0), (0.3, 0.3, 1, None)]
)
def test_time_left_by_share(before: float, now: float, seconds: float, left: float | None) -> None:
    assert seconds_left(before, now, seconds) == (left if left is None else pytest.approx(left))


def test_outside_the_main_thread_there_is_no_handler_and_no_failure(tmp_path: Path) -> None:
    callback, before, failed = callback_of(Told(), tmp_path), signal.getsignal(signal.SIGTERM), []

    def train() -> None:
        try:
            callback.on_train_start(trainer_at(0), pl.LightningModule())
            callback.on_train_end(trainer_at(0), pl.LightningModule())
        except ValueError as error:
            failed.append(error)

    (thread := threading.Thread(target=train)).start()
    thread.join()
    assert not failed
    assert signal.getsignal(signal.SIGTERM) == before


def test_how_far_a_rung_is_counts_after_a_resume() -> None:
    callback = callback_of(Told(), Path())
    callback.load_state_dict({"reported": 2})
    assert callback.state_dict() == {"reported": 2, "step": 2}


@pytest.mark.parametrize(("now", "reported"), [([1, 3, 9], 1), ([3, 9], 0), ([1, 2, 3, 9], 1), ([0, 1, 9], 2)])
def test_of_rungs_that_were_changed_those_up_to_the_last_that_was_reported_count(now: list[int], reported: int) -> None:
    def having(rungs: list[int]) -> SweepCallback:
        told = Told()
        told.promotion = Promotion(3.0, rungs, ["val/kid"], ["minimize"])
        return callback_of(told, Path())

    begun = having([1, 3, 9])
    begun.reported = 1
    callback = having(now)
    callback.load_state_dict(begun.state_dict())
    assert callback.reported == reported


def test_a_training_shows_now_and_then_that_it_goes_on(tmp_path: Path) -> None:
    now, reporter, trainer = [0.0], Told(), trainer_at(0)
    callback = SweepCallback(reporter, Scores(), [0.5], tmp_path, lambda: now[0])  # type: ignore[arg-type]
    for now[0] in (0.0, 5.0, 9.0, 10.0, 11.0, 25.0):
        callback.on_train_batch_end(trainer, None, None, None, 0)  # type: ignore[arg-type]
        callback.on_train_batch_end(trainer_at(0, rank=1), None, None, None, 0)  # type: ignore[arg-type]
    assert reporter.shown == [tmp_path] * 3


def test_a_run_bound_by_time_is_given_up_within_an_epoch(compose: Compose, url: str, tmp_path: Path) -> None:
    study = begin(url, ALWAYS)
    cfg = configure(compose, url)
    cfg.epochs, cfg.minutes, cfg.eval_every, cfg.rungs = 1, 600, "auto", [0.3, 0.9]
    with pytest.raises(optuna.TrialPruned, match="40%"):  # after the second of its five steps
        fit.run(cfg, tmp_path / "0")
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1"}


def test_without_photos_to_validate_on_a_run_bound_by_time_reports_after_epochs(
    compose: Compose, url: str, tmp_path: Path
) -> None:
    study = begin(url, NEVER)
    cfg = configure(compose, url)
    cfg.epochs, cfg.minutes, cfg.eval_every, cfg.data.val_fraction = 2, 600, "auto", 0
    cfg.objective = ["val/fid", "val/kid"]
    fit.run(cfg, tmp_path / "0")
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"1", "2"}
