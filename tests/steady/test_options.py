"""The keys of the sweeper: defaults, and values that cannot be meant."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from hydra_plugins.hydra_optuna_sweeper.config import TPESamplerConfig
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from optuna.samplers import TPESampler
from tests.steady.conftest import APP

from hydra_plugins.steady_sweeper.config import DefaultSamplerConf, SteadySweeperConf
from steady import options, resources
from steady.exceptions import ConfigError
from steady.options import Promotion, TrialTimeout, check_time
from steady.propose.sampling import Samplers
from steady.propose.space import Space


def read(**changes: Any) -> options.SweepOptions:
    keys = {f.name: getattr(SteadySweeperConf(), f.name) for f in dataclasses.fields(SteadySweeperConf)}
    return options.read({**keys, "sampler": {"seed": 0}, **changes}, "app", "multirun/now")


def test_a_study_without_a_name_lives_in_the_sweeps_own_folder() -> None:
    unnamed = read()
    assert (unnamed.study, unnamed.record) == ("app", Path("multirun/now"))
    assert unnamed.storage == "sqlite:///multirun/now/study.db"
    named = read(study_name=2026)
    assert (named.study, named.record) == ("2026", Path("sweeps/2026"))
    assert read(storage="journal:///x", record="here").storage == "journal:///x"


def test_no_sampler_is_tpe_with_optunas_own_defaults() -> None:
    assert read(sampler=None).sampler == {"_target_": "optuna.samplers.TPESampler"}


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("${study}", "study"), ("${names.study}", "names.study"), ("fixed", "hydra.sweeper.study_name"),
        (None, "hydra.sweeper.study_name"), ("a-${study}", "hydra.sweeper.study_name"),
    ],
)  # fmt: skip
def test_a_study_is_named_by_the_apps_own_key_if_it_has_one(given: str | None, key: str) -> None:
    assert options.naming(OmegaConf.create({"hydra": {"sweeper": {"study_name": given}}})) == key


def test_who_wants_every_trial_however_many_fail_gets_them() -> None:
    def limits(**changes: Any) -> tuple[int | None, float]:
        given = read(**changes)
        return given.max_same_failures, given.max_failure_rate

    assert limits() == (3, 1.0)
    assert limits(max_failure_rate=0.5) == (3, 0.5)
    assert limits(max_failure_rate=1.0) == (None, 1.0)
    assert limits(max_failure_rate=1, max_same_failures=5) == (5, 1)


STOCK = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


def test_a_configuration_that_still_names_the_stock_class_is_told_which_line_to_take_out() -> None:
    with initialize_config_dir(str(APP)):
        with pytest.raises(ConfigCompositionException) as refused:
            compose("config", overrides=[f"hydra.sweeper._target_={STOCK}"], return_hydra_config=True)
        assert f"`_target_: {STOCK}` below hydra.sweeper" in str(refused.value.__cause__)
        assert "Take out that line" in str(refused.value.__cause__)
        own = compose("config", overrides=["hydra.sweeper._target_=app.MySweeper"], return_hydra_config=True)
        words = ["hydra/sweeper=optuna", f"hydra.sweeper._target_={STOCK}"]
        stock = compose("config", overrides=words, return_hydra_config=True)
    assert own.hydra.sweeper._target_ == "app.MySweeper"
    assert stock.hydra.sweeper._target_ == STOCK


def test_what_the_stock_plugins_tpe_may_be_given_ours_may_too() -> None:
    def keys(node: type) -> set[str]:
        return {field.name for field in dataclasses.fields(node)}

    assert keys(TPESamplerConfig) <= keys(DefaultSamplerConf)
    node = dataclasses.asdict(DefaultSamplerConf())
    made, plain = Samplers(node, 0, Space.parse({}, []))(0), TPESampler(seed=0)
    for name in ("_multivariate", "_group", "_constant_liar", "_n_startup_trials", "_n_ei_candidates"):
        assert getattr(made, name) == getattr(plain, name), name


def test_every_key_of_the_schema_is_a_typed_option() -> None:
    """But for those of Hydra, and those that others are made of."""
    made_of = {"_target_", "defaults", "study_name", "direction", "n_jobs", "pruner", "prune_metric", "prune_direction"}
    schema = {field.name for field in dataclasses.fields(SteadySweeperConf)}
    assert schema - made_of <= {field.name for field in dataclasses.fields(options.SweepOptions)}
    with pytest.raises(dataclasses.FrozenInstanceError):
        read().n_trials = 3  # type: ignore[misc]


def test_directions_and_objectives_fit() -> None:
    both = read(direction=OmegaConf.create(["minimize", "maximize"]), objective=["a", "b"])
    assert both.directions == ("minimize", "maximize")
    assert read(objective="a").objective == ("a",)
    assert read().slots >= 1
    assert read(n_jobs=7).slots == 7
    assert read(gpus=["0", "1"], gpus_per_slot=0.5).slots == 4


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_trials": 0}, {"n_jobs": 0}, {"n_jobs": "many"}, {"direction": "down"}, {"direction": []},
        {"timeout": -1}, {"retries": 1.5}, {"max_same_failures": 0}, {"max_failure_rate": 2}, {"duplicates": "skip"},
        {"draw_ahead": "never"},
        {"trial_timeout": 0}, {"trial_timeout": "long"}, {"trial_timeout": True}, {"trial_timeout": float("nan")},
        {"trial_timeout": {}}, {"trial_timeout": {"progress": -1}}, {"trial_timeout": {"idle": 5}},
        {"trial_timeout": {"total": "1h"}}, {"trial_timeout": [60, 600]},
        {"confirm": {"top": 3}}, {"confirm": {"top": 0, "seeds": 1}}, {"pruner": {"_target_": "x"}}, {"lease": 0},
        {"objective": ["a", "b"]}, {"gpus": "all"},
        {"artifacts": "samples/*.png"}, {"artifacts": ["/etc/*"]}, {"artifacts": ["../*.png"]}, {"artifacts": [""]},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong)) if "objective" not in wrong else "direction"):
        read(**wrong)


PRUNER = {"pruner": {"_target_": "optuna.pruners.NopPruner"}, "prune_metric": "a"}


@pytest.mark.security
@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"prune_metric": ["a", "a"]}, "prune_metric"), ({"prune_metric": 3}, "prune_metric"),
        ({"prune_metric": [""]}, "prune_metric"), ({"prune_metric": {"a": 1}}, "prune_metric"),
        ({"objective": ["a", "a"], "direction": ["minimize", "minimize"]}, "objective"),
        ({"objective": 3}, "objective"),
        ({**PRUNER, "prune_direction": "down"}, "prune_direction"),
        ({**PRUNER, "prune_direction": ["minimize", "maximize"]}, "prune_direction"),
        ({**PRUNER, "pruner": "median"}, "pruner"), ({**PRUNER, "pruner": {"percentile": 3}}, "pruner"),
    ],
)  # fmt: skip
def test_nor_what_every_trial_would_fail_of(wrong: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=f"hydra.sweeper.{key} must be"):
        read(**wrong)


@pytest.mark.parametrize(
    ("given", "minutes", "bounds"),
    [
        (None, 2, TrialTimeout()),
        (90, 2, TrialTimeout(total=90)),
        ({"progress": 60}, None, TrialTimeout(progress=60)),
        ({"progress": 60, "total": 3600.5}, None, TrialTimeout(60, 3600.5)),
        ("auto", None, TrialTimeout(progress=1800)),
        ("auto", 2.5, TrialTimeout(1800, 3600 + 25 * 60)),
    ],
)
def test_a_trial_has_two_bounds(given: Any, minutes: float | None, bounds: TrialTimeout) -> None:
    assert read(trial_timeout=given, trial_minutes=minutes).trial_timeout == bounds


@given(st.integers(1, 8), st.integers(1, 4), st.sampled_from([0.25, 0.5, 1.0, 2.0]))
def test_slots_share_the_gpus_evenly(slots: int, gpus: int, share: float) -> None:
    ids = [str(n) for n in range(gpus)]
    seen = [resources.environment(slot, slots, ids, share)["CUDA_VISIBLE_DEVICES"] for slot in range(slots)]
    assert all(set(one.split(",")) <= set(ids) for one in seen)
    if share <= 1 and slots <= gpus / share:
        assert max(seen.count(one) for one in seen) <= 1 / share


def test_gpus_are_those_that_are_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5")
    assert resources.visible_gpus("auto") == ["2", "5"]
    assert resources.visible_gpus(1) == ["2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert resources.visible_gpus("auto") == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", "")
    assert resources.visible_gpus("auto") == []
    assert resources.visible_gpus(2) == ["0", "1"]


def test_cores_are_divided_unless_the_user_has_a_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(resources, "cores", lambda: 8)
    assert resources.environment(0, 3, [], 1.0) == {"OMP_NUM_THREADS": "2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert resources.environment(0, 3, [], 1.0) == {}


@pytest.mark.security
@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", "a/b", "a\\b", ".x", "C:x", "a\nb", "x" * 300, "", "nul"])
def test_a_study_is_called_by_a_name(name: str) -> None:
    """It names folders in `sweeps` and `outputs`."""
    with pytest.raises(ConfigError, match="The name of a study must be a name"):
        read(study_name=name)


def test_a_timeout_that_the_confirmation_would_use_up_is_refused() -> None:
    keys = {"n_jobs": 2, "trial_minutes": 10, "confirm": {"top": 1, "seeds": 3}}
    assert read(**keys, timeout=1801).reserved_seconds(600) == 1800  # the last trials', and two rounds
    with pytest.raises(ConfigError, match=r"leaves no time for a search.* 3 confirmation runs .* take 1800 seconds"):
        check_time(read(**keys, timeout=1800))
    with pytest.raises(ConfigError, match=r"in 1 slot, take 2400 seconds.*or have more slots \(hydra\.sweeper\.n_jobs"):
        check_time(read(**{**keys, "n_jobs": 1}, timeout=2400))
    with pytest.raises(ConfigError, match=r"hydra\.sweeper\.confirm \(null: none\)\.$"):  # more would not help
        check_time(read(**{**keys, "n_jobs": 3}, timeout=1200))
    check_time(read(**{**keys, "confirm": None}, timeout=10))
    check_time(read(**{**keys, "trial_minutes": None}, timeout=10))


def test_under_promotion_a_timeout_has_time_for_a_whole_trial() -> None:
    keys = {"trial_minutes": 10, "promotion": {"eta": 3, "rungs": [1, 3]}, "prune_metric": "loss"}
    assert read(**keys, timeout=601).reserved_seconds(600, 0.5) == 300
    with pytest.raises(ConfigError, match=r"a trial of 10 minutes takes 600 seconds.*or lower the minutes\.$"):
        check_time(read(**keys, timeout=600))
    check_time(read(**keys, timeout=401), share=2 / 3)
    with pytest.raises(ConfigError, match=r"the least that is left of a trial of 10 minutes takes 400 seconds"):
        check_time(read(**keys, timeout=400), share=2 / 3)
    assert read(**keys).reserved_seconds(600, all_begun=True) == 0  # none of them is kept from its end
    confirmed = read(**keys, n_jobs=1, confirm={"top": 1, "seeds": 2})
    assert confirmed.reserved_seconds(600, all_begun=True) == 1800


@pytest.mark.parametrize("given", ["cats", ["cats"], ["dogs", "dogs"], ["dogs", "cats"]])
def test_a_study_learns_from_others_and_from_each_once(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"warm_start .*names of other studies than cats, each once"):
        read(study_name="cats", warm_start=given)


@pytest.mark.parametrize(
    ("given", "meant"), [(None, None), ([], None), ("auto", "auto"), ("dogs", ("dogs",)), (["b", "a"], ("b", "a"))]
)
def test_what_to_learn_from_may_be_nothing_all_or_names(given: Any, meant: Any) -> None:
    assert read(study_name="cats", warm_start=given).warm_start == meant


@pytest.mark.parametrize(
    "said",
    [
        3, {"eta": 3}, {"eta": 1, "rungs": [1, 3]}, {"eta": 3, "rungs": [1]}, {"eta": 3, "rungs": [3, 1]},
        {"eta": 3, "rungs": [1, 1]}, {"eta": "3", "rungs": [1, 3]}, {"eta": 3, "rungs": [0.1, 1]},
        {"eta": 3, "rungs": [-1, 1]}, {"eta": 3, "rungs": 9}, {"eta": 3, "rungs": [1, 3], "more": 1},
    ],
)  # fmt: skip
def test_a_promotion_that_means_nothing_is_refused(said: Any) -> None:
    with pytest.raises(ConfigError, match=r"promotion must be null or \{eta: 3, rungs: \[1, 3, 9\]\}"):
        read(promotion=said, prune_metric="loss")


def test_a_promotion_needs_a_score_and_no_pruner() -> None:
    pair = {"eta": 2.5, "rungs": [0, 4]}
    made = read(promotion=pair, prune_metric=["a", "b"], prune_direction=["minimize", "maximize"]).promotion
    assert made == Promotion(2.5, [0, 4], ["a", "b"], ["minimize", "maximize"])
    with pytest.raises(ConfigError, match="promotion needs prune_metric"):
        read(promotion=pair)
    with pytest.raises(ConfigError, match=r"pruner=none, or hydra\.sweeper\.promotion=null"):
        read(promotion=pair, prune_metric="a", pruner={"_target_": "optuna.pruners.MedianPruner"})
