"""What a trial tells its study from inside, and what it is told."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from omegaconf import OmegaConf

from steady import reporting
from steady.exceptions import DivergedError, InterruptedTrial, StorageError, StudyError
from steady.reporting import TrialReporter, flush
from steady.storage import open_storage
from steady.storage.patience import Patience, wait_for_server
from steady.storage.storage_errors import ErrorTranslator, translate_errors
from steady.study import meta
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


def test_what_was_used_is_written_with_the_next_report_or_at_the_end() -> None:
    study = study_with(None, ["minimize"])
    reporter = TrialReporter(study, study.ask().number)
    reporter.note_usage("seconds", seconds=1.0, samples=16)
    assert meta.USAGE not in study.trials[0].user_attrs
    reporter.report(1, {"loss": 0.5})
    assert study.trials[0].user_attrs[meta.USAGE] == {"seconds": 1.0, "samples": 16, "unit": "seconds"}
    reporter.note_usage(None, seconds=2.0)
    flush()
    assert study.trials[0].user_attrs[meta.USAGE] == {"seconds": 2.0, "unit": None}


def test_what_is_not_finite_is_divergence() -> None:
    study = study_with(None, ["minimize"])
    with pytest.raises(DivergedError, match="nan"):
        report(study, loss=float("nan"))
    assert meta.RUNGS not in study.trials[0].user_attrs


def bounded() -> optuna.Study:
    study = study_with(None, ["minimize"])
    study.set_user_attr(meta.CONTRACT, {"constraints": {"size": "<= 10"}})
    return study


def test_a_value_beyond_a_bound_says_that_the_trial_need_not_go_on() -> None:
    study = bounded()
    reporter = TrialReporter(study, study.ask().number)
    assert reporter.note({"other": 99.0}) is False
    assert reporter.note({"size": 10.0}) is False
    again = TrialReporter(study, study.ask().number)
    assert again.note({"size": 10.5}) is True
    assert [trial.user_attrs[meta.NOTED] for trial in study.trials] == [{"other": 99.0, "size": 10.0}, {"size": 10.5}]
    with pytest.raises(DivergedError, match="inf"):
        reporter.note({"size": float("inf")})


def test_what_an_earlier_attempt_noted_decides_for_a_later_one() -> None:
    study = bounded()
    number = study.ask().number
    assert TrialReporter(study, number).note({"size": 9.0}) is False
    assert TrialReporter(study, number).note({"size": 11.0}) is False
    assert study.trials[0].user_attrs[meta.NOTED] == {"size": 9.0}


def test_an_attempt_that_lost_its_trial_notes_nothing() -> None:
    study = bounded()
    number = study.ask().number
    study.tell(number, 1.0)
    with pytest.raises(InterruptedTrial):
        TrialReporter(study, number).note({"size": 9.0})


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
    number = (trial := study.ask()).number
    TrialReporter(study, number).report(1, {"loss": 1.0})
    trial.set_user_attr(meta.ATTEMPT, 1)
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


class Server:
    """A study on a server that can be away, as `open_storage` opens it."""

    def __init__(self) -> None:
        self.away = False
        self.slept = 0.0
        storage = optuna.storages.InMemoryStorage()
        for name in ("get_trial", "get_all_trials", "set_trial_user_attr"):
            setattr(storage, name, self._reached(getattr(storage, name)))
        self.patience = Patience(60.0, clock=lambda: self.slept, sleep=self._sleep)
        opened = translate_errors(wait_for_server(storage, self.patience), ErrorTranslator("postgresql://host/studies"))
        self.study = optuna.create_study(storage=opened)
        self.trial = self.study.ask().number

    def _reached(self, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def reached(*args: Any, **kwargs: Any) -> Any:
            if self.away:
                raise sqlalchemy.exc.OperationalError("SELECT 1", {}, ConnectionError("refused"))
            return call(*args, **kwargs)

        return reached

    def _sleep(self, seconds: float) -> None:
        self.slept += seconds

    def reporter(self) -> TrialReporter:
        return TrialReporter(self.study, self.trial, patience=self.patience)

    def rungs(self) -> Any:
        return meta.get(self.study.trials[self.trial], meta.RUNGS)


def test_a_trial_trains_on_while_its_server_is_away() -> None:
    server = Server()
    reporter = server.reporter()
    reporter.report(1, {"loss": 3.0})
    server.away = True
    assert not reporter.report(2, {"loss": 2.0})
    assert reporter.is_current()
    assert server.slept == 0.0
    server.away = False
    reporter.report(3, {"loss": 1.0})
    assert server.rungs() == {"1": {"loss": 3.0}, "2": {"loss": 2.0}, "3": {"loss": 1.0}}


def test_what_a_server_missed_is_written_before_a_task_has_ended() -> None:
    server = Server()
    server.reporter().report(1, {"loss": 3.0})
    server.away = True
    server.reporter().report(2, {"loss": 2.0})
    with pytest.raises(StorageError, match="refused"):
        flush()
    assert server.slept == pytest.approx(60.0)
    server.away = False
    flush()
    assert server.rungs() == {"1": {"loss": 3.0}, "2": {"loss": 2.0}}
    server.away = True
    flush()  # there is nothing left


def test_an_attempt_that_lost_its_trial_stops_and_writes_nothing() -> None:
    server = Server()
    stale = server.reporter()
    stale.report(1, {"loss": 3.0})
    server.study._storage.set_trial_user_attr(server.trial, meta.ATTEMPT, 1)
    with pytest.raises(InterruptedTrial, match="Another controller has taken trial 0 over: attempt 0"):
        stale.report(2, {"loss": 2.0})
    flush()
    assert server.rungs() == {"1": {"loss": 3.0}}


def test_what_a_server_missed_is_written_before_an_interruption_within_a_short_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server()
    server.away = True
    server.reporter().report(1, {"loss": 3.0})
    flush(interrupted=True)
    assert server.slept == pytest.approx(10.0)
    assert "Scores that trial 0 reported are lost" in caplog.text
    server.away = False
    flush(interrupted=True)
    assert server.rungs() == {"1": {"loss": 3.0}}


class InOrder(dict[TrialReporter, None]):
    """A set that is gone through in the order in which things came."""

    def add(self, one: TrialReporter) -> None:
        self[one] = None

    def discard(self, one: TrialReporter) -> None:
        self.pop(one, None)


def test_a_report_that_is_lost_takes_no_other_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_unwritten", InOrder())
    lost, kept = Server(), Server()
    for server in (lost, kept):
        server.away = True
        server.reporter().report(1, {"loss": 3.0})
    kept.away = False
    flush(interrupted=True)
    assert kept.rungs() == {"1": {"loss": 3.0}}


def test_an_outage_between_the_two_writes_of_a_report_costs_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.study.set_user_attr("pruning", {"pruner": MEDIAN, "metrics": ["loss"], "directions": ["minimize"]})
    written = server.study._storage.set_trial_intermediate_value

    def write(*args: Any) -> None:
        written(*args)
        server.away = True

    monkeypatch.setattr(server.study._storage, "set_trial_intermediate_value", write)
    reporter = server.reporter()
    assert not reporter.report(1, {"loss": 3.0})
    monkeypatch.setattr(server.study._storage, "set_trial_intermediate_value", written)
    server.away = False
    reporter.report(2, {"loss": 2.0})
    assert server.rungs() == {"1": {"loss": 3.0}, "2": {"loss": 2.0}}
    assert server.study.trials[0].intermediate_values == {1: 3.0, 2: 2.0}


def promoting(storage: optuna.storages.BaseStorage | None = None, **changes: Any) -> optuna.Study:
    study = optuna.create_study(storage=storage)
    kept = {"eta": 2, "rungs": [1, 3, 9], "metrics": ["loss"], "directions": ["minimize"], **changes}
    study.set_user_attr(meta.PROMOTION, kept)
    return study


def test_a_trial_is_marked_as_paused_unless_it_is_among_the_best_at_its_rung() -> None:
    study = promoting()
    first, second = (TrialReporter(study, study.ask().number) for _ in range(2))
    assert first.report(1, {"loss": 0.5})
    assert first.paused == 1
    assert study.trials[0].user_attrs[meta.PAUSED] == {"rung": 1, "attempt": 0}
    assert study.trials[0].intermediate_values == {1: 0.5}  # Optuna's own curves
    assert not second.report(1, {"loss": 0.25})
    assert meta.PAUSED not in study.trials[1].user_attrs
    assert not second.report(2, {"loss": 9.0})  # no rung
    assert second.report(3, {"loss": 0.25})
    assert not second.report(9, {"loss": 0.25})  # the whole budget


def test_a_rung_that_was_promoted_from_is_passed_and_a_later_one_takes_a_pause_back() -> None:
    study = promoting(rungs=[1, 2, 3, 9])
    study.ask().set_user_attr(meta.PROMOTED, 1)
    reporter = TrialReporter(study, 0)
    assert not reporter.report(1, {"loss": 0.5})
    assert reporter.report(2, {"loss": 0.5})
    for _ in range(2):
        other = study.ask()
        other.set_user_attr(meta.RUNGS, {"3": {"loss": 0.75}})
    assert not reporter.report(3, {"loss": 0.5})  # it came to two rungs at once
    assert reporter.paused is None
    assert study.trials[0].user_attrs[meta.PAUSED] is None


def test_who_goes_on_is_told_without_reading_all_of_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = promoting(open_storage(f"sqlite:///{tmp_path}/study.db"))
    for loss in (0.125, 0.75):
        study.ask().set_user_attr(meta.RUNGS, {"1": {"loss": loss}})
    reporter = TrialReporter(study, study.ask().number)
    monkeypatch.setattr(optuna.Study, "get_trials", None)
    assert reporter.report(1, {"loss": 0.5})


def test_a_mark_whose_answer_was_lost_is_taken_back_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.study.set_user_attr(meta.PROMOTION, meta.get(promoting(), meta.PROMOTION))
    reporter, storage = server.reporter(), server.study._storage
    write = storage.set_trial_user_attr

    def lost(trial_id: int, key: str, value: Any) -> None:
        write(trial_id, key, value)
        if key == meta.PAUSED:
            server.away = True
            write(trial_id, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "set_trial_user_attr", lost)
        assert not reporter.report(1, {"loss": 0.5})  # so it trains on
    server.away = False
    assert meta.get(server.study.trials[server.trial], meta.PAUSED)
    reporter.has_ended()
    assert meta.get(server.study.trials[server.trial], meta.PAUSED) is None


def test_promotion_needs_its_score() -> None:
    study = promoting()
    with pytest.raises(StudyError, match="loss"):
        TrialReporter(study, study.ask().number).report(1, {"other": 0.5})
