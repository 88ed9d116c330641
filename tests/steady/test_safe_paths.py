"""Folders of strangers whose links lead to the user's files: nothing goes on in them, and no pipe is waited for."""

import os
from pathlib import Path

import pytest
from optuna.trial import create_trial

from catsweep.data.ready import CARD, ReadySet
from catsweep.records import read_json
from catsweep.runs import run_folder
from catsweep.untrusted_config import read
from steady import safe_paths
from steady.exceptions import ConfigError, DataError, SteadyError, StudyError
from steady.safe_paths import checked_name
from steady.study.artifacts import Store
from steady.study.trial_folders import Folders

pytestmark = pytest.mark.security


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "2026-01-01" / "10-00-00"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "checkpoints/last.ckpt"):
        (folder / name).touch()
    (tmp_path / "home").mkdir()
    return folder


@pytest.mark.parametrize("name", ["train.log", ".hydra", "samples", "checkpoints/best.ckpt", "wandb", "a/b/c"])
@pytest.mark.parametrize("to", ["home", "absent"])
def test_a_run_with_a_link_out_of_it_is_not_gone_on_with(run: Path, tmp_path: Path, name: str, to: str) -> None:
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).symlink_to(tmp_path / to)
    for resume in (str(run), True):
        with pytest.raises(ConfigError, match=rf"{name} is a link out of the run, to .*{to}, .*cp -rL"):
            run_folder(resume, tmp_path / "runs")


def test_a_run_with_a_pipe_is_not_gone_on_with(run: Path) -> None:
    os.mkfifo(run / "train.log")
    with pytest.raises(ConfigError, match=r"train\.log is no file, but a pipe"):
        run_folder(str(run))


def test_links_of_wandb_and_of_the_user_are_followed(run: Path, tmp_path: Path) -> None:
    logs = run / "wandb" / "offline-run-1-a" / "logs"
    logs.mkdir(parents=True)
    (run / "wandb" / "latest-run").symlink_to("offline-run-1-a")
    (run / "wandb" / "debug.log").symlink_to("offline-run-1-a/logs/debug.log")
    (logs / "debug-core.log").symlink_to(tmp_path / "cache" / "core.log")
    (tmp_path / "outputs").symlink_to(tmp_path / "runs")
    folder = str(tmp_path / "outputs" / "2026-01-01" / "10-00-00")
    assert run_folder(folder) == folder


@pytest.mark.parametrize("name", ["2", "2/.hydra", "2/.hydra/config.yaml", "2/task.log"])
def test_no_trial_works_where_a_link_leads_out(tmp_path: Path, name: str) -> None:
    base = tmp_path / "disk"
    (base / name).parent.mkdir(parents=True)
    (tmp_path / "home").mkdir()
    (base / name).symlink_to(tmp_path / "home")
    (tmp_path / "out").symlink_to(base)  # which is the user's own
    trial = create_trial(value=0.0)
    folders = Folders(tmp_path / "out")
    trial.number = 2
    with pytest.raises(StudyError, match="is a link out of the"):
        folders.of(trial)
    trial.number = 1
    (base / "1").mkdir()
    (base / "1" / "data").symlink_to(tmp_path / "home")  # which the task itself may have made
    assert folders.of(trial) == tmp_path / "out" / "1"


def test_only_files_of_the_study_are_artifacts(tmp_path: Path) -> None:
    folder = tmp_path / "study" / "artifacts"
    folder.mkdir(parents=True)
    (tmp_path / "secret").write_text("x")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "study").symlink_to("../study.db")
    os.mkfifo(folder / "pipe")
    for name in ("link", "study", "pipe"):
        with pytest.raises(StudyError, match=r"is a link out|is no file"):
            Store(folder).open_reader(name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "artifacts").symlink_to(tmp_path)
    with pytest.raises(StudyError, match="is a link out"):
        Store(tmp_path / "other" / "artifacts").open_reader("secret")


def test_no_reader_waits_for_a_pipe(tmp_path: Path) -> None:
    for name in (CARD, "config.yaml"):
        os.mkfifo(tmp_path / name)
    for reads in (lambda: read_json(tmp_path / CARD), lambda: ReadySet.open(tmp_path)):
        with pytest.raises(DataError, match="is no file, but a pipe"):
            reads()
    with pytest.raises(SteadyError, match="is no file, but a pipe"):
        read(tmp_path / "config.yaml")
    with pytest.raises(DataError, match="a device"):
        safe_paths.require_regular(Path("/dev/zero"))


@pytest.mark.parametrize("name", ["-rf", "--help", "-", "\uff0drf"])
def test_a_name_is_no_option(name: str) -> None:
    with pytest.raises(ConfigError, match="as the options"):
        checked_name(name, "study")
