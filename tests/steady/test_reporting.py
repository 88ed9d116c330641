"""What a trial tells its study from inside, and what it is told."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from steady.exceptions import DivergedError, StudyError
from steady.reporting import TrialReporter
from steady.study import meta
from steady.study.storage import open_storage
from steady.watch.progress import read_progress

MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2}


def study_with(settings: dict[str, Any] | None, directions: list[str]) -> optuna.Study:
    study = optuna.create_study(directions=directions)  # type: ignore[arg-type]
    study.set_user_attr("pruning", settings)
    return study


def report(study: optuna.Study, **scores: float) -> bool:
    return TrialReporter(study, study.ask().number).report(1, scores)


def test_a_metric_that_is_not_reported_is_an_error() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["val/kid"], "directions": ["minimize"]}, ["minimize"])
    with pytest.raises(StudyError, match=r"val/kid; reported were loss\. .*hydra\.sweeper\.prune_metric"):
        report(study, loss=1.0)


def test_what_is_not_finite_is_divergence() -> None:
    study = study_with(None, ["minimize"])
    with pytest.raises(DivergedError, match="nan"):
        report(study, loss=float("nan"))
    assert meta.RUNGS not in study.trials[0].user_attrs


def test_one_objective_in_the_same_direction_has_optunas_curves() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["m"], "directions": ["minimize"]}, ["minimize"])
    report(study, m=0.5)
    assert study.trials[0].intermediate_values == {1: 0.5}


def test_the_curves_of_a_score_that_runs_the_other_way_are_not_shown() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["m"], "directions": ["maximize"]}, ["minimize"])
    report(study, m=0.5)
    assert study.trials[0].intermediate_values == {}
    assert study.trials[0].user_attrs[meta.RUNGS] == {"1": {"m": 0.5}}


def test_several_objectives_have_no_curves() -> None:
    study = study_with({"pruner": MEDIAN, "metrics": ["m"], "directions": ["minimize"]}, ["minimize", "minimize"])
    report(study, m=0.5)
    assert study.trials[0].intermediate_values == {}  # Optuna's sampler fails over them when the trial is pruned


def test_without_a_pruner_reports_are_kept_and_end_nothing() -> None:
    study = study_with(None, ["minimize"])
    assert [report(study, loss=loss) for loss in (1.0, 2.0, 99.0)] == [False] * 3
    assert study.trials[2].user_attrs[meta.RUNGS] == {"1": {"loss": 99.0}}


def test_a_rung_that_was_reported_keeps_its_score() -> None:
    study = study_with(None, ["minimize"])
    number = study.ask().number
    TrialReporter(study, number).report(1, {"loss": 1.0})
    TrialReporter(study, number, attempt=1).report(1, {"loss": 2.0})
    assert study.trials[0].user_attrs[meta.RUNGS] == {"1": {"loss": 1.0}}


def test_an_attempt_that_was_overtaken_knows_it() -> None:
    study = study_with(None, ["minimize"])
    trial = study.ask()
    reporter = TrialReporter(study, trial.number, attempt=0)
    assert reporter.is_current()
    trial.set_user_attr(meta.ATTEMPT, 1)
    assert not reporter.is_current()
    assert TrialReporter(study, trial.number, attempt=1).is_current()
    study.tell(trial, 1.0)
    assert not TrialReporter(study, trial.number, attempt=1).is_current()


def test_a_reporter_is_made_from_the_config_and_tells_progress(tmp_path: Path) -> None:
    assert TrialReporter.from_config(OmegaConf.create({"number": 0, "storage": None})) is None
    url = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(study_name="s", storage=open_storage(url))
    study.ask()
    node = OmegaConf.create({"number": 0, "attempt": 0, "study": "s", "storage": url})
    reporter = TrialReporter.from_config(node)
    assert reporter is not None
    assert reporter.metrics == []
    assert read_progress(tmp_path) == {}
    reporter.progress(tmp_path, epoch=3, score=0.5)
    told = read_progress(tmp_path)
    assert (told["epoch"], told["score"]) == (3, 0.5)


def test_asking_whether_it_is_current_reads_the_storage_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with(None, ["minimize"])
    reporter = TrialReporter(study, study.ask().number)
    reporter.is_current()
    reads: list[str] = []
    storage = study._storage
    for name in ("get_trial", "get_all_trials", "get_trial_id_from_study_id_trial_number"):
        plain = getattr(storage, name)

        def read(*args: Any, name: str = name, plain: Any = plain, **settings: Any) -> Any:
            reads.append(name)
            return plain(*args, **settings)

        monkeypatch.setattr(storage, name, read)
    assert reporter.is_current()
    assert reads == ["get_trial"]


def test_a_report_is_a_sign_that_the_trial_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `hydra.sweeper.trial_timeout`; in the folder of Hydra's job, where there is one."""
    study = study_with(None, ["minimize"])
    report(study, loss=1.0)
    monkeypatch.setattr("steady.reporting.HydraConfig.initialized", lambda: True)
    job = OmegaConf.create({"runtime": {"output_dir": str(tmp_path)}})
    monkeypatch.setattr("steady.reporting.HydraConfig.get", lambda: job)
    assert not list(tmp_path.iterdir())
    report(study, loss=1.0)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]
    assert read_progress(tmp_path) == {}
    for none in (str(tmp_path / "nowhere"), "???"):
        job.runtime.output_dir = none
        report(study, loss=1.0)


def test_progress_is_replaced_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with(None, ["minimize"])
    reporter = TrialReporter(study, study.ask().number)
    reporter.progress(tmp_path, epoch=1)
    seen: list[int] = []
    plain = os.replace

    def replace(source: Path, target: Path) -> None:
        seen.append(json.loads(Path(target).read_text())["epoch"])  # the old one, whole, until the new one is
        plain(source, target)

    monkeypatch.setattr(os, "replace", replace)
    reporter.progress(tmp_path, epoch=2)
    assert seen == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["progress.json"]
    assert json.loads((tmp_path / "progress.json").read_text())["epoch"] == 2


APP = """
import hydra, optuna
from steady.reporting import TrialReporter

@hydra.main(config_path=None, config_name="config")
def main(cfg):
    if reporter := TrialReporter.from_config(cfg.trial):
        for epoch in range(3):
            if reporter.report(epoch, {"loss": 1.0}):
                raise optuna.TrialPruned

hydra.core.config_store.ConfigStore.instance().store("config", {
    "trial": {"number": 0, "attempt": 0, "study": "s", "storage": "sqlite:///study.db"},
    "hydra": {"job": {"chdir": True}, "run": {"dir": "elsewhere"}},
})
main()
"""


def test_an_app_that_works_in_another_folder_finds_the_storage(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", storage=open_storage(f"sqlite:///{tmp_path}/study.db"))
    study.ask()
    (tmp_path / "app.py").write_text(APP)
    subprocess.run([sys.executable, "app.py"], cwd=tmp_path, check=True)
    assert set(study.trials[0].user_attrs[meta.RUNGS]) == {"0", "1", "2"}
    assert not (tmp_path / "elsewhere/study.db").exists()
