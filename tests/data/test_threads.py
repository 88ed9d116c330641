import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import cv2
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catsweep.data.threads import ByteSemaphore, in_order, trim_heap, watched


def test_results_come_in_the_order_of_the_tasks() -> None:
    def slow_at_first(number: int) -> int:
        time.sleep(0.01 if number % 7 == 0 else 0)
        return number * number

    assert list(in_order(slow_at_first, range(100))) == [number * number for number in range(100)]


def test_few_results_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    tasks = iter(range(1000))
    next(in_order(lambda number: number, tasks))
    assert next(tasks) < 20


def test_an_error_of_the_work_is_raised_and_opencv_gets_its_threads_back() -> None:
    before = cv2.getNumThreads()

    def work(number: int) -> int:
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(100)))
    assert cv2.getNumThreads() == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_watching_changes_nothing_and_is_silent_where_nobody_looks(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(watched(iter("abc"), 3, "title")) == ["a", "b", "c"]
    assert capfd.readouterr().err == ""


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(0, 150), min_size=1, max_size=30), threads=st.integers(1, 8))
def test_all_come_in_and_never_too_many_at_a_time(sizes: list[int], threads: int) -> None:
    budget, lock, held, most = ByteSemaphore(100), threading.Lock(), [0], [0]

    def work(size: int) -> None:
        with budget.hold(size):
            with lock:
                held[0] += min(size, 100)
                most[0] = max(most[0], held[0])
            time.sleep(0)
            with lock:
                held[0] -= min(size, 100)

    with ThreadPoolExecutor(threads) as pool:
        assert len(list(pool.map(work, sizes, timeout=60))) == len(sizes)
    assert most[0] <= 100
    assert held[0] == 0


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_small_needs_are_met_at_the_same_time_and_a_large_one_is_not_overtaken() -> None:
    budget, order, let_go = ByteSemaphore(100), [], threading.Event()

    def wait(name: str, size: int) -> None:
        with budget.hold(size):
            order.append(name)
            assert let_go.wait(30)

    with ThreadPoolExecutor(4) as pool:
        pool.submit(wait, "first", 40)
        wait_for(lambda: len(order) == 1)
        pool.submit(wait, "second", 40)
        wait_for(lambda: len(order) == 2)
        pool.submit(wait, "large", 100)
        wait_for(budget._queue.locked)
        pool.submit(wait, "third", 10)
        time.sleep(0.2)
        assert order == ["first", "second"]
        let_go.set()
    assert order == ["first", "second", "large", "third"]


def test_an_error_gives_back_what_was_held() -> None:
    budget = ByteSemaphore(10)
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        _ = 1 / 0
    with budget.hold(10):
        pass


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can give memory back")
def test_freed_memory_is_given_back() -> None:
    kept = [bytes(range(256)) * 256 for _ in range(1600)]  # 100 MiB in blocks of 64 KiB, which glibc keeps
    last = kept.pop()
    del kept
    before = psutil.Process().memory_info().rss
    trim_heap()
    assert psutil.Process().memory_info().rss < before
    assert last


def test_where_memory_cannot_be_given_back_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctypes.CDLL", lambda _: object())
    trim_heap()
