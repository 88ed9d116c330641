"""Real processes: what they return, how they die, what they leave behind."""

import multiprocessing.forkserver
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.core.plugins import Plugins
from hydra.experimental.callback import Callback
from hydra.types import HydraContext
from omegaconf import DictConfig
from tests import hostile

from steady.exceptions import ConfigError
from steady.jobs import executor as module
from steady.jobs import worker
from steady.jobs.executor import Job, ProcessExecutor, Shared
from steady.options import TrialTimeout
from steady.study.failures import Kind, Outcome

pytestmark = pytest.mark.usefixtures("by_value")

Make = Callable[..., ProcessExecutor]


@pytest.fixture
def make(app: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    context, config = app
    made: list[ProcessExecutor] = []

    def one(
        task: Callable[[DictConfig], Any],
        slots: int = 1,
        preload: Sequence[str] = (),
        launcher: bool = False,
        **keys: Any,
    ) -> ProcessExecutor:
        made.append(ProcessExecutor(Shared.of(context, task, config, preload, launcher), slots, **keys))
        return made[-1]

    yield one
    for executor in made:
        executor.close()


def job(number: int = 0, *overrides: str) -> Job:
    return Job(number, overrides, Path(f"out/{number}"))


def end(executor: ProcessExecutor) -> Outcome:
    while not (ended := executor.wait(60.0)):
        pass
    [(_, outcome)] = ended
    return outcome


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(what: Callable[[], bool]) -> None:
    while not what():
        time.sleep(0.01)


def test_each_job_is_a_process_of_its_own_with_its_own_configuration(make: Make) -> None:
    executor = make(lambda cfg: [cfg.x, os.getpid(), os.getpgid(0)], slots=2)
    assert [executor.submit(job(0, "x=1.5")), executor.submit(job(1, "x=2.5"))] == [0, 1]
    assert {slot: one.number for slot, one in executor.running().items()} == {0: 0, 1: 1}
    values: dict[int, Any] = {}
    while executor.running():
        values |= {one.number: outcome.value for one, outcome in executor.wait(60.0)}
    assert [values[0][0], values[1][0]] == [1.5, 2.5]
    assert len({os.getpid(), values[0][1], values[1][1]}) == 3
    assert all(pid == group for _, pid, group in values.values())


def test_a_prepared_job_is_composed_and_runs_when_it_is_submitted(make: Make) -> None:
    executor = make(lambda cfg: [cfg.x, os.getppid()])
    executor.prepare(job(3, "x=2.5"))
    executor.prepare(job(4, "x=3.5"))
    forgotten = executor.prepared[4].process.pid
    ready = executor.prepared[3].process.pid
    assert not executor.running()
    executor.forget(4)
    executor.forget(5)
    assert gone(forgotten)
    executor.submit(job(3, "x=2.5"))
    assert end(executor).value == [2.5, ready]


def test_hydra_has_written_the_files_of_a_prepared_job_before_it_has_a_slot(make: Make) -> None:
    executor = make(lambda cfg: Path("begun").touch())
    executor.prepare(job(3, "x=2.5"))
    wait_for(lambda: Path("out/3/.hydra/overrides.yaml").exists())
    assert "x: 2.5" in Path("out/3/.hydra/config.yaml").read_text()
    assert not Path("begun").exists()
    executor.submit(job(3, "x=2.5"))
    assert end(executor).kind == Kind.COMPLETE


class Starts(Callback):
    """Notes on what GPU a job starts."""

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        Path("started").write_text(os.environ["CUDA_VISIBLE_DEVICES"])


def test_hydra_calls_back_when_the_job_starts_and_not_when_it_is_prepared(
    make: Make, app: tuple[HydraContext, DictConfig]
) -> None:
    app[0].callbacks.callbacks.append(Starts())
    executor = make(lambda cfg: Path("started").read_text(), gpus=["the slot's"])
    executor.prepare(job())
    executor.submit(job())
    assert end(executor).value == "the slot's"


def test_a_job_that_cannot_begin_says_so_when_it_has_a_slot(make: Make) -> None:
    executor = make(lambda cfg: 0.5)
    executor.prepare(job(0, "unknown=1"))
    executor.prepare(job(1))
    executor.submit(job(0, "unknown=1"))
    assert "unknown" in end(executor).message
    executor.submit(job(1))
    assert end(executor).value == 0.5


def test_plugins_are_looked_for_once_for_all_jobs(make: Make) -> None:
    executor = make(lambda cfg: Plugins.instance().stats.total_time, slots=2)
    executor.submit(job(0))
    executor.submit(job(1))
    taken: list[Any] = []
    while executor.running():
        taken += [outcome.value for _, outcome in executor.wait(60.0)]
    assert taken[0] == taken[1]


def test_a_job_sees_the_variables_of_its_slot_not_those_it_was_prepared_with(
    make: Make, app: tuple[HydraContext, DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "the controller's")
    app[1].hydra.overrides.hydra.append("hydra.job.env_copy=[CUDA_VISIBLE_DEVICES]")
    executor = make(lambda cfg: os.environ["CUDA_VISIBLE_DEVICES"], gpus=["the slot's"])
    executor.prepare(job())
    executor.submit(job())
    assert end(executor).value == "the slot's"


def test_a_job_in_a_job_of_slurm_is_none_of_its_tasks(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (hostile.SLURM | hostile.TORCHRUN).items():
        monkeypatch.setenv(name, value)
    executor = make(lambda cfg: [name for name in os.environ if re.search("RANK|TASK|PROCID|LOCALID|WORLD", name)])
    executor.submit(job())
    assert end(executor).value == []


def test_a_prepared_process_that_died_is_replaced(make: Make) -> None:
    executor = make(lambda cfg: cfg.x)
    executor.prepare(job(0, "x=2.5"))
    executor.prepared[0].process.kill()
    executor.prepared[0].process.join()
    executor.submit(job(0, "x=2.5"))
    assert end(executor).value == 2.5


def test_what_is_wrong_with_a_prepared_job_is_told_as_its_end(make: Make) -> None:
    executor = make(lambda cfg: cfg.x)
    executor.prepare(job(0, "nonsense=1"))
    executor.submit(job(0, "nonsense=1"))
    outcome = end(executor)
    assert outcome.kind == Kind.FAILED
    assert "nonsense" in outcome.message


def test_a_slot_is_free_when_its_process_has_gone_and_not_before(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.3)

    def lingers(cfg: DictConfig) -> int:
        threading.Thread(target=lambda: time.sleep(600)).start()  # not a daemon: Python waits for it
        return os.getpid()

    executor = make(lingers)
    executor.submit(job())
    outcome = end(executor)
    assert outcome.kind == Kind.COMPLETE
    assert gone(outcome.value)


def test_what_a_job_started_ends_with_it(make: Make) -> None:
    executor = make(lambda cfg: subprocess.Popen(["sleep", "600"]).pid)
    executor.submit(job())
    child = end(executor).value
    wait_for(lambda: gone(child))


def test_a_job_and_what_it_started_end_when_the_controller_is_gone(make: Make, tmp_path: Path) -> None:
    def starts(cfg: DictConfig) -> None:
        child = subprocess.Popen(["sleep", "600"])
        Path("pids.part").write_text(f"{os.getpid()} {child.pid}")
        os.rename("pids.part", "pids")
        child.wait()

    executor = make(starts)
    executor.submit(job())
    wait_for(Path("pids").exists)
    executor.busy[0].pipe.close()  # as the kernel does for a dead controller
    pids = [int(pid) for pid in Path("pids").read_text().split()]
    wait_for(lambda: all(map(gone, pids)))
    executor.busy.clear()


def stays() -> None:
    """In a process forked by a task: leave its log and the group's signals alone, and hold all else that it holds."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path("child.part").write_text(str(os.getpid()))
    os.rename("child.part", "child")
    while True:
        time.sleep(600)


@pytest.mark.parametrize("told", ["nothing", "a part", "all"])
def test_a_child_that_holds_the_pipe_does_not_hold_up_the_controller(make: Make, told: str) -> None:
    def partly(pipe: Connection, outcome: Outcome) -> None:
        os.write(pipe.fileno(), worker.HEAD.pack(1000) + b"the beginning")
        os._exit(1)

    def forks(cfg: DictConfig) -> float:
        if os.fork() == 0:
            stays()
        wait_for(Path("child").exists)
        if told == "nothing":
            os._exit(1)
        if told == "a part":
            worker.send = partly  # here, in the job's process
        return 2.5

    executor = make(forks)
    executor.submit(job())
    lost = Outcome(Kind.LOST, message="The process ended with exit code 1 and no result.")
    assert end(executor) == (Outcome(Kind.COMPLETE, value=2.5) if told == "all" else lost)
    wait_for(lambda: gone(int(Path("child").read_text())))


def test_what_a_process_prepared_for_a_job_has_forked_ends_with_it(make: Make) -> None:
    executor = make(lambda cfg: 0)
    executor.prepare(job())
    process = executor.prepared[0].process
    died = psutil.Process(process.pid)
    wait_for(lambda: len(died.children()) == 1)
    [itself] = died.children()
    died.kill()
    process.join()  # the fork server has told of it
    wait_for(lambda: gone(itself.pid))
    executor.submit(job())
    assert end(executor).kind == Kind.COMPLETE


def test_a_process_that_dies_as_it_is_sent_its_slot_is_told_of(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = make(lambda cfg: 0)
    executor.prepare(job())
    died = executor.prepared[0].process
    died.kill()
    died.join()
    with monkeypatch.context() as patch:
        patch.setattr(died, "is_alive", lambda: True)
        executor.submit(job())
    assert end(executor).kind == Kind.LOST


def test_a_child_that_comes_out_of_the_task_does_not_speak_for_it(make: Make) -> None:
    def forked(cfg: DictConfig) -> int:
        if (child := os.fork()) == 0:
            return 1
        os.waitpid(child, 0)
        return 2

    executor = make(forked)
    executor.submit(job())
    assert end(executor) == Outcome(Kind.COMPLETE, value=2)


@pytest.mark.parametrize("fault", ["exit", "segfault"])
def test_the_last_words_of_a_crash_are_in_the_log(make: Make, fault: str) -> None:
    def crashes(cfg: DictConfig) -> None:
        import ctypes

        print("last words")
        os._exit(3) if fault == "exit" else ctypes.string_at(0)

    executor = make(crashes)
    executor.submit(job())
    outcome = end(executor)
    assert outcome.kind == Kind.LOST
    written = Path("out/0/output.log").read_text()
    assert "last words" in written
    assert ("Segmentation fault" in written) == (fault == "segfault")
    assert ("exit code 3" if fault == "exit" else "SIGSEGV") in outcome.message


def test_a_kill_by_the_kernel_for_memory_is_told_from_others(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = tmp_path / "memory.events"
    counts.write_text("low 0\noom_kill 4\n")
    monkeypatch.setattr(module, "MEMORY_EVENTS", counts)
    executor = make(lambda cfg: os.kill(os.getpid(), signal.SIGKILL))
    counts.write_text("low 0\noom_kill 5\n")  # of somebody else, while the process was in reserve
    executor.submit(job())
    assert end(executor).kind == Kind.LOST

    def killed(cfg: DictConfig) -> None:
        counts.write_text("low 0\noom_kill 6\n")
        os.kill(os.getpid(), signal.SIGKILL)

    executor = make(killed)
    executor.submit(job(1))
    assert end(executor).kind == Kind.OUT_OF_MEMORY


def test_a_stop_reaches_those_that_run_and_those_that_are_yet_to_come(make: Make) -> None:
    def waits(cfg: DictConfig) -> None:
        Path(f"began {cfg.x}").touch()
        signal.pause()

    executor = make(waits, slots=2)
    executor.submit(job(0, "x=0"))
    wait_for(Path("began 0").exists)
    executor.stop()
    executor.submit(job(1, "x=1"))
    kinds = []
    while executor.running():
        kinds += [outcome.kind for _, outcome in executor.wait(60.0)]
    assert kinds == [Kind.INTERRUPTED] * 2


def test_one_job_can_be_dropped(make: Make) -> None:
    executor = make(lambda cfg: signal.pause(), slots=2)
    for number in (0, 1):
        executor.submit(job(number))
    executor.cancel(1)
    executor.cancel(7)
    [(dropped, outcome)] = executor.wait(60.0)
    assert (dropped.number, outcome.kind) == (1, Kind.LOST)
    assert list(executor.running()) == [0]


@pytest.mark.parametrize("parent", ["the job", "one that has left"])
def test_what_has_a_session_of_its_own_ends_with_a_job_that_is_killed(make: Make, parent: str) -> None:
    def waits(cfg: DictConfig) -> None:
        if os.fork() == 0:
            os.setsid()
            if parent != "the job" and os.fork():
                os._exit(0)
            stays()
        signal.pause()

    executor = make(waits)
    executor.submit(job())
    wait_for(Path("child").exists)
    child = psutil.Process(int(Path("child").read_text()))
    reaper = psutil.Process(executor.busy[0].process.pid)
    wait_for(lambda: child in reaper.children(recursive=parent == "the job"))
    executor.cancel(0)
    assert end(executor).kind == Kind.LOST
    wait_for(lambda: gone(child.pid))


class Hangs:
    """A watchdog that finds a trial to hang as soon as the task says so."""

    due = 0.01

    def check(self) -> str:
        return "It hangs" if Path("hangs").exists() else ""


@pytest.mark.parametrize("how", ["in Python", "in C, with the lock of the interpreter"])
def test_a_job_that_hangs_is_ended_with_all_it_started_and_its_stacks_are_told(
    make: Make, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Though it will not hear of SIGTERM."""
    monkeypatch.setattr(module, "DUMPING", 0.0)
    monkeypatch.setattr(module, "GRACE", 1e6)

    def hangs(cfg: DictConfig) -> None:
        import ctypes

        signal.signal(signal.SIGTERM, lambda *_: Path("asked").touch() if how == "in Python" else None)
        Path("child").write_text(str(subprocess.Popen(["sleep", "600"], start_new_session=False).pid))
        print("last words")
        sleep = ctypes.PyDLL(None).sleep
        os.mkdir("hangs")  # from here on this function is the innermost
        if how != "in Python":
            sleep(600)
        while True:
            time.sleep(600)

    executor = make(hangs)
    executor.submit(job())
    hung = executor.busy[0]
    hung.watchdog = Hangs()  # type: ignore[assignment]
    log = Path("out/0/output.log")
    while not (hung.leaving and "in hangs" in log.read_text()) or (how == "in Python" and not Path("asked").exists()):
        assert not executor.wait(0.01)
    hung.deadline = 0.0  # the grace is over
    outcome = end(executor)
    assert outcome.kind == Kind.TIMED_OUT
    assert outcome.message.startswith("It hangs, in test_executor.py, line ")
    assert "(most recent call first)" in outcome.traceback
    assert "in hangs" in outcome.traceback
    assert "last words" not in outcome.traceback
    wait_for(lambda: gone(int(Path("child").read_text())))


def test_a_job_that_hangs_ends_though_its_child_is_deaf_and_has_a_session_of_its_own(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DUMPING", 0.0)

    def hangs(cfg: DictConfig) -> None:
        if os.fork() == 0:
            os.setsid()
            stays()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        wait_for(Path("child").exists)
        Path("hangs").touch()
        time.sleep(600)

    executor = make(hangs)
    executor.submit(job())
    executor.busy[0].watchdog = Hangs()  # type: ignore[assignment]
    assert end(executor).kind == Kind.TIMED_OUT
    wait_for(lambda: gone(int(Path("child").read_text())))


def test_a_job_that_gives_no_stacks_is_told_of_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUMPING", 0.0)
    monkeypatch.setattr(module, "GRACE", 0.0)

    def stopped(cfg: DictConfig) -> None:
        Path("hangs").touch()
        os.kill(os.getpid(), signal.SIGSTOP)

    executor = make(stopped)
    executor.submit(job())
    wait_for(Path("hangs").exists)
    [hung] = psutil.Process(executor.busy[0].process.pid).children()
    wait_for(lambda: hung.status() == psutil.STATUS_STOPPED)
    executor.busy[0].watchdog = Hangs()  # type: ignore[assignment]
    outcome = end(executor)
    assert outcome == Outcome(
        Kind.TIMED_OUT, message="It hangs; there are no stacks: it was stopped, or deaf to signals."
    )


def test_what_a_job_still_comes_to_when_it_is_asked_to_leave_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DUMPING", 0.0)
    monkeypatch.setattr(module, "GRACE", 1e6)

    def late(cfg: DictConfig) -> float:
        signal.signal(signal.SIGTERM, lambda *_: Path("asked").touch())
        Path("hangs").touch()
        wait_for(Path("asked").exists)
        return 2.5

    executor = make(late)
    executor.submit(job())
    executor.busy[0].watchdog = Hangs()  # type: ignore[assignment]
    assert end(executor) == Outcome(Kind.COMPLETE, value=2.5)


def test_a_job_is_bounded_as_the_executor_is_told(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DUMPING", 0.0)
    executor = make(lambda cfg: time.sleep(600), bounds=TrialTimeout(total=0.1))
    executor.submit(job())
    outcome = end(executor)
    assert outcome.kind == Kind.TIMED_OUT
    assert "Not done after 0.1 s (hydra.sweeper.trial_timeout.total)" in outcome.message


def test_a_signal_to_the_controllers_group_leaves_the_fork_server_alone(make: Make) -> None:
    make(lambda cfg: 0)
    server = multiprocessing.forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    wait_for(lambda: os.getsid(server) == server)
    assert os.getpgid(server) != os.getpgid(0)


def test_a_task_that_cannot_be_sent_is_refused_at_once(make: Make) -> None:
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="inside the task function"):
        make(lambda cfg: lock)


class Unreadable:
    """Can be sent, and not be read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return _refuse, ("no such thing here",)

    def __call__(self, cfg: DictConfig) -> None:
        """Never called."""


def _refuse(why: str) -> None:
    raise RuntimeError(why)


def test_a_task_that_cannot_be_read_fails_and_says_why(make: Make) -> None:
    executor = make(Unreadable())
    executor.submit(job())
    outcome = end(executor)
    assert outcome.kind == Kind.FAILED
    assert "no such thing here" in outcome.message


def test_a_slot_has_its_gpu_and_its_share_of_the_cores(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    executor = make(
        lambda cfg: [os.environ[k] for k in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")], 2, gpus=["a", "b"]
    )
    values: dict[int, Any] = {}
    for number in (0, 1):
        executor.submit(job(number))
    while executor.running():
        values |= {one.number: outcome.value for one, outcome in executor.wait(60.0)}
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert values == {0: ["a", threads], 1: ["b", threads]}
