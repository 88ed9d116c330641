"""Jobs in allocations of an engine that is a fake: real processes, which sleep, crash, are cancelled and adopted."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hydra.types import HydraContext
from omegaconf import DictConfig
from tests.steady.fake_engine import FakeEngine

from steady.exceptions import ConfigError
from steady.jobs import cluster_executor
from steady.jobs.cluster_executor import ClusterExecutor
from steady.jobs.engine import State, Status
from steady.jobs.executor import Job, Shared
from steady.jobs.job_files import ORDERS, SHARED, JobFiles, Left, Leftovers
from steady.options import TrialTimeout
from steady.study.failures import Kind, Outcome

pytestmark = pytest.mark.usefixtures("by_value")

Make = Callable[..., ClusterExecutor]


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    engine.end()


@pytest.fixture
def make(app: tuple[HydraContext, DictConfig], engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> Make:
    context, config = app
    monkeypatch.setattr(cluster_executor, "ASK", 0.1)  # so near an engine need not be spared
    monkeypatch.setattr(cluster_executor, "POLL", 0.02)

    def one(task: Callable[[DictConfig], Any], slots: int = 1, **keys: Any) -> ClusterExecutor:
        keys = {"engine": engine, "root": Path("jobs"), **keys}
        return ClusterExecutor(shared=Shared.of(context, task, config), slots=slots, **keys)

    return one


def job(number: int = 0, *overrides: str, attempt: int = 0) -> Job:
    return Job(number, overrides, Path(f"out/{number}"), attempt=attempt)


def end(executor: ClusterExecutor) -> Outcome:
    while not (ended := executor.wait(60.0)):
        pass
    [(_, outcome)] = ended
    return outcome


def wait_for(what: Callable[[], bool]) -> None:
    while not what():
        time.sleep(0.02)


def report(executor: ClusterExecutor, slot: int = 0) -> Any:
    return executor.busy[slot].files.report()


def sleeps(cfg: DictConfig) -> float:
    """Goes on until it is asked to stop, and says so as a task at a checkpoint does."""
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    Path("begun").touch()
    while not asked:
        time.sleep(0.02)
    raise KeyboardInterrupt("at a checkpoint")


def waits(cfg: DictConfig) -> float:
    """Goes on until there is a file "go"; each that began has added a letter to "begun"."""
    with Path("begun").open("a") as file:
        file.write("x")
    while not Path("go").exists():
        time.sleep(0.02)
    return float(cfg.x)


def test_an_allocation_serves_jobs_one_after_the_other(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: [cfg.x, os.getpid(), os.getcwd()])
    values = []
    for number in range(3):
        assert executor.submit(job(number, f"x={number}.5")) == 0
        assert executor.running()[0].number == number
        values.append(end(executor).value)
        assert not executor.running()
    assert [value[0] for value in values] == [0.5, 1.5, 2.5]
    assert len({value[1] for value in values}) == 3  # each has a process of its own
    assert {value[2] for value in values} == {os.getcwd()}
    assert len(engine.processes) == 1
    executor.close()
    assert engine.closed
    assert engine.processes["1"].poll() == 0
    assert not list(executor.folder.parent.rglob("*.json"))
    assert not executor.folder.exists()


def test_an_allocation_ends_after_as_many_jobs_as_it_may_serve(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: 0.0, trials_per_job=2)
    for number in range(3):
        executor.submit(job(number))
        assert end(executor).kind == Kind.COMPLETE
    assert len(engine.processes) == 2
    assert engine.processes["1"].wait() == 0
    executor.close()


def test_an_allocation_that_finds_no_job_makes_room_for_one_that_waits(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: float(cfg.x), slots=2)
    executor.submit(job(0, "x=1.0"))
    engine.queue = True  # there is room for one
    executor.submit(job(1, "x=2.0"))
    assert end(executor).value == 1.0
    assert len(executor.free) == 1
    while executor.free:
        assert executor.wait(0.1) == []
    files = JobFiles(engine.commands["1"][1])
    assert files.orders().more is False
    assert engine.processes["1"].wait() == 0
    engine.let_go("2")
    assert end(executor).value == 2.0
    executor.close()


def test_slots_run_beside_each_other_and_each_has_its_own_allocation(make: Make, engine: FakeEngine) -> None:
    def meet(cfg: DictConfig) -> float:
        Path(f"here-{cfg.x}").touch()
        while not (Path("here-1").exists() and Path("here-2").exists()):
            time.sleep(0.02)
        return float(cfg.x)

    executor = make(meet, slots=2)
    assert [executor.submit(job(0, "x=1")), executor.submit(job(1, "x=2"))] == [0, 1]
    values: dict[int, Any] = {}
    while executor.running():
        values |= {one.number: outcome.value for one, outcome in executor.wait(60.0)}
    assert values == {0: 1.0, 1: 2.0}
    assert len(engine.processes) == 2
    executor.close()


def test_failures_are_told_as_they_are(make: Make) -> None:
    def fails(cfg: DictConfig) -> float:
        if cfg.y == "a":
            raise MemoryError("too wide")
        if cfg.y == "b":
            os._exit(3)
        raise RuntimeError("no")

    executor = make(fails)
    kinds = []
    for number, y in enumerate("abc"):
        executor.submit(job(number, f"y={y}"))
        kinds.append(end(executor).kind)
    assert kinds == [Kind.OUT_OF_MEMORY, Kind.LOST, Kind.FAILED]
    executor.close()


def test_a_job_that_hangs_is_ended_where_it_runs(make: Make) -> None:
    executor = make(lambda cfg: time.sleep(600), bounds=TrialTimeout(total=3.0))
    executor.submit(job())
    outcome = end(executor)
    assert (outcome.kind, outcome.message[:16]) == (Kind.TIMED_OUT, "Not done after 3")
    assert Path(__file__).name in outcome.traceback  # where it hung
    executor.close()


def test_the_engine_says_what_became_of_a_job_that_left_no_result(make: Make, engine: FakeEngine) -> None:
    executor = make(sleeps)
    executor.submit(job())
    wait_for(Path("begun").exists)
    engine.told["1"] = Status(State.ENDED, kind=Kind.OUT_OF_MEMORY, message="its node had no memory left")
    assert end(executor) == Outcome(Kind.OUT_OF_MEMORY, message="its node had no memory left")
    executor.close()


def test_a_command_that_cannot_start_is_shown(make: Make, engine: FakeEngine) -> None:
    executor = make(sleeps)
    (executor.folder / SHARED).write_bytes(b"{}\nevil")
    executor.submit(job())
    outcome = end(executor)
    assert (outcome.kind, "exit code 1" in outcome.message) == (Kind.LOST, True)
    assert "is not what the controller has written" in outcome.message
    log = executor.folder / "2" / "engine.log"
    assert str(log) in outcome.message
    assert "is not what the controller has written" in outcome.traceback
    assert len(engine.processes) == 2  # once more, at no cost; then it is the job's fault
    executor.close()
    assert log.read_text()


def test_a_job_whose_allocation_died_before_it_began_is_sent_once_more(make: Make, engine: FakeEngine) -> None:
    engine.queue = True
    executor = make(lambda cfg: 4.0)
    executor.submit(job())
    engine.told["1"] = Status(State.ENDED, message="its node did not boot")
    while len(engine.commands) < 2:
        assert executor.wait(0.1) == []
    engine.let_go("2")
    assert end(executor).value == 4.0
    executor.close()


def test_one_that_left_as_it_had_waited_for_too_long_is_replaced(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: float(cfg.x))
    executor.submit(job(0, "x=1.0"))
    assert end(executor).value == 1.0
    engine.processes["1"].terminate()
    engine.processes["1"].wait()
    executor.submit(job(1, "x=2.0"))
    assert end(executor).value == 2.0
    assert len(engine.processes) == 2
    executor.close()


def test_an_engine_that_refuses_ends_the_sweep_and_one_that_is_away_is_waited_for(
    make: Make, engine: FakeEngine
) -> None:
    executor = make(lambda cfg: 1.0)
    engine.refuses = True
    with pytest.raises(ConfigError, match="no such partition"):
        executor.submit(job())
    engine.refuses, engine.away = False, True
    executor.submit(job())
    assert executor.wait(0.3) == []
    assert not engine.processes
    engine.away = False
    assert end(executor).value == 1.0
    executor.close()


def test_to_stop_takes_what_waits_out_of_the_queue_and_lets_the_rest_come_to_a_checkpoint(
    make: Make, engine: FakeEngine
) -> None:
    executor = make(sleeps, slots=2)
    executor.submit(job(0))
    wait_for(Path("begun").exists)
    engine.queue = True
    executor.submit(job(1))
    executor.stop()
    ended: dict[int, Outcome] = {}
    while executor.running():
        ended |= {one.number: outcome for one, outcome in executor.wait(60.0)}
    assert {number: outcome.kind for number, outcome in ended.items()} == {0: Kind.INTERRUPTED, 1: Kind.INTERRUPTED}
    assert "at a checkpoint" in ended[0].message
    assert {number: outcome.began for number, outcome in ended.items()} == {0: True, 1: False}
    assert engine.cancelled == ["2"]
    executor.close()
    assert engine.processes["1"].poll() == 0


def test_a_second_wish_to_stop_cancels(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: (signal.signal(signal.SIGTERM, signal.SIG_IGN), Path("begun").touch(), time.sleep(600)))
    executor.submit(job())
    wait_for(Path("begun").exists)
    executor.stop()
    assert executor.wait(2.0) == []
    executor.kill()
    assert end(executor).kind in (Kind.LOST, Kind.INTERRUPTED)
    assert engine.cancelled == ["1"]
    executor.close()


@pytest.mark.parametrize(("cancelled", "kind"), [(False, Kind.INTERRUPTED), (True, Kind.LOST)])
def test_a_time_limit_interrupts_and_to_be_cancelled_costs_a_retry(
    make: Make, engine: FakeEngine, cancelled: bool, kind: Kind
) -> None:
    executor = make(sleeps)
    executor.submit(job())
    wait_for(Path("begun").exists)
    engine.processes["1"].terminate()
    if cancelled:
        engine.cancelled.append("1")
    assert end(executor).kind == kind
    executor.close()


def test_one_that_came_to_no_checkpoint_before_its_time_limit_was_lost(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: (Path("begun").touch(), time.sleep(600)))
    executor.submit(job())
    wait_for(Path("begun").exists)
    engine.processes["1"].terminate()
    assert end(executor).kind == Kind.LOST
    executor.close()


def test_a_job_outlives_its_controller_and_the_next_one_adopts_it(make: Make, engine: FakeEngine) -> None:
    first = make(waits)
    first.submit(job(3, "x=7.0"))
    wait_for(Path("begun").exists)
    second = make(waits)
    assert second.adopt(job(4)) is None
    assert second.adopt(job(3, attempt=1)) is None
    assert second.adopt(job(3)) == 0
    assert second.running()[0].number == 3
    assert second.wait(0.2) == []
    Path("go").touch()
    assert end(second).value == 7.0
    assert len(engine.processes) == 1
    second.close()
    assert engine.processes["1"].poll() == 0  # it waits for no other job


@pytest.mark.parametrize("fault", ["damaged orders", "an engine that forgets"])
def test_a_job_that_gives_signs_of_life_is_not_lost(make: Make, engine: FakeEngine, fault: str) -> None:
    """Else a second one would run beside it."""

    first = make(waits)
    first.submit(job(0, "x=7.0"))
    wait_for(Path("begun").exists)
    if fault == "damaged orders":
        (orders,) = first.root.glob("*/*/orders.json")
        orders.write_text('{"controller": ')
    else:
        engine.statuses = lambda ids: {}
    second = make(waits)
    assert second.adopt(job()) == 0
    assert second.wait(0.6) == []  # it has asked the engine more than twice
    Path("go").touch()
    assert end(second).value == 7.0
    assert len(engine.processes) == 1


def test_an_outcome_waits_for_whoever_goes_on(make: Make, engine: FakeEngine) -> None:
    first = make(lambda cfg: 5.0, trials_per_job=1)
    first.submit(job())
    engine.processes["1"].wait()
    second = make(lambda cfg: 6.0)
    second.adopt(job())
    assert end(second).value == 5.0
    second.close()


def test_a_job_that_waits_in_the_queue_is_adopted_too(make: Make, engine: FakeEngine) -> None:
    engine.queue = True
    first = make(lambda cfg: float(cfg.x))
    first.submit(job(0, "x=2.0"))
    second = make(lambda cfg: 6.0)
    second.adopt(job())
    assert second.wait(0.2) == []
    engine.let_go("1")
    assert end(second).value == 2.0
    second.close()


def test_a_controller_that_slept_lets_go_of_what_another_has_adopted(make: Make, engine: FakeEngine) -> None:
    first = make(sleeps)
    first.submit(job())
    wait_for(Path("begun").exists)
    second = make(sleeps)
    second.adopt(job())
    first.cancel(0)
    assert end(first).kind == Kind.INTERRUPTED
    first.close()
    assert not engine.cancelled
    assert engine.processes["1"].poll() is None
    second.cancel(0)
    end(second)
    assert engine.cancelled == ["1"]
    second.close()


def test_another_executor_dismisses_what_runs_and_gets_what_came_of_it(make: Make, engine: FakeEngine) -> None:
    executor = make(sleeps, slots=2)
    executor.submit(job(0))
    wait_for(Path("begun").exists)
    engine.queue = True
    executor.submit(job(1))
    leftovers = Leftovers(executor.root)
    assert leftovers.dismiss(job(2)) is Left.NOTHING
    assert leftovers.dismiss(job(1)) is Left.NOTHING  # in the queue: it will not begin
    assert leftovers.dismiss(job(0)) is Left.STOPPING
    while (left := leftovers.dismiss(job(0))) is Left.STOPPING:
        time.sleep(0.1)
    assert isinstance(left, Outcome)
    assert left.kind == Kind.INTERRUPTED
    engine.let_go("2")
    assert engine.processes["2"].wait() == 0
    told = JobFiles(engine.commands["2"][1]).report().outcome
    assert (told.message, told.began) == ("It was taken back before it began.", False)
    assert not Path("out/1").exists()


def test_what_died_in_silence_is_not_waited_for(make: Make, engine: FakeEngine) -> None:
    executor = make(sleeps)
    executor.submit(job())
    wait_for(Path("begun").exists)
    engine.end()
    now = [0.0]
    leftovers = Leftovers(executor.root, clock=lambda: now[0])
    assert leftovers.dismiss(job()) is Left.STOPPING
    now[0] = 59.0
    assert leftovers.dismiss(job()) is Left.STOPPING
    now[0] = 61.0
    assert leftovers.dismiss(job()) is Left.NOTHING


def test_an_engine_that_starts_an_allocation_twice_runs_its_job_once(make: Make, engine: FakeEngine) -> None:
    executor = make(waits)
    executor.submit(job(0, "x=1.0"))
    wait_for(Path("begun").exists)
    first = engine.processes["1"]
    engine.let_go("1")
    assert engine.processes["1"].wait() == 0
    engine.processes["1"] = first
    Path("go").touch()
    assert end(executor).value == 1.0
    assert Path("begun").read_text() == "x"
    executor.close()


def test_slot_variables_are_for_local_slots_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "the engine's")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    executor = make(lambda cfg: [os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]])
    executor.submit(job())
    assert end(executor).value == ["the engine's", "3"]
    executor.close()


@pytest.mark.security
def test_files_that_are_not_ours_are_no_orders(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: 1.0)
    executor.submit(job())
    assert end(executor).value == 1.0
    for text in ("", "[]", "{", '{"job": 3}', "null", json.dumps({"allocation": "../../etc", "sequence": 1})):
        path = executor.root / "trials" / "" / "9-0.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        assert make(lambda cfg: 1.0).adopt(job(9)) is None
        (Path("x") / ORDERS).parent.mkdir(exist_ok=True)
        (Path("x") / ORDERS).write_text(text)
        assert JobFiles(Path("x")).orders() is None
    executor.close()


def test_no_process_of_an_allocation_is_left(make: Make, engine: FakeEngine) -> None:
    executor = make(lambda cfg: os.getpid())
    executor.submit(job())
    [pid] = [end(executor).value]
    executor.close()
    assert not psutil.pid_exists(pid)
