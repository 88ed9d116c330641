"""Tests of `steady.propose.tried`: what is added up as a study grows is what it would be of all trials at once."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from steady.propose.space import Space
from steady.propose.tried import Tried

SPACE = Space.parse({"x": "choice(1, 2, 3)"}, [])
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


def trial(number: int, state: TrialState, x: int) -> FrozenTrial:
    """Make a trial; one that waits is only enqueued."""
    kept: dict[str, Any] = {"params": {"x": x}, "distributions": SPACE.parameters}
    if state == TrialState.WAITING:
        kept = {"system_attrs": {"fixed_params": {"x": x}}}
    made = create_trial(state=state, value=1.0 if state == TrialState.COMPLETE else None, **kept)
    made.number = number
    return made


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(ENDED), st.integers(0, 5), st.integers(1, 5)), max_size=8),
    st.sets(st.integers(0, 7)),
)
def test_each_configuration_has_a_finished_trial_or_else_the_first(
    plan: list[tuple[int, TrialState, int, int]], hidden: set[int]
) -> None:
    tried = Tried(SPACE, SPACE, hidden)
    for now in range(11):  # each trial comes at some time, waits, and ends some time later
        trials = []
        for number, (x, end, come, last) in enumerate(plan):
            if come > now:
                break
            trials.append(trial(number, end if now >= come + last else TrialState.WAITING, x))
        tried.update(trials)
        counted = [one for one in trials if one.number not in hidden]
        for x in (1, 2, 3):
            own = [one for one in counted if tried.configuration(one) == {"x": x}]
            ended = [one for one in own if one.state.is_finished()]
            best = min(ended or own, key=lambda one: (one.state != TrialState.COMPLETE, one.number), default=None)
            found = tried.get({"x": x})
            assert (found and (found.number, found.state)) == (best and (best.number, best.state))
        assert len(tried) == len(list(tried)) == len({one.params.get("x") or _asked(one) for one in counted})


def _asked(one: FrozenTrial) -> Any:
    return one.system_attrs["fixed_params"]["x"]


def test_an_unfinished_trial_is_known_by_what_it_has_now() -> None:
    tried = Tried(SPACE, SPACE, ())
    tried.update([trial(0, TrialState.WAITING, 1)])
    tried.update([trial(0, TrialState.RUNNING, 2)])
    assert tried.get({"x": 1}) is None
    assert tried.get({"x": 2}) is not None
