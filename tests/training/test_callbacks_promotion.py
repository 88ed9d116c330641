"""A trial that is paused at rungs and promoted is the same as one that never stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from omegaconf import DictConfig
from tests import memory

from catsweep import runs
from catsweep.errors import ConfigError
from catsweep.runs import LAST_CHECKPOINT, SCORES
from catsweep.tracking import loggers
from catsweep.training import fit
from steady.reporting import TrialReporter
from steady.storage import open_storage
from steady.study import meta

pytestmark = pytest.mark.trains

Compose = Callable[..., DictConfig]
PROMOTION = {"eta": 3, "rungs": [1, 2, 6], "metrics": ["val/kid"], "directions": ["minimize"]}
# Five steps an epoch, 2.5 epochs: rungs within the first and at the end of an epoch; or at the ends of epochs.
BUDGETS = {
    "samples": ("epochs=100", "minutes=null", "budget_unit=samples", "samples={samples}", "eval_every=auto"),
    "epochs": ("epochs=6", "eval_every=1"),
}


def begin(folder: Path, promoted: int = -1, **promotion: Any) -> optuna.Study:
    study = optuna.create_study(study_name="s", storage=open_storage(f"sqlite:///{folder}/study.db"))
    study.set_user_attr(meta.PROMOTION, PROMOTION | promotion)
    trial = study.ask()
    trial.set_user_attr(meta.ATTEMPT, 0)
    trial.set_user_attr(meta.PROMOTED, promoted)
    return study


def configure(compose: Compose, folder: Path, attempt: int, *words: str) -> DictConfig:
    url = f"sqlite:///{folder}/study.db"
    who = ("trial.number=0", "trial.study=s", f"trial.storage={url!r}", f"trial.attempt={attempt}")
    return compose(*words, *who, "rungs=[0.9]")


@pytest.mark.parametrize("unit", BUDGETS)
def test_paused_twice_it_ends_with_the_weights_and_scores_of_one_that_never_stopped(
    unit: str, compose: Compose, tmp_path: Path
) -> None:
    size = compose().data.batch_size
    words = [word.format(samples=15 * size) for word in BUDGETS[unit]]
    begin(straight := tmp_path / "straight", promoted=2)
    value = fit.run(configure(compose, straight, 0, *words), straight / "0")
    study = begin(folder := tmp_path / "paused")
    store = study._storage
    for attempt, rung in enumerate((1, 2)):
        memory.settle()  # several runs in one test
        with pytest.raises(optuna.TrialPruned, match="paused after"):
            fit.run(configure(compose, folder, attempt, *words), folder / "0")
        trial = study.trials[0]
        assert trial.user_attrs[meta.PAUSED] == {"rung": rung, "attempt": attempt}
        assert list(trial.user_attrs[meta.RUNGS]) == ["1", "2"][:rung]
        assert (folder / "0" / LAST_CHECKPOINT).exists()
        assert not (folder / "0" / SCORES).exists()
        store.set_trial_user_attr(trial._trial_id, meta.ATTEMPT, attempt + 1)
        store.set_trial_user_attr(trial._trial_id, meta.PROMOTED, rung)
    memory.settle()
    assert fit.run(configure(compose, folder, 2, *words), folder / "0") == value
    for kind in ("best", "last"):
        one, other = (runs.load_run(place / "0", kind)[0].state_dict() for place in (straight, folder))
        assert all(torch.equal(weights, other[key]) for key, weights in one.items())
    rungs = [optuna.load_study(study_name="s", storage=f"sqlite:///{place}/study.db") for place in (straight, folder)]
    assert rungs[0].trials[0].user_attrs[meta.RUNGS] == rungs[1].trials[0].user_attrs[meta.RUNGS]
    used = [one.trials[0].user_attrs[meta.USAGE]["samples"] for one in rungs]
    assert used[0] == used[1]


def test_a_rung_that_is_reached_with_the_end_of_the_budget_pauses_nothing(compose: Compose, tmp_path: Path) -> None:
    study = begin(tmp_path)
    budget = ("epochs=100", "minutes=null", "budget_unit=samples", "samples=1", "eval_every=auto")
    fit.run(configure(compose, tmp_path, 0, *budget), tmp_path / "0")
    attributes = study.trials[0].user_attrs
    assert list(attributes[meta.RUNGS]) == ["1", "2"]
    assert meta.PAUSED in attributes  # it was to pause there, one of one
    assert meta.marked_as_paused(study.trials[0]) is None


def test_a_rung_before_any_training_is_refused(compose: Compose, tmp_path: Path) -> None:
    begin(tmp_path, rungs=[0, 9])
    with pytest.raises(ConfigError, match=r"each is more than 0, such as \[1, 3, 9\].*got \[0, 9\]"):
        fit.run(configure(compose, tmp_path, 0), tmp_path / "0")


@pytest.mark.parametrize(("taken", "outcome"), [(False, "paused"), (True, "interrupted")])
def test_loggers_are_told_of_a_pause_only_if_the_trial_is_still_this_attempts(
    compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool, outcome: str
) -> None:
    study, told, mark = begin(tmp_path), list[str](), TrialReporter._mark

    def marked(reporter: TrialReporter, rung: int | None) -> None:
        mark(reporter, rung)
        if taken:
            study._storage.set_trial_user_attr(study.trials[0]._trial_id, meta.ATTEMPT, 1)

    monkeypatch.setattr(TrialReporter, "_mark", marked)
    monkeypatch.setattr(loggers, "finish", lambda own, outcome: told.append(outcome))
    with pytest.raises(optuna.TrialPruned):  # which nobody waits for, if it was taken
        fit.run(configure(compose, tmp_path, 0, *BUDGETS["epochs"]), tmp_path / "0")
    assert told == [outcome]


def test_rungs_that_come_after_the_same_epoch_are_refused(compose: Compose, tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(ConfigError, match=r"\[1, 2, 6\].* epochs=3 they come after 1, 1, 3. .*\(6 are enough\)"):
        fit.run(configure(compose, tmp_path, 0, "epochs=3"), tmp_path / "0")
