import json
import os
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from catsweep.errors import ExportError, StorageError, StudyError
from catsweep.selection import find_run, read_trials
from steady.storage.location import study_folder
from steady.study import meta
from steady.study.select import Objective, ScoredTrial


class TestFindStudy:
    def test_latest_is_the_one_written_last(self, sweep) -> None:
        for name, written in [("a", 300), ("b", 100), ("c", 200)]:
            sweep.study(name, [])
            os.utime(sweep.sweeps / name / "study.db", (written, written))
        assert study_folder(sweep.sweeps, None).name == "a"
        assert study_folder(sweep.sweeps, "b").name == "b"

    def test_trials_still_in_the_write_ahead_log_count(self, sweep) -> None:
        for name, written in [("running", 100), ("done", 200)]:
            sweep.study(name, [])
            os.utime(sweep.sweeps / name / "study.db", (written, written))
        log = sweep.sweeps / "running" / "study.db-wal"
        log.touch()
        os.utime(log, (300, 300))
        assert study_folder(sweep.sweeps, None).name == "running"

    def test_reading_a_study_does_not_make_it_the_latest(self, sweep) -> None:
        for name, written in [("old", 100), ("new", 200)]:
            sweep.with_runs(name, [(1.0, 1.0)])
            os.utime(sweep.sweeps / name / "study.db", (written, written))
        read_trials(sweep.sweeps / "old", sweep.outputs / "old")
        assert study_folder(sweep.sweeps, None).name == "new"

    def test_none_yet_says_what_to_run(self, sweep) -> None:
        with pytest.raises(StudyError, match="Run a sweep first"):
            study_folder(sweep.sweeps, None)
        (sweep.sweeps / "empty").mkdir(parents=True)
        with pytest.raises(StudyError, match="Run a sweep first"):
            study_folder(sweep.sweeps, None)

    def test_unknown_name_lists_the_known(self, sweep) -> None:
        sweep.study("vae", [])
        with pytest.raises(StudyError, match=r"No study 'gan'.*There are: vae"):
            study_folder(sweep.sweeps, "gan")


class TestReadTrials:
    def read(self, sweep, name="s"):
        return read_trials(sweep.sweeps / name, sweep.outputs / name)

    def test_only_complete_trials_count(self, sweep) -> None:
        values = [(30.0, 0.5), TrialState.FAIL, (20.0, 0.4), TrialState.PRUNED, TrialState.RUNNING, (25.0, 0.3)]
        sweep.study("s", values, names=["val/fid", "val/ssim"])
        trials = self.read(sweep)
        assert [c.number for c in trials.finished] == [0, 2, 5]
        assert trials.front == (ScoredTrial(2, (20.0, 0.4)), ScoredTrial(0, (30.0, 0.5)))
        assert trials.params[2] == {"optimizer.lr": 0.2}
        assert trials.overrides[2] == {"optimizer.lr": "0.2"}

    def test_parameters_are_overrides_as_the_study_has_them(self, sweep) -> None:
        study = sweep.study("s", [], names=["val/fid", "val/ssim"])
        space: dict[str, BaseDistribution] = {"x": optuna.distributions.CategoricalDistribution(["1", 1, None, "null"])}
        study.add_trials(
            [optuna.trial.create_trial(values=[1.0, 1.0], params={"x": v}, distributions=space) for v in ("1", None)]
        )
        assert self.read(sweep).overrides == {0: {"x": "1"}, 1: {"x": "null"}}  # what older versions gave to jobs
        study.set_user_attr("spelling", "exact")
        study.set_user_attr("contract", {"space": {"+x": "choice('1', 1, null, 'null')"}})
        assert self.read(sweep).overrides == {0: {"+x": "'1'"}, 1: {"+x": "null"}}

    def test_infinite_scores_are_no_result(self, sweep) -> None:
        # (inf, 0.9) would be Pareto-optimal by its SSIM.
        sweep.study("s", [(float("inf"), 0.9), (20.0, 0.4)], names=["val/fid", "val/ssim"])
        assert [c.number for c in self.read(sweep).finished] == [1]
        assert [c.number for c in self.read(sweep).front] == [1]

    def test_infeasible_trials_are_finished_but_not_optimal(self, sweep) -> None:
        study = sweep.study("s", [(30.0, 0.3)], names=["val/fid", "val/ssim"])
        study.add_trial(optuna.trial.create_trial(values=[20.0, 0.4], constraints={"memory": 1.0}))
        assert [c.number for c in self.read(sweep).front] == [0]
        assert [c.number for c in self.read(sweep).finished] == [0, 1]

    def test_objectives_are_named_by_the_study(self, sweep) -> None:
        sweep.study("s", [(1.0, 2.0)], names=["val/kid", "val/psnr"])
        assert [(o.name, o.maximise) for o in self.read(sweep).objectives] == [("val/kid", False), ("val/psnr", True)]

    def test_or_by_the_config_of_a_run(self, sweep) -> None:
        sweep.study("s", [TrialState.FAIL, (1.0, 2.0)])
        (sweep.outputs / "s" / "0").mkdir(parents=True)  # failed before it wrote its config
        sweep.run("s", 1, (1.0, 2.0))
        assert [o.name for o in self.read(sweep).objectives] == ["val/fid", "val/ssim"]

    def test_single_objective_written_as_a_word(self, sweep) -> None:
        sweep.study("s", [(3.0,), (1.0,), (2.0,)], directions=["minimize"])
        (sweep.run("s", 1, (1.0,), ["val/fid"]) / "config.yaml").write_text("objective: val/fid\n")
        assert [c.number for c in self.read(sweep).front] == [1]

    def test_config_that_disagrees_with_the_study_is_refused(self, sweep) -> None:
        sweep.study("s", [(1.0, 2.0)])
        sweep.run("s", 0, (1.0,), ["val/fid"])
        with pytest.raises(ExportError, match="2 objectives, but"):
            self.read(sweep)

    def test_nothing_that_names_the_objectives(self, sweep) -> None:
        sweep.study("s", [(1.0, 2.0)])
        with pytest.raises(ExportError, match="does not name its objectives"):
            self.read(sweep)

    @pytest.mark.parametrize(
        ("values", "have"),
        [([], "no trial at all"), ([TrialState.FAIL, TrialState.RUNNING, TrialState.FAIL], "2 fail, 1 running")],
    )
    def test_without_a_finished_trial_it_says_what_there_is_and_what_to_run(self, sweep, values, have) -> None:
        sweep.study("s", values, names=["val/fid", "val/ssim"])
        with pytest.raises(ExportError, match=f"(?s){have}.*the sweep's line again"):
            self.read(sweep)

    def test_where_the_feasible_ones_are_paused_the_line_goes_on_with_them(self, sweep) -> None:
        study = sweep.study("s", [], names=["val/fid", "val/ssim"])
        study.set_user_attr(meta.CONTRACT, {"constraints": {"size": "<= 1"}})
        beyond: dict[str, Any] = {"constraints": {"size": 1.0}, "user_attrs": {meta.OUTCOME: "infeasible"}}
        study.add_trial(optuna.trial.create_trial(values=[20.0, 0.4], **beyond))
        with pytest.raises(ExportError, match="satisfies size <= 1"):
            self.read(sweep)
        paused = {meta.ATTEMPT: 0, meta.PAUSED: {"rung": 3, "attempt": 0}}
        study.add_trial(optuna.trial.create_trial(state=TrialState.WAITING, user_attrs=paused))
        with pytest.raises(ExportError, match=r"(?s)1 infeasible, 1 paused.*the sweep's line again"):
            self.read(sweep)

    def test_only_study_of_a_database_may_have_another_name(self, sweep) -> None:
        sweep.study("folder", [(1.0, 2.0)], names=["val/fid", "val/ssim"], study_name="older name")
        assert self.read(sweep, "folder").study == "folder"

    def test_of_several_studies_the_one_named_like_the_folder(self, sweep) -> None:
        sweep.study("s", [(1.0, 2.0)], names=["val/fid", "val/ssim"], study_name="other")
        sweep.study("s", [(5.0, 2.0)], names=["val/fid", "val/ssim"], study_name="s")
        assert self.read(sweep).finished[0].values == (5.0, 2.0)

    @pytest.mark.parametrize("name", ["s", "older name"])
    def test_studies_that_a_sweep_keeps_beside_its_own_are_passed_over(self, sweep, name) -> None:
        for suffix in (".leases", "", ".confirm"):
            sweep.study("s", [(float(len(suffix)), 2.0)], names=["val/fid", "val/ssim"], study_name=f"{name}{suffix}")
        assert self.read(sweep).finished[0].values == (0.0, 2.0)

    def test_a_study_may_be_called_like_one_of_these(self, sweep) -> None:
        sweep.study("s.confirm", [(1.0, 2.0)], names=["val/fid", "val/ssim"])
        assert self.read(sweep, "s.confirm").finished[0].values == (1.0, 2.0)

    def test_ranked_are_the_feasible_ones_in_the_order_of_a_confirmation(self, sweep) -> None:
        values = [(30.0, 0.3), TrialState.PRUNED, (20.0, 0.2), (31.0, 0.2)]
        study = sweep.study("s", values, names=["val/fid", "val/ssim"])
        study.add_trial(optuna.trial.create_trial(values=[10.0, 0.9], constraints={"memory": 1.0}))
        assert self.read(sweep).ranked == (2, 0, 3)

    def test_several_studies_none_named_like_the_folder(self, sweep) -> None:
        for name in ("x", "y"):
            sweep.study("s", [(1.0, 2.0)], names=["val/fid", "val/ssim"], study_name=name)
        with pytest.raises(StudyError, match=r"holds the studies x, y, but none is called 's'"):
            self.read(sweep)

    @pytest.mark.parametrize("content", [b"", b"not a database" * 999], ids=["empty", "garbage"])
    def test_damaged_database(self, sweep, content) -> None:
        (sweep.sweeps / "s").mkdir(parents=True)
        (sweep.sweeps / "s" / "study.db").write_bytes(content)
        with pytest.raises(StorageError, match=r"study\.db"):
            self.read(sweep)


class TestFindRun:
    def find(self, sweep, number, values):
        objectives = (Objective("val/fid", maximise=False), Objective("val/ssim", maximise=True))
        return find_run(sweep.outputs / "s", ScoredTrial(number, values), objectives).name

    def test_folder_of_the_number(self, sweep) -> None:
        for number in (0, 1, 2):
            sweep.run("s", number, (10.0, 0.5))  # equal scores: the number decides
        assert self.find(sweep, 1, (10.0, 0.5)) == "1"

    def test_the_folder_that_the_study_names_comes_first(self, sweep) -> None:
        objectives = (Objective("val/fid", maximise=False), Objective("val/ssim", maximise=True))
        for name in (0, "lr=0.1/0", 1):
            sweep.run("s", name, (10.0, 0.5))  # equal scores: the name decides
        found = find_run(sweep.outputs / "s", ScoredTrial(0, (10.0, 0.5)), objectives, "lr=0.1/0")
        assert found == sweep.outputs / "s/lr=0.1/0"

    def test_numbering_shifted_by_a_resume(self, sweep) -> None:
        for number, fid in enumerate([11.0, 12.0, 13.0]):
            sweep.run("s", number, (fid, 0.5))
        assert self.find(sweep, 7, (13.0, 0.5)) == "2"
        assert self.find(sweep, 0, (13.0, 0.5)) == "2"

    def test_scores_agree_in_all_objectives_to_the_last_digit_but_one(self, sweep) -> None:
        sweep.run("s", 0, (212.123456789, 0.5))
        sweep.run("s", 1, (212.123456789 * (1 + 1e-12), 0.6))
        assert self.find(sweep, 0, (212.123456789, 0.6)) == "1"
        with pytest.raises(ExportError, match="No run folder"):
            self.find(sweep, 0, (212.12346, 0.6))

    @pytest.mark.parametrize(
        "metrics", [None, "", "[]", "{}", '{"scores": null}', '{"scores": []}', '{"scores": {"val/fid": null}}']
    )
    def test_unfinished_folders_are_passed_over(self, sweep, metrics) -> None:
        broken = sweep.run("s", 3, (10.0, 0.5)) / "metrics.json"
        broken.unlink() if metrics is None else broken.write_text(metrics)
        sweep.run("s", 12, (10.0, 0.5))
        (sweep.outputs / "s" / "best_model").mkdir()
        assert self.find(sweep, 3, (10.0, 0.5)) == "12"

    def test_lost_folder_says_what_was_looked_for_and_what_to_do(self, sweep) -> None:
        sweep.run("s", 0, (10.0, 0.5))
        with pytest.raises(ExportError, match=r"trial 4 \(val/fid=12.5, val/ssim=0.25\).*select=NUMBER"):
            self.find(sweep, 4, (12.5, 0.25))

    def test_no_folder_at_all(self, sweep) -> None:
        with pytest.raises(ExportError, match="No run folder"):
            self.find(sweep, 0, (1.0, 1.0))


def test_a_study_tells_the_folders_that_have_other_names_than_the_numbers(sweep) -> None:
    study = sweep.study("s", [(1.0, 2.0)], names=["val/fid", "val/ssim"])
    study.add_trial(optuna.trial.create_trial(values=[10.0, 0.9], user_attrs={"catsweep:folder": "lr=0.1"}))
    assert read_trials(sweep.sweeps / "s", sweep.outputs / "s").folders == {1: "lr=0.1"}


def test_scores_survive_the_way_through_json_and_sqlite(sweep) -> None:
    values = (1 / 3 * 1e3, 2 / 3)
    sweep.with_runs("s", [values])
    trials = read_trials(sweep.sweeps / "s", sweep.outputs / "s")
    assert find_run(sweep.outputs / "s", trials.finished[0], trials.objectives).name == "0"
    assert json.loads((sweep.outputs / "s" / "0" / "metrics.json").read_text())["scores"]["val/fid"] == values[0]


@pytest.mark.security
@pytest.mark.parametrize("folder", ["../other/0", "/", "..", "../../../victim", "link"])
def test_a_study_that_names_a_folder_elsewhere_is_refused(sweep, folder) -> None:
    """Whoever made the study said so; what is there would be copied, and perhaps published."""
    sweep.with_runs("s", [(1.0, 1.0)])
    sweep.run("other", 0, (1.0, 1.0))
    (sweep.outputs / "s" / "link").symlink_to(sweep.outputs / "other" / "0")
    objectives = (Objective("val/fid", False), Objective("val/ssim", True))
    with pytest.raises(ExportError, match=r"trial 0 works in .*, which is not in .*outputs/s/") as caught:
        find_run(sweep.outputs / "s", ScoredTrial(0, (1.0, 1.0)), objectives, folder)
    assert repr(folder) in str(caught.value)


@pytest.mark.security
@pytest.mark.parametrize("name", ["..", ".", "../sweeps/vae", "vae/.", "vae/../vae", "", "/"])
def test_a_study_is_asked_for_by_its_name(sweep, name) -> None:
    sweep.study("vae", [])
    with pytest.raises(StudyError, match="No study"):
        study_folder(sweep.sweeps, name)
