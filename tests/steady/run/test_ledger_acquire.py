"""Which trial a free slot gets: those that wait, those a dead controller left, new ones."""

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from tests.steady.scripted import Script, scheduler, states

from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.run.ledger import Limits
from steady.study import meta
from steady.study.trial_store import TrialStore


def test_what_a_dead_controller_left_goes_on_under_its_number() -> None:
    study = optuna.create_study()
    dead = scheduler(Script(1), Limits(3), study, "dead")
    trial = dead.ledger.acquire()
    assert trial is not None
    dead.ledger.leases.close()  # its tokens are gone, as those of the dead are
    assert states(study) == ["RUNNING"]
    script = Script(1)
    scheduler(script, Limits(3), study, "alive").run()
    assert script.started == [0, 1, 2]
    assert states(study) == ["COMPLETE"] * 3
    assert study.trials[0].params == trial.params


def test_a_trial_of_a_living_controller_is_left_alone() -> None:
    study = optuna.create_study()
    other = scheduler(Script(1), Limits(3), study, "other")
    assert other.ledger.acquire() is not None
    mine = scheduler(Script(1), Limits(3), study, "mine")
    mine.ledger.requeue_abandoned()
    assert states(study) == ["RUNNING"]
    taken = mine.ledger.acquire()
    assert taken is not None
    assert taken.number == 1


def test_a_trial_that_ends_while_we_look_is_not_taken_for_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading that it runs and asking who has it, its controller ends it and lets it go."""
    study = optuna.create_study()
    other = scheduler(Script(1), Limits(3), study, "other")
    trial = other.ledger.acquire()
    assert trial is not None
    mine = scheduler(Script(1), Limits(3), study, "mine")
    names = mine.ledger.leases.names

    def late() -> set[str]:
        study.tell(trial.number, 1.0)
        other.ledger.leases.release(f"trial/{trial.number}")
        return names()

    monkeypatch.setattr(mine.ledger.leases, "names", late)
    mine.ledger.requeue_abandoned()
    assert states(study) == ["COMPLETE"]
    assert study.trials[0].value == 1.0


@pytest.mark.parametrize("moment", ["start", "note"])
def test_a_trial_that_is_ended_while_it_is_taken_or_given_back_is_let_be(
    moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a controller that slept, and was taken for dead."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    loop = scheduler(Script(1), Limits(2), study)
    plain = getattr(TrialStore, moment)

    def late(trials: TrialStore, trial: FrozenTrial, *more: object) -> object:
        if trial.number == 0:
            study._storage.set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])
        return plain(trials, trial, *more)

    monkeypatch.setattr(TrialStore, moment, late)
    taken = loop.ledger.acquire()
    assert taken is not None
    assert taken.number == 1
    assert not loop.ledger.leases.owned("trial/0")
    study.tell(1, 2.0)
    loop.ledger.requeue(taken)
    assert states(study) == ["COMPLETE", "COMPLETE"]
    assert not loop.ledger.leases.owned("trial/1")


def test_enqueued_configurations_come_first_and_reused_ones_cost_nothing() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5})
    loop = scheduler(Script(1), Limits(3), study)
    loop.run()
    assert study.trials[0].params == {"x": 0.5}
    reuse = optuna.create_study()
    space = Space.parse({"x": "choice(1)"}, [])
    script = Script(1)
    loop = scheduler(script, Limits(3), reuse)
    node = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    loop.ledger.proposals = Proposer(reuse, space, Samplers(node, 0, space), "reuse")
    loop.run()
    assert script.started == [0]
    assert [trial.user_attrs.get(meta.DUPLICATE_OF) for trial in reuse.trials] == [None, 0, 0]
    assert [trial.state for trial in reuse.trials] == [TrialState.COMPLETE] * 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"x": 100}, "x must be a number from 0.0 to 1.0; got 100"),
        ({"z": 1}, "no parameter z"),
        ({"x": "a"}, "got 'a'"),
    ],
)
def test_what_another_tool_enqueued_and_cannot_be_fails_alone(given: dict[str, Any], said: str) -> None:
    study = optuna.create_study()
    study.enqueue_trial(given)
    study.enqueue_trial({"++x": 0.5})
    recorded: list[int] = []
    script = Script(1)
    loop = scheduler(script, Limits(3, max_same_failures=1), study, record=lambda: recorded.append(1))
    loop.run()
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert said in study.trials[0].user_attrs[meta.MESSAGE]
    assert study.trials[1].params == {"x": 0.5}
    assert script.started == [1, 2]
    assert recorded
    assert not loop.ledger.leases.owned("trial/0")


def test_so_does_one_that_ended_a_sweep_of_an_earlier_version_while_it_was_drawn() -> None:
    study = optuna.create_study()
    space = Space.parse({"x": "interval(0.0, 1.0)", "y": "choice(a, b)"}, [])
    study.enqueue_trial({"y": "aa"})
    with pytest.raises(ValueError, match="'aa' not in"):
        space.suggest(study.ask())
    study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.WAITING)
    assert list(study.trials[0].params) == ["x"]
    loop = scheduler(Script(1), Limits(2), study)
    node = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}
    loop.ledger.proposals = Proposer(study, space, Samplers(node, 0, space))
    loop.run()
    assert states(study) == ["FAIL", "COMPLETE"]


def test_a_trial_that_is_given_back_goes_on_unless_another_controller_has_it() -> None:
    loop = scheduler(Script(1), Limits(2))
    mine, lost = loop.ledger.acquire(), loop.ledger.acquire()
    assert mine is not None
    assert lost is not None
    loop.ledger.leases.release(f"trial/{lost.number}")
    for trial in (mine, lost):
        loop.ledger.requeue(trial)
    assert states(loop.ledger.study) == ["WAITING", "RUNNING"]
    again = scheduler(Script(1), Limits(2), loop.ledger.study, "there").ledger.acquire()
    assert again is not None
    assert again.number == mine.number
