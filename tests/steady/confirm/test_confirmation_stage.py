"""The stage after the search: how much of a bound on the time is its own. What it runs is seen in test_sweep."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict
from optuna.trial import TrialState, create_trial
from tests.steady.scripted import Script

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.confirm import confirmation
from steady.confirm.confirmation_stage import ConfirmationStage, TypicalSeconds, _Planned
from steady.exceptions import ConfigError, StudyError
from steady.propose.sampling import UnfitTrial
from steady.propose.space import Space
from steady.run.job_factory import JobFactory
from steady.run.scheduler import Scheduler
from steady.study import meta
from steady.sweep import Sweep

Make = Callable[..., Sweep]


@pytest.fixture
def make(app: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch) -> Make:
    """A sweep in this process, whose trials take no time."""
    context, config = app
    monkeypatch.setattr(JobFactory, "executor", lambda jobs: Script(jobs.options.slots))

    def made(**keys: Any) -> Sweep:
        with open_dict(config):
            config.seed = 0
        every = {f.name: getattr(SteadySweeperConf(), f.name) for f in dataclasses.fields(SteadySweeperConf)}
        given = {"sampler": {"_target_": "optuna.samplers.RandomSampler"}, "study_name": "cats", "n_jobs": 2}
        read = options.read({**every, **given, **keys}, "app", "out")
        space = Space.parse({"x": "interval(0.0, 1.0)"}, [])
        return Sweep(JobFactory(read, space, context, lambda cfg: 0.0, config))

    return made


def finished(seconds: float, **attrs: Any) -> optuna.trial.FrozenTrial:
    runs = {meta.RUNS: [{"slot": 0, "start": 10.0, "end": 10.0 + seconds}]}
    return create_trial(value=1.0, user_attrs={**runs, **attrs})


def test_a_run_takes_as_long_as_the_finished_trials_did_or_as_it_may() -> None:
    assert TypicalSeconds(None).of([]) == 0
    typical = TypicalSeconds(2.5)
    assert typical.of([]) == 150
    trials = [finished(100), finished(140), finished(120), finished(0.1, **{meta.DUPLICATE_OF: 0})]
    assert typical.of(trials) == 120
    assert typical.of([*trials, finished(130)]) == 125


def test_a_search_whose_time_is_over_leaves_some_for_its_confirmation(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def as_the_first_took(self: TypicalSeconds, trials: Sequence[optuna.trial.FrozenTrial]) -> float:
        return 10**5 if any(trial.state.is_finished() for trial in trials) else 0.0

    monkeypatch.setattr(TypicalSeconds, "of", as_the_first_took)
    # Two rounds of the slots, and the trials that run when the search ends: three times what one takes.
    for timeout, whole in ((3 * 10**5, False), (3 * 10**5 + 10**4, True)):
        name = f"for{timeout}"
        sweep = make(n_trials=5, study_name=name, timeout=timeout, confirm={"top": 1, "seeds": 3})
        sweep.run()
        study = optuna.load_study(study_name=name, storage=f"sqlite:///sweeps/{name}/study.db")
        assert (len(study.trials) == 5) == whole
        confirmed = json.loads(Path(f"sweeps/{name}/confirmation.json").read_text())
        assert confirmed["candidates"][0]["seeds"] == 3
        assert ("Its time is over" in capsys.readouterr().out) != whole


def test_the_best_of_before_the_space_was_changed_are_not_confirmed_as_what_they_are_not(
    make: Make,
) -> None:
    sweep = make(n_trials=1, confirm={"top": 2, "seeds": 1})
    jobs = dataclasses.replace(sweep.jobs, space=Space.parse({"x": "interval(0.0, 1.0)"}, ["width=wide"]))
    before = Space.parse({"x": "interval(0.0, 9.0)", "width": "choice(wide, narrow)"}, []).parameters
    study = optuna.create_study()
    tried: list[dict[str, Any]] = [
        {"x": 0.5, "width": "narrow"}, {"x": 5.0, "width": "wide"}, {"x": 0.25, "width": "wide"}, {"x": 0.75}
    ]  # fmt: skip
    for value, params in enumerate(tried):
        distributions = {name: before[name] for name in params}
        study.add_trial(create_trial(value=float(value), params=params, distributions=distributions))
    stage = ConfirmationStage(study, jobs)
    assert [one[meta.CONFIRMS] for one in stage.plan] == [2, 3]
    assert stage.unfit[0] == "width=wide is fixed by now; it has narrow"
    assert stage.unfit.keys() == {0, 1}


def test_trials_that_had_one_value_of_what_is_drawn_by_now_are_not_confirmed_with_another(make: Make) -> None:
    space = Space.parse({"x": "interval(0.0, 1.0)", "width": "choice(wide, narrow)"}, [])
    jobs = dataclasses.replace(make(n_trials=1, confirm={"top": 2, "seeds": 1}).jobs, space=space)
    study = optuna.create_study()
    tried: list[dict[str, Any]] = [{"x": 0.5}, {"x": 0.25, "width": "wide"}]  # the first was begun with width=narrow
    for value, params in enumerate(tried):
        distributions = {name: space.parameters[name] for name in params}
        study.add_trial(create_trial(value=float(value), params=params, distributions=distributions))
    stage = ConfirmationStage(study, jobs)
    assert [one[meta.CONFIRMS] for one in stage.plan] == [1]
    assert stage.unfit == {0: "by now width would be drawn, and had one value"}


def test_what_was_confirmed_before_a_change_is_confirmed_again(make: Make) -> None:
    sweep = make(n_trials=1, confirm={"top": 1, "seeds": 2})
    sweep.run()
    study = optuna.load_study(study_name="cats", storage="sqlite:///sweeps/cats/study.db")
    assert ConfirmationStage(study, sweep.jobs).complete
    for changes in (1, 2):
        study.set_user_attr(meta.CHANGES, changes)
        assert not ConfirmationStage(study, sweep.jobs).complete
        make(n_trials=1, confirm={"top": 1, "seeds": 2}).run()
        assert ConfirmationStage(study, sweep.jobs).complete
    runs = optuna.load_study(study_name="cats.confirm", storage=study._storage).trials
    assert [meta.get(run, meta.CHANGES) for run in runs] == [None, None, 1, 1, 2, 2]
    assert confirmation.folders(study) == {0: {1: "confirm/4", 2: "confirm/5"}}
    with pytest.raises(UnfitTrial, match="accepted since it began"):
        _Planned(study, ConfirmationStage(study, sweep.jobs).plan, lambda number: "").complete(runs[0])


def test_of_what_was_begun_before_the_space_was_changed_runs_of_trials_that_do_not_fit_fail_alone() -> None:
    runs = optuna.create_study()
    for number in (3, 4):
        waits = {meta.CONFIRMS: number, meta.SEED: 1}
        runs.add_trial(create_trial(state=TrialState.WAITING, user_attrs=waits))
    planned = _Planned(runs, [], lambda number: "x=2 is fixed by now; it has 1" if number == 3 else "")
    planned.complete(runs.trials[1])
    with pytest.raises(UnfitTrial, match="x=2 is fixed by now"):
        planned.complete(runs.trials[0])


def test_a_space_that_is_used_up_is_confirmed_and_its_time_is_not_said_to_be_over(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = make(n_trials=9, study_name="small", timeout=1000.0, confirm={"top": 1, "seeds": 2}).jobs
    Sweep(dataclasses.replace(jobs, space=Space.parse({"x": "choice(0.1, 0.2)"}, []))).run()
    said = capsys.readouterr().out
    assert "2 trials: 2 finished" in said
    assert "Its time is over" not in said
    assert json.loads(Path("sweeps/small/confirmation.json").read_text())["candidates"][0]["seeds"] == 2


def test_a_space_that_is_used_up_as_its_time_ends_has_ended(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Scheduler, "is_out_of_time", lambda loop: len(loop.ledger.known.trials) >= 2)
    jobs = make(n_trials=9, study_name="small", timeout=1000.0).jobs
    Sweep(dataclasses.replace(jobs, space=Space.parse({"x": "choice(0.1, 0.2)"}, []))).run()
    assert "Its time is over" not in capsys.readouterr().out
    study = optuna.load_study(study_name="small", storage="sqlite:///sweeps/small/study.db")
    assert meta.get(study, meta.OUT_OF_TIME) is None


def test_runs_of_the_confirmation_wait_for_a_server_as_long_as_trials_do(make: Make) -> None:
    make(n_trials=1, storage_patience=77, confirm={"top": 1, "seeds": 1}).run()
    runs = optuna.load_study(study_name="cats.confirm", storage="sqlite:///sweeps/cats/study.db")
    assert len(runs.trials) == 1
    assert runs.user_attrs[meta.PATIENCE] == 77


def test_a_time_that_is_over_before_the_first_trial_is_told(make: Make) -> None:
    sweep = make(n_trials=2, timeout=100.0)
    sweep.started -= 200
    with pytest.raises(StudyError, match=r"No trial finished: the time was over .*timeout=100 seconds"):
        sweep.run()


def test_trials_that_are_only_paused_may_satisfy_the_constraints(make: Make) -> None:
    sweep = make(constraints={"size": "<= 0.5"})
    study = optuna.create_study()
    study.set_user_attr(meta.CONTRACT, {"constraints": {"size": "<= 0.5"}})
    study.add_trial(create_trial(state=TrialState.PRUNED, constraints={"size": 1.0}))
    with pytest.raises(StudyError, match=r"No trial satisfies size <= 0\.5\. The nearest is trial 0"):
        sweep._require_finished(study)
    paused = {meta.ATTEMPT: 0, meta.PAUSED: {"rung": 3, "attempt": 0}}
    study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=paused))
    with pytest.raises(StudyError, match=r"that satisfies size <= 0\.5 has come to its end yet.* 1 trial is paused"):
        sweep._require_finished(study)


def test_a_search_that_has_ended_leaves_all_its_time_to_another_confirmation(make: Make) -> None:
    long = {"trial_minutes": 10, "timeout": 1800.0, "study_name": "cats"}
    with pytest.raises(ConfigError, match="leaves no time for a search"):
        make(n_trials=2, confirm={"top": 3, "seeds": 3}, **long).opener.check({})
    make(n_trials=2, **long).run()
    sweep = make(n_trials=2, confirm={"top": 2, "seeds": 3}, **long)
    sweep.opener.check({})
    sweep.run()
    assert len(json.loads(Path("sweeps/cats/confirmation.json").read_text())["candidates"]) == 2


def test_what_the_search_has_used_of_the_time_the_confirmation_has_not(make: Make) -> None:
    sweep = make(n_trials=2, timeout=100.0, confirm={"top": 1, "seeds": 1})
    sweep.started -= 30
    assert 60 < (sweep.limits(1).timeout or 0) <= 70
    sweep.started -= 90
    assert sweep.limits(1).timeout == 0
    assert make(n_trials=2).limits(1).timeout is None
