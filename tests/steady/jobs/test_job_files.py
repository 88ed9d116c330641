"""The files of jobs, and what becomes of them when all jobs have ended."""

from pathlib import Path

import pytest

from steady.jobs.executor import Job
from steady.jobs.job_files import ORDERS, OUTPUT, SHARED, JobFiles, Orders, Report, TrialFiles, clear, new_folder
from steady.jobs.job_files import write_shared as write


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """What a controller leaves that was killed while its second allocation waited for a job."""
    root = tmp_path / "jobs"
    folder = new_folder(root)
    write(folder, {}, b"pickle")
    for number in (1, 2):
        files = JobFiles(folder / str(number))
        files.give(Orders(folder.name, "slurm", str(number), 1, Job(number, (), Path("out"), "cats")))
        TrialFiles(root).assign(Job(number, (), Path("out"), "cats"), files.folder, 1)
        files.tell(Report(begun=1))
        assert files.take()
        (files.folder / OUTPUT).write_text("said")
    return root


def test_all_that_a_controller_left_is_removed(jobs: Path) -> None:
    clear(jobs)
    assert not jobs.exists()
    clear(jobs)


def test_the_log_of_a_job_that_never_began_stays(jobs: Path) -> None:
    (files,) = (JobFiles(path) for path in jobs.glob("*/2"))
    files.tell(Report())
    clear(jobs)
    assert [path.name for path in jobs.rglob("*") if path.is_file()] == [OUTPUT]


@pytest.mark.security
def test_what_we_did_not_make_stays(jobs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "1").mkdir(parents=True)
    for name in (SHARED, "1/" + ORDERS, "3-0.json"):
        (tmp_path / "mine" / name).touch()
    (jobs / "notes.txt").touch()
    (jobs / "thesis").mkdir()
    (jobs / "trials" / "cats" / "notes.json").touch()
    clear(jobs)
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert left == [
        "jobs/notes.txt", "jobs/trials/cats/notes.json", "mine/1/orders.json", "mine/3-0.json", "mine/shared",
    ]  # fmt: skip


@pytest.mark.security
def test_what_is_no_file_of_ours_under_such_a_name_stays_and_is_no_error(jobs: Path) -> None:
    (jobs / ("a" * 12)).touch()
    (jobs / ("b" * 12) / SHARED).mkdir(parents=True)
    clear(jobs)
    assert sorted(path.name for path in jobs.rglob("*")) == ["a" * 12, "b" * 12, SHARED]


@pytest.mark.security
def test_a_number_that_is_not_finite_makes_a_file_unreadable(tmp_path: Path) -> None:
    files = JobFiles(tmp_path)
    files.give(Orders("a", "slurm", sequence=1))
    files.tell(Report(beat=1))
    for path in tmp_path.iterdir():
        path.write_text(path.read_text().replace("1", "Infinity"))
    assert files.orders() is None
    assert files.report() == Report()
