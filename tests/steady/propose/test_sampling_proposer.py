"""No configuration is tried twice, none of a finite space is left out, and what was begun is completed."""

from typing import Any, Literal

import optuna
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, Trial, TrialState

from steady.exceptions import ConfigError
from steady.propose.sampling import Proposer, Samplers, SpaceExhausted, UnfitTrial
from steady.propose.space import Space

MIXED = {"x": "interval(-1.0, 1.0)", "y": "choice(a, b, c)"}
SMALL = {"a": "choice(1, 2)", "b": "choice(p, q, r)"}
WHEN = {"b": "a=2"}
Duplicates = Literal["resample", "reuse", "allow"]


def proposer_for(
    study: optuna.Study, params: dict[str, str], duplicates: Duplicates = "resample", sampler: str = "TPESampler",
    conditions: dict[str, str] | None = None, config: DictConfig | None = None, extender: str | None = None,
    **node: Any,
) -> Proposer:  # fmt: skip
    space = Space.parse(params, ["fixed=1"], conditions, extender)
    made = Samplers({"_target_": f"optuna.samplers.{sampler}", **node}, 0, space)
    return Proposer(study, space, made, duplicates, config)


def walk(study: optuna.Study, proposer: Proposer, most: int = 1000) -> list[FrozenTrial]:
    """Propose and finish trials until there is none left."""
    for number in range(most):
        try:
            trial = proposer.propose().commit()
        except SpaceExhausted:
            break
        study.tell(trial.number, float(number % 3))
    return study.trials


def keys(space: Space, trials: list[FrozenTrial]) -> list[str]:
    return [space.key(trial.params) for trial in trials]


def start(study: optuna.Study, number: int) -> FrozenTrial:
    """As the scheduler takes a waiting trial."""
    study._storage.set_trial_state_values(study.trials[number]._trial_id, TrialState.RUNNING)
    return study.trials[number]


@st.composite
def small_spaces(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    lines = ["choice(1, 2, 3)", "choice(u, v)", "range(0, 4)", "range(0, 1, 0.1)", "range(-1, 1, 0.7)",
             "int(tag(log, interval(1, 5)))", "choice(1, 1.0, true)", "choice(true, false)"]  # fmt: skip
    params = {f"p{index}": draw(st.sampled_from(lines)) for index in range(draw(st.integers(1, 2)))}
    params["last"] = draw(st.sampled_from(["choice(m, n)", "range(2, 5)"]))
    searched = Space.parse(params, [])
    values = [params["p0"] for params in searched.configurations() or []]
    conditions = {"last": f"p0={'false' if values[0] is False else values[0]}".replace("True", "true")}
    return params, conditions if draw(st.booleans()) else {}


@settings(max_examples=12)
@example(
    ({"p0": "choice(1, 1.0, true)", "p1": "choice(1, 2, 3)", "last": "choice(m, n)"}, {"last": "p0=1"}),
    "TPESampler",
    False,
)
@given(small_spaces(), st.sampled_from(["TPESampler", "RandomSampler", "NSGAIISampler", "GridSampler"]), st.booleans())
def test_a_finite_space_is_tried_whole_and_once(
    written: tuple[dict[str, str], dict[str, str]], sampler: str, together: bool
) -> None:
    params, conditions = written
    study = optuna.create_study()
    proposer = proposer_for(study, params, sampler=sampler, conditions=conditions)
    size = proposer.space.size()
    assert size is not None
    for _ in range(size):
        assert not proposer.is_exhausted(study.trials)
        trial = proposer.propose().commit()
        if not together:
            study.tell(trial.number, 0.0)
    assert len(set(keys(proposer.space, study.trials))) == size
    assert proposer.is_exhausted(study.trials)
    with pytest.raises(SpaceExhausted, match=f"All {size} configurations"):
        proposer.propose()
    assert proposer.preview(2) == []


@settings(max_examples=15)
@given(st.data())
def test_what_was_tried_in_any_state_is_not_tried_again(data: st.DataObject) -> None:
    study = optuna.create_study()
    proposer = proposer_for(study, SMALL)
    for params in data.draw(st.lists(st.sampled_from(proposer.space.configurations() or []), unique_by=str)):
        state = data.draw(st.sampled_from(list(TrialState)))
        if state == TrialState.WAITING:
            study.enqueue_trial(params)
        else:
            value = 1.0 if state == TrialState.COMPLETE else None
            distributions = {name: proposer.space.parameters[name] for name in params}
            study.add_trial(
                optuna.trial.create_trial(state=state, params=params, distributions=distributions, value=value)
            )
    before = len(study.trials)
    added = walk(study, proposer)[before:]
    for trial in study.trials[:before]:
        if trial.state == TrialState.WAITING:
            proposer.complete(start(study, trial.number))
    assert len(added) == 6 - before
    assert len(set(keys(proposer.space, study.trials))) == 6


def test_a_sweep_of_nothing_is_one_trial() -> None:
    study = optuna.create_study()
    assert len(walk(study, proposer_for(study, {}))) == 1
    study = optuna.create_study()
    assert len(walk(study, proposer_for(study, {}, "allow"), most=3)) == 3


def test_a_space_that_grew_is_not_exhausted_by_what_it_held_before() -> None:
    study = optuna.create_study()
    walk(study, proposer_for(study, {"n": "range(0, 5)"}))
    assert len(walk(study, proposer_for(study, {"n": "range(3, 8)"}))) == 8


def test_duplicates_can_be_reused_or_allowed() -> None:
    study = optuna.create_study()
    one = {"a": "choice(1)"}
    first = proposer_for(study, one, "reuse").propose()
    assert first.duplicate_of is None
    number = first.commit().number
    with pytest.raises(SpaceExhausted):  # it has no values yet
        proposer_for(study, one, "reuse").propose()
    study.tell(number, 4.0)
    assert proposer_for(study, one, "reuse").propose().duplicate_of == 0
    assert proposer_for(study, one, "allow").propose().duplicate_of is None


def test_what_runs_or_failed_is_not_reused() -> None:
    study = optuna.create_study()
    proposer = proposer_for(study, SMALL, "reuse", "RandomSampler")
    running = proposer.propose().commit()
    failed = proposer.propose().commit()
    study.tell(failed.number, state=TrialState.FAIL)
    done = proposer.propose().commit()
    study.tell(done.number, 1.0)
    for _ in range(12):
        proposal = proposer.propose()
        assert proposal.params not in (running.params, failed.params)
        assert (proposal.duplicate_of == done.number) == (proposal.params == done.params)
        if proposal.duplicate_of is None:
            study.tell(proposal.commit().number, state=TrialState.PRUNED)
            with_twin = [trial.params for trial in study.trials if trial.state != TrialState.COMPLETE]
            assert len({str(params) for params in with_twin}) == len(with_twin)
        if len(study.trials) == 6:
            break
        study.add_trial(done)  # the next has another number, so another draw
        study.tell(study.trials[-1].number, 1.0, skip_if_finished=True)


class Stubborn(optuna.samplers.RandomSampler):
    """Draws the same again and again."""

    def sample_independent(self, *words: Any) -> Any:
        return 5


def test_a_sampler_that_insists_in_a_large_space_has_its_duplicate_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.samplers, "Stubborn", Stubborn, raising=False)
    monkeypatch.setattr(Stubborn, "__module__", "optuna.samplers")
    study = optuna.create_study()
    proposer = proposer_for(study, {"n": "range(0, 100000)"}, sampler="Stubborn")
    study.tell(proposer.propose().commit().number, 1.0)
    proposal = proposer.propose()
    assert (proposal.params, proposal.duplicate_of) == ({"n": 5}, 0)
    small = proposer_for(study, {"n": "range(0, 100)"}, sampler="Stubborn")
    drawn = [trial.params["n"] for trial in walk(study, small)[1:]]
    assert sorted([5, *drawn]) == list(range(100))
    assert drawn != sorted(drawn)


@pytest.mark.parametrize("enqueued", [[], [{"a": 1, "b": "q"}], [{"a": 2}, {}]])
@pytest.mark.parametrize("conditions", [None, WHEN])
def test_a_grid_is_walked_once(enqueued: list[dict[str, Any]], conditions: dict[str, str] | None) -> None:
    study = optuna.create_study()
    proposer = proposer_for(study, SMALL, sampler="GridSampler", conditions=conditions, _partial_=True)
    for params in enqueued:
        study.enqueue_trial(params)
    for number in range(len(enqueued)):
        proposer.complete(start(study, number))
        study.tell(number, 0.0)
    trials = walk(study, proposer)
    assert len(set(keys(proposer.space, trials))) == proposer.space.size()
    twice = len(trials) - (proposer.space.size() or 0)
    assert twice in (0, 1) if len(enqueued) == 2 else twice == 0  # two that were completed may be the same


def test_a_trial_that_lacks_parameters_is_completed_once() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.25})
    proposer = proposer_for(study, MIXED)
    proposer.complete(start(study, 0))
    completed = study.trials[0]
    assert completed.params["x"] == 0.25
    assert completed.params["y"] in "abc"
    assert completed.user_attrs["fixed"] == "1"
    proposer.complete(study.trials[0])
    assert study.trials[0] == completed


def test_a_completion_that_was_killed_is_finished_with_what_it_had_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study()
    study.enqueue_trial({})
    proposer = proposer_for(study, MIXED)
    start(study, 0)
    suggest = Trial._suggest

    def killed(trial: Trial, name: str, distribution: Any) -> Any:
        if name == "y":
            raise KeyboardInterrupt
        return suggest(trial, name, distribution)

    with monkeypatch.context() as patched:
        patched.setattr(Trial, "_suggest", killed)
        with pytest.raises(KeyboardInterrupt):
            proposer.complete(study.trials[0])
    half = study.trials[0].params
    assert set(half) == {"x"}
    proposer.complete(study.trials[0])
    assert set(study.trials[0].params) == {"x", "y"}
    assert study.trials[0].params["x"] == half["x"]


def test_a_trial_that_only_goes_on_does_not_touch_the_samplers_state() -> None:
    study = optuna.create_study()
    proposer = proposer_for(study, MIXED, sampler="NSGAIISampler", population_size=2)
    for _ in range(6):
        study.tell(proposer.propose().commit().number, 1.0)
    interrupted = proposer.propose().commit()
    study._storage.set_trial_state_values(interrupted._trial_id, TrialState.WAITING)
    for _ in range(4):
        study.tell(proposer.propose().commit().number, 1.0)
    before = study.trials[interrupted.number].system_attrs
    proposer.complete(start(study, interrupted.number))
    assert study.trials[interrupted.number].system_attrs == before


def test_nothing_is_written_before_the_commit() -> None:
    study = optuna.create_study()
    proposer = proposer_for(study, MIXED)
    proposer.propose()
    assert len(proposer.preview(3)) == 3
    assert study.trials == []
    trial = proposer.propose().commit()
    assert (trial.state, trial.user_attrs) == (TrialState.RUNNING, {"fixed": "1"})


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler", "QMCSampler"])
def test_the_preview_is_what_then_starts(sampler: str) -> None:
    if sampler == "QMCSampler":
        pytest.importorskip("scipy")
    study = optuna.create_study()
    proposer = proposer_for(study, MIXED, sampler=sampler)
    previewed = proposer.preview(6)
    assert [proposer.propose().commit().params for _ in range(6)] == previewed
    assert len({str(params) for params in previewed}) == 6


def test_a_sequence_goes_on_past_what_was_tried() -> None:
    pytest.importorskip("scipy")
    study = optuna.create_study()
    proposer = proposer_for(study, {"n": "range(0, 64)"}, sampler="QMCSampler")
    for _ in range(3):
        study.tell(proposer.propose().commit().number, 1.0)
    replayed = {key: -1 for key in study._storage.get_study_system_attrs(study._study_id) if key.startswith("qmc:")}
    for key, value in replayed.items():  # as if the sequence began again
        study._storage.set_study_system_attr(study._study_id, key, value)
    trial = proposer.propose().commit()
    assert "fixed_params" not in trial.system_attrs  # drawn, not looked up
    assert len(set(keys(proposer.space, study.trials))) == 4


def extend(config: DictConfig, trial: Trial) -> None:
    """Reads what was drawn and what is fixed."""
    trial.suggest_float("z", 0, float(trial.user_attrs["fixed"]) * config.bound + trial.params["a"])


def test_an_extender_reads_what_is_fixed_and_its_space_is_never_exhausted() -> None:
    study = optuna.create_study()
    config = OmegaConf.create({"bound": 2.0})
    proposer = proposer_for(study, {"a": "choice(1)"}, extender=f"{__name__}.extend", config=config)
    trials = walk(study, proposer, most=5)
    assert len({trial.params["z"] for trial in trials}) == 5
    assert all(0 <= trial.params["z"] <= 3 for trial in trials)


@pytest.mark.filterwarnings("ignore:Fixed parameter z:UserWarning")
@pytest.mark.parametrize("given", [{"z": 9.0}, {"z": "much"}, {"a": 2}])
def test_what_only_an_extender_knows_is_checked_when_it_is_drawn(given: dict[str, Any]) -> None:
    study = optuna.create_study()
    config = OmegaConf.create({"bound": 2.0})
    proposer = proposer_for(study, {"a": "choice(1)"}, extender=f"{__name__}.extend", config=config)
    study.enqueue_trial(given)
    with pytest.raises(UnfitTrial):
        proposer.complete(start(study, 0))


def test_what_an_extender_does_not_draw_is_told(caplog: pytest.LogCaptureFixture) -> None:
    study = optuna.create_study()
    config = OmegaConf.create({"bound": 2.0})
    proposer = proposer_for(study, {"a": "choice(1)"}, extender=f"{__name__}.extend", config=config)
    study.enqueue_trial({"z": 0.5, "zz": 1})
    proposer.complete(start(study, 0))
    assert study.trials[0].params == {"a": 1, "z": 0.5}
    assert "Trial 0 was enqueued with zz, which it does not have" in caplog.text


def test_a_package_that_a_sampler_lacks_when_it_draws_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'cmaes'", name="cmaes")

    monkeypatch.setattr(optuna.samplers.CmaEsSampler, "sample_relative", lacking)
    study = optuna.create_study()
    proposer = proposer_for(study, {"x": "interval(0.0, 1.0)", "z": "interval(0.0, 1.0)"}, sampler="CmaEsSampler")
    with pytest.raises(ConfigError, match=r"CmaEsSampler needs a package that is not installed.*pip install cmaes"):
        walk(study, proposer, most=5)


def test_samplers_are_shown_old_trials_as_the_space_has_them_now_and_none_that_does_not_fit() -> None:
    study = optuna.create_study()
    before = Space.parse({"x": "interval(0.0, 1.0)", "y": "choice(a, b)"}, []).parameters
    for x, y in ((0.1, "a"), (0.9, "a"), (0.2, "b")):
        study.add_trial(optuna.trial.create_trial(value=x, params={"x": x, "y": y}, distributions=before))
    for x in (0.4, 0.8):
        running = optuna.trial.create_trial(state=TrialState.RUNNING, params={"x": x, "y": "a"}, distributions=before)
        study.add_trial(running)
    study.enqueue_trial({"x": 0.3})
    proposer = proposer_for(study, {"x": "interval(0.0, 0.5)", "y": "choice(c, b, a)"})
    shown = proposer.propose().get_all_trials(0)
    assert [trial.number for trial in shown] == [0, 2, 3, 5, 6]
    assert [trial.params for trial in shown[:3]] == [{"x": x, "y": y} for x, y in ((0.1, "a"), (0.2, "b"), (0.4, "a"))]
    assert all(trial.distributions == proposer.space.parameters for trial in shown[:3])
    assert study.trials[0].distributions == before


def test_a_trial_that_was_begun_with_what_the_space_has_no_more_is_not_gone_on_with() -> None:
    study = optuna.create_study()
    begun = proposer_for(study, {"y": "choice(a)"}).propose().commit()
    study._storage.set_trial_state_values(begun._trial_id, TrialState.WAITING)
    with pytest.raises(UnfitTrial, match="y must be choice\\(b, c\\) by now; it has 'a'"):
        proposer_for(study, {"y": "choice(b, c)"}).complete(start(study, 0))


def test_of_a_space_in_which_a_parameter_was_fixed_trials_go_on_and_are_shown_that_have_its_value() -> None:
    study = optuna.create_study()
    before = Space.parse({"fixed": "choice(1, 2)", "z": "choice(p, q)"}, []).parameters
    for state in (TrialState.WAITING, TrialState.COMPLETE):
        for fixed in (1, 2):
            params = {"fixed": fixed, "z": "p"}
            value = 0.0 if state == TrialState.COMPLETE else None
            study.add_trial(optuna.trial.create_trial(state=state, value=value, params=params, distributions=before))
    proposer = proposer_for(study, {"z": "choice(p, q)"})  # it has fixed=1
    proposer.complete(start(study, 0))
    assert study.trials[0].params == {"fixed": 1, "z": "p"}
    with pytest.raises(UnfitTrial, match="fixed=1 is fixed by now; it has 2"):
        proposer.complete(start(study, 1))
    assert [trial.number for trial in proposer.propose().get_all_trials(0)] == [0, 2, 4]


def test_a_trial_that_fits_in_a_changed_space_gets_what_it_lacks_whatever_the_sampler_can_read() -> None:
    study = optuna.create_study()
    before = Space.parse({"x": "interval(0.0, 1.0)", "y": "choice(a, b)"}, []).parameters
    for number in range(12):  # more than TPE's start-up
        params = {"x": number / 12, "y": "ab"[number % 2]}
        study.add_trial(optuna.trial.create_trial(value=0.0, params=params, distributions=before))
    begun: dict[str, Any] = {"params": {"y": "a"}, "distributions": {"y": before["y"]}}
    study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, **begun))
    study.enqueue_trial({"x": 0.5})
    proposer = proposer_for(study, {"x": "interval(0.0, 1.0)", "y": "choice(a, c)", "z": "choice(p, q)"})
    for number in (12, 13):
        proposer.complete(start(study, number))
        assert proposer.space.whole(study.trials[number].params) == study.trials[number].params
    assert study.trials[12].params["y"] == "a"
    assert study.trials[13].params["x"] == 0.5


def test_a_space_in_which_a_parameter_was_fixed_is_not_used_up_by_what_it_held_before() -> None:
    study = optuna.create_study()
    before = Space.parse({"fixed": "choice(1, 2)", "z": "choice(p, q)"}, []).parameters
    for fixed, z in ((2, "p"), (2, "q"), (1, "p")):
        params = {"fixed": fixed, "z": z}
        study.add_trial(optuna.trial.create_trial(value=0.0, params=params, distributions=before))
    trials = walk(study, proposer_for(study, {"z": "choice(p, q)"}))  # with fixed=1
    assert [trial.params for trial in trials[3:]] == [{"z": "q"}]
