import re
from datetime import datetime
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from catsweep import run_folder
from catsweep.run_folder import LAST_CHECKPOINT, SCORES, latest_unfinished
from catsweep.run_folder import run_folder as folder_for


@pytest.fixture
def make_run(tmp_path):
    def make(name, checkpoint=True, finished=False):
        run = tmp_path / name
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


def test_resume_with_nothing_to_continue_names_a_new_folder(tmp_path, make_run):
    run = make_run("2026-02-01/10-00-00", finished=True)
    folder = folder_for(True, tmp_path)
    assert folder != str(run)
    assert folder.startswith(str(tmp_path))


def test_resume_takes_the_name_of_a_run_literally(tmp_path, make_run):
    make_run("2026-02-01/10-00-00")
    assert folder_for("outputs/runs/elsewhere", tmp_path) == "outputs/runs/elsewhere"


def test_the_resolver_names_one_folder_per_start_and_passes_resume_on(tmp_path, monkeypatch, make_run):
    monkeypatch.chdir(tmp_path)
    run_folder.register()
    names = iter(["first", "second"])
    monkeypatch.setattr(run_folder, "datetime", type("Clock", (), {"now": staticmethod(lambda: Clock(next(names)))}))
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
