"""The program in an allocation: whose trial it runs, when it leaves, what it unpickles."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import optuna
import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.types import HydraContext
from omegaconf import DictConfig
from optuna.trial import TrialState, create_trial

from steady.jobs import allocation as module
from steady.jobs.allocation import Allocation, main
from steady.jobs.executor import Job, ProcessExecutor, Shared
from steady.jobs.job_files import JobFiles, Orders, Report, new_folder, write_shared
from steady.storage import open_storage
from steady.study import meta
from steady.study.failures import Kind

pytestmark = pytest.mark.usefixtures("by_value")

URL = "sqlite:///study.db"


class Evil:
    """When it is unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.mark,)


Make = Callable[..., Allocation]


@pytest.fixture(autouse=True)
def no_job_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation is no job of Hydra's: paths are not relative to where one was started."""
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)


@pytest.fixture
def make(app: tuple[HydraContext, DictConfig]) -> Iterator[Make]:
    context, config = app
    made = []

    def one(task: Callable[[DictConfig], object] = lambda cfg: 1.0) -> Allocation:
        folder = new_folder(Path("jobs").absolute()) / "1"
        folder.mkdir()
        made.append(ProcessExecutor(Shared.of(context, task, config), 1, gpus=[]))
        return Allocation(JobFiles(folder), made[-1], URL)

    yield one
    for executor in made:
        executor.close()


@pytest.fixture
def study(app: tuple[HydraContext, DictConfig]) -> optuna.Study:
    made = optuna.create_study(study_name="cats", storage=open_storage(URL))
    made.add_trial(create_trial(state=TrialState.RUNNING, user_attrs={meta.ATTEMPT: 1}))
    return made


def served(allocation: Allocation, job: Job) -> Report:
    allocation.files.give(Orders("us", "slurm", "17", 1, job, more=False))
    allocation.serve()
    return allocation.files.report()


def job(attempt: int = 0, study: str = "cats") -> Job:
    return Job(0, (), Path("out/0"), study, attempt)


def test_a_job_says_on_its_trial_where_it_runs(
    make: Make, study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "17")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    before = time.time()
    report = served(make(), job(attempt=1))
    assert (report.begun, report.ended, report.left, report.outcome and report.outcome.value) == (1, 1, True, 1.0)
    told = study.trials[0].user_attrs[meta.JOB]
    assert (told["engine"], told["id"], told["attempt"], told["pid"]) == ("slurm", "17_3", 1, os.getpid())
    assert told["started"] < before < told["began"]
    assert told["host"] == report.host


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.WAITING, TrialState.COMPLETE])
def test_a_trial_that_another_attempt_has_is_not_touched(make: Make, study: optuna.Study, state: TrialState) -> None:
    value = 1.0 if state == TrialState.COMPLETE else None
    study.add_trial(create_trial(state=state, value=value, user_attrs={meta.ATTEMPT: 1}))
    theirs = Job(1, (), Path("out/1"), "cats", 0 if state == TrialState.RUNNING else 1)
    outcome = served(make(), theirs).outcome
    assert outcome is not None
    assert (outcome.kind, "has taken trial 1 over" in outcome.message) == (Kind.LOST, True)
    assert not Path("out/1").exists()
    assert meta.JOB not in study.trials[1].user_attrs


def test_a_job_that_was_taken_back_does_not_begin(make: Make, study: optuna.Study) -> None:
    allocation = make()
    allocation.files.give(Orders("us", "slurm", "17", 1, job(attempt=1), more=False, stop=True))
    allocation.serve()
    report = allocation.files.report()
    assert report.outcome is not None
    assert report.outcome.kind == Kind.INTERRUPTED
    assert not Path("out/0").exists()


def test_an_allocation_without_a_job_leaves_after_a_while(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    allocation = make()
    allocation.files.give(Orders("us", "slurm", "17"))
    monkeypatch.setattr(module, "IDLE", 0.3)
    allocation.serve()
    assert allocation.files.report() == Report(allocation.report.host, os.getpid(), left=True)


def test_a_signal_before_a_job_ends_it_without_one(make: Make) -> None:
    allocation = make()
    allocation.terminate()
    report = served(allocation, job(study=""))
    assert (report.begun, report.left) == (0, True)


def test_a_study_that_cannot_be_read_is_no_fault_of_the_trial(make: Make) -> None:
    outcome = served(make(), job()).outcome
    assert outcome is not None
    assert outcome.kind == Kind.LOST


@pytest.mark.security
def test_only_the_pickle_of_its_own_controller_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder, mark = new_folder(tmp_path / "jobs"), tmp_path / "mark"
    digest = write_shared(folder, {"cwd": "/"}, b"")
    write_shared(folder, {"cwd": "/"}, cloudpickle.dumps(Evil(mark)))
    with pytest.raises(ValueError, match="is not what the controller has written"):
        main(folder / "1", digest)
    assert not mark.exists()
    done = subprocess.run(
        [sys.executable, "-m", "steady.jobs.allocation", str(folder / "1"), digest], capture_output=True, check=False
    )
    assert (done.returncode, mark.exists()) == (1, False)
