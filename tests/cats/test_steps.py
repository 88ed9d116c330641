"""From photos to a generator within a budget: the order of the steps, the time, and going on after any end.

The steps are `tests/fake_step.py`, under the names of the commands; one test has the real ones.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tests.fake_sweeps import judged_as

from catsweep.cats import steps
from catsweep.cats.hardware import Hardware
from catsweep.cats.plan import Plan
from catsweep.data.ready import open_or_build
from catsweep.data.sources import DemoCats
from catsweep.errors import ConfigError, DataError, TrainingError
from catsweep.report.exported import Exported
from steady import resources

ROOT = Path(__file__).resolve().parents[2]
ALL = ["search", "choose", "train", "export", "report"]  # of drawn cats
BOUND = 120.0  # seconds for something to happen
STARTED: list[subprocess.Popen[str]] = []  # by a test
DRIVER = """
import json, sys
from pathlib import Path
from catsweep.cats import steps
from catsweep.cats.plan import Plan
from omegaconf import OmegaConf
steps.COMMANDS = Path(sys.argv[1])
steps.run(OmegaConf.create(json.loads(sys.argv[2])))
"""


def config(*words: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf")):
        return compose("cats", overrides=["budget=5", "name=mine", *words])


def behave(**fakes: dict[str, Any]) -> None:
    Path("fake.json").write_text(json.dumps(fakes))


def calls() -> list[tuple[str, list[str]]]:
    return [tuple(line) for line in lines("calls")]


def lines(path: str) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()] if Path(path).exists() else []


def called() -> list[str]:
    return [step for step, _ in calls()]


def words_of(step: str) -> list[str]:
    return [words for name, words in calls() if name == step][-1]


def state() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("outputs/cats/mine/cats.json").read_text())
    return found


def wait_for(happened: Callable[[], object]) -> None:
    until = time.monotonic() + BOUND
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project without anything, and the fake commands; what a test that failed has left running is ended."""
    scripts, project = tmp_path / "src", tmp_path / "project"
    for folder in (scripts, project):
        folder.mkdir()
    for name in ("prepare", "train", "best_model", "export", "report"):
        (scripts / f"{name}.py").symlink_to(ROOT / "tests" / "fake_step.py")
    monkeypatch.setattr(steps, "COMMANDS", scripts)
    monkeypatch.setattr(steps, "LOOK_EVERY", 0.01)
    monkeypatch.chdir(project)
    yield scripts
    for process in STARTED:
        process.kill()
        with process:  # waits, and closes its output
            pass
    STARTED.clear()


def photo(file: Path, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8))


def test_the_steps_are_commands_in_their_order_and_the_better_model_is_exported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps.run(config())
    assert called() == ALL
    search = words_of("search")
    assert search[:2] == ["-m", "hparams_search=cats_optuna"]
    assert {"data=demo_cats", "study='mine'", "hydra.sweeper.confirm=null"} <= set(search)
    assert {"hydra/sweeper/pruner=lenient", "hydra.sweeper.promotion=null"} <= set(search)
    train = words_of("train")
    assert train[:2] == ["model=vae", "seed=0"]
    assert {"trial.number=null", "resume='outputs/cats/mine/longer'"} <= set(train)
    assert OmegaConf.load("outputs/cats/mine/longer/config.yaml").trial is None
    assert Path("outputs/cats/mine/longer/checkpoints/last.ckpt").read_text() == "last"
    assert "run='outputs/cats/mine/longer'" in words_of("export")
    said = capsys.readouterr().out
    assert "it is better: val/fid 40 → 30" in said
    assert "outputs/exports/mine-longer/samples.png" in said
    assert "sweeps/mine/report.html" in said


def test_the_report_is_told_what_was_exported_and_what_the_judge_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("judged").mkdir()
    Path("judged/metrics.json").write_text('{"scores": {"val/fid": 30.0}}')
    judged_as(Path("judged"), 99.0)
    behave(export={"judged": "judged"})
    steps.run(config())
    found = Exported.read(Path("sweeps/mine"))
    assert found is not None
    assert (found.trial, found.run, found.bundle) == (3, "outputs/cats/mine/longer", "outputs/exports/mine-longer")
    assert (found.after["val/fid"], found.after["judge/fid"]) == (30.0, 99.0)
    assert found.before == {}  # of the fake's winner, which has no metrics.json
    assert found.remark.endswith("val/fid 40 → 30. The judge (dinov2_vits14) says judge/fid 99; real photos get 42.5.")
    assert "The judge (dinov2_vits14) says judge/fid 99" in capsys.readouterr().out
    assert found.budget == 300
    assert "report" not in found.spent


def test_a_trial_that_is_exported_as_it_was_is_told_to_the_report() -> None:
    behave(train={"fid": 50.0})
    steps.run(config())
    found = Exported.read(Path("sweeps/mine"))
    assert found is not None
    assert (found.run, found.bundle) == ("outputs/mine/3", "outputs/exports/mine-3")
    assert found.after == {"val/fid": 50.0}


def test_a_training_and_an_export_have_the_threads_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(resources, "cores", lambda: 8)
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(4))
    steps.run(config())
    assert lines("threads") == [["train", "2"], ["export", "2"]]


def test_it_tells_at_the_start_how_the_time_will_be_spent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(2))
    steps.run(config("budget=60"))
    said = capsys.readouterr().out
    told = said[: said.index("search and confirm,")]
    assert "how 1h00 will be spent" in told
    for part in ("search", "confirm", "train the best on", "export and report", "about 10 trials of 4.1 minutes"):
        assert part in told


def test_what_the_steps_before_leave_over_goes_to_the_training(commands: Path) -> None:
    steps.run(config("budget=60"))
    [minutes] = [float(word.partition("=")[2]) for word in words_of("train") if word.startswith("minutes=")]
    # All of the hour but for what the fakes took, the last steps, and a training's own start and end.
    assert 50 < minutes < 60 + state()["plan"]["minutes"]


@pytest.mark.parametrize(
    ("fake", "said"),
    [
        ({"fid": 50.0}, "no better, so it is taken as it was: val/fid 40 → 50"),
        ({"fid": float("nan")}, "no better"),
        ({"exit": 1}, "could not be trained on"),
        ({"signal": 9}, "signal 9"),
        ({"nothing": True}, "could not be trained on"),
    ],
)
def test_a_longer_training_that_is_worse_or_fails_is_not_taken_home(
    fake: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    behave(train=fake)
    steps.run(config())
    assert called() == ALL
    assert "run='outputs/cats/mine/winner'" in words_of("export")
    out = capsys.readouterr().out
    assert said in out
    assert "outputs/exports/mine-3/samples.png" in out


def trainings() -> dict[str, list[str]]:
    """Words of the trainings by the name of the folder that is trained in."""
    found = [(words, next(word for word in words if word.startswith("resume="))) for step, words in calls()
             if step == "train"]  # fmt: skip
    return {word.rpartition("/")[2].strip("'"): words for words, word in found}


def test_as_many_of_the_best_as_there_are_slots_are_trained_on_side_by_side(
    commands: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(2))
    behave(choose={"runners_up": [4, 5]}, **{"longer-4": {"fid": 25.0}})
    steps.run(config())
    words = trainings()
    assert set(words) == {"longer", "longer-4"}
    assert "trial.number=null" in words["longer-4"]
    assert [word for word in words["longer"] if "minutes" in word] == [
        word for word in words["longer-4"] if "minutes" in word
    ]
    assert "run='outputs/cats/mine/longer-4'" in words_of("export")
    out = capsys.readouterr().out
    best = (
        "Trained on, trial 4 is the best by val/fid, and no longer trial 3, the winner of the search. "
        "Trial 3: val/fid 40 → 30; trial 4: val/fid 41 → 25."
    )
    assert best in out
    assert "outputs/exports/mine-longer-4/samples.png" in out
    found = Exported.read(Path("sweeps/mine"))
    assert found is not None
    assert (found.trial, found.run) == (4, "outputs/cats/mine/longer-4")
    assert found.remark.startswith(best)
    for log in ("train", "train-4"):
        assert "this is train" in Path(f"outputs/cats/mine/{log}.log").read_text()


def test_of_several_that_are_better_the_judge_chooses(capsys: pytest.CaptureFixture[str],
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(3))
    for name, fid, judged in (("a", 30.0, 120.0), ("b", 25.0, 270.0), ("c", 45.0, 20.0)):
        Path(name).mkdir()
        Path(name, "metrics.json").write_text(json.dumps({"scores": {"val/fid": fid}}))
        judged_as(Path(name), judged, recorded={"val/fid": fid})
    behave(
        choose={"runners_up": [4, 5]},
        **{"longer": {"judged": "a"}, "longer-4": {"judged": "b"}, "longer-5": {"judged": "c"}},
    )
    network = Path("dinov2.onnx")
    network.touch()
    steps.run(config(f"judge.extractor.file={network}", "budget=30"))
    out = capsys.readouterr().out
    # The last is what the judge likes best, but no better by the score than what there was.
    assert "trial 3 is the best by judge/fid. Trial 3: val/fid 40 → 30, judge/fid 120; trial 4:" in out
    assert all("metrics/judge=auto" in words for words in trainings().values())
    assert "run='outputs/cats/mine/longer'" in words_of("export")


def test_one_that_cannot_be_trained_on_leaves_the_others(capsys: pytest.CaptureFixture[str],
                                                         monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(3))
    behave(choose={"runners_up": [4, 5]}, longer={"exit": 3}, **{"longer-5": {"nothing": True}})
    steps.run(config())
    assert "run='outputs/cats/mine/longer-4'" in words_of("export")
    out = capsys.readouterr().out
    assert "trial 4 is the best by val/fid, and no longer trial 3, the winner of the search. Trial 4: val/fid" in out
    assert "Trial 3 could not be trained on: Step 'train the best on' failed (exit code 3)." in out
    assert "Trial 5 could not be trained on: it has no scores." in out
    assert "When that is mended" not in out


def test_finalists_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(4, ["trainer=gpu", "hydra.sweeper.gpus_per_slot=0.5"]))
    monkeypatch.setattr(steps, "require", lambda words: None)
    monkeypatch.setattr(resources, "visible_gpus", lambda gpus: ["6", "7"])
    behave(choose={"runners_up": [4, 5]})
    steps.run(config())
    found = [Path(f"outputs/cats/mine/{name}/gpus").read_text() for name in ("longer", "longer-4", "longer-5")]
    assert found == ["6", "7", "6"]


def test_killed_while_several_train_all_are_stopped_and_go_on(commands: Path) -> None:
    behave(choose={"runners_up": [4]}, train={"waits": True})
    killed = start(commands, config('train=["trainer=cpu","hydra.sweeper.n_jobs=2"]'))
    wait_for(lambda: called().count("train") == 2)
    wait_for(lambda: all(Path(f"outputs/cats/mine/{log}.log").read_text() for log in ("train", "train-4")))
    killed.kill()
    killed.communicate()
    wait_for(lambda: Path("stopped").exists() and Path("stopped").read_text().count("\n") == 2)
    Path("outputs/cats/mine/longer/metrics.json").write_text('{"scores": {"val/fid": 33.0}}')  # one had ended
    behave(choose={"runners_up": [4]})
    steps.run(config('train=["trainer=cpu","hydra.sweeper.n_jobs=2"]'))
    assert called().count("train") == 3
    assert trainings()["longer-4"] == [words for step, words in calls() if step == "train"][-1]
    assert "trial 4 is the best by val/fid" in state()["done"]["train"]


def test_a_copy_that_was_stopped_between_its_score_and_the_judge_is_told(commands: Path) -> None:
    network, judge = Path("dinov2.onnx"), "judge.extractor.file=dinov2.onnx"
    network.touch()
    words = [judge, 'train=["trainer=cpu","hydra.sweeper.n_jobs=2"]', "budget=30"]
    behave(choose={"runners_up": [4]}, longer={"waits": True})
    killed = start(commands, config(*words))
    wait_for(Path("outputs/cats/mine/longer-4/metrics.json").exists)
    killed.kill()
    killed.communicate()
    Path("judged").mkdir()
    Path("judged/metrics.json").write_text(json.dumps({"scores": {"val/fid": 33.0}}))
    judged_as(Path("judged"), 100.0, recorded={"val/fid": 33.0})
    behave(choose={"runners_up": [4]}, longer={"judged": "judged"})
    steps.run(config(*words))
    said = state()["done"]["train"]
    assert "trial 4 is the best by val/fid" in said
    assert "The judge has not seen trial 4, so val/fid chose." in said


def test_a_process_that_fails_after_its_score_has_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(2))
    behave(choose={"runners_up": [4]}, **{"longer-4": {"fid": 20.0, "after": 1}})
    steps.run(config())
    assert "could not be trained on" not in state()["done"]["train"]
    assert "run='outputs/cats/mine/longer-4'" in words_of("export")


@pytest.mark.parametrize(
    ("given", "told"),
    [(["metrics/judge=onnx", "judge.extractor.file=mine.onnx"], True), (["metrics/judge=none"], False)],
)
def test_a_judge_of_the_trials_own_is_left_alone(given: list[str], told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(2))
    Path("dinov2.onnx").touch()
    behave(choose={"runners_up": [4]})
    steps.run(config(f"train={json.dumps(given)}", "judge.extractor.file=dinov2.onnx", "budget=30"))
    assert not any("judge" in word for words in trainings().values() for word in words)
    assert ("The judge has not seen trials 3 and 4" in state()["done"]["train"]) == told


@pytest.mark.security
def test_a_damaged_runner_up_costs_no_more_than_itself(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(4))
    behave(choose={"runners_up": [4, 5, 6]}, search={"exit": 1})
    with pytest.raises(TrainingError):
        steps.run(config())
    for number, part, text in ((4, ".hydra/overrides.yaml", "{: ["), (5, "checkpoints/best.ckpt", None)):
        file = Path(f"outputs/mine/{number}", part)
        file.parent.mkdir(parents=True)
        if text is None:
            file.symlink_to("/etc/passwd")
        else:
            file.write_text(text)
    behave(choose={"runners_up": [4, 5, 6]}, search={"keeps": True})
    steps.run(config())
    assert set(trainings()) == {"longer"}
    said = state()["done"]["train"]
    assert all(f"Trial {number} could not be trained on: " in said for number in (4, 5, 6))


def test_what_was_chosen_stays_chosen() -> None:
    behave(train={"fid": 30.0}, report={"exit": 1})
    with pytest.raises(TrainingError):
        steps.run(config())
    Path("outputs/cats/mine/longer/metrics.json").write_text('{"scores": {"val/fid": 99.0}}')
    behave()
    steps.run(config())
    found = Exported.read(Path("sweeps/mine"))
    assert found is not None
    assert found.run == "outputs/cats/mine/longer"


@pytest.mark.parametrize("torn", ["", "[1]"])
def test_a_choice_that_was_lost_is_made_again(torn: str, capsys: pytest.CaptureFixture[str]) -> None:
    steps.run(config())
    Path("outputs/cats/mine/winner/choice.json").write_text(torn)
    with pytest.raises(DataError, match="The same line chooses again"):
        steps.run(config())
    steps.run(config())
    assert called() == [*ALL, "choose"]
    assert "The export was moved" not in capsys.readouterr().out
    Path("outputs/exports/mine-longer/samples.png").unlink()
    steps.run(config())
    assert "The export was moved or removed: it was outputs/exports/mine-longer." in capsys.readouterr().out


def test_without_time_left_nothing_is_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ALONE", 10_000.0)
    monkeypatch.setattr(steps, "AROUND", 10_000.0)
    steps.run(config())
    assert called() == ["search", "choose", "export", "report"]
    assert "run='outputs/cats/mine/winner'" in words_of("export")


def test_a_finished_run_does_nothing_again(capsys: pytest.CaptureFixture[str]) -> None:
    steps.run(config())
    before = capsys.readouterr().out
    steps.run(config())
    assert called() == ALL
    assert capsys.readouterr().out.splitlines()[-4:] == before.splitlines()[-4:]


@pytest.mark.parametrize("step", ["search", "choose", "export", "report"])
def test_a_step_that_fails_is_told_with_its_last_lines_and_gone_on_with(step: str) -> None:
    behave(**{step: {"exit": 3}})
    with pytest.raises(TrainingError, match=r"exit code 3") as error:
        steps.run(config())
    assert rf"outputs/cats/mine/{step}.log" in str(error.value)
    assert r"Nothing works: [red]no\x1b[2J cats" in str(error.value)
    failed = called()
    behave()
    steps.run(config())
    assert called() == [*failed, *ALL[ALL.index(step) :]]


@pytest.mark.parametrize(
    ("step", "told"), [("choose", "The same line chooses again"), ("export", "Give the same line again")]
)
def test_a_step_that_says_it_is_done_and_is_not_is_noticed(step: str, told: str) -> None:
    behave(**{step: {"nothing": True}})
    with pytest.raises(DataError, match=told):
        steps.run(config())
    behave()
    steps.run(config())
    assert called()[-1] == "report"


def test_a_study_goes_on_with_the_hardware_that_it_has_begun_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(8, ["trainer=gpu", "hydra.sweeper.n_jobs=8"]))
    monkeypatch.setattr(steps, "require", lambda words: None)
    behave(search={"exit": 1})
    words = 'train=["hydra.sweeper.n_jobs=1"]'
    with pytest.raises(TrainingError):
        steps.run(config(words))
    monkeypatch.setattr(Hardware, "of", lambda *_: Hardware(2))
    behave()
    steps.run(config(words))
    search = words_of("search")
    places = [search.index(word) for word in ("trainer=gpu", "hydra.sweeper.n_jobs=8", "hydra.sweeper.n_jobs=1")]
    assert places == sorted(places)  # what is given comes last, and so counts
    assert state()["plan"]["slots"] == 8


def test_a_run_of_a_version_that_knew_no_hardware_goes_on_without() -> None:
    behave(search={"exit": 1})
    with pytest.raises(TrainingError):
        steps.run(config())
    found = state()
    del found["hardware"]
    Path("outputs/cats/mine/cats.json").write_text(json.dumps(found))
    behave()
    steps.run(config())
    assert called() == ["search", *ALL]


def test_a_search_whose_time_was_over_before_a_trial_began_is_given_more(monkeypatch: pytest.MonkeyPatch) -> None:
    behave(search={"exit": 1})
    monkeypatch.setattr(steps, "START_UNCHECKED", -1e6)
    monkeypatch.setattr(Plan, "timeout", 0.0)
    monkeypatch.setattr(Plan, "least_timeout", -1e6)
    with pytest.raises(TrainingError):
        steps.run(config())
    assert called() == ["search", "search"]


def test_a_start_during_the_confirmation_begins_no_other_trials() -> None:
    behave(search={"after": 1})  # it has left its trials
    with pytest.raises(TrainingError):
        steps.run(config())
    before = [word for word in words_of("search") if word.startswith("trials=")]
    Path("outputs/mine/confirm/0").mkdir(parents=True)
    behave()
    steps.run(config())
    assert int(before[0].removeprefix("trials=")) >= 100
    assert "trials=1" in words_of("search")  # as many as the leaderboard has


def start(commands: Path, cfg: DictConfig) -> subprocess.Popen[str]:
    line = [sys.executable, "-c", DRIVER, str(commands), json.dumps(OmegaConf.to_container(cfg))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    STARTED.append(subprocess.Popen(line, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return STARTED[-1]


@pytest.mark.parametrize("step", ["prepare", *ALL])
def test_killed_at_any_step_it_goes_on_and_leaves_no_process(commands: Path, step: str) -> None:
    every, words = ALL, []
    if step == "prepare":
        every, words = ["prepare", *ALL], ["source=photos", "size=32"]
        photo(Path("photos/1.png"), 1)
        photo(Path("photos/2.png"), 2)
        open_or_build(DemoCats(5), 32, "made", 0.2).path.rename("ready")
        Path("data/ready").mkdir(parents=True, exist_ok=True)
    behave(**{step: {"waits": True}})
    killed = start(commands, config(*words))
    wait_for(lambda: step in called() and Path(f"outputs/cats/mine/{step}.log").read_text())
    killed.kill()
    killed.communicate()
    wait_for(Path("stopped").exists)  # the step was asked to stop at a checkpoint
    behave()
    steps.run(config(*words))
    assert called() == [*every[: every.index(step) + 1], *every[every.index(step) :]]
    assert state()["starts"][step] == 2


def test_an_interruption_stops_the_step_at_a_checkpoint_and_keeps_the_time(commands: Path) -> None:
    behave(search={"waits": True})
    interrupted = start(commands, config())
    wait_for(lambda: "search" in called() and Path("outputs/cats/mine/search.log").read_text())
    interrupted.send_signal(signal.SIGINT)
    said, _ = interrupted.communicate()
    assert "Stopping at a checkpoint" in said
    assert Path("stopped").exists()
    assert state()["spent"]["search"] > 0
    assert "search" not in state()["done"]


def test_time_in_which_it_did_not_run_does_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    behave(search={"exit": 1})
    with pytest.raises(TrainingError):
        steps.run(config())
    found = state()
    found["spent"]["search"] = 40.0
    Path("outputs/cats/mine/cats.json").write_text(json.dumps(found))
    behave()
    capsys.readouterr()
    steps.run(config())
    assert "mine goes on: 4m20 are left of 5m00" in capsys.readouterr().out
    [timeout] = [float(word.partition("=")[2]) for word in words_of("search") if "timeout" in word]
    assert timeout <= Plan(**found["plan"]).timeout - 39
    assert 40 <= state()["spent"]["search"] < 40 + BOUND


def test_two_starts_do_not_work_beside_each_other(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(search={"waits": True})
    first = start(commands, config())
    wait_for(lambda: called() == ["search"])
    monkeypatch.setattr(steps, "PATIENCE", 0.0)
    with pytest.raises(ConfigError, match="Another process works in outputs/cats/mine"):
        steps.run(config())
    Path("go").touch()
    said, _ = first.communicate()
    assert first.returncode == 0, said
    assert called() == ALL


def test_another_line_under_the_same_name_is_refused() -> None:
    steps.run(config())
    with pytest.raises(ConfigError, match=r"budget: 5 → 6, train: \[\] → \['seed=1'\]"):
        steps.run(config("budget=6", 'train=["seed=1"]'))
    steps.run(config("budget=6", "name=other"))
    assert called() == [*ALL, *ALL]


@pytest.mark.security
@pytest.mark.parametrize(
    "damage",
    ["", "[]", "{}", '{"asked": 3}', "[" * 100_000, '{"asked": {}, "plan": {"rm": 1}, "spent": {}}',
     '{"asked": {}, "plan": null, "hardware": [], "spent": {"search": "x"}, "starts": {}, "done": {}}'],
)  # fmt: skip
def test_a_damaged_record_is_refused(damage: str) -> None:
    file = Path("outputs/cats/mine/cats.json")
    file.parent.mkdir(parents=True)
    file.write_text(damage)
    with pytest.raises(ConfigError, match=r"cats\.json is damaged"):
        steps.run(config())
    assert file.read_text() == damage


@pytest.mark.security
def test_a_trial_with_links_out_of_it_is_not_copied(tmp_path: Path) -> None:
    behave(train={"exit": 1})
    (tmp_path / "secret").write_text("mine")
    Path("outputs/mine/3/checkpoints").mkdir(parents=True)
    Path("outputs/mine/3/link").symlink_to(tmp_path / "secret")
    steps.run(config())
    assert not Path("outputs/cats/mine/longer").exists()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["source=nowhere"], "source=nowhere is not there"),
        (["source=empty"], r"no usable photo is there.*notes.txt"),
        (["source=one"], "at least 2, but 1 is there"),
        (["budget=1"], "budget of 1 minutes is too small"),
        (["size=10"], "multiple of 32 pixels; got size=10. Take size=32"),
        (["size=80"], "Take size=64 or 96"),
        (["name=../mine"], "must be a name"),
        (['train=["budget_unit=samples"]'], "train has budget_unit=samples, which follows from"),
        (['train=["trainer=cpu","+study=x"]'], r"train has \+study=x"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(words: list[str], error: str) -> None:
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no cat")
    photo(Path("one/a.png"))
    before = set(Path().rglob("*"))
    with pytest.raises((ConfigError, DataError), match=error):
        steps.run(config(*words))
    assert set(Path().rglob("*")) == before


def test_the_deepest_network_of_the_search_can_halve_every_size_that_is_taken() -> None:
    conf = Path(steps.__file__).parents[3] / "conf"
    sweep = (conf / "hparams_search/cats_optuna.yaml").read_text()
    [choices] = re.findall(r"^ +depth: choice\((.*)\)", sweep, re.M)
    deepest = max(OmegaConf.load(conf / f"depth/{name.strip()}.yaml").halvings for name in choices.split(","))
    assert deepest == steps.HALVINGS


def test_a_depth_that_is_given_decides_which_sizes_are_taken() -> None:
    with pytest.raises(DataError, match="source=nowhere is not there"):  # and no word of the size
        steps.run(config("size=48", "source=nowhere", 'train=["depth=shallow"]'))


def test_photos_are_prepared_first_and_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        photo(Path(f"my 'cats, 2/{number}.png"), number)
    ready = open_or_build(DemoCats(5), 32, "made", 0.2).path
    Path("data/ready").mkdir(parents=True)
    ready.rename("ready")
    word = r"""source="my 'cats, 2" """.strip()
    steps.run(config(word, "size=32", "name=null", 'prepare=["background=remove"]'))
    assert called() == ["prepare", *ALL]
    assert words_of("prepare") == [
        "data=photos", r"data.source='my \'cats, 2'", "name='my-cats-2'", "size=32", "background=remove"
    ]  # fmt: skip
    assert {"data=ready", "data.source='data/ready/my-cats-2-32'", "study='my-cats-2-5min'"} <= set(words_of("search"))
    said = capsys.readouterr().out
    assert "5 images are ready; data/ready/my-cats-2-32/report.html shows them. So few are learned by heart" in said
    assert "4 of 4 photos were taken whole: a face was found for sure in none." in said
    assert 'To cut to the face all the same: prepare=["zoom.whole=never"].' in said


def test_photos_that_another_preparation_has_replaced_are_prepared_again(capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        photo(Path(f"cats/{number}.png"), number)
    own, other = (open_or_build(DemoCats(n), 32, "made", 0.2).path for n in (5, 6))
    place = Path("data/ready/mine-32")
    place.parent.mkdir(parents=True)
    shutil.copytree(own, "ready")
    behave(search={"exit": 3})
    with pytest.raises(TrainingError):
        steps.run(config("source=cats", "size=32"))
    shutil.rmtree(place)
    shutil.copytree(other, place)
    shutil.copytree(other, "ready")
    with pytest.raises(ConfigError, match=r"cats makes other images than when this run began\. .* name=NAME"):
        steps.run(config("source=cats", "size=32"))
    shutil.copytree(own, "ready")
    behave()
    steps.run(config("source=cats", "size=32"))
    assert called() == ["prepare", "search", "prepare", "prepare", *ALL]
    assert "data/ready/mine-32 was replaced or removed, so the photos are prepared again." in capsys.readouterr().out


def test_a_best_model_whose_photos_are_gone_is_exported_as_it_was() -> None:
    for number in range(4):
        photo(Path(f"cats/{number}.png"), number)
    open_or_build(DemoCats(5), 32, "made", 0.2).path.rename("ready")
    Path("data/ready").mkdir(parents=True, exist_ok=True)
    behave(choose={"exit": 3})
    with pytest.raises(TrainingError):
        steps.run(config("source=cats", "size=32"))
    shutil.rmtree("data/ready/mine-32")
    open_or_build(DemoCats(6), 32, "made", 0.2).path.rename("ready")
    behave()
    steps.run(config("source=cats", "size=32"))
    assert called() == ["prepare", "search", "choose", "choose", "prepare", "export", "report"]
    assert "is taken as it was: cats makes other images than when this run began" in state()["done"]["train"]


def test_a_run_that_is_named_prepares_photos_of_that_name_and_nobody_names_them_otherwise() -> None:
    for number in range(4):
        photo(Path(f"cats/{number}.png"), number)
    with pytest.raises(ConfigError, match=r"prepare has size=64, which follows from .* give those"):
        steps.run(config("source=cats", "prepare=['size=64']"))
    assert called() == []
    open_or_build(DemoCats(5), 32, "made", 0.2).path.rename("ready")
    Path("data/ready").mkdir(parents=True, exist_ok=True)
    steps.run(config("source=cats", "size=32"))
    assert "name='mine'" in words_of("prepare")


@pytest.mark.trains
def test_the_real_commands_make_an_export_and_a_report(
    monkeypatch: pytest.MonkeyPatch, graphs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(steps, "COMMANDS", ROOT / "src")
    monkeypatch.setattr(steps, "LEAST_MORE", -1e6)  # on a busy machine no time may be left
    monkeypatch.setattr("catsweep.cats.plan.SHORTEST", 6.0)  # seconds to which the best are trained on; trials have 3
    tiny = [
        "data.reader.n=48", "data.batch_size=8", "depth.halvings=3", "width.channels=4", "width.max_channels=8",
        f"metrics.cache_root={graphs}", "metrics.samples=16", "metrics.rung_samples=16",
        "trainer.threads=1", "trainer.precision=32-true", "logger=none", "hydra.sweeper.n_jobs=2", "trials=2",
        "minutes=0.05", "model=vae", "model.adversarial.weight=0",
    ]  # fmt: skip
    words = ",".join(json.dumps(word) for word in tiny)
    steps.run(config("budget=1.9", "size=32", f"train=[{words}]"))
    said = capsys.readouterr().out
    assert re.search(r"Trained on, .*Trial \d: val/fid .*; trial \d: val/fid", said)  # two side by side
    [bundle] = Path("outputs/exports").iterdir()
    assert f"{bundle}/samples.png" in said
    assert (bundle / "generator.onnx").is_file()
    assert Path("sweeps/mine/report.html").is_file()
