"""`dry_run`: the estimate. The whole is seen in test_sweep."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState, create_trial

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.study_opener import study_on_paper
from steady.study import meta
from steady.watch.dry_run import cost, print_dry_run


def read(**changes: Any) -> options.SweepOptions:
    keys = {f.name: getattr(SteadySweeperConf(), f.name) for f in dataclasses.fields(SteadySweeperConf)}
    given = {"sampler": {}, "study_name": "cats", "n_trials": 12, "n_jobs": 2, **changes}
    return options.read({**keys, **given}, "app", "out")


def finished(seconds: float, **attrs: Any) -> optuna.trial.FrozenTrial:
    runs = {meta.RUNS: [{"slot": 0, "start": 10.0, "end": 10.0 + seconds}]}
    return create_trial(value=1.0, user_attrs={**runs, **attrs})


def test_the_cost_is_not_known_then_the_budgets_then_the_finished_trials() -> None:
    study = optuna.create_study()
    assert "not known" in cost(study, read())
    assert cost(study, read(trial_minutes=3)).startswith(
        "12 trials to go at 3 minutes each (their budget): about 0.3 h"
    )
    study.add_trials([finished(600), finished(1200), finished(0.1, **{meta.DUPLICATE_OF: 0})])
    expected = "9 trials to go at 15 minutes each (the finished trials' mean): about 1.1 h"
    assert cost(study, read(trial_minutes=3)).startswith(expected)
    assert "in all" not in cost(study, read())
    bound = read(timeout=7200, confirm={"top": 1, "seeds": 3})
    assert "120 minutes in all (hydra.sweeper.timeout), 45 minutes of it for the last of them" in cost(study, bound)
    assert cost(study, read(timeout=60)).endswith("bound to 1 minutes in all (hydra.sweeper.timeout).")


def test_what_waits_and_what_was_left_over_come_before_what_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study()
    study.add_trial(finished(60))
    study.enqueue_trial({"x": "a"})
    space = Space.parse({"x": "choice(a, b, c)"}, [])
    proposer = Proposer(study, space, Samplers({"_target_": "optuna.samplers.RandomSampler"}, 0, space))
    print_dry_run(study, read(n_trials=4), space, proposer, [{"x": "a"}, {"x": "c"}])
    said = capsys.readouterr().out
    assert "It would begin with:\n  1: x=a\n  2: x=c\n  3: x=" in said
    assert "  4: " not in said
    assert "3 trials to go" in said
    print_dry_run(study, read(n_trials=1), space, proposer, [])
    assert "It would begin with:\n  1: x=a\n1 trial to go" in capsys.readouterr().out


def test_a_study_on_paper_is_the_real_one_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert study_on_paper(read(direction="maximize")).direction.name == "MAXIMIZE"
    assert not list(tmp_path.iterdir())
    keys = read(storage="sqlite:///study.db")
    optuna.create_study(study_name="other", storage="sqlite:///study.db")
    assert study_on_paper(keys).trials == []
    optuna.create_study(study_name="cats", storage="sqlite:///study.db").enqueue_trial({"x": 1})
    assert len(study_on_paper(keys).trials) == 1


def test_a_server_that_just_restarts_is_waited_for_when_a_sweep_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(study_name="cats", storage=storage).enqueue_trial({"x": 1})
    away = sqlalchemy.exc.OperationalError("", {}, ConnectionError("refused"), connection_invalidated=True)
    opened = Mock(side_effect=[away, storage, away])
    monkeypatch.setattr("steady.run.study_opener.open_storage", opened)
    keys = read(storage="postgresql://host/cats")
    assert len(study_on_paper(keys).trials) == 1
    with pytest.raises(sqlalchemy.exc.OperationalError):
        study_on_paper(read(storage="postgresql://host/cats", storage_patience=0.0))


@pytest.mark.parametrize(
    ("fixed", "size", "there"),
    [([], 6, ["model", "loss", "weight"]), (["model=vae"], 4, ["loss", "weight"]), (["model=gan"], 1, [])],
)
def test_what_can_never_be_tried_beside_what_is_fixed_is_not_listed(
    fixed: list[str], size: int, there: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    params = {"model": "choice(vae, gan, none)", "loss": "choice(l1, lpips)", "weight": "choice(1, 2, 3)"}
    space = Space.parse(params, fixed, {"loss": "model=vae", "weight": "loss=lpips"})
    study = optuna.create_study()
    print_dry_run(
        study,
        read(),
        space,
        Proposer(study, space, Samplers({"_target_": "optuna.samplers.RandomSampler"}, 0, space)),
        [],
    )
    said = capsys.readouterr().out
    assert f"The space has {size} configurations:" in said
    assert [name for name in params if f"\n  {name}: " in said] == there


def test_with_promotion_it_tells_of_trials_that_are_paused() -> None:
    study = optuna.create_study()
    paused = {meta.ATTEMPT: 0, meta.PAUSED: {"rung": 1, "attempt": 0}}
    study.add_trials([create_trial(state=TrialState.WAITING, user_attrs=paused)] * 2)
    given = {"promotion": {"eta": 3, "rungs": [1, 3, 9]}, "prune_metric": "loss", "n_trials": 2}
    assert cost(study, read(**given, trial_minutes=9)) == (
        "0 trials to go at 9 minutes each (their budget): about 0 h, for all have begun. Beside these 2 trials are "
        "paused (2 at rung 1), and the best of them go on."
    )


def test_with_promotion_it_says_how_many_go_on_and_counts_their_time() -> None:
    given = {"promotion": {"eta": 3, "rungs": [1, 3, 9]}, "prune_metric": "loss", "n_trials": 27}
    told = cost(optuna.create_study(), read(**given, trial_minutes=9))
    # 27 trials for a minute, nine for two more and three for six more, in two slots.
    assert "about 0.53 h, as about 9 from rung 1 and 3 from rung 3 go on; the others are paused there." in told
    told = cost(optuna.create_study(), read(**given, trial_minutes=None))
    assert told.startswith(
        "27 trials to go, as about 9 from rung 1 and 3 from rung 3 go on; the others are paused there;"
    )
