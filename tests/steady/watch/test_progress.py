"""From a study and its slots to what is shown."""

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from hydra_plugins.steady_sweeper.config import SteadySweeperConf
from steady import options
from steady.confirm import confirmation
from steady.jobs.executor import Job
from steady.study import meta
from steady.watch.progress import ProgressReporter, SweepState

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}


def watch(study: optuna.Study, running: dict[int, Job]) -> tuple[ProgressReporter, Mock]:
    keys = {f.name: getattr(SteadySweeperConf(), f.name) for f in dataclasses.fields(SteadySweeperConf)}
    read = options.read({**keys, "sampler": {}, "n_trials": 9, "timeout": 60.0}, "app", "out")
    executor = Mock(slots=2, running=lambda: running)
    made = ProgressReporter(study, read, executor)
    made.display = shown = Mock()
    return made, shown


def trial(state: TrialState, value: float | None = None, seconds: float = 5.0, **more: Any) -> optuna.trial.FrozenTrial:
    attrs = {meta.RUNS: [{"slot": 0, "start": 0.0, "end": seconds}], **more.pop("attrs", {})}
    return create_trial(state=state, value=value, params={"x": 0.5}, distributions=SPACE, user_attrs=attrs, **more)


def test_the_state_is_that_of_the_study_and_of_what_trials_say(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="cats")
    study.add_trials(
        [
            trial(TrialState.COMPLETE, 2.0),
            trial(TrialState.COMPLETE, 1.0, attrs={meta.DUPLICATE_OF: 0}),
            trial(TrialState.PRUNED, seconds=3.0),
            trial(TrialState.PRUNED, seconds=1.0, constraints={"out of memory": 1.0}),
            trial(TrialState.FAIL, seconds=2.0),
            trial(TrialState.WAITING),
            trial(TrialState.RUNNING),
        ]
    )
    (tmp_path / "6").mkdir()
    told = {"epoch": 3, "epochs": 9, "metric": "val/kid", "score": 0.25, "seconds_left": 12.0}
    (tmp_path / "6" / "progress.json").write_text(json.dumps(told))
    made, shown = watch(study, {1: Job(6, (), tmp_path / "6")})
    with closing(made):
        made.refresh()
        made.event("trial 6 started")
    state: SweepState = shown.show.call_args.args[0]
    assert state.counts == {"finished": 2, "pruned": 1, "failed": 2, "waiting": 1, "running": 1}
    assert state.best == "value 1 (trial 1)"
    assert state.finished_seconds == [5.0, 3.0, 1.0, 2.0]  # what was reused took no time
    assert (state.study, state.n_trials, state.timeout) == ("cats", 9, 60.0)
    idle, busy = state.slots
    assert idle is None
    assert busy is not None
    assert (busy.slot, busy.trial, busy.epoch, busy.score, busy.seconds_left) == (1, 6, 3, 0.25, 12.0)
    shown.event.assert_called_once_with("trial 6 started")
    shown.close.assert_called_once_with()


def test_a_trial_that_goes_on_runs_since_it_was_started_again(tmp_path: Path) -> None:
    study, running = optuna.create_study(study_name="cats"), {0: Job(0, (), tmp_path)}
    study.add_trial(trial(TrialState.RUNNING))
    made, shown = watch(study, running)
    starts = []
    with closing(made):
        for attempt in (0, 0, 1):
            running[0] = Job(0, (), tmp_path, attempt=attempt)
            made.refresh()
            starts.append(shown.show.call_args.args[0].slots[0].started)
    assert starts[0] == starts[1] < starts[2]


def test_the_confirmation_is_shown_in_the_searchs_place() -> None:
    made, shown = watch(optuna.create_study(study_name="cats"), {})
    runs = optuna.create_study(study_name="cats.confirm")
    made.show_confirmation(runs, confirmation.plan([4, 2], 3, base_seed=0), total=6)
    made.refresh()
    state: SweepState = shown.show.call_args.args[0]
    assert (state.study, state.n_trials) == ("cats.confirm", 6)
    shown.event.assert_called_once_with("confirming trials 2 and 4 under 3 other seeds each")
