"""The rung score during training: in time for the checkpoints, and without a trace in the training."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from catsweep.errors import MetricError
from catsweep.metrics.scorer import ScoreCallback


class Scores:
    """A scorer that gives 1.0, 2.0, … and leaves as much behind as it can."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.calls = 0
        self.failure = failure

    def rung(self, model: Any) -> dict[str, float]:
        self.calls += 1
        torch.rand(100)
        if self.failure is not None:
            raise self.failure
        return {"val/kid": float(self.calls)}


class Module(pl.LightningModule):
    """Its weights depend on the random state, since it has dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        assert torch.is_grad_enabled()
        assert self.net.training
        return self.net(batch[0]).square().mean()

    def validation_step(self, batch: list[Tensor], index: int) -> None: ...

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(callbacks: list[pl.Callback], epochs: int = 4, **settings: Any) -> tuple[pl.Trainer, Module]:
    torch.manual_seed(1)
    data = DataLoader(TensorDataset(torch.randn(8, 4)), batch_size=4)
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "num_sanity_val_steps": 0,
    }
    trainer = pl.Trainer(max_epochs=epochs, callbacks=callbacks, **(defaults | settings))
    module = Module()
    trainer.fit(module, data, data)
    return trainer, module


pytestmark = [
    pytest.mark.trains,
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*`LeafSpec.*is deprecated"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
]


def test_checkpoints_and_early_stopping_read_the_score_of_the_same_epoch(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, "best-{epoch}", monitor="val/kid", mode="max", auto_insert_metric_name=True)
    stop = EarlyStopping("val/kid", mode="max", stopping_threshold=2.5, patience=9)
    trainer, _ = train([ScoreCallback(Scores()), best, stop], epochs=9)
    assert float(trainer.callback_metrics["val/kid"]) == 3
    assert float(best.best_model_score or 0) == 3
    assert Path(best.best_model_path).name == "best-epoch=2.ckpt"
    assert trainer.current_epoch == 3


def test_training_goes_on_as_if_it_had_not_been_scored() -> None:
    _, alone = train([])
    scorer = Scores()
    _, scored = train([ScoreCallback(scorer)])
    assert scorer.calls == 4
    for name, value in alone.state_dict().items():
        assert torch.equal(scored.state_dict()[name], value)


@pytest.mark.parametrize(("every", "epochs", "expected"), [(1, 3, 3), (2, 3, 2), (2, 4, 2), (5, 3, 1)])
def test_every_so_many_epochs_and_the_last(every: int, epochs: int, expected: int) -> None:
    scorer = Scores()
    train([ScoreCallback(scorer, every=every)], epochs=epochs)
    assert scorer.calls == expected


def test_only_epochs_with_a_validation_count() -> None:
    scorer = Scores()
    train([ScoreCallback(scorer)], epochs=4, check_val_every_n_epoch=2)
    assert scorer.calls == 2


def test_the_sanity_check_is_not_scored() -> None:
    scorer = Scores()
    train([ScoreCallback(scorer)], epochs=1, num_sanity_val_steps=1)
    assert scorer.calls == 1


def test_every_must_be_positive() -> None:
    with pytest.raises(MetricError, match="at least 1; got 0"):
        ScoreCallback(Scores(), every=0)


def test_what_cannot_be_scored_ends_the_training() -> None:
    with pytest.raises(MetricError, match="diverged"):
        train([ScoreCallback(Scores(MetricError("diverged")))])


@pytest.fixture
def rank() -> Callable[[int, Any], tuple[Any, list[Any]]]:
    """A trainer as one rank of several sees it; the other side of the broadcast is given."""

    def rank(number: int, received: Any) -> tuple[Any, list[Any]]:
        sent: list[Any] = []

        def broadcast(value: Any, src: int) -> Any:
            sent.append(value)
            return value if number == src else received

        trainer = SimpleNamespace(
            sanity_checking=False,
            current_epoch=0,
            max_epochs=1,
            global_step=1,
            is_global_zero=number == 0,
            strategy=SimpleNamespace(broadcast=broadcast),
        )
        return trainer, sent

    return rank


def test_rank_zero_scores_and_tells_the_others(rank: Callable[..., tuple[Any, list[Any]]]) -> None:
    logged: list[dict[str, float]] = []
    module = SimpleNamespace(log_dict=lambda values, **_: logged.append(values))
    first, other = Scores(), Scores()
    trainer, sent = rank(0, None)
    ScoreCallback(first).on_validation_epoch_end(trainer, module)
    trainer, _ = rank(1, sent[0])
    ScoreCallback(other).on_validation_epoch_end(trainer, module)
    assert (first.calls, other.calls) == (1, 0)
    assert logged == [{"val/kid": 1.0}] * 2


def test_a_failure_on_rank_zero_ends_every_rank(rank: Callable[..., tuple[Any, list[Any]]]) -> None:
    trainer, sent = rank(0, None)
    with pytest.raises(MetricError, match="diverged"):
        ScoreCallback(Scores(MetricError("diverged"))).on_validation_epoch_end(trainer, SimpleNamespace())
    trainer, _ = rank(1, sent[0])
    with pytest.raises(MetricError, match="diverged"):
        ScoreCallback(Scores()).on_validation_epoch_end(trainer, SimpleNamespace())
