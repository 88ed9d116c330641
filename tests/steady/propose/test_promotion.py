"""Promotion decides as the paper's algorithm does, adds scores up as a study grows, and shows them to samplers."""

import math
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from steady.options import Promotion
from steady.propose.promotion import RungTable, RungView, best, goes_on, losses_at
from steady.propose.sampling import Proposer, Samplers
from steady.propose.space import Space
from steady.study import meta

RUNGS = [1, 3, 9]
ONE = Promotion(3, RUNGS, ["loss"], ["minimize"])


def trial_at(number: int, state: TrialState, *losses: float, attempt: int = 0, **more: Any) -> FrozenTrial:
    """A trial with a loss at each of the first rungs; a waiting one is paused at the last of them."""
    scores = {str(step): {"loss": loss} for step, loss in zip(RUNGS, losses, strict=False)}
    attrs = {meta.RUNGS: scores, meta.ATTEMPT: attempt}
    if state == TrialState.WAITING and losses:
        attrs[meta.PAUSED] = {"rung": RUNGS[len(losses) - 1], "attempt": attempt}
    trial = create_trial(state=state, user_attrs=attrs, value=1.0 if state == TrialState.COMPLETE else None, **more)
    trial.number = number
    return trial


def test_the_best_third_of_those_that_came_goes_on() -> None:
    losses = {number: (float(loss),) for number, loss in enumerate([5, 3, 4, 1, 2])}
    assert best(losses, 3) == [3]
    assert best(losses | {5: (0.0,)}, 3) == [5, 3]
    assert best({0: (1.0,), 1: (0.0,)}, 3) == []
    assert best({0: (1.0,), 1: (0.0,)}, 3, least=1) == [1]
    assert best({}, 3, least=1) == []
    assert best({7: (1.0,), 2: (1.0,), 4: (1.0,)}, 1.5) == [2, 4]  # of equals those that began first
    assert len(best({number: (0.0,) for number in range(11)}, 1.1)) == 10


def test_several_scores_are_compared_by_pareto_rank() -> None:
    losses = {0: (2.0, 2.0), 1: (1.0, 3.0), 2: (3.0, 1.0), 3: (3.0, 3.0)}
    assert best(losses, 4 / 3) == [0, 1, 2]
    assert best({**losses, 4: (0.0, 0.0), 5: (9.0, 9.0)}, 6) == [4]


def test_those_that_failed_or_are_infeasible_or_were_judged_otherwise_are_no_rivals() -> None:
    trials = [
        trial_at(0, TrialState.FAIL, 0.1), trial_at(1, TrialState.PRUNED, 0.2, constraints={"size": 1.0}),
        trial_at(2, TrialState.RUNNING, 0.5), trial_at(3, TrialState.WAITING, 0.6), trial_at(4, TrialState.COMPLETE, 1),
    ]  # fmt: skip
    assert goes_on(trials, 2, 1, ONE)
    assert not goes_on(trials, 3, 1, ONE)
    assert not goes_on(trials, 2, 1, Promotion(3, RUNGS, ["other"], ["minimize"]))


class Naive:
    """Algorithm 2 of the paper with every score in a list, for trials that come to rungs in some order."""

    def __init__(self, eta: float) -> None:
        self.eta = eta
        self.rungs: list[dict[int, float]] = [{} for _ in RUNGS[:-1]]

    def top(self, rung: int) -> list[int]:
        there = self.rungs[rung]
        return sorted(there, key=lambda n: (there[n], n))[: math.floor(len(there) / self.eta)]


@settings(deadline=None)
@given(eta=st.sampled_from([2, 2.5, 3, 4]), data=st.data())
def test_it_decides_as_the_papers_algorithm(eta: float, data: st.DataObject) -> None:
    """Any trial that runs comes to its next rung, or any slot asks for a promotion, at any time."""
    promotion, naive = Promotion(eta, RUNGS, ["loss"], ["minimize"]), Naive(eta)
    table = RungTable(promotion)
    trials: list[FrozenTrial] = []
    scores: dict[int, list[float]] = {}
    running: set[int] = set()
    for _ in range(data.draw(st.integers(1, 40))):
        if len(running) and data.draw(st.booleans()):
            number = data.draw(st.sampled_from(sorted(running)))
            rung = len(scores[number])
            if rung == len(RUNGS) - 1:
                trials[number] = trial_at(number, TrialState.COMPLETE, *scores[number])
                running.remove(number)
                continue
            loss = float(data.draw(st.integers(0, 9)))
            scores[number].append(loss)
            naive.rungs[rung][number] = loss
            trials[number] = trial_at(number, TrialState.RUNNING, *scores[number])
            goes = goes_on(trials, number, RUNGS[rung], promotion)
            assert goes == (number in naive.top(rung))
            if not goes:
                running.remove(number)
                trials[number] = trial_at(number, TrialState.WAITING, *scores[number])
            continue
        table.update(trials)
        paused = [trial for trial in trials if table.is_paused(trial)]
        expected = [n for rung in (1, 0) for n in naive.top(rung) if n not in running and len(scores[n]) == rung + 1]
        expected = [number for number in expected if trials[number].state == TrialState.WAITING]
        assert [trial.number for trial in table.promotable(paused)] == expected
        if expected:
            number = expected[0]
        else:
            number = len(trials)
            trials.append(trial_at(number, TrialState.RUNNING))
            scores[number] = []
        running.add(number)
        trials[number] = trial_at(number, TrialState.RUNNING, *scores[number], attempt=1)


def test_at_the_end_the_best_of_each_rung_goes_on_however_few_are_there() -> None:
    table = RungTable(ONE)
    trials = [trial_at(0, TrialState.WAITING, 0.5), trial_at(1, TrialState.WAITING, 0.4, 0.3)]
    table.update(trials)
    assert table.promotable(trials) == []
    assert table.promotable(trials, least=1) == [trials[1]]
    trials[1] = trial_at(1, TrialState.FAIL, 0.4, 0.3)
    table.update(trials)
    assert table.promotable(trials[:1], least=1) == trials[:1]


def test_uncounted_trials_are_no_rivals_and_other_rungs_hold_nobody() -> None:
    table = RungTable(ONE, hidden=[0])
    trials = [trial_at(0, TrialState.PRUNED, 0.1), *(trial_at(n, TrialState.WAITING, n / 10) for n in (1, 2, 3))]
    table.update(trials)
    assert [trial.number for trial in table.promotable(trials[1:])] == [1]
    assert table.is_paused(trials[1])
    assert not RungTable(Promotion(3, [2, 9], ["loss"], ["minimize"])).is_paused(trials[1])


def seen(directions: list[Any], objective: list[str], promotion: Promotion = ONE) -> list[FrozenTrial]:
    study = optuna.create_study(directions=directions)
    view = RungView(promotion, objective, study.directions)
    trials = [
        trial_at(0, TrialState.WAITING, 0.5), trial_at(1, TrialState.RUNNING, 0.7, 0.9, attempt=1),
        trial_at(2, TrialState.COMPLETE, 0.1, 0.1), trial_at(3, TrialState.RUNNING),
        trial_at(4, TrialState.PRUNED, 0.4), trial_at(5, TrialState.FAIL, 0.1),
    ]  # fmt: skip
    first = view.update(trials)
    assert view.update(trials) == first  # what has ended is handed out again
    return first


def test_samplers_see_the_last_score_of_those_that_are_under_way_and_never_that_they_run() -> None:
    shown = seen(["minimize"], [])
    assert [(trial.number, trial.state.name, trial.intermediate_values) for trial in shown] == [
        (1, "PRUNED", {3: 0.9}), (4, "PRUNED", {1: 0.4}), (0, "PRUNED", {1: 0.5})
    ]  # fmt: skip
    assert seen(["maximize"], [])[0].intermediate_values == {3: -0.9}  # the score runs the other way
    assert seen(["maximize"], ["loss"])[0].intermediate_values == {3: 0.9}  # it is the objective


def test_of_several_objectives_they_have_values_if_all_are_among_the_scores() -> None:
    assert {(trial.state.name, tuple(trial.intermediate_values)) for trial in seen(["minimize"] * 2, ["a", "b"])} == {
        ("PRUNED", ())
    }
    both = Promotion(3, RUNGS, ["loss"], ["minimize"])
    trial = trial_at(0, TrialState.WAITING, 0.5)
    trial.user_attrs = {**trial.user_attrs, meta.RUNGS: {"1": {"loss": 0.5, "size": 2.0}}}
    study = optuna.create_study(directions=["minimize", "maximize"])
    [shown] = RungView(both, ["loss", "size"], study.directions).update([trial])
    assert (shown.state, shown.values) == (TrialState.COMPLETE, [0.5, 2.0])


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "minimize"]])
@pytest.mark.parametrize("sampler", [TPESampler, NSGAIISampler])
def test_samplers_learn_from_paused_trials(sampler: type, directions: list[Any]) -> None:
    """All good ones are below 0.1, and only rungs know."""
    study, space = optuna.create_study(directions=directions), Space.parse({"x": "interval(0.0, 1.0)"}, [])
    for number in range(30):
        x = number / 30
        attrs = {meta.RUNGS: {"1": {"a": x, "b": x}}, meta.ATTEMPT: 0, meta.PAUSED: {"rung": 1, "attempt": 0}}
        params, distributions = {"x": x}, dict(space.parameters)
        study.add_trial(
            create_trial(state=TrialState.WAITING, user_attrs=attrs, params=params, distributions=distributions)
        )
    promotion = Promotion(3, RUNGS, ["a"], ["minimize"])
    names = ["a", "b"][: len(directions)]
    node = {"_target_": f"optuna.samplers.{sampler.__name__}", "seed": 0}
    draws = []
    for seed in range(8):
        proposer = Proposer(study, space, Samplers(node, seed, space), promotion=promotion, objective=names)
        proposal = proposer.propose()
        assert [t.state.name for t in proposal.get_all_trials(0) if t.state == TrialState.RUNNING] == ["RUNNING"]
        draws.append(proposal.params["x"])
    if sampler is TPESampler:
        assert sorted(draws)[4] < 0.2


@pytest.mark.security
@pytest.mark.parametrize(
    "rungs", [7, [1], {"1": 5}, {"1": {"loss": "0.5"}}, {"1": {"loss": None}}, {"1": {"loss": 10**400}}]
)
def test_what_a_stranger_wrote_at_a_rung_is_no_score(rungs: object) -> None:
    assert losses_at(create_trial(state=TrialState.RUNNING, user_attrs={meta.RUNGS: rungs}), 1, ONE) is None
