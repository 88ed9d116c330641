"""What a trial does to itself, to its parent and to its children costs that trial, and nothing of it is left."""

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import psutil
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.types import HydraContext
from omegaconf import DictConfig
from tests.steady.conftest import APP
from tests.steady.jobs.test_executor import Make, end, gone, job, make, wait_for

from steady.jobs import executor as module
from steady.jobs.executor import ProcessExecutor, Shared
from steady.study.failures import Kind, Outcome

__all__ = ["make"]
pytestmark = pytest.mark.security


@contextmanager
def traveling() -> Iterator[None]:
    """Tasks of this module travel whole, as those of `__main__` do."""
    modules = sys.modules[__name__], sys.modules["tests.steady.jobs.test_executor"]
    for one in modules:
        cloudpickle.register_pickle_by_value(one)
    yield
    for one in modules:
        cloudpickle.unregister_pickle_by_value(one)


@pytest.fixture(autouse=True)
def by_value() -> Iterator[None]:
    with traveling():
        yield


def leaves(how: str) -> int:
    """Start a process that would outlive its parent, and give its number."""
    told, tell = os.pipe()
    if (child := os.fork()) == 0:
        os.setsid()
        if how == "daemon" and os.fork():
            os._exit(0)
        if how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(tell, str(os.getpid()).encode())
        while True:
            signal.pause()
    if how == "daemon":
        os.waitpid(child, 0)
    return int(os.read(told, 20))


ENDS: dict[str, Callable[[], Any]] = {
    "returns": lambda: 1.0,
    "raises": lambda: 1 / 0,
    "sys.exit": lambda: sys.exit(0),
    "os._exit": lambda: os._exit(0),
    "abort": lambda: os.abort(),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "kill group": lambda: os.kill(0, signal.SIGKILL),
}


@pytest.mark.parametrize("ends", ENDS)
def test_what_has_a_session_of_its_own_ends_with_its_trial_however_that_ends(make: Make, ends: str) -> None:
    def task(cfg: DictConfig) -> Any:
        how = ("setsid", "daemon", "deaf")[list(ENDS).index(ends) % 3]
        Path("left").write_text(str(leaves(how)))
        return ENDS[ends]()

    executor = make(task)
    executor.submit(job())
    outcome = end(executor)
    assert gone(int(Path("left").read_text())), "the slot was free before"
    lost = ends in ("os._exit", "abort", "kill", "kill group")
    assert outcome.kind == (Kind.COMPLETE if ends == "returns" else Kind.LOST if lost else Kind.FAILED)
    if ends == "abort":
        assert outcome.message == "The process was ended by SIGABRT."


def test_what_has_a_session_of_its_own_ends_when_the_controller_is_gone(make: Make) -> None:
    def task(cfg: DictConfig) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        pids = [os.getpid(), leaves("daemon"), leaves("deaf")]
        Path("pids.part").write_text(" ".join(map(str, pids)))
        os.rename("pids.part", "pids")
        while True:
            signal.pause()

    executor = make(task)
    executor.submit(job())
    wait_for(Path("pids").exists)
    executor.busy[0].pipe.close()  # as the kernel does for a dead controller
    wait_for(lambda: all(gone(int(pid)) for pid in Path("pids").read_text().split()))
    executor.busy.clear()


def test_a_process_that_forks_on_and_on_is_ended(make: Make) -> None:
    def task(cfg: DictConfig) -> float:
        if os.fork() == 0:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            Path("started").write_text(str(os.getpid()))
            while True:  # each generation ends as soon as it has made the next
                if os.fork():
                    os._exit(0)
                time.sleep(0.001)
        wait_for(Path("started").exists)
        return 1.0

    executor = make(task)
    executor.submit(job())
    reaper = psutil.Process(executor.busy[0].process.pid)
    assert end(executor).kind == Kind.COMPLETE
    assert gone(reaper.pid)
    session = int(Path("started").read_text())
    assert [one for one in psutil.pids() if session_of(one) == session and not gone(one)] == []


def session_of(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:  # it has just ended
        return None


def test_what_loses_its_parent_while_the_trial_runs_leaves_no_zombie(make: Make) -> None:
    def task(cfg: DictConfig) -> list[int]:
        if (child := os.fork()) == 0:
            os.fork()
            os._exit(0)
        os.waitpid(child, 0)
        reaper = psutil.Process(os.getppid())
        wait_for(lambda: len(reaper.children(recursive=True)) == 1)
        return [os.getppid()]

    executor = make(task)
    executor.submit(job())
    assert end(executor).kind == Kind.COMPLETE


def closes_all() -> float:
    os.closerange(3, 1024)
    return 1.0


def writes_everywhere() -> float:
    for name in os.listdir("/proc/self/fd"):
        try:
            os.write(int(name), b"junk that is no message of ours, and not short")
        except OSError:
            continue
    return 1.0


def writes_a_small_message() -> float:
    """Of a size that could be, and no JSON."""
    for name in os.listdir("/proc/self/fd"):
        if Path(f"/proc/self/fd/{name}").is_socket():
            os.write(int(name), (9).to_bytes(8, "big") + b"no result")
    return 1.0


def deletes_its_folder() -> float:
    os.chdir("out/0")
    shutil.rmtree(os.getcwd())
    return 1.0


def has_no_limits_left() -> float:
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return 1.0


def handles_all_signals() -> float:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        try:
            signal.signal(number, signal.SIG_IGN)
        except OSError:
            continue
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    return 1.0


def is_stopped_by_its_task() -> float:
    os.kill(os.getppid(), signal.SIGSTOP)
    return 1.0


def never_ends() -> float:
    threading.Thread(target=lambda: time.sleep(1e6)).start()
    return 1.0


def hangs_at_exit() -> float:
    import atexit
    import multiprocessing.util

    atexit.register(time.sleep, 1e6)
    multiprocessing.util.Finalize(None, time.sleep, (1e6,), exitpriority=0)
    return 1.0


def to_parent(number: int) -> Callable[[], Any]:
    def task() -> None:
        os.kill(os.getppid(), number)
        time.sleep(1e6)

    return task


class Alone(BaseException):
    """No Exception."""


class Mute(Exception):
    """Raises when it is asked what it says."""

    def __str__(self) -> str:
        raise RuntimeError("no word")

    __repr__ = __str__


class Unsendable(Exception):
    """Cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("not sent")
        self.lock = threading.Lock()


class Deaf(Exception):
    """Whose cause cannot be had."""

    __cause__ = property(lambda self: 1 / 0)


def lies() -> Any:
    """Something that says it is a number."""

    class Liar:
        __class__ = float  # type: ignore[assignment]  # a lie

        def __float__(self) -> float:
            raise KeyboardInterrupt

        def __reduce__(self) -> tuple[object, ...]:
            return os._exit, (1,)

    return Liar()


def throws(error: BaseException) -> Callable[[], Any]:
    def task() -> None:
        raise error

    return task


def ring() -> list[Any]:
    one: list[Any] = []
    one.append(one)
    return one


def deep() -> Any:
    one: Any = []
    for _ in range(100_000):
        one = [one]
    return one


HARM: dict[str, tuple[Callable[[], Any], Kind, str]] = {
    # raised
    "KeyboardInterrupt": (throws(KeyboardInterrupt()), Kind.LOST, "nobody asked the sweep to stop: KeyboardInterrupt"),
    "GeneratorExit": (throws(GeneratorExit()), Kind.FAILED, "GeneratorExit"),
    "CancelledError": (throws(asyncio.CancelledError()), Kind.FAILED, "CancelledError"),
    "BaseException": (throws(Alone("here")), Kind.FAILED, "Alone: here"),
    "sys.exit(0)": (throws(SystemExit(0)), Kind.FAILED, "sys.exit(0)"),
    "sys.exit(text)": (throws(SystemExit("bye")), Kind.FAILED, "sys.exit('bye')"),
    "sys.exit()": (throws(SystemExit()), Kind.FAILED, "sys.exit(None)"),
    "sys.exit(mute)": (throws(SystemExit(Mute())), Kind.FAILED, "cannot be had: RuntimeError"),
    "mute": (throws(Mute()), Kind.FAILED, "Mute: (its text cannot be had: RuntimeError)"),
    "unpicklable": (lambda: throws(Unsendable())(), Kind.FAILED, "Unsendable: not sent"),
    "deaf": (throws(Deaf()), Kind.FAILED, "Deaf, of which ZeroDivisionError says no more"),
    "half a letter": (throws(ValueError("\udcff\0\x1b[2J")), Kind.FAILED, "\\udcff"),
    "long-winded": (throws(ValueError("x" * 30_000_000)), Kind.FAILED, "xxxx"),
    "group": (throws(BaseExceptionGroup("several", [KeyboardInterrupt(), ValueError()])), Kind.FAILED, "several"),
    # sent
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), Kind.LOST, "SIGTERM"),
    "SIGHUP": (lambda: os.kill(os.getpid(), signal.SIGHUP), Kind.LOST, "SIGHUP"),
    "SIGUSR1": (lambda: os.kill(os.getpid(), signal.SIGUSR1), Kind.LOST, "SIGUSR1"),
    "a signal without a name": (lambda: os.kill(os.getpid(), signal.SIGRTMIN + 3), Kind.LOST, "by signal "),
    "SIGTERM to the group": (lambda: os.kill(0, signal.SIGTERM), Kind.LOST, "SIGTERM"),
    "SIGKILL to the parent": (to_parent(signal.SIGKILL), Kind.LOST, "SIGKILL"),
    "SIGTERM to the parent": (to_parent(signal.SIGTERM), Kind.LOST, "SIGTERM"),
    "SIGHUP to the parent": (to_parent(signal.SIGHUP), Kind.LOST, "SIGKILL"),
    # returned
    "None": (lambda: None, Kind.COMPLETE, ""),
    "words": (lambda: "no number", Kind.COMPLETE, ""),
    "a lock": (threading.Lock, Kind.COMPLETE, ""),
    "a lie": (lies, Kind.LOST, "KeyboardInterrupt"),
    "enormous": (lambda: "x" * 30_000_000, Kind.FAILED, "30,000,"),
    "an enormous number": (lambda: 10**5000, Kind.FAILED, "digits"),
    "a ring": (ring, Kind.FAILED, "Circular"),
    "deep": (deep, Kind.FAILED, "RecursionError"),
    "odd keys": (lambda: {(1, 2): 3}, Kind.FAILED, "keys must be"),
    # done to itself
    "os._exit(255)": (lambda: os._exit(255), Kind.LOST, "exit code 255 and no result"),
    "closes all": (closes_all, Kind.LOST, "no result"),
    "writes everywhere": (writes_everywhere, Kind.LOST, "Something else than a result"),
    "writes a small message": (writes_a_small_message, Kind.LOST, "Something else than a result"),
    "deletes its folder": (deletes_its_folder, Kind.COMPLETE, ""),
    "has no limits left": (has_no_limits_left, Kind.COMPLETE, ""),
    "handles all signals": (handles_all_signals, Kind.COMPLETE, ""),
    "os.setsid": (os.setsid, Kind.FAILED, "PermissionError"),
    "os.setpgid": (lambda: os.setpgid(0, 0), Kind.COMPLETE, ""),
    "never ends": (never_ends, Kind.COMPLETE, ""),
    "hangs at exit": (hangs_at_exit, Kind.COMPLETE, ""),
    "stops its parent": (is_stopped_by_its_task, Kind.COMPLETE, ""),
}


def harmful(cfg: DictConfig) -> Any:
    return cfg.seconds if cfg.steps < 0 else list(HARM.values())[cfg.steps][0]()


@pytest.fixture(scope="module")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessExecutor]:
    """One for all harm: a slot goes on after each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("harm"))
        patch.setattr(module, "PATIENCE", 0.3)  # of those that do not leave
        patch.setenv("OMP_NUM_THREADS", "1")
        with traveling(), initialize_config_dir(str(APP)):
            config = compose("config", overrides=["hydra.sweep.dir=out"], return_hydra_config=True)
            context = HydraContext(config_loader=GlobalHydra.instance().config_loader(), callbacks=Callbacks())
            executor = ProcessExecutor(Shared.of(context, harmful, config), 1)
        yield executor
        executor.close()


def goes_on(executor: ProcessExecutor) -> bool:
    executor.submit(job(1, "steps=-1", "seconds=2.5"))
    return end(executor) == Outcome(Kind.COMPLETE, value=2.5)


@pytest.mark.parametrize("harm", HARM)
def test_what_a_task_does_costs_its_trial_and_no_other(executor: ProcessExecutor, harm: str) -> None:
    _, kind, words = HARM[harm]
    executor.submit(job(0, f"steps={list(HARM).index(harm)}"))
    outcome = end(executor)
    assert outcome.kind == kind, outcome
    assert words in outcome.message
    if kind == Kind.LOST:  # of the others, the next harm tells as much
        assert goes_on(executor)


def test_after_all_that_the_slot_goes_on(executor: ProcessExecutor) -> None:
    assert goes_on(executor)


def test_an_interruption_that_was_asked_for_is_none_that_is_lost(make: Make) -> None:
    def task(cfg: DictConfig) -> None:
        def asked(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, asked)
        Path("began").touch()
        while True:
            signal.pause()

    executor = make(task)
    executor.submit(job())
    wait_for(Path("began").exists)
    executor.stop()
    assert end(executor).kind == Kind.INTERRUPTED


def test_a_killed_fork_server_loses_what_ran_and_leaves_nothing_and_slots_go_on(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 120.0)

    def task(cfg: DictConfig) -> float:
        if cfg.x:
            return float(cfg.x)
        pids = [os.getpid(), os.getppid(), leaves("deaf")]
        Path("pids").write_text(" ".join(map(str, pids)))
        psutil.Process(os.getppid()).parent().kill()
        time.sleep(1e6)
        return 0.0

    executor = make(task)
    executor.submit(job())
    assert end(executor).kind == Kind.LOST
    assert all(gone(int(pid)) for pid in Path("pids").read_text().split())
    executor.submit(job(1, "x=2"))
    assert end(executor).value == 2.0


def test_without_the_fork_server_nothing_goes_on_though_the_controller_is_busy(make: Make) -> None:
    def task(cfg: DictConfig) -> None:
        Path("pids.part").write_text(f"{os.getpid()} {os.getppid()} {leaves('deaf')}")
        os.rename("pids.part", "pids")
        psutil.Process(os.getppid()).parent().kill()
        time.sleep(1e6)

    executor = make(task)
    executor.submit(job())
    wait_for(Path("pids").exists)
    wait_for(lambda: all(gone(int(pid)) for pid in Path("pids").read_text().split()))
    assert end(executor).kind == Kind.LOST


def test_what_a_task_that_kills_its_reaper_started_ends_with_it(make: Make) -> None:
    def task(cfg: DictConfig) -> None:
        Path("child").write_text(str(subprocess.Popen(["sleep", "600"]).pid))
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(1e6)

    executor = make(task)
    executor.submit(job())
    assert end(executor).kind == Kind.LOST
    wait_for(lambda: gone(int(Path("child").read_text())))


def test_children_of_the_app_itself_are_let_be(make: Make) -> None:
    """Those of the controller's process, which are none of ours."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as beside, subprocess.Popen(["true"]) as ended:
        executor = make(lambda cfg: os.kill(os.getppid(), int(cfg.x)))
        for number in (0, signal.SIGKILL):
            executor.submit(job(number, f"x={number}"))
            end(executor)
        executor.close()
        assert beside.poll() is None
        assert ended.wait() == 0  # its end is told to the app
        beside.kill()
