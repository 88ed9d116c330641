import re
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from catsweep import runs
from catsweep.errors import ConfigError
from catsweep.runs import LAST_CHECKPOINT, PREVIOUS_CHECKPOINT, SCORES, latest_unfinished
from catsweep.runs import run_folder as folder_for


@pytest.fixture
def make_run(tmp_path):
    def make(name, checkpoint=True, finished=False):
        run = tmp_path / name
        run.mkdir(parents=True)
        (run / "config.yaml").touch()
        for file, wanted in ((run / LAST_CHECKPOINT, checkpoint), (run / SCORES, finished)):
            file.parent.mkdir(parents=True, exist_ok=True)
            if wanted:
                file.touch()
        return run

    return make


def test_without_runs_there_is_nothing_to_continue(tmp_path):
    assert latest_unfinished(tmp_path / "absent") is None
    assert latest_unfinished(tmp_path) is None


def test_the_newest_of_the_unfinished_runs_is_continued_whatever_was_touched_last(tmp_path, make_run):
    newest = make_run("2026-02-01/00-00-01")
    make_run("2026-01-31/23-59-59")
    make_run("2025-12-31/23-59-59")
    assert latest_unfinished(tmp_path) == newest


def test_finished_runs_and_runs_without_a_checkpoint_are_passed_over(tmp_path, make_run):
    make_run("2026-02-03/10-00-00", finished=True)
    make_run("2026-02-02/10-00-00", checkpoint=False)
    unfinished = make_run("2026-02-01/10-00-00")
    assert latest_unfinished(tmp_path) == unfinished


def test_a_new_run_goes_into_a_folder_of_its_date_and_time_although_another_is_unfinished(tmp_path, make_run):
    make_run("2026-02-01/10-00-00")
    before = datetime.now().replace(microsecond=0)
    folder = folder_for(False, tmp_path)
    assert re.fullmatch(rf"{re.escape(str(tmp_path))}/\d{{4}}-\d\d-\d\d/\d\d-\d\d-\d\d", folder)
    named = datetime.strptime(folder.removeprefix(f"{tmp_path}/"), "%Y-%m-%d/%H-%M-%S")
    assert before <= named <= datetime.now()


@pytest.mark.parametrize("resume", [False, None])
def test_unless_asked_for_nothing_is_resumed(tmp_path, make_run, resume):
    run = make_run("2026-02-01/10-00-00")
    assert folder_for(resume, tmp_path) != str(run)


def test_resume_goes_on_in_the_latest_unfinished_run(tmp_path, make_run):
    run = make_run("2026-02-01/10-00-00")
    assert folder_for(True, tmp_path) == str(run)


@pytest.mark.security
def test_resume_with_nothing_to_continue_is_refused(tmp_path, make_run):
    make_run("2026-02-01/10-00-00", finished=True)
    with pytest.raises(ConfigError, match=r"expected an unfinished run .*found none\. Start"):
        folder_for(True, tmp_path)


def test_resume_takes_the_name_of_a_run_literally(tmp_path, monkeypatch, make_run):
    make_run("2026-02-01/10-00-00")
    make_run("elsewhere/mine", finished=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_for("elsewhere/mine", tmp_path) == "elsewhere/mine"
    assert folder_for("~/elsewhere/mine", tmp_path) == f"{tmp_path}/elsewhere/mine"


@pytest.mark.security
def test_a_run_with_only_the_checkpoint_before_the_last_can_be_continued(make_run, tmp_path):
    run = make_run("2026-02-01/10-00-00")
    (run / LAST_CHECKPOINT).rename(run / PREVIOUS_CHECKPOINT)
    assert latest_unfinished(tmp_path) == run
    assert folder_for(str(run), tmp_path) == str(run)


@pytest.fixture
def project(tmp_path, monkeypatch, make_run):
    """A folder with a run that can be continued, a finished one, and what is mistaken for them."""
    make_run("outputs/runs/2026-02-01/10-00-00")
    make_run("outputs/runs/2026-01-01/10-00-00", finished=True)
    make_run("outputs/runs/2026-01-02/10-00-00", checkpoint=False)
    for trial in ("0", "1"):
        make_run(f"outputs/mine/{trial}")
    best = make_run("outputs/best_model", checkpoint=False, finished=True)
    (best / "choice.json").touch()
    (tmp_path / "outputs/exports/mine-0").mkdir(parents=True)
    for name in ("generator.onnx", "config.yaml"):
        (tmp_path / "outputs/exports/mine-0" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


MISTYPED = {
    "outputs/runs/2026-02-01/10-00-0": r"nothing of that name\. Runs of like names: outputs/runs/2026-02-01/10-00-00",
    "outputs/runs/2026-01-01/10-00-01": r"Runs of like names: outputs/runs/2026-01-01/10-00-00",
    "zzz": r"nothing of that name\. Unfinished runs: outputs/runs/2026-02-01/10-00-00$",
    "": "an empty name",
    " ": "an empty name",
    ".": r"that one has no config\.yaml",
    "/": r"that one has no config\.yaml",
    "outputs/runs/2026-02-01": r"that one has no config\.yaml",
    "outputs/mine": "the folder of a sweep",
    "outputs/exports/mine-0": "an exported bundle",
    "outputs/best_model": "the best model of a study",
    "outputs/runs/2026-01-02/10-00-00": "it ended before its first epoch did",
    "outputs/runs/2026-02-01/10-00-00/checkpoints/last.ckpt": "a file. The run it is of: resume=outputs/runs/2",
    "outputs/runs/2026-02-01/10-00-00/config.yaml": "a file. The run it is of: resume=outputs/runs/2026-02-01/1",
    "a" * 300: "cannot be looked up|nothing of that name",
    "a\0b": "cannot be looked up|nothing of that name",
    "\u2026": "nothing of that name",
}


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.security
@pytest.mark.parametrize("name", MISTYPED, ids=repr)
def test_a_name_that_is_no_run_is_refused_before_anything_is_made(project, name):
    before = everything(project)
    with pytest.raises(ConfigError, match=MISTYPED[name]) as raised:
        folder_for(name)
    assert str(raised.value).startswith(f"resume={name}: expected the folder of a run; ")
    assert everything(project) == before


@pytest.mark.security
@pytest.mark.parametrize("value", [3, 0, 1.5, ["a"], {"a": 1}])
def test_what_is_no_name_is_refused_too(project, value, capsys):
    runs.register()
    cfg = OmegaConf.create({"resume": value, "dir": "${run_folder:${resume}}"})
    with pytest.raises(SystemExit) as ended:
        _ = cfg.dir
    assert ended.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ConfigError: resume must be true, false or the folder of a run; got ")


@pytest.mark.security
def test_two_processes_do_not_go_on_with_the_same_run(project):
    run = "outputs/runs/2026-02-01/10-00-00"
    with runs.alone(Path(run)):
        for resume, said in ((run, "another process works in it"), (True, f"{run} is being run")):
            with pytest.raises(ConfigError, match=said):
                folder_for(resume)
        with pytest.raises(ConfigError, match=f"Another process works in {run}"), runs.alone(Path(run)):
            pass
    assert folder_for(True) == folder_for(run) == run
    with runs.alone(Path(run)):
        pass


@pytest.mark.security
@pytest.mark.parametrize("target", ["victim", "absent", None])
def test_a_lock_that_a_stranger_made_writes_nothing_elsewhere(tmp_path, target):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "victim").write_text("precious")
    (run / ".lock").symlink_to(tmp_path / target) if target else (run / ".lock").mkdir()
    assert not runs.is_taken(run)
    with pytest.raises(ConfigError, match=r"\.lock cannot be locked.*Remove what is there"), runs.alone(run):
        pass
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "absent").exists()


@pytest.mark.security
def test_a_run_that_is_being_run_is_passed_over_for_one_that_was_stopped(project, make_run):
    running = make_run("outputs/runs/2026-03-01/10-00-00")
    assert latest_unfinished().resolve() == running
    with runs.alone(running):
        assert folder_for(True) == "outputs/runs/2026-02-01/10-00-00"


@pytest.mark.security
def test_the_command_writes_nothing_for_a_mistyped_name(root, tmp_path):
    command = [sys.executable, str(root / "src" / "train.py"), "resume=outputs/runs/2026-01-01/00-00-00"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "ConfigError: resume=outputs/runs/2026-01-01/00-00-00: expected the folder of a run; there is nothing of that "
        "name. No run is unfinished: leave resume out.\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_resolver_names_one_folder_per_start_and_passes_resume_on(tmp_path, monkeypatch, make_run):
    monkeypatch.chdir(tmp_path)
    runs.register()
    names = iter(["first", "second"])
    monkeypatch.setattr(runs, "datetime", type("Clock", (), {"now": staticmethod(lambda: Clock(next(names)))}))
    cfg = OmegaConf.create({"resume": False, "dir": "${run_folder:${resume}}"})
    assert cfg.dir == cfg.copy().dir == OmegaConf.create(cfg).dir == "outputs/runs/first"

    unfinished = make_run("outputs/runs/2026-02-01/10-00-00")
    cfg = OmegaConf.create({"resume": True, "dir": "${run_folder:${resume}}"})
    assert tmp_path / cfg.dir == unfinished


class Clock:
    """A time that prints as a name."""

    def __init__(self, name):
        self.name = name

    def __format__(self, spec):
        return self.name


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    folders = []
    for _ in range(3):
        folders.append(Path(folder_for(False, tmp_path)))
        folders[-1].mkdir(parents=True)
    assert len(set(folders)) == 3


@pytest.mark.security
@pytest.mark.parametrize("resume", [True, "outputs/runs/a"])
def test_hydra_writes_nothing_into_a_run_that_is_to_go_on(root, resume):
    runs.register()
    cfg = OmegaConf.create({"resume": resume, "hydra": OmegaConf.load(root / "conf/train.yaml").hydra})
    assert cfg.hydra.output_subdir is None
    cfg.resume = False
    assert cfg.hydra.output_subdir == ".hydra"
    assert OmegaConf.load(root / "conf/hydra/job_logging/catsweep.yaml").handlers.file.delay


@pytest.mark.security
def test_runs_of_like_names_are_named_wherever_they_are(project, make_run):
    make_run("r/base")
    with pytest.raises(ConfigError, match=r"Runs of like names: r/base$"):
        folder_for("r/bse")
