"""A view of a study's trials is what the study holds, whoever wrote it, and costs no more as the study grows."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from hypothesis import example, given, settings
from hypothesis import strategies as st
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.storages._rdb.models import TrialModel
from optuna.trial import TrialState, create_trial
from tests.steady.scripted import GOOD, Script, scheduler

from steady.jobs.executor import Job
from steady.run.ledger import Limits
from steady.storage import open_storage
from steady.study.trial_store import FEW, TrialCursor, TrialView

ACTIONS = ("ask", "suggest", "note", "requeue", "start", "tell", "enqueue", "many", "refresh")
OPEN: dict[str, Callable[[Path], BaseStorage]] = {
    "sqlite": lambda folder: open_storage(f"sqlite:///{folder / 'study.db'}"),
    "journal": lambda folder: open_storage(f"journal:///{folder / 'study.log'}"),
    "memory": lambda _: InMemoryStorage(),
}


def act(study: optuna.Study, action: str, pick: int) -> None:
    """Do one thing to a trial that has not ended, or make one."""
    storage, left = study._storage, [trial for trial in study.get_trials() if not trial.state.is_finished()]
    if action == "enqueue":
        study.enqueue_trial({"x": 0.5})
    elif action == "many":
        study.add_trials([create_trial(value=1.0)] * (FEW + 1))
    elif action == "ask":
        storage.create_new_trial(study._study_id)
    elif left:
        trial = left[pick % len(left)]
        if action == "note":
            storage.set_trial_user_attr(trial._trial_id, f"note {len(trial.user_attrs)}", pick)
        elif action == "requeue":
            storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)
        elif action == "start":
            storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING)
        elif action == "suggest" and trial.state == TrialState.RUNNING:
            optuna.Trial(study, trial._trial_id).suggest_float("x", 0, 1)
        elif action == "tell":
            storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [float(pick)])


@pytest.mark.parametrize("kind", OPEN)
@example(actions=[(action, 0) for action in ("ask", "requeue", "refresh", "start", "requeue")])
@settings(max_examples=15)
@given(actions=st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9)), max_size=25))
def test_a_view_is_what_the_study_holds(
    kind: str, actions: list[tuple[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    storage = OPEN[kind](folder := tmp_path_factory.mktemp("view"))
    study = optuna.create_study(study_name="cats", storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    optuna.create_study(study_name="dogs", storage=storage).enqueue_trial({})  # whose trials have ids in between
    other = study if kind == "memory" else optuna.load_study(study_name="cats", storage=OPEN[kind](folder))
    view, cursor, ended = TrialView(study), TrialCursor(), []
    for place, (action, pick) in enumerate([*actions, ("refresh", 0)]):
        if action != "refresh":
            act((study, other)[place % 2], action, pick)
            continue
        view.refresh()
        trials = study.get_trials()
        assert view.trials == trials
        assert view.unfinished == {trial.number: trial for trial in trials if not trial.state.is_finished()}
        new, left = cursor.advance(view.trials)
        ended += new
        assert {trial.number: trial for trial in left} == view.unfinished
        assert sorted(trial.number for trial in ended) == [t.number for t in trials if t.state.is_finished()]


def test_what_a_trial_costs_a_database_does_not_grow_with_the_study(tmp_path: Path) -> None:
    study = optuna.create_study(storage=OPEN["sqlite"](tmp_path))
    ledger = scheduler(Script(1), Limits(100), study).ledger
    counts = {"statements": 0, "trials": 0}

    def count(name: str) -> Callable[..., None]:
        return lambda *_: counts.update({name: counts[name] + 1})

    statement, read = count("statements"), count("trials")
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", statement)
    sqlalchemy.event.listen(TrialModel, "load", read)
    costs = []
    try:
        for _ in range(40):
            before = dict(counts)
            trial = ledger.acquire()
            assert trial is not None
            ledger.finish(Job(trial.number, (), Path(str(trial.number))), GOOD, slot=0, begun=0.0)
            ledger.requeue_abandoned()
            assert not ledger.done
            costs.append({name: counts[name] - before[name] for name in counts})
    finally:
        sqlalchemy.event.remove(sqlalchemy.engine.Engine, "before_cursor_execute", statement)
        sqlalchemy.event.remove(TrialModel, "load", read)
    assert costs[-1] == costs[5]
    assert costs[-1]["trials"] < 20
