"""A trial ends when its rung scores are worse than others', for one objective and for several."""

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage

from hydra_plugins.steady_sweeper.config import PRUNERS
from steady.exceptions import ConfigError
from steady.propose.pruning import build, check_pruner
from steady.reporting import TrialReporter
from steady.storage import open_storage

MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}


def study_with(
    settings: dict[str, Any] | None, directions: list[str], storage: BaseStorage | None = None
) -> optuna.Study:
    # By name, because Hyperband deals trials out by the name's checksum.
    study = optuna.create_study(study_name="s", directions=directions, storage=storage)  # type: ignore[arg-type]
    study.set_user_attr("pruning", settings)
    return study


def prunes(study: optuna.Study, **scores: float) -> bool:
    """Report one rung of a new trial; one that may go on finishes."""
    trial = study.ask()
    ended = TrialReporter(study, trial.number).report(1, {key.replace("_", "/"): v for key, v in scores.items()})
    if ended:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    else:
        study.tell(trial, [1.0] * len(study.directions))
    return ended


@pytest.mark.parametrize("directions", [["minimize"], ["minimize", "maximize"], ["maximize"]])
def test_a_named_metric_prunes_whatever_the_objectives_are(directions: list[str]) -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["val/kid"], "directions": ["minimize"]}, directions)
    assert [prunes(study, val_kid=score) for score in (0.1, 0.2, 0.9, 0.05)] == [False, False, True, False]


def test_the_direction_of_the_metric_counts() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["val/ssim"], "directions": ["maximize"]}, ["minimize"])
    assert [prunes(study, val_ssim=score) for score in (0.1, 0.2, 0.9, 0.05)] == [False, False, False, True]
    assert not study.trials[0].intermediate_values  # Optuna would compare them the wrong way round


@pytest.mark.parametrize("name", PRUNERS)
def test_a_database_is_read_in_part_and_pruned_alike(name: str, tmp_path: Path) -> None:
    settings = {"pruner": PRUNERS[name], "metrics": ["m"], "directions": ["minimize"]}
    studies = (
        study_with(settings, ["minimize"]),
        study_with(settings, ["minimize"], open_storage(f"sqlite:///{tmp_path}/study.db")),
    )
    ended = [[prunes(study, m=score) for score in (0.1, 0.2, 0.3, 0.15, 0.4, 0.9, 0.8, 0.05)] for study in studies]
    assert ended[0] == ended[1]
    assert any(ended[0]) or name == "hyperband"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "reduction_factor": 2},
        {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": 4, "reduction_factor": 2},
        {"_target_": "optuna.pruners.PercentilePruner", "percentile": 50.0, "n_startup_trials": 1},
        {"_target_": "optuna.pruners.ThresholdPruner", "upper": 0.5},
    ],
)
def test_optunas_pruners_work_for_several_objectives(node: dict[str, Any]) -> None:
    study = study_with({"pruner": node, "metrics": ["m"], "directions": ["minimize"]}, ["minimize", "minimize"])
    ended = [prunes(study, m=score) for score in (0.1, 0.2, 0.15, 0.9, 0.8, 0.9, 0.95, 0.99)]
    assert not ended[0]
    assert any(ended[3:])


@pytest.mark.parametrize(
    "target", ["steady.ParetoPruner", "steady.propose.pruning.ParetoPruner", "catsweep.search.pareto.ParetoPruner"]
)  # the last in studies of versions up to 0.1
def test_several_metrics_prune_by_pareto_rank(target: str) -> None:
    node = {"_target_": target, "keep": 0.5, "n_startup_trials": 2}
    settings = {"pruner": node, "metrics": ["a", "b"], "directions": ["minimize", "maximize"]}
    study = study_with(settings, ["minimize", "maximize"])
    assert not prunes(study, a=0.1, b=0.1)
    assert not prunes(study, a=0.2, b=0.2)
    assert prunes(study, a=0.9, b=0.05)
    assert not prunes(study, a=0.3, b=0.3)  # the best in b


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("name", PRUNERS)
def test_every_pruner_of_the_group_prunes_as_it_does_without_arguments(name: str) -> None:
    node = PRUNERS[name]
    settings = {"pruner": node, "metrics": ["m"], "directions": ["minimize"]}
    check_pruner(settings)
    given = {"percentile": node["percentile"]} if "percentile" in node else {}
    made, plain = build(node, ["m"]), build({"_target_": node["_target_"], **given}, ["m"])
    assert vars(made) == vars(plain)


def test_an_argument_of_another_pruner_is_refused_with_the_line_that_takes_it_out() -> None:
    node = {"_target_": "optuna.pruners.MedianPruner", "percentile": 40.0, "n_startup_trials": 4}
    with pytest.raises(ConfigError, match=r"MedianPruner takes no percentile, .*'~hydra\.sweeper\.pruner\.percentile'"):
        build(node, ["m"])


def test_several_metrics_need_the_pareto_pruner() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["a", "b"], "directions": ["minimize"] * 2}, ["minimize"])
    with pytest.raises(ConfigError, match="ParetoPruner"):
        prunes(study, a=1.0, b=1.0)


def test_a_pruner_of_ones_own_is_refused_with_those_that_may_be_named() -> None:
    for node in ({"_target_": "my_package.MyPruner"}, {**MEDIAN, "_target_": "optuna.pruners.PatientPruner",
                 "wrapped_pruner": {"_target_": "my_package.MyPruner"}}):  # fmt: skip
        study = study_with({"pruner": node, "metrics": ["a"], "directions": ["minimize"]}, ["minimize"])
        with pytest.raises(ConfigError, match=r"^my_package.MyPruner .*optuna.pruners.MedianPruner, .*TrialPruned in"):
            prunes(study, a=1.0)


def rungs_of(study: optuna.Study, *scores: float) -> list[bool]:
    """Report the rungs of a new trial; how each was answered."""
    trial = study.ask()
    answers = [TrialReporter(study, trial.number).report(step, {"m": m}) for step, m in enumerate(scores, 1)]
    study.tell(trial, [1.0] * len(study.directions))
    return answers


def test_a_pruner_around_another_sees_the_whole_curve() -> None:
    inner = {"_target_": "optuna.pruners.ThresholdPruner", "upper": 0.5}
    node = {"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": inner, "patience": 0}
    study = study_with({"pruner": node, "metrics": ["m"], "directions": ["minimize"]}, ["minimize", "minimize"])
    assert rungs_of(study, 0.9, 0.8, 0.85) == [False, False, True]  # above the threshold, but spared while it improves


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_pruner_that_compares_curves_sees_the_best_trials(direction: str) -> None:
    pytest.importorskip("scipy", reason="WilcoxonPruner needs it")
    node = {"_target_": "optuna.pruners.WilcoxonPruner", "p_threshold": 0.2, "n_startup_steps": 3}
    study = study_with({"pruner": node, "metrics": ["m"], "directions": [direction]}, ["minimize", "minimize"])
    worse, better = (0.9, 0.1) if direction == "minimize" else (0.1, 0.9)
    assert not any(rungs_of(study, better, better, better))
    assert rungs_of(study, worse, worse, worse) == [False, False, True]


def test_what_a_pruner_notes_at_a_trial_is_in_the_study_and_counts_for_the_next() -> None:
    node = {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "min_resource": 1, "reduction_factor": 2}
    study = study_with({"pruner": node, "metrics": ["m"], "directions": ["maximize"]}, ["minimize", "minimize"])
    assert rungs_of(study, 0.5, 0.6) == [False, False]
    assert study.trials[0].system_attrs == {"completed_rung_0": 0.5, "completed_rung_1": 0.6}
    assert rungs_of(study, 0.4) == [True]
    assert rungs_of(study, 0.7) == [False]


def test_a_rung_from_before_the_metrics_changed_prunes_nothing() -> None:
    study = study_with(None, ["minimize"])
    trial = study.ask()
    TrialReporter(study, trial.number).report(1, {"a": 1.0})
    node = {"_target_": "steady.propose.pruning.ParetoPruner", "n_startup_trials": 0}
    study.set_user_attr("pruning", {"pruner": node, "metrics": ["a", "b"], "directions": ["minimize"] * 2})
    assert not TrialReporter(study, trial.number).report(1, {"a": 1.0, "b": 1.0})


def test_a_fixed_parameter_of_the_name_of_a_note_is_none() -> None:
    """Fixed parameters are user attributes too, as upstream has it; `rungs=[0.1]` once ended every trial."""
    study = study_with({"pruner": MEDIAN, "metrics": ["m"], "directions": ["minimize"]}, ["minimize"])
    for score in (0.1, 0.2):
        trial = study.ask()
        for name in ("rungs", "attempt", "log"):
            trial.set_user_attr(name, "[0.1]")
        assert not TrialReporter(study, trial.number).report(1, {"m": score})
        study.tell(trial, 1.0)
    assert prunes(study, m=0.9)


@pytest.mark.security
@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "optuna.pruners.PercentilePruner", "percentile": "many"},
        {"_target_": "optuna.pruners.ThresholdPruner", "upper": 1.0, "interval_steps": "two"},
        {"_target_": "optuna.pruners.HyperbandPruner", "max_resource": "all"},
        {"_target_": "optuna.pruners.SuccessiveHalvingPruner", "reduction_factor": "2"},
        {"_target_": "optuna.pruners.PatientPruner", "wrapped_pruner": None, "patience": "long"},
        {"_target_": "steady.propose.pruning.ParetoPruner", "keep": "half"},
        {"_target_": "optuna.pruners.NoPruner"},
    ],
)
def test_what_a_pruner_would_raise_in_each_trial_shows_before_the_first(node: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=r"\S"):
        check_pruner({"pruner": node, "metrics": ["a"], "directions": ["minimize"]})


@pytest.mark.security
@pytest.mark.parametrize(
    "name", ["MedianPruner", "NopPruner", "HyperbandPruner", "SuccessiveHalvingPruner", "WilcoxonPruner"]
)
def test_a_sound_pruner_passes_its_rehearsal(name: str) -> None:
    settings = {"pruner": {"_target_": f"optuna.pruners.{name}"}, "metrics": ["a"], "directions": ["maximize"]}
    check_pruner(settings)
