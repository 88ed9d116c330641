"""A trial on paper is the one that Optuna would have made, and touches the study only when it is committed."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from steady.exceptions import StudyError
from steady.propose.sampling import Samplers
from steady.propose.snapshot_storage import SnapshotStorage
from steady.propose.space import Space

MIXED = {"x": "interval(-1.0, 1.0)", "y": "choice(a, b, c)", "lr": "tag(log, interval(1e-4, 1.0))", "n": "range(0, 7)"}
FINITE = {"y": "choice(a, b, c)", "n": "range(0, 7)"}
CONDITIONS = {"x": "y=b", "n": "y=[b,c]"}
TPE = "optuna.samplers.TPESampler"
NODES: dict[str, dict[str, Any]] = {
    "tpe": {"_target_": TPE, "n_startup_trials": 3},
    "tpe multivariate": {"_target_": TPE, "n_startup_trials": 3, "multivariate": True},
    "tpe liar": {"_target_": TPE, "n_startup_trials": 3, "multivariate": True, "constant_liar": True},
    "tpe univariate": {"_target_": TPE, "n_startup_trials": 3, "multivariate": False, "constant_liar": False},
    "tpe group": {"_target_": TPE, "n_startup_trials": 3},
    "random": {"_target_": "optuna.samplers.RandomSampler"},
    "grid": {"_target_": "optuna.samplers.GridSampler"},
    "nsgaii": {"_target_": "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaii_sampler", "population_size": 4},
    "nsgaiii": {"_target_": "hydra_plugins.hydra_optuna_sweeper._impl.create_nsgaiii_sampler", "population_size": 4},
    "qmc": {"_target_": "optuna.samplers.QMCSampler"},
    "qmc scrambled": {"_target_": "optuna.samplers.QMCSampler", "scramble": True},
    "cmaes": {"_target_": "optuna.samplers.CmaEsSampler"},
    "brute force": {"_target_": "optuna.samplers.BruteForceSampler"},
}
NEEDS = {"qmc": "scipy", "qmc scrambled": "scipy", "cmaes": "cmaes"}


def settle(study: optuna.Study, number: int, params: dict[str, Any], constraint: bool) -> None:
    """One is pruned with a violated constraint, one fails, the last few still run."""
    value = float(params.get("x", 0.3) ** 2 + "abc".index(params["y"]) + params.get("n", 1))
    trial_id = study.trials[number]._trial_id
    if number == 5 and constraint:
        study._storage.set_trial_system_attr(trial_id, "constraints:memory", 1.0)
    states = {5: TrialState.PRUNED, 6: TrialState.FAIL}
    if state := states.get(number):
        study.tell(number, state=state)
    elif number < 9:
        study.tell(number, value if len(study.directions) == 1 else [value, -value])


def attributes(study: optuna.Study) -> list[Any]:
    return [study._storage.get_study_system_attrs(study._study_id)] + [
        (trial.number, trial.state, trial.params, trial.distributions, trial.system_attrs) for trial in study.trials
    ]


@pytest.mark.parametrize("objectives", [1, 2])
@pytest.mark.parametrize("name", NODES)
def test_a_draft_is_what_ask_would_have_given(name: str, objectives: int) -> None:
    if (package := NEEDS.get(name)) and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    if name == "cmaes" and objectives == 2:
        pytest.skip("CMA-ES is for one objective")
    finite = name in ("grid", "brute force")
    space = Space.parse(FINITE if finite else MIXED, [], CONDITIONS if name == "tpe group" else None)
    samplers = Samplers(NODES[name], 5, space)
    asked, drafted = (optuna.create_study(directions=["minimize"] * objectives) for _ in "12")
    for number in range(14):
        asked.sampler = samplers(number)
        params = space.suggest(asked.ask())
        settle(asked, number, params, name != "cmaes")  # which knows of none and would say so
        draft = SnapshotStorage(drafted, drafted.get_trials(deepcopy=False))
        assert space.suggest(draft.trial(samplers(number))) == params
        frozen = draft.commit()
        assert (frozen.number, frozen.state, frozen.params) == (number, TrialState.RUNNING, params)
        settle(drafted, number, params, name != "cmaes")
    assert attributes(asked) == attributes(drafted)


@pytest.fixture(params=["memory", "sqlite", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BaseStorage:
    made: dict[str, Callable[[], BaseStorage]] = {
        "memory": optuna.storages.InMemoryStorage,
        "sqlite": lambda: optuna.storages.RDBStorage(f"sqlite:///{tmp_path}/study.db"),
        "journal": lambda: optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(tmp_path / "journal"))
        ),
    }
    return made[request.param]()


def drafted(study: optuna.Study, noted: dict[str, Any] | None = None) -> SnapshotStorage:
    draft = SnapshotStorage(study, study.get_trials(deepcopy=False), noted)
    trial = draft.trial(optuna.samplers.RandomSampler(seed=1))
    trial.suggest_float("x", 0, 1)
    trial.suggest_categorical("y", ["a", None, True, 0.5])
    trial.set_user_attr("mine", [1])
    draft.set_trial_system_attr(draft.id, "sampler", {"a": 1})
    draft.set_trial_intermediate_value(draft.id, 3, 0.25)
    draft.set_study_system_attr(0, "sequence", 7)
    draft.set_study_user_attr(0, "told", "yes")
    return draft


def test_all_that_is_on_paper_enters_the_study_in_one_write_and_nothing_before(storage: BaseStorage) -> None:
    study = optuna.create_study(storage=storage)
    draft = drafted(study)
    assert draft.get_study_user_attrs(0) == {"told": "yes"}
    assert draft.get_study_system_attrs(0)["sequence"] == 7
    assert (study.trials, study.user_attrs) == ([], {})
    assert "sequence" not in study._storage.get_study_system_attrs(study._study_id)
    made: list[Any] = []
    create = study._storage.create_new_trial
    study._storage.create_new_trial = lambda *words: made.append(words) or create(*words)
    frozen = draft.commit()
    assert len(made) == 1
    for trial in (frozen, optuna.load_study(study_name=study.study_name, storage=storage).trials[0]):
        assert trial.state == TrialState.RUNNING
        assert trial.params == draft.new.params
        assert trial.distributions == draft.new.distributions
        assert (trial.user_attrs, trial.intermediate_values) == ({"mine": [1]}, {3: 0.25})
        assert trial.system_attrs["sampler"] == {"a": 1}
        assert trial.datetime_start is not None
    assert study.user_attrs["told"] == "yes"
    assert study._storage.get_study_system_attrs(study._study_id)["sequence"] == 7
    study.tell(0, 1.0)
    assert study.best_value == 1.0


def test_equal_choices_are_committed_as_a_storage_keeps_them() -> None:
    study = optuna.create_study()
    for number in range(8):
        draft = SnapshotStorage(study, study.trials)
        draft.trial(optuna.samplers.RandomSampler(seed=number)).suggest_categorical("x", [1, 1.0, True])
        value = draft.commit().params["x"]
        assert (value, type(value)) == (1, int)


def test_a_draft_goes_on_from_what_an_earlier_one_noted() -> None:
    study = optuna.create_study()
    draft = SnapshotStorage(study, [], {"sequence": 3})
    assert draft.get_study_system_attrs(0)["sequence"] == 3
    draft.commit()
    assert study._storage.get_study_system_attrs(study._study_id)["sequence"] == 3


def test_a_trial_that_another_program_added_in_between_is_told() -> None:
    study = optuna.create_study(study_name="cats")
    draft = drafted(study)
    study.enqueue_trial({"x": 0.5})
    with pytest.raises(StudyError, match=r"cats just when trial 0 was made, which became trial 1.*same command again"):
        draft.commit()


def test_only_the_drawn_trial_can_be_changed_on_paper() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    old = study.trials[0]._trial_id
    draft = SnapshotStorage(study, study.trials)
    for refused in (
        lambda: draft.set_trial_user_attr(old, "a", 1),
        lambda: draft.set_trial_system_attr(old, "a", 1),
        lambda: draft.set_trial_intermediate_value(old, 0, 1.0),
        lambda: draft.set_trial_param(old, "x", 0.0, optuna.distributions.FloatDistribution(0, 1)),
        lambda: draft.create_new_trial(0),
        lambda: draft.set_trial_state_values(draft.id, TrialState.FAIL),
        lambda: draft.delete_study(0),
        lambda: draft.create_new_study([]),
        lambda: draft.get_all_studies(),
    ):
        with pytest.raises(RuntimeError, match="on paper"):
            refused()
    assert study.trials[0].user_attrs == {}


def test_a_snapshot_of_a_list_that_grows_stays_as_it_was() -> None:
    study = optuna.create_study()
    study.enqueue_trial({})
    trials = study.get_trials(deepcopy=False)
    draft = SnapshotStorage(study, trials)
    trials.append(draft.commit())
    assert [trial._trial_id for trial in draft.get_all_trials(0)] == [trials[0]._trial_id, draft.id]


def test_the_snapshot_is_read_by_name_number_id_and_state() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trial(optuna.trial.create_trial(values=[1.0, 2.0]))
    draft = SnapshotStorage(study, study.get_trials(deepcopy=False))
    assert draft.get_study_name_from_id(draft.get_study_id_from_name("")) == study.study_name
    assert draft.get_study_directions(0) == study.directions
    assert [draft.get_trial_id_from_study_id_trial_number(0, n) for n in (0, 1)] == [
        study.trials[0]._trial_id,
        draft.id,
    ]
    assert draft.get_trial(study.trials[0]._trial_id).values == [1.0, 2.0]
    assert [trial.number for trial in draft.get_all_trials(0, states=(TrialState.RUNNING,))] == [1]
    draft.get_all_trials(0)[0].user_attrs["a"] = 1
    assert draft.trials[0].user_attrs == {}
    for missing in (
        lambda: draft.get_trial(99),
        lambda: draft.get_trial_id_from_study_id_trial_number(0, 2),
        lambda: draft.get_trial_id_from_study_id_trial_number(0, -1),
    ):
        with pytest.raises(KeyError):
            missing()
